//! The test harness: a simulated platform, a service, and API keys for it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use guestlane::{
    CallPolicy, Credentials, Endpoints, EngineConfig, OAuthClient, RetryPolicy, SessionEngine,
    StorageConfig, TokenRequestAuth, WebhookConfig, messaging::MessagingConfig,
};
use guestlane_core::{
    api_key::{ApiKey, Scope, Scopes, StoredApiKey},
    surface::Surface,
    token::RotationPolicy,
};
use guestlane_runtime::http_client::{HttpClient, HttpResponse};
use guestlane_runtime::{Clock, ManualClock, TlsRoots, ssrf::EgressPolicy};
use guestlane_server::ServiceSettings;
use guestlane_server::{Service, server::Server};
use guestlane_sim::{Options, Simulator};
use http::{Method, Request};
use http_body_util::Full;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle};

pub(crate) const SALES: &str = "5e0c0000-0000-4000-8000-000000000001";

pub(crate) struct TestService {
    pub(crate) sim: Simulator,
    pub(crate) engine: Arc<SessionEngine>,
    pub(crate) address: String,
    pub(crate) metrics: String,
    pub(crate) directory: TempDir,
    keys: HashMap<Scope, String>,
    client: HttpClient,
    end: Mutex<Option<oneshot::Sender<()>>>,
    serving: Option<JoinHandle<std::io::Result<()>>>,
}

pub(crate) fn settings() -> ServiceSettings {
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

pub(crate) fn crypto() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

impl TestService {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}, settings()).await
    }

    pub(crate) async fn with(
        platform: impl FnOnce(&mut Options),
        settings: ServiceSettings,
    ) -> Self {
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
    pub(crate) async fn at(clock: &ManualClock) -> Self {
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
    pub(crate) fn sql(&self, sql: &str) {
        let store = rusqlite::Connection::open(self.directory.path().join("guestlane.db")).unwrap();
        store.execute_batch(sql).unwrap();
    }

    async fn engine(
        sim: &Simulator,
        directory: &TempDir,
        client: &guestlane_sim::OAuthClient,
        clock: Clock,
    ) -> Arc<SessionEngine> {
        let config = EngineConfig {
            credentials: Credentials {
                hosts: Endpoints::one_origin(sim.base_url().parse().unwrap()),
                sign_in: TokenRequestAuth::Form,
                clients: vec![OAuthClient {
                    id: client.id.clone(),
                    secret: client.secret.clone().into(),
                }],
                trust: TlsRoots::System,
            },
            surface: Surface::Rest,
            messaging: MessagingConfig::default(),
            call_policy: CallPolicy {
                quota: None,
                retry: RetryPolicy {
                    retries: 3,
                    min: Duration::from_millis(5),
                    max: Duration::from_millis(20),
                },
                ..CallPolicy::default()
            },
            deadline: Duration::from_secs(60),
            storage: StorageConfig::in_directory(directory.path()),
            retention: None,
            key_rotation: RotationPolicy::default(),
            webhooks: Some(WebhookConfig {
                urls: vec![sim.crm_url().parse().unwrap()],
                secret: None,
                egress_policy: EgressPolicy::Any,
                tls_roots: TlsRoots::System,
            }),
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

    pub(crate) fn key(&self, scope: Scope) -> &str {
        &self.keys[&scope]
    }

    pub(crate) fn faults(&self, specs: &[&str]) {
        self.sim
            .set_faults(specs.iter().map(|spec| spec.parse().unwrap()).collect());
    }

    /// Sends a request without adding headers.
    pub(crate) async fn send(
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

    pub(crate) async fn get(&self, path: &str) -> HttpResponse {
        self.send(
            Method::GET,
            path,
            &[("authorization", &bearer(self.key(Scope::SessionsRead)))],
            "",
        )
        .await
    }

    pub(crate) async fn post(
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
    pub(crate) async fn create(&self, headers: &[(&str, &str)], body: &Value) -> HttpResponse {
        self.post("/v1/sessions", Scope::SessionsWrite, headers, body)
            .await
    }

    /// Starts the shutdown of the service.
    pub(crate) fn start_shutdown(&self) {
        drop(self.end.lock().unwrap().take());
    }

    pub(crate) async fn shut_down(&mut self) {
        self.start_shutdown();
        self.serving.take().unwrap().await.unwrap().unwrap();
    }

    /// Waits until the condition holds. The time limit of the test bounds the wait.
    pub(crate) async fn until(&self, mut condition: impl AsyncFnMut(&Self) -> bool) {
        while !condition(self).await {
            self.engine.clock().sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) fn assert_each_guest_once(&self, guests: u64) {
        let state = self.sim.state();
        assert_eq!((state.contacts, state.conversations), (guests, guests));
        assert!(state.duplicates.guests.is_empty());
    }
}

pub(crate) async fn new_key(
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

pub(crate) fn bearer(key: &str) -> String {
    format!("Bearer {key}")
}

pub(crate) fn json(answer: &HttpResponse) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

pub(crate) fn header<'a>(answer: &'a HttpResponse, name: &str) -> &'a str {
    answer
        .headers
        .get(name)
        .map(|value| value.to_str().unwrap())
        .unwrap_or_default()
}
