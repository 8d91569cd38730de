//! The background tasks of a service.

use std::sync::Arc;

use guestlane::Workers;

use crate::{readiness, sampler::Sampler, service::Service};

impl Service {
    /// Runs the background tasks for as long as it is polled: recovery, delivery, API keys,
    /// platform probes, write probes and sampling.
    pub async fn work(self: Arc<Self>) {
        tokio::join!(
            Workers::new(Arc::clone(self.engine())).run(),
            self.reload_api_keys(),
            self.store_key_usage(),
            self.probe_platform(),
            readiness::probe_writes(&self),
            Sampler::new(&self).run()
        );
    }
}
