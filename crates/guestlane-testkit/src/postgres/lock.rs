//! A table lock that makes all other statements on the table wait.

use std::{
    sync::mpsc,
    thread::{self, JoinHandle},
};

use tokio::sync::oneshot;

use super::ask;

/// Holds a table locked until it is dropped, as a migration does. Every statement on the table
/// waits.
#[derive(Debug)]
pub struct TableLock {
    release: Option<oneshot::Sender<()>>,
    holder: Option<JoinHandle<()>>,
}

impl TableLock {
    /// Locks the table, and returns once it is locked.
    pub fn hold(url: &str, table: &str) -> Self {
        let (url, lock) = (
            url.to_owned(),
            format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"),
        );
        let (release, released) = oneshot::channel::<()>();
        let (locked, is_locked) = mpsc::channel();
        let holder = thread::spawn(move || {
            ask(&url, async |client| {
                client.batch_execute(&lock).await.unwrap();
                locked.send(()).unwrap();
                let _ = released.await;
                client.batch_execute("COMMIT").await.unwrap();
            });
        });
        is_locked.recv().unwrap();
        Self {
            release: Some(release),
            holder: Some(holder),
        }
    }
}

impl Drop for TableLock {
    fn drop(&mut self) {
        drop(self.release.take());
        if let Some(holder) = self.holder.take() {
            let _ = holder.join();
        }
    }
}
