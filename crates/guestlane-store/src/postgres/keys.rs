//! Signing keys and other secrets. They are sealed before they reach the store.

use async_trait::async_trait;
use guestlane_runtime::Timestamp;

use super::{
    Postgres,
    connection::{Connection, DbResult},
    listen::CHANGED,
    migrations::LOCK,
};
use crate::{Binding, SigningKeys, StoreError, queries};
use guestlane_core::{
    audit::{AuditRecord, ChangeAction},
    token::{KeyLifecycle, RevocationPlan, SealedSigningKey},
};

/// Fails if a store migration into this database began since the node opened it. Called before a
/// node's first row is written. The migration takes the same advisory lock exclusively.
fn refuse_while_copied(tx: &mut Connection, at: &str) -> DbResult<()> {
    tx.query("SELECT pg_advisory_xact_lock_shared($1)", &[&LOCK])?;
    match tx.query_opt("SELECT 1 FROM migration WHERE completed_at IS NULL", &[])? {
        Some(_) => Err(StoreError::MigrationIncomplete(at.to_owned())),
        None => Ok(()),
    }
}

#[async_trait]
impl SigningKeys for Postgres {
    async fn signing_keys(&self) -> Result<Vec<SealedSigningKey>, StoreError> {
        self.workers.read(keys).await
    }

    async fn add_signing_key(&self, key: SealedSigningKey) -> Result<(), StoreError> {
        let at = self.url.to_string();
        let add = move |tx: &mut Connection| {
            refuse_while_copied(tx, &at)?;
            insert(tx, &key)
        };
        self.workers.write(add).await
    }

    async fn add_next_key(
        &self,
        key: SealedSigningKey,
        life: Box<dyn FnOnce() -> KeyLifecycle + Send>,
        now: Timestamp,
    ) -> Result<SealedSigningKey, StoreError> {
        let (mut life, mut known_life) = (Some(life), None);
        let added = self
            .writer
            .transact(move |tx, records| {
                records.clear();
                one_at_a_time(tx)?;
                let next = |keys: Vec<SealedSigningKey>| {
                    keys.into_iter()
                        .find(|key| !key.life.is_revoked() && key.life.active_from() > now)
                };
                if let Some(known) = next(keys(tx)?) {
                    return Ok(known);
                }
                // The lifecycle starts when this transaction gets its turn, however long it waited
                // for the table lock.
                let life = *known_life.get_or_insert_with(|| life.take().map(|life| life()));
                let life = life.ok_or(StoreError::Closed)?;
                records.push(AuditRecord::change(
                    ChangeAction::SigningKeyCreated,
                    &key.kid,
                    None,
                    now,
                ));
                insert(
                    tx,
                    &SealedSigningKey {
                        life,
                        ..key.clone()
                    },
                )?;
                tx.batch(CHANGED)?;
                // The insert had no effect: an existing key that is revoked or already active has
                // this key ID.
                next(keys(tx)?).ok_or(StoreError::Row("signing_key"))
            })
            .await?;
        Ok(added.value)
    }

    async fn revoke_signing_key(
        &self,
        kid: String,
        spare: Option<SealedSigningKey>,
        now: Timestamp,
    ) -> Result<Option<RevocationPlan>, StoreError> {
        let revoked = self
            .writer
            .transact(move |tx, records| {
                records.clear();
                one_at_a_time(tx)?;
                let revocation = RevocationPlan::of(&kid, keys(tx)?, now);
                match &revocation {
                    RevocationPlan::Unknown | RevocationPlan::AlreadyRevoked(_) => {
                        return Ok(Some(revocation));
                    }
                    RevocationPlan::NoSuccessorNeeded(_) => {}
                    RevocationPlan::PromoteNext(next, _) => {
                        let sql = "UPDATE signing_key SET active_from = $2 WHERE kid = $1";
                        tx.execute(sql, &[next, &now.unix_micros()])?;
                    }
                    RevocationPlan::GenerateNew(new) => {
                        match spare.as_ref().filter(|spare| spare.kid == *new) {
                            Some(spare) => insert(tx, spare)?,
                            None => return Ok(None),
                        }
                    }
                }
                tx.execute(
                    "UPDATE signing_key SET revoked_at = $2 WHERE kid = $1",
                    &[&kid, &now.unix_micros()],
                )?;
                records.push(AuditRecord::change(
                    ChangeAction::SigningKeyRevoked,
                    &kid,
                    revocation.successor(),
                    now,
                ));
                tx.batch(CHANGED)?;
                Ok(Some(revocation))
            })
            .await?;
        Ok(revoked.value)
    }
}

#[async_trait]
impl Binding for Postgres {
    async fn get_or_insert_platform(&self, new: String) -> Result<String, StoreError> {
        self.workers
            .read(move |connection| {
                let insert = queries::INSERT_PLATFORM;
                connection.execute(insert, &[&new])?;
                Ok(connection
                    .query_one(queries::SELECT_PLATFORM, &[])?
                    .try_get(0)?)
            })
            .await
    }

    async fn platform(&self) -> Result<Option<String>, StoreError> {
        let sql = queries::SELECT_PLATFORM;
        self.workers
            .read(move |connection| {
                Ok(connection
                    .query_opt(sql, &[])?
                    .map(|row| row.try_get(0))
                    .transpose()?)
            })
            .await
    }

    async fn organization(&self) -> Result<Option<(String, String)>, StoreError> {
        let sql = queries::SELECT_ORGANIZATION;
        self.workers
            .read(move |connection| {
                let row = connection.query_opt(sql, &[])?;
                row.map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
                    .transpose()
            })
            .await
    }

    async fn set_organization(
        &self,
        client_id: String,
        organization: String,
    ) -> Result<(), StoreError> {
        let sql = queries::UPDATE_ORGANIZATION;
        self.workers
            .read(move |connection| {
                connection
                    .execute(sql, &[&client_id, &organization])
                    .map(drop)
            })
            .await
    }
}

/// Locks the key table, so that processes that decide by the state of all keys do so one after
/// another.
fn one_at_a_time(tx: &mut Connection) -> DbResult<()> {
    tx.batch("LOCK TABLE signing_key IN SHARE ROW EXCLUSIVE MODE")
}

fn keys(connection: &mut Connection) -> DbResult<Vec<SealedSigningKey>> {
    let rows = connection.query(queries::SELECT_SIGNING_KEYS, &[])?;
    let key = |row: &tokio_postgres::Row| {
        let moment = Timestamp::from_unix_micros;
        let revoked_at: Option<i64> = row.try_get(4)?;
        let life = KeyLifecycle::stored(
            moment(row.try_get(2)?),
            moment(row.try_get(3)?),
            revoked_at.map(moment),
        );
        Ok(SealedSigningKey {
            kid: row.try_get(0)?,
            sealed: row.try_get(1)?,
            life,
        })
    };
    rows.iter().map(key).collect()
}

fn insert(tx: &mut Connection, key: &SealedSigningKey) -> DbResult<()> {
    let sql = queries::INSERT_SIGNING_KEY;
    let (created_at, active_from) = (
        key.life.created_at().unix_micros(),
        key.life.active_from().unix_micros(),
    );
    tx.execute(sql, &[&key.kid, &key.sealed, &created_at, &active_from])
        .map(drop)
}
