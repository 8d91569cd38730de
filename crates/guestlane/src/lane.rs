//! Everything a process needs to create sessions, opened once.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, future::Shared, stream};
use guestlane_genesys::{
    BaseUrl, CallError, CallFailed, CallStats, Clock, Credentials, Operation, Patience, Platform, Timestamp,
};
use http::StatusCode;
use secrecy::SecretString;
use tracing::{info, warn};
use url::Url;

use crate::{
    audit::{AuditFile, Entry, Status},
    error::{Error, Then},
    ledger::{Driving, Failure, RENEW_EVERY, Session},
    metrics::ErrorTally,
    orchestrator::Opened,
    outbox::{Crm, Networks, Outbox, WebhookSecret},
    request::{Invalid, QueueId, SessionRequest},
    store::{Admission, Store},
    token::{Keyring, MasterKey, MasterKeyError, TokenIdentity},
};

/// Where a lane keeps what it knows.
#[derive(Debug, Clone)]
pub struct Places {
    /// The SQLite file.
    pub database: PathBuf,
    /// `session-audit.jsonl`.
    pub audit_log: PathBuf,
    /// The master key's file, used when no key is given.
    pub master_key_file: PathBuf,
    /// `GUESTLANE_MASTER_KEY`.
    pub master_key: Option<SecretString>,
}

/// Whom to tell.
#[derive(Debug, Clone)]
pub struct CrmSettings {
    /// Where events go.
    pub url: Url,
    /// `whsec_…`; without one, one is made and kept in the store.
    pub secret: Option<SecretString>,
    /// Which addresses are allowed.
    pub networks: Networks,
}

/// All that must be decided.
#[derive(Debug, Clone)]
pub struct LaneConfig {
    /// The platform, and as whom.
    pub credentials: Credentials,
    /// How patient calls are.
    pub patience: Patience,
    /// How long a caller waits for a session.
    pub deadline: Duration,
    /// Where things are kept.
    pub places: Places,
    /// Whom to tell, if anybody.
    pub crm: Option<CrmSettings>,
}

/// What a lane keeps on this machine, without the platform: enough to look at sessions, keys and records.
#[derive(Debug)]
pub struct State {
    /// Sessions, records, events.
    pub store: Store,
    /// The keys, opened.
    pub keyring: Keyring,
    master: MasterKey,
}

/// Creates sessions. Everything in here lives as long as the process does.
#[derive(Debug)]
pub struct Lane {
    pub(crate) clock: Clock,
    pub(crate) deadline: Duration,
    pub(crate) platform: Arc<Platform>,
    pub(crate) keyring: Keyring,
    pub(crate) store: Store,
    pub(crate) errors: ErrorTally,
    pub(crate) outbox: Option<Outbox>,
    pub(crate) driving: Driving,
    queues: Mutex<HashMap<QueueId, KnownQueue>>,
    heartbeat: tokio::task::JoinHandle<()>,
}

type LookUp = Shared<BoxFuture<'static, Result<(), CallFailed>>>;

#[derive(Debug, Clone)]
enum KnownQueue {
    Exists { until: Timestamp },
    Asking(LookUp),
}

/// How long a queue that exists is believed to exist (R14).
const QUEUE_KNOWN_FOR: Duration = Duration::from_secs(300);

/// How often a caller looks whether the session that another one drives is done.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How often abandoned sessions are looked for.
const RECOVER_EVERY: Duration = Duration::from_secs(3);

/// How many abandoned sessions are driven at once.
const RECOVER_AT_ONCE: u32 = 32;

impl State {
    /// Opens the store and the keys, making both on first use.
    pub async fn open(places: &Places, clock: &Clock) -> Result<Self, Error> {
        // A damaged master key must be told before anything is made.
        let given = places.master_key.as_ref().map(|text| MasterKey::parse(text, "GUESTLANE_MASTER_KEY")).transpose()?;
        let store = Store::open(&places.database, AuditFile::new(places.audit_log.clone()), clock)?;
        let mut keys = store.signing_keys().await?;
        if given.is_none() && !keys.is_empty() && !places.master_key_file.exists() {
            return Err(MasterKeyError::Missing(places.master_key_file.clone()).into()); // a new one would open nothing
        }
        let master = given.map_or_else(|| MasterKey::from_file(&places.master_key_file), Ok)?;
        if keys.is_empty() {
            store.add_signing_key(Keyring::first_key(&master, clock.now())?).await?;
            keys = store.signing_keys().await?;
            info!(kid = Keyring::FIRST_KID, "made the first signing key");
        }
        let keyring = Keyring::open(&master, &keys)?;
        Ok(Self { store, keyring, master })
    }

