//! Values that are encrypted under the master key, and the number of encryptions under that key.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::Sqlite;
use crate::{
    SecretChange, Secrets, StoreError, queries,
    sealed::{Replacement, Sealed, SealedPlace, counter},
};
use guestlane_core::session::SessionId;

#[async_trait]
impl Secrets for Sqlite {
    async fn get_or_insert_secret(
        &self,
        name: &str,
        new: Option<Vec<u8>>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let name = name.to_owned();
        let kept = self.writer.run(move |connection| {
            if let Some(new) = new {
                connection.execute(queries::INSERT_SECRET, params![name, new])?;
            }
            let sql = queries::SELECT_SECRET;
            Ok(connection
                .query_row(sql, [name], |row| row.get(0))
                .optional()?)
        });
        kept.await.map(|committed| committed.value)
    }

    async fn sealed_keys(&self) -> Result<Vec<Sealed>, StoreError> {
        self.reader
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
        let after = after.map_or([0; 16], |id| id.0.into_bytes());
        self.reader
            .read(move |connection| {
                let sql =
                    "SELECT id, guest_session FROM session WHERE id > ?1 AND length(guest_session) > 0 ORDER BY id LIMIT ?2";
                let mut select = connection.prepare_cached(sql)?;
                let sealed = select.query_map(params![after, limit], |row| {
                    let place = SealedPlace::GuestSession(SessionId(Uuid::from_bytes(row.get(0)?)));
                    Ok(Sealed { place, bytes: row.get(1)? })
                })?;
                Ok(sealed.collect::<Result<_, _>>()?)
            })
            .await
    }

    async fn replace_sealed(&self, values: Vec<Replacement>) -> Result<u64, StoreError> {
        let replaced = self.writer.run(move |tx| {
            let mut replaced = 0;
            for value in values {
                replaced += replace(tx, value)? as u64;
            }
            Ok(replaced)
        });
        Ok(replaced.await?.value)
    }

    async fn seals(&self, key: &str) -> Result<u64, StoreError> {
        let name = counter(key);
        self.reader
            .read(move |connection| {
                let mut select =
                    connection.prepare_cached("SELECT value FROM counter WHERE name = ?1")?;
                Ok(select
                    .query_row([name], |row| row.get(0))
                    .optional()?
                    .unwrap_or(0))
            })
            .await
    }

    async fn add_seals(&self, key: &str, seals: u64) -> Result<u64, StoreError> {
        let name = counter(key);
        let added = self.writer.run(move |tx| {
            let add = "INSERT INTO counter (name, value) VALUES (?1, ?2) \
                 ON CONFLICT (name) DO UPDATE SET value = value + excluded.value RETURNING value";
            Ok(tx
                .prepare_cached(add)?
                .query_row(params![name, seals], |row| row.get(0))?)
        });
        Ok(added.await?.value)
    }

    async fn replace_secret(&self, change: SecretChange) -> Result<bool, StoreError> {
        let replaced = self.writer.run(move |tx| {
            let SecretChange {
                name,
                before,
                after,
                record,
            } = change;
            let update = "UPDATE secret SET sealed = ?3 WHERE name = ?1 AND sealed = ?2";
            let replaced = tx.execute(update, params![name, before, after])? > 0;
            if let Some(record) = record.filter(|_| replaced) {
                tx.record(record);
            }
            Ok(replaced)
        });
        Ok(replaced.await?.value)
    }
}

fn keys(
    connection: &Connection,
    sql: &str,
    place: impl Fn(String) -> SealedPlace,
) -> Result<Vec<Sealed>, StoreError> {
    let mut select = connection.prepare_cached(sql)?;
    let sealed = select.query_map([], |row| {
        Ok(Sealed {
            place: place(row.get(0)?),
            bytes: row.get(1)?,
        })
    })?;
    Ok(sealed.collect::<Result<_, _>>()?)
}

fn replace(connection: &Connection, value: Replacement) -> Result<usize, StoreError> {
    let Replacement {
        place,
        before,
        after,
    } = value;
    Ok(match place {
        SealedPlace::Secret(name) => {
            let update = "UPDATE secret SET sealed = ?3 WHERE name = ?1 AND sealed = ?2";
            connection
                .prepare_cached(update)?
                .execute(params![name, before, after])?
        }
        SealedPlace::SigningKey(kid) => {
            let update = "UPDATE signing_key SET sealed = ?3 WHERE kid = ?1 AND sealed = ?2";
            connection
                .prepare_cached(update)?
                .execute(params![kid, before, after])?
        }
        SealedPlace::GuestSession(id) => {
            let update =
                "UPDATE session SET guest_session = ?3 WHERE id = ?1 AND guest_session = ?2";
            connection
                .prepare_cached(update)?
                .execute(params![id.0.into_bytes(), before, after])?
        }
    })
}
