//! Fuzzes text from the guest WebSocket: parsing never panics, and a parsed frame can be written
//! and parsed again. The result need not be bit-identical, because untyped numbers may be larger
//! than a float can distinguish.
#![no_main]

use guestlane_genesys::guest::frame::{ClientFrame, ServerFrame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(frame) = ServerFrame::parse(text) {
        let again = ServerFrame::parse(&frame.to_text()).expect("a frame that was written");
        assert_eq!(
            (again.kind, again.code, again.body.class()),
            (frame.kind, frame.code, frame.body.class())
        );
    }
    if let Ok(frame) = ClientFrame::parse(text) {
        let again = ClientFrame::parse(&frame.to_text()).expect("a frame that was written");
        assert_eq!(
            (again.token, again.action.name()),
            (frame.token, frame.action.name())
        );
    }
});
