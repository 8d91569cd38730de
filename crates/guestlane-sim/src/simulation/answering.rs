//! How the simulator answers a request: faults before and after the work, and the work itself.

use std::sync::atomic::Ordering;

use guestlane_runtime::Timestamp;
use http::{HeaderValue, Response, StatusCode};
use uuid::Uuid;

use super::{FrameReply, Simulation, lock};
use crate::{
    fault::{Fault, FaultKind},
    fault_injection::{
        self, Disconnect, PostFault, PreFault,
        frames::{self, PostFault as Outcome},
        held_request::HeldRequest,
    },
    frame::Reply,
    public_api::{guest::frames::Given, is_gateway},
    rate_window::RateHeaders,
    request::Request,
    response::{Body, Refusal, tagged},
    route::{Operation, Route, RouteMatch},
};

impl Simulation {
    pub(super) fn answer_frame(
        &self,
        connection: u64,
        given: &Given,
        wanted: Option<&Fault>,
    ) -> (FrameReply, Option<u16>) {
        let only = |outcome| FrameReply {
            before: Vec::new(),
            outcome,
            after: Vec::new(),
            close: false,
        };
        let Some(wanted) = wanted else {
            let Reply {
                before,
                answer,
                after,
                close,
            } = lock(&self.organization).frame(connection, given, self.now());
            let code = Some(answer.code);
            return (
                FrameReply {
                    before,
                    outcome: Outcome::Text(answer.to_text()),
                    after,
                    close,
                },
                code,
            );
        };
        match frames::before(wanted, given.tracing_id.clone()) {
            frames::PreFault::Work => {}
            frames::PreFault::Answer(answer) => {
                return (only(Outcome::Text(answer.to_text())), Some(answer.code));
            }
            frames::PreFault::Reset => return (only(Outcome::Reset), None),
            frames::PreFault::Hang => return (only(Outcome::Hang), None),
        }
        let now = self.now_as_of(wanted);
        let Reply {
            before,
            answer,
            after,
            close,
        } = {
            let mut organization = lock(&self.organization);
            if wanted.kind == FaultKind::TokenRevoked {
                organization.oauth.revoke_tokens();
            }
            organization.frame(connection, given, now)
        };
        let (outcome, code) = frames::after(wanted, answer);
        // A lost response also loses the frames that would have been pushed after it.
        let goes_on = matches!(outcome, Outcome::Text(_) | Outcome::Later(..));
        let (before, after) = if goes_on {
            (before, after)
        } else {
            Default::default()
        };
        (
            FrameReply {
                before,
                outcome,
                after,
                close,
            },
            code,
        )
    }

    /// Counts a request or a frame, and returns its number, its correlation ID and its arrival
    /// time.
    pub(super) async fn begin(&self) -> (u64, Uuid, Timestamp) {
        let n = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let correlation_id =
            Uuid::from_u64_pair(0xc0de_0000_0000_4000 | self.seed & 0xffff, (1 << 63) | n);
        let at = self.now();
        if !self.latency.is_zero() {
            self.clock.sleep(self.latency).await;
        }
        (n, correlation_id, at)
    }

    /// Returns the time that a call with this fault sees.
    fn now_as_of(&self, fault: &Fault) -> Timestamp {
        let skew = if fault.kind == FaultKind::ClockSkew {
            fault.seconds.unwrap_or(3600)
        } else {
            0
        };
        Timestamp::from_unix_micros(self.now().unix_micros() + skew * 1_000_000)
    }

    pub(super) fn fault(&self, route: Route) -> Option<Fault> {
        let nth = self.calls[route as usize].fetch_add(1, Ordering::Relaxed) + 1;
        let mut faults = lock(&self.faults);
        let nth = nth.saturating_sub(faults.before[route as usize]);
        let hit = (0_u64..)
            .zip(&faults.wanted)
            .find(|(salt, fault)| fault.hits(route, nth, faults.seed, *salt));
        let fault = *hit?.1;
        *faults.hits.entry(fault.kind.name()).or_default() += 1;
        Some(fault)
    }

    pub(super) async fn answer(
        &self,
        matched: RouteMatch,
        fault: Option<&Fault>,
        request: &Request,
        correlation_id: Uuid,
    ) -> Result<Response<Body>, Disconnect> {
        let refuse = |refusal: Refusal| {
            Ok(tagged(
                refusal.answer(correlation_id),
                correlation_id,
                RateHeaders::default(),
            ))
        };
        let (op, ids) = match matched {
            RouteMatch::Route(op, ids) => (op, ids),
            RouteMatch::WrongMethod => {
                let message = "The method is not allowed on this path.";
                return refuse(Refusal::new(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "method.not.allowed",
                    message,
                ));
            }
            RouteMatch::Unknown => return refuse(Refusal::not_found()),
        };
        let Some(fault) = fault else {
            return Ok(self.work(op, &ids, request, self.now(), correlation_id));
        };
        let route = op.route();
        let slows = [
            FaultKind::TooManyRequests,
            FaultKind::TooManyRequestsDate,
            FaultKind::TooManyRequestsSentence,
            FaultKind::Unavailable,
        ];
        let rate = match slows.contains(&fault.kind) && op.is_behind_a_token() {
            true => lock(&self.organization).quota_of(&request.headers, self.now()),
            false => RateHeaders::default(),
        };
        match fault_injection::before(fault, route, &request.body, self.now(), correlation_id) {
            PreFault::Proceed => {}
            PreFault::Reject(refusal) => {
                return Ok(tagged(refusal.answer(correlation_id), correlation_id, rate));
            }
            PreFault::Respond(response) => return Ok(tagged(response, correlation_id, rate)),
            PreFault::Disconnect(ending) => return Err(ending),
            PreFault::Hang => return self.hang().await,
        }
        let revoked = fault.kind == FaultKind::TokenRevoked;
        if revoked && route != Route::Token {
            lock(&self.organization).oauth.revoke_tokens();
        }
        let answer = self.work(op, &ids, request, self.now_as_of(fault), correlation_id);
        if revoked && route == Route::Token {
            lock(&self.organization).oauth.revoke_tokens();
        }
        match fault_injection::after(
            fault,
            answer,
            &self.clock,
            HeldRequest::new(&self.hanging),
            correlation_id,
        )
        .await
        {
            PostFault::Respond(response) => {
                Ok(tagged(response, correlation_id, RateHeaders::default()))
            }
            PostFault::Disconnect(ending) => Err(ending),
            PostFault::Hang => self.hang().await,
        }
    }

    async fn hang(&self) -> Result<Response<Body>, Disconnect> {
        let _held = HeldRequest::new(&self.hanging);
        std::future::pending().await
    }

    fn work(
        &self,
        op: Operation,
        ids: &[String],
        request: &Request,
        now: Timestamp,
        correlation_id: Uuid,
    ) -> Response<Body> {
        let (answer, rate) = if op == Operation::Crm {
            (
                lock(&self.crm).receive(&request.headers, &request.body, now),
                RateHeaders::default(),
            )
        } else {
            lock(&self.organization).answer(op, ids, request, now)
        };
        let mut response = tagged(
            answer.unwrap_or_else(|refusal| refusal.answer(correlation_id)),
            correlation_id,
            rate,
        );
        if self.gateway && is_gateway(op, request) {
            response
                .headers_mut()
                .insert("guestlane-sim-route", HeaderValue::from_static("gateway"));
        }
        response
    }
}
