//! Fuzzes an audit log file, a checkpoint, a proof and a verifier key.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| guestlane::fuzzing::audit(text));
