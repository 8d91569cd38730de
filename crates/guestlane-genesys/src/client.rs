//! The client of the platform: rate-limited, authenticated, and retried where a retry is safe.

mod request_spec;

use std::{sync::Arc, time::Duration};

use guestlane_runtime::{
    Clock, FailPoints,
    http_client::{HttpClient, HttpResponse, NoTlsRoots},
    trace_context,
};
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use crate::{
    CallPolicy, Credentials, OAuthClient,
    call_context::CallContext,
    client_metrics::ClientMetrics,
    coordinator::Coordinator,
    error::{AttemptError, CallError, Operation},
    health::PlatformHealth,
    rate::Rate,
    rate_limit::{ClientPool, ClientUsage, Permit},
    regions::Endpoints,
    response::PlatformResponse,
    retry::{self, Completed, RetryContext, RetrySafety},
    retry_budget::RetryBudget,
    token_source::TokenSource,
};
pub(crate) use request_spec::{RequestSpec, to_json};

/// Maximum number of calls in flight. Over HTTP/1.1 each call needs a connection of its own, and
/// opening thousands of connections would take longer than the calls.
const MAX_IN_FLIGHT_CALLS: usize = 256;

/// A client of the platform that uses one OAuth client or a pool of several.
#[derive(Debug)]
pub struct GenesysClient {
    hosts: Endpoints,
    transport: HttpClient,
    pool: Arc<ClientPool>,
    connections: Semaphore,
    shared: RetryContext,
}

