//! Whether the database accepts the writes that every session needs.

use std::time::Duration;

use guestlane_runtime::Clock;

use super::{
    Postgres,
    connection::{Connection, DbResult},
    on_a_thread,
};
use crate::{PostgresUrl, StoredSecret, queries};

/// SQL for the object ID of the table of secrets. A copy of the store in another schema has a
/// different one.
const TABLE: &str = "'secret'::regclass::oid::bigint";

/// Returns the object ID of the table of secrets on this connection.
pub(super) fn table_of(connection: &mut Connection) -> DbResult<i64> {
    Ok(connection
        .query_one(&format!("SELECT {TABLE}"), &[])?
        .try_get(0)?)
}

impl Postgres {
    /// Writes to each table that every session writes to, in a transaction that is rolled back.
    pub(crate) async fn try_to_write(url: &PostgresUrl) -> DbResult<()> {
        const WRITES: [&str; 6] = [
            queries::TRY_TO_WRITE,
            "UPDATE platform SET base_url = base_url",
            "UPDATE session SET attempts = attempts WHERE false",
            "UPDATE outbox SET attempts = attempts WHERE false",
            "INSERT INTO audit_record (log, idx, line) VALUES (-1, -1, '')",
            "UPDATE audit_log SET size = size WHERE false",
        ];
        let mut connection = Connection::new(url.clone(), "", Duration::from_secs(10))?;
        on_a_thread(&Clock::system(), move || {
            connection.try_open()?;
            connection.within("BEGIN", |tx| {
                WRITES.iter().try_for_each(|write| tx.batch(write))
            })?;
            connection.batch("ROLLBACK")
        })
        .await
    }

    /// Reads a sealed secret on a separate connection, which is opened in one attempt.
    pub(crate) async fn secret_at(
        url: &PostgresUrl,
        name: &'static str,
    ) -> DbResult<Option<StoredSecret>> {
        let mut connection = Connection::new(url.clone(), "", Duration::from_secs(10))?;
        on_a_thread(&Clock::system(), move || {
            connection.try_open()?;
            let row = connection.query_opt(
                &format!("SELECT sealed, {TABLE} FROM secret WHERE name = $1"),
                &[&name],
            )?;
            row.map(|row| {
                Ok(StoredSecret {
                    sealed: row.try_get(0)?,
                    table: row.try_get(1)?,
                })
            })
            .transpose()
        })
        .await
    }
}
