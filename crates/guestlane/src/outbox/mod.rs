//! What the CRM shall be told: written with what happened, delivered later, at least once.

mod address;
mod deliver;
mod endpoints;
mod event;
mod keys;
mod sign;
mod worker;

pub(crate) use address::NOT_PUBLIC;
pub use address::{Networks, is_public};
pub(crate) use deliver::TRY_LIMIT;
pub use deliver::{Crm, Settlement};
pub(crate) use endpoints::GivenKeys;
pub use endpoints::{Endpoint, Endpoints, MAX_OVERLAP};
pub use event::{Event, event_id};
pub use keys::{EndpointKeys, InvalidKeys, KeyKind};
pub use sign::{InvalidKeyPair, InvalidSecret, WebhookKeyPair, WebhookSecret};
pub use worker::{Outbox, Round};
