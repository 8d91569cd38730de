//! The options of the simulator: which kind of platform it simulates.

use std::{net::SocketAddr, time::Duration};

use guestlane_genesys::{Queue, Rate};
use guestlane_runtime::Clock;
use http::StatusCode;
use uuid::{Uuid, uuid};

use crate::{fault::Fault, route::Route};

/// The options of the simulator. The default is a healthy platform with three queues on a free port
/// of this machine.
#[derive(Debug, Clone)]
pub struct Options {
    /// The address to listen on. Port 0 takes a free port.
    pub listen: SocketAddr,
    /// The OAuth clients of the organization.
    pub clients: Vec<OAuthClient>,
    /// The queues of the organization.
    pub queues: Vec<Queue>,
    /// The lifetime of an access token.
    pub token_life: Duration,
    /// The rate limit of each OAuth client, or `None` for no limit.
    pub quota: Option<Rate>,
    /// The rate limits of single routes for each OAuth client, where they are lower. The rate-limit
    /// headers of that route have this count (docs/platform.md#rate-limits).
    pub endpoint_rate_limits: Vec<(Route, Rate)>,
    /// The minimum latency of every response.
    pub latency: Duration,
    /// The faults that are active from the start.
    pub faults: Vec<Fault>,
    /// The seed of random decisions: the same seed and the same calls give the same run.
    pub seed: u64,
    /// The `whsec_…` secret against which the webhook receiver verifies signatures. Without a
    /// secret it accepts every event and counts it as unchecked.
    pub crm_secret: Option<String>,
    /// The clock of the simulator.
    pub clock: Clock,
    /// The status of a token request with invalid client credentials. No source settles it: 400 or
    /// 401 (docs/platform.md#sign-in).
    pub bad_client_status: StatusCode,
    /// The rate limit of each client at `/oauth/token`, or `None` for no limit.
    pub token_quota: Option<Rate>,
    /// The web deployment.
    pub deployment: Deployment,
    /// How a socket to an unknown deployment is refused.
    pub unknown_deployment: UnknownDeployment,
    /// The open messaging integration.
    pub integration: Uuid,
    /// The external source that the external IDs of contacts may name.
    pub external_source: Uuid,
    /// What the inbound message flow does.
    pub flow: Flow,
    /// The text that a bot sends when a web messaging conversation begins.
    pub greeting: Option<String>,
    /// The delay after a message before its details can be read.
    pub details_delay: Duration,
    /// The delay after the response before a contact is linked to a conversation.
    pub link_delay: Duration,
    /// Whether the presence `Join` alone creates a conversation.
    pub join_opens: bool,
    /// Whether open messaging returns the conversation's ID when it is requested.
    pub prefetch: bool,
    /// Whether open messaging recognizes a repeated `channel.messageId`.
    pub dedupe_open_messages: bool,
    /// The maximum number of guest messages per second in each session.
    pub message_rate: u32,
    /// Whether pushed frames overtake responses. If so, a bot's message precedes the echo and the
    /// response to `configureSession`.
    pub pushes_out_of_order: bool,
    /// Whether the operations of the surface `rest` are served, which the public platform does not
    /// have. Without them their paths are 404 and their permissions have no effect.
    pub gateway: bool,
    /// Serves HTTPS with a CA of its own, or plain HTTP if `None`.
    pub tls: Option<Tls>,
}

/// The web deployment of the simulated organization.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// Its id.
    pub id: Uuid,
    /// Whether any `Origin` may connect.
    pub allow_all_domains: bool,
    /// The allowed domains otherwise. Subdomains of an allowed domain may connect as well.
    pub allowed_domains: Vec<String>,
    /// The lifetime of a session after its last message.
    pub session_seconds: u64,
    /// Whether a conversation that an agent ended becomes read-only.
    pub read_only_on_disconnect: bool,
    /// Whether guests may clear their conversation.
    pub clear: bool,
    /// The MIME types of files that guests may send.
    pub file_types: Vec<String>,
    /// The maximum size of such a file, in units of 1,024 bytes.
    pub max_file_kb: u64,
    /// Whether guests may authenticate.
    pub authentication: bool,
    /// Whether guests may authenticate in the middle of a session.
    pub session_upgrade: bool,
}

