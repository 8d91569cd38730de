//! Tests of `request`.

use proptest::prelude::*;

use super::*;

fn refused<T: FromStr<Err = ValidationError>>(text: &str) -> ValidationError {
    text.parse::<T>()
        .err()
        .unwrap_or_else(|| panic!("`{text}` was taken"))
}

#[test]
fn empty_overlong_or_control_character_guest_id_is_rejected() {
    assert_eq!(refused::<GuestId>("").reason, "is empty");
    assert_eq!(
        refused::<GuestId>(&"x".repeat(129)).reason,
        "has 129 characters"
    );
    assert_eq!(
        refused::<GuestId>("a\u{7}b").reason,
        "has a control character (U+0007) at position 2"
    );
    assert_eq!(
        refused::<GuestId>(" a").reason,
        "begins or ends with white space"
    );
    assert!(
        "é".repeat(128).parse::<GuestId>().is_ok(),
        "characters are counted, not bytes"
    );
}

#[test]
fn non_uuid_queue_id_is_rejected() {
    for text in [
        "",
        "sales",
        "5e0c0000000040008000000000000001",
        "{5e0c0000-0000-4000-8000-000000000001}",
    ] {
        assert_eq!(refused::<QueueId>(text).field, "queueId", "{text}");
    }
}

/// A later version may reserve a name that stored sessions already have.
#[test]
fn stored_attribute_with_a_reserved_name_is_still_readable() {
    for name in Attributes::RESERVED {
        let stored = [(name.to_owned(), "x".to_owned())].into();
        assert!(Attributes::recorded(stored).is_ok(), "{name}");
    }
}

#[test]
fn reserved_duplicate_or_oversized_attribute_is_rejected_by_name() {
    let refused =
        |pairs: &[(&str, &str)]| Attributes::from_pairs(pairs.iter().copied()).unwrap_err();
    for name in Attributes::RESERVED {
        assert_eq!(refused(&[(name, "x")]).field, format!("attributes.{name}"));
    }
    assert_eq!(
        refused(&[("GUESTTOKEN", "x")]).field,
        "attributes.GUESTTOKEN"
    );
    assert_eq!(
        refused(&[("tier", "a"), ("tier", "a")]).reason,
        "is given twice"
    );
    let large = "x".repeat(2048);
    assert_eq!(
        refused(&[("a", &large)]).reason,
        "have 2049 bytes in names and values together"
    );
    assert_eq!(refused(&[("a", "x\0")]).field, "attributes.a");
    assert!(Attributes::from_pairs([("a", &large[..2047])]).is_ok());
}

#[test]
fn idempotency_key_over_255_characters_is_rejected() {
    assert_eq!(
        refused::<IdempotencyKey>(&"k".repeat(256)).reason,
        "has 256 characters"
    );
    assert!("k".repeat(255).parse::<IdempotencyKey>().is_ok());
    assert_eq!(refused::<IdempotencyKey>("a b").field, "idempotencyKey");
}

#[test]
fn platform_key_is_derived_from_the_callers_key_alone() {
    let generated = IdempotencyKey::generate();
    assert_eq!(generated.platform_key(), generated.as_str());
    let upstream = |key: &str| key.parse::<IdempotencyKey>().unwrap().platform_key();
    assert_eq!(upstream("order-1"), upstream("order-1"));
    assert_ne!(upstream("order-1"), upstream("order-2"));
    // Pinned value: a version that derives another key would create second contacts.
    assert_eq!(
        upstream("order-1"),
        "webchat-session-7af15ad7-58ca-8cc5-b0e5-d73184eeb92e"
    );
}

#[test]
fn same_key_of_two_owners_yields_two_platform_keys() {
    let shops = ["shop-a", "shop-b"].map(Owner::of_api_key);
    for key in [
        "order-1",
        "webchat-session-7af15ad7-58ca-8cc5-b0e5-d73184eeb92e",
    ] {
        let key: IdempotencyKey = key.parse().unwrap();
        let owned = shops
            .clone()
            .map(|owner| key.clone().owned_by(owner).platform_key());
        assert!(
            owned[0] != owned[1]
                && owned
                    .iter()
                    .all(|platform_key| *platform_key != key.platform_key()),
            "{owned:?}"
        );
    }
}

fn request(guest: &str, attributes: &[(&str, &str)]) -> SessionRequest {
    SessionRequest {
        guest: guest.parse().unwrap(),
        contact_details: ContactDetails::default(),
        queue: "5e0c0000-0000-4000-8000-000000000001".parse().unwrap(),
        attributes: Attributes::from_pairs(attributes.iter().copied()).unwrap(),
        key: "k".parse().unwrap(),
    }
}

#[test]
fn mismatch_names_each_differing_field() {
    let first = request("ann", &[("tier", "gold"), ("source", "web")]);
    let other = request(
        "bob",
        &[("tier", "gold"), ("source", "app"), ("lang", "en")],
    );
    assert_eq!(
        first.differences(&other),
        ["guestId", "attributes.lang", "attributes.source"]
    );
    assert!(first.differences(&first).is_empty());
    let person = ContactDetails::new(
        Some("Ann".into()),
        None,
        Some("ann@example.org".into()),
        None,
    )
    .unwrap();
    let named = SessionRequest {
        contact_details: person,
        ..first.clone()
    };
    assert_eq!(first.differences(&named), ["firstName", "email"]);
    assert_ne!(first.fingerprint(), named.fingerprint());
}

proptest! {
    #[test]
    fn fingerprint_differs_exactly_when_a_field_differs(
        a in "[a-z]{1,3}", b in "[a-z]{1,3}", x in prop::collection::btree_map("[a-z]{1,2}", "[a-z]{0,2}", 0..3),
        y in prop::collection::btree_map("[a-z]{1,2}", "[a-z]{0,2}", 0..3),
    ) {
        let make = |guest: &str, map: &BTreeMap<String, String>| SessionRequest {
            attributes: Attributes::from_pairs(map.clone()).unwrap_or_default(), ..request(guest, &[])
        };
        let (first, second) = (make(&a, &x), make(&b, &y));
        prop_assert_eq!(first.fingerprint() == second.fingerprint(), first.differences(&second).is_empty());
    }

    #[test]
    fn parsing_never_panics(text in any::<String>()) {
        let _ = text.parse::<GuestId>();
        let _ = text.parse::<QueueId>();
        let _ = text.parse::<IdempotencyKey>();
        let _ = Attributes::from_pairs([(text.as_str(), text.as_str())]);
    }
}
