//! Trace context propagation (W3C Trace Context). Without a collector, each span costs one
//! comparison.
//!
//! A program that collects traces [installs](install) two hooks. One makes a span a child of a
//! remote trace, the other returns the trace context of a span. The crates do not depend on a tracing library such as OpenTelemetry.

use std::{borrow::Cow, sync::OnceLock};

use tracing::Span;

use crate::{Outage, TraceParent};

/// Target of all spans that make up a trace. Logs omit this target.
pub const TARGET: &str = "guestlane_trace";

/// Hooks that connect spans to remote traces.
#[derive(Debug, Clone, Copy)]
pub struct TraceHooks {
    /// Makes the span a child of the given trace.
    pub set_parent: fn(&Span, TraceParent),
    /// Returns the trace context to propagate so that remote spans become children of this span.
    pub parent_of: fn(&Span) -> Option<TraceParent>,
}

/// Outage state of the trace collector.
pub static COLLECTOR: Outage = Outage::of(Cow::Borrowed("trace collector"));

static HOOKS: OnceLock<TraceHooks> = OnceLock::new();

/// Installs the hooks. Only the first call of a process has an effect.
pub fn install(hooks: TraceHooks) {
    let _ = HOOKS.set(hooks);
}

/// Makes the span a child of `parent`, if both a parent and hooks exist.
pub fn set_parent(span: &Span, parent: Option<TraceParent>) {
    if let (Some(hooks), Some(parent)) = (HOOKS.get(), parent) {
        (hooks.set_parent)(span, parent);
    }
}

/// Returns the trace context of the current span, to propagate to other components.
pub fn current() -> Option<TraceParent> {
    HOOKS
        .get()
        .and_then(|hooks| (hooks.parent_of)(&Span::current()))
}
