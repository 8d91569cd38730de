//! A file of the audit log, a checkpoint, a proof, a verifier key.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| guestlane::fuzzing::audit(text));
