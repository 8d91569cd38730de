//! The [`Coordinator`] of a fleet: access tokens and rate-limit leases that nodes share through the
//! database. A store in a file serves one machine and has no coordinator.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, FutureExt};
use guestlane_genesys::{
    Coordinator, IssuedToken, RateLimitLease, RateLimitLeaseRequest, TokenLookup,
};
use secrecy::ExposeSecret;
use uuid::Uuid;

use super::Postgres;
use crate::StoreError;
use guestlane_core::token::MasterKey;
use guestlane_runtime::{Clock, text::display_chain};

/// An access token that is sealed under the master key.
#[derive(Clone)]
pub(super) struct SealedToken {
    pub(super) sealed: Vec<u8>,
    pub(super) left: Duration,
    pub(super) life: Duration,
}

/// A [`TokenLookup`] with the access token still sealed.
pub(super) enum StoredTokenLookup {
    Cached(SealedToken, i64),
    RefreshHere,
    RefreshingElsewhere,
}

/// The name that access tokens are sealed for.
const ACCESS_TOKEN: &str = "an access token";

/// The coordinator of this process.
pub(super) struct SharedStore {
    pub(super) store: Postgres,
    pub(super) master: Arc<MasterKey>,
    pub(super) process: Uuid,
    pub(super) clock: Clock,
}

impl fmt::Debug for SharedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedStore")
            .field("process", &self.process)
            .finish_non_exhaustive()
    }
}

fn to_coordinator_error(error: StoreError) -> String {
    display_chain(&error)
}

impl Coordinator for SharedStore {
    fn token<'a>(
        &'a self,
        client: &'a str,
        not: Option<i64>,
    ) -> BoxFuture<'a, Result<TokenLookup, String>> {
        async move {
            Ok(
                match self
                    .store
                    .find_token_or_lock(client.to_owned(), not, self.clock.now())
                    .await
                    .map_err(to_coordinator_error)?
                {
                    StoredTokenLookup::Cached(SealedToken { sealed, left, life }, number) => {
                        let opened = self
                            .master
                            .open(ACCESS_TOKEN, &sealed)
                            .map_err(|error| display_chain(&error))?;
                        let token = String::from_utf8_lossy(&opened).into_owned().into();
                        TokenLookup::Cached {
                            token: IssuedToken { token, left, life },
                            number,
                        }
                    }
                    StoredTokenLookup::RefreshHere => TokenLookup::RefreshHere,
                    StoredTokenLookup::RefreshingElsewhere => TokenLookup::RefreshingElsewhere,
                },
            )
        }
        .boxed()
    }

    fn publish_token<'a>(
        &'a self,
        client: &'a str,
        new: IssuedToken,
    ) -> BoxFuture<'a, Result<i64, String>> {
        async move {
            let IssuedToken { token, left, life } = new;
            let sealed = self
                .master
                .seal(ACCESS_TOKEN, token.expose_secret().as_bytes())
                .map_err(|error| display_chain(&error))?;
            self.store
                .store_token(
                    client.to_owned(),
                    SealedToken { sealed, left, life },
                    self.clock.now(),
                )
                .await
                .map_err(to_coordinator_error)
        }
        .boxed()
    }

    fn release_refresh_lock<'a>(&'a self, client: &'a str) -> BoxFuture<'a, Result<(), String>> {
        async move {
            self.store
                .release_refresh_lock(client.to_owned())
                .await
                .map_err(to_coordinator_error)
        }
        .boxed()
    }

    fn request_rate_limit_lease<'a>(
        &'a self,
        client: &'a str,
        need: RateLimitLeaseRequest,
    ) -> BoxFuture<'a, Result<RateLimitLease, String>> {
        async move {
            self.store
                .request_rate_limit_lease(client.to_owned(), self.process, need)
                .await
                .map_err(to_coordinator_error)
        }
        .boxed()
    }
}
