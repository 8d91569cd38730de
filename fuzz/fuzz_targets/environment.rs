//! Fuzzes settings from environment variables, including the URLs of platform, webhook and traces.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| guestlane_cli::fuzzing::environment(text));
