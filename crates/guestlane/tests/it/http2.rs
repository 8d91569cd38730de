//! Over TLS, calls share an HTTP/2 connection, and a guest WebSocket has an HTTP/1.1 connection of
//! its own.

use guestlane::TokenRequestAuth;
use guestlane_core::surface::Surface;
use guestlane_runtime::TlsRoots;
use guestlane_sim::{EXTERNAL_SOURCE_ID, Tls};

use crate::harness::{WEB_MESSAGING, World, crowd, request};

async fn over_tls(surface: &Surface) -> World {
    let mut world = World::with(|options| {
        options.tls = Some(Tls {
            region: "localhost".to_owned(),
        })
    })
    .await;
    let trust = TlsRoots::from_pem(world.sim.ca_pem().unwrap().as_bytes()).unwrap();
    world.config.credentials.trust = trust.clone();
    world.config.webhooks.as_mut().unwrap().tls_roots = trust;
    world.config.surface = surface.clone();
    if surface.is_public_api() {
        world.config.credentials.sign_in = TokenRequestAuth::Basic;
        world.config.messaging.external_source = Some(EXTERNAL_SOURCE_ID);
    }
    world
}

/// Creates a session for a first guest, then for `guests` guests concurrently. Returns the number
/// of additional connections.
async fn connections_for(world: &World, guests: usize, faults: &[&str]) -> u64 {
    let engine = world.engine().await;
    engine.create(request("first")).await.unwrap();
    engine.outbox().unwrap().wait_for_initial_deliveries().await;
    let before = world.sim.state().connections;
    world.faults(faults);
    let created = crowd(&engine, guests, guests).await;
    assert!(created.iter().all(Result::is_ok), "{created:?}");
    engine.outbox().unwrap().wait_for_initial_deliveries().await;
    let all = guests as u64 + 1;
    world.assert_each_guest_once(all);
    let state = world.sim.state();
    assert_eq!((state.crm.events, state.crm.guests_told_twice), (all, 0));
    state.connections - before
}

#[tokio::test]
async fn sixty_four_sessions_at_once_need_no_connection_of_their_own() {
    let world = over_tls(&Surface::Rest).await;
    assert_eq!(connections_for(&world, 64, &[]).await, 0);
}

#[tokio::test]
async fn on_web_messaging_it_is_the_sockets_that_need_connections() {
    let world = over_tls(&WEB_MESSAGING).await;
    assert_eq!(connections_for(&world, 8, &[]).await, 8);
}

#[tokio::test]
async fn a_lost_answer_on_a_shared_connection_makes_nothing_twice_and_costs_no_connection() {
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
        let world = over_tls(&surface).await;
        assert_eq!(connections_for(&world, 16, &faults).await, sockets);
        let hits = world.sim.state().faults;
        assert_eq!(
            (hits["answer-lost"], hits["reset"], hits["reset-after"]),
            (9, 9, 9)
        );
    }
}
