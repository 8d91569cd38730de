//! A test client that sends requests without validating them.

use std::time::Duration;

use aws_lc_rs::{encoding::AsDer, rand::SystemRandom, rsa::KeySize, signature};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use guestlane_runtime::{
    Clock, ManualClock, Timestamp,
    http_client::{HttpClient, HttpResponse, TransportError},
};
use guestlane_sim::{Options, Simulator};
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};

pub(crate) const SALES: &str = "5e0c0000-0000-4000-8000-000000000001";

pub(crate) struct Client {
    pub(crate) sim: Simulator,
    pub(crate) clock: ManualClock,
    transport: HttpClient,
    key: signature::RsaKeyPair,
}

impl Client {
    pub(crate) async fn new(change: impl FnOnce(&mut Options)) -> Self {
        let clock = ManualClock::new(Timestamp::from_unix_micros(1_795_361_029_000_000));
        let mut options = Options {
            clock: clock.clone().into(),
            ..Options::default()
        };
        change(&mut options);
        let sim = Simulator::start(options).await.unwrap();
        let transport = HttpClient::new(
            Clock::system(),
            Duration::from_secs(5),
            &guestlane_runtime::TlsRoots::System,
        )
        .unwrap();
        let key = signature::RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        Self {
            sim,
            clock,
            transport,
            key,
        }
    }

    pub(crate) async fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<HttpResponse, TransportError> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.sim.base_url()));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
            .unwrap();
        self.transport
            .send(request, Timestamp::from_unix_micros(i64::MAX))
            .await
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (u16, Value) {
        let answer = self.try_send(method, path, headers, body).await.unwrap();
        (
            answer.status.as_u16(),
            serde_json::from_slice(&answer.body).unwrap_or(Value::Null),
        )
    }

    /// Looks up the details of a message.
    pub(crate) async fn details(&self, bearer: &str, message: &str) -> (u16, Value) {
        let path = format!("/api/v2/conversations/messages/{message}/details");
        self.send("GET", &path, &[("authorization", bearer)], "")
            .await
    }

    pub(crate) async fn sign_in(&self) -> String {
        let form =
            "grant_type=client_credentials&client_id=sim-client&client_secret=sim-client-secret";
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let (status, body) = self
            .send("POST", "/api/v2/oauth/token", &headers, form)
            .await;
        assert_eq!(status, 200, "{body}");
        format!("Bearer {}", body["access_token"].as_str().unwrap())
    }

    pub(crate) async fn post(
        &self,
        bearer: &str,
        path: &str,
        key: &str,
        body: &Value,
    ) -> (u16, Value) {
        let headers = [
            ("authorization", bearer),
            ("content-type", "application/json"),
            ("idempotency-key", key),
        ];
        self.send("POST", path, &headers, &body.to_string()).await
    }

    pub(crate) async fn contact(&self, bearer: &str, key: &str, body: &Value) -> (u16, Value) {
        self.post(bearer, "/api/v2/externalcontacts/contacts", key, body)
            .await
    }

    pub(crate) async fn conversation(&self, bearer: &str, key: &str, body: &Value) -> (u16, Value) {
        self.post(bearer, "/api/v2/conversations/messaging", key, body)
            .await
    }

    /// Returns a token with any header and claims, signed with this client's key.
    pub(crate) fn token(&self, header: &Value, claims: &Value) -> String {
        let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(header), encode(claims));
        let mut bytes = vec![0; self.key.public_modulus_len()];
        self.key
            .sign(
                &signature::RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                signed.as_bytes(),
                &mut bytes,
            )
            .unwrap();
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }

    pub(crate) fn good_token(&self, guest: &str) -> String {
        let now = self.clock.now().unix_seconds();
        self.token(
            &json!({"alg": "RS256", "kid": "k"}),
            &json!({"guestId": guest, "iat": now, "exp": now + 300}),
        )
    }

    pub(crate) fn public_pem(&self) -> String {
        use aws_lc_rs::signature::KeyPair;
        let der: aws_lc_rs::encoding::PublicKeyX509Der<'_> =
            self.key.public_key().as_der().unwrap();
        let text = base64::prelude::BASE64_STANDARD.encode(der.as_ref());
        format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
    }

    pub(crate) fn new_contact(&self, guest: &str) -> Value {
        json!({
            "type": "webchat", "address": format!("guest-{guest}"), "externalContactId": guest,
            "customAttributes": {"guestToken": self.good_token(guest), "tier": "gold"},
        })
    }

    pub(crate) fn new_conversation(&self, guest: &str) -> Value {
        json!({
            "contactId": format!("guest-{guest}"), "routingData": {"queueId": SALES, "skillRequirements": []},
            "customAttributes": {"sessionToken": self.good_token(guest), "routingTarget": SALES},
        })
    }
}
