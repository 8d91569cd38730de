//! The outbox: events are committed with the transition and delivered later, at least once.

mod deliver;
mod endpoints;
mod keys;
mod sign;
mod worker;

pub use deliver::WebhookEndpoint;
pub(crate) use endpoints::ConfiguredKeys;
pub use endpoints::{Endpoint, Endpoints};
pub use keys::{EndpointKeys, InvalidKeys, KeyKind};
pub use sign::{InvalidKeyPair, InvalidSecret, WebhookKeyPair, WebhookSecret};
pub use worker::{DeliveryStats, Outbox};
