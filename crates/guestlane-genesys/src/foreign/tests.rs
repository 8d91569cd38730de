//! Tests of `foreign`.

use proptest::prelude::*;

use super::*;

#[test]
fn platform_id_is_visible_ascii_of_bounded_length() {
    let longest = "i".repeat(PlatformId::MAX);
    for good in [
        "a",
        "0a110000-0000-4000-8000-000000000002",
        "a/b?c",
        &longest,
    ] {
        assert_eq!(good.parse::<PlatformId>().unwrap(), good);
    }
    let too_long = "i".repeat(PlatformId::MAX + 1);
    for bad in [
        "",
        ".",
        "..",
        " ",
        "a b",
        "a\n",
        "a\u{202e}b",
        "é",
        &too_long,
    ] {
        assert_eq!(bad.parse::<PlatformId>(), Err(InvalidPlatformId), "{bad:?}");
        assert!(
            serde_json::from_value::<PlatformId>(bad.into()).is_err(),
            "{bad:?}"
        );
    }
}

#[test]
fn platform_id_cannot_escape_its_path_segment() {
    let path = |id: &str| {
        ApiPath::new("/api/v2/conversations")
            .segment(id.parse::<PlatformId>().unwrap())
            .then("/details")
    };
    assert_eq!(
        path("c-1.x_y~z").as_str(),
        "/api/v2/conversations/c-1.x_y~z/details"
    );
    assert_eq!(
        path("../queues?x=1#y").as_str(),
        "/api/v2/conversations/..%2Fqueues%3Fx%3D1%23y/details"
    );
    assert_eq!(
        path("%2e%2e").as_str(),
        "/api/v2/conversations/%252e%252e/details"
    );
}

#[test]
fn correlation_id_is_one_bounded_line() {
    assert_eq!(CorrelationId::new("c-1").unwrap(), "c-1");
    assert_eq!(
        CorrelationId::new("a\nThe session is open.\u{1b}[31m").unwrap(),
        "a The session is open. [31m"
    );
    assert_eq!(
        CorrelationId::new(&"é".repeat(9000))
            .unwrap()
            .chars()
            .count(),
        CorrelationId::MAX
    );
    assert_eq!(CorrelationId::new(" \r\n "), None);
}

#[test]
fn error_code_of_invalid_form_is_dropped() {
    assert_eq!(ErrorCode::new("too.many.requests"), "too.many.requests");
    for sentence in ["Invalid value: gold", "a\nb", &"x".repeat(129)] {
        assert_eq!(ErrorCode::new(sentence), "");
    }
}

#[test]
fn sentence_is_hidden_in_debug_output_and_yields_its_wait() {
    let sentence =
        PlatformMessage::new("Rate limit exceeded the maximum. Retry the request in [42] seconds");
    assert_eq!(format!("{sentence:?}"), "Sentence(66 bytes)");
    assert_eq!(sentence.seconds(), Some(42));
    for (text, seconds) in [
        ("try again in 60 seconds", Some(60)),
        ("Retry in (1) second.", Some(1)),
        ("Retry the request in [] seconds", None),
        ("Retry the request in [-4] seconds", None),
        ("in [99999999999999999999999] seconds", None),
        ("a few seconds", None),
        ("seconds", None),
        ("", None),
    ] {
        assert_eq!(PlatformMessage::new(text).seconds(), seconds, "{text}");
    }
}

#[test]
fn lenient_number_accepts_text_and_a_zero_fraction() {
    #[derive(Deserialize)]
    struct Life {
        #[serde(default, deserialize_with = "lenient_number")]
        seconds: Option<u32>,
    }
    let read = |json: &str| serde_json::from_str::<Life>(json).unwrap().seconds;
    for good in [
        r#"{"seconds":1800}"#,
        r#"{"seconds":"1800"}"#,
        r#"{"seconds":1800.0}"#,
        r#"{"seconds":" 1800.0 "}"#,
    ] {
        assert_eq!(read(good), Some(1800), "{good}");
    }
    for absent in [
        "{}",
        r#"{"seconds":null}"#,
        r#"{"seconds":[]}"#,
        r#"{"seconds":"soon"}"#,
        r#"{"seconds":-1}"#,
    ] {
        assert_eq!(read(absent), None, "{absent}");
    }
    for absent in [
        r#"{"seconds":1.5}"#,
        r#"{"seconds":1e300}"#,
        r#"{"seconds":"NaN"}"#,
        r#"{"seconds":4294967296}"#,
    ] {
        assert_eq!(read(absent), None, "{absent}");
    }
}

proptest! {
    #[test]
    fn arbitrary_platform_text_is_bounded(text in any::<String>()) {
        prop_assert!(CorrelationId::new(&text).is_none_or(|id| id.chars().count() <= CorrelationId::MAX));
        let _ = PlatformMessage::new(&text).seconds();
        if let Ok(id) = text.parse::<PlatformId>() {
            let path = ApiPath::new("/x").segment(&id);
            prop_assert_eq!(path.as_str().matches('/').count(), 2);
        }
    }
}
