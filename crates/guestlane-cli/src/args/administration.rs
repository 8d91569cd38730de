//! Arguments of the administration of keys, audit log, guests and outbox.

use std::path::PathBuf;

use clap::Subcommand;

use crate::commands::confirm::Confirmed;

#[derive(Debug, Subcommand)]
pub(crate) enum ApiKeys {
    /// Create an API key and print it; it is shown only once
    Create {
        /// Name of the key's holder
        #[arg(long, value_name = "NAME")]
        name: String,
        /// Scope: sessions:write, sessions:read, tokens:verify or admin; may be repeated
        #[arg(
            long = "scope",
            value_name = "SCOPE",
            required_unless_present = "replaces"
        )]
        scopes: Vec<String>,
        /// Lifetime, like 12h or 90d [default: until revoked]
        #[arg(long, value_name = "SPAN")]
        expires: Option<String>,
        /// ID of the key that this one replaces; scopes are copied unless --scope is given
        #[arg(long, value_name = "ID")]
        replaces: Option<String>,
        /// How long the replaced key remains valid
        #[arg(
            long,
            value_name = "SPAN",
            default_value = "24h",
            requires = "replaces"
        )]
        overlap: String,
    },
    /// List API keys without their secrets
    List,
    /// Revoke an API key; every node rejects it within a second
    Revoke {
        /// Key ID
        #[arg(value_name = "ID")]
        id: String,
        #[command(flatten)]
        confirmed: Confirmed,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Outbox {
    /// List events, newest first
    List {
        /// Only events in this state: pending, delivered, dead, erased
        #[arg(long, value_name = "STATE")]
        state: Option<String>,
        /// Maximum number of results
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: u32,
    },
    /// Show one event with its body
    Show {
        /// Event ID
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Attempt all pending deliveries now
    Deliver,
    /// Replay events with their IDs and bodies: one, or those of a time range
    Replay {
        /// Event ID
        #[arg(value_name = "ID", required_unless_present = "since", conflicts_with_all = ["since", "until", "state"])]
        id: Option<String>,
        /// Events created at or after this time: 2026-11-22T15:00:00Z
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
        /// Events created before this time [default: now]
        #[arg(long, value_name = "TIME", requires = "since")]
        until: Option<String>,
        /// Only events in this state: delivered, dead [default: both]
        #[arg(long, value_name = "STATE", requires = "since")]
        state: Option<String>,
        #[command(flatten)]
        confirmed: Confirmed,
    },
    /// Enable a webhook endpoint that was disabled after 410 Gone
    Enable {
        /// Endpoint number, in the order of CRM_WEBHOOK_URL
        #[arg(value_name = "N")]
        endpoint: u32,
    },
    /// Print the webhook secret of each endpoint, or rotate one
    Secret {
        /// Endpoint number, in the order of CRM_WEBHOOK_URL [default: all]
        #[arg(long, value_name = "N")]
        endpoint: Option<u32>,
        /// Print the public key of Ed25519 signatures (v1a) instead; from then on both signatures are sent
        #[arg(long)]
        ed25519: bool,
        /// Generate a new secret, which signs from now on
        #[arg(long)]
        rotate: bool,
        /// Overlap in which the previous secret signs too: like 24h or 7d, at most 90d; 0h for none
        #[arg(long, value_name = "SPAN", default_value = "24h", requires = "rotate")]
        overlap: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum MasterKey {
    /// Rotate the master key in the state directory; rerun the command to finish an interrupted rotation
    ///
    /// Stop all processes on the state directory first. A new key replaces the old one, every secret in the store is sealed
    /// again, and the old key is deleted.
    Rotate {
        #[command(flatten)]
        confirmed: Confirmed,
    },
    /// Reseal everything from GUESTLANE_MASTER_KEY_PREVIOUS to GUESTLANE_MASTER_KEY while processes run
    Reseal {
        #[command(flatten)]
        confirmed: Confirmed,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum SigningKeys {
    /// List signing keys
    List,
    /// Export public keys for the admin console and for verifiers
    Export {
        /// Output format
        #[arg(long, value_enum, default_value_t = Format::Pem)]
        format: Format,
        /// Key ID, for PEM [default: the newest published key, which must be registered before it signs]
        #[arg(long, value_name = "KID")]
        kid: Option<String>,
    },
    /// Generate and publish the next key; it signs after GUESTLANE_SIGNING_KEY_PUBLISH_LEAD
    Rotate,
    /// Revoke a key at once; if it is the active key, another key signs from now on
    Revoke {
        /// Key ID
        #[arg(value_name = "KID")]
        kid: String,
        #[command(flatten)]
        confirmed: Confirmed,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// SPKI as PEM, for the admin console
    Pem,
    /// JWK set, for verifiers
    Jwks,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Sign a guest token and print it
    Sign {
        /// Guest ID, as the CRM knows the guest
        #[arg(long, value_name = "ID")]
        guest: String,
        /// Claim; may be repeated
        #[arg(long = "attr", value_name = "NAME=VALUE")]
        attributes: Vec<String>,
    },
    /// Verify a guest token and print its guest
    Verify {
        /// Token; - reads standard input
        #[arg(value_name = "TOKEN")]
        token: String,
    },
    /// Print header and claims without verifying the token
    Decode {
        /// Token; - reads standard input
        #[arg(value_name = "TOKEN")]
        token: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Show audit records, oldest first
    Show {
        /// Only records of this session
        #[arg(long, value_name = "ID")]
        session: Option<String>,
        /// Only records of this guest, also under its pseudonym
        #[arg(long, value_name = "ID")]
        guest: Option<String>,
        /// Only the last N records
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: u32,
    },
    /// Verify that no record was changed, removed or added, from the files and the public key alone
    Verify {
        /// Log files, with their checkpoints and hashes beside them [default: all logs of the state directory]
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Public key as printed by `audit key`, or a file with it [default: the key of the state directory]
        #[arg(long, value_name = "KEY")]
        key: Option<String>,
        /// Checkpoint kept elsewhere that the log must be consistent with; may be repeated
        #[arg(long, value_name = "FILE")]
        checkpoint: Vec<PathBuf>,
        /// Verify a proof from `audit prove` instead
        #[arg(long, value_name = "FILE", conflicts_with_all = ["files", "checkpoint"])]
        proof: Option<PathBuf>,
    },
    /// Print an inclusion proof of a session's records, which can be verified without the log
    Prove {
        /// Session ID
        #[arg(value_name = "SESSION")]
        session: String,
    },
    /// Rebuild the files of a log from the store
    Rebuild {
        /// Log number: 2 is session-audit.2.jsonl
        #[arg(value_name = "LOG")]
        log: u32,
    },
    /// Print the public key that verifies the log
    Key,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Guests {
    /// Erase a guest from sessions, events, dead letters and, where pseudonyms are used, the audit log
    Erase {
        /// Guest ID, as the CRM knows the guest
        #[arg(value_name = "ID")]
        id: String,
        #[command(flatten)]
        confirmed: Confirmed,
    },
}
