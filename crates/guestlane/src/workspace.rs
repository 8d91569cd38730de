//! The local part of a deployment: store, keys and audit log. It is enough to inspect sessions
//! without the platform.

mod secrets;

use std::{
    collections::{HashMap, hash_map},
    path::{Path, PathBuf},
    sync::Arc,
};

use guestlane_core::{
    api_key::ApiKeyHasher,
    request::ValidationError,
    session::{SessionId, SessionRecord, SurfaceBinding},
    session_proof::SessionProof,
    token::{Keyring, MasterKey, MasterKeyError, SealedSigningKey},
};
use guestlane_genesys::{BaseUrl, guest::frame::SessionToken};
use guestlane_runtime::{Clock, FailPoint, FailPoints, durable_fs};
use guestlane_store::{AuditSettings, Database, GuestIdMode, RecordFilter, Store, StoreError};
use guestlane_tlog::{self, Checkpoint, Hash, NoteSigner, VerifierKey, proof::ProvenRecord};
use secrecy::SecretString;
use tracing::{info, warn};

use crate::{Error, master_key_file, setting};
pub(crate) use secrets::api_key_hash;
use secrets::{audit_signer, same_platform};

/// Places of the store, the state directory, the audit log and the master key.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StorageConfig {
    /// The database of the store.
    pub database: Database,
    /// The state directory, which belongs to one node.
    pub home: PathBuf,
    /// The file `session-audit.jsonl`, with its rotation and the form of guest IDs.
    pub audit: AuditSettings,
    /// The master key file, used when no key is given.
    pub master_key_file: PathBuf,
    /// The master key: the base64 of 32 bytes.
    pub master_key: Option<SecretString>,
    /// The previous master key. During a rotation, it opens the values that `master_key` does not
    /// open.
    pub master_key_previous: Option<SecretString>,
    /// Fail points at which tests crash the process. In release builds they do nothing.
    #[cfg(feature = "test-util")]
    pub fail_points: FailPoints,
}

impl StorageConfig {
    /// Returns a configuration with everything in one directory: SQLite, plain guest IDs, no
    /// rotation of the audit log, and a master key file.
    #[cfg(feature = "sqlite")]
    pub fn in_directory(directory: &Path) -> Self {
        Self::new(Database::Sqlite(directory.join("guestlane.db")), directory)
    }

    /// Returns a configuration with the sessions in `database` and all else in one directory: plain
    /// guest IDs, no rotation of the audit log, and a master key file.
    pub fn new(database: Database, directory: &Path) -> Self {
        Self {
            database,
            home: directory.to_owned(),
            audit: AuditSettings {
                path: directory.join("audit/session-audit.jsonl"),
                guest_ids: GuestIdMode::Plain,
                rotate_at: None,
            },
            master_key_file: directory.join("master.key"),
            master_key: None,
            master_key_previous: None,
            #[cfg(feature = "test-util")]
            fail_points: FailPoints::default(),
        }
    }

    pub(crate) fn fail_points(&self) -> FailPoints {
        #[cfg(feature = "test-util")]
        return self.fail_points.clone();
        #[cfg(not(feature = "test-util"))]
        FailPoints::default()
    }

    /// Parses the master keys that are given here, without a store.
    ///
    /// # Errors
    /// Returns an error if a given key is damaged, or if a previous key is given alone.
    pub fn check_master_keys(&self) -> Result<(), Error> {
        self.given_master_key()?;
        Ok(())
    }

    /// The master keys given by settings, not by a file.
    fn given_master_key(&self) -> Result<Option<MasterKey>, MasterKeyError> {
        use setting::{MASTER_KEY as CURRENT, MASTER_KEY_PREVIOUS as PREVIOUS};
        match (&self.master_key, &self.master_key_previous) {
            (Some(current), Some(previous)) => MasterKey::parse(current, CURRENT)?
                .with_previous(previous, PREVIOUS)
                .map(Some),
            (Some(current), None) => MasterKey::parse(current, CURRENT).map(Some),
            (None, Some(_)) => Err(MasterKeyError::PreviousAlone {
                previous: PREVIOUS.to_owned(),
                current: CURRENT.to_owned(),
            }),
            (None, None) => Ok(None),
        }
    }

    /// The master keys of a store that is in use. This never creates a key.
    ///
    /// # Errors
    /// Returns an error if a given key is damaged, or the key file cannot be read.
    pub(crate) fn master_key_in_use(&self) -> Result<MasterKey, MasterKeyError> {
        self.given_master_key()?.map_or_else(
            || master_key_file::from_file_in_use(&self.master_key_file),
            Ok,
        )
    }

