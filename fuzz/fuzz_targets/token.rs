//! Fuzzes guest token verification: it accepts no token that this process did not sign.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| guestlane::fuzzing::token(text));
