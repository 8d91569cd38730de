//! The guest token of a session: signed again at each run, and reissued where that is safe.

use guestlane_core::{
    audit::Status,
    session::{Failure, SessionRecord},
    token::{GuestToken, TokenError, TokenIdentity},
};
use guestlane_genesys::Category;
use guestlane_runtime::FailPoint;

use super::executor::{SagaExecutor, SagaRun};
use crate::Error;

impl SagaExecutor {
    /// Signs the guest token, for the first time or again.
    ///
    /// The same identity gives the same bytes. The platform refuses a repeated key with a different
    /// body.
    pub(super) async fn sign(
        &self,
        session: &SessionRecord,
        run: &SagaRun,
    ) -> Result<GuestToken, Error> {
        match self.sign_for(session) {
            Ok(token) => Ok(token),
            Err(error) => {
                self.platform.stats().count(Category::TokenValidation);
                let failure = Failure {
                    code: "token_validation".to_owned(),
                    message: error.to_string(),
                };
                let after = session.clone().backed_off(failure, 0, self.clock.now())?;
                self.commit(self.transition(session, after, Some(Status::Failed), run))
                    .await?;
                Err(error.into())
            }
        }
    }

    /// Returns the signed guest token of a session.
    ///
    /// # Errors
    /// Returns [`TokenError`] if the key ring cannot sign for the session's token identity.
    pub(crate) fn sign_for(&self, session: &SessionRecord) -> Result<GuestToken, TokenError> {
        self.keys.ring().sign(
            &session.request.guest,
            &session.request.attributes,
            &session.token,
        )
    }

    /// Replaces the guest token by a fresh one, signed with the signing key that is active now.
    ///
    /// This is safe only if the platform has not taken the platform key with the old token: it
    /// refused that token, or never received it.
    pub(super) async fn reissue_guest_token(
        &self,
        session: SessionRecord,
        tries: u32,
        run: &SagaRun,
    ) -> Result<SessionRecord, Error> {
        let now = self.clock.now();
        let identity = TokenIdentity::new(self.keys.ring().active(now).kid(), now);
        let after = session.clone().token_renewed(identity, tries, now)?;
        let renewed = self
            .commit(self.transition(&session, after, None, run))
            .await?;
        self.fail_points.hit(FailPoint::TokenRenewed).await;
        Ok(renewed)
    }
}
