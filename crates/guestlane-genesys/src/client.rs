//! The way to the platform: paced, signed in, repeated where that is safe.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;
use secrecy::SecretString;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use crate::{
    attempt_log,
    client_metrics::ClientMetrics,
    clock::{Clock, Timestamp},
    coordinator::Coordinator,
    error::{AttemptError, CallError, Operation},
    failpoint::FailPoints,
    foreign::ApiPath,
    health::PlatformHealth,
    http_client::{HttpClient, HttpResponse, NoTlsRoots},
    rate::Rate,
    rate_limit::{ClientPool, ClientUsage, ExcludedClients, Permit},
    regions::Endpoints,
    retry::{self, Completed, RetryContext, RetryPolicy},
    retry_budget::RetryBudget,
    tls_roots::TlsRoots,
    token_source::TokenSource,
    trace_context,
};

/// Where and as whom. All of it is needed.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Where calls go.
    pub hosts: Endpoints,
    /// How an access token is asked for.
    pub sign_in: TokenRequestAuth,
    /// As whom: one OAuth client, or several whose quotas are used together. All of one organization.
    pub clients: Vec<OAuthClient>,
    /// Whose certificates are believed.
    pub trust: TlsRoots,
}

/// An OAuth client.
#[derive(Debug, Clone)]
pub struct OAuthClient {
    /// Its id.
    pub id: String,
    /// Its secret.
    pub secret: SecretString,
}

/// How an access token is asked for: both by client credentials (RFC 6749, section 4.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenRequestAuth {
    /// The surface `rest`: id and secret in the form, at `/api/v2/oauth/token` (requirement R1,
    /// docs/requirements.md).
    Form,
    /// The public platform's: id and secret by HTTP Basic, at `/oauth/token` of the login host
    /// (docs/platform.md#sign-in).
    Basic,
}

/// How patient calls are.
#[derive(Debug, Clone, Copy)]
pub struct CallPolicy {
    /// Retries and their waits (requirement R8, docs/requirements.md).
    pub retry: RetryPolicy,
    /// Bound of one attempt with its answer.
    pub call_timeout: Duration,
    /// Calls are paced to this; `None` for no pace.
    pub quota: Option<Rate>,
}

impl Default for CallPolicy {
    fn default() -> Self {
        Self { retry: RetryPolicy::default(), call_timeout: Duration::from_secs(10), quota: Some(Rate::REST) }
    }
}

/// Calls under way at once. Over HTTP/1.1 each has a connection of its own, and making thousands of them would take longer than the calls.
const MAX_IN_FLIGHT_CALLS: usize = 256;

/// The platform, as one OAuth client sees it or several.
#[derive(Debug)]
pub struct GenesysClient {
    hosts: Endpoints,
    transport: HttpClient,
    pool: Arc<ClientPool>,
    connections: Semaphore,
    shared: RetryContext,
}

/// A request as it is repeated: the same bytes each time. Not `Debug`: the body may hold a guest token.
pub(crate) struct RequestSpec {
    pub(crate) operation: Operation,
    pub(crate) method: Method,
    pub(crate) path: ApiPath,
    pub(crate) idempotency_key: Option<String>,
    pub(crate) body: Bytes,
    pub(crate) repeat: RetrySafety,
    pub(crate) tried: ExcludedClients,
}

/// Whether a call may be sent again when nobody knows what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RetrySafety {
    /// Yes: it carries a key, finds what was made before, or changes nothing.
    Idempotent,
    /// No: a second one would do it twice.
    NotIfOutcomeUnknown,
    /// Yes; and a 404 says only that it is not there yet.
    PollUntilVisible,
}

impl RequestSpec {
    pub(crate) fn get(operation: Operation, path: ApiPath, repeat: RetrySafety) -> Self {
        Self {
            operation,
            method: Method::GET,
            path,
            idempotency_key: None,
            body: Bytes::new(),
            repeat,
            tried: ExcludedClients::default(),
        }
    }

    pub(crate) fn post(operation: Operation, path: ApiPath, body: Bytes, repeat: RetrySafety) -> Self {
        Self { operation, method: Method::POST, path, idempotency_key: None, body, repeat, tried: ExcludedClients::default() }
    }
}

impl GenesysClient {
    /// Nothing is sent yet; the first call signs in.
    pub fn new(
        credentials: &Credentials,
        patience: CallPolicy,
        clock: Clock,
        fail_points: FailPoints,
    ) -> Result<Self, NoTlsRoots> {
        let transport = HttpClient::new(clock.clone(), patience.call_timeout, &credentials.trust)?;
        let shared = RetryContext {
            policy: patience.retry,
            budget: Arc::new(RetryBudget::new(clock.clone())),
            pulse: Arc::new(PlatformHealth::new(clock.clone())),
            stats: Arc::new(ClientMetrics::default()),
            clock: clock.clone(),
            fail_points,
        };
        let source = |client| Arc::new(TokenSource::new(credentials, client, transport.clone(), shared.clone()));
        let pool = ClientPool::new(patience.quota, credentials.clients.iter().map(source).collect(), clock);
        let connections = Semaphore::new(MAX_IN_FLIGHT_CALLS);
        Ok(Self { hosts: credentials.hosts.clone(), transport, pool: Arc::new(pool), connections, shared })
    }

