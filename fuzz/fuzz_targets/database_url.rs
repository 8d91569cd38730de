//! Fuzzes a database connection string.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| guestlane::fuzzing::database_url(text));
