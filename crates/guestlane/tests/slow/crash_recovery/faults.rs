//! A crash at every fail point together with every fault.

use super::*;

/// The routes of all calls and frames of a session.
fn steps(surface: &Surface) -> &'static [&'static str] {
    match surface {
        Surface::Rest => &["token", "queue", "contact", "conversation", "crm"],
        Surface::WebMessaging { .. } => &[
            "token",
            "queue",
            "contact",
            "socket",
            "configure",
            "message",
            "jwt",
            "history",
            "details",
            "conversation-read",
            "link",
            "transfer",
            "crm",
        ],
        Surface::OpenMessaging { .. } => &[
            "token",
            "queue",
            "contact",
            "open-message",
            "details",
            "conversation-read",
            "link",
            "transfer",
            "crm",
        ],
    }
}

/// On PostgreSQL every case takes longer. One case of thirteen runs, a different set at each fail
/// point, unless `GUESTLANE_TEST_ALL_FAULTS` is set.
#[expect(clippy::disallowed_methods, reason = "a test's own setting")]
fn is_taken(backend: Backend, case: usize, fail_point: Option<FailPoint>) -> bool {
    let all = backend == Backend::Sqlite || std::env::var("GUESTLANE_TEST_ALL_FAULTS").is_ok();
    all || (case + fail_point.map_or(0, |fail_point| fail_point as usize)).is_multiple_of(13)
}

/// Injects every fault at every step, with a crash at the first passing of a fail point. Each case
/// has its own guest.
fn crash_with_every_fault(
    backend: Backend,
    fail_point: Option<FailPoint>,
    kinds: &[FaultKind],
    surface: &Surface,
) -> (usize, usize) {
    run(async {
        let platform = platform(backend, surface).await;
        run_to_completion(&platform, "guest-0").await;
        let (mut met, mut cases, mut deaths) = (0, 0, 0);
        for step in steps(surface) {
            for kind in kinds {
                let fault = format!("{step}:{}:nth=1", kind.name());
                if fault.parse::<guestlane_sim::Fault>().is_err() {
                    continue; // `stale` applies only to reads
                }
                met += 1;
                if !is_taken(backend, met, fail_point) {
                    continue;
                }
                cases += 1;
                let mut faults = vec![fault.clone()];
                faults
                    .extend(fail_point.map(|fail_point| fault_on_the_way_to(fail_point, surface)));
                // The history is read only if the outcome of the message is unknown.
                if ["jwt", "history"].contains(step) {
                    faults.push("message:answer-lost:nth=1".to_owned());
                }
                platform.faults(&faults.iter().map(String::as_str).collect::<Vec<_>>());
                let repeated = platform.sim.state().repeated_first_messages;
                let death = fail_point.map_or_else(InjectedCrash::never, |fail_point| {
                    InjectedCrash::at(fail_point, 1)
                });
                let (guest, erase) = (format!("guest-{cases}"), format!("guest-{}", cases - 1));
                run_process(&platform, &death, &guest, Some(&erase)).await;
                run_to_completion(&platform, &guest).await;
                let state = platform.sim.state();
                let all = cases as u64 + 1;
                assert_eq!(
                    (state.contacts, state.conversations),
                    (all, all),
                    "{fail_point:?} {fault}"
                );
                // Open Messaging has no history to check first. Each response that is lost, by the
                // fault or by the crash, may repeat the message.
                let most = if *surface == OPEN_MESSAGING && death.died() {
                    2
                } else {
                    1
                };
                assert!(
                    state.repeated_first_messages - repeated <= most,
                    "{fail_point:?} {fault}"
                );
                deaths += usize::from(death.died());
            }
        }
        assert_at_rest(&platform, cases as u64 + 1).await;
        (cases, deaths)
    })
}

fn crash_everywhere_with_every_fault(backend: Backend, part: usize) {
    let fail_points =
        fail_points(&Surface::Rest).filter(|fail_point| !is_first_use(backend, *fail_point));
    crash_with_every_fault_at(
        backend,
        fail_points.skip(part).step_by(2),
        FaultKind::ALL,
        &Surface::Rest,
    );
}

fn crash_with_every_fault_at(
    backend: Backend,
    fail_points: impl Iterator<Item = FailPoint>,
    kinds: &[FaultKind],
    surface: &Surface,
) {
    let mut all = 0;
    for fail_point in fail_points {
        let (cases, deaths) = crash_with_every_fault(backend, Some(fail_point), kinds, surface);
        tell(&format!(
            "  {fail_point:<24} {cases} faults at their steps, died in {deaths}"
        ));
        assert!(deaths > 0, "{fail_point}");
        all += cases;
    }
    tell(&format!("{surface}: {all} cases"));
}

/// The fail points that only the public surfaces have, and those around them. The other fail
/// points behave the same on every surface.
fn public_fail_points(backend: Backend, surface: &Surface) -> impl Iterator<Item = FailPoint> {
    let more = [
        FailPoint::SignedIn,
        FailPoint::AttemptFailed,
        FailPoint::ContactCreated,
        FailPoint::ConversationOpened,
        FailPoint::FailureStored,
    ];
    fail_points(surface).filter(move |fail_point| {
        (FAIL_POINTS_OF_PUBLIC_SURFACES.contains(fail_point) || more.contains(fail_point))
            && !is_first_use(backend, *fail_point)
    })
}

/// One fault of each class: three with the work done and the response lost, one with nothing done,
/// one refusal.
const FAULT_CLASSES: &[FaultKind] = &[
    FaultKind::AnswerLost,
    FaultKind::BadGatewayAfter,
    FaultKind::HangAfter,
    FaultKind::Reset,
    FaultKind::Forbidden,
];

fn every_fault_at_every_step(backend: Backend, surface: &Surface) {
    let (cases, _) = crash_with_every_fault(backend, None, FaultKind::ALL, surface);
    tell(&format!("{surface}: {cases} faults at their steps"));
}

#[rstest]
#[test]
fn web_messaging_session_completes_once_after_every_fault(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    every_fault_at_every_step(backend, &WEB_MESSAGING);
}

#[rstest]
#[test]
fn open_messaging_session_completes_once_after_every_fault(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    every_fault_at_every_step(backend, &OPEN_MESSAGING);
}

#[rstest]
#[test]
fn web_messaging_session_completes_once_after_fault_and_crash(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    crash_with_every_fault_at(
        backend,
        public_fail_points(backend, &WEB_MESSAGING),
        FAULT_CLASSES,
        &WEB_MESSAGING,
    );
}

#[rstest]
#[test]
fn open_messaging_session_completes_once_after_fault_and_crash(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    crash_with_every_fault_at(
        backend,
        public_fail_points(backend, &OPEN_MESSAGING),
        FAULT_CLASSES,
        &OPEN_MESSAGING,
    );
}

// Two halves, so that two processors run them in parallel.
#[rstest]
#[test]
fn rest_session_completes_once_after_fault_and_crash_part_1(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    crash_everywhere_with_every_fault(backend, 0);
}

#[rstest]
#[test]
fn rest_session_completes_once_after_fault_and_crash_part_2(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    crash_everywhere_with_every_fault(backend, 1);
}
