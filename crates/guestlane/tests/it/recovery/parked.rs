//! A session that waits for the platform is completed later.

use super::*;

#[rstest]
#[tokio::test]
async fn long_retry_after_parks_the_session_and_it_completes_later(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    platform.faults(&["conversation:429:first=1,retry-after=90"]);
    let error = engine.create(request("ann")).await.unwrap_err();
    assert_eq!(error.code(), guestlane::error::ErrorCode::RateLimited);
    let id = error.session().unwrap();
    assert_eq!(
        engine.store().session(id).await.unwrap().unwrap().state,
        SessionState::Parked
    );

    assert!(
        engine.recover_abandoned().await.unwrap().is_empty(),
        "not before the platform's time"
    );
    platform.clock.advance(Duration::from_secs(92));
    let finished = engine.recover_abandoned().await.unwrap();
    assert!(matches!(&finished[..], [Ok(opened)] if opened.session.id == id));
    platform.assert_each_guest_once(1);
}

#[rstest]
#[tokio::test]
async fn create_on_a_parked_session_waits_for_retry_after(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    platform.faults(&["conversation:429:first=1,retry-after=70"]);
    engine.create(request("ann")).await.unwrap_err();
    platform.clock.advance(Duration::from_secs(30));
    assert!(engine.create(request("ann")).await.is_ok());
    platform.assert_each_guest_once(1);
    assert_eq!(
        platform.sim.state().calls["conversation"],
        2,
        "and does not hurry the platform"
    );
}

#[rstest]
#[tokio::test]
async fn guest_token_expired_while_parked_is_signed_again(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    platform.faults(&["conversation:429:first=1,retry-after=400"]);
    let error = engine.create(request("ann")).await.unwrap_err();
    platform.clock.advance(Duration::from_secs(402));
    let finished = engine.recover_abandoned().await.unwrap();
    let [Ok(opened)] = &finished[..] else {
        panic!("{finished:?}")
    };
    assert_eq!(Some(opened.session.id), error.session());
    let tokens: std::collections::HashSet<_> = platform
        .journal("conversation")
        .iter()
        .map(|entry| entry.body.clone())
        .collect();
    assert_eq!(
        tokens.len(),
        2,
        "the old one was refused, the new one taken"
    );
    platform.assert_each_guest_once(1);
}
