//! Values that are sealed under the master key, and the number of seals per master key.

use async_trait::async_trait;
use uuid::Uuid;

use super::{
    Postgres,
    connection::{Connection, DbResult},
    rows::as_i64,
};
use crate::{
    SecretChange, Secrets, StoreError, queries,
    sealed::{Replacement, Sealed, SealedPlace, counter},
};
use guestlane_core::session::SessionId;

#[async_trait]
impl Secrets for Postgres {
    async fn get_or_insert_secret(
        &self,
        name: &str,
        new: Option<Vec<u8>>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let name = name.to_owned();
        self.workers
            .read(move |connection| {
                if let Some(new) = &new {
                    let insert = queries::INSERT_SECRET;
                    connection.execute(insert, &[&name, new])?;
                }
                let row = connection.query_opt(queries::SELECT_SECRET, &[&name])?;
                Ok(row.map(|row| row.try_get(0)).transpose()?)
            })
            .await
    }

    async fn sealed_keys(&self) -> Result<Vec<Sealed>, StoreError> {
        self.workers
            .read(|connection| {
                let mut sealed = keys(connection, queries::SELECT_SECRETS, SealedPlace::Secret)?;
                let sql = queries::SELECT_SEALED_SIGNING_KEYS;
                sealed.extend(keys(connection, sql, SealedPlace::SigningKey)?);
                Ok(sealed)
            })
            .await
    }

    async fn sealed_sessions(
        &self,
        after: Option<SessionId>,
        limit: u32,
    ) -> Result<Vec<Sealed>, StoreError> {
        let after = after.map_or(Uuid::nil(), |id| id.0);
        self.workers
            .read(move |connection| {
                let sql = "SELECT id, guest_session FROM session WHERE id > $1 AND octet_length(guest_session) > 0 ORDER BY id LIMIT $2";
                let rows = connection.query(sql, &[&after, &i64::from(limit)])?;
                let sealed = |row: &tokio_postgres::Row| {
                    let place = SealedPlace::GuestSession(SessionId(row.try_get(0)?));
                    Ok(Sealed { place, bytes: row.try_get(1)? })
                };
                rows.iter().map(sealed).collect()
            })
            .await
    }

    async fn replace_sealed(&self, values: Vec<Replacement>) -> Result<u64, StoreError> {
        self.workers.write(move |tx| replace_all(tx, &values)).await
    }

    async fn delete_access_tokens(&self) -> Result<(), StoreError> {
        // Their numbers stay, because a node whose token was rejected waits for a token with a
        // higher number.
        let sql = "UPDATE oauth_client SET token = NULL WHERE token IS NOT NULL";
        self.workers
            .write(move |tx| tx.execute(sql, &[]))
            .await
            .map(drop)
    }

    async fn seals(&self, key: &str) -> Result<u64, StoreError> {
        let name = counter(key);
        self.workers
            .read(move |connection| {
                let row = connection.query_opt(
                    "SELECT value FROM counter WHERE log = 0 AND name = $1",
                    &[&name],
                )?;
                row.map_or(Ok(0), |row| Ok(row.try_get::<_, i64>(0)?.unsigned_abs()))
            })
            .await
    }

    async fn add_seals(&self, key: &str, seals: u64) -> Result<u64, StoreError> {
        // After a broken connection they may be counted twice; a count that is too high is safe.
        let name = counter(key);
        let add = "INSERT INTO counter (log, name, value) VALUES (0, $1, $2) \
             ON CONFLICT (log, name) DO UPDATE SET value = counter.value + excluded.value RETURNING value";
        self.workers
            .write(move |tx| {
                Ok(tx
                    .query_one(add, &[&name, &as_i64(seals)])?
                    .try_get::<_, i64>(0)?
                    .unsigned_abs())
            })
            .await
    }

    async fn replace_secret(&self, change: SecretChange) -> Result<bool, StoreError> {
        let replaced = self.writer.transact(move |tx, records| {
            records.clear();
            let SecretChange {
                name,
                before,
                after,
                record,
            } = &change;
            let update = "UPDATE secret SET sealed = $3 WHERE name = $1 AND sealed = $2";
            let replaced = tx.execute(update, &[name, before, after])? > 0;
            records.extend(record.iter().filter(|_| replaced).cloned());
            Ok(replaced)
        });
        Ok(replaced.await?.value)
    }
}

fn keys(
    connection: &mut Connection,
    sql: &str,
    place: impl Fn(String) -> SealedPlace,
) -> DbResult<Vec<Sealed>> {
    let rows = connection.query(sql, &[])?;
    rows.iter()
        .map(|row| {
            Ok(Sealed {
                place: place(row.try_get(0)?),
                bytes: row.try_get(1)?,
            })
        })
        .collect()
}

fn replace_all(tx: &mut Connection, values: &[Replacement]) -> DbResult<u64> {
    let mut replaced = 0;
    let (mut ids, mut before, mut after) = (Vec::new(), Vec::new(), Vec::new());
    for value in values {
        let (old, new) = (&value.before, &value.after);
        match &value.place {
            SealedPlace::Secret(name) => {
                let update = "UPDATE secret SET sealed = $3 WHERE name = $1 AND sealed = $2";
                replaced += tx.execute(update, &[name, old, new])?;
            }
            SealedPlace::SigningKey(kid) => {
                let update = "UPDATE signing_key SET sealed = $3 WHERE kid = $1 AND sealed = $2";
                replaced += tx.execute(update, &[kid, old, new])?;
            }
            SealedPlace::GuestSession(id) => {
                ids.push(id.0);
                before.push(old);
                after.push(new);
            }
        }
    }
    if !ids.is_empty() {
        // Sort by ID so that all writers lock rows in the same order and cannot deadlock.
        tx.query(
            "SELECT 1 FROM session WHERE id = ANY($1) ORDER BY id FOR UPDATE",
            &[&ids],
        )?;
        let update = "UPDATE session SET guest_session = t.after FROM unnest($1::uuid[], $2::bytea[], $3::bytea[]) AS t (id, before, after) \
             WHERE session.id = t.id AND session.guest_session = t.before";
        replaced += tx.execute(update, &[&ids, &before, &after])?;
    }
    Ok(replaced)
}
