//! API keys.

use async_trait::async_trait;
use guestlane_runtime::{FailPoint, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::Sqlite;
use crate::{ApiKeys, StoreError, queries::API_KEY_COLUMNS};
use guestlane_core::{
    api_key::{Scopes, StoredApiKey},
    audit::{AuditRecord, ChangeAction},
};

#[async_trait]
impl ApiKeys for Sqlite {
    async fn api_keys(&self) -> Result<Vec<StoredApiKey>, StoreError> {
        self.reader
            .read(|connection| {
                let mut statement = connection.prepare_cached(&format!(
                    "SELECT {API_KEY_COLUMNS} FROM api_key ORDER BY created_at, id"
                ))?;
                let rows = statement.query_map([], |row| Ok(read(row)))?;
                rows.map(|row| row?).collect()
            })
            .await
    }

    async fn add_api_key(
        &self,
        key: StoredApiKey,
        replaces: Option<(String, Timestamp)>,
    ) -> Result<(), StoreError> {
        let added = self.writer.run(move |tx| {
            tx.record(key.created(replaces.as_ref().map(|(id, _)| id.as_str())));
            tx.execute(
                "INSERT INTO api_key (id, name, hash, scopes, created_at, expires_at, owner) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    key.id,
                    key.name,
                    key.hash,
                    key.scopes.to_string(),
                    key.created_at.unix_micros(),
                    key.expires_at.map(Timestamp::unix_micros),
                    key.owner
                ],
            )?;
            if let Some((replaced, until)) = replaces {
                let end = "UPDATE api_key SET expires_at = min(coalesce(expires_at, ?2), ?2) WHERE id = ?1";
                tx.execute(end, params![replaced, until.unix_micros()])?;
            }
            Ok(())
        });
        added.await?;
        self.fail_points.hit(FailPoint::ApiKeyStored).await;
        Ok(())
    }

    async fn revoke_api_key(
        &self,
        id: String,
        now: Timestamp,
    ) -> Result<Option<StoredApiKey>, StoreError> {
        let revoked = self.writer.run(move |tx| {
            let revoke = "UPDATE api_key SET revoked_at = ?2 WHERE id = ?1 AND revoked_at IS NULL";
            if tx.execute(revoke, params![id, now.unix_micros()])? == 1 {
                tx.record(AuditRecord::change(
                    ChangeAction::ApiKeyRevoked,
                    &id,
                    None,
                    now,
                ));
            }
            by_id(tx, &id)
        });
        let revoked = revoked.await?.value;
        self.fail_points.hit(FailPoint::ApiKeyRevoked).await;
        Ok(revoked)
    }

    async fn touch_api_keys(&self, used: Vec<(String, Timestamp)>) -> Result<(), StoreError> {
        let written = self.writer.run(move |connection| {
            let mut statement = connection
                .prepare_cached("UPDATE api_key SET last_used_at = ?2 WHERE id = ?1 AND coalesce(last_used_at, 0) < ?2")?;
            for (id, at) in used {
                statement.execute(params![id, at.unix_micros()])?;
            }
            Ok(())
        });
        written.await.map(drop)
    }
}

fn by_id(connection: &Connection, id: &str) -> Result<Option<StoredApiKey>, StoreError> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {API_KEY_COLUMNS} FROM api_key WHERE id = ?1"
    ))?;
    statement
        .query_row([id], |row| Ok(read(row)))
        .optional()?
        .transpose()
}

fn read(row: &Row<'_>) -> Result<StoredApiKey, StoreError> {
    let time = |index| {
        row.get::<_, Option<i64>>(index)
            .map(|time| time.map(Timestamp::from_unix_micros))
    };
    // One unreadable row must not prevent reading the others: a revoked API key would stay
    // accepted.
    let hash: Option<[u8; 32]> = row.get::<_, Vec<u8>>(2)?.try_into().ok();
    let scopes = row.get::<_, String>(3)?.parse().ok();
    Ok(StoredApiKey {
        id: row.get(0)?,
        name: row.get(1)?,
        is_readable: hash.is_some() && scopes.is_some(),
        hash: hash.unwrap_or_default(),
        scopes: scopes.unwrap_or_else(Scopes::none),
        created_at: Timestamp::from_unix_micros(row.get(4)?),
        expires_at: time(5)?,
        revoked_at: time(6)?,
        last_used_at: time(7)?,
        owner: row.get(8)?,
    })
}
