//! Signing keys and other secrets: encrypted before they come here.

use guestlane_genesys::Timestamp;
use rusqlite::{OptionalExtension, params};

use super::{Store, StoreError};
use crate::token::StoredKey;

impl Store {
    /// All signing keys, oldest first.
    pub async fn signing_keys(&self) -> Result<Vec<StoredKey>, StoreError> {
        self.reader
            .ask(|connection| {
                let mut statement =
                    connection.prepare("SELECT kid, sealed, created_at FROM signing_key ORDER BY created_at, kid")?;
                let keys = statement.query_map([], |row| {
                    let created_at = Timestamp::from_unix_micros(row.get(2)?);
                    Ok(StoredKey { kid: row.get(0)?, sealed: row.get(1)?, created_at })
                })?;
                Ok(keys.collect::<Result<_, _>>()?)
            })
            .await
    }

    /// Adds a key unless one of that id is there: of two processes that start at once, the first one's key is the key.
    pub async fn add_signing_key(&self, key: StoredKey) -> Result<(), StoreError> {
        let added = self.writer.run(move |connection| {
            let sql = "INSERT INTO signing_key (kid, sealed, created_at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
            connection.execute(sql, params![key.kid, key.sealed, key.created_at.unix_micros()])?;
            Ok(())
        });
        added.await.map(drop)
    }

    /// The platform this store belongs to: the one it was first used with, else `new` from now on.
    pub async fn platform_or(&self, new: String) -> Result<String, StoreError> {
        let known = self.writer.run(move |connection| {
            connection.execute("INSERT INTO platform (one, base_url) VALUES (1, ?1) ON CONFLICT DO NOTHING", [new])?;
            Ok(connection.query_row("SELECT base_url FROM platform", [], |row| row.get(0))?)
        });
        known.await.map(|committed| committed.value)
    }

    /// The platform this store belongs to, if it was used with one.
    pub async fn platform(&self) -> Result<Option<String>, StoreError> {
        let sql = "SELECT base_url FROM platform";
        self.reader.ask(|connection| Ok(connection.query_row(sql, [], |row| row.get(0)).optional()?)).await
    }

    /// The OAuth client that this store was last used with, and its organization, where the platform said.
    pub async fn organization(&self) -> Result<Option<(String, String)>, StoreError> {
        self.reader
            .ask(|connection| {
                let sql = "SELECT client_id, organization FROM platform WHERE client_id IS NOT NULL AND organization IS NOT NULL";
                Ok(connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
            })
            .await
    }

    /// From now on this store belongs to that organization, as the platform said of that OAuth client.
    pub async fn set_organization(&self, client_id: String, organization: String) -> Result<(), StoreError> {
        let set = self.writer.run(move |connection| {
            connection.execute("UPDATE platform SET client_id = ?1, organization = ?2", [client_id, organization])?;
            Ok(())
        });
        set.await.map(drop)
    }

    /// A sealed secret: the one of that name, else `new`, which is then kept.
    pub async fn secret_or(&self, name: &'static str, new: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, StoreError> {
        let kept = self.writer.run(move |connection| {
            if let Some(new) = new {
                connection
                    .execute("INSERT INTO secret (name, sealed) VALUES (?1, ?2) ON CONFLICT DO NOTHING", params![name, new])?;
            }
            let sql = "SELECT sealed FROM secret WHERE name = ?1";
            Ok(connection.query_row(sql, [name], |row| row.get(0)).optional()?)
        });
        kept.await.map(|committed| committed.value)
    }
}
