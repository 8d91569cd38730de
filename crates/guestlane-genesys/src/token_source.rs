//! Source of access tokens: single flight per OAuth client, with a refresh ahead of the expiry
//! (requirement R1, docs/requirements.md).

mod refresh;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, prelude::BASE64_STANDARD};
use guestlane_runtime::{Timestamp, http_client::HttpClient};
use http::HeaderValue;
use refresh::TokenResponse;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;
use tracing::warn;

use crate::{
    call_context::CallContext,
    coordinator::Coordinator,
    credentials::{Credentials, OAuthClient, TokenRequestAuth},
    error::{AttemptError, CallError, ErrorResponse},
    response::PlatformResponse,
    retry::RetryContext,
};

/// A token with a shorter remaining lifetime is refreshed in the background (requirement R1,
/// docs/requirements.md).
const REFRESH_BEFORE_EXPIRY: Duration = Duration::from_secs(60);

/// A token with a shorter remaining lifetime is not used, because it could expire in transit.
const EXPIRY_MARGIN: Duration = Duration::from_secs(5);

/// Wait after a throttled token request, for which the platform names no time. The platform's own
/// tools retry for a minute.
const THROTTLED_FOR: Duration = Duration::from_secs(15);

/// Assumed lifetime of a token whose response names none. It is short, because a refresh costs one
/// call, while an expired token costs a rejected one.
const UNSTATED_LIFE: Duration = Duration::from_secs(300);

/// Upper bound of a token's lifetime, whatever the response says. Two days is the longest lifetime
/// that the platform lets an OAuth client have.
const MAX_LIFE: Duration = Duration::from_secs(172_800);

/// Interval at which to check whether another process has finished its refresh.
const PEER_REFRESH_POLL: Duration = Duration::from_millis(20);

/// An access token in the form of the header that carries it.
#[derive(Debug)]
pub(crate) struct AccessToken {
    bearer: HeaderValue, // marked sensitive: `Debug` hides it
    expires_at: Timestamp,
    life: Duration,
    /// Number of the token among those that processes share.
    number: Option<i64>,
}

impl AccessToken {
    pub(crate) fn bearer(&self) -> HeaderValue {
        self.bearer.clone()
    }

    fn new(
        token: &SecretString,
        expires_at: Timestamp,
        life: Duration,
    ) -> Result<Self, AttemptError> {
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", token.expose_secret()))
            .map_err(|_| {
                AttemptError::NotSent("the access token cannot be sent in a header".to_owned())
            })?;
        bearer.set_sensitive(true);
        Ok(Self {
            bearer,
            expires_at,
            life,
            number: None,
        })
    }

    fn is_usable_at(&self, now: Timestamp) -> bool {
        self.expires_at.since(now) > EXPIRY_MARGIN.min(self.life / 10)
    }

    fn should_refresh(&self, now: Timestamp) -> bool {
        self.expires_at.since(now) < REFRESH_BEFORE_EXPIRY.min(self.life / 2)
    }
}

/// The parts of a token request that depend on the client's secret.
#[derive(Debug)]
struct Credential {
    /// Name under which processes share the token. It depends on the ID, the secret and the token
    /// URL.
    shared_name: String,
    form: SecretString,
    basic: Option<HeaderValue>, // marked sensitive: `Debug` hides it
}

impl Credential {
    fn new(method: TokenRequestAuth, client: &OAuthClient, url: &str) -> Self {
        let (id, secret) = (&client.id, client.secret.expose_secret());
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        let basic = match method {
            TokenRequestAuth::Form => {
                form.append_pair("client_id", id)
                    .append_pair("client_secret", secret);
                None
            }
            TokenRequestAuth::Basic => {
                let basic = HeaderValue::try_from(format!(
                    "Basic {}",
                    BASE64_STANDARD.encode(format!("{id}:{secret}"))
                ));
                basic.ok().map(|mut basic| {
                    basic.set_sensitive(true);
                    basic
                })
            }
        };
        Self {
            shared_name: shared_name(id, secret, url),
            form: form.finish().into(),
            basic,
        }
    }
}

/// Fetches access tokens with the client credentials grant (RFC 6749, section 4.4), single flight.
#[derive(Debug)]
pub(crate) struct TokenSource {
    client_id: String,
    method: TokenRequestAuth,
    url: String,
    /// Replaced as a whole when the secret changes.
    credential: ArcSwap<Credential>,
    transport: HttpClient,
    shared: RetryContext,
    current: ArcSwapOption<AccessToken>,
    /// Locked during a refresh; holds the error of the last refresh if it failed.
    asking: Mutex<Option<CallError>>,
    asked: AtomicU64,
    renewing: AtomicBool,
    /// Number of the last shared token that the platform rejected.
    discarded: AtomicI64,
    /// Coordination with other processes that share the tokens.
    fleet: OnceLock<Arc<dyn Coordinator>>,
}

