//! What happened, in order (R11), and proof of it: a Merkle tree over the lines (RFC 6962) and signed checkpoints (C2SP).

mod check;
mod checkpoint;
mod entry;
mod log;
mod note;
pub mod proof;
mod tree;
mod verify;

pub use check::{Unproven, check, continued};
pub use checkpoint::{Checkpoint, InvalidCheckpoint};
pub use entry::{Entry, Erasure, ErrorRates, Rotation, Status};
pub use log::{AuditError, Lines, LogFiles, checkpoint_path, hashes_path, lines_path};
pub use note::{InvalidVerifierKey, NoteSigner, VerifierKey};
pub use tree::{Frontier, Hash, inclusion, leaf_hash, root};
pub use verify::{Tampered, verify};
