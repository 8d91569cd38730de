//! Notifications from other processes that keys changed or that there is work (`LISTEN`/`NOTIFY`).
//!
//! A notification is lost when a connection breaks. Each receiver therefore also polls.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use guestlane_runtime::Clock;
use tokio::sync::watch;
use tokio_postgres::AsyncMessage;
use tracing::debug;

use super::{connection, connection::DbResult};
use crate::PostgresUrl;

/// Sends a notification when the transaction that runs this statement commits.
pub(super) const CHANGED: &str = "NOTIFY guestlane";

/// How long to wait before listening again after the connection broke.
const RECONNECT_DELAY: Duration = Duration::from_secs(1);

/// Listens until no receiver is left. Increments the value in `heard` for each notification.
pub(super) async fn listen(url: PostgresUrl, heard: watch::Sender<u64>, clock: Clock) {
    while !heard.is_closed() {
        if let Err(error) = once(&url, &heard).await {
            debug!(
                error = guestlane_runtime::text::display_chain(&error),
                "lost the notifications of changes; polling until they are available again"
            );
        }
        clock.sleep(RECONNECT_DELAY).await;
    }
}

async fn once(url: &PostgresUrl, heard: &watch::Sender<u64>) -> DbResult<()> {
    let (client, driver) = connection::connect(url).await?;
    let mut messages = driver.fuse();
    let mut asking = client.batch_execute("LISTEN guestlane").boxed().fuse();
    heard.send_modify(|times| *times += 1); // notifications before this were lost
    loop {
        futures_util::select! {
            listening = asking => listening?,
            message = messages.next() => match message {
                Some(Ok(AsyncMessage::Notification(_))) => heard.send_modify(|times| *times += 1),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Ok(()),
            },
            () = heard.closed().boxed().fuse() => return Ok(()),
        }
    }
}
