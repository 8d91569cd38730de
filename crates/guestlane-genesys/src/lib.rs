//! Client for Genesys Cloud: sends one call at a time and reports how far each call got.
//!
//! [`GenesysClient`] is the entry point. It uses one OAuth client or a pool of several. A call
//! passes through these modules, in this order:
//!
//! 1. `client` builds the request once; every attempt sends the same bytes.
//! 2. `retry` has the only retry loop; [`AttemptError::classify`] decides what may follow a
//!    failure.
//! 3. `rate_limit` grants the permit and selects the OAuth client; `token_source` supplies the
//!    access token.
//! 4. [`http_client`](guestlane_runtime::http_client) makes the attempt within a timeout. Its errors state whether the platform may
//!    have acted on the request.

mod attempt_log;
mod base_url;
mod call_context;
mod client;
mod client_metrics;
mod coordinator;
mod credentials;
mod error;
pub mod foreign;
#[doc(hidden)]
pub mod fuzzing;
mod gateway_api;
pub mod guest;
mod health;
mod priority;
mod public_api;
mod queues;
mod rate;
mod rate_limit;
mod regions;
mod response;
mod retry;
mod retry_budget;
mod token_source;

pub use attempt_log::{Attempt, AttemptLog};
pub use base_url::{BaseUrl, InvalidBaseUrl, is_loopback};
pub use call_context::CallContext;
pub use client::GenesysClient;
pub use client_metrics::{ClientMetrics, ErrorCounts, LatencySample};
pub use coordinator::{
    Coordinator, IssuedToken, RateLimitLease, RateLimitLeaseRequest, TokenLookup,
};
pub use credentials::{CallPolicy, Credentials, OAuthClient, TokenRequestAuth};
pub use error::{AttemptError, CallError, Category, ErrorResponse, Operation, RetryAction};
pub use foreign::{ApiPath, CorrelationId, ErrorCode, PlatformId, PlatformMessage};
pub use gateway_api::{
    ContactAttributes, ConversationAttributes, CreatedResource, NewConversation,
    RegisterContactRequest, RoutingData, guest_address,
};
pub use guest::session::{GuestSession, MessageAccepted};
pub use health::PlatformHealth;
pub use priority::Priority;
pub use public_api::{
    contacts::{
        ContactIdentifier, ExternalContact, ExternalId, ExternalSourceRef, IdentifierKind,
        PhoneNumber, UpsertContactRequest, UpsertPreview,
    },
    conversations::{Communication, Conversation, Participant},
    open_messaging::{AcceptedMessage, InboundMessage, OpenChannel, OpenMetadata, OpenSender},
    probe::ProbeResponse,
};
pub use queues::Queue;
pub use rate::{InvalidRate, Rate};
pub use rate_limit::{ClientUsage, MAX_CLIENTS};
pub use regions::{Endpoints, REGIONS, Region};
pub use retry::{Completed, RetryPolicy};
pub use retry_budget::RetryBudget;
