//! Delivers events in the background. No failure here delays or fails a session.

mod delivery;

use std::{
    ops::Add,
    sync::{Arc, atomic::AtomicI64},
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::{StreamExt, stream::FuturesUnordered};
use guestlane_core::event::Event;
use guestlane_runtime::{Clock, FailPoint, FailPoints, Outage, text::display_chain};
use guestlane_store::{DeliveryOutcome, Store, StoreError};
use tokio::sync::{Semaphore, watch};
use tracing::{info, warn};

use super::{
    deliver::{DeliveryAttempt, WebhookEndpoint},
    endpoints::{ConfiguredKeys, Endpoint, Endpoints},
};
use crate::{Error, WebhookConfig, Workspace};

/// Maximum number of deliveries in flight to one endpoint.
const CONCURRENCY: usize = 64;

/// How often the worker polls the store for due events.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How often the log repeats that this host cannot connect.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// The outbox of one process. Clones are cheap and share their state.
#[derive(Debug, Clone)]
pub struct Outbox {
    workers: Arc<[EndpointWorker]>,
    endpoints: Endpoints,
    /// Held while the endpoints are read, so that an older result cannot replace a newer one.
    reading: Arc<tokio::sync::Mutex<()>>,
    store: Store,
    clock: Clock,
    fail_points: FailPoints,
    first_tries: Arc<watch::Sender<usize>>,
    /// When the log last reported that this host cannot connect, in monotonic microseconds.
    warned_at: Arc<AtomicI64>,
}

/// State of one endpoint. Each has its own semaphore, so that a slow one does not delay the others.
#[derive(Debug)]
struct EndpointWorker {
    /// Number of the endpoint, from 1.
    number: u32,
    crm: WebhookEndpoint,
    room: Semaphore,
    /// The outage between a failed delivery and the next successful one.
    outage: Outage,
    /// The endpoint's keys and whether it is disabled, at most a second old.
    endpoint: ArcSwap<Endpoint>,
}

impl EndpointWorker {
    fn is_disabled(&self) -> bool {
        self.endpoint.load().disabled_at.is_some()
    }
}

/// Counts of the deliveries of one round.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeliveryStats {
    /// Events that an endpoint accepted.
    pub delivered: usize,
    /// Events that will be delivered again.
    pub failed: usize,
    /// Events that became dead letters.
    pub dead: usize,
}

impl Add for DeliveryStats {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            delivered: self.delivered + other.delivered,
            failed: self.failed + other.failed,
            dead: self.dead + other.dead,
        }
    }
}

impl Outbox {
    /// Opens the outbox for the endpoints of `crm`, and generates missing keys. No event is sent
    /// yet.
    ///
    /// # Errors
    /// Returns an error if the store fails, if secrets and addresses do not match, or if no trusted
    /// root certificate is found.
    pub async fn open(state: &Workspace, crm: &WebhookConfig, clock: Clock) -> Result<Self, Error> {
        let endpoints = Endpoints::new(state, Some(crm))?;
        let mut workers = Vec::new();
        for (url, endpoint) in crm.urls.iter().zip(endpoints.open().await?) {
            workers.push(EndpointWorker {
                number: endpoint.number,
                outage: Outage::of(format!("webhook endpoint {}", endpoint.number).into()),
                crm: WebhookEndpoint::new(
                    url.clone(),
                    crm.egress_policy,
                    &crm.tls_roots,
                    clock.clone(),
                )?,
                room: Semaphore::new(CONCURRENCY),
                endpoint: ArcSwap::from_pointee(endpoint),
            });
        }
        Ok(Self {
            workers: workers.into(),
            endpoints,
            reading: Arc::default(),
            fail_points: state.store.fail_points().clone(),
            store: state.store.clone(),
            clock,
            first_tries: Arc::new(watch::channel(0).0),
            warned_at: Arc::new(AtomicI64::new(i64::MIN)),
        })
    }

    /// Returns the number of endpoints.
    pub fn endpoint_count(&self) -> usize {
        self.workers.len()
    }

