//! Signed notes (C2SP `signed-note`): a text with signature lines, by Ed25519 (RFC 8032).

use std::{fmt, str::FromStr};

use aws_lc_rs::{
    rand,
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use zeroize::Zeroizing;

use super::tree::sha256;

/// The algorithm byte of an Ed25519 key.
const ED25519_KEY: u8 = 1;

/// The name and the public key of a signer. Its text form is the verifier key of Go's `sumdb/note`:
/// `name+hash+base64`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    key: [u8; 32],
}

/// The text is not a verifier key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a verifier key (name+hash+base64)")]
pub struct InvalidVerifierKey;

impl VerifierKey {
    /// Returns the name of the signer.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the key ID: the first four bytes of `SHA-256(name ‖ "\n" ‖ algorithm ‖ key)`.
    fn id(&self) -> [u8; 4] {
        let [a, b, c, d, ..] = sha256(&[self.name.as_bytes(), b"\n", &[ED25519_KEY], &self.key]);
        [a, b, c, d]
    }

    /// Returns the text of a note signed by this key, or `None` if the note is malformed or its
    /// signature invalid.
    pub fn open<'a>(&self, note: &'a str) -> Option<&'a str> {
        let (text, signatures) = note.rsplit_once("\n\n")?;
        let text = &note[..=text.len()]; // including the line feed of its last line
        let signatures = signatures.strip_suffix('\n')?;
        let mut vouched = false;
        for line in signatures.split('\n') {
            let (name, signature) = line.strip_prefix("— ")?.split_once(' ')?;
            let signature = BASE64_STANDARD.decode(signature).ok()?;
            let (id, signature) = signature.split_at_checked(4)?;
            // A note may have signatures of other keys, such as witnesses; those are ignored.
            if name == self.name && id == self.id() {
                vouched = UnparsedPublicKey::new(&ED25519, self.key)
                    .verify(text.as_bytes(), signature)
                    .is_ok();
                if !vouched {
                    return None;
                }
            }
        }
        vouched.then_some(text)
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = [&[ED25519_KEY], self.key.as_slice()].concat();
        write!(
            f,
            "{}+{:08x}+{}",
            self.name,
            u32::from_be_bytes(self.id()),
            BASE64_STANDARD.encode(key)
        )
    }
}

impl FromStr for VerifierKey {
    type Err = InvalidVerifierKey;

    fn from_str(text: &str) -> Result<Self, InvalidVerifierKey> {
        let mut parts = text.trim().splitn(3, '+');
        let (Some(name), Some(_id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(InvalidVerifierKey);
        };
        let key = BASE64_STANDARD
            .decode(key)
            .map_err(|_| InvalidVerifierKey)?;
        let key = key
            .strip_prefix(&[ED25519_KEY])
            .and_then(|key| key.try_into().ok())
            .ok_or(InvalidVerifierKey)?;
        let known = Self {
            name: name.to_owned(),
            key,
        };
        // Formatting the key again must give the same text, which also checks the hash.
        let good = !name.is_empty()
            && !name.contains(char::is_whitespace)
            && known.to_string() == text.trim();
        if good {
            Ok(known)
        } else {
            Err(InvalidVerifierKey)
        }
    }
}

/// Signs notes.
pub struct NoteSigner {
    pair: Ed25519KeyPair,
    public: VerifierKey,
}

impl fmt::Debug for NoteSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NoteSigner")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

impl NoteSigner {
    /// Generates the seed of a new key (RFC 8032, section 5.1.5). Returns `None` if the random
    /// number generator fails.
    pub fn generate() -> Option<Zeroizing<[u8; 32]>> {
        let mut seed = Zeroizing::new([0; 32]);
        rand::fill(seed.as_mut()).ok()?;
        Some(seed)
    }

    /// Creates a signer from a seed. Returns `None` if the seed is not valid.
    ///
    /// The name is `guestlane/` and the first 4 bytes of the public key's SHA-256, in hexadecimal.
    pub fn from_seed(seed: &[u8]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
        let key: [u8; 32] = pair.public_key().as_ref().try_into().ok()?;
        let [a, b, c, d, ..] = sha256(&[&key]);
        let name = format!("guestlane/{:08x}", u32::from_be_bytes([a, b, c, d]));
        Some(Self {
            pair,
            public: VerifierKey { name, key },
        })
    }

    /// Returns the verifier key.
    pub fn public(&self) -> &VerifierKey {
        &self.public
    }

    /// Returns `text`, which must end with a line feed, with this key's signature.
    ///
    /// Ed25519 is deterministic, so the same text gives the same note.
    pub fn sign(&self, text: &str) -> String {
        let signature = [&self.public.id(), self.pair.sign(text.as_bytes()).as_ref()].concat();
        format!(
            "{text}\n— {} {}\n",
            self.public.name,
            BASE64_STANDARD.encode(signature)
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The key and the note in the documentation of Go's `sumdb/note`.
    const PETER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const NOTE: &str = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n\
        — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    #[test]
    fn reference_note_is_opened() {
        let key: VerifierKey = PETER.parse().unwrap();
        assert_eq!(key.to_string(), PETER);
        assert!(key.open(NOTE).unwrap().ends_with("what your problem is.\n"));
    }

    #[test]
    fn note_opens_only_under_its_key_beside_other_signatures() {
        let signer = NoteSigner::from_seed(&[7; 32]).unwrap();
        let note = signer.sign("one\ntwo\n");
        assert_eq!(signer.public().open(&note), Some("one\ntwo\n"));
        assert_eq!(
            NoteSigner::from_seed(&[8; 32])
                .unwrap()
                .public()
                .open(&note),
            None
        );
        let witnessed = format!("{note}— witness.example aaaabbbbcccc\n");
        assert_eq!(signer.public().open(&witnessed), Some("one\ntwo\n"));
        assert_eq!(
            signer.public().to_string().parse(),
            Ok(signer.public().clone())
        );
    }

    proptest! {
        #[test]
        fn changed_note_is_not_opened(at in 0_usize..300, bit in 0_u32..8) {
            let key: VerifierKey = PETER.parse().unwrap();
            let mut bytes = NOTE.as_bytes().to_vec();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            if let Ok(changed) = std::str::from_utf8(&bytes) {
                prop_assert_eq!(key.open(changed), None);
            }
        }
    }

    #[test]
    fn malformed_verifier_key_is_rejected() {
        for text in [
            "",
            "name",
            "name+00000000+AAAA",
            "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        ] {
            assert!(text.parse::<VerifierKey>().is_err(), "{text}");
        }
    }
}
