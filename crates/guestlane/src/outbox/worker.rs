//! Delivers in the background: nothing that happens here delays or fails a session.

use std::{
    ops::Add,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use guestlane_genesys::{Clock, Outage, Seam, Seams, Timestamp, trace};
use tokio::sync::{Semaphore, watch};
use tracing::{Instrument, Span, debug, field::Empty, info_span, warn};

use super::{
    deliver::{Crm, Settlement, TRY_LIMIT, Tried},
    event::Event,
    sign::WebhookSecret,
};
use crate::{
    ledger::Session,
    store::{Store, StoreError},
};

/// How many tries are under way at once to one receiver.
const AT_ONCE: usize = 64;

/// How often the store is asked for events whose time has come.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often the log says that this machine cannot connect to anything.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// The outbox of one process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Outbox {
    receivers: Arc<[Receiver]>,
    store: Store,
    clock: Clock,
    seams: Seams,
    first_tries: Arc<watch::Sender<usize>>,
    /// When the log said the last time that this machine cannot connect: monotonic microseconds.
    warned_at: Arc<AtomicI64>,
}

/// Each receiver has its own room: one that is slow or down keeps nobody else waiting.
#[derive(Debug)]
struct Receiver {
    /// From 1.
    number: u32,
    crm: Crm,
    room: Semaphore,
    /// From a try that the receiver did not take to one that it took.
    outage: Outage,
}

/// What a round of deliveries came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Round {
    /// Their receivers have them.
    pub delivered: usize,
    /// They are tried again.
    pub failed: usize,
    /// Their tries are used up.
    pub dead: usize,
}

impl Add for Round {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { delivered: self.delivered + other.delivered, failed: self.failed + other.failed, dead: self.dead + other.dead }
    }
}

impl Outbox {
    /// Nothing is sent until somebody asks. The receivers are numbered in their order, from 1.
    pub fn new(receivers: Vec<Crm>, store: Store, clock: Clock) -> Self {
        let receiver = |(number, crm)| {
            let outage = Outage::of(format!("webhook receiver {number}").into());
            Receiver { number, crm, room: Semaphore::new(AT_ONCE), outage }
        };
        let receivers = (1..).zip(receivers).map(receiver).collect();
        Self {
            receivers,
            seams: store.seams.clone(),
            store,
            clock,
            first_tries: Arc::new(watch::channel(0).0),
            warned_at: Arc::new(AtomicI64::new(i64::MIN)),
        }
    }

    /// How many receivers there are.
    pub fn receivers(&self) -> usize {
        self.receivers.len()
    }

    /// The secret shared with the receivers.
    pub fn secret(&self) -> Option<&WebhookSecret> {
        self.receivers.first().map(|receiver| receiver.crm.secret())
    }

    /// The event that a session was opened, once for each receiver.
    pub(crate) fn session_created(&self, session: &Session, now: Timestamp) -> Vec<Event> {
        self.receivers.iter().map(|receiver| Event::session_created(session, receiver.number, now)).collect()
    }

    /// Tries an event that was just written, in the background. Must be called within a tokio runtime.
    pub(crate) fn send_soon(&self, event: Event) {
        self.first_tries.send_modify(|count| *count += 1);
        let outbox = self.clone();
        tokio::spawn(async move {
            if let Some(receiver) = outbox.receivers.iter().find(|receiver| receiver.number == event.receiver) {
                // Its lease must outlast the try. When there is no room in time, the event is found in the store later.
                let room = outbox.clock.timeout(Event::LEASE - 2 * TRY_LIMIT, receiver.room.acquire()).await;
                if let Ok(Ok(_room)) = room {
                    outbox.try_once(receiver, event).await;
                }
            }
            outbox.first_tries.send_modify(|count| *count -= 1);
        });
    }

    /// Waits until every event of [`send_soon`](Self::send_soon) was tried, at most as long as a try may take.
    pub async fn first_tries_done(&self) -> bool {
        let mut first_tries = self.first_tries.subscribe();
        let done = async { first_tries.wait_for(|count| *count == 0).await.is_ok() };
        self.clock.timeout(TRY_LIMIT + Duration::from_millis(100), done).await.unwrap_or(false)
    }

    /// Delivers what is due, to all receivers at once, until nothing is.
    pub async fn deliver_due(&self) -> Result<Round, StoreError> {
        let rounds = self.receivers.iter().map(|receiver| self.deliver_due_to(receiver));
        let rounds = futures_util::future::try_join_all(rounds).await?;
        Ok(rounds.into_iter().fold(Round::default(), Round::add))
    }

