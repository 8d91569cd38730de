//! One delivery: its span, its result, and what the result does to the endpoint.

use std::sync::{Arc, atomic::Ordering};

use guestlane_core::event::Event;
use guestlane_runtime::{FailPoint, text::display_chain, trace_context};
use guestlane_store::DeliveryOutcome;
use tracing::{Instrument, Span, debug, error, field::Empty, info_span, warn};

use super::{
    super::{deliver::DeliveryAttempt, endpoints::Endpoint},
    EndpointWorker, Outbox, WARN_EVERY,
};

impl Outbox {
    pub(super) async fn try_once(&self, worker: &EndpointWorker, event: Event) -> DeliveryAttempt {
        let span = info_span!(
            target: trace_context::TARGET,
            "deliver",
            otel.name = "deliver event",
            otel.kind = "producer",
            otel.status_code = Empty,
            messaging.message.id = event.id,
            guestlane.endpoint = worker.number,
            guestlane.attempt = event.attempts + 1,
            error.type = Empty,
        );
        trace_context::set_parent(&span, event.trace);
        self.try_in_span(worker, event).instrument(span).await
    }

    async fn try_in_span(&self, worker: &EndpointWorker, event: Event) -> DeliveryAttempt {
        let endpoint = worker.endpoint.load_full();
        let tried = worker.crm.deliver(&event, &endpoint.keys).await;
        if matches!(tried, DeliveryAttempt::Gone(_)) {
            self.disable(worker).await;
        }
        let settlement = match &tried {
            DeliveryAttempt::Settled(settlement) | DeliveryAttempt::Gone(settlement) => {
                settlement.clone()
            }
            DeliveryAttempt::Local(reason) => {
                Span::current()
                    .record("error.type", reason)
                    .record("otel.status_code", "ERROR");
                self.warn_of_this_machine(worker, reason);
                // The result is not stored: the event is due again when its lease ends, and the
                // delivery is not counted.
                return tried;
            }
        };
        self.fail_points.hit(FailPoint::EventSent).await;
        if let DeliveryOutcome::Retry { error, .. } | DeliveryOutcome::Dead { error } = &settlement
        {
            Span::current()
                .record("error.type", error)
                .record("otel.status_code", "ERROR");
        }
        match &settlement {
            DeliveryOutcome::Delivered => {
                worker.outage.well(self.clock.monotonic());
                debug!(
                    event = event.id,
                    endpoint = worker.number,
                    "delivered the event"
                );
            }
            DeliveryOutcome::Retry { at, error } => {
                worker.outage.failed(error, self.clock.monotonic());
                debug!(event = event.id, endpoint = worker.number, error, again = %at, "failed to deliver the event; retrying");
            }
            DeliveryOutcome::Dead { error } => {
                warn!(
                    event = event.id,
                    endpoint = worker.number,
                    error,
                    "failed to deliver the event after the last attempt; keeping it as a dead letter"
                );
            }
        }
        // If this fails, the event is due again when its lease ends. It is delivered twice with one
        // ID, and never lost.
        if let Err(error) = self
            .store
            .record_delivery(event, settlement, self.clock.now())
            .await
        {
            guestlane_store::log_failure(
                &error,
                "failed to record a delivery; the event is delivered again with the same ID",
            );
        }
        self.fail_points.hit(FailPoint::DeliveryRecorded).await;
        tried
    }

    /// Disables the endpoint. If the store cannot be written, the next event gets the same
    /// response.
    async fn disable(&self, worker: &EndpointWorker) {
        let now = self.clock.now();
        let known = worker.endpoint.load_full();
        worker.endpoint.store(Arc::new(Endpoint {
            disabled_at: Some(now),
            ..Endpoint::clone(&known)
        }));
        match self.endpoints.disable(worker.number, now).await {
            Ok(true) => error!(
                endpoint = worker.number,
                "the webhook endpoint responded with 410 Gone; disabling it and keeping its events until it is enabled"
            ),
            Ok(false) => {}
            Err(error) => warn!(
                error = display_chain(&error),
                "failed to disable a webhook endpoint that responded with 410 Gone; retrying with its next event"
            ),
        }
    }

    /// Logs at most once per interval, because every due event fails in the same way.
    fn warn_of_this_machine(&self, worker: &EndpointWorker, error: &str) {
        let now = self.clock.monotonic().unix_micros();
        let due = |last: i64| {
            now.saturating_sub(last) >= i64::try_from(WARN_EVERY.as_micros()).unwrap_or(i64::MAX)
        };
        let claimed = self
            .warned_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| {
                due(last).then_some(now)
            });
        if claimed.is_ok() {
            let (endpoint, lease) = (worker.number, Event::LEASE.as_secs());
            warn!(
                endpoint,
                error,
                "this machine cannot open a connection; retrying events within {lease} s without counting an attempt"
            );
        }
    }
}
