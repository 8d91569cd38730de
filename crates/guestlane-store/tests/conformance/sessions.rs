//! Sessions: one worker at a time, whole transitions, and rows that are read as they were written.

use std::collections::BTreeSet;

use guestlane_core::{
    audit::{AuditRecord, Status},
    event::Event,
    request::{IdempotencyKey, Owner, SessionRequest},
    session::{
        Failure, LEASE_TTL, SessionContext, SessionId, SessionRecord, SessionState, SurfaceBinding,
    },
};
use guestlane_genesys::ErrorCounts;
use guestlane_store::{BeginOutcome, CommitRequest, RecordFilter, SessionFilter, StoreError};
use rstest::rstest;
use uuid::Uuid;

use crate::kit::{Backend, Postgres, SECOND, Sqlite, TestStore, platform_id, request, transition};

#[rstest]
#[tokio::test]
async fn key_is_acquired_once_and_a_second_caller_waits(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let test = TestStore::open(backend).await;
    let first = test.admit(request("ann")).await;
    assert_eq!(first.state, SessionState::Admitted);
    let BeginOutcome::InProgress(found) = test.begin(request("ann")).await else {
        panic!("the first caller has the lease");
    };
    assert_eq!(found.id, first.id);
}

#[rstest]
#[tokio::test]
async fn key_of_another_request_is_refused(#[values(Sqlite, Postgres)] backend: Backend) {
    let test = TestStore::open(backend).await;
    let first = test.admit(request("ann")).await;
    let other = SessionRequest {
        key: request("ann").key,
        ..request("bob")
    };
    let BeginOutcome::KeyReused(found) = test.begin(other).await else {
        panic!("the fingerprint differs");
    };
    assert_eq!(found.id, first.id);
}

#[rstest]
#[tokio::test]
async fn same_key_of_another_owner_is_another_session(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let test = TestStore::open(backend).await;
    let owned = |owner: &str| SessionRequest {
        key: "one-key"
            .parse::<IdempotencyKey>()
            .unwrap()
            .owned_by(Owner::stored(owner)),
        ..request("ann")
    };
    let (one, two) = (
        test.admit(owned("one")).await,
        test.admit(owned("two")).await,
    );
    assert_ne!(one.id, two.id);
    let found = test.store.find_by_key(owned("two").key).await.unwrap();
    assert_eq!(found.unwrap().id, two.id);
}

#[rstest]
#[tokio::test]
async fn completed_session_is_replayed(#[values(Sqlite, Postgres)] backend: Backend) {
    let test = TestStore::open(backend).await;
    let session = test.admit(request("ann")).await;
    let done = test.complete(session, 1).await.session;
    let BeginOutcome::AlreadyCompleted(found) = test.begin(request("ann")).await else {
        panic!("the session is open");
    };
    assert_eq!(found, done);
}

#[rstest]
#[tokio::test]
async fn expired_lease_is_claimed_and_fences_off_the_previous_worker(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let test = TestStore::open(backend).await;
    let slow = test.admit(request("ann")).await;
    assert_eq!(test.store.claim_due(10, test.now()).await.unwrap(), []);
    test.clock.advance(LEASE_TTL + SECOND);
    let claimed = test.store.claim_due(10, test.now()).await.unwrap();
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].epoch, slow.epoch + 1);

    let late = slow
        .clone()
        .contact_ready(Some(platform_id("late")), 1, test.now())
        .unwrap();
    let refused = test.commit(&slow, late).await;
    assert!(matches!(refused, Err(StoreError::LeaseLost)), "{refused:?}");
    let stored = test.store.session(slow.id).await.unwrap().unwrap();
    assert_eq!(stored.contact_id, None);
}

