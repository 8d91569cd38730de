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

/// The audit records of one session, each with its inclusion proof: the output of `guestlane audit
/// prove`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionProof {
    /// ID of the session.
    pub session_id: String,
    /// The session's records, in the order of the logs.
    pub records: Vec<ProvenRecord>,
}

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
    #[error("it is not written as a proof ({HEADER})")]
    Format,
    /// The proof's checkpoint is not valid.
    #[error("its checkpoint is not good: {0}")]
    Checkpoint(#[from] InvalidCheckpoint),
    /// The path does not lead from the line to the checkpoint's root.
    #[error("the line is not in the log of the checkpoint, or not at this place")]
    Path,
    /// The line belongs to another session.
    #[error("the line is not a record of this session")]
    OtherSession,
    /// The proof has no record.
    #[error("there is no record in it")]
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

impl SessionProof {
    /// Returns each record's index and checkpoint.
    ///
    /// # Errors
    /// Returns the number of the first record, from 1, that is not proven, with the reason. The
    /// number is 0 if the proof has no record.
    pub fn verify(
        &self,
        key: &VerifierKey,
    ) -> Result<Vec<(u64, Checkpoint)>, (usize, InvalidProof)> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Of {
            session_id: Option<String>,
        }
        if self.records.is_empty() {
            return Err((0, InvalidProof::Empty));
        }
        let verify = |(number, record): (usize, &ProvenRecord)| {
            let place = record.verify(key).map_err(|invalid| (number, invalid))?;
            let of = serde_json::from_str::<Of>(&record.line)
                .ok()
                .and_then(|of| of.session_id);
            if of.as_ref() == Some(&self.session_id) {
                Ok(place)
            } else {
                Err((number, InvalidProof::OtherSession))
            }
        };
        (1..).zip(&self.records).map(verify).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::audit::{
        note::NoteSigner,
        tree::{inclusion, root},
    };

    fn proof(of: usize, size: usize) -> (SessionProof, NoteSigner) {
        let signer = NoteSigner::from_seed(&[1; 32]).unwrap();
        let lines: Vec<_> = (0..size)
            .map(|n| format!(r#"{{"index":{n},"sessionId":"s-{n}"}}"#))
            .collect();
        let leaves: Vec<_> = lines
            .iter()
            .map(|line| leaf_hash(line.as_bytes()))
            .collect();
        let checkpoint = Checkpoint {
            origin: Checkpoint::origin_of(signer.public(), 1),
            size: size as u64,
            root: root(&leaves),
        };
        let proof = write(
            of as u64,
            &inclusion(&leaves, of).unwrap(),
            &checkpoint.sign(&signer),
        );
        let record = ProvenRecord {
            line: lines[of].clone(),
            proof,
        };
        (
            SessionProof {
                session_id: format!("s-{of}"),
                records: vec![record],
            },
            signer,
        )
    }

    proptest! {
        #[test]
        fn a_proof_verifies_and_with_any_other_byte_it_does_not(size in 1_usize..40, of in 0_usize..40, at in 0_usize..2000, bit in 0_u32..8) {
            let (proof, signer) = proof(of % size, size);
            let places = proof.verify(signer.public()).unwrap();
            prop_assert_eq!(places[0].0, (of % size) as u64);
            let mut text = serde_json::to_vec(&proof).unwrap();
            let at = at % text.len();
            text[at] ^= 1 << bit;
            if let Ok(changed) = serde_json::from_slice::<SessionProof>(&text) {
                prop_assert!(changed == proof || changed.verify(signer.public()).is_err());
            }
        }
    }

    #[test]
    fn a_line_of_another_session_proves_nothing_of_this_one() {
        let (mut proof, signer) = proof(2, 5);
        proof.session_id = "s-3".to_owned();
        assert_eq!(
            proof.verify(signer.public()),
            Err((1, InvalidProof::OtherSession))
        );
        proof.records.clear();
        assert_eq!(proof.verify(signer.public()), Err((0, InvalidProof::Empty)));
    }
}
