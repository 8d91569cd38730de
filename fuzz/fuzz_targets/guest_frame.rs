//! Whatever comes over the guest socket is read without a panic, and a frame that was read can be written and read again. (Not the same to the
//! bit: numbers nobody has a type for may be larger than any float tells apart.)
#![no_main]

use guestlane_genesys::guest::frame::{ClientFrame, ServerFrame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(frame) = ServerFrame::parse(text) {
        let again = ServerFrame::parse(&frame.to_text()).expect("a frame that was written");
        assert_eq!((again.kind, again.code, again.body.class()), (frame.kind, frame.code, frame.body.class()));
    }
    if let Ok(frame) = ClientFrame::parse(text) {
        let again = ClientFrame::parse(&frame.to_text()).expect("a frame that was written");
        assert_eq!((again.token, again.action.name()), (frame.token, frame.action.name()));
    }
});
