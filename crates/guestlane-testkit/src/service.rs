//! The test harness: a simulated platform, a service, and API keys for it.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use guestlane::{RetryPolicy, SessionEngine, StorageConfig};
use guestlane_core::api_key::{ApiKey, Scope, Scopes, StoredApiKey};
use guestlane_runtime::{
    Clock, ManualClock, TlsRoots,
    http_client::{HttpClient, HttpResponse},
};
use guestlane_server::{Service, ServiceSettings, server::Server};
use guestlane_sim::{Options, Simulator};
use http::{Method, Request};
use http_body_util::Full;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
};

use crate::config::engine_config;
pub use crate::platform::SALES;

/// A simulated platform, and a service with an API key for each scope.
pub struct TestService {
    /// The simulator.
    pub sim: Simulator,
    /// The engine behind the service.
    pub engine: Arc<SessionEngine>,
    /// The URL of the service, without a path.
    pub address: String,
    /// The URL of the metrics on their own address; empty without one.
    pub metrics: String,
    /// The state directory.
    pub directory: TempDir,
    keys: HashMap<Scope, String>,
    client: HttpClient,
    end: Mutex<Option<oneshot::Sender<()>>>,
    serving: Option<JoinHandle<std::io::Result<()>>>,
}

/// Returns settings that listen on a free port of this machine.
pub fn settings() -> ServiceSettings {
    let any = "127.0.0.1:0".parse().unwrap();
    ServiceSettings {
        listen: any,
        metrics: Some(any),
        tls: None,
        key_rate: None,
        max_sessions: 1024,
        behind_proxy: false,
        drain: Duration::ZERO,
    }
}

/// Selects the cryptography of this process, as the executable does.
pub fn crypto() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

impl TestService {
    /// Starts a service with the default settings.
    pub async fn new() -> Self {
        Self::with(|_| {}, settings()).await
    }

    /// Starts a service with changed options of the simulator, and these settings.
    pub async fn with(platform: impl FnOnce(&mut Options), settings: ServiceSettings) -> Self {
        crypto();
        let mut options = Options {
            quota: None,
            ..Options::default()
        };
        platform(&mut options);
        let client = options.clients[0].clone();
        let sim = Simulator::start(options).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let engine = Self::engine(&sim, &directory, &client, Clock::system()).await;
        Self::serve(sim, engine, directory, settings).await
    }

    /// Starts a service with a manual clock.
    pub async fn at(clock: &ManualClock) -> Self {
        crypto();
        let options = Options {
            quota: None,
            clock: clock.clone().into(),
            ..Options::default()
        };
        let client = options.clients[0].clone();
        let sim = Simulator::start(options).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let engine = Self::engine(&sim, &directory, &client, clock.clone().into()).await;
        Self::serve(sim, engine, directory, settings()).await
    }

    /// Executes SQL directly on the store.
    pub fn sql(&self, sql: &str) {
        let store = rusqlite::Connection::open(self.directory.path().join("guestlane.db")).unwrap();
        store.execute_batch(sql).unwrap();
    }

    async fn engine(
        sim: &Simulator,
        directory: &TempDir,
        client: &guestlane_sim::OAuthClient,
        clock: Clock,
    ) -> Arc<SessionEngine> {
        let storage = StorageConfig::in_directory(directory.path());
        let mut config = engine_config(sim, client.clone(), storage, None);
        config.call_policy.retry = RetryPolicy {
            retries: 3,
            min: Duration::from_millis(5),
            max: Duration::from_millis(20),
        };
        let engine = SessionEngine::open(config, clock).await.unwrap();
        sim.register_guest_keys(&engine.keyring().jwks(engine.clock().now()).to_string())
            .unwrap();
        engine
    }

    async fn serve(
        sim: Simulator,
        engine: Arc<SessionEngine>,
        directory: TempDir,
        settings: ServiceSettings,
    ) -> Self {
        let mut keys = HashMap::new();
        for scope in Scope::ALL {
            keys.insert(scope, new_key(&engine, scope.name(), |_| {}).await);
        }
        let service = Service::open(Arc::clone(&engine), &settings, Some(SALES.parse().unwrap()))
            .await
            .unwrap();
        let listening = Server::bind(service, &settings).await.unwrap();
        let scheme = if settings.tls.is_some() {
            "https"
        } else {
            "http"
        };
        let address = format!("{scheme}://{}", listening.address().unwrap());
        let metrics = listening
            .metrics_address()
            .unwrap()
            .map(|address| format!("http://{address}/metrics"))
            .unwrap_or_default();
        let (end, shut_down) = oneshot::channel::<()>();
        let serving = tokio::spawn(listening.serve(async move {
            let _ = shut_down.await;
        }));
        let client =
            HttpClient::new(Clock::system(), Duration::from_secs(60), &TlsRoots::System).unwrap();
        Self {
            sim,
            engine,
            address,
            metrics,
            directory,
            keys,
            client,
            end: Mutex::new(Some(end)),
            serving: Some(serving),
        }
    }

