//! Word from other processes that something changed which all of them know by heart: keys, and that there is work. Whoever misses it looks by
//! itself soon after: a notification is lost when a connection breaks.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use guestlane_runtime::Clock;
use tokio::sync::watch;
use tokio_postgres::AsyncMessage;
use tracing::debug;

use super::{connection, connection::DbResult};
use crate::PostgresUrl;

/// Said in the transaction that changes something: told when that is committed.
pub(super) const CHANGED: &str = "NOTIFY guestlane";

/// How long to wait before listening again after the connection broke.
const RECONNECT_DELAY: Duration = Duration::from_secs(1);

/// Listens for as long as somebody wants to know. Counts what it hears.
pub(super) async fn listen(url: PostgresUrl, heard: watch::Sender<u64>, clock: Clock) {
    while !heard.is_closed() {
        if let Err(error) = once(&url, &heard).await {
            debug!(
                error = guestlane_runtime::text::display_chain(&error),
                "no notifications of changes for now; polling"
            );
        }
        clock.sleep(RECONNECT_DELAY).await;
    }
}

async fn once(url: &PostgresUrl, heard: &watch::Sender<u64>) -> DbResult<()> {
    let (client, driver) = connection::connect(url).await?;
    let mut messages = driver.fuse();
    let mut asking = client.batch_execute("LISTEN guestlane").boxed().fuse();
    heard.send_modify(|times| *times += 1); // what changed before this was missed
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
