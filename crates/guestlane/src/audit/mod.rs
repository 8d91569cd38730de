//! What happened, in order (requirement R11, docs/requirements.md), and proof of it: a Merkle tree
//! over the lines (RFC 6962) and signed checkpoints (C2SP).

mod all;
mod check;
mod checkpoint;
mod entry;
mod log;
mod note;
pub mod proof;
mod tree;
mod verify;

pub use all::{Checked, check_all, looking_again};
pub(crate) use check::continued_by;
pub use check::{Unproven, check, check_known, continued};
pub use checkpoint::{Checkpoint, InvalidCheckpoint};
pub(crate) use entry::UNRECORDED;
pub use entry::{Change, ChangeAction, Entry, Erasure, ErrorRates, Rotation, Status};
pub use log::{Added, AuditError, Lines, LogFiles, ONE_WRITE, checkpoint_path, hashes_path, lines_path};
pub use note::{InvalidVerifierKey, NoteSigner, VerifierKey};
pub use tree::{Frontier, Hash, inclusion, leaf_hash, root};
pub use verify::{Tampered, verify};
