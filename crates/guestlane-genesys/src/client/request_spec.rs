//! What a call sends, and whether it may be repeated.

use bytes::Bytes;
use http::Method;

use crate::{error::Operation, foreign::ApiPath, rate_limit::ExcludedClients, retry::RetrySafety};

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

/// Serializes a request body. Structs of strings always serialize, so there is no error case.
pub(crate) fn to_json(value: &impl serde::Serialize) -> bytes::Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}
