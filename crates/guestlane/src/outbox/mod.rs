//! The outbox: events are committed with the transition and delivered later, at least once.

mod deliver;
mod endpoints;
mod event;
mod keys;
mod sign;
mod ssrf;
mod worker;

pub(crate) use deliver::ATTEMPT_TIMEOUT;
pub use deliver::{DeliveryOutcome, WebhookEndpoint};
pub(crate) use endpoints::GivenKeys;
pub use endpoints::{Endpoint, Endpoints, MAX_OVERLAP};
pub use event::{Event, event_id};
pub use keys::{EndpointKeys, InvalidKeys, KeyKind};
pub use sign::{InvalidKeyPair, InvalidSecret, WebhookKeyPair, WebhookSecret};
pub(crate) use ssrf::NOT_PUBLIC;
pub use ssrf::{EgressPolicy, is_public};
pub use worker::{DeliveryStats, Outbox};
