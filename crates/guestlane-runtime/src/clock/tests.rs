//! Tests of `clock`.

use super::*;

fn clock() -> (ManualClock, Clock) {
    let manual = ManualClock::new(Timestamp::from_unix_micros(1_000_000));
    (manual.clone(), manual.into())
}

#[test]
fn timestamp_is_formatted_as_rfc_3339_with_microseconds() {
    let moment = Timestamp::from_unix_micros(1_795_361_029_123_456);
    assert_eq!(moment.to_string(), "2026-11-22T15:23:49.123456Z");
    assert_eq!("2026-11-22T16:23:49.123456+01:00".parse(), Ok(moment));
    assert_eq!("yesterday".parse::<Timestamp>(), Err(InvalidTimestamp));
    assert_eq!(
        Timestamp::from_unix_micros(0).to_string(),
        "1970-01-01T00:00:00.000000Z"
    );
}

#[tokio::test]
async fn manual_clock_wakes_sleepers_in_deadline_order() {
    let (manual, clock) = clock();
    let (late, early) = (clock.clone(), clock.clone());
    let late = tokio::spawn(async move { late.sleep(Duration::from_secs(5)).await });
    let early = tokio::spawn(async move { early.sleep(Duration::from_secs(2)).await });
    tokio::task::yield_now().await;
    manual.advance(Duration::from_secs(3));
    early.await.unwrap();
    assert!(!late.is_finished());
    manual.advance(Duration::from_secs(3));
    late.await.unwrap();
    assert_eq!(clock.now().unix_seconds(), 7);
}

#[tokio::test]
async fn auto_advance_skips_sleeps_and_stops_while_paused() {
    let (manual, clock) = clock();
    manual.auto_advance();
    clock.sleep(Duration::from_secs(3600)).await;
    assert_eq!(clock.now().unix_seconds(), 3601);

    let busy = clock.pause_auto_advance();
    let waiting = tokio::spawn({
        let clock = clock.clone();
        async move { clock.sleep(Duration::from_secs(1)).await }
    });
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert!(!waiting.is_finished());
    drop(busy);
    waiting.await.unwrap();
}

#[tokio::test]
async fn wall_clock_change_does_not_affect_sleeps() {
    let (manual, clock) = clock();
    let waiting = tokio::spawn({
        let clock = clock.clone();
        async move { clock.sleep(Duration::from_secs(10)).await }
    });
    tokio::task::yield_now().await;
    manual.set_wall_clock(-3600);
    assert_eq!(
        (clock.now().unix_seconds(), clock.monotonic().unix_seconds()),
        (-3599, 1)
    );
    manual.advance(Duration::from_secs(10));
    waiting.await.unwrap();
    let system = Clock::system();
    assert!(system.monotonic() <= system.monotonic());
}

#[tokio::test]
async fn reference_clock_ignores_wall_clock_jumps() {
    let (manual, base) = clock();
    let reference = ReferenceClock::new(base.clone());
    let following = reference.clock();
    assert_eq!(
        (following.now(), reference.wall_clock_offset()),
        (base.now(), None)
    );
    reference.set(Timestamp::from_unix_micros(500_000_000), base.monotonic());
    manual.set_wall_clock(-3600);
    manual.advance(Duration::from_secs(5));
    assert_eq!(following.now().unix_seconds(), 505);
    assert_eq!(
        reference.wall_clock_offset(),
        Some(base.now().unix_micros() - 505_000_000)
    );
}

#[test]
fn boot_elapsed_grows_and_boot_id_changes_on_reboot() {
    let system = Clock::system();
    let (first, second) = (system.boot(), system.boot());
    assert!(first.id == second.id && first.elapsed <= second.elapsed);
    let (manual, clock) = clock();
    let first = clock.boot();
    manual.set_wall_clock(-3600);
    manual.advance(Duration::from_secs(5));
    assert_eq!(
        (clock.boot().id, clock.boot().elapsed - first.elapsed),
        (first.id, Duration::from_secs(5))
    );
    manual.reboot();
    assert_ne!(clock.boot().id, first.id);
}

#[tokio::test]
async fn timeout_returns_timed_out_for_a_pending_future() {
    let (manual, clock) = clock();
    manual.auto_advance();
    let limit = Duration::from_secs(10);
    assert_eq!(
        clock.timeout(limit, std::future::pending::<()>()).await,
        Err(TimedOut(limit))
    );
}
