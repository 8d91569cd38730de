//! One OAuth client's way to the platform: paced, signed in, repeated where that is safe.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;
use secrecy::SecretString;
use serde::de::DeserializeOwned;

use crate::{
    clock::{Clock, Timestamp},
    error::{CallError, CallFailed, Operation},
    oauth::{AccessToken, TokenSource},
    quota::{Quota, Rate},
    regions::Hosts,
    retry::{self, Done, Effort, RetryPolicy},
    seam::Seams,
    stats::CallStats,
    transport::{Answer, NoTrustRoots, Transport},
    trust::Trust,
};

/// Where and as whom. All of it is needed.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Where calls go.
    pub hosts: Hosts,
    /// How an access token is asked for.
    pub sign_in: SignIn,
    /// OAuth client id.
    pub client_id: String,
    /// OAuth client secret.
    pub client_secret: SecretString,
    /// Whose certificates are believed.
    pub trust: Trust,
}

/// How an access token is asked for: both by client credentials (RFC 6749, section 4.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignIn {
    /// The brief's: id and secret in the form, at `/api/v2/oauth/token`.
    Form,
    /// The public platform's: id and secret by HTTP Basic, at `/oauth/token` of the login host (reference, section 2).
    Basic,
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
    hosts: Hosts,
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
    pub(crate) repeat: Repeat,
}

/// Whether a call may be sent again when nobody knows what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Yes: it carries a key, finds what was made before, or changes nothing.
    Always,
    /// No: a second one would do it twice.
    UnlessUnknown,
    /// Yes; and a 404 says only that it is not there yet.
    UntilThere,
}

impl Call {
    pub(crate) fn get(operation: Operation, path: String, repeat: Repeat) -> Self {
        Self { operation, method: Method::GET, path, idempotency_key: None, body: Bytes::new(), repeat }
    }

    pub(crate) fn post(operation: Operation, path: String, body: Bytes, repeat: Repeat) -> Self {
        Self { operation, method: Method::POST, path, idempotency_key: None, body, repeat }
    }
}

impl Platform {
    /// Nothing is sent yet; the first call signs in.
    pub fn new(credentials: &Credentials, patience: Patience, clock: Clock, seams: Seams) -> Result<Self, NoTrustRoots> {
        let transport = Transport::new(clock.clone(), patience.call_timeout, &credentials.trust)?;
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
        Ok(Self { hosts: credentials.hosts.clone(), transport, oauth, quota, policy: patience.retry, stats, clock, seams })
    }

    /// What the calls came to so far.
    pub fn stats(&self) -> &Arc<CallStats> {
        &self.stats
    }

    /// Where calls go.
    pub fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    pub(crate) fn transport(&self) -> &Transport {
        &self.transport
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(crate) fn seams(&self) -> &Seams {
        &self.seams
    }

    /// Makes a call, repeating it as [`retry`] says, until `deadline`. An answer that cannot be read counts as none.
    pub(crate) async fn call<T: DeserializeOwned>(&self, call: &Call, deadline: Timestamp) -> Result<Done<T>, CallFailed> {
        self.repeat(call.operation, call.repeat, deadline, || async { self.attempt(call, deadline).await?.json() }).await
    }

    /// As [`call`](Self::call), with the status of the answer.
    pub(crate) async fn call_with_status<T: DeserializeOwned>(
        &self,
        call: &Call,
        deadline: Timestamp,
    ) -> Result<Done<(StatusCode, T)>, CallFailed> {
        let attempt = || async {
            let answer = self.attempt(call, deadline).await?;
            Ok((answer.status, answer.json()?))
        };
        self.repeat(call.operation, call.repeat, deadline, attempt).await
    }

    /// As [`call`](Self::call), where the answer says nothing.
    pub(crate) async fn call_for_nothing(&self, call: &Call, deadline: Timestamp) -> Result<Done<()>, CallFailed> {
        self.repeat(call.operation, call.repeat, deadline, || async { self.attempt(call, deadline).await.map(drop) }).await
    }

    /// As [`call`](Self::call), until `there` finds in the answer what is looked for.
    pub(crate) async fn call_until<T: DeserializeOwned, U>(
        &self,
        call: &Call,
        there: impl Fn(T) -> Option<U>,
        deadline: Timestamp,
    ) -> Result<Done<U>, CallFailed> {
        let attempt = || async {
            let answer = self.attempt(call, deadline).await?;
            there(answer.json()?).ok_or_else(|| CallError::NotThereYet(answer.refusal()))
        };
        self.repeat(call.operation, call.repeat, deadline, attempt).await
    }

    /// Repeats `attempt` as [`retry`] says, until `deadline`.
    pub(crate) async fn repeat<T, F: Future<Output = Result<T, CallError>>>(
        &self,
        operation: Operation,
        repeat: Repeat,
        deadline: Timestamp,
        attempt: impl FnMut() -> F,
    ) -> Result<Done<T>, CallFailed> {
        let effort = Effort { policy: &self.policy, clock: &self.clock, stats: &self.stats, seams: &self.seams, deadline };
        retry::run(effort, operation, repeat, attempt).await
    }

    /// Signs in, unless there is a token that will do.
    pub async fn sign_in(&self, deadline: Timestamp) -> Result<(), CallError> {
        self.oauth.token(deadline).await.map(drop)
    }

    /// One attempt, and its answer if that is a good one.
    async fn attempt(&self, call: &Call, deadline: Timestamp) -> Result<Answer, CallError> {
        let token = self.oauth.token(deadline).await?;
        let answer = self.send(call, &token, deadline).await?;
        let answer = answer.accepted(self.clock.now(), call.idempotency_key.is_some());
        answer.map_err(|error| match error {
            CallError::Refused(refusal) if call.repeat == Repeat::UntilThere && refusal.status == StatusCode::NOT_FOUND => {
                CallError::NotThereYet(refusal)
            }
            CallError::Unauthorized(_) => {
                self.oauth.discard(&token);
                error
            }
            CallError::Throttled { retry_after, .. } => {
                self.quota.throttled(retry_after.unwrap_or_default());
                error
            }
            other => other,
        })
    }

    /// One attempt, and its answer whatever that is.
    pub(crate) async fn answer_to(&self, call: &Call, deadline: Timestamp) -> Result<Answer, CallError> {
        let token = self.oauth.token(deadline).await?;
        self.send(call, &token, deadline).await
    }

    async fn send(&self, call: &Call, token: &AccessToken, deadline: Timestamp) -> Result<Answer, CallError> {
        if !self.quota.acquire(deadline).await {
            return Err(CallError::NoRoom);
        }
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(self.hosts.api.route(&call.path))
            .header(header::AUTHORIZATION, token.bearer())
            .header(header::ACCEPT, HeaderValue::from_static("application/json"));
        if call.method != Method::GET {
            request = request.header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(key) = &call.idempotency_key {
            request = request.header("Idempotency-Key", key);
        }
        let request = request.body(Full::new(call.body.clone())).map_err(|error| CallError::NotSent(error.to_string()))?;

        self.stats.sent();
        let answer = self.transport.send(request, deadline).await?;
        if let Some((count, allowed, reset)) = answer.rate() {
            self.quota.observed(count, allowed, reset);
        }
        Ok(answer)
    }
}
