//! The threads that ask, and that write what needs no place in the audit log. Each has a connection of its own, opened when it is first needed.

use std::{
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use guestlane_genesys::{Clock, Seam, Seams};
use tokio::sync::oneshot;

use super::{
    connection::{Asked, Connection},
    migrations,
};
use crate::store::{PostgresUrl, StoreError};

/// Questions that wait.
const WAITING: usize = 1024;

/// A look through millions of rows is allowed to take its time.
const LIMIT: Duration = Duration::from_secs(300);

type Question = Box<dyn FnOnce(&mut Connection) + Send>;

/// The way to the threads.
#[derive(Debug, Clone)]
pub(super) struct Workers {
    questions: mpsc::SyncSender<Question>,
    clock: Clock,
    seams: Seams,
}

impl Workers {
    pub(super) fn start(url: &PostgresUrl, threads: usize, clock: Clock, seams: Seams) -> Asked<Self> {
        let (questions, receiver) = mpsc::sync_channel::<Question>(WAITING);
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..threads {
            let mut connection = Connection::new(url.clone(), "", LIMIT)?;
            let receiver = Arc::clone(&receiver);
            let next = move || receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let work = move || {
                while let Ok(question) = next() {
                    question(&mut connection);
                }
            };
            let spawned = thread::Builder::new().name("guestlane-ask".to_owned()).spawn(work);
            spawned.map_err(|error| StoreError::Open("guestlane-ask".into(), error))?;
        }
        Ok(Self { questions, clock, seams })
    }

    /// Asks; again when the connection breaks.
    pub(super) async fn ask<T, F>(&self, mut question: F) -> Asked<T>
    where
        T: Send + 'static,
        F: FnMut(&mut Connection) -> Asked<T> + Send + 'static,
    {
        self.on_a_connection(move |connection| connection.repeated(&mut question)).await
    }

    /// Writes in a transaction; again when the connection breaks, also when what was written may be there: it must do no harm twice.
    pub(super) async fn write<T, F>(&self, mut write: F) -> Asked<T>
    where
        T: Send + 'static,
        F: FnMut(&mut Connection) -> Asked<T> + Send + 'static,
    {
        let seams = self.seams.clone();
        self.on_a_connection(move |connection| {
            let written = connection.transaction(|tx| {
                tx.query("SELECT expect_format($1)", &[&migrations::known_number()])?;
                let value = write(tx)?;
                seams.pass_blocking(Seam::RowsWritten);
                seams.pass_blocking(Seam::RecordsWritten);
                Ok(value)
            })?;
            seams.pass_blocking(Seam::Committed);
            Ok(written)
        })
        .await
    }

    async fn on_a_connection<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Asked<T> + Send + 'static,
    ) -> Asked<T> {
        let _busy = self.clock.busy();
        let (answer, answered) = oneshot::channel();
        let asked_at = Clock::system().monotonic();
        let question: Question = Box::new(move |connection| {
            connection.asked_at(asked_at);
            let _ = answer.send(work(connection));
        });
        self.questions.send(question).map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }
}
