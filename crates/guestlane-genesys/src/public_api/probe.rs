//! Harmless looks at the platform's doors: does a call come through, and what is behind. Nothing in here changes anything.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::Full;
use serde::Deserialize;
use serde_json::Value;
use tracing::warn;
use uuid::Uuid;

use crate::{
    base_url::BaseUrl,
    client::{GenesysClient, RequestSpec, RetrySafety},
    clock::Timestamp,
    error::{AttemptError, CallError, Operation},
    foreign::{ApiPath, CorrelationId, ErrorCode, PlatformId, Sentence, one_line, optional_id},
    http_client::HttpResponse,
    rate_limit::ExcludedClients,
};

/// What was behind a door.
#[derive(Debug, Clone)]
pub struct ProbeResponse {
    /// HTTP status, whatever it is.
    pub status: StatusCode,
    /// The platform's code of a refusal.
    pub code: ErrorCode,
    /// The platform's sentence.
    pub message: Sentence,
    /// To quote to the platform's support.
    pub correlation_id: Option<CorrelationId>,
    /// `date`, `inin-ratelimit-…` and the like.
    pub headers: BTreeMap<String, String>,
    /// The body, if it is JSON.
    pub body: Value,
}

impl ProbeResponse {
    fn new(answer: &HttpResponse) -> Self {
        let refusal = answer.refusal();
        let text = |value: &http::HeaderValue| one_line(value.to_str().unwrap_or_default());
        Self {
            status: answer.status,
            code: refusal.code,
            message: refusal.message,
            correlation_id: refusal.correlation_id,
            headers: answer.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
            body: serde_json::from_slice(&answer.body).unwrap_or_default(),
        }
    }
}

impl GenesysClient {
    /// The id of the organization that each OAuth client belongs to, by the client's id; `None` where the platform does not say. One that cannot
    /// sign in is not used by this process any more, unless it is the only one.
    pub async fn fetch_organizations(&self, deadline: Timestamp) -> Result<Vec<(String, Option<PlatformId>)>, CallError> {
        let clients = self.clients();
        let ask = clients.iter().enumerate().map(async |(n, client)| (n, client, self.organization(n, deadline).await));
        let mut organizations = Vec::new();
        let mut first_failure = None;
        for (n, client, answer) in futures_util::future::join_all(ask).await {
            match answer {
                Ok(organization) => organizations.push((client.client_id.clone(), organization)),
                Err(failed) if failed.cause.is_authorization_failure() => {
                    warn!(
                        client = client.client_id,
                        error = failed.cause.record(),
                        "an OAuth client is not used: whose it is cannot be asked"
                    );
                    self.disable_client(n);
                    first_failure.get_or_insert(failed);
                }
                Err(failed) => return Err(failed),
            }
        }
        match first_failure {
            Some(failed) if organizations.is_empty() => Err(failed),
            _ => Ok(organizations),
        }
    }

    async fn organization(&self, client: usize, deadline: Timestamp) -> Result<Option<PlatformId>, CallError> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Organization {
            #[serde(deserialize_with = "optional_id")]
            id: Option<PlatformId>,
        }
        #[derive(Deserialize)]
        struct TokenInfo {
            organization: Option<Organization>,
        }
        let call = RequestSpec::get(Operation::Probe, ApiPath::new("/api/v2/tokens/me"), RetrySafety::Idempotent);
        let call = RequestSpec { tried: ExcludedClients::only(client), ..call };
        let silent = |failed: &CallError| {
            let refusal = failed.cause.refusal();
            refusal.is_some_and(|refusal| matches!(refusal.status, StatusCode::FORBIDDEN | StatusCode::NOT_FOUND))
        };
        match self.call::<TokenInfo>(&call, deadline).await {
            Ok(done) => Ok(done.value.organization.and_then(|organization| organization.id)),
            Err(failed) if silent(&failed) => Ok(None),
            Err(failed) => Err(failed),
        }
    }

    /// Reads something with the access token, once. Every answer is a good one.
    pub async fn probe_get(&self, path: ApiPath, deadline: Timestamp) -> Result<ProbeResponse, AttemptError> {
        let call = RequestSpec::get(Operation::Probe, path, RetrySafety::NotIfOutcomeUnknown);
        Ok(ProbeResponse::new(&self.send_unchecked(&call, deadline).await?))
    }

    /// As [`look`](Self::look), for operations that read by another method.
    pub async fn probe(
        &self,
        method: Method,
        path: ApiPath,
        body: &Value,
        deadline: Timestamp,
    ) -> Result<ProbeResponse, AttemptError> {
        let body = Bytes::from(body.to_string());
        let call = RequestSpec { method, ..RequestSpec::post(Operation::Probe, path, body, RetrySafety::NotIfOutcomeUnknown) };
        Ok(ProbeResponse::new(&self.send_unchecked(&call, deadline).await?))
    }

    /// Reads something that is open to everybody.
    pub async fn probe_unauthenticated(
        &self,
        base: &BaseUrl,
        path: &ApiPath,
        deadline: Timestamp,
    ) -> Result<ProbeResponse, AttemptError> {
        let request = Request::get(base.route(path.as_str()))
            .header(header::ACCEPT, "application/json")
            .body(Full::<Bytes>::default())
            .map_err(|error| AttemptError::NotSent(error.to_string()))?;
        Ok(ProbeResponse::new(&self.transport().send(request, deadline).await?))
    }

    /// Opens the guest socket of a deployment and closes it again, without a frame: no session begins.
    pub async fn probe_guest_socket(
        &self,
        deployment: Uuid,
        origin: &http::HeaderValue,
        deadline: Timestamp,
    ) -> Result<(), CallError> {
        let token = crate::guest::frame::SessionToken::generate();
        let knock = || async {
            self.connect_guest(deployment, origin, &token, deadline).await?.close().await;
            Ok(())
        };
        self.repeat(Operation::Probe, RetrySafety::Idempotent, deadline, knock).await.map(|done| done.value)
    }
}
