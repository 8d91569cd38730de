//! Opens a connection, and explains why one cannot be opened.

use std::collections::HashMap;

use futures_util::StreamExt;
use guestlane_runtime::tls_error;
use tokio_postgres::error::DbError;

use super::{
    super::super::{CertificateProblem, PostgresUrl, StoreError, postgres::url::Login},
    Backend, CONNECT, DbResult, Open, SYSTEM_CLOCK, connect,
};

/// Returns why no connection could be opened. An error that the server sent keeps its SQLSTATE.
pub(super) fn refused(url: &PostgresUrl, error: tokio_postgres::Error) -> StoreError {
    if let Some(said) = error.as_db_error() {
        let (message, code) = (
            said.message().to_owned(),
            Some(said.code().code().to_owned()),
        );
        return StoreError::Postgres {
            message,
            code,
            lost: !is_permanent(said),
        };
    }
    let (at, reason) = (url.to_string(), sentence(&error));
    match distrust(&error) {
        Some(distrust) => StoreError::Untrusted {
            at,
            reason,
            distrust,
        },
        None => StoreError::Unreachable { at, reason },
    }
}

/// Returns why the server's certificate was refused, or `None` for another error. A retry meets the
/// same certificate, so this error is permanent.
fn distrust(error: &tokio_postgres::Error) -> Option<CertificateProblem> {
    use rustls::CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
        NotValidYetContext,
    };
    let rustls::Error::InvalidCertificate(refused) = tls_error::find(error)? else {
        return None;
    };
    Some(match refused {
        NotValidForName | NotValidForNameContext { .. } => CertificateProblem::Name,
        Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. } => {
            CertificateProblem::Time
        }
        _ => CertificateProblem::Issuer,
    })
}

pub(super) async fn open(url: &PostgresUrl, settings: &str) -> DbResult<Open> {
    let unreachable = |reason: String| StoreError::Unreachable {
        at: url.to_string(),
        reason,
    };
    let (client, mut driver) = connect(url).await?;
    // The task ends with the connection; requests after that return an error.
    tokio::spawn(async move { while let Some(Ok(_)) = driver.next().await {} });
    let first = async {
        client.batch_execute(settings).await?;
        let whom = "SELECT pid, backend_start::text, application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()";
        let row = client.query_one(whom, &[]).await?;
        Ok::<_, tokio_postgres::Error>(Backend {
            pid: row.get(0),
            started: row.get(1),
            name: row.get(2),
        })
    };
    match SYSTEM_CLOCK.timeout(2 * CONNECT, first).await {
        Ok(Ok(backend)) => Ok(Open {
            client,
            backend,
            statements: HashMap::new(),
        }),
        Ok(Err(error)) => Err(refused(url, error)),
        Err(error) => Err(unreachable(error.to_string())),
    }
}

/// Returns the reason as a sentence, because an operator does not know the TLS library's names.
fn sentence(error: &tokio_postgres::Error) -> String {
    tls_error::explain(error).unwrap_or_else(|| guestlane_runtime::text::display_chain(error))
}

pub(super) fn tls(url: &PostgresUrl, login: &Login) -> DbResult<rustls::ClientConfig> {
    let config = login.trust.client_config(login.client.as_deref());
    config.map_err(|error| StoreError::Unreachable {
        at: url.to_string(),
        reason: tls_error::sentence(&error),
    })
}

/// Whether a retry cannot succeed: wrong user or password, missing privilege, unknown database, a
/// pool with transaction pooling, or a startup parameter that a pool rejects.
fn is_permanent(said: &DbError) -> bool {
    let code = said.code().code();
    let startup_parameter = code == "08P01" && said.message().contains("startup parameter");
    startup_parameter
        || ["28", "3D", "42"]
            .iter()
            .any(|class| code.starts_with(class))
        || code == "26000"
}

pub(super) fn answered<T>(
    url: &PostgresUrl,
    answer: Result<Result<T, tokio_postgres::Error>, guestlane_runtime::TimedOut>,
) -> DbResult<T> {
    match answer {
        Ok(answer) => {
            if answer.is_ok() {
                url.outage.well(SYSTEM_CLOCK.monotonic());
            }
            Ok(answer?)
        }
        Err(late) => {
            url.outage
                .failed(&late.to_string(), SYSTEM_CLOCK.monotonic());
            Err(StoreError::Unreachable {
                at: url.to_string(),
                reason: late.to_string(),
            })
        }
    }
}
