//! The model: its actors, its steps and its invariants.

use super::*;

pub(super) const START: Timestamp = Timestamp::from_unix_micros(1_795_361_029_000_000);

#[derive(Clone)]
pub(super) struct Model {
    pub(super) way: SurfaceBinding,
    pub(super) now: Timestamp,
    pub(super) row: Option<SessionRecord>,
    pub(super) platform: Platform,
    /// Counts of audit records `success` and of CRM events, which are written together with the
    /// row.
    pub(super) successes: u8,
    pub(super) events: u8,
    pub(super) actors: [Actor; 4],
    pub(super) crashes: u8,
    pub(super) faults: u8,
    pub(super) leaps: u8,
}

#[derive(Clone)]
pub(super) enum Actor {
    /// A caller that requests the session, or repeats the request.
    Asking,
    /// A caller that got a response.
    Answered(SessionState),
    /// A worker that looks for work.
    Idle,
    /// An owner of the lease that is about to make the next call.
    Driving(Box<SessionRecord>),
    /// An owner of a result that is not committed yet.
    Holding {
        before: Box<SessionRecord>,
        after: Box<SessionRecord>,
    },
    Dead,
}

pub(super) fn failure() -> Failure {
    Failure {
        code: "test".to_owned(),
        message: String::new(),
    }
}

impl Model {
    pub(super) fn new(way: SurfaceBinding, faults: u8, leaps: u8) -> Self {
        Self {
            way,
            now: START,
            row: None,
            platform: Platform::default(),
            successes: 0,
            events: 0,
            actors: [Actor::Asking, Actor::Asking, Actor::Idle, Actor::Idle],
            crashes: 1,
            faults,
            leaps,
        }
    }

    /// Encodes what distinguishes two states. Times are encoded by their meaning at `now`.
    pub(super) fn key(&self) -> Vec<u8> {
        let mut key = Vec::with_capacity(96);
        key.extend([
            self.successes,
            self.events,
            self.crashes,
            self.faults,
            self.leaps,
        ]);
        key.extend([self.platform.contacts, self.platform.conversations]);
        key.extend([self.platform.late.map_or(0, |step| 1 + step as u8)]);
        for used in [self.platform.contact_key, self.platform.conversation_key] {
            key.extend(used.map_or(-1, Timestamp::unix_micros).to_le_bytes());
        }
        key.extend(self.now.unix_micros().to_le_bytes());
        key_of(self.row.as_ref(), &mut key);
        // Actors of one kind are interchangeable, so their order must not distinguish states.
        let mut actors: Vec<Vec<u8>> = self.actors.iter().map(Actor::key).collect();
        actors[..2].sort();
        actors[2..].sort();
        actors.into_iter().for_each(|actor| key.extend(actor));
        key
    }

    pub(super) fn with(&self, index: usize, actor: Actor) -> Self {
        let mut next = self.clone();
        next.actors[index] = actor;
        next
    }

    /// Adds every possible successor state.
    pub(super) fn next(&self, into: &mut Vec<Self>) {
        for index in 0..self.actors.len() {
            self.act(index, into);
            if self.crashes > 0 && !matches!(self.actors[index], Actor::Dead | Actor::Answered(_)) {
                into.push(Self {
                    crashes: 0,
                    ..self.with(index, Actor::Dead)
                });
            }
        }
        if self.leaps > 0 {
            for leap in [
                LEASE_TTL,
                Duration::from_secs(301),
                PLATFORM_KEY_LIFE + Duration::from_secs(1800),
            ] {
                // No request stays in flight for hours.
                let late = self
                    .platform
                    .late
                    .filter(|_| leap < Duration::from_secs(3600));
                into.push(Self {
                    now: self.now + leap,
                    leaps: self.leaps - 1,
                    platform: Platform {
                        late,
                        ..self.platform
                    },
                    ..self.clone()
                });
            }
        }
        if let Some(step) = self.platform.late {
            let mut next = self.clone();
            next.platform.late = None;
            next.platform.perform(step, self.is_official(), self.now);
            into.push(next);
        }
    }

    pub(super) fn is_official(&self) -> bool {
        self.way != SurfaceBinding::Rest
    }

    pub(super) fn act(&self, index: usize, into: &mut Vec<Self>) {
        match &self.actors[index] {
            Actor::Asking => self.ask(index, into),
            Actor::Idle => {
                // Like the store's claim: the session must be unfinished and due.
                if let Some(row) = self.row.as_ref().filter(|row| {
                    row.state.is_unfinished() && row.due_at().is_some_and(|due| due <= self.now)
                }) {
                    self.claim_lease(index, row, into);
                }
            }
            Actor::Driving(session) => self.drive(index, session, into),
            Actor::Holding { before, after } => self.commit(index, before, after, into),
            Actor::Answered(_) | Actor::Dead => {}
        }
    }

    pub(super) fn ask(&self, index: usize, into: &mut Vec<Self>) {
        let Some(row) = &self.row else {
            let new = SessionRecord::new(
                request("ann"),
                self.way.clone().into(),
                TokenIdentity::new("k", self.now),
                self.now,
            );
            into.push(Self {
                row: Some(new.clone()),
                ..self.with(index, Actor::Driving(Box::new(new)))
            });
            return;
        };
        match row.availability_at(self.now) {
            Availability::Completed | Availability::NeedsAttention => {
                into.push(self.with(index, Actor::Answered(row.state)))
            }
            Availability::Unavailable => {}
            Availability::Claimable => self.claim_lease(index, row, into),
        }
    }

    pub(super) fn claim_lease(&self, index: usize, row: &SessionRecord, into: &mut Vec<Self>) {
        let taken = row.clone().claimed(self.now).unwrap();
        into.push(Self {
            row: Some(taken.clone()),
            ..self.with(index, Actor::Driving(Box::new(taken)))
        });
    }

