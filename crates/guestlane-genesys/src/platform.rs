//! One OAuth client's way to the platform: paced, signed in, repeated where that is safe.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use http_body_util::Full;
use secrecy::SecretString;
use serde::de::DeserializeOwned;

use crate::{
    base_url::BaseUrl,
    clock::{Clock, Timestamp},
    error::{CallError, CallFailed, Operation},
    oauth::TokenSource,
    quota::{Quota, Rate},
    retry::{self, Done, Effort, RetryPolicy},
    seam::Seams,
    stats::CallStats,
    transport::{Answer, NoTrustRoots, Transport},
};

/// Where and as whom. All of it is needed.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The origin of all calls of the `rest` surface.
    pub base: BaseUrl,
    /// OAuth client id.
    pub client_id: String,
    /// OAuth client secret.
    pub client_secret: SecretString,
}

/// How patient calls are.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// R8.
    pub retry: RetryPolicy,
    /// Bound of one attempt with its answer.
    pub call_timeout: Duration,
    /// Calls are paced to this; `None` for no pace.
    pub quota: Option<Rate>,
}

impl Default for Patience {
    fn default() -> Self {
        Self { retry: RetryPolicy::default(), call_timeout: Duration::from_secs(10), quota: Some(Rate::REST) }
    }
}

/// The platform, seen by one OAuth client.
#[derive(Debug)]
pub struct Platform {
    base: BaseUrl,
    transport: Transport,
    oauth: Arc<TokenSource>,
    quota: Quota,
    policy: RetryPolicy,
    stats: Arc<CallStats>,
    clock: Clock,
    seams: Seams,
}

/// A request as it is repeated: the same bytes each time. Not `Debug`: the body may hold a guest token.
pub(crate) struct Call {
    pub(crate) operation: Operation,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) idempotency_key: Option<String>,
    pub(crate) body: Bytes,
}

impl Platform {
    /// Nothing is sent yet; the first call signs in.
    pub fn new(credentials: &Credentials, patience: Patience, clock: Clock, seams: Seams) -> Result<Self, NoTrustRoots> {
        let transport = Transport::new(clock.clone(), patience.call_timeout)?;
        let stats = Arc::new(CallStats::default());
        let oauth = Arc::new(TokenSource::new(
            credentials,
            transport.clone(),
            patience.retry,
            clock.clone(),
            Arc::clone(&stats),
            seams.clone(),
        ));
        let quota = Quota::new(patience.quota, clock.clone());
        Ok(Self { base: credentials.base.clone(), transport, oauth, quota, policy: patience.retry, stats, clock, seams })
    }

    /// What the calls came to so far.
    pub fn stats(&self) -> &Arc<CallStats> {
        &self.stats
    }

    /// Makes a call, repeating it as [`retry`] says, until `deadline`. An answer that cannot be read counts as none.
    pub(crate) async fn call<T: DeserializeOwned>(&self, call: &Call, deadline: Timestamp) -> Result<Done<T>, CallFailed> {
        let effort = Effort { policy: &self.policy, clock: &self.clock, stats: &self.stats, seams: &self.seams, deadline };
        retry::run(effort, call.operation, || async { self.attempt(call, deadline).await?.json() }).await
    }

    async fn attempt(&self, call: &Call, deadline: Timestamp) -> Result<Answer, CallError> {
        let token = self.oauth.token(deadline).await?;
        if !self.quota.acquire(deadline).await {
            return Err(CallError::NoRoom);
        }
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(self.base.route(&call.path))
            .header(header::AUTHORIZATION, token.bearer())
            .header(header::ACCEPT, HeaderValue::from_static("application/json"));
        if call.method == Method::POST {
            request = request.header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(key) = &call.idempotency_key {
            request = request.header("Idempotency-Key", key);
        }
        let request = request.body(Full::new(call.body.clone())).map_err(|error| CallError::NotSent(error.to_string()))?;

        self.stats.sent();
        let answer = self.transport.send(request, deadline).await?;
        answer.accepted(self.clock.now()).inspect_err(|error| match error {
            CallError::Unauthorized(_) => self.oauth.discard(&token),
            CallError::Throttled { retry_after, .. } => self.quota.throttled(retry_after.unwrap_or_default()),
            CallError::NotSent(_)
            | CallError::NoRoom
            | CallError::OutcomeUnknown { .. }
            | CallError::Refused(_)
            | CallError::SignIn(_) => {}
        })
    }
}
