//! One connection to the database, used by one thread. It is opened on first use and reopened after
//! it breaks.

mod opening;
mod pipeline;
mod statements;

use std::{collections::HashMap, time::Duration};

use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use guestlane_runtime::{Clock, Timestamp};
use opening::{answered, open, refused, tls};
use rustls_tokio_postgres::MakeRustlsConnect;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    runtime::{Builder, Runtime},
};
use tokio_postgres::{
    AsyncMessage, Client, NoTls, Row, SimpleQueryMessage, Statement, config::SslMode,
    error::SqlState, types::ToSql,
};

use super::super::{PostgresUrl, StoreError};

/// The values that are bound to the parameters of a statement.
pub(crate) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// The clock of all time limits here. A test's clock does not control the database, so the limits
/// use real time.
static SYSTEM_CLOCK: Clock = Clock::system();

/// Time limit of opening one connection.
const CONNECT: Duration = Duration::from_secs(3);

/// How long sent data may stay unacknowledged, and how long a connection may be idle before the
/// first keepalive probe.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(4);

/// How long reconnection attempts continue before the caller gets an error.
pub(super) const RECONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause between two reconnection attempts.
const RECONNECT_DELAY: Duration = Duration::from_millis(100);

/// A connection that is opened on first use. Its thread blocks until each result arrives.
pub(crate) struct Connection {
    runtime: Runtime,
    url: PostgresUrl,
    /// Statements that run first on each new connection.
    settings: String,
    /// Time limit of one statement or pipeline.
    limit: Duration,
    open: Option<Open>,
    /// Deadline of the current operation: reconnection and retries stop then.
    give_up: Timestamp,
    /// Whether a transaction is open. A broken connection ends its transaction, so no other
    /// connection can continue it.
    in_transaction: bool,
    /// The server process of the latest connection.
    last: Option<Backend>,
}

/// The asynchronous messages of the server. Polling this stream also drives all requests of the
/// client.
type Driver = BoxStream<'static, Result<AsyncMessage, tokio_postgres::Error>>;

fn messages<S, T>(mut connection: tokio_postgres::Connection<S, T>) -> Driver
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    stream::poll_fn(move |context| connection.poll_message(context)).boxed()
}

/// A connection that is open.
struct Open {
    client: Client,
    backend: Backend,
    statements: HashMap<String, Statement>,
}

/// The server process behind a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Backend {
    pid: i32,
    started: String,
    /// The `application_name` of the connection. A pool may assign the process to another client
    /// later, whose name differs and whose work must not be terminated.
    name: String,
}

/// The result of an operation on a connection.
pub(crate) type DbResult<T> = Result<T, StoreError>;

impl Connection {
    /// Creates a connection without opening it.
    pub(crate) fn new(
        url: PostgresUrl,
        settings: impl Into<String>,
        limit: Duration,
    ) -> DbResult<Self> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| StoreError::Unreachable {
            at: url.to_string(),
            reason: error.to_string(),
        })?;
        Ok(Self {
            runtime,
            url,
            settings: settings.into(),
            limit,
            open: None,
            give_up: SYSTEM_CLOCK.monotonic() + RECONNECT_TIMEOUT,
            in_transaction: false,
            last: None,
        })
    }

    /// Sets the deadline for an operation that was requested at `asked_at`. When many operations
    /// wait for an unreachable database, none waits longer than [`RECONNECT_TIMEOUT`] in total.
    pub(super) fn asked_at(&mut self, asked_at: Timestamp) {
        self.give_up = asked_at + RECONNECT_TIMEOUT;
    }

    /// The deadline of the current operation.
    pub(super) fn deadline(&self) -> Timestamp {
        self.give_up
    }

    /// Opens the connection unless it is open. Retries until the deadline, but returns a permanent
    /// error such as a wrong password at once.
    pub(crate) fn ensure_open(&mut self) -> DbResult<()> {
        if self.in_transaction {
            let reason = "the connection was lost during a transaction".to_owned();
            return if self.is_open() {
                Ok(())
            } else {
                Err(StoreError::Unreachable {
                    at: self.url.to_string(),
                    reason,
                })
            };
        }
        loop {
            let tried = self.try_open();
            if let Err(error) = &tried
                && error.is_outage()
            {
                self.url.outage.failed(
                    &guestlane_runtime::text::display_chain(error),
                    SYSTEM_CLOCK.monotonic(),
                );
            }
            match tried {
                Err(error) if is_in_doubt(&error) && SYSTEM_CLOCK.monotonic() < self.give_up => {
                    self.runtime.block_on(SYSTEM_CLOCK.sleep(RECONNECT_DELAY));
                }
                tried => return tried,
            }
        }
    }

    /// Opens the connection unless it is open, in one attempt.
    pub(super) fn try_open(&mut self) -> DbResult<()> {
        if self.is_open() {
            return Ok(());
        }
        let opening = open(&self.url, &self.settings);
        let open = self.runtime.block_on(opening)?;
        self.last = Some(open.backend.clone());
        self.open = Some(open);
        self.url.outage.well(SYSTEM_CLOCK.monotonic());
        Ok(())
    }

    pub(super) fn is_open(&mut self) -> bool {
        if self
            .open
            .as_ref()
            .is_some_and(|open| open.client.is_closed())
        {
            self.open = None;
        }
        self.open.is_some()
    }

    /// Terminates the server process of the previous connection and opens a new one. When this
    /// returns `Ok`, everything that the previous connection wrote is committed or never will be.
    pub(super) fn terminate_previous_backend(&mut self) -> DbResult<()> {
        let before = self.last.clone();
        self.open = None;
        self.ensure_open()?;
        // A pool in front of the database may assign the same process again, which has then
        // finished the earlier work.
        let is_another = before != self.last;
        let ended = before
            .as_ref()
            .filter(|_| is_another)
            .map_or(Ok(()), |before| self.end(before));
        if ended.is_err() {
            self.last = before; // the process may still run, so the next call must terminate it
        }
        ended
    }

    fn end(&mut self, Backend { pid, started, name }: &Backend) -> DbResult<()> {
        const BACKEND: &str = "FROM pg_stat_activity WHERE pid = $1 AND backend_start::text = $2 AND application_name = $3";
        let (end, lives) = (
            format!("SELECT pg_terminate_backend(pid) {BACKEND}"),
            format!("SELECT 1 {BACKEND}"),
        );
        self.query(&end, &[pid, started, name])?;
        let give_up = SYSTEM_CLOCK.monotonic() + RECONNECT_TIMEOUT;
        while !self.query(&lives, &[pid, started, name])?.is_empty() {
            if SYSTEM_CLOCK.monotonic() > give_up {
                return Err(StoreError::Unreachable {
                    at: self.url.to_string(),
                    reason: "the server does not end the session of a lost connection".into(),
                });
            }
            self.runtime.block_on(SYSTEM_CLOCK.sleep(RECONNECT_DELAY));
        }
        Ok(())
    }

    /// The server process that the connection had when it was opened.
    pub(super) fn opened_to(&self) -> Option<Backend> {
        self.last.clone()
    }

    /// The ID of the server process that serves the connection now. The query is not prepared,
    /// because a pool may not know a prepared statement.
    pub(super) fn pid(&mut self) -> DbResult<Option<String>> {
        self.ensure_open()?;
        let Some(open) = &mut self.open else {
            return Err(StoreError::Closed);
        };
        let asking = open.client.simple_query("SELECT pg_backend_pid()");
        let rows = answered(
            &self.url,
            self.runtime
                .block_on(SYSTEM_CLOCK.timeout(self.limit, asking)),
        )?;
        let pid = |row: &SimpleQueryMessage| match row {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        };
        Ok(rows.iter().find_map(pid))
    }

    /// Drops a connection whose state is no longer known.
    pub(super) fn discard(&mut self) {
        self.open = None;
    }
}

