//! What nodes with the same OAuth client share: access tokens and rate-limit leases.

use std::time::Duration;

use guestlane_genesys::{RateLimitLease, RateLimitLeaseRequest};
use guestlane_runtime::Timestamp;
use uuid::Uuid;

use super::{
    Postgres,
    shared_store::{SealedToken, StoredTokenLookup},
};
use crate::StoreError;
use guestlane_core::session::MAX_CLOCK_SKEW;

/// How long a node may hold the lock for refreshing an access token. Other nodes wait for the token
/// meanwhile.
const REFRESH_LOCK_TTL: Duration = Duration::from_secs(10);

/// Remaining lifetime, in microseconds, below which an access token counts as expired. It is far
/// more than clocks may differ.
const MIN_TOKEN_LIFETIME_MICROS: i64 = 6_000_000;

impl Postgres {
    pub(super) async fn find_token_or_lock(
        &self,
        client: String,
        not: Option<i64>,
        now: Timestamp,
    ) -> Result<StoredTokenLookup, StoreError> {
        // An expiry beyond `latest` was written by a clock that is wrong; treat the refresh lock as
        // expired.
        let [now, asked, latest] = [
            now,
            now + REFRESH_LOCK_TTL,
            now + REFRESH_LOCK_TTL + MAX_CLOCK_SKEW,
        ]
        .map(Timestamp::unix_micros);
        self.urgent
            .write(move |tx| {
                tx.execute("INSERT INTO oauth_client (client_id) VALUES ($1) ON CONFLICT DO NOTHING", &[&client])?;
                let select = "SELECT token, number, lifetime_us, expires_at - $2, refresh_lock_until > $2 AND refresh_lock_until <= $3 FROM oauth_client WHERE client_id = $1 FOR UPDATE";
                let row = tx.query_one(select, &[&client, &now, &latest])?;
                let (token, number): (Option<Vec<u8>>, i64) = (row.try_get(0)?, row.try_get(1)?);
                let (life, left): (i64, i64) = (row.try_get(2)?, row.try_get(3)?);
                let is_new = not.is_none_or(|not| number > not);
                if let Some(sealed) = token.filter(|_| is_new && left > MIN_TOKEN_LIFETIME_MICROS.min(life / 5)) {
                    return Ok(StoredTokenLookup::Cached(SealedToken { sealed, left: micros(left), life: micros(life) }, number));
                }
                if row.try_get(4)? {
                    return Ok(StoredTokenLookup::RefreshingElsewhere);
                }
                tx.execute("UPDATE oauth_client SET refresh_lock_until = $2 WHERE client_id = $1", &[&client, &asked])?;
                Ok(StoredTokenLookup::RefreshHere)
            })
            .await
    }

    pub(super) async fn store_token(
        &self,
        client: String,
        token: SealedToken,
        now: Timestamp,
    ) -> Result<i64, StoreError> {
        let SealedToken { sealed, left, life } = token;
        let sql = "UPDATE oauth_client SET token = $2, number = number + 1, lifetime_us = $3, expires_at = $4, refresh_lock_until = 0 \
             WHERE client_id = $1 RETURNING number";
        let expires_at = (now + left).unix_micros();
        self.urgent
            .read(move |connection| {
                Ok(connection
                    .query_one(sql, &[&client, &sealed, &as_micros(life), &expires_at])?
                    .try_get(0)?)
            })
            .await
    }

    pub(super) async fn release_refresh_lock(&self, client: String) -> Result<(), StoreError> {
        let sql = "UPDATE oauth_client SET refresh_lock_until = 0 WHERE client_id = $1";
        self.urgent
            .read(move |connection| connection.execute(sql, &[&client]).map(drop))
            .await
    }

    pub(super) async fn request_rate_limit_lease(
        &self,
        client: String,
        process: Uuid,
        need: RateLimitLeaseRequest,
    ) -> Result<RateLimitLease, StoreError> {
        let small = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        let (limit, wanted, used) = (small(need.limit), small(need.wanted), small(need.used));
        let window = as_micros(need.window);
        self.urgent
            .read(move |connection| {
                let sql = "SELECT calls, lasts_us, again_us FROM lease_rate_limit($1, $2, $3, $4, $5, $6)";
                let row = connection.query_one(sql, &[&client, &process, &limit, &window, &wanted, &used])?;
                let calls = u32::try_from(row.try_get::<_, i32>(0)?).unwrap_or(0);
                Ok(RateLimitLease { calls, lasts: micros(row.try_get(1)?), again: micros(row.try_get(2)?) })
            })
            .await
    }
}

fn micros(number: i64) -> Duration {
    Duration::from_micros(u64::try_from(number).unwrap_or(0))
}

fn as_micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
