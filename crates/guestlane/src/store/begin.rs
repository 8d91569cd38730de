//! Decides whether a caller that presents an idempotency key runs the saga, waits, or gets a replay.

use guestlane_genesys::Timestamp;

use crate::session::{Availability, IllegalTransition, SessionRecord};

/// What asking under a key came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BeginOutcome {
    /// The caller runs the saga: the session is new, or its lease has expired.
    Acquired(SessionRecord),
    /// It is done already.
    AlreadyCompleted(SessionRecord),
    /// Somebody else drives it.
    InProgress(SessionRecord),
    /// The key is another wish's.
    KeyReused(SessionRecord),
    /// It needs the attention of an operator.
    NeedsAttention(SessionRecord),
}

/// The outcome for an idempotency key that a session already has; or, if that session can be
/// claimed, the claim.
pub(super) enum ExistingKey {
    /// Nothing changes.
    Resolved(Box<BeginOutcome>),
    /// It is driven from now on, under a new epoch; and in another way, if `anew`.
    Claim { before: Box<SessionRecord>, after: Box<SessionRecord>, anew: bool },
}

/// `known` has the key that `new` asks for.
pub(super) fn verdict(known: SessionRecord, new: &SessionRecord, now: Timestamp) -> Result<ExistingKey, IllegalTransition> {
    if known.request.fingerprint() != new.request.fingerprint() {
        return Ok(ExistingKey::Resolved(BeginOutcome::KeyReused(known).into()));
    }
    Ok(match known.availability_at(now) {
        Availability::Completed => ExistingKey::Resolved(BeginOutcome::AlreadyCompleted(known).into()),
        Availability::NeedsAttention => ExistingKey::Resolved(BeginOutcome::NeedsAttention(known).into()),
        Availability::Unavailable => ExistingKey::Resolved(BeginOutcome::InProgress(known).into()),
        Availability::Claimable => {
            let mut after = known.clone().claimed(now)?;
            // What surely was not done is done as the settings say now: a wrong deployment, for one, may be the right one by now.
            let same_kind = after.surface_binding.surface().is_public_api() == new.surface_binding.surface().is_public_api();
            let anew = known.can_restart() && (after.contact_id.is_none() || same_kind);
            if anew {
                after.surface_binding = new.surface_binding.clone();
                after.contact_without_identifier = new.contact_without_identifier;
            }
            ExistingKey::Claim { before: known.into(), after: after.into(), anew }
        }
    })
}
