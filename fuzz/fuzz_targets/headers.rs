//! Fuzzes request headers and `traceparent`.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    guestlane_server::fuzzing::headers(text);
    if let Ok(text) = std::str::from_utf8(text) {
        guestlane_genesys::fuzzing::traceparent(text);
    }
});