    /// Checks that the store exists.
    ///
    /// # Errors
    /// Returns an error if the SQLite file is missing. A PostgreSQL database is not checked.
    pub(crate) fn expect_store(&self) -> Result<(), Error> {
        if self.database.file().is_some_and(|file| !file.exists()) {
            let reason = format!("has no store: {} does not exist", self.database);
            return Err(ValidationError::new(
                "the state directory",
                reason,
                "name the directory of the store, or create a session first",
            )
            .into());
        }
        Ok(())
    }
}

/// Store, keyring, master key and audit key of one process, opened without the platform.
#[derive(Debug)]
pub struct Workspace {
    /// The store of sessions, audit records and events.
    pub store: Store,
    /// The signing keys, decrypted.
    pub keyring: Arc<Keyring>,
    pub(crate) audit_signer: Arc<NoteSigner>,
    pub(crate) master: Arc<MasterKey>,
}

impl Workspace {
    /// Opens the store and the keys, and creates both on first use. Repairs what a killed process
    /// left in the audit files.
    ///
    /// # Errors
    /// Returns an error if the store, the master key, a signing key or the audit log cannot be
    /// opened.
    pub async fn open(places: &StorageConfig, clock: &Clock) -> Result<Self, Error> {
        Self::open_with(places, clock, true).await
    }

    /// Opens the store and the keys to inspect them. Both must exist, and the audit files are not
    /// changed.
    ///
    /// # Errors
    /// Returns an error if the store is missing, or one of its parts cannot be opened.
    pub async fn open_read_only(places: &StorageConfig, clock: &Clock) -> Result<Self, Error> {
        places.expect_store()?;
        Self::open_with(places, clock, false).await
    }

    async fn open_with(places: &StorageConfig, clock: &Clock, mend: bool) -> Result<Self, Error> {
        // Read the given master key first: if it is damaged, nothing may be created.
        let given = places.given_master_key()?;
        let store = match mend {
            true => {
                Store::open(&places.database, &places.home, clock, &places.fail_points()).await?
            }
            false => {
                Store::open_to_look(&places.database, &places.home, clock, &places.fail_points())
                    .await?
            }
        };
        if let Some(mode) = durable_fs::mode_for_others(&places.home) {
            let directory = places.home.display();
            warn!(%directory, mode = format!("{mode:o}"), "the state directory is accessible to other users");
        }
        if given.is_none()
            && !places.master_key_file.exists()
            && !store.signing_keys().await?.is_empty()
        {
            // A new master key would open none of the stored signing keys.
            return Err(MasterKeyError::Missing(places.master_key_file.clone()).into());
        }
        let from_file =
            || match master_key_file::from_file(&places.master_key_file, &places.fail_points()) {
                // A read-only file system has no place for a lock file; no process rotates the key
                // there either.
                Err(MasterKeyError::File(_, error))
                    if !mend && durable_fs::is_read_only(&error) =>
                {
                    master_key_file::from_locked_file(&places.master_key_file)
                }
                read => read,
            };
        let master = given.map_or_else(from_file, Ok)?;
        Self::with_key(places, clock, store, master, mend).await
    }

    /// Opens the keys in the store, and creates the first ones.
    pub(crate) async fn with_key(
        places: &StorageConfig,
        clock: &Clock,
        store: Store,
        master: MasterKey,
        mend: bool,
    ) -> Result<Self, Error> {
        let mut keys = store.signing_keys().await?;
        if keys.is_empty() {
            store
                .add_signing_key(SealedSigningKey::first(&master, clock.now())?)
                .await?;
            places.fail_points().hit(FailPoint::SigningKeyStored).await;
            keys = store.signing_keys().await?;
            info!(
                kid = SealedSigningKey::FIRST_KID,
                "created the first signing key"
            );
        }
        let (keyring, master) = (Arc::new(Keyring::open(&master, keys)?), Arc::new(master));
        let audit_signer = Arc::new(audit_signer(&store, &master).await?);
        places.fail_points().hit(FailPoint::AuditKeyStored).await;
        store
            .attach_audit_log(places.audit.clone(), Arc::clone(&audit_signer), mend)
            .await?;
        if mend {
            store.record_unrecorded(clock.now()).await?;
        }
        Ok(Self {
            store,
            keyring,
            audit_signer,
            master,
        })
    }

    /// The public key that verifies the checkpoints of the audit log.
    pub fn audit_key(&self) -> &VerifierKey {
        self.audit_signer.public()
    }

