//! Batches in a database.

use guestlane_runtime::Timestamp;
use guestlane_store::{
    Store,
    batch::{BatchId, NewRow},
};
use uuid::Uuid;

use crate::platform::request;

/// Returns a row for each guest, from row 1.
pub fn rows_of<'a>(guests: impl IntoIterator<Item = &'a str>) -> Vec<NewRow> {
    let row = |(guest, number)| NewRow {
        number,
        line: number + 1,
        request: Ok(request(guest)),
    };
    guests.into_iter().zip(1..).map(row).collect()
}

/// Returns rows of the guests `guest-1`, `guest-2` and so on.
pub fn rows(count: u64) -> Vec<NewRow> {
    let guests: Vec<_> = (1..=count).map(|n| format!("guest-{n}")).collect();
    rows_of(guests.iter().map(String::as_str))
}

/// Adds a complete batch of these rows.
pub async fn enqueue(store: &Store, rows: Vec<NewRow>, now: Timestamp) -> BatchId {
    let (id, batches) = (BatchId(Uuid::now_v7()), store.batches().unwrap());
    let name = "a file".to_owned();
    batches.begin_batch(id, name, now).await.unwrap();
    batches.add_rows(id, rows, now).await.unwrap();
    batches.complete_batch(id, now).await.unwrap();
    id
}
