//! Talks to Genesys Cloud, one call at a time, and says how far each call got.
//!
//! [`Platform`] is the way in, as one OAuth client or several. A call goes through these hands, in this order:
//!
//! 1. [`platform`] builds the request once; every attempt sends the same bytes;
//! 2. `retry` is the only loop: it asks [`CallError::next`] what may follow;
//! 3. `pool` gives the moment and the OAuth client, `oauth` its access token;
//! 4. [`transport`] makes the attempt, within a time limit, and sorts its outcome by what the platform may have done.

mod base_url;
mod budget;
mod clock;
mod cloud;
mod error;
mod fleet;
pub mod foreign;
#[doc(hidden)]
pub mod fuzzing;
pub mod guest;
mod histogram;
mod oauth;
mod outage;
pub mod pem;
mod platform;
mod pool;
mod priority;
mod pulse;
mod queues;
mod rate;
mod regions;
pub mod resolver;
mod rest;
mod retry;
mod seam;
mod stats;
pub mod tls_error;
pub mod trace;
mod trail;
pub mod transport;
mod trust;
pub mod wire_log;

pub use base_url::{BaseUrl, InvalidBaseUrl, is_loopback};
pub use budget::RetryBudget;
pub use clock::{Boot, Busy, Clock, InvalidTimestamp, ManualClock, ReferenceClock, TimedOut, Timestamp};
pub use cloud::{
    contacts::{ContactIdentifier, Enrich, ExternalContact, ExternalId, IdentifierKind, PhoneNumber, SourceRef, WouldBe},
    conversations::{Communication, Conversation, Participant},
    doors::Seen,
    open_messaging::{AcceptedMessage, InboundMessage, OpenChannel, OpenMetadata, OpenSender},
};
pub use error::{CallError, CallFailed, Category, Next, Operation, Refusal};
pub use fleet::{Fleet, Need, NewToken, SharedToken, Slice};
pub use foreign::{ApiPath, CorrelationId, ErrorCode, PlatformId, Sentence};
pub use guest::session::{Arrived, GuestSession};
pub use histogram::{Counted, Histogram};
pub use outage::Outage;
pub use platform::{Credentials, OAuthClient, Patience, Platform, SignIn};
pub use pool::{ClientUse, MOST_CLIENTS};
pub use priority::Priority;
pub use pulse::Pulse;
pub use queues::Queue;
pub use rate::{InvalidRate, Rate};
pub use regions::{Hosts, REGIONS, Region};
pub use rest::{
    contacts::{ContactAttributes, Created, NewContact, guest_address},
    conversations::{ConversationAttributes, NewConversation, RoutingData},
};
pub use retry::{Done, RetryPolicy};
pub use seam::{Seam, Seams};
pub use stats::{CallStats, ErrorCounts, Timed};
pub use trail::{Attempt, InvalidTraceParent, TraceParent, Trail};
pub use trust::{Authorities, ClientCertificate, InvalidTrust, Trust};
