//! What a call sends, and whether it may be repeated.

use bytes::Bytes;
use http::Method;

use crate::{error::Operation, foreign::ApiPath, rate_limit::ExcludedClients};

/// A request that every attempt sends with the same bytes. It does not implement `Debug`, because
/// the body may hold a guest token.
pub(crate) struct RequestSpec {
    pub(crate) operation: Operation,
    pub(crate) method: Method,
    pub(crate) path: ApiPath,
    pub(crate) idempotency_key: Option<String>,
    pub(crate) body: Bytes,
    pub(crate) repeat: RetrySafety,
    pub(crate) tried: ExcludedClients,
}

/// Whether a call may be retried after an attempt of unknown outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RetrySafety {
    /// Retry: the call carries an idempotency key, finds an earlier result, or changes nothing.
    Idempotent,
    /// Do not retry: a second request would take effect twice.
    NotIfOutcomeUnknown,
    /// Retry, and also treat 404 as "not visible yet".
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

    pub(crate) fn post(
        operation: Operation,
        path: ApiPath,
        body: Bytes,
        repeat: RetrySafety,
    ) -> Self {
        Self {
            operation,
            method: Method::POST,
            path,
            idempotency_key: None,
            body,
            repeat,
            tried: ExcludedClients::default(),
        }
    }
}
