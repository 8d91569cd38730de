//! Over TLS the calls share a connection of HTTP/2; a guest's socket has one of its own, of HTTP/1.1.

use guestlane::{Trust, surface::Surface};
use guestlane_sim::Tls;

use crate::world::{WEB_MESSAGING, World, crowd};

async fn over_tls(surface: &Surface) -> World {
    let mut world = World::with(|options| options.tls = Some(Tls { region: "localhost".to_owned() })).await;
    let trust = Trust::from_pem(world.sim.ca_pem().unwrap().as_bytes()).unwrap();
    world.config.credentials.trust = trust.clone();
    world.config.crm.as_mut().unwrap().trust = trust;
    world.config.surface = surface.clone();
    if surface.is_official() {
        world.config.credentials.sign_in = guestlane::SignIn::Basic;
        world.config.cloud.external_source = Some(guestlane_sim::EXTERNAL_SOURCE_ID);
    }
    world
}

/// So many guests at once, each of whom gets a session; how many connections that took.
async fn connections_for(world: &World, guests: usize) -> u64 {
    let lane = world.lane().await;
    let created = crowd(&lane, guests, guests).await;
    assert!(created.iter().all(Result::is_ok), "{created:?}");
    lane.outbox().unwrap().first_tries_done().await;
    world.assert_each_guest_once(guests as u64);
    let state = world.sim.state();
    assert_eq!((state.crm.events, state.crm.guests_told_twice), (guests as u64, 0));
    state.connections
}

#[tokio::test]
async fn sixty_four_sessions_at_once_share_a_connection() {
    let world = over_tls(&Surface::Rest).await;
    let connections = connections_for(&world, 64).await;
    assert!(connections <= 8, "{connections}");
}

#[tokio::test]
async fn on_web_messaging_each_socket_has_a_connection_and_the_calls_share_one() {
    const GUESTS: usize = 8;
    let world = over_tls(&WEB_MESSAGING).await;
    let connections = connections_for(&world, GUESTS).await;
    assert!(connections <= 8 + GUESTS as u64, "{connections}");
}

#[tokio::test]
async fn a_lost_answer_on_a_shared_connection_makes_nothing_twice_and_costs_the_others_nothing() {
    for (surface, faults) in [
        (Surface::Rest, ["contact:answer-lost:first=9", "contact:reset:first=9", "conversation:reset-after:first=9"]),
        (WEB_MESSAGING, ["contact:answer-lost:first=3", "contact:reset:first=3", "link:reset-after:first=3"]),
    ] {
        let world = over_tls(&surface).await;
        world.faults(&faults);
        let connections = connections_for(&world, 16).await;
        let hits = world.sim.state().faults;
        assert!(hits["answer-lost"] > 0 && hits["reset-after"] > 0, "{hits:?}");
        assert!(connections <= 8 + 16, "{connections}");
    }
}
