//! `GET /api/v2/routing/queues/{queueId}` (requirement R14, docs/requirements.md).

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    client::{GenesysClient, RequestSpec, RetrySafety},
    clock::Timestamp,
    error::{CallError, Operation},
    foreign::{ApiPath, lenient},
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

impl GenesysClient {
    /// Looks a queue up. A queue that does not exist is a refusal with status 404.
    pub async fn queue(&self, id: Uuid, deadline: Timestamp) -> Result<Queue, CallError> {
        /// The status says that the queue exists; nothing in the answer is needed to go on.
        #[derive(Deserialize)]
        struct Found {
            #[serde(default, deserialize_with = "lenient")]
            name: String,
        }
        let call =
            RequestSpec::get(Operation::Queue, ApiPath::new("/api/v2/routing/queues").segment(id), RetrySafety::Idempotent);
        let Found { name } = self.call(&call, deadline).await?.value;
        Ok(Queue { id, name })
    }
}