impl GenesysClient {
    /// Creates a client. Nothing is sent yet; the first call fetches an access token.
    ///
    /// # Errors
    ///
    /// Fails if the system's root certificates cannot be loaded.
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
            health: Arc::new(PlatformHealth::new(clock.clone())),
            metrics: Arc::new(ClientMetrics::default()),
            clock: clock.clone(),
            fail_points,
        };
        let source = |client| {
            Arc::new(TokenSource::new(
                credentials,
                client,
                transport.clone(),
                shared.clone(),
            ))
        };
        let pool = ClientPool::new(
            patience.quota,
            credentials.clients.iter().map(source).collect(),
            clock,
        );
        let connections = Semaphore::new(MAX_IN_FLIGHT_CALLS);
        Ok(Self {
            hosts: credentials.hosts.clone(),
            transport,
            pool: Arc::new(pool),
            connections,
            shared,
        })
    }

    /// Returns the counters of all calls so far.
    pub fn stats(&self) -> &Arc<ClientMetrics> {
        &self.shared.metrics
    }

    /// Returns the circuit breaker and concurrency limiter.
    pub fn pulse(&self) -> &Arc<PlatformHealth> {
        &self.shared.health
    }

    /// Returns the retry budget.
    pub fn budget(&self) -> &RetryBudget {
        &self.shared.budget
    }

    /// Returns the rate limit usage of each OAuth client.
    pub fn clients(&self) -> Vec<ClientUsage> {
        self.pool.used()
    }

    /// Sets the rate limit of each OAuth client; `None` disables rate limiting.
    pub fn set_quota(&self, quota: Option<Rate>) {
        self.pool.set_rate(quota);
    }

    /// Replaces the secrets of the OAuth clients. Clients that are not in the pool are ignored.
    /// Returns the number of secrets that changed.
    pub fn set_secrets(&self, clients: &[OAuthClient]) -> usize {
        let known = self.pool.clients().iter();
        known
            .filter(|known| {
                clients
                    .iter()
                    .any(|new| new.id == known.client_id() && known.set_secret(new))
            })
            .count()
    }

    /// Shares access tokens and rate limits with other processes through `fleet`. Must be called
    /// within a tokio runtime.
    pub fn set_coordinator(&self, fleet: &Arc<dyn Coordinator>) {
        self.pool
            .clients()
            .iter()
            .for_each(|client| client.share(Arc::clone(fleet)));
        self.pool.share(fleet);
    }

    /// Excludes an OAuth client from all further calls.
    pub(crate) fn disable_client(&self, client: usize) {
        self.pool.disable(client);
    }

    /// Returns the calls per second that the rate limits of all OAuth clients allow together, or
    /// `None` without a rate limit.
    pub fn calls_in_a_second(&self) -> Option<f64> {
        self.pool.calls_in_a_second()
    }

    /// Returns the base URLs of the platform.
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

    /// Makes a call with retries (see [`retry`]) until `deadline`. An unreadable response counts as
    /// no response.
    pub(crate) async fn call<T: DeserializeOwned>(
        &self,
        call: &RequestSpec,
        context: &CallContext,
    ) -> Result<Completed<T>, CallError> {
        self.repeat(call.operation, call.repeat, context, || async {
            self.attempt(call, context).await?.json()
        })
        .await
    }

    /// Like [`call`](Self::call), and also returns the response status.
    pub(crate) async fn call_with_status<T: DeserializeOwned>(
        &self,
        call: &RequestSpec,
        context: &CallContext,
    ) -> Result<Completed<(StatusCode, T)>, CallError> {
        let attempt = || async {
            let answer = self.attempt(call, context).await?;
            Ok((answer.status, answer.json()?))
        };
        self.repeat(call.operation, call.repeat, context, attempt)
            .await
    }

    /// Like [`call`](Self::call), and ignores the response body.
    pub(crate) async fn call_no_body(
        &self,
        call: &RequestSpec,
        context: &CallContext,
    ) -> Result<Completed<()>, CallError> {
        self.repeat(call.operation, call.repeat, context, || async {
            self.attempt(call, context).await.map(drop)
        })
        .await
    }

    /// Like [`call`](Self::call), and polls until `there` finds the expected value in the response.
    pub(crate) async fn poll_until<T: DeserializeOwned, U>(
        &self,
        call: &RequestSpec,
        there: impl Fn(T) -> Option<U>,
        context: &CallContext,
    ) -> Result<Completed<U>, CallError> {
        let attempt = || async {
            let answer = self.attempt(call, context).await?;
            there(answer.json()?).ok_or_else(|| AttemptError::NotReady(answer.refusal()))
        };
        self.repeat(call.operation, call.repeat, context, attempt)
            .await
    }

    /// Runs `attempt` with retries (see [`retry`]) until `deadline`.
    pub(crate) async fn repeat<T, F: Future<Output = Result<T, AttemptError>>>(
        &self,
        operation: Operation,
        repeat: RetrySafety,
        context: &CallContext,
        attempt: impl FnMut() -> F,
    ) -> Result<Completed<T>, CallError> {
        retry::execute(&self.shared, context, operation, repeat, attempt).await
    }

    /// Fetches an access token for each OAuth client that has no valid one, and returns each result
    /// with the client ID.
    pub async fn check_credentials(
        &self,
        context: &CallContext,
    ) -> Vec<(String, Result<(), AttemptError>)> {
        let clients = self.pool.clients().iter();
        let signed_in = clients.map(async |client| {
            (
                client.client_id().to_owned(),
                client.token(context).await.map(drop),
            )
        });
        futures_util::future::join_all(signed_in).await
    }

    /// Makes one attempt and returns the response if its status is 2xx.
    async fn attempt(
        &self,
        call: &RequestSpec,
        context: &CallContext,
    ) -> Result<HttpResponse, AttemptError> {
        let turn = self.pool.turn(call.operation, &call.tried, context).await?;
        let answer = self.send(call, &turn, context).await?;
        let answer =
            answer.error_for_status(self.shared.clock.now(), call.idempotency_key.is_some());
        if answer.is_ok() {
            self.pool.on_success(&call.tried, turn.client);
        }
        answer.map_err(|error| self.classify_for_client(call, &turn, error))
    }

    /// Decides whether a failure concerns the OAuth client that made the call, and whether to fail
    /// over to another client.
    fn classify_for_client(
        &self,
        call: &RequestSpec,
        turn: &Permit,
        error: AttemptError,
    ) -> AttemptError {
        let is_of_the_client = match &error {
            AttemptError::Rejected(refusal)
                if call.repeat == RetrySafety::PollUntilVisible
                    && refusal.status == StatusCode::NOT_FOUND =>
            {
                return AttemptError::NotReady(refusal.clone());
            }
            // The client may lack a permission. If the permission is not the cause, the other
            // clients are rejected as well, and that response is the result.
            AttemptError::Rejected(refusal) => refusal.status == StatusCode::FORBIDDEN,
            AttemptError::Unauthorized(_) => {
                self.pool.clients()[turn.client].discard(&turn.token);
                let (again, others) = call.tried.try_refresh(turn.client);
                if !again && others {
                    return AttemptError::Failover(Box::new(error)); // the retry loop grants one refresh per call, and this is the first for this client
                }
                again
            }
            AttemptError::Throttled { retry_after, .. } => {
                self.pool.throttled(
                    turn.client,
                    call.operation,
                    retry_after.unwrap_or(Duration::from_secs(1)),
                );
                let another =
                    self.pool
                        .fail_over_on_throttle(call.operation, &call.tried, turn.client);
                return if another {
                    AttemptError::Failover(Box::new(error))
                } else {
                    error
                };
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

    /// Makes one attempt and returns the response, whatever its status.
    pub(crate) async fn send_unchecked(
        &self,
        call: &RequestSpec,
        context: &CallContext,
    ) -> Result<HttpResponse, AttemptError> {
        let turn = self.pool.turn(call.operation, &call.tried, context).await?;
        self.send(call, &turn, context).await
    }

    async fn send(
        &self,
        call: &RequestSpec,
        turn: &Permit,
        context: &CallContext,
    ) -> Result<HttpResponse, AttemptError> {
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(self.hosts.api.route(call.path.as_str()))
            .header(header::AUTHORIZATION, turn.token.bearer())
            .header(header::ACCEPT, HeaderValue::from_static("application/json"));
        if call.method != Method::GET {
            request = request.header(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            );
        }
        if let Some(parent) = trace_context::current().or_else(|| context.attempts.parent()) {
            request = request.header("traceparent", parent.to_string());
        }
        if let Some(key) = &call.idempotency_key {
            request = request.header("Idempotency-Key", key);
        }
        let request = request
            .body(Full::new(call.body.clone()))
            .map_err(|error| AttemptError::NotSent(error.to_string()))?;

        let left = context.deadline.since(self.shared.clock.now());
        let Ok(_room) = self
            .shared
            .clock
            .timeout(left, self.connections.acquire())
            .await
        else {
            return Err(AttemptError::RateLimitTimeout);
        };
        context.attempts.sent(self.shared.clock.now());
        let sent_at = self.shared.clock.monotonic();
        self.shared.metrics.sent();
        let _in_flight = self.shared.health.call(context.priority);
        let answer = self.transport.send(request, context.deadline).await;
        let took = self.shared.clock.monotonic().since(sent_at);
        self.shared.metrics.timed(
            call.operation,
            answer.as_ref().ok().map(|answer| answer.status.as_u16()),
            took,
        );
        let answer = answer?;
        self.shared.health.answered(call.operation, took);
        context
            .attempts
            .answered(answer.status.as_u16(), answer.correlation_id());
        if let Some(told) = answer.rate_limit_headers() {
            self.pool.observed(turn, call.operation, told);
        }
        Ok(answer)
    }
}