    /// A store's keys and ids mean nothing to another platform: the first one that it is used with is the only one.
    async fn belongs_to(&self, base: &BaseUrl) -> Result<(), Error> {
        let known = self.store.platform_or(base.as_str().to_owned()).await?;
        if known == base.as_str() {
            return Ok(());
        }
        let reason = format!("belongs to the platform at {known}, not to {base}");
        let fix = "choose another state directory for this platform; sessions of one are not sessions of the other";
        Err(Error::Settings(vec![Invalid::new("GUESTLANE_STATE_DIR", reason, fix)]))
    }

    /// The secret shared with the CRM: the one given, else the one in the store, made on first use.
    pub async fn webhook_secret(&self, given: Option<&SecretString>) -> Result<WebhookSecret, Error> {
        const NAME: &str = "the CRM's webhook secret";
        let invalid = |error: crate::outbox::InvalidSecret| {
            Invalid::new(
                "CRM_WEBHOOK_SECRET",
                error.to_string(),
                "leave it out to have one made, or see `guestlane outbox secret`",
            )
        };
        if let Some(given) = given {
            return WebhookSecret::parse(given).map_err(|error| invalid(error).into());
        }
        let kept = match self.store.secret_or(NAME, None).await? {
            Some(kept) => Some(kept),
            None => {
                let new = WebhookSecret::generate().map_err(invalid)?;
                let sealed = self.master.seal(NAME, secrecy::ExposeSecret::expose_secret(&new).as_bytes())?;
                self.store.secret_or(NAME, Some(sealed)).await?
            }
        };
        let opened = self.master.open(NAME, &kept.unwrap_or_default())?;
        let text: SecretString = String::from_utf8_lossy(&opened).into_owned().into();
        WebhookSecret::parse(&text).map_err(|error| invalid(error).into())
    }
}

impl Lane {
    /// Opens store, keys, platform and CRM. Must be called within a tokio runtime; nothing is sent yet.
    pub async fn open(config: LaneConfig, clock: Clock) -> Result<Arc<Self>, Error> {
        let state = State::open(&config.places, &clock).await?;
        state.belongs_to(&config.credentials.base).await?;
        let platform = Arc::new(Platform::new(&config.credentials, config.patience, clock.clone())?);
        let outbox = match config.crm {
            Some(crm) => {
                let secret = state.webhook_secret(crm.secret.as_ref()).await?;
                let crm = Crm::new(crm.url, crm.networks, secret, clock.clone())?;
                Some(Outbox::new(crm, state.store.clone(), clock.clone()))
            }
            None => None,
        };
        let errors = ErrorTally::new(state.store.error_counts().await?, Arc::clone(platform.stats()));
        let driving = Driving::default();
        let heartbeat = tokio::spawn(renew_leases(driving.clone(), state.store.clone(), clock.clone()));
        Ok(Arc::new(Self {
            clock,
            deadline: config.deadline,
            platform,
            keyring: state.keyring,
            store: state.store,
            errors,
            outbox,
            driving,
            queues: Mutex::default(),
            heartbeat,
        }))
    }

    /// Sessions, records, events.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The keys.
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// Events to the CRM, if there is one.
    pub fn outbox(&self) -> Option<&Outbox> {
        self.outbox.as_ref()
    }

    /// What the calls came to.
    pub fn stats(&self) -> &CallStats {
        self.platform.stats()
    }

    /// Looks the queue up, unless it is known, or the key has been admitted before and nothing needs to be asked (R14).
    pub(crate) async fn check_queue(&self, request: &SessionRequest) -> Result<(), Error> {
        let now = self.clock.now();
        let known = self.queues.lock().unwrap_or_else(PoisonError::into_inner).get(&request.queue).cloned();
        if matches!(known, Some(KnownQueue::Exists { until }) if now < until) {
            return Ok(());
        }
        if self.store.peek(request.key.clone()).await?.is_some() {
            return Ok(());
        }
        match self.look_up(request.queue).await {
            Ok(()) => Ok(()),
            Err(failed) => {
                let error = queue_error(request.queue, failed);
                let advice = error.advice();
                let text = format!("{}: {}", advice.code, error.record());
                let entry = Entry::refused(&request.guest, request.queue, text, self.errors.totals(), self.clock.now());
                self.store.record_refusal(entry, self.errors.take()).await?;
                Err(error)
            }
        }
    }

    /// However many ask for the same queue at once, one call is made.
    async fn look_up(&self, queue: QueueId) -> Result<(), CallFailed> {
        let asking = {
            let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
            match queues.get(&queue) {
                Some(KnownQueue::Exists { until }) if self.clock.now() < *until => return Ok(()),
                Some(KnownQueue::Asking(asking)) if asking.peek().is_none() => asking.clone(),
                _ => {
                    // A task of its own, with a deadline of its own: whoever asked first may go away.
                    let (platform, deadline) = (Arc::clone(&self.platform), self.clock.now() + self.deadline);
                    let asking = tokio::spawn(async move { platform.queue(queue.0, deadline).await.map(drop) });
                    let asking = asking.map(|ended| ended.unwrap_or_else(|_| Err(interrupted()))).boxed().shared();
                    queues.insert(queue, KnownQueue::Asking(asking.clone()));
                    asking
                }
            }
        };
        let answer = asking.await;
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        match &answer {
            Ok(()) => queues.insert(queue, KnownQueue::Exists { until: self.clock.now() + QUEUE_KNOWN_FOR }),
            Err(_) => queues.remove(&queue),
        };
        answer
    }