    /// Returns the API key that has this scope.
    pub fn key(&self, scope: Scope) -> &str {
        &self.keys[&scope]
    }

    /// Replaces the faults of the simulator, such as `contact:500:first=1`.
    pub fn faults(&self, specs: &[&str]) {
        self.sim
            .set_faults(specs.iter().map(|spec| spec.parse().unwrap()).collect());
    }

    /// Sends a request without adding headers.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> HttpResponse {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let clock = Clock::system();
        self.client
            .send(request, clock.now() + Duration::from_secs(60))
            .await
            .unwrap()
    }

    /// Gets a path with the key that reads sessions.
    pub async fn get(&self, path: &str) -> HttpResponse {
        self.send(
            Method::GET,
            path,
            &[("authorization", &bearer(self.key(Scope::SessionsRead)))],
            "",
        )
        .await
    }

    /// Posts JSON with the key of this scope.
    pub async fn post(
        &self,
        path: &str,
        scope: Scope,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> HttpResponse {
        let authorization = bearer(self.key(scope));
        let common = [
            ("authorization", authorization.as_str()),
            ("content-type", "application/json"),
        ];
        self.send(
            Method::POST,
            path,
            &[&common, headers].concat(),
            body.to_string(),
        )
        .await
    }

    /// Creates a session.
    pub async fn create(&self, headers: &[(&str, &str)], body: &Value) -> HttpResponse {
        self.post("/v1/sessions", Scope::SessionsWrite, headers, body)
            .await
    }

    /// Starts the shutdown of the service.
    pub fn start_shutdown(&self) {
        drop(self.end.lock().unwrap().take());
    }

    /// Shuts the service down, and waits until it has ended.
    pub async fn shut_down(&mut self) {
        self.start_shutdown();
        self.serving.take().unwrap().await.unwrap().unwrap();
    }

    /// Waits until the condition holds. The time limit of the test bounds the wait.
    pub async fn until(&self, mut condition: impl AsyncFnMut(&Self) -> bool) {
        while !condition(self).await {
            self.engine.clock().sleep(Duration::from_millis(10)).await;
        }
    }

    /// Asserts that each guest has one contact and one conversation.
    pub fn assert_each_guest_once(&self, guests: u64) {
        let state = self.sim.state();
        assert_eq!((state.contacts, state.conversations), (guests, guests));
        assert!(state.duplicates.guests.is_empty());
    }

    /// Returns the address of the service.
    pub fn socket_address(&self) -> SocketAddr {
        self.address
            .strip_prefix("http://")
            .unwrap()
            .parse()
            .unwrap()
    }

    /// Sends bytes that may be no HTTP, and returns all that comes back.
    pub async fn raw(&self, text: &str) -> String {
        let host = self.address.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(host).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// Adds an API key and returns its text.
pub async fn new_key(
    engine: &SessionEngine,
    scopes: &str,
    change: impl FnOnce(&mut StoredApiKey),
) -> String {
    let key = ApiKey::generate().unwrap();
    let hash_key = engine.api_key_hash().await.unwrap();
    let mut stored = StoredApiKey::new(
        &key,
        &hash_key,
        "test",
        scopes.parse::<Scopes>().unwrap(),
        engine.clock().now(),
    );
    change(&mut stored);
    engine.store().add_api_key(stored, None).await.unwrap();
    key.expose().to_owned()
}

/// Returns the value of the header `Authorization` for a key.
pub fn bearer(key: &str) -> String {
    format!("Bearer {key}")
}

/// Returns the JSON body of a response.
pub fn json(answer: &HttpResponse) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

/// Returns the value of a header, or an empty text.
pub fn header<'a>(answer: &'a HttpResponse, name: &str) -> &'a str {
    answer
        .headers
        .get(name)
        .map(|value| value.to_str().unwrap())
        .unwrap_or_default()
}
