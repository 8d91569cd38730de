//! Fuzzes a settings file.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| guestlane_cli::fuzzing::settings_file(text));
