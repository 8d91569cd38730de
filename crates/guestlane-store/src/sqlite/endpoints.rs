//! Which webhook endpoints are disabled.

use async_trait::async_trait;
use rusqlite::params;

use super::{Sqlite, retention::property};
use crate::{StoreError, WebhookEndpoints, endpoint::DisabledEndpoint, queries};

#[async_trait]
impl WebhookEndpoints for Sqlite {
    async fn disabled_endpoints(&self) -> Result<Vec<DisabledEndpoint>, StoreError> {
        self.reader
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

    async fn disable_endpoint(&self, endpoint: DisabledEndpoint) -> Result<bool, StoreError> {
        let disabled = self.writer.run(move |tx| {
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

    async fn enable_endpoint(&self, number: u32) -> Result<bool, StoreError> {
        let enabled = self.writer.run(move |tx| {
            Ok(tx.execute(queries::DELETE_PROPERTY, [DisabledEndpoint::name(number)])? > 0)
        });
        Ok(enabled.await?.value)
    }
}
