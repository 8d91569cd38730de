//! Decides whether a caller that presents an idempotency key runs the saga, waits, or gets a
//! replay.

use guestlane_runtime::Timestamp;

use guestlane_core::session::{Availability, IllegalTransition, SessionRecord};

/// The outcome of presenting an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BeginOutcome {
    /// The caller runs the saga: the session is new, or its lease has expired.
    Acquired(SessionRecord),
    /// The session is open already: replay its result.
    AlreadyCompleted(SessionRecord),
    /// Another caller runs the saga, or its lease has not expired.
    InProgress(SessionRecord),
    /// Another request used the key.
    KeyReused(SessionRecord),
    /// The session needs the attention of an operator.
    NeedsAttention(SessionRecord),
}

/// The outcome for an idempotency key that a session already has; or, if that session can be
/// claimed, the claim.
pub(super) enum ExistingKey {
    /// The store does not change.
    Resolved(Box<BeginOutcome>),
    /// The caller claims the session under a new epoch. With `anew`, the saga restarts under the
    /// present settings.
    Claim {
        before: Box<SessionRecord>,
        after: Box<SessionRecord>,
        anew: bool,
    },
}

/// Decides the outcome for `new`, whose idempotency key the session `known` has.
pub(super) fn verdict(
    known: SessionRecord,
    new: &SessionRecord,
    now: Timestamp,
) -> Result<ExistingKey, IllegalTransition> {
    if known.request.fingerprint() != new.request.fingerprint() {
        return Ok(ExistingKey::Resolved(BeginOutcome::KeyReused(known).into()));
    }
    Ok(match known.availability_at(now) {
        Availability::Completed => {
            ExistingKey::Resolved(BeginOutcome::AlreadyCompleted(known).into())
        }
        Availability::NeedsAttention => {
            ExistingKey::Resolved(BeginOutcome::NeedsAttention(known).into())
        }
        Availability::Unavailable => ExistingKey::Resolved(BeginOutcome::InProgress(known).into()),
        Availability::Claimable => {
            let mut after = known.clone().claimed(now)?;
            // Steps that certainly had no effect restart under the present settings. An operator
            // may have corrected them, for example a wrong deployment.
            let same_kind = after.surface_binding.surface().is_public_api()
                == new.surface_binding.surface().is_public_api();
            let anew = known.can_restart() && (after.contact_id.is_none() || same_kind);
            if anew {
                after.surface_binding = new.surface_binding.clone();
                after.contact_without_identifier = new.contact_without_identifier;
            }
            ExistingKey::Claim {
                before: known.into(),
                after: after.into(),
                anew,
            }
        }
    })
}
