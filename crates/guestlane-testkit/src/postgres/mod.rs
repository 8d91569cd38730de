//! PostgreSQL servers for tests.
//!
//! `GUESTLANE_TEST_POSTGRES_URL` names an existing server, in which each test creates its own
//! schema. Without it, a private server is started from the installed binaries on its own port, and
//! ends with the process that started it. Without binaries the tests fail; `ci/test` installs them.

mod lock;
mod pool;
mod proxy;
mod server;

use std::sync::{
    OnceLock,
    atomic::{AtomicUsize, Ordering},
};

pub use lock::TableLock;
pub use pool::Pool;
pub use proxy::Proxy;
pub use server::Server;

/// Returns the URL of an empty schema that no other test uses.
pub fn new_schema() -> String {
    static SHARED: OnceLock<String> = OnceLock::new();
    let base = SHARED.get_or_init(|| match named() {
        Some(url) => url,
        None => {
            let server = Box::leak(Box::new(Server::start())); // runs until the process ends
            server.url()
        }
    });
    schema_in(base)
}

/// Like [`new_schema`], in a database that the caller manages.
pub fn schema_in(base: &str) -> String {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let name = format!(
        "test_{}_{}",
        std::process::id(),
        NUMBER.fetch_add(1, Ordering::Relaxed)
    );
    execute(base, &format!("CREATE SCHEMA {name}"));
    in_schema(base, &name)
}

/// Returns the URL of an existing schema.
fn in_schema(base: &str, name: &str) -> String {
    let joined = if base.contains('?') { '&' } else { '?' };
    format!("{base}{joined}options=-csearch_path%3D{name}")
}

/// Runs statements without parameters directly on the database, without the product.
pub fn execute(url: &str, sql: &str) {
    ask(url, async |client| client.batch_execute(sql).await.unwrap());
}

/// Returns the first column of each row, as text.
pub fn column(url: &str, sql: &str) -> Vec<String> {
    let sql = format!("SELECT coalesce(c::text, '') FROM ({sql}) AS asked (c)");
    ask(url, async |client| {
        client
            .query(&sql, &[])
            .await
            .unwrap()
            .iter()
            .map(|row| row.get(0))
            .collect()
    })
}

fn ask<T: Send>(url: &str, work: impl AsyncFnOnce(&tokio_postgres::Client) -> T + Send) -> T {
    on_a_thread(|| async {
        let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls)
            .await
            .unwrap();
        let connection = tokio::spawn(connection);
        let answer = work(&client).await;
        drop(client);
        let _ = connection.await;
        answer
    })
}

/// Runs `work` on its own thread and runtime, because the caller may already be within a runtime.
fn on_a_thread<T: Send, F: Future<Output = T>>(work: impl FnOnce() -> F + Send) -> T {
    std::thread::scope(|scope| {
        let worked = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(work())
        });
        worked.join().unwrap()
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one setting of tests, read here alone"
)]
fn named() -> Option<String> {
    std::env::var("GUESTLANE_TEST_POSTGRES_URL")
        .ok()
        .filter(|url| !url.is_empty())
}
