//! Over TLS, calls share an HTTP/2 connection, and a guest WebSocket has an HTTP/1.1 connection of
//! its own.

use guestlane::TokenRequestAuth;
use guestlane_core::surface::Surface;
use guestlane_runtime::TlsRoots;
use guestlane_sim::{EXTERNAL_SOURCE_ID, Tls};
use guestlane_testkit::{
    Backend::Sqlite,
    platform::{TestPlatform, WEB_MESSAGING, create_many, request},
};

async fn over_tls(surface: &Surface) -> TestPlatform {
    let mut platform = TestPlatform::with(Sqlite, |options| {
        options.tls = Some(Tls {
            region: "localhost".to_owned(),
        })
    })
    .await;
    let trust = TlsRoots::from_pem(platform.sim.ca_pem().unwrap().as_bytes()).unwrap();
    platform.config.credentials.trust = trust.clone();
    platform.config.webhooks.as_mut().unwrap().tls_roots = trust;
    platform.config.surface = surface.clone();
    if surface.is_public_api() {
        platform.config.credentials.sign_in = TokenRequestAuth::Basic;
        platform.config.messaging.external_source = Some(EXTERNAL_SOURCE_ID);
    }
    platform
}

/// Creates a session for a first guest, then for `guests` guests concurrently. Returns the number
/// of additional connections.
async fn connections_for(platform: &TestPlatform, guests: usize, faults: &[&str]) -> u64 {
    let engine = platform.engine().await;
    engine.create(request("first")).await.unwrap();
    engine.outbox().unwrap().wait_for_initial_deliveries().await;
    let before = platform.sim.state().connections;
    platform.faults(faults);
    let created = create_many(&engine, guests, guests).await;
    assert!(created.iter().all(Result::is_ok), "{created:?}");
    engine.outbox().unwrap().wait_for_initial_deliveries().await;
    let all = guests as u64 + 1;
    platform.assert_each_guest_once(all);
    let state = platform.sim.state();
    assert_eq!(
        (state.crm.events, state.crm.guests_notified_twice),
        (all, 0)
    );
    state.connections - before
}

#[tokio::test]
async fn sixty_four_rest_sessions_open_no_further_connection() {
    let platform = over_tls(&Surface::Rest).await;
    assert_eq!(connections_for(&platform, 64, &[]).await, 0);
}

#[tokio::test]
async fn web_messaging_opens_one_connection_per_guest_socket() {
    let platform = over_tls(&WEB_MESSAGING).await;
    assert_eq!(connections_for(&platform, 8, &[]).await, 8);
}

#[tokio::test]
async fn lost_responses_cause_no_duplicate_and_no_extra_connection() {
    for (surface, faults, sockets) in [
        (
            Surface::Rest,
            [
                "contact:answer-lost:first=9",
                "contact:reset:first=18",
                "conversation:reset-after:first=9",
            ],
            0,
        ),
        (
            WEB_MESSAGING,
            [
                "contact:answer-lost:first=9",
                "contact:reset:first=18",
                "link:reset-after:first=9",
            ],
            16,
        ),
    ] {
        let platform = over_tls(&surface).await;
        assert_eq!(connections_for(&platform, 16, &faults).await, sockets);
        let hits = platform.sim.state().faults;
        assert_eq!(
            (hits["answer-lost"], hits["reset"], hits["reset-after"]),
            (9, 9, 9)
        );
    }
}