    /// Takes the key. When the attempt cannot be put on record in the audit file, it ends here, before anything is created; unless something
    /// may have been created before: that is never hidden.
    pub(crate) async fn admit(&self, request: &SessionRequest) -> Result<Admission, Error> {
        let now = self.clock.now();
        let identity = TokenIdentity::new(self.keyring.active().kid(), now);
        let admitted = self.store.admit(request.clone(), identity, self.errors.totals(), now).await?;
        match (admitted.value, admitted.audit) {
            (Admission::Drive(session), Err(error)) if session.contact_id.is_none() && !session.uncertain => {
                let failure = Failure { code: "audit_unavailable".to_owned(), message: crate::error::chain(&*error) };
                let after = session.clone().refused(failure, 0)?;
                self.commit(self.transition(&session, after, Some(Status::Failed), None)).await?;
                Err(Error::Audit(error))
            }
            (admission, _) => Ok(admission),
        }
    }

    /// Waits until the session is done, or free to be taken up.
    pub(crate) async fn wait_for(&self, session: &Session, deadline: Timestamp) -> Result<(), Error> {
        let mut held = session.clone();
        while held.state.is_unfinished() && held.is_held_at(self.clock.now()) {
            if self.clock.now() >= deadline {
                return Err(Error::InProgress { session: held.id, retry_at: held.due_at });
            }
            self.clock.sleep(LOOK_EVERY).await;
            match self.store.session(session.id).await? {
                Some(now) => held = now,
                None => break,
            }
        }
        Ok(())
    }

    /// Takes up sessions that nobody drives any more, and drives each to its end. Says what came of them; nothing, when there are none.
    pub async fn recover(self: &Arc<Self>) -> Result<Vec<Result<Opened, Error>>, Error> {
        let taken = self.store.take_up(RECOVER_AT_ONCE, self.clock.now()).await?;
        let driven = stream::iter(taken).map(|session| {
            let lane = Arc::clone(self);
            async move { lane.resume(session).await }
        });
        Ok(driven.buffer_unordered(RECOVER_AT_ONCE as usize).collect().await)
    }

    /// What a process does beside its callers' wishes, for as long as it is polled: finishes abandoned sessions, and tells the CRM.
    pub async fn work(self: Arc<Self>) {
        let recover = async {
            loop {
                match self.recover().await {
                    Ok(driven) => {
                        for error in driven.iter().filter_map(|driven| driven.as_ref().err()) {
                            warn!(%error, session = error.session().map(|id| id.to_string()), "an unfinished session could not be completed");
                        }
                    }
                    Err(error) => warn!(%error, "unfinished sessions could not be looked for; it is tried again"),
                }
                self.clock.sleep(RECOVER_EVERY).await;
            }
        };
        let deliver = async {
            match &self.outbox {
                Some(outbox) => outbox.run().await,
                None => std::future::pending().await,
            }
        };
        tokio::join!(recover, deliver);
    }

    /// Writes down what no transition will carry any more. For a process that ends.
    pub async fn finish(&self) -> Result<(), Error> {
        Ok(self.store.add_errors(self.errors.take()).await?)
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.heartbeat.abort();
    }
}

/// A driver that lives keeps its sessions.
async fn renew_leases(driving: Driving, store: Store, clock: Clock) {
    loop {
        clock.sleep(RENEW_EVERY).await;
        let leases = driving.leases();
        if !leases.is_empty()
            && let Err(error) = store.renew(leases, clock.now()).await
        {
            warn!(%error, "leases could not be renewed; another process may take these sessions over");
        }
    }
}

/// The task that asked was ended with the runtime.
fn interrupted() -> CallFailed {
    let cause = CallError::NotSent("the process is ending".to_owned());
    CallFailed { operation: Operation::Queue, tries: 0, elapsed: Duration::ZERO, cause, may_exist: false, wait: None }
}

fn queue_error(queue: QueueId, failed: CallFailed) -> Error {
    let refusal = failed.cause.refusal();
    let unknown = refusal.is_some_and(|refusal| matches!(refusal.status, StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST));
    let signed_in = !matches!(failed.cause, CallError::SignIn(_));
    if unknown && signed_in {
        let correlation_id = failed.cause.correlation_id().map(str::to_owned);
        return Error::UnknownQueue { queue, correlation_id };
    }
    Error::Platform { session: None, then: Then::NothingCreated, failed }
}
