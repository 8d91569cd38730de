//! Delivers in the background: nothing that happens here delays or fails a session.

use std::{sync::Arc, time::Duration};

use guestlane_genesys::Clock;
use tokio::sync::{Semaphore, watch};
use tracing::{debug, warn};

use super::{
    deliver::{Crm, Settlement, TRY_LIMIT},
    event::Event,
};
use crate::store::{Store, StoreError};

/// How many tries are under way at once.
const AT_ONCE: usize = 64;

/// How often the store is asked for events whose time has come.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The outbox of one process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Outbox {
    crm: Arc<Crm>,
    store: Store,
    clock: Clock,
    room: Arc<Semaphore>,
    first_tries: Arc<watch::Sender<usize>>,
}

/// What a round of deliveries came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Round {
    /// The CRM has them.
    pub delivered: usize,
    /// They are tried again.
    pub failed: usize,
    /// Their tries are used up.
    pub dead: usize,
}

impl Outbox {
    /// Nothing is sent until somebody asks.
    pub fn new(crm: Crm, store: Store, clock: Clock) -> Self {
        let room = Arc::new(Semaphore::new(AT_ONCE));
        Self { crm: Arc::new(crm), store, clock, room, first_tries: Arc::new(watch::channel(0).0) }
    }

    /// The CRM.
    pub fn crm(&self) -> &Crm {
        &self.crm
    }

    /// Tries an event that was just written, in the background. Must be called within a tokio runtime.
    pub(crate) fn send_soon(&self, event: Event) {
        self.first_tries.send_modify(|count| *count += 1);
        let outbox = self.clone();
        tokio::spawn(async move {
            // Its lease must outlast the try. When there is no room in time, the event is found in the store later.
            let room = outbox.clock.timeout(Event::LEASE - 2 * TRY_LIMIT, outbox.room.acquire()).await;
            if let Ok(Ok(_room)) = room {
                outbox.try_once(event).await;
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

    /// Delivers what is due, until nothing is.
    pub async fn deliver_due(&self) -> Result<Round, StoreError> {
        let mut round = Round::default();
        loop {
            let now = self.clock.now();
            let events = self.store.claim_events(u32::try_from(AT_ONCE).unwrap_or(1), now, now + Event::LEASE).await?;
            if events.is_empty() {
                return Ok(round);
            }
            let mut tries = tokio::task::JoinSet::new();
            for event in events {
                let outbox = self.clone();
                tries.spawn(async move { outbox.try_once(event).await });
            }
            while let Some(settled) = tries.join_next().await {
                match settled {
                    Ok(Settlement::Delivered) => round.delivered += 1,
                    Ok(Settlement::Again { .. }) | Err(_) => round.failed += 1,
                    Ok(Settlement::Dead { .. }) => round.dead += 1,
                }
            }
        }
    }

    /// Delivers what becomes due, for ever.
    pub(crate) async fn run(&self) {
        loop {
            if let Err(error) = self.deliver_due().await {
                warn!(%error, "the outbox could not be read; it is tried again");
            }
            self.clock.sleep(LOOK_EVERY).await;
        }
    }

    async fn try_once(&self, event: Event) -> Settlement {
        let settlement = self.crm.deliver(&event).await;
        match &settlement {
            Settlement::Delivered => debug!(event = event.id, "the CRM was told"),
            Settlement::Again { at, error } => warn!(event = event.id, error, again = %at, "the CRM could not be told"),
            Settlement::Dead { error } => warn!(event = event.id, error, "the CRM was not told, and all tries are used up"),
        }
        // When this fails the event is due again after its lease: told twice under one id, never lost.
        if let Err(error) = self.store.settle_event(event, settlement.clone(), self.clock.now()).await {
            warn!(%error, "a delivery could not be written down; the CRM will be told again under the same id");
        }
        settlement
    }
}
