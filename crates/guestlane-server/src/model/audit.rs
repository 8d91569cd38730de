//! JSON models of the audit log.

use serde::Serialize;
use utoipa::ToSchema;

/// The signed state of the audit log (C2SP tlog-checkpoint). Store a copy elsewhere: any later
/// change to a record that the checkpoint covers is then detected.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Checkpoint {
    /// The number of the log, from 1. A full log is sealed, and the next one begins.
    #[schema(minimum = 1, example = 1)]
    pub log: u32,
    /// The name of the log.
    #[schema(max_length = 256, example = "guestlane/8f1c2a90b4d5e6f7/1")]
    pub origin: String,
    /// The number of records that the checkpoint covers.
    #[schema(minimum = 0, example = 2468)]
    pub size: u64,
    /// The root hash of the log's Merkle tree (RFC 6962), in base64.
    #[schema(
        min_length = 44,
        max_length = 44,
        example = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
    )]
    pub root: String,
    /// The checkpoint as a signed note.
    #[schema(
        max_length = 4096,
        example = "guestlane/8f1c2a90b4d5e6f7/1\n2468\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n— guestlane …\n"
    )]
    pub note: String,
    /// The verifier key of the log, as `guestlane audit verify --key` takes it.
    #[schema(max_length = 512, example = "guestlane/8f1c2a90b4d5e6f7+00000000+AAAA")]
    pub key: String,
}

/// The result of a successful verification of the audit log: each line of its files agrees with the
/// signed checkpoint and with the store.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditProof {
    /// Always true: a failed verification returns a problem instead.
    #[schema(example = true)]
    pub verified: bool,
    /// The verified logs.
    #[schema(max_items = 100_000)]
    pub logs: Vec<ProvenLog>,
    /// The duration of the verification, in milliseconds.
    #[schema(minimum = 0, example = 812.0)]
    pub milliseconds: f64,
}

/// A log whose lines agree with its signed checkpoint.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProvenLog {
    /// The number of the log, from 1.
    #[schema(minimum = 1, example = 1)]
    pub log: u32,
    /// The number of records in the log.
    #[schema(minimum = 0, example = 2468)]
    pub size: u64,
    /// The root hash of the log's Merkle tree (RFC 6962), in base64.
    #[schema(
        min_length = 44,
        max_length = 44,
        example = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
    )]
    pub root: String,
    /// The name of the log.
    #[schema(max_length = 256, example = "guestlane/8f1c2a90b4d5e6f7/1")]
    pub origin: String,
}