    /// Makes one call with each possible outcome, or none if it is too late to make one.
    pub(super) fn drive(&self, index: usize, session: &SessionRecord, into: &mut Vec<Self>) {
        let hold = |after: SessionRecord| Actor::Holding {
            before: Box::new(session.clone()),
            after: Box::new(after),
        };
        if session.is_past_idempotency_window(self.now) {
            into.push(self.with(
                index,
                hold(session.clone().expired(failure(), self.now).unwrap()),
            ));
            return;
        }
        let step = match plan::next_step(session).unwrap() {
            plan::Step::RegisterContact | plan::Step::UpsertContact => Step::Contact,
            plan::Step::OpenConversation => Step::Conversation,
            plan::Step::SendGuestMessage { .. } | plan::Step::SendInboundMessage { .. } => {
                Step::Message
            }
            plan::Step::FindConversation { .. } => Step::Find,
            plan::Step::LinkAndRoute { .. } => Step::Arrange,
        };
        let done = match step {
            Step::Message => {
                session
                    .clone()
                    .message_sent("message".parse().unwrap(), None, None, 1, self.now)
            }
            Step::Find => {
                session
                    .clone()
                    .conversation_found("conversation".parse().unwrap(), 1, self.now)
            }
            Step::Arrange => {
                session
                    .clone()
                    .completed("conversation".parse().unwrap(), 1, self.now, self.now)
            }
            Step::Contact => {
                session
                    .clone()
                    .contact_ready(Some("contact".parse().unwrap()), 1, self.now)
            }
            Step::Conversation => {
                session
                    .clone()
                    .completed("conversation".parse().unwrap(), 1, self.now, self.now)
            }
        };
        let mut went_well = self.with(index, hold(done.unwrap()));
        went_well
            .platform
            .perform(step, self.is_official(), self.now);
        into.push(went_well);

        let Some(faults) = self.faults.checked_sub(1) else {
            return;
        };
        let set_back = |setback, may_exist| {
            let after = session
                .clone()
                .apply_failure(setback, may_exist, failure(), 1, self.now)
                .unwrap();
            Self {
                faults,
                ..self.with(index, hold(after))
            }
        };
        // A 500: nothing was done, but the caller cannot know.
        let given_up = set_back(StepFailure::BackedOff, true);
        let mut lost = given_up.clone(); // the response is lost
        lost.platform.perform(step, self.is_official(), self.now);
        // The sender gives up, and the platform performs the request later.
        let mut late = given_up.clone();
        late.platform.late = Some(step);
        into.extend([given_up, lost, late]);
        into.push(set_back(StepFailure::BackedOff, false)); // nothing was sent
        into.push(set_back(
            StepFailure::RetryAfter(Duration::from_secs(100)),
            false,
        ));
        into.extend([true, false].map(|concerns_credentials| {
            set_back(
                StepFailure::Rejected {
                    concerns_credentials,
                },
                false,
            )
        }));
    }

    /// Like the store's transition: only the owner with the current epoch writes.
    pub(super) fn commit(
        &self,
        index: usize,
        before: &SessionRecord,
        after: &SessionRecord,
        into: &mut Vec<Self>,
    ) {
        let is_caller = index < 2;
        let free = if is_caller {
            Actor::Asking
        } else {
            Actor::Idle
        };
        if self
            .row
            .as_ref()
            .is_none_or(|row| row.epoch != before.epoch)
        {
            into.push(self.with(index, free)); // the lease is lost
            return;
        }
        let ends = after.failure.is_some() || after.state == SessionState::Open;
        let next = match (ends, is_caller) {
            (false, _) => Actor::Driving(Box::new(after.clone())),
            (true, true) => Actor::Answered(after.state),
            (true, false) => Actor::Idle,
        };
        let mut next = Self {
            row: Some(after.clone()),
            ..self.with(index, next)
        };
        if after.state == SessionState::Open {
            next.successes += 1;
            next.events += 1;
        }
        into.push(next);
    }
}

impl Actor {
    pub(super) fn epoch(&self) -> Option<u32> {
        match self {
            Self::Driving(session) => Some(session.epoch),
            Self::Holding { before, .. } => Some(before.epoch),
            Self::Asking | Self::Answered(_) | Self::Idle | Self::Dead => None,
        }
    }

    pub(super) fn key(&self) -> Vec<u8> {
        let mut key = Vec::with_capacity(64);
        match self {
            Self::Asking => key.push(0),
            Self::Answered(state) => key.extend([1, *state as u8]),
            Self::Idle => key.push(2),
            Self::Driving(session) => {
                key.push(3);
                key_of(Some(session), &mut key);
            }
            Self::Holding { before, after } => {
                key.push(4);
                key_of(Some(before), &mut key);
                key_of(Some(after), &mut key);
            }
            Self::Dead => key.push(5),
        }
        key
    }
}

pub(super) fn key_of(session: Option<&SessionRecord>, key: &mut Vec<u8>) {
    let Some(session) = session else {
        return key.push(255);
    };
    let known = [
        session.contact_id.is_some(),
        session.message_id.is_some(),
        session.conversation_id.is_some(),
    ];
    key.extend(known.map(u8::from));
    let flags = [
        session.outcome_unknown,
        session.recovered,
        session.failure.is_some(),
    ];
    key.push(session.state as u8);
    key.extend(flags.map(u8::from));
    key.extend(session.epoch.to_le_bytes());
    key.extend(session.step_started_at.unix_micros().to_le_bytes());
    let times = [
        session.lease_expires_at,
        session.next_attempt_at,
        session.ended_at,
    ];
    for time in times {
        key.extend(time.map_or(0, Timestamp::unix_micros).to_le_bytes());
    }
}
