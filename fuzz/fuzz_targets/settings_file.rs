//! Fuzzes a settings file.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| guestlane::fuzzing::settings_file(text));
