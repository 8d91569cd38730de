//! Who asked first under a key, and what the others are told.

use guestlane_genesys::Timestamp;

use crate::ledger::{IllegalMove, Session, Standing};

/// What asking under a key came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// The session is the caller's to drive: a new one, or one that nobody drives any more.
    Drive(Session),
    /// It is done already.
    Done(Session),
    /// Somebody else drives it.
    Running(Session),
    /// The key is another wish's.
    Mismatch(Session),
    /// It needs a person.
    NeedsAttention(Session),
}

/// What those who ask under a key are told where a session has it; or, where that session is free, how it is taken up for the new wish.
pub(super) enum Verdict {
    /// Nothing changes.
    Told(Box<Admission>),
    /// It is driven from now on, under a new epoch; and in another way, if `anew`.
    TakeUp { before: Box<Session>, after: Box<Session>, anew: bool },
}

/// `known` has the key that `new` asks for.
pub(super) fn verdict(known: Session, new: &Session, now: Timestamp) -> Result<Verdict, IllegalMove> {
    if known.request.fingerprint() != new.request.fingerprint() {
        return Ok(Verdict::Told(Admission::Mismatch(known).into()));
    }
    Ok(match known.standing_at(now) {
        Standing::Done => Verdict::Told(Admission::Done(known).into()),
        Standing::NeedsAttention => Verdict::Told(Admission::NeedsAttention(known).into()),
        Standing::Held => Verdict::Told(Admission::Running(known).into()),
        Standing::Free => {
            let mut after = known.clone().taken_up(now)?;
            // What surely was not done is done as the settings say now: a wrong deployment, for one, may be the right one by now.
            let same_kind = after.way.surface().is_official() == new.way.surface().is_official();
            let anew = known.may_begin_anew() && (after.contact_id.is_none() || same_kind);
            if anew {
                after.way = new.way.clone();
                after.plain_contact = new.plain_contact;
            }
            Verdict::TakeUp { before: known.into(), after: after.into(), anew }
        }
    })
}
