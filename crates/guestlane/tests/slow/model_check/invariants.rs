//! The invariants of the model (ARCHITECTURE.md).

use super::*;

impl Model {
    pub(super) fn assert_invariants(&self) {
        let Platform {
            contacts,
            conversations,
            ..
        } = self.platform;
        assert!(
            contacts <= 1 && conversations <= 1,
            "I1: nothing exists twice"
        );
        assert!(
            conversations <= contacts,
            "I2: no conversation without a contact"
        );
        assert!(
            self.successes <= 1 && self.events == self.successes,
            "I3: one success, one event, written together"
        );
        let Some(row) = &self.row else {
            assert_eq!(
                (contacts, conversations, self.events),
                (0, 0, 0),
                "I4: nothing is created before it is in the ledger"
            );
            return;
        };
        assert!(
            row.contact_id.is_none() || contacts == 1,
            "I5: the ledger does not say more than is true"
        );
        assert!(
            row.message_id.is_none() || conversations == 1,
            "I5: nor of what the guest has said"
        );
        assert_eq!(
            row.state == SessionState::Open,
            self.successes == 1,
            "I6: open, success and event are one"
        );
        assert!(
            row.state != SessionState::Open || conversations == 1,
            "I6: open means that the conversation exists"
        );
        let rests = matches!(
            row.state,
            SessionState::Failed | SessionState::Parked | SessionState::NeedsAttention
        );
        assert!(
            !rests || row.failure.is_some(),
            "I7: what is not open says why"
        );
        if row.state == SessionState::Failed {
            let known = (u8::from(row.contact_id.is_some()), 0);
            assert_eq!(
                (contacts, conversations),
                known,
                "I8: refused means that it was surely not done"
            );
            // A late request under the key of an existing contact creates nothing.
            let harmless = self
                .platform
                .late
                .is_none_or(|late| late == Step::Contact && row.contact_id.is_some());
            assert!(harmless, "I8: and that it will not be");
        }
        for actor in &self.actors {
            if let Actor::Answered(SessionState::Open) = actor {
                assert_eq!(
                    row.state,
                    SessionState::Open,
                    "I9: a caller that received open received the truth, permanently"
                );
            }
            assert!(
                actor.epoch().is_none_or(|epoch| epoch <= row.epoch),
                "I10: no driver has an epoch that the ledger does not know"
            );
        }
        let drivers = self
            .actors
            .iter()
            .filter(|actor| actor.epoch() == Some(row.epoch))
            .count();
        assert!(drivers <= 1, "I10: at most one driver can write");
    }

    /// I11: every session comes to rest. Once faults and crashes end, the remaining actors bring it
    /// to a final state.
    pub(super) fn terminates(mut self) -> bool {
        self.faults = 0;
        self.crashes = 0;
        self.leaps = 0;
        for _ in 0..100 {
            let Some(row) = &self.row else { return true };
            if matches!(
                row.state,
                SessionState::Open | SessionState::Failed | SessionState::NeedsAttention
            ) {
                return true;
            }
            let mut next = Vec::new();
            for index in 0..self.actors.len() {
                self.act(index, &mut next);
            }
            match next.pop() {
                Some(moved) => self = moved,
                None => self.now = self.now + Duration::from_secs(100), // all actors wait
            }
        }
        false
    }
}
