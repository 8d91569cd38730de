//! Webhook endpoints: their secrets, and which of them are disabled.

use super::Postgres;
use crate::{
    StoreError,
    endpoint::{DisabledEndpoint, SecretChange},
};

pub(super) async fn replace_secret(
    store: &Postgres,
    change: SecretChange,
) -> Result<bool, StoreError> {
    let replaced = store.writer.transact(move |tx, records| {
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

pub(super) async fn disabled_endpoints(
    store: &Postgres,
) -> Result<Vec<DisabledEndpoint>, StoreError> {
    store
        .workers
        .read(|connection| {
            let sql = "SELECT name, value FROM property WHERE starts_with(name, $1) ORDER BY name";
            let rows = connection.query(sql, &[&DisabledEndpoint::PREFIX])?;
            let mut disabled = Vec::new();
            for row in rows {
                disabled.extend(DisabledEndpoint::read(row.try_get(0)?, row.try_get(1)?));
            }
            Ok(disabled)
        })
        .await
}

pub(super) async fn disable_endpoint(
    store: &Postgres,
    endpoint: DisabledEndpoint,
) -> Result<bool, StoreError> {
    // The same URL again changes nothing: each delivery in flight may end with the same
    // response.
    let set = "INSERT INTO property AS known (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value \
         WHERE split_part(known.value, ' ', 2) <> split_part(excluded.value, ' ', 2)";
    let (name, value) = (DisabledEndpoint::name(endpoint.number), endpoint.value());
    store
        .workers
        .write(move |tx| Ok(tx.execute(set, &[&name, &value])? > 0))
        .await
}

pub(super) async fn enable_endpoint(store: &Postgres, number: u32) -> Result<bool, StoreError> {
    let name = DisabledEndpoint::name(number);
    store
        .workers
        .write(move |tx| Ok(tx.execute("DELETE FROM property WHERE name = $1", &[&name])? > 0))
        .await
}