/// One of several statements that are sent together.
pub(super) enum Step<'a> {
    /// A statement without parameters or rows.
    Plain(&'a str),
    /// A prepared statement with its parameters.
    Query(&'a str, Params<'a>),
}

impl Open {
    /// Sends one step. Its statement has been prepared unless it is [`Step::Plain`].
    async fn send(&self, step: &Step<'_>) -> Result<Vec<Row>, tokio_postgres::Error> {
        match step {
            Step::Plain(sql) => self.client.batch_execute(sql).await.map(|()| Vec::new()),
            Step::Query(sql, params) => match self.statements.get(*sql) {
                Some(statement) => self.client.query(statement, params).await,
                None => self.client.query(*sql, params).await,
            },
        }
    }

    async fn statement(&mut self, sql: &str) -> Result<Statement, tokio_postgres::Error> {
        if let Some(known) = self.statements.get(sql) {
            return Ok(known.clone());
        }
        let statement = self.client.prepare(sql).await?;
        self.statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

/// Opens a connection and returns its client and driver.
pub(super) async fn connect(url: &PostgresUrl) -> DbResult<(Client, Driver)> {
    let unreachable = |reason: String| StoreError::Unreachable {
        at: url.to_string(),
        reason,
    };
    let login = url.login();
    let mut config = login.config.clone();
    // The URL's limits and the limits here are both upper bounds; the shorter one applies.
    let at_most =
        |given: Option<&Duration>, ours: Duration| given.map_or(ours, |given| ours.min(*given));
    let connect_timeout = at_most(config.get_connect_timeout(), CONNECT);
    let silence = at_most(config.get_tcp_user_timeout(), KEEPALIVE_TIMEOUT);
    let idle = config.get_keepalives_idle().min(KEEPALIVE_TIMEOUT);
    let interval = config
        .get_keepalives_interval()
        .unwrap_or(KEEPALIVE_TIMEOUT)
        .min(KEEPALIVE_TIMEOUT / 2);
    config
        .connect_timeout(connect_timeout)
        .tcp_user_timeout(silence)
        .keepalives_idle(idle)
        .keepalives_interval(interval);
    if config.get_application_name().is_none() {
        config.application_name(format!("guestlane {:08x}", fastrand::u32(..)));
    }
    let opened = if config.get_ssl_mode() == SslMode::Disable {
        let connecting = SYSTEM_CLOCK
            .timeout(2 * CONNECT, config.connect(NoTls))
            .await;
        connecting.map(|opened| opened.map(|(client, driver)| (client, messages(driver))))
    } else {
        let tls = MakeRustlsConnect::new(tls(url, &login)?);
        let connecting = SYSTEM_CLOCK.timeout(2 * CONNECT, config.connect(tls)).await;
        connecting.map(|opened| opened.map(|(client, driver)| (client, messages(driver))))
    };
    match opened {
        Ok(Ok(open)) => Ok(open),
        Ok(Err(error)) => Err(refused(url, error)),
        Err(error) => Err(unreachable(error.to_string())),
    }
}

/// Whether it is unknown if the database executed the statement (for a `COMMIT`: an in-doubt
/// commit).
pub(super) fn is_in_doubt(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Unreachable { .. } | StoreError::Postgres { lost: true, .. }
    )
}

/// Whether a retry may succeed: the connection broke, or another transaction was in conflict.
pub(super) fn is_transient(error: &StoreError) -> bool {
    let ways = [
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::LOCK_NOT_AVAILABLE,
    ];
    is_in_doubt(error)
        || matches!(error, StoreError::Postgres { code: Some(code), .. } if ways.iter().any(|way| way.code() == code))
}