impl TokenSource {
    pub(crate) fn new(
        credentials: &Credentials,
        client: &OAuthClient,
        transport: HttpClient,
        shared: RetryContext,
    ) -> Self {
        let method = credentials.sign_in;
        let url = credentials.hosts.login.route(match method {
            TokenRequestAuth::Form => "/api/v2/oauth/token",
            TokenRequestAuth::Basic => "/oauth/token",
        });
        Self {
            client_id: client.id.clone(),
            method,
            credential: ArcSwap::from_pointee(Credential::new(method, client, &url)),
            url,
            transport,
            shared,
            current: ArcSwapOption::empty(),
            asking: Mutex::new(None),
            asked: AtomicU64::new(0),
            renewing: AtomicBool::new(false),
            discarded: AtomicI64::new(0),
            fleet: OnceLock::new(),
        }
    }

    /// Returns the ID of the OAuth client.
    pub(crate) fn client_id(&self) -> &str {
        &self.client_id
    }

    /// Replaces the client's secret. The current token stays in use until the platform rejects it
    /// or it expires. Returns whether the secret changed.
    pub(crate) fn set_secret(&self, client: &OAuthClient) -> bool {
        let new = Credential::new(self.method, client, &self.url);
        let is_another = new.shared_name != self.credential.load().shared_name;
        if is_another {
            self.credential.store(Arc::new(new));
        }
        is_another
    }

    /// Shares the tokens with other processes.
    pub(crate) fn share(&self, fleet: Arc<dyn Coordinator>) {
        let _ = self.fleet.set(fleet); // the first call wins
    }

    /// Whether there is a usable access token.
    pub(crate) fn is_ready(&self) -> bool {
        self.current
            .load()
            .as_ref()
            .is_some_and(|token| token.is_usable_at(self.shared.clock.now()))
    }

    /// Returns an access token that is valid long enough for a request. Waits only when there is
    /// none.
    pub(crate) async fn token(
        self: &Arc<Self>,
        context: &CallContext,
    ) -> Result<Arc<AccessToken>, AttemptError> {
        let now = self.shared.clock.now();
        match self.current.load_full() {
            Some(token) if token.is_usable_at(now) => {
                if token.should_refresh(now) {
                    self.spawn_refresh(context);
                }
                Ok(token)
            }
            _ => self
                .refresh_single_flight(None, context)
                .await
                .map_err(|failed| AttemptError::AuthenticationFailed(Box::new(failed.cause))),
        }
    }

    /// Discards `token`, which the platform rejected, so that no further call uses it.
    pub(crate) fn discard(&self, token: &Arc<AccessToken>) {
        if self
            .current
            .load()
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, token))
        {
            if let Some(number) = token.number {
                self.discarded.store(number, Ordering::Release);
            }
            self.current.store(None);
        }
    }

    fn spawn_refresh(self: &Arc<Self>, context: &CallContext) {
        if self.renewing.swap(true, Ordering::AcqRel) {
            return;
        }
        let source = Arc::clone(self);
        // The refresh serves calls of every session, so no session's log records it.
        let context = CallContext::until(context.deadline);
        tokio::spawn(async move {
            let old = source.current.load_full();
            if let Err(error) = source.refresh_single_flight(old.as_ref(), &context).await {
                warn!(%error, cause = error.cause.redacted(), "failed to refresh the access token before its expiry; retrying with the next call");
            }
            source.renewing.store(false, Ordering::Release);
        });
    }
}

/// Derives the name under which processes share a token. It includes the secret, so that a process
/// with a wrong secret cannot use a token that another process fetched with the right one.
fn shared_name(id: &str, secret: &str, url: &str) -> String {
    let parts = [id, secret, url].map(|part| digest(&SHA256, part.as_bytes()));
    let hash = digest(
        &SHA256,
        &parts
            .iter()
            .flat_map(|part| part.as_ref())
            .copied()
            .collect::<Vec<_>>(),
    );
    format!("{id} {}", BASE64_STANDARD.encode(&hash.as_ref()[..12]))
}

fn is_throttled(refusal: &ErrorResponse) -> bool {
    refusal.code == "invalid_request" && refusal.message.mentions("rate limit exceeded")
}

/// Whether the response is a valid token response.
pub(crate) fn is_token(answer: &guestlane_runtime::http_client::HttpResponse) -> bool {
    answer.json::<TokenResponse>().is_ok()
}

#[cfg(test)]
mod tests;