#[rstest]
#[tokio::test]
async fn renewed_lease_is_not_claimed_and_an_old_epoch_renews_nothing(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let test = TestStore::open(backend).await;
    let session = test.admit(request("ann")).await;
    test.clock.advance(LEASE_TTL - SECOND);
    let renew = vec![(session.id, session.epoch)];
    test.store.renew_leases(renew, test.now()).await.unwrap();
    test.clock.advance(LEASE_TTL - SECOND);
    assert_eq!(test.store.claim_due(10, test.now()).await.unwrap(), []);

    let old = vec![(session.id, session.epoch - 1)];
    test.store.renew_leases(old, test.now()).await.unwrap();
    test.clock.advance(SECOND * 2);
    assert_eq!(test.store.claim_due(10, test.now()).await.unwrap().len(), 1);
}

#[rstest]
#[tokio::test]
async fn due_sessions_are_claimed_once_oldest_first(#[values(Sqlite, Postgres)] backend: Backend) {
    let test = TestStore::open(backend).await;
    let mut admitted = Vec::new();
    for guest in ["ann", "bob", "eve"] {
        admitted.push(test.admit(request(guest)).await.id);
        test.clock.advance(SECOND);
    }
    test.clock.advance(LEASE_TTL);
    let ids = |sessions: Vec<SessionRecord>| -> Vec<SessionId> {
        sessions.into_iter().map(|session| session.id).collect()
    };
    let first = ids(test.store.claim_due(2, test.now()).await.unwrap());
    let rest = ids(test.store.claim_due(2, test.now()).await.unwrap());
    let unordered = |ids: &[SessionId]| ids.iter().copied().collect::<BTreeSet<_>>();
    assert_eq!(unordered(&first), unordered(&admitted[..2]));
    assert_eq!(rest, admitted[2..]);
    assert_eq!(test.store.claim_due(2, test.now()).await.unwrap(), []);
}

#[rstest]
#[tokio::test]
async fn claim_by_id_respects_the_lease(#[values(Sqlite, Postgres)] backend: Backend) {
    let test = TestStore::open(backend).await;
    let session = test.admit(request("ann")).await;
    assert_eq!(
        test.store.claim(session.id, test.now()).await.unwrap(),
        None
    );
    test.clock.advance(LEASE_TTL + SECOND);
    let claimed = test.store.claim(session.id, test.now()).await.unwrap();
    assert_eq!(claimed.unwrap().epoch, session.epoch + 1);
}

/// A transition is one transaction: a worker whose lease is lost leaves no record and no event.
#[rstest]
#[tokio::test]
async fn refused_transition_leaves_no_audit_record_and_no_event(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let test = TestStore::open(backend).await;
    let slow = test.admit(request("ann")).await;
    test.clock.advance(LEASE_TTL + SECOND);
    test.store.claim(slow.id, test.now()).await.unwrap();

    let now = test.now();
    let ready = slow
        .clone()
        .contact_ready(Some(platform_id("contact")), 1, now)
        .unwrap();
    let request = CommitRequest {
        audit: Some(AuditRecord::for_session(
            &ready,
            Status::Success,
            ErrorCounts::default(),
            now,
        )),
        events: vec![Event::session_created(&ready, 1, now)],
        errors: ErrorCounts {
            total: 1,
            network: 1,
            ..ErrorCounts::default()
        },
        ..transition(&slow, ready)
    };
    assert!(test.store.commit_transition(request).await.is_err());
    let of_session = RecordFilter {
        session: Some(slow.id),
        limit: 10,
        ..RecordFilter::default()
    };
    let records = test.store.records(of_session).await.unwrap();
    assert_eq!(records.len(), 1, "only the pending record of its admission");
    assert_eq!(test.store.pending_events().await.unwrap(), 0);
    assert_eq!(test.store.error_counts().await.unwrap().total, 0);
}

/// Every column is read as it was written, by a process that has never seen the session.
#[rstest]
#[tokio::test]
async fn session_is_read_as_it_was_written(#[values(Sqlite, Postgres)] backend: Backend) {
    let surfaces = [
        SurfaceBinding::Rest,
        SurfaceBinding::WebMessaging {
            deployment: Uuid::from_u128(7),
            token: vec![1, 2, 255],
        },
        SurfaceBinding::OpenMessaging {
            integration: Uuid::from_u128(8),
        },
    ];
    for surface in surfaces {
        check_round_trip(&TestStore::open(backend).await, surface).await;
    }
}

