//! The outbox: events are committed with the transition and delivered later, at least once.

mod deliver;
mod endpoints;
mod event;
mod keys;
mod sign;
mod worker;

pub(crate) use deliver::{ATTEMPT_TIMEOUT, NOT_PUBLIC};
pub use deliver::{DeliveryOutcome, WebhookEndpoint};
pub(crate) use endpoints::GivenKeys;
pub use endpoints::{Endpoint, Endpoints, MAX_OVERLAP};
pub use event::{Event, event_id};
pub use keys::{EndpointKeys, InvalidKeys, KeyKind};
pub use sign::{InvalidKeyPair, InvalidSecret, WebhookKeyPair, WebhookSecret};
pub use worker::{DeliveryStats, Outbox};
