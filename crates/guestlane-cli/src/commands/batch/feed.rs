//! Hands on rows as fast as the platform takes them.

use std::sync::Arc;

use guestlane::{
    Lane,
    intake::{Begun, Holding, Intake, Outage},
};
use tokio::sync::mpsc;

use super::{
    results::Known,
    rows::{Place, Row, RowError},
};
use crate::screen;

/// What is handed on.
pub(super) enum Fed {
    /// A row that may begin now.
    Row(Row, Begun),
    /// One that the result file has already.
    Known(Place),
    /// One that cannot be used.
    Bad(RowError),
    /// No more: the platform has been away for too long.
    Stopped(Outage),
}

/// Reads on in a task of its own, until nobody wants more.
pub(super) fn begin(
    mut rows: mpsc::Receiver<Result<Row, RowError>>,
    intake: Arc<Intake>,
    lane: Arc<Lane>,
    known: Arc<Known>,
) -> mpsc::Receiver<Fed> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Some(row) = rows.recv().await {
            let fed = match row {
                Err(bad) => Fed::Bad(bad),
                // Done by the result file's word, unless the ledger knows better: then it is asked, which costs no call.
                Ok(row) if known.has(&row.request) && matches!(lane.store().peek(row.request.key.clone()).await, Ok(None)) => {
                    Fed::Known(row.place)
                }
                Ok(row) => match intake.next(row.request.queue, Told::default().tell()).await {
                    Ok(begun) => Fed::Row(row, begun),
                    Err(outage) => {
                        let _ = sender.send(Fed::Stopped(outage)).await;
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
struct Told(bool);

impl Told {
    fn tell(mut self) -> impl FnMut(Holding) + Send {
        move |holding| match holding {
            Holding::Outage(lasted) if !self.0 => {
                self.0 = true;
                screen::note(format!(
                    "The platform has not answered for {} s: no row begins until it does; it is asked every two seconds.",
                    lasted.as_secs()
                ));
            }
            Holding::Outage(_) => {}
            Holding::Over => screen::note("The platform answers again."),
        }
    }
}
