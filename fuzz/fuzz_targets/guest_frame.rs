//! Whatever comes over the guest socket is read without a panic, and a frame that was read is written and read the same.
#![no_main]

use guestlane_genesys::guest::frame::{ClientFrame, ServerFrame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(frame) = ServerFrame::parse(text) {
        let again = ServerFrame::parse(&frame.to_text());
        assert_eq!(again.ok(), Some(frame));
    }
    if let Ok(frame) = ClientFrame::parse(text) {
        let again = ClientFrame::parse(&frame.to_text());
        assert_eq!(again.ok(), Some(frame));
    }
});
