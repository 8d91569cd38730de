//! Recovery: resumes sessions that no process is running.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use guestlane_genesys::{CallContext, Priority};
use guestlane_runtime::FailPoint;
use tracing::warn;

use crate::{
    Error,
    engine::{CreatedSession, SessionEngine},
};

/// How often the recovery worker looks for abandoned sessions.
const RECOVER_EVERY: Duration = Duration::from_millis(500);

/// How many abandoned sessions are resumed concurrently.
const RECOVERY_CONCURRENCY: u32 = 32;

impl SessionEngine {
    /// Claims sessions that no process is running, resumes each, and returns the results. Returns
    /// an empty vector if there are none.
    ///
    /// # Errors
    /// Returns an error if the store fails or the organization cannot be checked. The result of
    /// each session is in the vector.
    pub async fn recover_abandoned(&self) -> Result<Vec<Result<CreatedSession, Error>>, Error> {
        if self.saga.store.unfinished().await? == 0 {
            return Ok(Vec::new());
        }
        self.check_organization(&CallContext::until(self.saga.clock.now() + self.deadline))
            .await?;
        // Resuming a session makes calls again. On a failing platform, the retry budget bounds them
        // like any other retry.
        let budget = self.saga.platform.budget();
        let paid = budget.withdraw(RECOVERY_CONCURRENCY);
        let taken = if paid == 0 {
            Vec::new()
        } else {
            self.saga
                .store
                .claim_due(paid, self.saga.clock.now())
                .await?
        };
        budget.refund(paid - u32::try_from(taken.len()).unwrap_or(paid).min(paid));
        if !taken.is_empty() {
            self.saga.fail_points.hit(FailPoint::SessionClaimed).await;
        }
        let resumed = stream::iter(taken).map(async |session| {
            let resumed = self.resume_with(session, Priority::Background).await;
            if resumed.is_ok() {
                self.saga.platform.budget().refund(1);
            }
            resumed
        });
        Ok(resumed
            .buffer_unordered(RECOVERY_CONCURRENCY as usize)
            .collect()
            .await)
    }

    /// Runs [`recover_abandoned`](Self::recover_abandoned) periodically; never returns.
    pub(crate) async fn recovery_loop(&self) {
        loop {
            match self.recover_abandoned().await {
                Ok(resumed) => {
                    for error in resumed.iter().filter_map(|resumed| resumed.as_ref().err()) {
                        warn!(
                            error = (self.diagnose)(error).message,
                            session = error.session().map(|id| id.to_string()),
                            correlation_id = error.correlation_id(),
                            "failed to complete an unfinished session"
                        );
                    }
                }
                Err(error @ Error::Settings(_)) => warn!(
                    error = (self.diagnose)(&error).message,
                    "unfinished sessions are not completed"
                ),
                Err(error) => guestlane_store::log_failure(
                    &error,
                    "failed to look up unfinished sessions; retrying",
                ),
            }
            self.saga.clock.sleep(RECOVER_EVERY).await;
        }
    }
}