    /// What the calls came to so far.
    pub fn stats(&self) -> &Arc<ClientMetrics> {
        &self.shared.stats
    }

    /// How the platform does.
    pub fn pulse(&self) -> &Arc<PlatformHealth> {
        &self.shared.pulse
    }

    /// What pays for calls that are made again.
    pub fn budget(&self) -> &RetryBudget {
        &self.shared.budget
    }

    /// What each OAuth client has used of its quota.
    pub fn clients(&self) -> Vec<ClientUsage> {
        self.pool.used()
    }

    /// From now on each OAuth client may make so many calls; `None`: as many as there are.
    pub fn set_quota(&self, quota: Option<Rate>) {
        self.pool.set_rate(quota);
    }

    /// From now on the OAuth clients sign in with these secrets. Clients that are not in use are passed over. Returns the
    /// number of secrets that are others than before.
    pub fn set_secrets(&self, clients: &[OAuthClient]) -> usize {
        let known = self.pool.clients().iter();
        known.filter(|known| clients.iter().any(|new| new.id == known.client_id() && known.set_secret(new))).count()
    }

    /// From now on tokens and quotas are shared with other processes. Must be called within a tokio runtime.
    pub fn set_coordinator(&self, fleet: &Arc<dyn Coordinator>) {
        self.pool.clients().iter().for_each(|client| client.share(Arc::clone(fleet)));
        self.pool.share(fleet);
    }

    /// No call goes as this OAuth client any more.
    pub(crate) fn disable_client(&self, client: usize) {
        self.pool.disable(client);
    }

    /// Calls that the quota allows in a second, of all OAuth clients together; `None` without a quota.
    pub fn calls_in_a_second(&self) -> Option<f64> {
        self.pool.calls_in_a_second()
    }

    /// Where calls go.
    pub fn hosts(&self) -> &Endpoints {
        &self.hosts
    }

