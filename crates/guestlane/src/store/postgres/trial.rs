//! Whether the database takes what every session writes.

use std::time::Duration;

use guestlane_genesys::Clock;

use super::{
    Postgres,
    connection::{Asked, Connection},
    on_a_thread,
};
use crate::store::PostgresUrl;

impl Postgres {
    /// A write to each table that every session writes to, in a transaction that is rolled back.
    pub(crate) async fn try_to_write(url: &PostgresUrl) -> Asked<()> {
        const WRITES: [&str; 6] = [
            "INSERT INTO property (name, value) VALUES ('doctor', '') ON CONFLICT (name) DO UPDATE SET value = ''",
            "UPDATE platform SET base_url = base_url",
            "UPDATE session SET attempts = attempts WHERE false",
            "UPDATE outbox SET tries = tries WHERE false",
            "INSERT INTO audit_entry (log, idx, line) VALUES (-1, -1, '')",
            "UPDATE audit_log SET size = size WHERE false",
        ];
        let mut connection = Connection::new(url.clone(), "", Duration::from_secs(10))?;
        on_a_thread(&Clock::system(), move || {
            connection.try_open()?;
            connection.within("BEGIN", |tx| WRITES.iter().try_for_each(|write| tx.batch(write)))?;
            connection.batch("ROLLBACK")
        })
        .await
    }

    /// A secret as the store keeps it, sealed, read on a connection of its own that is opened once.
    pub(crate) async fn secret_at(url: &PostgresUrl, name: &'static str) -> Asked<Option<Vec<u8>>> {
        let mut connection = Connection::new(url.clone(), "", Duration::from_secs(10))?;
        on_a_thread(&Clock::system(), move || {
            connection.try_open()?;
            let row = connection.query_opt("SELECT sealed FROM secret WHERE name = $1", &[&name])?;
            Ok(row.map(|row| row.try_get(0)).transpose()?)
        })
        .await
    }
}
