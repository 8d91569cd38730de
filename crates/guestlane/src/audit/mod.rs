//! The audit log (requirement R11, docs/requirements.md) and proofs over it.
//!
//! Its lines are the leaves of a Merkle tree (RFC 6962), and checkpoints over the tree are signed
//! (C2SP).

mod all;
mod check;
mod checkpoint;
mod entry;
mod log;
mod note;
pub mod proof;
mod tree;
mod verify;

pub use all::{LogVerification, retry_while_growing, verify_all};
pub(crate) use check::continued_by;
pub use check::{VerificationError, rotation_checkpoints, verify_against_store, verify_log};
pub use checkpoint::{Checkpoint, InvalidCheckpoint};
pub(crate) use entry::UNRECORDED;
pub use entry::{AuditRecord, Change, ChangeAction, Erasure, ErrorRateSnapshot, Rotation, Status};
pub use log::{
    AppendedRange, AuditError, LineSource, LogFiles, ONE_WRITE, checkpoint_path, hashes_path,
    lines_path,
};
pub use note::{InvalidVerifierKey, NoteSigner, VerifierKey};
pub use tree::{Frontier, Hash, inclusion, leaf_hash, root};
pub use verify::{Tampered, verify};
