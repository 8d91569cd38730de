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
    pub(super) async fn try_once(
        &self,
        receiver: &EndpointWorker,
        event: Event,
    ) -> DeliveryAttempt {
        let span = info_span!(
            target: trace_context::TARGET,
            "deliver",
            otel.name = "deliver event",
            otel.kind = "producer",
            otel.status_code = Empty,
            messaging.message.id = event.id,
            guestlane.receiver = receiver.number,
            guestlane.attempt = event.tries + 1,
            error.type = Empty,
        );
        trace_context::set_parent(&span, event.trace);
        self.try_in_span(receiver, event).instrument(span).await
    }

    async fn try_in_span(&self, receiver: &EndpointWorker, event: Event) -> DeliveryAttempt {
        let endpoint = receiver.endpoint.load_full();
        let tried = receiver.crm.deliver(&event, &endpoint.keys).await;
        if matches!(tried, DeliveryAttempt::Gone(_)) {
            self.disable(receiver).await;
        }
        let settlement = match &tried {
            DeliveryAttempt::Settled(settlement) | DeliveryAttempt::Gone(settlement) => {
                settlement.clone()
            }
            DeliveryAttempt::Local(reason) => {
                Span::current()
                    .record("error.type", reason)
                    .record("otel.status_code", "ERROR");
                self.warn_of_this_machine(receiver, reason);
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
                receiver.outage.well(self.clock.monotonic());
                debug!(
                    event = event.id,
                    receiver = receiver.number,
                    "delivered the event"
                );
            }
            DeliveryOutcome::Retry { at, error } => {
                receiver.outage.failed(error, self.clock.monotonic());
                debug!(event = event.id, receiver = receiver.number, error, again = %at, "failed to deliver the event; retrying");
            }
            DeliveryOutcome::Dead { error } => {
                warn!(
                    event = event.id,
                    receiver = receiver.number,
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
    async fn disable(&self, receiver: &EndpointWorker) {
        let now = self.clock.now();
        let known = receiver.endpoint.load_full();
        receiver.endpoint.store(Arc::new(Endpoint {
            disabled_at: Some(now),
            ..Endpoint::clone(&known)
        }));
        match self.endpoints.disable(receiver.number, now).await {
            Ok(true) => error!(
                receiver = receiver.number,
                "the webhook endpoint responded with 410 Gone; disabling it and keeping its events until `guestlane outbox enable {}`",
                receiver.number
            ),
            Ok(false) => {}
            Err(error) => warn!(
                error = display_chain(&error),
                "failed to disable a webhook endpoint that responded with 410 Gone; retrying with its next event"
            ),
        }
    }

    /// Logs at most once per interval, because every due event fails in the same way.
    fn warn_of_this_machine(&self, receiver: &EndpointWorker, error: &str) {
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
            let (receiver, lease) = (receiver.number, Event::LEASE.as_secs());
            warn!(
                receiver,
                error,
                "this machine cannot open a connection; retrying events within {lease} s without counting an attempt"
            );
        }
    }
}
