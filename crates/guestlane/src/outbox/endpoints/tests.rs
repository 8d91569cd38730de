//! Tests of `endpoints`.

use guestlane_runtime::{Clock, ManualClock, TlsRoots};

use super::*;
use crate::StorageConfig;
use guestlane_runtime::ssrf::EgressPolicy;

const NOW: Timestamp = Timestamp::from_unix_micros(1_795_361_029_000_000);

async fn state(directory: &std::path::Path) -> Workspace {
    let clock: Clock = ManualClock::new(NOW).into();
    Workspace::open(&StorageConfig::in_directory(directory), &clock)
        .await
        .unwrap()
}

fn crm(endpoints: usize, secret: Option<&str>) -> WebhookConfig {
    let urls = (0..endpoints)
        .map(|number| format!("https://crm.example/{number}").parse().unwrap())
        .collect();
    WebhookConfig {
        urls,
        secret: secret.map(|text| text.to_owned().into()),
        egress_policy: EgressPolicy::Public,
        tls_roots: TlsRoots::System,
    }
}

async fn secrets(state: &Workspace, endpoints: usize) -> Vec<String> {
    let open = Endpoints::new(state, Some(&crm(endpoints, None)))
        .unwrap()
        .open()
        .await
        .unwrap();
    open.iter()
        .map(|endpoint| endpoint.keys.secret().unwrap().expose().to_owned())
        .collect()
}

#[tokio::test]
async fn each_endpoint_keeps_its_own_secret() {
    let directory = tempfile::tempdir().unwrap();
    let state = state(directory.path()).await;
    let made = secrets(&state, 3).await;
    assert!(made[0] != made[1] && made[1] != made[2] && made[0] != made[2]);
    assert_eq!(secrets(&state, 3).await, made);
    assert_eq!(secrets(&state, 2).await, made[..2]);
}

#[tokio::test]
async fn concurrent_rotations_keep_both_secrets() {
    let directory = tempfile::tempdir().unwrap();
    let state = state(directory.path()).await;
    let endpoints = Endpoints::new(&state, Some(&crm(1, None))).unwrap();
    endpoints.open().await.unwrap();
    let day = Duration::from_secs(86_400);
    let rotate = || endpoints.rotate(1, KeyKind::Secret, day, NOW);
    let (one, other) = tokio::join!(rotate(), rotate());
    assert!(one.is_ok() && other.is_ok());
    let keys = endpoints.read().await.unwrap().remove(0).keys;
    assert_eq!(keys.sign("msg_1", NOW, b"{}").split(' ').count(), 3);
}

#[tokio::test]
async fn configured_secret_is_not_rotated_but_key_pair_signs() {
    let directory = tempfile::tempdir().unwrap();
    let state = state(directory.path()).await;
    let given = crm(
        1,
        Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="),
    );
    let endpoints = Endpoints::new(&state, Some(&given)).unwrap();
    let refused = endpoints
        .rotate(1, KeyKind::Secret, Duration::ZERO, NOW)
        .await
        .unwrap_err()
        .to_string();
    assert!(refused.contains("webhooks.secret"), "{refused}");
    endpoints.add_ed25519(1).await.unwrap();
    let keys = endpoints.open().await.unwrap().remove(0).keys;
    assert!(keys.sign("msg_1", NOW, b"{}").contains(" v1a,") && keys.public_key().is_some());
    // Without the setting, the endpoint gets a secret beside the key pair.
    let kept = Endpoints::new(&state, Some(&crm(1, None)))
        .unwrap()
        .open()
        .await
        .unwrap()
        .remove(0)
        .keys;
    assert!(kept.secret().is_some() && kept.public_key() == keys.public_key());
}

#[tokio::test]
async fn changed_keys_apply_only_to_unchanged_endpoints() {
    const ONE: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=";
    const OTHER: &str = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let directory = tempfile::tempdir().unwrap();
    let state = state(directory.path()).await;
    let endpoints = Endpoints::new(&state, Some(&crm(2, Some(ONE)))).unwrap();
    assert!(
        endpoints
            .other_keys(Some(&crm(2, Some(ONE))))
            .unwrap()
            .is_none()
    );
    let moved = endpoints
        .other_keys(Some(&crm(3, Some(OTHER))))
        .unwrap_err()
        .to_string();
    assert!(
        moved.contains("webhooks.urls") && !moved.contains(OTHER),
        "{moved}"
    );
    // A change of the addresses alone requires a restart, and changes no key.
    assert!(
        endpoints
            .other_keys(Some(&crm(3, Some(ONE))))
            .unwrap()
            .is_none()
    );
    let new = endpoints
        .other_keys(Some(&crm(2, Some(OTHER))))
        .unwrap()
        .unwrap();
    let clone = endpoints.clone();
    endpoints.replace_given(new);
    assert_eq!(
        clone.open().await.unwrap()[1]
            .keys
            .secret()
            .unwrap()
            .expose(),
        OTHER
    );
    // Without the setting, secrets are generated and stored.
    let kept = endpoints.other_keys(Some(&crm(2, None))).unwrap().unwrap();
    endpoints.replace_given(kept);
    let open = clone.open().await.unwrap();
    assert!(
        open.iter()
            .all(|endpoint| ![ONE, OTHER].contains(&endpoint.keys.secret().unwrap().expose()))
    );
}

#[tokio::test]
async fn disabled_endpoint_is_enabled_by_command_or_new_url() {
    let directory = tempfile::tempdir().unwrap();
    let state = state(directory.path()).await;
    let endpoints = Endpoints::new(&state, Some(&crm(2, None))).unwrap();
    assert!(endpoints.disable(2, NOW).await.unwrap());
    assert!(
        !endpoints
            .disable(2, NOW + Duration::from_secs(9))
            .await
            .unwrap(),
        "it is disabled already"
    );
    let disabled = |open: Vec<Endpoint>| {
        open.into_iter()
            .map(|endpoint| endpoint.disabled_at)
            .collect::<Vec<_>>()
    };
    assert_eq!(disabled(endpoints.open().await.unwrap()), [None, Some(NOW)]);
    let mut moved = crm(2, None);
    moved.urls[1] = "https://crm.example/elsewhere".parse().unwrap();
    assert_eq!(
        disabled(
            Endpoints::new(&state, Some(&moved))
                .unwrap()
                .open()
                .await
                .unwrap()
        ),
        [None, None]
    );
    assert!(endpoints.enable(2).await.unwrap() && !endpoints.enable(2).await.unwrap());
    assert_eq!(disabled(endpoints.open().await.unwrap()), [None, None]);
    assert!(endpoints.enable(3).await.is_err() && endpoints.enable(0).await.is_err());
}