/// How a socket to an unknown deployment is refused. No source settles it
/// (docs/platform.md#guest-socket).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownDeployment {
    /// The upgrade is rejected with this status.
    Upgrade(StatusCode),
    /// The upgrade succeeds, and `configureSession` is answered 400.
    Configure,
}

/// The routing by the inbound message flow of the deployment and of the integration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// The flow reads the custom attribute `routingTarget`. A queue's ID routes the conversation to
    /// that queue; any other value routes it to the first queue.
    ReadsRoutingTarget,
    /// The flow routes every conversation to the first queue.
    Ignores,
}

/// The options of HTTPS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The region's domain. The certificate is valid for `api.{region}` and the other hosts of a
    /// region.
    pub region: String,
}

/// An OAuth client of the simulated organization.
#[derive(Debug, Clone)]
pub struct OAuthClient {
    /// Its id.
    pub id: String,
    /// The client secret.
    pub secret: String,
    /// The permissions of the client.
    pub scopes: Vec<String>,
}

/// The permission to register contacts, as requirement R18 names it (docs/requirements.md).
pub const SCOPE_CONTACTS: &str = "externalcontacts:create";
/// The permission to open conversations, as requirement R18 names it (docs/requirements.md).
pub const SCOPE_CONVERSATIONS: &str = "conversations:messaging";

/// The default ID of the web deployment.
pub const DEPLOYMENT_ID: Uuid = uuid!("dddd0000-0000-4000-8000-000000000001");
/// The default ID of the open messaging integration.
pub const INTEGRATION_ID: Uuid = uuid!("1d1d0000-0000-4000-8000-000000000001");
/// The default ID of the external source.
pub const EXTERNAL_SOURCE_ID: Uuid = uuid!("2b1d0000-0000-4000-8000-00000000e501");

/// The platform's names of the permissions that the public operations require
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
pub(crate) const IDEMPOTENCY_WINDOW: Duration = Duration::from_secs(24 * 3600);

/// The most that a contact's or a conversation's attributes may hold, in bytes of names and values
/// without the guest token. Requirement R15 (docs/requirements.md) names no limit; this is
/// `maxCustomDataBytes` of the guest API (docs/platform.md#attributes).
pub(crate) const MAX_ATTRIBUTES: usize = 2048;

impl OAuthClient {
    /// Returns a client with all permissions that the product needs.
    pub fn new(id: &str, secret: &str) -> Self {
        let scopes = [SCOPE_CONTACTS, SCOPE_CONVERSATIONS]
            .into_iter()
            .chain(PERMISSIONS)
            .map(str::to_owned)
            .collect();
        Self {
            id: id.to_owned(),
            secret: secret.to_owned(),
            scopes,
        }
    }
}

impl OAuthClient {
    /// Returns clients `sim-client`, `sim-client-2` and so on, each with all permissions that the
    /// product needs.
    pub fn several(number: u16) -> Vec<Self> {
        let name = |n| {
            if n == 1 {
                "sim-client".to_owned()
            } else {
                format!("sim-client-{n}")
            }
        };
        (1..=number)
            .map(name)
            .map(|id| Self::new(&id, &format!("{id}-secret")))
            .collect()
    }
}

impl Default for Options {
    fn default() -> Self {
        let queue = |id, name: &str| Queue {
            id,
            name: name.to_owned(),
        };
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
            endpoint_rate_limits: Vec::new(),
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
            gateway: true,
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
            file_types: ["image/png", "image/jpeg", "application/pdf"]
                .map(str::to_owned)
                .to_vec(),
            max_file_kb: 10_240,
            authentication: true,
            session_upgrade: true,
        }
    }
}