    pub(crate) fn transport(&self) -> &HttpClient {
        &self.transport
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    pub(crate) fn fail_points(&self) -> &FailPoints {
        &self.shared.fail_points
    }

    /// Makes a call, repeating it as [`retry`] says, until `deadline`. An answer that cannot be read counts as none.
    pub(crate) async fn call<T: DeserializeOwned>(
        &self,
        call: &RequestSpec,
        deadline: Timestamp,
    ) -> Result<Completed<T>, CallError> {
        self.repeat(call.operation, call.repeat, deadline, || async { self.attempt(call, deadline).await?.json() }).await
    }

    /// As [`call`](Self::call), with the status of the answer.
    pub(crate) async fn call_with_status<T: DeserializeOwned>(
        &self,
        call: &RequestSpec,
        deadline: Timestamp,
    ) -> Result<Completed<(StatusCode, T)>, CallError> {
        let attempt = || async {
            let answer = self.attempt(call, deadline).await?;
            Ok((answer.status, answer.json()?))
        };
        self.repeat(call.operation, call.repeat, deadline, attempt).await
    }

    /// As [`call`](Self::call), where the answer says nothing.
    pub(crate) async fn call_no_body(&self, call: &RequestSpec, deadline: Timestamp) -> Result<Completed<()>, CallError> {
        self.repeat(call.operation, call.repeat, deadline, || async { self.attempt(call, deadline).await.map(drop) }).await
    }

    /// As [`call`](Self::call), until `there` finds in the answer what is looked for.
    pub(crate) async fn poll_until<T: DeserializeOwned, U>(
        &self,
        call: &RequestSpec,
        there: impl Fn(T) -> Option<U>,
        deadline: Timestamp,
    ) -> Result<Completed<U>, CallError> {
        let attempt = || async {
            let answer = self.attempt(call, deadline).await?;
            there(answer.json()?).ok_or_else(|| AttemptError::NotReady(answer.refusal()))
        };
        self.repeat(call.operation, call.repeat, deadline, attempt).await
    }

    /// Repeats `attempt` as [`retry`] says, until `deadline`.
    pub(crate) async fn repeat<T, F: Future<Output = Result<T, AttemptError>>>(
        &self,
        operation: Operation,
        repeat: RetrySafety,
        deadline: Timestamp,
        attempt: impl FnMut() -> F,
    ) -> Result<Completed<T>, CallError> {
        retry::execute(&self.shared, deadline, operation, repeat, attempt).await
    }

    /// Signs in as each OAuth client, unless there is a token that will do: what came of it, by the client's id.
    pub async fn check_credentials(&self, deadline: Timestamp) -> Vec<(String, Result<(), AttemptError>)> {
        let clients = self.pool.clients().iter();
        let signed_in = clients.map(async |client| (client.client_id().to_owned(), client.token(deadline).await.map(drop)));
        futures_util::future::join_all(signed_in).await
    }

    /// One attempt, and its answer if that is a good one.
    async fn attempt(&self, call: &RequestSpec, deadline: Timestamp) -> Result<HttpResponse, AttemptError> {
        let turn = self.pool.turn(call.operation, &call.tried, deadline).await?;
        let answer = self.send(call, &turn, deadline).await?;
        let answer = answer.error_for_status(self.shared.clock.now(), call.idempotency_key.is_some());
        if answer.is_ok() {
            self.pool.on_success(&call.tried, turn.client);
        }
        answer.map_err(|error| self.classify_for_client(call, &turn, error))
    }

    /// What a failure says of the OAuth client that made the call; and whether another one may fare better.
    fn classify_for_client(&self, call: &RequestSpec, turn: &Permit, error: AttemptError) -> AttemptError {
        let is_of_the_client = match &error {
            AttemptError::Rejected(refusal)
                if call.repeat == RetrySafety::PollUntilVisible && refusal.status == StatusCode::NOT_FOUND =>
            {
                return AttemptError::NotReady(refusal.clone());
            }
            // It may lack a permission; where it does not, the others are refused, too, and that is the answer.
            AttemptError::Rejected(refusal) => refusal.status == StatusCode::FORBIDDEN,
            AttemptError::Unauthorized(_) => {
                self.pool.clients()[turn.client].discard(&turn.token);
                let (again, others) = call.tried.try_refresh(turn.client);
                if !again && others {
                    return AttemptError::Failover(Box::new(error)); // this client's first renewal, and the loop grants only one
                }
                again
            }
            AttemptError::Throttled { retry_after, .. } => {
                self.pool.throttled(turn.client, call.operation, retry_after.unwrap_or(Duration::from_secs(1)));
                let another = self.pool.fail_over_on_throttle(call.operation, &call.tried, turn.client);
                return if another { AttemptError::Failover(Box::new(error)) } else { error };
            }
            AttemptError::NotSent(_)
            | AttemptError::Local(_)
            | AttemptError::OutcomeUnknown { .. }
            | AttemptError::NotReady(_)
            | AttemptError::RateLimitTimeout
            | AttemptError::AuthenticationFailed(_)
            | AttemptError::Failover(_) => false,
        };
        if is_of_the_client && self.pool.try_another(&call.tried, turn.client) {
            AttemptError::Failover(Box::new(error))
        } else {
            error
        }
    }

    /// One attempt, and its answer whatever that is.
    pub(crate) async fn send_unchecked(&self, call: &RequestSpec, deadline: Timestamp) -> Result<HttpResponse, AttemptError> {
        let turn = self.pool.turn(call.operation, &call.tried, deadline).await?;
        self.send(call, &turn, deadline).await
    }

    async fn send(&self, call: &RequestSpec, turn: &Permit, deadline: Timestamp) -> Result<HttpResponse, AttemptError> {
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(self.hosts.api.route(call.path.as_str()))
            .header(header::AUTHORIZATION, turn.token.bearer())
            .header(header::ACCEPT, HeaderValue::from_static("application/json"));
        if call.method != Method::GET {
            request = request.header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(parent) = trace_context::current() {
            request = request.header("traceparent", parent.to_string());
        }
        if let Some(key) = &call.idempotency_key {
            request = request.header("Idempotency-Key", key);
        }
        let request = request.body(Full::new(call.body.clone())).map_err(|error| AttemptError::NotSent(error.to_string()))?;

        let left = deadline.since(self.shared.clock.now());
        let Ok(_room) = self.shared.clock.timeout(left, self.connections.acquire()).await else {
            return Err(AttemptError::RateLimitTimeout);
        };
        attempt_log::sent(self.shared.clock.now());
        let sent_at = self.shared.clock.monotonic();
        self.shared.stats.sent();
        let _under_way = self.shared.pulse.call();
        let answer = self.transport.send(request, deadline).await;
        let took = self.shared.clock.monotonic().since(sent_at);
        self.shared.stats.timed(call.operation, answer.as_ref().ok().map(|answer| answer.status.as_u16()), took);
        let answer = answer?;
        self.shared.pulse.answered(call.operation, took);
        attempt_log::answered(answer.status.as_u16(), || answer.correlation_id());
        if let Some(told) = answer.rate_limit_headers() {
            self.pool.observed(turn, call.operation, told);
        }
        Ok(answer)
    }
}
