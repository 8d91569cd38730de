//! Reads a response, logs the exchange without its secrets, and classifies transport errors.

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use rustix::io::Errno;
use tracing::trace;

use super::{CORRELATION_HEADER, HttpResponse, MAX_RESPONSE_BYTES, TransportError};
use crate::{redaction, text::one_line, tls_error};

/// Reads the complete response.
pub(super) async fn read(
    response: Response<hyper::body::Incoming>,
) -> Result<HttpResponse, TransportError> {
    let (head, body) = Response::into_parts(response);
    let body = Limited::new(body, MAX_RESPONSE_BYTES)
        .collect()
        .await
        .map_err(|error| {
            TransportError::Lost(one_line(&format!(
                "the response ended before it was complete: {error}"
            )))
        })?;
    Ok(HttpResponse {
        status: head.status,
        headers: head.headers,
        body: body.to_bytes(),
    })
}

/// The parts of an exchange that may appear in a log (requirement R18, docs/requirements.md).
pub(super) struct RedactedExchange {
    method: Method,
    path: String,
    pub(super) body: String,
}

impl RedactedExchange {
    pub(super) fn of(request: &Request<Full<Bytes>>) -> Self {
        // `Full` yields its single chunk without waiting.
        let body = request
            .body()
            .clone()
            .collect()
            .now_or_never()
            .and_then(Result::ok)
            .map(|body| body.to_bytes());
        let body = redaction::redacted(&body.unwrap_or_default());
        Self {
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            body,
        }
    }

    pub(super) fn log(self, answer: &Result<HttpResponse, TransportError>) {
        let Self { method, path, body } = self;
        match answer {
            Ok(answer) => {
                let status = answer.status.as_u16();
                let correlation_id = answer.headers.get(CORRELATION_HEADER);
                let correlation_id = correlation_id.and_then(|id| id.to_str().ok()).map(one_line);
                let answer = redaction::redacted(&answer.body);
                trace!(%method, path, request = body, status, answer, correlation_id, "exchange");
            }
            Err(no_answer) => trace!(%method, path, request = body, %no_answer, "exchange"),
        }
    }
}

/// Whether the local machine could not begin to connect for lack of a file descriptor, a port or
/// memory.
pub(super) fn is_local(error: &(dyn std::error::Error + 'static)) -> bool {
    const WANTING: [Errno; 5] = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::ADDRNOTAVAIL,
        Errno::NOMEM,
        Errno::NOBUFS,
    ];
    let mut cause = Some(error);
    while let Some(error) = cause {
        let io = error.downcast_ref::<std::io::Error>();
        if io
            .and_then(Errno::from_io_error)
            .is_some_and(|errno| WANTING.contains(&errno))
        {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Formats an error and its causes on one line, because hyper's own message says only «client
/// error». The line may contain data of the peer, a certificate's names for example. A TLS failure
/// becomes one sentence.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    if let Some(sentence) = tls_error::explain(error) {
        return sentence;
    }
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line = format!("{line}: {error}");
        cause = error.source();
    }
    one_line(&line)
}
