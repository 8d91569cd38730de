//! [`Backend`] for a database that nodes share: its clock, batches, coordinator, notifications.

use std::sync::Arc;

use async_trait::async_trait;
use guestlane_core::token::MasterKey;
use guestlane_genesys::Coordinator;
use guestlane_runtime::Clock;
use guestlane_tlog::NoteSigner;
use tokio::sync::watch;
use uuid::Uuid;

use super::{Postgres, clock, connection_pool::ConnectionPool, listen, shared_store::SharedStore};
use crate::{AuditSettings, Backend, Batches, ReadLimits, StoreError, StoredSecret};

#[async_trait]
impl Backend for Postgres {
    fn batches(&self) -> Result<&dyn Batches, StoreError> {
        Ok(self)
    }

    fn coordinator(&self, master: Arc<MasterKey>, clock: Clock) -> Option<Arc<dyn Coordinator>> {
        Some(Arc::new(SharedStore {
            store: self.clone(),
            master,
            process: Uuid::new_v4(),
            clock,
        }))
    }

    async fn attach_audit_log(
        &self,
        settings: AuditSettings,
        signer: Arc<NoteSigner>,
        mend: bool,
    ) -> Result<(), StoreError> {
        self.writer
            .alone(move |thread| thread.keep(settings, signer, mend))
            .await?
    }

    fn with_own_reads(&self, limits: ReadLimits) -> Result<Arc<dyn Backend>, StoreError> {
        let workers = ConnectionPool::start(
            &self.url,
            1,
            limits,
            self.clock.clone(),
            self.fail_points.clone(),
        )?;
        Ok(Arc::new(Self {
            workers,
            ..self.clone()
        }))
    }

    async fn write_probe(&self, value: String) -> Result<(), StoreError> {
        let upsert = "INSERT INTO property (name, value) VALUES ('write_probe', $1) ON CONFLICT (name) DO UPDATE SET value = $1";
        self.workers
            .write(move |tx| tx.execute(upsert, &[&value]).map(drop))
            .await
    }

    fn clock(&self) -> Clock {
        self.clock.clone()
    }

    fn clock_offset(&self) -> Option<f64> {
        self.offset_micros().map(|micros| micros as f64 / 1e6)
    }

    fn may_claim(&self) -> bool {
        self.is_clock_close()
    }

    async fn measure_clock(&self) -> Result<(), StoreError> {
        if !self.base.is_comparable() {
            return Ok(());
        }
        let (base, reference) = (self.base.clone(), self.reference.clone());
        self.urgent
            .read(move |connection| clock::measure(connection, &base, &reference))
            .await
    }

    fn notifications(&self) -> Option<watch::Receiver<u64>> {
        // The first call opens one more connection, which listens for notifications.
        let listen = || {
            let (heard, changes) = watch::channel(0);
            tokio::spawn(listen::listen(self.url.clone(), heard, self.clock.clone()));
            changes
        };
        Some(self.changes.get_or_init(listen).clone())
    }

    fn is_home_of(&self, found: &StoredSecret) -> bool {
        self.table == found.table
    }
}
