//! The executor of the saga: runs the steps of a session in order and commits each transition.

use guestlane_genesys::{AttemptLog, Priority, guest::frame::SessionToken};
use guestlane_runtime::{Timestamp, trace_context};

use tracing::{Instrument, Span, field::Empty, info_span};

use crate::{
    engine::SessionEngine, error::Error, failure::key_reuse_error, messaging,
    workspace::open_guest_session,
};
use guestlane_core::{
    request::SessionRequest,
    session::{SessionRecord, SessionState, SurfaceBinding},
    token::{GuestToken, TokenIdentity},
};
use guestlane_store::{BeginOutcome, StoreError};

/// A session that is open, and the token that vouches for its guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedSession {
    /// The session record as it is stored.
    pub session: SessionRecord,
    /// The guest token that was sent to the platform.
    pub guest_token: GuestToken,
    /// The guest session token of the guest API, on the surface `web-messaging` only. With it and
    /// the deployment, a browser or app takes the session over.
    pub guest_session: Option<SessionToken>,
    /// Whether the session was open already, so that the result is a replay.
    pub replayed: bool,
}

impl SessionEngine {
    /// Creates a session, or returns the existing session of the same idempotency key.
    ///
    /// # Errors
    /// The error says what exists on the platform, and whether the engine completes the session
    /// later.
    pub async fn create(&self, request: SessionRequest) -> Result<CreatedSession, Error> {
        let trail = AttemptLog::current().unwrap_or_default();
        let span = self.span("create session");
        self.record_outcome(
            trail
                .scope(self.create_or_replay(request))
                .instrument(span)
                .await,
        )
    }

    async fn create_or_replay(&self, request: SessionRequest) -> Result<CreatedSession, Error> {
        let asked_at = self.clock.now();
        let deadline = asked_at + self.deadline;

        if let Err(invalid) = messaging::validate(&self.surface, &request)
            && self.store.find_by_key(request.key.clone()).await?.is_none()
        {
            return Err(invalid.into()); // An existing session continues on the surface it began on.
        }
        self.check_organization(deadline).await?;
        self.verify_queue(&request).await?;
        loop {
            let admission = self.begin_session(&request).await?;
            match admission {
                BeginOutcome::Acquired(session) => {
                    match self.run_saga(session, asked_at, deadline).await {
                        // Another process claimed the session after this lease expired. Loop to return
                        // the result of that process.
                        Err(Error::Store(StoreError::LeaseLost)) if self.clock.now() < deadline => {
                        }
                        driven => return driven,
                    }
                }
                BeginOutcome::AlreadyCompleted(session) => {
                    self.keys.ensure_loaded(&session.token.kid).await;
                    return self.created(session, true);
                }
                BeginOutcome::InProgress(session) => {
                    self.wait_until_released(&session, deadline).await?
                }
                BeginOutcome::KeyReused(session) => {
                    return Err(key_reuse_error(&session, &request));
                }
                BeginOutcome::NeedsAttention(session) => {
                    return Err(Error::needs_attention(&session));
                }
            }
        }
    }

    /// Like [`create`](Self::create), for a row of a batch: calls of interactive sessions have
    /// priority over its calls.
    ///
    /// # Errors
    /// As for [`create`](Self::create).
    pub async fn create_in_background(
        &self,
        request: SessionRequest,
    ) -> Result<CreatedSession, Error> {
        Priority::Background.scope(self.create(request)).await
    }

    /// Resumes an abandoned session until it is open or its failure is stored.
    ///
    /// # Errors
    /// As for [`create`](Self::create).
    pub async fn resume(&self, session: SessionRecord) -> Result<CreatedSession, Error> {
        let trail = AttemptLog::of(session.trace);
        let span = self.span("resume session");
        trace_context::set_parent(&span, session.trace);
        let resumed = async {
            let deadline = self.clock.now() + self.deadline;
            self.check_organization(deadline).await?;
            let since = session.admitted_at;
            self.run_saga(session, since, deadline).await
        };
        self.record_outcome(trail.scope(resumed).instrument(span).await)
    }

    fn span(&self, name: &'static str) -> Span {
        info_span!(
            target: trace_context::TARGET,
            "session",
            otel.name = name,
            otel.status_code = Empty,
            guestlane.surface = self.surface.name(),
            guestlane.session.id = Empty,
            guestlane.session.state = Empty,
            error.type = Empty,
        )
    }

    fn record_outcome(
        &self,
        ended: Result<CreatedSession, Error>,
    ) -> Result<CreatedSession, Error> {
        if let Err(error) = &ended {
            self.figures.failed(error, self.clock.now());
        }
        ended
    }

    /// Runs the steps of a session whose lease this process holds: the contact, then the
    /// conversation. These are two steps or more. Each step is retried alone, and its result is
    /// stored before the next step.
    async fn run_saga(
        &self,
        mut session: SessionRecord,
        since: Timestamp,
        deadline: Timestamp,
    ) -> Result<CreatedSession, Error> {
        let _driving = self.driving.start(&session);
        if session.is_past_idempotency_window(self.clock.now()) {
            return Err(self.mark_needs_attention(session).await?);
        }
        self.keys.ensure_loaded(&session.token.kid).await;
        let mut signed: Option<(TokenIdentity, GuestToken)> = None;
        loop {
            // The token is renewed before the platform rejects it, where that is safe. On the
            // public surfaces, no idempotency key is sent with the token. On `rest`, the platform
            // cannot have stored the key with the old token unless the outcome of a call is
            // unknown.
            let may_renew =
                session.surface_binding != SurfaceBinding::Rest || !session.outcome_unknown;
            let revoked = self.keyring().is_revoked(&session.token.kid);
            if may_renew
                && session.message_id.is_none()
                && (revoked || session.token.is_expired_at(self.clock.now()))
            {
                session = self.reissue_guest_token(session, 0).await?;
            }
            // One signature serves all steps: signing is most of the processor time of a session.
            let token = match signed.take_if(|(identity, _)| *identity == session.token) {
                Some((_, token)) => token,
                None => self.sign(&session).await?,
            };
            let identity = session.token.clone();
            session = match self.next_step(&session, &token, since, deadline).await {
                Ok(transition) => self.commit(transition).await?,
                Err(failed)
                    if failed.is_of_expired_token()
                        && !token_is_fresh(&session, self.clock.now()) =>
                {
                    self.reissue_guest_token(session, failed.tries()).await?
                }
                // A revoked key is no longer known to the platform, so the token must be signed
                // with another. This cannot make a duplicate: a platform that knows the idempotency
                // key does not look at the token.
                Err(failed)
                    if failed.is_of_guest_token()
                        && self.keyring().is_revoked(&session.token.kid) =>
                {
                    self.reissue_guest_token(session, failed.tries()).await?
                }
                Err(failed) => return Err(self.record_failure(session, failed).await?),
            };
            if session.state == SessionState::Open {
                let guest_session = open_guest_session(&self.master, &session)?;
                return Ok(CreatedSession {
                    session,
                    guest_token: token,
                    guest_session,
                    replayed: false,
                });
            }
            signed = Some((identity, token));
        }
    }
}

/// Whether the token was issued less than 60 s ago by the local clock. If the platform rejects such
/// a token as expired, the clocks differ, and another fresh token would be rejected too.
fn token_is_fresh(session: &SessionRecord, now: Timestamp) -> bool {
    now.unix_seconds() - session.token.issued_at < 60
}
