//! The API keys of the service's callers.

use async_trait::async_trait;
use guestlane_runtime::{FailPoint, Timestamp};
use tokio_postgres::Row;

use super::{Postgres, connection::DbResult, listen::CHANGED};
use crate::{ApiKeys, StoreError, queries::API_KEY_COLUMNS};
use guestlane_core::{
    api_key::{Scopes, StoredApiKey},
    audit::{AuditRecord, ChangeAction},
};

#[async_trait]
impl ApiKeys for Postgres {
    async fn api_keys(&self) -> Result<Vec<StoredApiKey>, StoreError> {
        let sql = format!("SELECT {API_KEY_COLUMNS} FROM api_key ORDER BY created_at, id");
        self.workers
            .read(move |connection| connection.query(&sql, &[])?.iter().map(read).collect())
            .await
    }

    async fn add_api_key(
        &self,
        key: StoredApiKey,
        replaces: Option<(String, Timestamp)>,
    ) -> Result<(), StoreError> {
        let added = self.writer.transact(move |tx, records| {
            records.clear();
            records.push(key.created(replaces.as_ref().map(|(id, _)| id.as_str())));
            let insert = "INSERT INTO api_key (id, name, hash, scopes, created_at, expires_at, owner) VALUES ($1, $2, $3, $4, $5, $6, $7) \
                 ON CONFLICT DO NOTHING";
            let (scopes, created_at) = (key.scopes.to_string(), key.created_at.unix_micros());
            let expires_at = key.expires_at.map(Timestamp::unix_micros);
            tx.execute(insert, &[&key.id, &key.name, &key.hash.as_slice(), &scopes, &created_at, &expires_at, &key.owner])?;
            if let Some((replaced, until)) = &replaces {
                let end = "UPDATE api_key SET expires_at = least(coalesce(expires_at, $2), $2) WHERE id = $1";
                tx.execute(end, &[replaced, &until.unix_micros()])?;
            }
            tx.batch(CHANGED)
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
        let select = format!("SELECT {API_KEY_COLUMNS} FROM api_key WHERE id = $1");
        let revoked = self.writer.transact(move |tx, records| {
            records.clear();
            let revoke = "UPDATE api_key SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL";
            if tx.execute(revoke, &[&id, &now.unix_micros()])? == 1 {
                records.push(AuditRecord::change(
                    ChangeAction::ApiKeyRevoked,
                    &id,
                    None,
                    now,
                ));
            }
            tx.batch(CHANGED)?;
            tx.query_opt(&select, &[&id])?
                .as_ref()
                .map(read)
                .transpose()
        });
        let revoked = revoked.await?.value;
        self.fail_points.hit(FailPoint::ApiKeyRevoked).await;
        Ok(revoked)
    }

    async fn touch_api_keys(&self, used: Vec<(String, Timestamp)>) -> Result<(), StoreError> {
        let (ids, moments): (Vec<String>, Vec<i64>) = used
            .into_iter()
            .map(|(id, at)| (id, at.unix_micros()))
            .unzip();
        let sql = "UPDATE api_key SET last_used_at = t.at FROM unnest($1::text[], $2::bigint[]) AS t (id, at) \
             WHERE api_key.id = t.id AND coalesce(last_used_at, 0) < t.at";
        self.workers
            .read(move |connection| connection.execute(sql, &[&ids, &moments]).map(drop))
            .await
    }
}

fn read(row: &Row) -> DbResult<StoredApiKey> {
    let time = |index| {
        Ok::<_, StoreError>(
            row.try_get::<_, Option<i64>>(index)?
                .map(Timestamp::from_unix_micros),
        )
    };
    // An unreadable row must not prevent reading the others: a revoked key would otherwise stay
    // accepted.
    let hash: Option<[u8; 32]> = row.try_get::<_, &[u8]>(2)?.try_into().ok();
    let scopes = row.try_get::<_, &str>(3)?.parse().ok();
    Ok(StoredApiKey {
        id: row.try_get(0)?,
        name: row.try_get(1)?,
        is_readable: hash.is_some() && scopes.is_some(),
        hash: hash.unwrap_or_default(),
        scopes: scopes.unwrap_or_else(Scopes::none),
        created_at: Timestamp::from_unix_micros(row.try_get(4)?),
        expires_at: time(5)?,
        revoked_at: time(6)?,
        last_used_at: time(7)?,
        owner: row.try_get(8)?,
    })
}
