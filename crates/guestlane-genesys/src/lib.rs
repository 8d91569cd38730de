//! Talks to Genesys Cloud, one call at a time, and says how far each call got.
//!
//! [`Platform`] is one OAuth client's way in. A call goes through these hands, in this order:
//!
//! 1. [`platform`] builds the request once; every attempt sends the same bytes;
//! 2. `retry` is the only loop: it asks [`CallError::next`] what may follow;
//! 3. `oauth` gives the access token, `quota` the moment;
//! 4. [`transport`] makes the attempt, within a time limit, and sorts its outcome by what the platform may have done.

mod base_url;
mod clock;
mod contacts;
mod conversations;
mod error;
pub mod guest;
mod oauth;
mod platform;
mod queues;
mod quota;
mod retry;
mod seam;
mod stats;
pub mod transport;
pub mod wire_log;

pub use base_url::{BaseUrl, InvalidBaseUrl, is_loopback};
pub use clock::{Busy, Clock, InvalidTimestamp, ManualClock, TimedOut, Timestamp};
pub use contacts::{ContactAttributes, Created, NewContact, guest_address};
pub use conversations::{ConversationAttributes, NewConversation, RoutingData};
pub use error::{CallError, CallFailed, Category, Next, Operation, Refusal};
pub use platform::{Credentials, Patience, Platform};
pub use queues::Queue;
pub use quota::{InvalidRate, Rate};
pub use retry::{Done, RetryPolicy};
pub use seam::{Seam, Seams};
pub use stats::{CallStats, ErrorCounts};
