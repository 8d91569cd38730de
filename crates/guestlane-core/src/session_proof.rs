//! The audit records of one session, with their inclusion proofs.

use guestlane_tlog::{
    Checkpoint, VerifierKey,
    proof::{InvalidProof, ProvenRecord},
};
use serde::{Deserialize, Serialize};

/// The audit records of one session, each with its inclusion proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionProof {
    /// ID of the session.
    pub session_id: String,
    /// The session's records, in the order of the logs.
    pub records: Vec<ProvenRecord>,
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
    use guestlane_tlog::{NoteSigner, inclusion, leaf_hash, proof::write, root};

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
        fn proof_verifies_and_any_changed_byte_fails(size in 1_usize..40, of in 0_usize..40, at in 0_usize..2000, bit in 0_u32..8) {
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
    fn proof_of_another_session_is_rejected() {
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
