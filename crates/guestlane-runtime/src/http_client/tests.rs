//! Tests of `http_client`.

use super::*;

const NOW: Timestamp = Timestamp::from_unix_micros(1_795_361_029_000_000);

#[test]
fn retry_after_is_read_as_seconds_and_as_a_date() {
    let day = Duration::from_secs(86_400);
    let wait = |value: &str| {
        let headers = HeaderMap::from_iter([(header::RETRY_AFTER, value.parse().unwrap())]);
        retry_after(&headers, NOW, day)
    };
    assert_eq!(wait("42"), Some(Duration::from_secs(42)));
    for beyond in [
        "86401",
        "4294967295",
        "99999999999999999999999999",
        "Fri, 22 Nov 2126 15:24:49 GMT",
    ] {
        assert_eq!(wait(beyond), Some(day), "{beyond}");
    }
    assert_eq!(
        wait("Sun, 22 Nov 2026 15:24:49 GMT"),
        Some(Duration::from_secs(60))
    );
    assert_eq!(wait("Sun, 22 Nov 2020 15:24:49 GMT"), Some(Duration::ZERO));
    assert_eq!(wait("soon"), None);
    assert_eq!(wait("-1"), None);
}
