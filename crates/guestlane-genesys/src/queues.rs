//! `GET /api/v2/routing/queues/{queueId}` (R14).

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    clock::Timestamp,
    error::{CallFailed, Operation},
    platform::{Call, Platform, Repeat},
};

/// A queue, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// The queue's id.
    pub id: Uuid,
    /// Its name in the admin console.
    #[serde(default)]
    pub name: String,
}

impl Platform {
    /// Looks a queue up. A queue that does not exist is a refusal with status 404.
    pub async fn queue(&self, id: Uuid, deadline: Timestamp) -> Result<Queue, CallFailed> {
        let call = Call::get(Operation::Queue, format!("/api/v2/routing/queues/{id}"), Repeat::Always);
        Ok(self.call(&call, deadline).await?.value)
    }
}
