//! Hands on rows as fast as the platform takes them.

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

/// What is handed on.
pub(super) enum FeedEvent {
    /// A row that may begin now.
    Row(Row, Permit),
    /// One that the result file has already.
    AlreadyDone(Place),
    /// One that cannot be used.
    Invalid(RowError),
    /// No more: the platform has been away for too long.
    Stopped(PlatformOutage),
}

/// Reads on in a task of its own, until nobody wants more.
pub(super) fn begin(
    mut rows: mpsc::Receiver<Result<Row, RowError>>,
    intake: Arc<AdmissionController>,
    engine: Arc<SessionEngine>,
    known: Arc<Known>,
) -> mpsc::Receiver<FeedEvent> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Some(row) = rows.recv().await {
            let fed = match row {
                Err(bad) => FeedEvent::Invalid(bad),
                // Done by the result file's word, unless the ledger knows better: then it is asked, which costs no call.
                Ok(row)
                    if known.has(&row.request)
                        && matches!(engine.store().find_by_key(row.request.key.clone()).await, Ok(None)) =>
                {
                    FeedEvent::AlreadyDone(row.place)
                }
                Ok(row) => match intake.acquire(row.request.queue, PauseReporter::default().tell()).await {
                    Ok(begun) => FeedEvent::Row(row, begun),
                    Err(outage) => {
                        let _ = sender.send(FeedEvent::Stopped(outage)).await;
                        return;
                    }
                },
            };
            if sender.send(fed).await.is_err() {
                return;
            }
        }
    });
    receiver
}

/// Says once that rows are held, and once that they are not any more.
#[derive(Default)]
struct PauseReporter(bool);

impl PauseReporter {
    fn tell(mut self) -> impl FnMut(PauseEvent) + Send {
        move |holding| match holding {
            PauseEvent::Paused(lasted) if !self.0 => {
                self.0 = true;
                output::stderr_line(format!(
                    "The platform has not answered for {} s: no row begins until it does; it is asked every two seconds.",
                    lasted.as_secs()
                ));
            }
            PauseEvent::Paused(_) => {}
            PauseEvent::Resumed => output::stderr_line("The platform answers again."),
        }
    }
}
