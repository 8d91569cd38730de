//! A file of certificates: as many are read as begin, whatever ends the lines.
#![no_main]

use guestlane_genesys::{TlsRoots, pem::certificates};

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    if let Ok(read) = certificates(text) {
        let begun = String::from_utf8_lossy(text).matches("-----BEGIN CERTIFICATE-----").count();
        assert_eq!(read.len(), begun);
    }
    let _ = TlsRoots::from_pem(text);
});
