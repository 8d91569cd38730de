//! Which webhook endpoints are disabled.

use super::Postgres;
use crate::{StoreError, WebhookEndpoints, endpoint::DisabledEndpoint, queries};
use async_trait::async_trait;

#[async_trait]
impl WebhookEndpoints for Postgres {
    async fn disabled_endpoints(&self) -> Result<Vec<DisabledEndpoint>, StoreError> {
        self.workers
            .read(|connection| {
                let sql =
                    "SELECT name, value FROM property WHERE starts_with(name, $1) ORDER BY name";
                let rows = connection.query(sql, &[&DisabledEndpoint::PREFIX])?;
                let mut disabled = Vec::new();
                for row in rows {
                    disabled.extend(DisabledEndpoint::read(row.try_get(0)?, row.try_get(1)?));
                }
                Ok(disabled)
            })
            .await
    }

    async fn disable_endpoint(&self, endpoint: DisabledEndpoint) -> Result<bool, StoreError> {
        // The same URL again changes nothing: each delivery in flight may end with the same
        // response.
        let set = "INSERT INTO property AS known (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value \
             WHERE split_part(known.value, ' ', 2) <> split_part(excluded.value, ' ', 2)";
        let (name, value) = (DisabledEndpoint::name(endpoint.number), endpoint.value());
        self.workers
            .write(move |tx| Ok(tx.execute(set, &[&name, &value])? > 0))
            .await
    }

    async fn enable_endpoint(&self, number: u32) -> Result<bool, StoreError> {
        let name = DisabledEndpoint::name(number);
        self.workers
            .write(move |tx| Ok(tx.execute(queries::DELETE_PROPERTY, &[&name])? > 0))
            .await
    }
}
