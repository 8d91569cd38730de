//! What kind of platform to pretend.

use std::{net::SocketAddr, time::Duration};

use guestlane_genesys::{Clock, Queue, Rate};
use http::StatusCode;
use uuid::{Uuid, uuid};

use crate::{fault::Fault, route::Route};

/// What kind of platform to pretend. The default is a healthy one with three queues on a free port of this machine.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The OAuth clients it knows.
    pub clients: Vec<OAuthClient>,
    /// The queues it has.
    pub queues: Vec<Queue>,
    /// How long an access token is good.
    pub token_life: Duration,
    /// Calls allowed to each OAuth client; `None` for any number.
    pub quota: Option<Rate>,
    /// Calls of one route allowed to each OAuth client, where that is less: the answers of that
    /// route tell this count (docs/platform.md#rate-limits).
    pub endpoint_quotas: Vec<(Route, Rate)>,
    /// How long every answer takes at least.
    pub latency: Duration,
    /// What goes wrong from the start.
    pub faults: Vec<Fault>,
    /// The same seed and the same calls give the same run.
    pub seed: u64,
    /// The CRM checks signatures against this `whsec_…` secret; without one it takes every event, and counts it as unchecked.
    pub crm_secret: Option<String>,
    /// Its time.
    pub clock: Clock,
    /// What a sign-in with a wrong client is answered. No source settles it: 400 or 401 (docs/platform.md#sign-in).
    pub bad_client_status: StatusCode,
    /// Sign-ins allowed to each client at `/oauth/token`; `None` for any number.
    pub token_quota: Option<Rate>,
    /// The web deployment.
    pub deployment: Deployment,
    /// How a socket to an unknown deployment is refused.
    pub unknown_deployment: UnknownDeployment,
    /// The open messaging integration.
    pub integration: Uuid,
    /// The external source that contacts' external ids may name.
    pub external_source: Uuid,
    /// What the inbound message flow does.
    pub flow: Flow,
    /// What a bot says when a conversation of web messaging begins.
    pub greeting: Option<String>,
    /// How long after a message its details can be read.
    pub details_delay: Duration,
    /// How long after the answer a contact is linked to a conversation.
    pub link_delay: Duration,
    /// Whether the presence `Join` alone makes a conversation.
    pub join_opens: bool,
    /// Whether open messaging tells the conversation's id when it is asked to.
    pub prefetch: bool,
    /// Whether open messaging knows a `channel.messageId` that comes again.
    pub dedupe_open_messages: bool,
    /// Messages of a guest allowed to each session in a second.
    pub message_rate: u32,
    /// Whether pushed frames overtake answers: a bot speaks before the echo, and before the answer to `configureSession`.
    pub pushes_out_of_order: bool,
    /// Whether the operations of the surface `rest` are there, which the public platform does not
    /// have. Without them they are 404, and their permissions permit nothing.
    pub brief: bool,
    /// HTTPS with a CA of its own; without it plain HTTP.
    pub tls: Option<Tls>,
}

/// The web deployment of the pretended organization.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// Its id.
    pub id: Uuid,
    /// Any `Origin` may connect.
    pub allow_all_domains: bool,
    /// Else these, and what ends in a dot and one of these.
    pub allowed_domains: Vec<String>,
    /// How long a session lives after its last message.
    pub session_seconds: u64,
    /// Whether a conversation that an agent ended can be read only.
    pub read_only_on_disconnect: bool,
    /// Whether guests may clear their conversation.
    pub clear: bool,
    /// MIME types of files that guests may send.
    pub file_types: Vec<String>,
    /// The longest such file, in units of 1,024 bytes.
    pub max_file_kb: u64,
    /// Whether guests may sign in.
    pub authentication: bool,
    /// Whether they may do so in the middle of a session.
    pub session_upgrade: bool,
}

/// How a socket to an unknown deployment is refused. No source settles it
/// (docs/platform.md#guest-socket).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownDeployment {
    /// The upgrade is answered with this status.
    Upgrade(StatusCode),
    /// The upgrade is good; `configureSession` is answered 400.
    Configure,
}

/// What the inbound message flow of the deployment and of the integration does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// It reads the custom attribute `routingTarget`; a queue's id sends the conversation there, anything else to the first queue.
    ReadsRoutingTarget,
    /// It sends every conversation to the first queue.
    Ignores,
}

/// HTTPS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The region's domain: the certificate is good for `api.{region}` and the other hosts of a region.
    pub region: String,
}

/// An OAuth client of the pretended organization.
#[derive(Debug, Clone)]
pub struct OAuthClient {
    /// Its id.
    pub id: String,
    /// Its secret.
    pub secret: String,
    /// What it may do.
    pub scopes: Vec<String>,
}

