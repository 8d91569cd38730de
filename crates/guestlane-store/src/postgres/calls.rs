//! The outcome of each platform call of a session.

use super::Postgres;
use crate::{CallRecord, StoreError, calls};
use guestlane_core::session::SessionId;

pub(super) async fn calls(
    store: &Postgres,
    session: SessionId,
) -> Result<Vec<CallRecord>, StoreError> {
    store
        .workers
        .read(move |connection| {
            match connection.query_opt("SELECT calls FROM session WHERE id = $1", &[&session.0])? {
                Some(row) => calls::read(row.try_get(0)?),
                None => Ok(Vec::new()),
            }
        })
        .await
}