async fn check_round_trip(test: &TestStore, surface: SurfaceBinding) {
    let context = SessionContext {
        surface: surface.clone(),
        contact_without_identifier: true,
        trace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
            .parse()
            .ok(),
    };
    assert!(context.trace.is_some());
    let wanted = SessionRequest {
        guest: "ünïcode '\"\\".parse().unwrap(),
        ..request("ann")
    };
    let BeginOutcome::Acquired(admitted) = test.begin_on(wanted, context).await else {
        panic!("the session is new");
    };
    let reader = test.opened_again().await;
    assert_eq!(
        reader.session(admitted.id).await.unwrap(),
        Some(admitted.clone())
    );

    let now = test.now() + SECOND;
    let mut states = vec![
        admitted
            .clone()
            .contact_ready(Some(platform_id("contact")), 3, now)
            .unwrap(),
    ];
    if surface == SurfaceBinding::Rest {
        let open = states[0].clone();
        states.push(
            open.completed(platform_id("conversation"), 2, now, now + SECOND)
                .unwrap(),
        );
    } else {
        let sent = states[0].clone().message_sent(
            platform_id("message"),
            None,
            Some(now + SECOND),
            1,
            now,
        );
        states.push(sent.unwrap());
        let found = states[1]
            .clone()
            .conversation_found(platform_id("conversation"), 1, now);
        states.push(found.unwrap());
        let failure = Failure {
            code: "rate_limited".to_owned(),
            message: "the platform refused".to_owned(),
        };
        let parked = states[2].clone().parked(failure, 4, now + SECOND * 90);
        states.push(parked.unwrap());
    }
    let mut before = admitted;
    for after in states {
        let committed = test.commit(&before, after.clone()).await.unwrap();
        assert_eq!(committed, after);
        assert_eq!(reader.session(after.id).await.unwrap(), Some(after.clone()));
        before = after;
    }
}

#[rstest]
#[tokio::test]
async fn pages_list_each_matching_session_once_newest_first(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let test = TestStore::open(backend).await;
    let mut ids = Vec::new();
    for n in 0..7 {
        test.clock.advance(SECOND);
        let session = test.admit(request(&format!("guest-{n}"))).await;
        ids.push(session.id);
        if n % 2 == 0 {
            test.complete(session, 0).await;
        }
    }
    ids.reverse();
    let mut listed = Vec::new();
    let mut filter = SessionFilter {
        limit: 3,
        ..SessionFilter::default()
    };
    loop {
        let page = test.store.sessions(filter.clone()).await.unwrap();
        assert!(page.sessions.len() <= 3);
        listed.extend(page.sessions.iter().map(|session| session.id));
        match page.next {
            Some(next) => filter.before = Some(next),
            None => break,
        }
    }
    assert_eq!(listed, ids);

    let of = |filter| async {
        let page = test.store.sessions(filter).await.unwrap();
        page.sessions.len()
    };
    let all = SessionFilter {
        limit: 100,
        ..SessionFilter::default()
    };
    let in_state = |state| SessionFilter {
        state: Some(state),
        ..all.clone()
    };
    assert_eq!(of(in_state(SessionState::Open)).await, 4);
    assert_eq!(of(in_state(SessionState::Admitted)).await, 3);
    assert_eq!(of(in_state(SessionState::Failed)).await, 0);
    let of_guest = SessionFilter {
        guest: Some("guest-3".to_owned()),
        ..all.clone()
    };
    assert_eq!(of(of_guest).await, 1);
    assert_eq!(test.store.unfinished().await.unwrap(), 3);
    assert_eq!(test.store.unfinished_sessions(2).await.unwrap().len(), 2);
}
