//! Fuzzes a request for a session: an HTTP body or a row of JSON lines. A byte order mark changes
//! nothing.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    let plain = guestlane_server::fuzzing::session(text);
    if !text.starts_with(b"\xef\xbb\xbf") {
        let marked = guestlane_server::fuzzing::session(&[b"\xef\xbb\xbf", text].concat());
        // The idempotency key of a row without one depends on the row's content alone.
        assert_eq!(plain, marked);
    }
});
