//! Webhook endpoints: their secrets, and which endpoints are disabled.

use rusqlite::params;

use super::{Sqlite, retention::property};
use crate::{
    StoreError,
    endpoint::{DisabledEndpoint, SecretChange},
};

pub(super) async fn replace_secret(
    store: &Sqlite,
    change: SecretChange,
) -> Result<bool, StoreError> {
    let replaced = store.writer.run(move |tx| {
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

pub(super) async fn disabled_endpoints(
    store: &Sqlite,
) -> Result<Vec<DisabledEndpoint>, StoreError> {
    store.reader
        .read(|connection| {
            let sql = "SELECT name, value FROM property WHERE substr(name, 1, length(?1)) = ?1 ORDER BY name";
            let mut select = connection.prepare_cached(sql)?;
            let rows = select.query_map([DisabledEndpoint::PREFIX], |row| {
                Ok(DisabledEndpoint::read(&row.get::<_, String>(0)?, &row.get::<_, String>(1)?))
            })?;
            Ok(rows.filter_map(Result::transpose).collect::<Result<_, _>>()?)
        })
        .await
}

pub(super) async fn disable_endpoint(
    store: &Sqlite,
    endpoint: DisabledEndpoint,
) -> Result<bool, StoreError> {
    let disabled = store.writer.run(move |tx| {
        let name = DisabledEndpoint::name(endpoint.number);
        let before = property(tx, &name)?.and_then(|value| DisabledEndpoint::read(&name, &value));
        if before.is_some_and(|before| before.address == endpoint.address) {
            return Ok(false);
        }
        let set =
            "INSERT INTO property (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        tx.execute(set, params![name, endpoint.value()])?;
        Ok(true)
    });
    Ok(disabled.await?.value)
}

pub(super) async fn enable_endpoint(store: &Sqlite, number: u32) -> Result<bool, StoreError> {
    let enabled = store.writer.run(move |tx| {
        Ok(tx.execute(
            "DELETE FROM property WHERE name = ?1",
            [DisabledEndpoint::name(number)],
        )? > 0)
    });
    Ok(enabled.await?.value)
}
