//! `GET /api/v2/routing/queues/{queueId}` (requirement R14, docs/requirements.md).

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    call_context::CallContext,
    client::{GenesysClient, RequestSpec},
    error::{CallError, Operation},
    foreign::{ApiPath, lenient},
    retry::RetrySafety,
};

/// A queue, with the fields that are used here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// The queue's ID.
    pub id: Uuid,
    /// The queue's name in the admin console.
    #[serde(default)]
    pub name: String,
}

impl GenesysClient {
    /// Looks up a queue.
    ///
    /// # Errors
    ///
    /// A queue that does not exist is an error with status 404 ([`CallError::is_not_found`]).
    pub async fn queue(&self, id: Uuid, context: &CallContext) -> Result<Queue, CallError> {
        /// The status alone shows that the queue exists; no field of the response is required.
        #[derive(Deserialize)]
        struct Found {
            #[serde(default, deserialize_with = "lenient")]
            name: String,
        }
        let call = RequestSpec::get(
            Operation::Queue,
            ApiPath::new("/api/v2/routing/queues").segment(id),
            RetrySafety::Idempotent,
        );
        let Found { name } = self.call(&call, context).await?.value;
        Ok(Queue { id, name })
    }
}
