//! Quarantine of OAuth clients that the platform rejects.

use tracing::warn;

use super::ClientPool;
use crate::error::AttemptError;

impl ClientPool {
    /// Quarantines a client whose token request was rejected, and returns whether it was. Any other
    /// failure is not the client's fault.
    pub(super) fn quarantine_if_rejected(&self, client: usize, error: &AttemptError) -> bool {
        if error.refusal().is_none() {
            return false;
        }
        let now = self.clock.monotonic();
        let quarantined = self.turns().clients[client].quarantine(now);
        if self.clients.len() > 1 {
            let (client, seconds) = (self.clients[client].client_id(), quarantined.as_secs());
            warn!(
                client,
                seconds,
                error = error.redacted(),
                "the platform rejected an OAuth client; quarantining it"
            );
        }
        true
    }
}
