//! Outages of the platform at the rate limit.

use super::*;

/// Returns the number of calls to the platform in each second of the platform's time.
fn by_second(platform: &TestPlatform) -> BTreeMap<i64, u64> {
    let mut seconds = BTreeMap::new();
    for entry in platform.sim.journal() {
        if entry.route.is_some_and(|route| route.name() != "crm") {
            *seconds.entry(entry.at.unix_seconds()).or_default() += 1;
        }
    }
    seconds
}

/// Creates `a_second` sessions per second at a constant rate, whatever their results.
async fn arrivals(
    platform: &TestPlatform,
    engine: &Arc<SessionEngine>,
    a_second: u32,
    seconds: u32,
    name: &str,
) {
    let clock = platform.clock();
    let mut running = JoinSet::new();
    for n in 0..a_second * seconds {
        clock.sleep(Duration::from_secs(1) / a_second).await;
        let (engine, wish) = (Arc::clone(engine), request(&format!("{name}-{n}")));
        running.spawn(async move { drop(engine.create(wish).await) });
    }
    running.join_all().await;
}

#[tokio::test]
async fn platform_outage_raises_call_load_by_at_most_10_percent() {
    const RATE: u32 = 10;
    let platform = TestPlatform::new(Sqlite).await;
    let engine = platform.engine().await;
    let working = tokio::spawn(guestlane::Workers::new(std::sync::Arc::clone(&engine)).run());
    let calls = || {
        platform
            .sim
            .state()
            .calls
            .iter()
            .filter(|(route, _)| **route != "crm")
            .map(|(_, calls)| calls)
            .sum::<u64>()
    };
    arrivals(&platform, &engine, RATE, 60, "before").await;
    let normal = calls() as f64 / 60.0;
    let began = calls();
    platform.faults(&["any:500"]);
    arrivals(&platform, &engine, RATE, 600, "during").await;
    let failing = (calls() - began) as f64 / 600.0;
    tell(&format!(
        "{normal:.1} calls/s normally, {failing:.1} while all fail: {:.2} times",
        failing / normal
    ));
    assert!(
        failing <= normal * 1.1,
        "{failing} calls a second, {normal} normally"
    );
    platform.faults(&[]);
    working.abort();
}

#[tokio::test]
async fn batch_reaches_95_percent_of_its_rate_10_seconds_after_an_outage() {
    let platform = platform(1, "100/s").await;
    let engine = platform.engine().await;
    let working = tokio::spawn(guestlane::Workers::new(std::sync::Arc::clone(&engine)).run());
    let rows = tokio::spawn({
        let engine = Arc::clone(&engine);
        async move { batch(&engine, 3000).await }
    });
    let clock = platform.clock();
    clock.sleep(Duration::from_secs(10)).await;
    platform.faults(&["any:500"]);
    clock.sleep(Duration::from_secs(300)).await;
    platform.faults(&[]);
    let back = platform.clock.now().unix_seconds();
    let failed = rows.await.unwrap();
    let seconds = by_second(&platform);
    let outage: u64 = seconds
        .range(back - 300..back)
        .map(|(_, calls)| calls)
        .sum();
    let later: Vec<u64> = (back + 10..back + 25)
        .map(|second| seconds.get(&second).copied().unwrap_or_default())
        .collect();
    tell(&format!(
        "{outage} calls in the outage, {failed} rows failed in it; calls by second from 10 s after it: {later:?}"
    ));
    assert!(outage as f64 / 300.0 <= 110.0);
    assert!(
        later.iter().sum::<u64>() >= 95 * 98 * later.len() as u64 / 100,
        "{later:?}"
    );
    assert!(seconds.values().all(|calls| *calls <= 100), "{seconds:?}");
    assert_eq!(platform.sim.state().throttled, 0);
    assert!(failed <= 150, "only what began before it was noticed");
    // Sessions that were in flight are completed without a further request.
    while engine.store().unfinished().await.unwrap() > 0 {
        clock.sleep(Duration::from_secs(1)).await;
    }
    platform.assert_each_guest_once(3000);
    working.abort();
}
