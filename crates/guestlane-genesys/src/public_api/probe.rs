//! Read-only probe requests, for diagnosis and for the organization's ID. Nothing here changes
//! state on the platform.

use std::collections::BTreeMap;

use bytes::Bytes;
use guestlane_runtime::{http_client::HttpResponse, text::one_line};
use http::{Method, Request, StatusCode, header};
use http_body_util::Full;
use serde::Deserialize;
use serde_json::Value;
use tracing::warn;
use uuid::Uuid;

use crate::{
    base_url::BaseUrl,
    call_context::CallContext,
    client::{GenesysClient, RequestSpec},
    error::{AttemptError, CallError, Operation},
    foreign::{ApiPath, CorrelationId, ErrorCode, PlatformId, PlatformMessage, optional_id},
    rate_limit::ExcludedClients,
    response::PlatformResponse,
    retry::RetrySafety,
};

/// The response to a probe request.
#[derive(Debug, Clone)]
pub struct ProbeResponse {
    /// HTTP status, whatever it is.
    pub status: StatusCode,
    /// The platform's error code.
    pub code: ErrorCode,
    /// The platform's error message.
    pub message: PlatformMessage,
    /// Correlation ID to quote to the platform's support.
    pub correlation_id: Option<CorrelationId>,
    /// Response headers, such as `date` and `inin-ratelimit-…`.
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
            headers: answer
                .headers
                .iter()
                .map(|(name, value)| (name.to_string(), text(value)))
                .collect(),
            body: serde_json::from_slice(&answer.body).unwrap_or_default(),
        }
    }
}

impl GenesysClient {
    /// Returns the organization ID of each OAuth client, by client ID; `None` if the platform does
    /// not return it. Disables each client that cannot authenticate; the pool still uses it if it
    /// is the only one.
    ///
    /// # Errors
    ///
    /// Fails if no client can authenticate, or if a request fails for another reason.
    pub async fn fetch_organizations(
        &self,
        context: &CallContext,
    ) -> Result<Vec<(String, Option<PlatformId>)>, CallError> {
        let clients = self.clients();
        let ask = clients
            .iter()
            .enumerate()
            .map(async |(n, client)| (n, client, self.organization(n, context).await));
        let mut organizations = Vec::new();
        let mut first_failure = None;
        for (n, client, answer) in futures_util::future::join_all(ask).await {
            match answer {
                Ok(organization) => organizations.push((client.client_id.clone(), organization)),
                Err(failed) if failed.cause.is_authorization_failure() => {
                    warn!(
                        client = client.client_id,
                        error = failed.cause.redacted(),
                        "failed to determine the organization of an OAuth client; disabling it until restart"
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

    async fn organization(
        &self,
        client: usize,
        context: &CallContext,
    ) -> Result<Option<PlatformId>, CallError> {
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
        let call = RequestSpec::get(
            Operation::Probe,
            ApiPath::new("/api/v2/tokens/me"),
            RetrySafety::Idempotent,
        );
        let call = RequestSpec {
            tried: ExcludedClients::only(client),
            ..call
        };
        let silent = |failed: &CallError| {
            let refusal = failed.cause.refusal();
            refusal.is_some_and(|refusal| {
                matches!(
                    refusal.status,
                    StatusCode::FORBIDDEN | StatusCode::NOT_FOUND
                )
            })
        };
        match self.call::<TokenInfo>(&call, context).await {
            Ok(done) => Ok(done
                .value
                .organization
                .and_then(|organization| organization.id)),
            Err(failed) if silent(&failed) => Ok(None),
            Err(failed) => Err(failed),
        }
    }

    /// Sends one GET request with the access token, without retries. Every status is a successful
    /// result.
    ///
    /// # Errors
    ///
    /// Fails if there is no response before `deadline`.
    pub async fn probe_get(
        &self,
        path: ApiPath,
        context: &CallContext,
    ) -> Result<ProbeResponse, AttemptError> {
        let call = RequestSpec::get(Operation::Probe, path, RetrySafety::NotIfOutcomeUnknown);
        Ok(ProbeResponse::new(
            &self.send_unchecked(&call, context).await?,
        ))
    }

    /// Like [`probe_get`](Self::probe_get), for read operations that use another method.
    ///
    /// # Errors
    ///
    /// Fails if there is no response before `deadline`.
    pub async fn probe(
        &self,
        method: Method,
        path: ApiPath,
        body: &Value,
        context: &CallContext,
    ) -> Result<ProbeResponse, AttemptError> {
        let body = Bytes::from(body.to_string());
        let call = RequestSpec {
            method,
            ..RequestSpec::post(
                Operation::Probe,
                path,
                body,
                RetrySafety::NotIfOutcomeUnknown,
            )
        };
        Ok(ProbeResponse::new(
            &self.send_unchecked(&call, context).await?,
        ))
    }

    /// Sends one GET request without an access token.
    ///
    /// # Errors
    ///
    /// Fails if there is no response before `deadline`.
    pub async fn probe_unauthenticated(
        &self,
        base: &BaseUrl,
        path: &ApiPath,
        context: &CallContext,
    ) -> Result<ProbeResponse, AttemptError> {
        let request = Request::get(base.route(path.as_str()))
            .header(header::ACCEPT, "application/json")
            .body(Full::<Bytes>::default())
            .map_err(|error| AttemptError::NotSent(error.to_string()))?;
        Ok(ProbeResponse::new(
            &self.transport().send(request, context.deadline).await?,
        ))
    }

    /// Opens the guest socket of a deployment and closes it without sending a frame, so that no
    /// session begins.
    ///
    /// # Errors
    ///
    /// Fails if the socket does not open before `deadline`.
    pub async fn probe_guest_socket(
        &self,
        deployment: Uuid,
        origin: &http::HeaderValue,
        context: &CallContext,
    ) -> Result<(), CallError> {
        let token = crate::guest::frame::SessionToken::generate();
        let knock = || async {
            self.connect_guest(deployment, origin, &token, context)
                .await?
                .close()
                .await;
            Ok(())
        };
        self.repeat(Operation::Probe, RetrySafety::Idempotent, context, knock)
            .await
            .map(|done| done.value)
    }
}
