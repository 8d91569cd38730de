//! A crash at every fail point.

use super::*;

pub(super) const SEPARATELY_TESTED_FAIL_POINTS: &[FailPoint] = &[
    FailPoint::NeedsAttentionStored,
    FailPoint::ContactRemoved,
    FailPoint::NextKeyStored,
    FailPoint::KeyRevoked,
    FailPoint::PreviousMasterKeyKept,
    FailPoint::MasterKeyReplaced,
    FailPoint::ChunkResealed,
    // These occur only where a store is shared or migrated.
    FailPoint::RowsClaimed,
    FailPoint::RowsEnded,
    FailPoint::MoveMarked,
    FailPoint::RowsCopied,
    FailPoint::StoreMoved,
];

/// The first two occur only on the guest WebSocket.
pub(super) const FAIL_POINTS_OF_PUBLIC_SURFACES: &[FailPoint] = &[
    FailPoint::GuestConnected,
    FailPoint::GuestConfigured,
    FailPoint::MessageSent,
    FailPoint::MessageStored,
    FailPoint::ConversationFound,
    FailPoint::ConversationStored,
    FailPoint::ContactLinked,
    FailPoint::QueueReached,
    FailPoint::OrganizationStored,
];

/// Returns whether only the first process passes the fail point. Where processes share an access
/// token, the first process requests it for all.
pub(super) fn is_first_use(backend: Backend, fail_point: FailPoint) -> bool {
    let signs_in_for_all = backend == Backend::Postgres && fail_point == FailPoint::SignedIn;
    signs_in_for_all
        || matches!(
            fail_point,
            FailPoint::MasterKeyDrafted
                | FailPoint::MasterKeyMade
                | FailPoint::SigningKeyStored
                | FailPoint::OrganizationStored
        )
}

/// Crashes a process at each passing of the fail point in turn. Returns the number of crashes.
pub(super) fn crash_at_each_passing(
    backend: Backend,
    fail_point: FailPoint,
    surface: &Surface,
) -> usize {
    let mut deaths = 0;
    loop {
        let died = run(async {
            let platform = platform(backend, surface).await;
            // The store also has a completed guest, which can be erased.
            let before = if is_first_use(backend, fail_point) {
                None
            } else {
                Some("before")
            };
            if let Some(before) = before {
                run_to_completion(&platform, before).await;
            }
            platform.faults(&[&fault_on_the_way_to(fail_point, surface)]);
            let death = InjectedCrash::at(fail_point, deaths + 1);
            run_process(&platform, &death, "ann", before).await;
            run_to_completion(&platform, "ann").await;
            assert_at_rest(&platform, 1 + u64::from(before.is_some())).await;
            death.died()
        });
        if !died {
            return deaths;
        }
        deaths += 1;
    }
}

pub(super) fn crash_at_every_fail_point(backend: Backend, surface: &Surface) {
    let deaths: BTreeMap<_, _> = fail_points(surface)
        .map(|fail_point| {
            (
                fail_point,
                crash_at_each_passing(backend, fail_point, surface),
            )
        })
        .collect();
    let unreached: Vec<_> = deaths
        .iter()
        .filter(|(_, deaths)| **deaths == 0)
        .map(|(fail_point, _)| fail_point.name())
        .collect();
    assert!(unreached.is_empty(), "no test reaches {unreached:?}");
    let sum = deaths.values().sum::<usize>();
    tell(&format!(
        "{surface}: {} fail_points, {sum} deaths, one at each passing",
        deaths.len()
    ));
    for (fail_point, deaths) in deaths {
        tell(&format!("  {fail_point:<24} {deaths}"));
    }
}

#[rstest]
#[test]
fn rest_session_completes_once_after_any_crash(#[values(Sqlite, Postgres)] backend: Backend) {
    crash_at_every_fail_point(backend, &Surface::Rest);
}

#[rstest]
#[test]
fn web_messaging_session_completes_once_after_any_crash(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    crash_at_every_fail_point(backend, &WEB_MESSAGING);
}

#[rstest]
#[test]
fn open_messaging_session_completes_once_after_any_crash(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    crash_at_every_fail_point(backend, &OPEN_MESSAGING);
}

/// Without an external source, an e-mail address or a telephone number, no lookup finds a contact
/// again. A crash may lose the contact, but never the guest.
#[rstest]
#[test]
fn crash_with_unidentifiable_contact_opens_one_conversation(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let mut unlinked = 0;
    for fail_point in fail_points(&WEB_MESSAGING) {
        run(async {
            let mut platform = platform(backend, &WEB_MESSAGING).await;
            platform.config.messaging.external_source = None;
            platform.faults(&[&fault_on_the_way_to(fail_point, &WEB_MESSAGING)]);
            let death = InjectedCrash::at(fail_point, 1);
            run_process(&platform, &death, "ann", None).await;
            run_to_completion(&platform, "ann").await;
            let state = platform.sim.state();
            assert!(
                state.contacts <= 1 && state.conversations == 1,
                "{fail_point}: {state:?}"
            );
            assert_eq!(
                (state.crm.events, state.crm.guests_notified_twice),
                (1, 0),
                "{fail_point}"
            );
            unlinked += 1 - state.linked;
        });
    }
    tell(&format!(
        "{unlinked} deaths left a guest without a linked contact"
    ));
    assert!(unlinked > 0, "where the answer died with the process");
}
