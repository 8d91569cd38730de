//! Arguments of batches.

use std::path::{Path, PathBuf};

use clap::Subcommand;

use crate::commands::confirm::Confirmed;

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Batch {
    #[command(subcommand)]
    pub(crate) command: Option<BatchCommand>,
    /// CSV (guest_id,queue_id,idempotency_key,first_name,last_name,email,phone,attr.NAME…) or JSON lines; - is standard input
    #[arg(value_name = "FILE", required = true)]
    file: Option<PathBuf>,
    /// Write one JSON line per row; rows that the file already contains are skipped
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Maximum sessions in flight; the actual number follows the rate limit and the platform's latency [default: 256]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) max_concurrency: Option<u16>,
    /// Platform rate limit per OAuth client: N/s, N/min or off [default: GUESTLANE_PLATFORM_RATE_LIMIT]
    #[arg(long, value_name = "RATE")]
    pub(crate) rate_limit: Option<String>,
    /// Name of the batch; idempotency keys of rows without one are derived from it [default: the file's path]
    #[arg(long, value_name = "NAME")]
    pub(crate) batch_key: Option<String>,
    /// Validate every row without sending anything
    #[arg(long, conflicts_with_all = ["output", "max_concurrency", "rate_limit"])]
    pub(crate) dry_run: bool,
    /// Do not show progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

impl Batch {
    /// The file with the rows.
    pub(crate) fn file(&self) -> &Path {
        self.file.as_deref().unwrap_or(Path::new("-")) // there is one where there is no subcommand
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum BatchCommand {
    /// Store the rows in the database, where workers claim them (`worker`, `serve --with-worker`); needs PostgreSQL
    Enqueue {
        /// CSV or JSON lines, as `batch FILE`; - is standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Name of the batch; idempotency keys of rows without one are derived from it [default: the file's path]
        #[arg(long, value_name = "NAME")]
        batch_key: Option<String>,
    },
    /// Show the progress of a batch in the database; without an ID, of the most recent ones
    Status {
        /// Batch ID
        #[arg(value_name = "ID")]
        id: Option<String>,
    },
    /// Print the results of a batch in the database: one JSON line per completed row
    Results {
        /// Batch ID
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Cancel the waiting rows of a batch in the database
    Cancel {
        /// Batch ID
        #[arg(value_name = "ID")]
        id: String,
        #[command(flatten)]
        confirmed: Confirmed,
    },
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Worker {
    /// Maximum sessions in flight; the actual number follows the rate limit and the platform's latency [default: 256]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) max_concurrency: Option<u16>,
    /// Platform rate limit per OAuth client, shared by all nodes: N/s, N/min or off [default: GUESTLANE_PLATFORM_RATE_LIMIT]
    #[arg(long, value_name = "RATE")]
    pub(crate) rate_limit: Option<String>,
    /// Address for `/metrics`, `/healthz` and `/readyz`, without authentication [default: none]
    #[arg(long, value_name = "ADDR")]
    pub(crate) metrics_listen: Option<String>,
}