    /// Returns the proof that the audit records of a session are in the log. Returns `None` if the
    /// session has no records.
    ///
    /// # Errors
    /// Returns an error if the store fails, or an index in it is out of range.
    pub async fn prove_inclusion(&self, session: SessionId) -> Result<Option<SessionProof>, Error> {
        let filter = RecordFilter {
            session: Some(session),
            guest: None,
            limit: u32::MAX,
        };
        let mut trees: HashMap<u32, (Vec<Hash>, String)> = HashMap::new();
        let mut records = Vec::new();
        for record in self.store.records(filter).await? {
            let (leaves, note) = match trees.entry(record.log) {
                hash_map::Entry::Occupied(known) => known.into_mut(),
                hash_map::Entry::Vacant(new) => new.insert(self.tree(record.log).await?),
            };
            let index =
                usize::try_from(record.index).map_err(|_| StoreError::Row("audit_record.idx"))?;
            let path = guestlane_tlog::inclusion(leaves, index)
                .ok_or(StoreError::Row("audit_record.idx"))?;
            let proof = guestlane_tlog::proof::write(record.index, &path, note);
            records.push(ProvenRecord {
                line: record.line,
                proof,
            });
        }
        Ok((!records.is_empty()).then(|| SessionProof {
            session_id: session.to_string(),
            records,
        }))
    }

    /// The leaves of a log, and a signed checkpoint over them.
    async fn tree(&self, log: u32) -> Result<(Vec<Hash>, String), Error> {
        let leaves = self.store.leaves(log).await?;
        let origin = Checkpoint::origin_of(self.audit_key(), log);
        let note = self.sign(&Checkpoint {
            origin,
            size: leaves.len() as u64,
            root: guestlane_tlog::root(&leaves),
        });
        Ok((leaves, note))
    }

    /// The guest session token of a session. Returns `None` if the session has none, or its guest
    /// was erased.
    ///
    /// # Errors
    /// Returns an error if the master key does not open the token.
    pub fn guest_session(
        &self,
        session: &SessionRecord,
    ) -> Result<Option<SessionToken>, MasterKeyError> {
        open_guest_session(&self.master, session)
    }

    /// The secret under which API keys are hashed. It is created on first use.
    ///
    /// # Errors
    /// Returns an error if the store fails, or the master key does not open the secret.
    pub async fn api_key_hash(&self) -> Result<ApiKeyHasher, Error> {
        api_key_hash(&self.store, &self.master).await
    }

    /// Signs a checkpoint with the key of the audit log.
    pub fn sign(&self, checkpoint: &Checkpoint) -> String {
        checkpoint.sign(&self.audit_signer)
    }

    /// Binds the store to the first platform it is used with. Keys and IDs of the store mean
    /// nothing to another platform.
    pub(crate) async fn bind_platform(&self, base: &BaseUrl) -> Result<(), Error> {
        let known = self
            .store
            .get_or_insert_platform(base.as_str().to_owned())
            .await?;
        same_platform(&self.store, &known, base)
    }

    /// Like [`bind_platform`](Self::bind_platform), for a platform that has not responded yet. It
    /// does not bind the store, so that a mistyped host name does not claim it.
    pub(crate) async fn check_platform_binding(&self, base: &BaseUrl) -> Result<(), Error> {
        self.store
            .platform()
            .await?
            .map_or(Ok(()), |known| same_platform(&self.store, &known, base))
    }
}

/// The name under which guest session tokens are sealed.
pub(crate) const GUEST_SESSION: &str = "a guest session's token";

/// Returns a new guest session token, sealed. It must be stored before it is used.
pub(crate) fn new_guest_session(master: &MasterKey) -> Result<Vec<u8>, MasterKeyError> {
    master.seal(GUEST_SESSION, SessionToken::generate().expose().as_bytes())
}

pub(crate) fn open_guest_session(
    master: &MasterKey,
    session: &SessionRecord,
) -> Result<Option<SessionToken>, MasterKeyError> {
    match &session.surface_binding {
        SurfaceBinding::WebMessaging { token, .. } if !token.is_empty() => {
            let opened = master.open(GUEST_SESSION, token)?;
            Ok(Some(SessionToken::new(String::from_utf8_lossy(&opened))))
        }
        SurfaceBinding::WebMessaging { .. }
        | SurfaceBinding::Rest
        | SurfaceBinding::OpenMessaging { .. } => Ok(None),
    }
}

/// Adds the seals of this process to the count in the store. Returns the sum, or `None` if the
/// store fails.
pub(crate) async fn count_seals(store: &Store, master: &MasterKey) -> Option<u64> {
    let new = master.take_seals();
    let counted = if new == 0 {
        store.seals(&master.id()).await
    } else {
        store.add_seals(&master.id(), new).await
    };
    if let Err(error) = &counted {
        master.give_back_seals(new);
        guestlane_store::log_failure(
            error,
            "failed to count the seals of the master key; counting them later",
        );
    }
    counted.ok()
}

/// The name under which the audit key is stored and sealed.
pub(crate) const AUDIT_KEY: &str = "the audit log's key";
