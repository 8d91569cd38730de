//! Settings of the environment, among them the URLs of platform, webhook and traces.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| guestlane::fuzzing::environment(text));
