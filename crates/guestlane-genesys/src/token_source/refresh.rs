//! Token refresh: in single flight, and once per fleet.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use guestlane_runtime::FailPoint;
use http::{Request, header};
use http_body_util::Full;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tracing::{debug, warn};

use super::{
    AccessToken, MAX_LIFE, PEER_REFRESH_POLL, THROTTLED_FOR, TokenSource, UNSTATED_LIFE,
    is_throttled,
};
use crate::{
    call_context::CallContext,
    coordinator::{Coordinator, IssuedToken, TokenLookup},
    error::{AttemptError, CallError, Operation},
    foreign::{lenient_number, token},
    response::PlatformResponse,
    retry::{self, RetrySafety},
};

/// The fields that are used of a token response (RFC 6749, section 5.1).
#[derive(Deserialize)]
pub(super) struct TokenResponse {
    #[serde(deserialize_with = "token")]
    access_token: SecretString,
    /// Lifetime in seconds. It may be absent, and some gateways send it as text.
    #[serde(default, deserialize_with = "lenient_number")]
    expires_in: Option<u64>,
}

impl TokenResponse {
    pub(super) fn life(&self) -> Duration {
        self.expires_in
            .map_or(UNSTATED_LIFE, Duration::from_secs)
            .min(MAX_LIFE)
    }
}

impl TokenSource {
    /// Refreshes the token, single flight: a caller that waited for another caller's refresh gets
    /// its result. `old` is a token that must be replaced although it is still usable.
    pub(super) async fn refresh_single_flight(
        &self,
        old: Option<&Arc<AccessToken>>,
        context: &CallContext,
    ) -> Result<Arc<AccessToken>, CallError> {
        let seen = self.asked.load(Ordering::Acquire);
        let mut failure = self.asking.lock().await;
        if self.asked.load(Ordering::Acquire) != seen {
            // Another caller refreshed meanwhile; its result, good or bad, is also the result here.
            if let Some(failed) = failure.as_ref() {
                return Err(failed.clone());
            }
        }
        if let Some(token) = self.current.load_full()
            && token.is_usable_at(self.shared.clock.now())
            && !old.is_some_and(|old| Arc::ptr_eq(old, &token))
        {
            return Ok(token);
        }
        let asked = self.refresh_or_wait_for_peer(old, context).await;
        self.asked.fetch_add(1, Ordering::Release);
        match asked {
            Ok(token) => {
                *failure = None;
                let token = Arc::new(token);
                self.current.store(Some(Arc::clone(&token)));
                Ok(token)
            }
            Err(failed) => {
                *failure = Some(failed.clone());
                Err(failed)
            }
        }
    }

    /// Fetches a token from the platform, unless another process has one or is fetching it.
    async fn refresh_or_wait_for_peer(
        &self,
        old: Option<&Arc<AccessToken>>,
        context: &CallContext,
    ) -> Result<AccessToken, CallError> {
        let Some(fleet) = self.fleet.get() else {
            return Ok(self.fetch_token_with_retries(context).await?.0);
        };
        let clock = &self.shared.clock;
        let discarded = Some(self.discarded.load(Ordering::Acquire)).filter(|number| *number > 0);
        let not = old.and_then(|old| old.number).max(discarded);
        while clock.now() < context.deadline {
            let credential = self.credential.load_full();
            match fleet.token(&credential.shared_name, not).await {
                Ok(TokenLookup::Cached {
                    token: IssuedToken { token, left, life },
                    number,
                }) => {
                    let known =
                        AccessToken::new(&token, clock.now() + left, life).map_err(|error| {
                            let reason = error.to_string();
                            CallError::not_sent(Operation::Token, &reason)
                        })?;
                    return Ok(AccessToken {
                        number: Some(number),
                        ..known
                    });
                }
                Ok(TokenLookup::RefreshingElsewhere) => clock.sleep(PEER_REFRESH_POLL).await,
                Ok(TokenLookup::RefreshHere) => {
                    return self
                        .refresh_and_publish(fleet.as_ref(), &credential.shared_name, context)
                        .await;
                }
                Err(error) => {
                    warn!(
                        error,
                        "failed to read the shared access token; fetching one for this process only"
                    );
                    return Ok(self.fetch_token_with_retries(context).await?.0);
                }
            }
        }
        Err(CallError::not_sent(
            Operation::Token,
            "another process is refreshing the access token and did not finish before the deadline",
        ))
    }

    /// Fetches a token and publishes it. `shared_name` is the name under which this process holds
    /// the refresh lock.
    async fn refresh_and_publish(
        &self,
        fleet: &dyn Coordinator,
        shared_name: &str,
        context: &CallContext,
    ) -> Result<AccessToken, CallError> {
        match self.fetch_token_with_retries(context).await {
            Ok((token, new)) => {
                let number = fleet.publish_token(shared_name, new).await;
                let number = number.inspect_err(|error| {
                    warn!(
                        error,
                        "failed to share the access token; other nodes fetch their own"
                    )
                });
                Ok(AccessToken {
                    number: number.ok(),
                    ..token
                })
            }
            Err(failed) => {
                if let Err(error) = fleet.release_refresh_lock(shared_name).await {
                    warn!(
                        error,
                        "failed to release the token refresh lock; other nodes wait until it expires"
                    );
                }
                Err(failed)
            }
        }
    }

    async fn fetch_token_with_retries(
        &self,
        context: &CallContext,
    ) -> Result<(AccessToken, IssuedToken), CallError> {
        let asked = retry::execute(
            &self.shared,
            context,
            Operation::Token,
            RetrySafety::Idempotent,
            || self.request(context),
        )
        .await?;
        self.shared.fail_points.hit(FailPoint::SignedIn).await;
        Ok(asked.value)
    }

    async fn request(
        &self,
        context: &CallContext,
    ) -> Result<(AccessToken, IssuedToken), AttemptError> {
        let credential = self.credential.load_full();
        let body = Bytes::copy_from_slice(credential.form.expose_secret().as_bytes());
        let mut request = Request::post(&self.url)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json");
        if let Some(basic) = &credential.basic {
            request = request.header(header::AUTHORIZATION, basic);
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| AttemptError::NotSent(error.to_string()))?;
        self.shared.metrics.sent();
        self.shared.metrics.token_requested();
        let _in_flight = self.shared.health.call(context.priority);
        let asked_at = self.shared.clock.now();
        let answer = self.transport.send(request, context.deadline).await?;
        let answer = answer
            .error_for_status(self.shared.clock.now(), false)
            .map_err(|error| match error {
                // Here a 401 means wrong credentials, so refreshing the token would not help.
                AttemptError::Unauthorized(refusal) => AttemptError::Rejected(refusal),
                // The public platform throttles token requests with a 400 (docs/platform.md#sign-in).
                AttemptError::Rejected(refusal) if is_throttled(&refusal) => {
                    AttemptError::Throttled {
                        retry_after: Some(THROTTLED_FOR),
                        correlation_id: refusal.correlation_id,
                    }
                }
                other => other,
            })?;
        let answer: TokenResponse = answer.json()?;
        let life = answer.life();
        debug!(
            seconds = life.as_secs(),
            stated = answer.expires_in.is_some(),
            "fetched an access token"
        );
        let TokenResponse { access_token, .. } = answer;
        // The lifetime counts from the request, because the response took some time.
        let token = AccessToken::new(&access_token, asked_at + life, life)?;
        Ok((
            token,
            IssuedToken {
                token: access_token,
                left: life,
                life,
            },
        ))
    }
}
