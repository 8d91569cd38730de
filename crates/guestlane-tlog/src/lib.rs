//! A transparency log: an append-only file of lines that a third party can verify.
//!
//! The lines are the leaves of a Merkle tree (RFC 6962). Checkpoints over the tree are signed notes
//! (C2SP `tlog-checkpoint`, `signed-note`), and [`proof`] has inclusion proofs (C2SP `tlog-proof`).
//! [`LogFiles`] writes the files; [`verify_log`] and [`verify_against_store`] check them.

mod check;
mod checkpoint;
mod log;
mod note;
pub mod proof;
mod tree;
mod verify;

pub use check::{
    VerificationError, continued_by, rotation_checkpoints, verify_against_store, verify_log,
};
pub use checkpoint::{Checkpoint, InvalidCheckpoint};
pub use log::{
    AppendedRange, AuditError, LineSource, LogFiles, ONE_WRITE, checkpoint_path, hashes_path,
    lines_path,
};
pub use note::{InvalidVerifierKey, NoteSigner, VerifierKey};
pub use tree::{Frontier, Hash, inclusion, leaf_hash, root};
pub use verify::{Tampered, verify};
