//! [`Backend`] for a file: one machine, its own clock, no batches.

use std::sync::Arc;

use async_trait::async_trait;
use guestlane_core::token::MasterKey;
use guestlane_genesys::Coordinator;
use guestlane_runtime::Clock;
use guestlane_tlog::NoteSigner;
use tokio::sync::watch;
use tracing::warn;

use super::{Sqlite, audit::Logs, reader};
use crate::{AuditSettings, Backend, Batches, ReadLimits, StoreError, StoredSecret};

#[async_trait]
impl Backend for Sqlite {
    fn batches(&self) -> Result<&dyn Batches, StoreError> {
        Err(StoreError::NotShared)
    }

    fn coordinator(&self, _master: Arc<MasterKey>, _clock: Clock) -> Option<Arc<dyn Coordinator>> {
        None
    }

    async fn attach_audit_log(
        &self,
        settings: AuditSettings,
        signer: Arc<NoteSigner>,
        mend: bool,
    ) -> Result<(), StoreError> {
        let logs = Logs::new(
            settings,
            signer,
            self.path.clone(),
            self.clock.clone(),
            self.fail_points.clone(),
        );
        self.writer.keep(logs, mend).await?;
        if !mend {
            return Ok(());
        }
        if let Err(error) = self.run_maintenance().await {
            warn!(
                error = guestlane_runtime::text::display_chain(&error),
                "failed to remove an erased guest's bytes from the store's file; retrying at the next start"
            );
        }
        Ok(())
    }

    fn with_own_reads(&self, limits: ReadLimits) -> Result<Arc<dyn Backend>, StoreError> {
        Ok(Arc::new(Self {
            reader: reader(&self.path, limits, &self.clock)?,
            ..self.clone()
        }))
    }

    async fn write_probe(&self, value: String) -> Result<(), StoreError> {
        let upsert = "INSERT OR REPLACE INTO property (name, value) VALUES ('write_probe', ?1)";
        self.writer
            .run(move |tx| Ok(tx.execute(upsert, [value])?))
            .await
            .map(drop)
    }

    fn clock(&self) -> Clock {
        self.clock.clone()
    }

    fn clock_offset(&self) -> Option<f64> {
        None
    }

    fn may_claim(&self) -> bool {
        true
    }

    async fn measure_clock(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn notifications(&self) -> Option<watch::Receiver<u64>> {
        None
    }

    fn is_home_of(&self, _found: &StoredSecret) -> bool {
        false
    }
}
