//! Signing keys and other secrets. Callers encrypt them before they reach the store.

use async_trait::async_trait;
use guestlane_runtime::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::Sqlite;
use crate::{Binding, SigningKeys, StoreError, queries};
use guestlane_core::{
    audit::{AuditRecord, ChangeAction},
    token::{KeyLifecycle, RevocationPlan, SealedSigningKey},
};

#[async_trait]
impl SigningKeys for Sqlite {
    async fn signing_keys(&self) -> Result<Vec<SealedSigningKey>, StoreError> {
        self.reader.read(keys).await
    }

    async fn add_signing_key(&self, key: SealedSigningKey) -> Result<(), StoreError> {
        self.writer.run(move |tx| insert(tx, &key)).await.map(drop)
    }

    async fn add_next_key(
        &self,
        key: SealedSigningKey,
        life: Box<dyn FnOnce() -> KeyLifecycle + Send>,
        now: Timestamp,
    ) -> Result<SealedSigningKey, StoreError> {
        let added = self.writer.run(move |tx| {
            let next = |keys: Vec<SealedSigningKey>| {
                keys.into_iter()
                    .find(|key| !key.life.is_revoked() && key.life.active_from() > now)
            };
            if let Some(known) = next(keys(tx)?) {
                return Ok(known);
            }
            tx.record(AuditRecord::change(
                ChangeAction::SigningKeyCreated,
                &key.kid,
                None,
                now,
            ));
            insert(
                tx,
                &SealedSigningKey {
                    life: life(),
                    ..key
                },
            )?;
            // The insert had no effect: an existing key that is revoked or already active has this
            // key ID.
            next(keys(tx)?).ok_or(StoreError::Row("signing_key"))
        });
        added.await.map(|committed| committed.value)
    }

    async fn revoke_signing_key(
        &self,
        kid: String,
        spare: Option<SealedSigningKey>,
        now: Timestamp,
    ) -> Result<Option<RevocationPlan>, StoreError> {
        let revoked = self.writer.run(move |tx| {
            let revocation = RevocationPlan::of(&kid, keys(tx)?, now);
            match &revocation {
                RevocationPlan::Unknown | RevocationPlan::AlreadyRevoked(_) => {
                    return Ok(Some(revocation));
                }
                RevocationPlan::NoSuccessorNeeded(_) => {}
                RevocationPlan::PromoteNext(next, _) => {
                    let sql = "UPDATE signing_key SET active_from = ?2 WHERE kid = ?1";
                    tx.execute(sql, params![next, now.unix_micros()])?;
                }
                RevocationPlan::GenerateNew(new) => match spare.filter(|spare| spare.kid == *new) {
                    Some(spare) => insert(tx, &spare)?,
                    None => return Ok(None),
                },
            }
            tx.execute(
                "UPDATE signing_key SET revoked_at = ?2 WHERE kid = ?1",
                params![kid, now.unix_micros()],
            )?;
            tx.record(AuditRecord::change(
                ChangeAction::SigningKeyRevoked,
                &kid,
                revocation.successor(),
                now,
            ));
            Ok(Some(revocation))
        });
        revoked.await.map(|committed| committed.value)
    }
}

#[async_trait]
impl Binding for Sqlite {
    async fn get_or_insert_platform(&self, new: String) -> Result<String, StoreError> {
        let known = self.writer.run(move |connection| {
            connection.execute(queries::INSERT_PLATFORM, [new])?;
            Ok(connection.query_row(queries::SELECT_PLATFORM, [], |row| row.get(0))?)
        });
        known.await.map(|committed| committed.value)
    }

    async fn platform(&self) -> Result<Option<String>, StoreError> {
        let sql = queries::SELECT_PLATFORM;
        self.reader
            .read(|connection| Ok(connection.query_row(sql, [], |row| row.get(0)).optional()?))
            .await
    }

    async fn organization(&self) -> Result<Option<(String, String)>, StoreError> {
        self.reader
            .read(|connection| {
                let sql = queries::SELECT_ORGANIZATION;
                Ok(connection
                    .query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))
                    .optional()?)
            })
            .await
    }

    async fn set_organization(
        &self,
        client_id: String,
        organization: String,
    ) -> Result<(), StoreError> {
        let set = self.writer.run(move |connection| {
            connection.execute(queries::UPDATE_ORGANIZATION, [client_id, organization])?;
            Ok(())
        });
        set.await.map(drop)
    }
}

fn keys(connection: &Connection) -> Result<Vec<SealedSigningKey>, StoreError> {
    let mut statement = connection.prepare_cached(queries::SELECT_SIGNING_KEYS)?;
    let keys = statement.query_map([], |row| {
        let moment = Timestamp::from_unix_micros;
        let revoked_at: Option<i64> = row.get(4)?;
        let life = KeyLifecycle::stored(
            moment(row.get(2)?),
            moment(row.get(3)?),
            revoked_at.map(moment),
        );
        Ok(SealedSigningKey {
            kid: row.get(0)?,
            sealed: row.get(1)?,
            life,
        })
    })?;
    Ok(keys.collect::<Result<_, _>>()?)
}

fn insert(connection: &Connection, key: &SealedSigningKey) -> Result<(), StoreError> {
    let sql = queries::INSERT_SIGNING_KEY;
    let (created_at, active_from) = (
        key.life.created_at().unix_micros(),
        key.life.active_from().unix_micros(),
    );
    connection.execute(sql, params![key.kid, key.sealed, created_at, active_from])?;
    Ok(())
}
