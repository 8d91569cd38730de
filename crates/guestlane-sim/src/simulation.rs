//! The state of the simulator, and the handling of one request or frame.
//!
//! Each request or frame is counted and its fault is chosen. Then the work is done, the response is
//! sent, and the journal records both.

mod answering;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use guestlane_genesys::guest::frame::ServerFrame;
use guestlane_runtime::{Clock, Timestamp};
use http::{HeaderValue, Method, Response, StatusCode};
use serde::Serialize;
use uuid::Uuid;

use crate::{
    duplicates::Duplicates,
    fault::Fault,
    fault_injection::{Disconnect, frames::PostFault, held_request::HeldRequest},
    journal::{self, Journal, Record},
    options::Options,
    organization::Organization,
    public_api::guest::frames::Given,
    rate_window::RateHeaders,
    request::Request,
    response::{Body, Refusal, tagged},
    route::{Operation, Route, RouteMatch, match_route},
    webhook_receiver::{WebhookCounts, WebhookReceiver},
};

/// The reply to a frame: what is sent over the wire, in this order.
#[derive(Debug)]
pub(crate) struct FrameReply {
    pub(crate) before: Vec<ServerFrame>,
    pub(crate) outcome: PostFault,
    pub(crate) after: Vec<ServerFrame>,
    /// Whether the socket is closed afterwards.
    pub(crate) close: bool,
}

/// The simulated platform and webhook receiver, shared by all connections.
#[derive(Debug)]
pub(crate) struct Simulation {
    pub(crate) organization: Mutex<Organization>,
    pub(crate) crm: Mutex<WebhookReceiver>,
    pub(crate) journal: Mutex<Journal>,
    faults: Mutex<Faults>,
    calls: [AtomicU64; Route::ALL.len()],
    requests: AtomicU64,
    connections: AtomicU64,
    hanging: Arc<AtomicU64>,
    clock: Clock,
    /// Offset of the simulated time from the clock, in microseconds.
    ahead: AtomicI64,
    seed: u64,
    latency: Duration,
    /// Whether the operations of the surface `rest` are served.
    gateway: bool,
}

#[derive(Debug, Default)]
struct Faults {
    wanted: Vec<Fault>,
    seed: u64,
    /// Calls by route before these faults were set: `nth` and `first` count from then.
    before: [u64; Route::ALL.len()],
    hits: BTreeMap<&'static str, u64>,
}

/// The counters of the simulator, as served by `GET /_sim/state`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Contacts that exist.
    pub contacts: u64,
    /// Conversations that exist.
    pub conversations: u64,
    /// Different guests among the contacts and the conversations.
    pub guests: u64,
    /// What exists more than once.
    pub duplicates: Duplicates,
    /// Access tokens issued.
    pub tokens_issued: u64,
    /// Requests by route, faults included.
    pub calls: BTreeMap<&'static str, u64>,
    /// Calls answered 429 because a rate limit was exceeded.
    pub throttled: u64,
    /// Faults that were injected, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Requests that are held open without a response now.
    pub hanging: u64,
    /// The counters of the webhook receiver.
    pub crm: WebhookCounts,
    /// Guest messages beyond the first of a conversation, sent before an agent wrote in it.
    pub repeated_first_messages: u64,
    /// Conversations that wait for an agent, by queue.
    pub queues: BTreeMap<Uuid, u64>,
    /// Conversations that are linked to a contact.
    pub linked: u64,
    /// Number of transfers of a conversation to a queue, including to the queue it was in.
    pub transfers: u64,
    /// TCP connections that were opened, by any client.
    pub connections: u64,
    /// Guest sockets that are open.
    pub sockets: u64,
    /// Guest sessions that were started.
    pub guest_sessions: u64,
}

/// The maximum offset of the simulated time, in microseconds: a thousand years. Later dates have no
/// form on the wire.
const MAX_CLOCK: i64 = 1000 * 365 * 24 * 3600 * 1_000_000;

