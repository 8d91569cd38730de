//! Fuzzes a file of certificates: the parser reads as many as begin, with any line endings.
#![no_main]

use guestlane_runtime::{TlsRoots, pem::certificates};

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    if let Ok(read) = certificates(text) {
        let begun = String::from_utf8_lossy(text)
            .matches("-----BEGIN CERTIFICATE-----")
            .count();
        assert_eq!(read.len(), begun);
    }
    let _ = TlsRoots::from_pem(text);
});
