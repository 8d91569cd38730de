//! What the CRM shall be told: written with what happened, delivered later, at least once.

mod address;
mod deliver;
mod event;
mod sign;
mod worker;

pub use address::{Networks, is_public};
pub use deliver::{Crm, Settlement};
pub use event::{Event, event_id};
pub use sign::{InvalidSecret, WebhookSecret};
pub use worker::{Outbox, Round};