    async fn deliver_due_to(&self, receiver: &Receiver) -> Result<Round, StoreError> {
        let mut round = Round::default();
        let mut tries = FuturesUnordered::new();
        loop {
            // As soon as one try is over the next event is taken: a slow answer holds up nothing but itself.
            let room = AT_ONCE - tries.len();
            let events = self.store.claim_events(receiver.number, u32::try_from(room).unwrap_or(1), self.clock.now()).await?;
            if !events.is_empty() {
                self.seams.pass(Seam::EventsClaimed).await;
            }
            tries.extend(events.into_iter().map(|event| self.try_once(receiver, event)));
            match tries.next().await {
                None => return Ok(round),
                Some(Tried::Settled(Settlement::Delivered)) => round.delivered += 1,
                Some(Tried::Settled(Settlement::Again { .. }) | Tried::Local(_)) => round.failed += 1,
                Some(Tried::Settled(Settlement::Dead { .. })) => round.dead += 1,
            }
        }
    }

    /// Delivers what becomes due, for ever; each receiver by itself.
    pub(crate) async fn run(&self) {
        let deliver = |receiver| async move {
            loop {
                if let Err(error) = self.deliver_due_to(receiver).await {
                    crate::store::log_failure(&error, "the outbox could not be read; it is tried again");
                }
                self.clock.sleep(LOOK_EVERY).await;
            }
        };
        futures_util::future::join_all(self.receivers.iter().map(deliver)).await;
    }

    async fn try_once(&self, receiver: &Receiver, event: Event) -> Tried {
        let span = info_span!(
            target: trace::TARGET,
            "deliver",
            otel.name = "tell the CRM",
            otel.kind = "producer",
            otel.status_code = Empty,
            messaging.message.id = event.id,
            guestlane.receiver = receiver.number,
            guestlane.attempt = event.tries + 1,
            error.type = Empty,
        );
        trace::join(&span, event.trace);
        self.try_in_span(receiver, event).instrument(span).await
    }

    async fn try_in_span(&self, receiver: &Receiver, event: Event) -> Tried {
        let settlement = match receiver.crm.deliver(&event).await {
            Tried::Settled(settlement) => settlement,
            Tried::Local(reason) => {
                Span::current().record("error.type", &reason).record("otel.status_code", "ERROR");
                self.warn_of_this_machine(receiver, &reason);
                // Not written down: the event is due again when its lease ends, and no try of the
                // receiver is used.
                return Tried::Local(reason);
            }
        };
        self.seams.pass(Seam::EventSent).await;
        if let Settlement::Again { error, .. } | Settlement::Dead { error } = &settlement {
            Span::current().record("error.type", error).record("otel.status_code", "ERROR");
        }
        match &settlement {
            Settlement::Delivered => {
                receiver.outage.well(self.clock.monotonic());
                debug!(event = event.id, receiver = receiver.number, "the event was delivered");
            }
            Settlement::Again { at, error } => {
                receiver.outage.failed(error, self.clock.monotonic());
                debug!(event = event.id, receiver = receiver.number, error, again = %at, "the event was not delivered; it is tried again");
            }
            Settlement::Dead { error } => {
                warn!(event = event.id, receiver = receiver.number, error, "the CRM was not told, and all tries are used up");
            }
        }
        // When this fails the event is due again after its lease: told twice under one id, never lost.
        if let Err(error) = self.store.settle_event(event, settlement.clone(), self.clock.now()).await {
            crate::store::log_failure(
                &error,
                "a delivery could not be written down; the CRM will be told again under the same id",
            );
        }
        self.seams.pass(Seam::EventSettled).await;
        Tried::Settled(settlement)
    }

    /// Every event that is due fails in the same way at such a time, so the log says it now and
    /// then.
    fn warn_of_this_machine(&self, receiver: &Receiver, error: &str) {
        let now = self.clock.monotonic().unix_micros();
        let due = |last: i64| now.saturating_sub(last) >= i64::try_from(WARN_EVERY.as_micros()).unwrap_or(i64::MAX);
        let claimed = self.warned_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| due(last).then_some(now));
        if claimed.is_ok() {
            let (receiver, lease) = (receiver.number, Event::LEASE.as_secs());
            warn!(
                receiver,
                error, "this machine cannot open a connection; events are tried again within {lease} s and no try is counted"
            );
        }
    }
}