/// May register contacts: the permission's name of requirement R18 (docs/requirements.md).
pub const SCOPE_CONTACTS: &str = "externalcontacts:create";
/// May open conversations: the permission's name of requirement R18 (docs/requirements.md).
pub const SCOPE_CONVERSATIONS: &str = "conversations:messaging";

/// The web deployment, unless the options name another.
pub const DEPLOYMENT_ID: Uuid = uuid!("dddd0000-0000-4000-8000-000000000001");
/// The open messaging integration, unless the options name another.
pub const INTEGRATION_ID: Uuid = uuid!("1d1d0000-0000-4000-8000-000000000001");
/// The external source, unless the options name another.
pub const EXTERNAL_SOURCE_ID: Uuid = uuid!("2b1d0000-0000-4000-8000-00000000e501");

/// The platform's names of the permissions that the official operations ask for
/// (docs/platform.md#permissions).
pub const PERMISSIONS: [&str; 11] = [
    "externalContacts:contact:add",
    "externalContacts:contact:enrich",
    "externalContacts:contact:view",
    "externalContacts:conversation:associate",
    "externalContacts:externalSource:view",
    "routing:queue:view",
    "conversation:message:view",
    "conversation:communication:view",
    "conversation:communication:blindTransfer",
    "conversation:message:receive",
    "messaging:integration:view",
];

/// How long an `Idempotency-Key` is remembered (requirement R6, docs/requirements.md).
pub(crate) const KEY_LIFE: Duration = Duration::from_secs(24 * 3600);

/// The most that a contact's or a conversation's attributes may hold, in bytes of names and values
/// without the guest token. Requirement R15 (docs/requirements.md) names no limit; this is
/// `maxCustomDataBytes` of the guest API (docs/platform.md#attributes).
pub(crate) const MAX_ATTRIBUTES: usize = 2048;

impl OAuthClient {
    /// A client that may do all that is needed.
    pub fn new(id: &str, secret: &str) -> Self {
        let scopes = [SCOPE_CONTACTS, SCOPE_CONVERSATIONS].into_iter().chain(PERMISSIONS).map(str::to_owned).collect();
        Self { id: id.to_owned(), secret: secret.to_owned(), scopes }
    }
}

impl OAuthClient {
    /// `sim-client`, `sim-client-2` and so on; each may do all that is needed.
    pub fn several(number: u16) -> Vec<Self> {
        let name = |n| if n == 1 { "sim-client".to_owned() } else { format!("sim-client-{n}") };
        (1..=number).map(name).map(|id| Self::new(&id, &format!("{id}-secret"))).collect()
    }
}

impl Default for Options {
    fn default() -> Self {
        let queue = |id, name: &str| Queue { id, name: name.to_owned() };
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            clients: OAuthClient::several(1),
            queues: vec![
                queue(uuid!("5e0c0000-0000-4000-8000-000000000001"), "Sales"),
                queue(uuid!("5e0c0000-0000-4000-8000-000000000002"), "Support"),
                queue(uuid!("5e0c0000-0000-4000-8000-000000000003"), "Billing"),
            ],
            token_life: Duration::from_secs(1800),
            quota: Some(Rate::REST),
            endpoint_quotas: Vec::new(),
            latency: Duration::ZERO,
            faults: Vec::new(),
            seed: 0,
            crm_secret: None,
            clock: Clock::system(),
            bad_client_status: StatusCode::BAD_REQUEST,
            token_quota: None,
            deployment: Deployment::default(),
            unknown_deployment: UnknownDeployment::Upgrade(StatusCode::BAD_REQUEST),
            integration: INTEGRATION_ID,
            external_source: EXTERNAL_SOURCE_ID,
            flow: Flow::ReadsRoutingTarget,
            greeting: None,
            details_delay: Duration::ZERO,
            link_delay: Duration::ZERO,
            join_opens: true,
            prefetch: true,
            dedupe_open_messages: false,
            message_rate: 2,
            pushes_out_of_order: false,
            brief: true,
            tls: None,
        }
    }
}

impl Default for Deployment {
    fn default() -> Self {
        Self {
            id: DEPLOYMENT_ID,
            allow_all_domains: true,
            allowed_domains: Vec::new(),
            session_seconds: 259_200,
            read_only_on_disconnect: true,
            clear: true,
            file_types: ["image/png", "image/jpeg", "application/pdf"].map(str::to_owned).to_vec(),
            max_file_kb: 10_240,
            authentication: true,
            session_upgrade: true,
        }
    }
}