/// Paths that only operations of the surface `rest` have.
const GATEWAY_PATHS: [&str; 2] = ["/api/v2/oauth/token", "/api/v2/conversations/messaging"];

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Simulation {
    pub(crate) fn new(options: Options, origin: String) -> Result<Self, String> {
        Ok(Self {
            crm: Mutex::new(WebhookReceiver::new(options.crm_secret.as_deref())?),
            journal: Mutex::default(),
            faults: Mutex::new(Faults {
                wanted: options.faults.clone(),
                seed: options.seed,
                ..Faults::default()
            }),
            calls: std::array::from_fn(|_| AtomicU64::new(0)),
            requests: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            hanging: Arc::default(),
            clock: options.clock.clone(),
            ahead: AtomicI64::new(0),
            seed: options.seed,
            latency: options.latency,
            gateway: options.gateway,
            organization: Mutex::new(Organization::new(options, origin)),
        })
    }

    pub(crate) fn now(&self) -> Timestamp {
        let ahead = self.ahead.load(Ordering::Relaxed);
        Timestamp::from_unix_micros(self.clock.now().unix_micros().saturating_add(ahead))
    }

    pub(crate) fn advance(&self, by: Duration) {
        let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        let further = |ahead: i64| Some(ahead.saturating_add(by).min(MAX_CLOCK));
        let _ = self
            .ahead
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, further);
        let now = self.now();
        lock(&self.organization).expire(now);
    }

    pub(crate) async fn sleep(&self, duration: Duration) {
        self.clock.sleep(duration).await;
    }

    pub(crate) fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one request that is held open without a response, until the guard is dropped.
    pub(crate) fn hold(&self) -> HeldRequest {
        HeldRequest::new(&self.hanging)
    }

    pub(crate) fn set_faults(&self, faults: Vec<Fault>, seed: Option<u64>) {
        let mut known = lock(&self.faults);
        known.wanted = faults;
        known.seed = seed.unwrap_or(known.seed);
        known.before = std::array::from_fn(|route| self.calls[route].load(Ordering::Relaxed));
    }

    /// Returns the configured faults and their seed.
    pub(crate) fn faults(&self) -> (Vec<Fault>, u64) {
        let known = lock(&self.faults);
        (known.wanted.clone(), known.seed)
    }

    pub(crate) fn state(&self) -> Snapshot {
        let now = self.now();
        let organization = lock(&self.organization);
        Snapshot {
            contacts: organization.duplicates.contacts(),
            conversations: organization.duplicates.conversations(),
            guests: organization.duplicates.guests(),
            duplicates: organization.duplicates.duplicates(),
            tokens_issued: organization.oauth.issued,
            calls: Route::ALL
                .iter()
                .map(|route| {
                    (
                        route.name(),
                        self.calls[*route as usize].load(Ordering::Relaxed),
                    )
                })
                .collect(),
            throttled: organization.oauth.throttled,
            faults: lock(&self.faults).hits.clone(),
            hanging: self.hanging.load(Ordering::Relaxed),
            crm: lock(&self.crm).counts(),
            repeated_first_messages: organization.conversations.repeated_first_messages(),
            queues: organization.queues(),
            linked: organization.conversations.linked(now),
            transfers: organization.conversations.transfers,
            connections: self.connections.load(Ordering::Relaxed),
            sockets: organization.guests.sockets(),
            guest_sessions: organization.guests.began,
        }
    }

    /// Handles a request.
    ///
    /// # Errors
    ///
    /// Returns [`Disconnect`] if a fault requires that the connection closes without a response.
    pub(crate) async fn handle(&self, request: Request) -> Result<Response<Body>, Disconnect> {
        let matched = self.match_route(&request.method, &request.path);
        let (n, correlation_id, at) = self.begin().await;
        let route = if let RouteMatch::Route(op, _) = &matched {
            Some(op.route())
        } else {
            None
        };
        let fault = route.and_then(|route| self.fault(route));
        let is_file = route == Some(Route::Upload);
        // Record the request on arrival, so that the journal also has requests that never get a
        // response.
        lock(&self.journal).add(Record {
            n,
            at,
            route,
            method: request.method.clone(),
            path: journal::path(&request.path, request.query.as_deref()),
            headers: journal::headers(&request.headers),
            body: journal::body(
                route,
                &request.path,
                &request.headers,
                if is_file { &[] } else { &request.body },
            ),
            status: None,
            fault,
            correlation_id,
        });
        let mut answer = self
            .answer(matched, fault.as_ref(), &request, correlation_id)
            .await;
        if let Ok(response) = &mut answer {
            lock(&self.journal).answered(n, response.status().as_u16());
            self.date(response);
        }
        answer
    }

    /// Rejects a request that is too large to be read.
    pub(crate) async fn too_large(
        &self,
        head: &http::request::Parts,
        max: usize,
    ) -> Response<Body> {
        let (n, correlation_id, at) = self.begin().await;
        let message = format!("The body is too large. Maximum bytes: {max}");
        let refusal = Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "request.too.large", message);
        let route =
            if let RouteMatch::Route(op, _) = self.match_route(&head.method, head.uri.path()) {
                Some(op.route())
            } else {
                None
            };
        lock(&self.journal).add(Record {
            n,
            at,
            route,
            method: head.method.clone(),
            path: journal::path(head.uri.path(), head.uri.query()),
            headers: journal::headers(&head.headers),
            body: "".into(),
            status: Some(refusal.status.as_u16()),
            fault: None,
            correlation_id,
        });
        let mut response = tagged(
            refusal.answer(correlation_id),
            correlation_id,
            RateHeaders::default(),
        );
        self.date(&mut response);
        response
    }

    fn match_route(&self, method: &Method, path: &str) -> RouteMatch {
        match match_route(method, path) {
            RouteMatch::Route(Operation::GatewayToken | Operation::GatewayConversation, _)
                if !self.gateway =>
            {
                RouteMatch::Unknown
            }
            RouteMatch::WrongMethod if !self.gateway && GATEWAY_PATHS.contains(&path) => {
                RouteMatch::Unknown
            }
            matched => matched,
        }
    }

    /// Sets the `Date` header by the simulated clock, as for all other times.
    fn date(&self, response: &mut Response<Body>) {
        let seconds = u64::try_from(self.now().unix_seconds()).unwrap_or(0);
        let date = httpdate::fmt_http_date(std::time::UNIX_EPOCH + Duration::from_secs(seconds));
        if let Ok(date) = HeaderValue::from_str(&date) {
            response.headers_mut().insert(http::header::DATE, date);
        }
    }

    /// Handles a frame from a guest.
    pub(crate) async fn frame(&self, connection: u64, text: &str) -> FrameReply {
        let given = Given::read(text);
        let route = Route::of_action(given.action());
        let (n, correlation_id, at) = self.begin().await;
        let fault = self.fault(route);
        lock(&self.journal).add(Record {
            n,
            at,
            route: Some(route),
            method: Method::from_bytes(b"FRAME").unwrap_or_default(),
            path: journal::truncated(given.action()).into(),
            headers: Vec::new(),
            body: journal::truncated(&given.without_secrets()),
            status: None,
            fault,
            correlation_id,
        });
        let (framed, code) = self.answer_frame(connection, &given, fault.as_ref());
        if let Some(code) = code {
            lock(&self.journal).answered(n, code);
        }
        framed
    }
}
