//! Trace context propagation (W3C Trace Context). Without a collector, each span costs one
//! comparison.
//!
//! A program that collects traces [installs](install) two hooks. One makes a span a child of a
//! remote trace, the other returns the trace context of a span. Therefore this crate and those
//! above it do not depend on a tracing library such as OpenTelemetry.

use std::{borrow::Cow, sync::OnceLock};

use tracing::Span;

use crate::{
    attempt_log::{self, TraceParent},
    outage::Outage,
};

/// Target of all spans that make up a trace. Logs omit this target.
pub const TARGET: &str = "guestlane_trace";

/// Hooks that connect spans to remote traces.
#[derive(Debug, Clone, Copy)]
pub struct TraceHooks {
    /// Makes the span a child of the given trace.
    pub join: fn(&Span, TraceParent),
    /// Returns the trace context to propagate so that remote spans become children of this span.
    pub tell: fn(&Span) -> Option<TraceParent>,
}

/// Outage state of the trace collector.
pub static COLLECTOR: Outage = Outage::of(Cow::Borrowed("trace collector"));

static HOOKS: OnceLock<TraceHooks> = OnceLock::new();

/// Installs the hooks. Only the first call of a process has an effect.
pub fn install(ties: TraceHooks) {
    let _ = HOOKS.set(ties);
}

/// Makes the span a child of `parent`, if both a parent and hooks exist.
pub fn set_parent(span: &Span, parent: Option<TraceParent>) {
    if let (Some(ties), Some(parent)) = (HOOKS.get(), parent) {
        (ties.join)(span, parent);
    }
}

/// Returns the trace context to propagate: that of the current span, or else that of the caller's
/// request.
pub fn current() -> Option<TraceParent> {
    HOOKS
        .get()
        .and_then(|ties| (ties.tell)(&Span::current()))
        .or_else(attempt_log::parent)
}
