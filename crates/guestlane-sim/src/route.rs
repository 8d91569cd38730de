//! The routes of the simulator. Fault specs, call counts and the journal use their names.

use std::{fmt, str::FromStr};

use http::Method;

/// The result of matching a request's method and path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RouteMatch {
    /// A route of the platform or of the webhook receiver: the operation, and the IDs in the path.
    Route(Operation, Vec<String>),
    /// The path exists, but not with this method.
    WrongMethod,
    /// The path does not exist.
    Unknown,
}

macro_rules! routes {
    ($($(#[doc = $about:literal])+ $route:ident = $name:literal,)+) => {
        /// The simulated routes of the platform and of the webhook receiver.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Route {
            $($(#[doc = $about])+ $route,)+
        }

        impl Route {
            /// All routes.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$route),+];

            /// Returns the name in fault specs and counts.
            pub fn name(self) -> &'static str {
                match self { $(Self::$route => $name),+ }
            }
        }
    };
}

routes! {
    /// `POST /oauth/token`, and on the surface `rest` `POST /api/v2/oauth/token`
    Token = "token",
    /// `GET /api/v2/routing/queues` and `/{queueId}`
    Queue = "queue",
    /// `POST /api/v2/externalcontacts/contacts` and `/enrich`
    Contact = "contact",
    /// `POST /api/v2/conversations/messaging`, only on the surface `rest` (the public platform has
    /// no such operation)
    Conversation = "conversation",
    /// `POST /crm/events`
    Crm = "crm",
    /// `POST /api/v2/externalcontacts/identifierlookup/contacts`
    Lookup = "lookup",
    /// `GET /api/v2/externalcontacts/contacts/{contactId}`
    ContactRead = "contact-read",
    /// `PUT /api/v2/externalcontacts/conversations/{conversationId}`
    Link = "link",
    /// `GET /api/v2/conversations/messages/{messageId}/details`
    Details = "details",
    /// `GET /api/v2/conversations/{conversationId}`
    ConversationRead = "conversation-read",
    /// `PATCH /api/v2/conversations/{conversationId}/participants/{participantId}/attributes`
    Attributes = "attributes",
    /// `POST /api/v2/conversations/{conversationId}/participants/{participantId}/replace/queue`
    Transfer = "transfer",
    /// `POST /api/v2/conversations/messages/{integrationId}/inbound/open/message`
    OpenMessage = "open-message",
    /// `GET /webdeployments/v1/deployments/{deploymentId}/config.json` and `/domains.json`
    Deployment = "deployment",
    /// `GET /api/v2/conversations/messaging/integrations/open/{integrationId}`
    Integrations = "integrations",
    /// `GET /api/v2/organizations/limits/namespaces/{namespaceName}`
    Limits = "limits",
    /// `GET /api/v2/externalcontacts/externalsources/{externalSourceId}`
    Sources = "sources",
    /// `GET` and `HEAD /api/v2/tokens/me`
    TokenInfo = "token-info",
    /// `GET /api/v2/webmessaging/messages`
    History = "history",
    /// `POST /api/v2/webdeployments/token/oauthcodegrantjwtexchange`, `/refresh`, `DELETE …/revoke`
    Exchange = "exchange",
    /// `PUT` and `GET /_upload/{attachmentId}`, the simulated file storage
    Upload = "upload",
    /// `GET /v1?deploymentId=…`, the upgrade to the guest WebSocket
    Socket = "socket",
    /// The frames `configureSession` and `configureAuthenticatedSession`
    Configure = "configure",
    /// The frame `onMessage`
    Message = "message",
    /// The frame `getJwt`
    Jwt = "jwt",
    /// The frame `echo`
    Echo = "echo",
    /// The frames `onAttachment`, `getAttachment` and `deleteAttachment`
    Attachment = "attachment",
    /// The frame `closeSession`
    Close = "close",
    /// The frame `getConfiguration`, unknown frames, and messages that are not frames
    Configuration = "configuration",
}

impl Route {
    /// The routes of the surface `rest`, which are the first ones.
    pub const GATEWAY: [Self; 5] = [
        Self::Token,
        Self::Queue,
        Self::Contact,
        Self::Conversation,
        Self::Crm,
    ];

    /// Returns the route of a frame with this action.
    pub(crate) fn of_action(action: &str) -> Self {
        match action {
            "configureSession" | "configureAuthenticatedSession" => Self::Configure,
            "onMessage" => Self::Message,
            "getJwt" => Self::Jwt,
            "echo" => Self::Echo,
            "onAttachment" | "getAttachment" | "deleteAttachment" => Self::Attachment,
            "closeSession" => Self::Close,
            _ => Self::Configuration,
        }
    }

    /// Returns whether the route reads data that may not be visible yet. The fault `stale` applies
    /// to these routes.
    pub(crate) fn reads(self) -> bool {
        matches!(
            self,
            Self::Queue
                | Self::Conversation
                | Self::Lookup
                | Self::Details
                | Self::ConversationRead
                | Self::History
        )
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Route {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL
            .into_iter()
            .find(|route| route.name() == name)
            .ok_or(())
    }
}

impl serde::Serialize for Route {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

macro_rules! operations {
    ($($op:ident = $route:ident, $method:literal $path:literal;)+) => {
        /// The operation of a request. One route can have several operations.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Operation {
            $($op,)+
        }

        impl Operation {
            pub(crate) fn route(self) -> Route {
                match self { $(Self::$op => Route::$route),+ }
            }
        }

        const OPERATIONS: &[(Operation, &str, &str)] = &[$((Operation::$op, $method, $path)),+];
    };
}

// The first pattern that matches a path wins, so `/messaging` of the surface `rest` precedes `{}`.
operations! {
    GatewayToken = Token, "POST" "/api/v2/oauth/token";
    Token = Token, "POST" "/oauth/token";
    GatewayConversation = Conversation, "POST" "/api/v2/conversations/messaging";
    Crm = Crm, "POST" "/crm/events";
    Queues = Queue, "GET" "/api/v2/routing/queues";
    Queue = Queue, "GET" "/api/v2/routing/queues/{}";
    Contact = Contact, "POST" "/api/v2/externalcontacts/contacts";
    Enrich = Contact, "POST" "/api/v2/externalcontacts/contacts/enrich";
    ContactRead = ContactRead, "GET" "/api/v2/externalcontacts/contacts/{}";
    Lookup = Lookup, "POST" "/api/v2/externalcontacts/identifierlookup/contacts";
    Link = Link, "PUT" "/api/v2/externalcontacts/conversations/{}";
    Source = Sources, "GET" "/api/v2/externalcontacts/externalsources/{}";
    Details = Details, "GET" "/api/v2/conversations/messages/{}/details";
    OpenMessage = OpenMessage, "POST" "/api/v2/conversations/messages/{}/inbound/open/message";
    Integration = Integrations, "GET" "/api/v2/conversations/messaging/integrations/open/{}";
    ConversationRead = ConversationRead, "GET" "/api/v2/conversations/{}";
    Attributes = Attributes, "PATCH" "/api/v2/conversations/{}/participants/{}/attributes";
    Transfer = Transfer, "POST" "/api/v2/conversations/{}/participants/{}/replace/queue";
    Limits = Limits, "GET" "/api/v2/organizations/limits/namespaces/{}";
    TokenInfo = TokenInfo, "GET" "/api/v2/tokens/me";
    TokenHead = TokenInfo, "HEAD" "/api/v2/tokens/me";
    Config = Deployment, "GET" "/webdeployments/v1/deployments/{}/config.json";
    Domains = Deployment, "GET" "/webdeployments/v1/deployments/{}/domains.json";
    History = History, "GET" "/api/v2/webmessaging/messages";
    Exchange = Exchange, "POST" "/api/v2/webdeployments/token/oauthcodegrantjwtexchange";
    Refresh = Exchange, "POST" "/api/v2/webdeployments/token/refresh";
    Revoke = Exchange, "DELETE" "/api/v2/webdeployments/token/revoke";
    Upload = Upload, "PUT" "/_upload/{}";
    Download = Upload, "GET" "/_upload/{}";
    Socket = Socket, "GET" "/v1";
}

impl Operation {
    /// Returns whether the operation requires an access token.
    pub(crate) fn is_behind_a_token(self) -> bool {
        let open = matches!(
            self.route(),
            Route::Token | Route::Crm | Route::Deployment | Route::History | Route::Exchange
        );
        !open && !matches!(self.route(), Route::Upload | Route::Socket)
    }
}

pub(crate) fn match_route(method: &Method, path: &str) -> RouteMatch {
    let Some((pattern, ids)) = OPERATIONS
        .iter()
        .find_map(|(_, _, pattern)| Some((pattern, matches(pattern, path)?)))
    else {
        return RouteMatch::Unknown;
    };
    let op = OPERATIONS
        .iter()
        .find(|(_, wanted, other)| other == pattern && *wanted == method.as_str());
    op.map_or(RouteMatch::WrongMethod, |(op, _, _)| {
        RouteMatch::Route(*op, ids)
    })
}

/// Returns the path segments in the place of each `{}`, or `None` if the path does not match.
fn matches(pattern: &str, path: &str) -> Option<Vec<String>> {
    let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
    let mut ids = Vec::new();
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(ids),
            (Some("{}"), Some(id)) if !id.is_empty() => ids.push(id.to_owned()),
            (Some(wanted), Some(given)) if wanted == given => {}
            _ => return None,
        }
    }
}
