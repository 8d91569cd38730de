//! Fuzzes a response of the platform: status, headers (Retry-After, rate limits, correlation id),
//! body.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &[u8]| guestlane_genesys::fuzzing::answer(text));
