//! Fuzzes the query of a list, with its cursor.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &[u8]| guestlane_server::fuzzing::query(text));
