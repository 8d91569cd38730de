//! The floor program: one signature and one verification (RS256), and three requests for each
//! session, on kept-alive connections. It keeps nothing, retries nothing and checks only the status.

use std::{
    io::Read,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        KeyPair, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::{
    CONCURRENCY,
    figures::{Figures, Latency},
};

/// Where the platform is, as `guestlane simulate --json` prints it, and the number of sessions.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Task {
    base_url: String,
    client_id: String,
    client_secret: String,
    queue_ids: Vec<Uuid>,
    sessions: u64,
}

pub(crate) fn main() {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).unwrap();
    let task: Task = serde_json::from_str(&text).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let figures = runtime.block_on(run(task));
    println!("{}", serde_json::to_string(&figures).unwrap());
}

/// What all connections share.
struct Floor {
    host: String,
    token: String,
    queue: Uuid,
    key: RsaKeyPair,
    public_key: ParsedPublicKey,
    /// `base64url(header).`
    prefix: String,
    next: AtomicU64,
    sessions: u64,
    latencies: Mutex<Vec<Duration>>,
}

async fn run(task: Task) -> Figures {
    let host = task.base_url.strip_prefix("http://").unwrap().to_owned();
    let mut connection = connect(&host).await;
    let form = format!(
        "grant_type=client_credentials&client_id={}&client_secret={}",
        task.client_id, task.client_secret
    );
    let request = Request::post("/api/v2/oauth/token")
        .header(header::HOST, &host)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Full::from(form))
        .unwrap();
    let (status, body) = send(&mut connection, request).await;
    assert_eq!(status, StatusCode::OK);
    let body: Value = serde_json::from_slice(&body).unwrap();
    let key = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let floor = Arc::new(Floor {
        token: format!("Bearer {}", body["access_token"].as_str().unwrap()),
        queue: task.queue_ids[0],
        public_key: ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public_key()).unwrap(),
        key,
        prefix: BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","kid":"floor"}"#) + ".",
        next: AtomicU64::new(0),
        sessions: task.sessions,
        latencies: Mutex::default(),
        host,
    });
    let before = processor_time();
    let began = Instant::now();
    let running: Vec<_> = (0..CONCURRENCY)
        .map(|_| tokio::spawn(Arc::clone(&floor).work()))
        .collect();
    for task in running {
        task.await.unwrap();
    }
    let seconds = began.elapsed().as_secs_f64();
    let cpu = processor_time() - before;
    let mut latencies = std::mem::take(&mut *floor.latencies.lock().unwrap());
    assert_eq!(latencies.len() as u64, floor.sessions);
    latencies.sort_unstable();
    let at = |share: f64| {
        let rank = (latencies.len() as f64 * share).ceil() as usize;
        latencies[rank.max(1) - 1].as_secs_f64() * 1000.0
    };
    Figures {
        sessions_per_second: floor.sessions as f64 / seconds,
        cpu_ms_per_session: cpu.as_secs_f64() * 1000.0 / floor.sessions as f64,
        latency_ms: Latency {
            p50: at(0.5),
            p99: at(0.99),
        },
    }
}

impl Floor {
    /// Creates sessions on one connection, until there are enough.
    async fn work(self: Arc<Self>) {
        let mut connection = connect(&self.host).await;
        let mut latencies = Vec::new();
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.sessions {
                break;
            }
            let began = Instant::now();
            self.create(&mut connection, number).await;
            latencies.push(began.elapsed());
        }
        self.latencies.lock().unwrap().append(&mut latencies);
    }

    async fn create(&self, connection: &mut SendRequest<Full<Bytes>>, number: u64) {
        let guest = format!("guest-{number}");
        let token = self.sign(&guest);
        let contact = json!({
            "type": "webchat", "address": format!("guest-{guest}"), "externalContactId": guest,
            "customAttributes": {"guestToken": token, "source": "web-portal", "tier": "premium"},
        });
        let key = Uuid::new_v4();
        let path = "/api/v2/externalcontacts/contacts";
        self.call(connection, path, &format!("{key}-contact"), &contact)
            .await;
        let conversation = json!({
            "contactId": format!("guest-{guest}"),
            "routingData": {"queueId": self.queue, "skillRequirements": []},
            "customAttributes": {"sessionToken": token, "routingTarget": self.queue},
        });
        let path = "/api/v2/conversations/messaging";
        self.call(
            connection,
            path,
            &format!("{key}-conversation"),
            &conversation,
        )
        .await;
        let event = json!({"type": "webchat.session.created", "data": {"guestId": guest}});
        let request = self
            .request("/crm/events")
            .header("webhook-id", format!("msg_{key}"))
            .body(event.to_string().into())
            .unwrap();
        let (status, _) = send(connection, request).await;
        assert!(status.is_success(), "{status}");
    }

    fn request(&self, path: &str) -> http::request::Builder {
        Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(header::HOST, &self.host)
            .header(header::CONTENT_TYPE, "application/json")
    }

    async fn call(
        &self,
        connection: &mut SendRequest<Full<Bytes>>,
        path: &str,
        key: &str,
        body: &Value,
    ) {
        let request = self
            .request(path)
            .header(header::AUTHORIZATION, &self.token)
            .header("idempotency-key", key)
            .body(body.to_string().into())
            .unwrap();
        let (status, body) = send(connection, request).await;
        assert!(status.is_success(), "{status}");
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert!(answer["id"].is_string());
    }

    /// Signs a guest token and verifies it.
    fn sign(&self, guest: &str) -> String {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let claims = json!({
            "guestId": guest, "source": "web-portal", "tier": "premium",
            "iat": now, "exp": now + 300, "jti": Uuid::new_v4(),
        });
        let mut token = self.prefix.clone();
        BASE64_URL_SAFE_NO_PAD.encode_string(claims.to_string(), &mut token);
        let mut signature = [0; 256];
        self.key
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                token.as_bytes(),
                &mut signature,
            )
            .unwrap();
        self.public_key
            .verify_sig(token.as_bytes(), &signature)
            .unwrap();
        token.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        token
    }
}

async fn connect(host: &str) -> SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(host).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

async fn send(
    connection: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> (StatusCode, Bytes) {
    connection.ready().await.unwrap();
    let response = connection.send_request(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, body)
}

fn processor_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(micros.try_into().unwrap())
}
