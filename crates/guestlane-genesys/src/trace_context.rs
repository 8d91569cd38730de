//! Spans for whoever collects traces. Without a collector they cost a comparison each.
//!
//! A program that collects [installs](install) two functions: how a span joins a trace that began elsewhere, and what of a span is told to others.
//! So this crate, and those above it, need no library for it.

use std::{borrow::Cow, sync::OnceLock};

use tracing::Span;

use crate::{
    attempt_log::{self, TraceParent},
    outage::Outage,
};

/// The target of all spans that make up a trace. A log shows none of them.
pub const TARGET: &str = "guestlane_trace";

/// How spans are tied to traces of others.
#[derive(Debug, Clone, Copy)]
pub struct TraceHooks {
    /// Makes the span a part of that trace.
    pub join: fn(&Span, TraceParent),
    /// What others must be told to become a part of this span's.
    pub tell: fn(&Span) -> Option<TraceParent>,
}

/// Whether the trace collector takes what it is sent.
pub static COLLECTOR: Outage = Outage::of(Cow::Borrowed("trace collector"));

static HOOKS: OnceLock<TraceHooks> = OnceLock::new();

/// From now on spans are tied to traces of others. Once for a process.
pub fn install(ties: TraceHooks) {
    let _ = HOOKS.set(ties);
}

/// Makes the span a part of that trace, where there is one.
pub fn set_parent(span: &Span, parent: Option<TraceParent>) {
    if let (Some(ties), Some(parent)) = (HOOKS.get(), parent) {
        (ties.join)(span, parent);
    }
}

/// What others must be told to become a part of this trace: of the span that we are in, else of whoever asked us.
pub fn current() -> Option<TraceParent> {
    HOOKS.get().and_then(|ties| (ties.tell)(&Span::current())).or_else(attempt_log::parent)
}