    /// Returns the endpoints as this process knows them.
    pub fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.workers
            .iter()
            .map(|worker| worker.endpoint.load_full())
            .collect()
    }

    /// Reads the endpoints' keys and disabled marks again, which another process may have changed.
    ///
    /// # Errors
    /// Returns an error if the store fails. The known keys stay in use.
    pub async fn read_endpoints(&self) -> Result<(), Error> {
        let _alone = self.reading.lock().await;
        self.apply_endpoints(self.endpoints.read().await?);
        Ok(())
    }

    /// Returns the keys of the settings `crm` if they differ from those in use.
    ///
    /// # Errors
    /// Returns an error if the keys cannot be used with the endpoints in use.
    pub(crate) fn other_keys(
        &self,
        crm: Option<&WebhookConfig>,
    ) -> Result<Option<ConfiguredKeys>, Error> {
        self.endpoints.other_keys(crm)
    }

    /// Replaces the configured keys by `new`.
    ///
    /// Without configured keys, the worker signs with the keys in the store, and generates missing
    /// ones.
    ///
    /// # Errors
    /// Returns an error if the store fails. The previous keys stay in use.
    pub(crate) async fn replace_keys(&self, new: ConfiguredKeys) -> Result<(), Error> {
        let _alone = self.reading.lock().await;
        let before = self.endpoints.replace_given(new);
        match self.endpoints.open().await {
            Ok(endpoints) => self.apply_endpoints(endpoints),
            Err(error) => {
                self.endpoints.replace_given(before);
                return Err(error);
            }
        }
        Ok(())
    }

    fn apply_endpoints(&self, endpoints: Vec<Endpoint>) {
        for (worker, endpoint) in self.workers.iter().zip(endpoints) {
            if worker.is_disabled() && endpoint.disabled_at.is_none() {
                info!(
                    endpoint = worker.number,
                    "the webhook endpoint is enabled again; delivering its events"
                );
            }
            worker.endpoint.store(Arc::new(endpoint));
        }
    }

    /// Returns the numbers of the endpoints. Each event is written once for each of them.
    pub(crate) fn endpoint_numbers(&self) -> impl Iterator<Item = u32> {
        self.workers.iter().map(|worker| worker.number)
    }

    /// Delivers an event that was just committed, in the background. Must be called within a tokio
    /// runtime.
    pub(crate) fn dispatch_now(&self, event: Event) {
        self.first_tries.send_modify(|count| *count += 1);
        let outbox = self.clone();
        tokio::spawn(async move {
            if let Some(worker) = outbox
                .workers
                .iter()
                .find(|worker| worker.number == event.endpoint)
            {
                // The lease must outlast the delivery. Without a free slot in time, the worker
                // claims the event from the store later.
                let room = outbox
                    .clock
                    .timeout(
                        Event::LEASE - 2 * WebhookEndpoint::ATTEMPT_TIMEOUT,
                        worker.room.acquire(),
                    )
                    .await;
                if let Ok(Ok(_room)) = room
                    && !worker.is_disabled()
                {
                    outbox.try_once(worker, event).await;
                }
            }
            outbox.first_tries.send_modify(|count| *count -= 1);
        });
    }

    /// Waits until each event of `dispatch_now` had its first delivery, at most as long as one
    /// delivery may take.
    ///
    /// Returns whether all of them had it.
    pub async fn wait_for_initial_deliveries(&self) -> bool {
        let mut first_tries = self.first_tries.subscribe();
        let done = async { first_tries.wait_for(|count| *count == 0).await.is_ok() };
        self.clock
            .timeout(
                WebhookEndpoint::ATTEMPT_TIMEOUT + Duration::from_millis(100),
                done,
            )
            .await
            .unwrap_or(false)
    }

    /// Delivers due events to all endpoints concurrently until none is due.
    ///
    /// # Errors
    /// Returns [`StoreError`] if due events cannot be claimed.
    pub async fn deliver_due(&self) -> Result<DeliveryStats, StoreError> {
        let rounds = self
            .workers
            .iter()
            .map(|worker| self.deliver_due_to(worker));
        let rounds = futures_util::future::try_join_all(rounds).await?;
        Ok(rounds
            .into_iter()
            .fold(DeliveryStats::default(), DeliveryStats::add))
    }

    async fn deliver_due_to(&self, worker: &EndpointWorker) -> Result<DeliveryStats, StoreError> {
        let mut round = DeliveryStats::default();
        let mut tries = FuturesUnordered::new();
        loop {
            // Each finished delivery makes room for the next event, so that a slow response delays
            // no other event.
            if !worker.is_disabled() {
                let room = CONCURRENCY - tries.len();
                let events = self
                    .store
                    .claim_events(
                        worker.number,
                        u32::try_from(room).unwrap_or(1),
                        self.clock.now(),
                    )
                    .await?;
                if !events.is_empty() {
                    self.fail_points.hit(FailPoint::EventsClaimed).await;
                }
                tries.extend(events.into_iter().map(|event| self.try_once(worker, event)));
            }
            match tries.next().await {
                None => return Ok(round),
                Some(DeliveryAttempt::Settled(DeliveryOutcome::Delivered)) => round.delivered += 1,
                Some(
                    DeliveryAttempt::Settled(DeliveryOutcome::Retry { .. })
                    | DeliveryAttempt::Gone(_)
                    | DeliveryAttempt::Local(_),
                ) => round.failed += 1,
                Some(DeliveryAttempt::Settled(DeliveryOutcome::Dead { .. })) => round.dead += 1,
            }
        }
    }

    /// Delivers events as they become due and never returns. Each endpoint has its own loop.
    pub(crate) async fn run(&self) {
        tokio::join!(self.keep_delivering(), self.keep_reading_endpoints());
    }

    async fn keep_reading_endpoints(&self) {
        let mut told = false;
        loop {
            self.clock.sleep(POLL_INTERVAL).await;
            match self.read_endpoints().await {
                Ok(()) => told = false,
                Err(error) if told => drop(error),
                Err(error) => {
                    warn!(
                        error = display_chain(&error),
                        "failed to reload the webhook endpoints; continuing with the known keys"
                    );
                    told = true;
                }
            }
        }
    }

    async fn keep_delivering(&self) {
        let deliver = |worker| async move {
            loop {
                if let Err(error) = self.deliver_due_to(worker).await {
                    guestlane_store::log_failure(&error, "failed to read the outbox; retrying");
                }
                self.clock.sleep(POLL_INTERVAL).await;
            }
        };
        futures_util::future::join_all(self.workers.iter().map(deliver)).await;
    }
}
