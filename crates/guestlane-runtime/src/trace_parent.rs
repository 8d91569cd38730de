//! `traceparent` (W3C Trace Context, section 3.2).

use std::{fmt, str::FromStr};

/// `traceparent` (W3C Trace Context, section 3.2): the trace that the caller started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    trace: u128,
    parent: u64,
    flags: u8,
}

/// The text is not a valid `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not version-trace-parent-flags, in lower-case hex")]
pub struct InvalidTraceParent;

impl TraceParent {
    /// Creates a trace context from its parts; `None` if one of the IDs is zero.
    pub fn new(trace: u128, parent: u64, sampled: bool) -> Option<Self> {
        (trace != 0 && parent != 0).then_some(Self {
            trace,
            parent,
            flags: u8::from(sampled),
        })
    }

    /// Returns the trace ID, the ID of the parent span, and whether the trace is sampled.
    pub fn parts(&self) -> (u128, u64, bool) {
        (self.trace, self.parent, self.flags == 1)
    }

    /// Returns the trace ID, 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }

    /// Returns the parent span ID, 16 hexadecimal digits.
    pub fn span_id(&self) -> String {
        format!("{:016x}", self.parent)
    }
}

impl FromStr for TraceParent {
    type Err = InvalidTraceParent;

    /// Parses a `traceparent`. An unknown later version is parsed like version 00 (section 3.2.4);
    /// `ff` is invalid.
    fn from_str(text: &str) -> Result<Self, InvalidTraceParent> {
        let hex = |at: std::ops::Range<usize>| {
            let digits = text.get(at)?;
            let lower = digits
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            lower.then_some(digits)
        };
        let read = || {
            let version = hex(0..2).filter(|version| *version != "ff")?;
            let dashes = [2, 35, 52]
                .iter()
                .all(|at| text.as_bytes().get(*at) == Some(&b'-'));
            let ends =
                text.len() == 55 || (version != "00" && text.as_bytes().get(55) == Some(&b'-'));
            let trace = u128::from_str_radix(hex(3..35)?, 16)
                .ok()
                .filter(|trace| *trace != 0)?;
            let parent = u64::from_str_radix(hex(36..52)?, 16)
                .ok()
                .filter(|parent| *parent != 0)?;
            let flags = u8::from_str_radix(hex(53..55)?, 16).ok()?;
            (dashes && ends).then_some(Self {
                trace,
                parent,
                flags: flags & 1,
            })
        };
        read().ok_or(InvalidTraceParent)
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "00-{:032x}-{:016x}-{:02x}",
            self.trace, self.parent, self.flags
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn traceparent_is_parsed_as_in_w3c_trace_context() {
        const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(GOOD.parse::<TraceParent>().unwrap().to_string(), GOOD);
        // A later version may have further fields and unknown flags.
        let later = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff-what-the-future";
        assert_eq!(later.parse::<TraceParent>().unwrap().to_string(), GOOD);
        for bad in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
        ] {
            assert_eq!(bad.parse::<TraceParent>(), Err(InvalidTraceParent), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn traceparent_parsing_never_panics(text in any::<String>(), cut in 0_usize..60) {
            let _ = text.parse::<TraceParent>();
            let near: String = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".chars().take(cut).chain(text.chars()).collect();
            let _ = near.parse::<TraceParent>();
        }
    }
}
