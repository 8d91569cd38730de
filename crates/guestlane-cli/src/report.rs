//! Error reports and exit codes.

use guestlane_server::{diagnosis, error_pages};
use std::process::ExitCode;

use guestlane::{Error, error::ErrorCode};
use guestlane_core::{
    request::{IdempotencyKey, ValidationError},
    token::TokenError,
};
use guestlane_store::batch::RowFailure;
use serde::Serialize;

use crate::output;

/// The operation was refused or failed.
const EXIT_FAILURE: u8 = 1;
/// Wrong usage, settings or input.
pub(crate) const USAGE: u8 = 2;
/// Some rows of a batch failed.
pub(crate) const SOME_FAILED: u8 = 3;

/// An error as JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ErrorJson {
    /// The path of the page about this error code, as in the service.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    page: Option<String>,
    code: String,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    cause: String,
    fix: String,
    retryable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<String>,
}

impl From<&Error> for ErrorJson {
    fn from(error: &Error) -> Self {
        let diagnosis = diagnosis::of(error);
        Self {
            page: Some(error_pages::page_path(diagnosis.code)),
            code: diagnosis.code.name().to_owned(),
            field: diagnosis::field(error),
            cause: diagnosis.cause_for_caller(),
            message: diagnosis.message,
            fix: diagnosis.fix,
            retryable: diagnosis.code.is_retryable(),
            session_id: error.session().map(|id| id.to_string()),
            idempotency_key: None,
            correlation_id: error.correlation_id().map(str::to_owned),
        }
    }
}

impl ErrorJson {
    /// The error of a batch row, as the worker stored it.
    pub(crate) fn of_row(failure: &RowFailure) -> Self {
        let RowFailure {
            code,
            message,
            cause,
            fix,
        } = failure.clone();
        let known = ErrorCode::from_name(&code);
        Self {
            page: known.map(error_pages::page_path),
            retryable: known.is_some_and(ErrorCode::is_retryable),
            code,
            message,
            field: None,
            cause,
            fix,
            session_id: None,
            idempotency_key: None,
            correlation_id: None,
        }
    }

    /// Adds the idempotency key under which the request can be repeated.
    pub(crate) fn under(self, key: &IdempotencyKey) -> Self {
        Self {
            idempotency_key: Some(key.to_string()),
            ..self
        }
    }
}

impl From<&ValidationError> for ErrorJson {
    fn from(invalid: &ValidationError) -> Self {
        (&Error::Invalid(invalid.clone())).into()
    }
}

/// Prints the error, and returns the exit code.
pub(crate) fn report(error: &anyhow::Error, json: bool) -> ExitCode {
    if let Some(error) = error.downcast_ref::<TokenError>() {
        return report_ours(&Error::Token(error.clone()), json);
    }
    if let Some(invalid) = error.downcast_ref::<ValidationError>() {
        return report_ours(&Error::Invalid(invalid.clone()), json);
    }
    if let Some(error) = error.downcast_ref::<Error>() {
        return report_ours(error, json);
    }
    let message = format!("{error:#}");
    let data = ErrorJson {
        page: None,
        code: "failed".to_owned(),
        message: message.clone(),
        field: None,
        cause: message.clone(),
        fix: String::new(),
        retryable: false,
        session_id: None,
        idempotency_key: None,
        correlation_id: None,
    };
    print_error(data, format!("error: {message}"), json);
    ExitCode::from(EXIT_FAILURE)
}

/// Prints the error of one session with its idempotency key, which may have been generated here and
/// is needed for a retry.
pub(crate) fn report_session(error: &Error, key: &IdempotencyKey, json: bool) -> ExitCode {
    if matches!(error, Error::Invalid(_) | Error::Settings(_)) {
        // An invalid request was never recorded, so its key has no meaning.
        return report_ours(error, json);
    }
    print_error(
        ErrorJson::from(error).under(key),
        format!("{}\n  key:   {key}", text(error)),
        json,
    );
    exit_code(error)
}

fn report_ours(error: &Error, json: bool) -> ExitCode {
    print_error(ErrorJson::from(error), text(error), json);
    exit_code(error)
}

fn exit_code(error: &Error) -> ExitCode {
    ExitCode::from(if error.is_user_error() {
        USAGE
    } else {
        EXIT_FAILURE
    })
}

/// Prints the error as JSON if requested, and always as text to stderr.
fn print_error(data: ErrorJson, text: String, json: bool) {
    if json {
        output::json(&serde_json::json!({ "error": data }));
    }
    output::stderr_line(text);
}

/// Formats an error with its causes, for a log line.
pub(crate) fn with_causes(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    match error.downcast_ref::<Error>() {
        Some(error) => diagnosis::with_setting_names(error, text),
        None => text,
    }
}

/// Formats an error as message, cause and fix.
pub(crate) fn text(error: &Error) -> String {
    let diagnosis = diagnosis::of(error);
    let message = diagnosis::with_setting_names(error, error.to_string());
    let mut text = match error {
        Error::Invalid(_) => format!("error: {}", diagnosis.cause),
        Error::Settings(_) => return format!("error: {message}"),
        _ => format!("error: {message}"),
    };
    let cause = diagnosis.cause_for_caller();
    if diagnosis.code == ErrorCode::AuthFailed {
        // The cause comes first: which call needed the access token does not help the user.
        text = format!("error: {cause}\n  call:  {message}");
    } else if !matches!(error, Error::Invalid(_)) && !message.contains(&cause) {
        text.push_str(&format!("\n  cause: {cause}"));
    }
    text.push_str(&format!("\n  fix:   {}", diagnosis.fix));
    if let Some(id) = error.session() {
        text.push_str(&format!("\n  session: {id}"));
    }
    if let Some(id) = error.correlation_id().filter(|id| !text.contains(*id)) {
        text.push_str(&format!("\n  correlation id: {id}"));
    }
    text
}
