//! JSON models of the audit log.

use serde::Serialize;
use utoipa::ToSchema;

/// What the audit log came to so far, signed (C2SP tlog-checkpoint): keep it, and nobody can change what is before it unseen.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Checkpoint {
    /// Which log, from 1: a full one is sealed, and the next one begun.
    #[schema(minimum = 1, example = 1)]
    pub log: u32,
    /// The log's name.
    #[schema(max_length = 256, example = "guestlane/8f1c2a90b4d5e6f7/1")]
    pub origin: String,
    /// Records so far.
    #[schema(minimum = 0, example = 2468)]
    pub size: u64,
    /// The root of its Merkle tree (RFC 6962), base64.
    #[schema(
        min_length = 44,
        max_length = 44,
        example = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
    )]
    pub root: String,
    /// The signed note.
    #[schema(
        max_length = 4096,
        example = "guestlane/8f1c2a90b4d5e6f7/1\n2468\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n— guestlane …\n"
    )]
    pub note: String,
    /// Who signs it: what `guestlane audit verify --key` takes.
    #[schema(max_length = 512, example = "guestlane/8f1c2a90b4d5e6f7+00000000+AAAA")]
    pub key: String,
}

/// What verifying the audit log came to: its files, line by line, and what the store knows of them.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditProof {
    /// True; a log that is not proven is told as a problem.
    #[schema(example = true)]
    pub verified: bool,
    /// Each log.
    #[schema(max_items = 100_000)]
    pub logs: Vec<ProvenLog>,
    /// How long it took.
    #[schema(minimum = 0, example = 812.0)]
    pub milliseconds: f64,
}

/// A log whose lines are what was signed.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProvenLog {
    /// From 1.
    #[schema(minimum = 1, example = 1)]
    pub log: u32,
    /// Records.
    #[schema(minimum = 0, example = 2468)]
    pub size: u64,
    /// The root of its Merkle tree, base64.
    #[schema(
        min_length = 44,
        max_length = 44,
        example = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
    )]
    pub root: String,
    /// The log's name.
    #[schema(max_length = 256, example = "guestlane/8f1c2a90b4d5e6f7/1")]
    pub origin: String,
}
