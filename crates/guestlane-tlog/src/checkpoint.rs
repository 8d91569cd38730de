//! Checkpoints (C2SP `tlog-checkpoint`): the size and the root hash of a log, signed.

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{
    note::{NoteSigner, VerifierKey},
    tree::Hash,
};

/// The state of a log at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Origin of the log: the name of the key, a slash, and the log's number.
    pub origin: String,
    /// Number of records.
    pub size: u64,
    /// Root hash over the records.
    pub root: Hash,
}

/// Why a note is not a valid checkpoint of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCheckpoint {
    /// The note's signature does not verify.
    #[error("it was not signed by this key, or was changed afterwards")]
    Signature,
    /// The signature verifies, but the note is not a checkpoint of a log of this key.
    #[error("it is signed, but it is not a checkpoint of a log of this key")]
    Format,
}

impl Checkpoint {
    /// Returns the origin of a log of `key`.
    pub fn origin_of(key: &VerifierKey, log: u32) -> String {
        format!("{}/{log}", key.name())
    }

    /// Returns the log's number, or 0 if the origin has none.
    pub fn log(&self) -> u32 {
        self.origin
            .rsplit('/')
            .next()
            .and_then(|number| number.parse().ok())
            .unwrap_or(0)
    }

    /// Returns the root hash in base64, as the checkpoint contains it.
    pub fn root_base64(&self) -> String {
        BASE64_STANDARD.encode(self.root)
    }

    /// Returns the checkpoint as a signed note.
    pub fn sign(&self, signer: &NoteSigner) -> String {
        signer.sign(&format!(
            "{}\n{}\n{}\n",
            self.origin,
            self.size,
            self.root_base64()
        ))
    }

    /// Parses a note signed by `key`.
    ///
    /// # Errors
    /// Returns [`InvalidCheckpoint`] if the signature does not verify, or if the note is not a
    /// checkpoint of a log of `key`.
    pub fn open(note: &str, key: &VerifierKey) -> Result<Self, InvalidCheckpoint> {
        let text = key.open(note).ok_or(InvalidCheckpoint::Signature)?;
        Self::parse(text)
            .filter(|checkpoint| checkpoint.origin == Self::origin_of(key, checkpoint.log()))
            .ok_or(InvalidCheckpoint::Format)
    }

    /// Parses the text of a checkpoint. Extension lines are ignored, as the format requires.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.split('\n');
        let (origin, size, root) = (lines.next()?, lines.next()?, lines.next()?);
        let number: u64 = size.parse().ok()?;
        let root = BASE64_STANDARD.decode(root).ok()?.try_into().ok()?;
        (number.to_string() == size).then(|| Self {
            origin: origin.to_owned(),
            size: number,
            root,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoint_opens_unchanged_and_only_under_its_own_key() {
        let (signer, other) = (
            NoteSigner::from_seed(&[1; 32]).unwrap(),
            NoteSigner::from_seed(&[2; 32]).unwrap(),
        );
        let checkpoint = Checkpoint {
            origin: Checkpoint::origin_of(signer.public(), 3),
            size: 12,
            root: [9; 32],
        };
        let note = checkpoint.sign(&signer);
        assert_eq!(
            Checkpoint::open(&note, signer.public()),
            Ok(checkpoint.clone())
        );
        assert_eq!(checkpoint.log(), 3);
        assert_eq!(
            Checkpoint::open(&note, other.public()),
            Err(InvalidCheckpoint::Signature)
        );
        let foreign = Checkpoint {
            origin: "example.com/log".to_owned(),
            ..checkpoint
        };
        assert_eq!(
            Checkpoint::open(&foreign.sign(&signer), signer.public()),
            Err(InvalidCheckpoint::Format)
        );
        for text in ["a\n", "a\n01\nAAAA\n", "a\nx\nAAAA\n"] {
            assert_eq!(
                Checkpoint::open(&signer.sign(text), signer.public()),
                Err(InvalidCheckpoint::Format),
                "{text}"
            );
        }
    }
}
