//! Admits rows as fast as admission control allows.

use std::sync::Arc;

use guestlane::{
    SessionEngine,
    admission_control::{AdmissionController, PauseEvent, Permit, PlatformOutage},
};
use tokio::sync::mpsc;

use super::{
    results::Known,
    rows::{Place, Row, RowError},
};
use crate::output;

/// A row after admission, or the end of admission.
pub(super) enum FeedEvent {
    /// A row that may start now.
    Row(Row, Permit),
    /// A row that the result file already contains.
    AlreadyDone(Place),
    /// An invalid row.
    Invalid(RowError),
    /// No more rows are admitted: the platform has been failing for too long.
    Stopped(PlatformOutage),
}

/// Admits rows.
#[derive(Clone)]
pub(super) struct Feeder {
    pub(super) admission: Arc<AdmissionController>,
    pub(super) engine: Arc<SessionEngine>,
    pub(super) known: Arc<Known>,
}

impl Feeder {
    /// Admits rows in a separate task, until the receiver is dropped.
    pub(super) fn begin(
        &self,
        mut rows: mpsc::Receiver<Result<Row, RowError>>,
    ) -> mpsc::Receiver<FeedEvent> {
        let (sender, receiver) = mpsc::channel(1);
        let feeder = self.clone();
        tokio::spawn(async move {
            while let Some(row) = rows.recv().await {
                let fed = match row {
                    Ok(row) => feeder.admit(row).await,
                    Err(bad) => FeedEvent::Invalid(bad),
                };
                let stopped = matches!(fed, FeedEvent::Stopped(_));
                if sender.send(fed).await.is_err() || stopped {
                    return;
                }
            }
        });
        receiver
    }

    async fn admit(&self, row: Row) -> FeedEvent {
        if self.is_done(&row).await {
            return FeedEvent::AlreadyDone(row.place);
        }
        let admitted = self
            .admission
            .acquire(row.request.queue, PauseReporter::default().tell())
            .await;
        match admitted {
            Ok(permit) => FeedEvent::Row(row, permit),
            Err(outage) => FeedEvent::Stopped(outage),
        }
    }

    /// Whether the result file says that the row is done. A row that the store knows takes the
    /// normal path, which needs no call to the platform for a completed session.
    async fn is_done(&self, row: &Row) -> bool {
        let key = row.request.key.clone();
        self.known.has(&row.request)
            && matches!(self.engine.store().find_by_key(key).await, Ok(None))
    }
}

/// Reports once that admission is paused, and once that it resumes.
#[derive(Default)]
struct PauseReporter(bool);

impl PauseReporter {
    fn tell(mut self) -> impl FnMut(PauseEvent) + Send {
        move |holding| match holding {
            PauseEvent::Paused(lasted) if !self.0 => {
                self.0 = true;
                output::stderr_line(format!(
                    "The platform has not responded for {} s. No row starts until it responds; it \
                     is probed every two seconds.",
                    lasted.as_secs()
                ));
            }
            PauseEvent::Paused(_) => {}
            PauseEvent::Resumed => output::stderr_line("The platform responds again."),
        }
    }
}
