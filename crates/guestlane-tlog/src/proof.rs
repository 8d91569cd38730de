//! Inclusion proofs of audit records (C2SP `tlog-proof`).
//!
//! A verifier needs the proof and the public key, and neither the log nor this product.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};

use super::{
    checkpoint::{Checkpoint, InvalidCheckpoint},
    note::VerifierKey,
    tree::{Hash, leaf_hash, root_from_inclusion},
};

const HEADER: &str = "c2sp.org/tlog-proof@v1";

/// An audit record with its inclusion proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProvenRecord {
    /// The line, byte for byte, without its line feed.
    pub line: String,
    /// The path from the line to a signed checkpoint, in the format of C2SP `tlog-proof`.
    pub proof: String,
}

/// Why a proof is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProof {
    /// The text is not in the format of a proof.
    #[error("it does not have the format of a proof ({HEADER})")]
    Format,
    /// The proof's checkpoint is not valid.
    #[error("its checkpoint is not valid: {0}")]
    Checkpoint(#[from] InvalidCheckpoint),
    /// The path does not lead from the line to the checkpoint's root.
    #[error("the line is not in the log of the checkpoint, or not at this index")]
    Path,
    /// The line belongs to another session.
    #[error("the line is not a record of this session")]
    OtherSession,
    /// The proof has no record.
    #[error("it contains no record")]
    Empty,
}

/// Formats the inclusion proof of the record at `index`.
pub fn write(index: u64, path: &[Hash], checkpoint: &str) -> String {
    let hashes: String = path
        .iter()
        .map(|hash| BASE64_STANDARD.encode(hash) + "\n")
        .collect();
    format!("{HEADER}\nindex {index}\n{hashes}\n{checkpoint}")
}

/// Parses a proof into its index, its path, and the note of its checkpoint.
fn read(proof: &str) -> Option<(u64, Vec<Hash>, &str)> {
    let (head, note) = proof.split_once("\n\n")?;
    let mut lines = head.split('\n');
    (lines.next()? == HEADER).then_some(())?;
    let index = lines.next()?.strip_prefix("index ")?;
    let number: u64 = index.parse().ok()?;
    (number.to_string() == index).then_some(())?;
    let hash = |line| BASE64_STANDARD.decode(line).ok()?.try_into().ok();
    Some((number, lines.map(hash).collect::<Option<_>>()?, note))
}

impl ProvenRecord {
    /// Returns the line's index, and the checkpoint of the log that includes it.
    ///
    /// # Errors
    /// Returns [`InvalidProof`] if the line is not proven to be in a log of `key`.
    pub fn verify(&self, key: &VerifierKey) -> Result<(u64, Checkpoint), InvalidProof> {
        let (index, path, note) = read(&self.proof).ok_or(InvalidProof::Format)?;
        let checkpoint = Checkpoint::open(note, key)?;
        let root = root_from_inclusion(
            leaf_hash(self.line.as_bytes()),
            index,
            checkpoint.size,
            &path,
        );
        if root == Some(checkpoint.root) {
            Ok((index, checkpoint))
        } else {
            Err(InvalidProof::Path)
        }
    }
}
