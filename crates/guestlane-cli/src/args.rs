//! The command line.

mod administration;
mod batches;

use std::{net::SocketAddr, path::PathBuf};

use clap::{Parser, Subcommand};
use clap_complete::Shell;
use guestlane_sim::Fault;

pub(crate) use administration::{
    ApiKeys, Audit, Format, Guests, MasterKey, Outbox, SigningKeys, Token,
};
pub(crate) use batches::{Batch, BatchCommand, Worker};

/// Creates Genesys Cloud web-messaging guest sessions without losing or duplicating one, and proves it.
#[derive(Debug, Parser)]
#[command(
    name = "guestlane",
    version,
    max_term_width = 100,
    arg_required_else_help = true
)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Global {
    /// Print results as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Settings file [default: guestlane.toml, if it exists]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// State directory: store and keys [default: .guestlane]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Log more to stderr; twice to include redacted requests and responses
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a simulated platform, a CRM and some guests on this machine, without any setup
    Demo(Demo),
    /// Create one session
    Create(Create),
    /// Create one session per row of a file, or manage batches in the database
    Batch(Batch),
    /// Run a worker for batches in the database until interrupted
    Worker(Worker),
    /// Run the simulator of the platform and a CRM until interrupted
    Simulate(Simulate),
    /// Benchmark against the simulator on this machine
    Bench(Bench),
    /// Run the HTTP service with its dashboard until interrupted
    Serve(Serve),
    /// List, show and resume sessions
    #[command(subcommand)]
    Sessions(Sessions),
    /// List, deliver and replay CRM events; manage webhook endpoints
    #[command(subcommand)]
    Outbox(Outbox),
    /// Create, list and revoke API keys for the HTTP service
    #[command(subcommand)]
    ApiKeys(ApiKeys),
    /// List, export, rotate and revoke signing keys
    #[command(subcommand)]
    SigningKeys(SigningKeys),
    /// Rotate the master key, which encrypts all secrets in the store
    #[command(subcommand)]
    MasterKey(MasterKey),
    /// Sign, verify and decode guest tokens
    #[command(subcommand)]
    Token(Token),
    /// Show, verify and prove the audit log
    #[command(subcommand)]
    Audit(Audit),
    /// Erase personal data of guests
    #[command(subcommand)]
    Guests(Guests),
    /// Migrate the store into PostgreSQL
    #[command(subcommand)]
    Store(Store),
    /// Show errors by category, latency, and counts of sessions and events by state
    Stats,
    /// Check settings, platform, CRM and this machine, and print fixes; changes nothing
    Doctor,
    /// Show settings
    #[command(subcommand)]
    Config(Config),
    /// Print a completion script for a shell
    Completions { shell: Shell },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Demo {
    /// Guests as CSV: guest_id,queue,attr.NAME… [default: twelve built-in guests]
    #[arg(long, value_name = "FILE")]
    pub(crate) guests: Option<PathBuf>,
    /// Serve the dashboard while guests arrive and faults are injected, until interrupted
    #[arg(long)]
    pub(crate) serve: bool,
    /// Address to listen on; port 0 picks a free port
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1:8971",
        requires = "serve"
    )]
    pub(crate) listen: SocketAddr,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// Guest ID, as the CRM knows the guest
    #[arg(long, value_name = "ID")]
    pub(crate) guest: String,
    /// Queue ID [default: GENESYS_QUEUE_ID]
    #[arg(long, value_name = "ID")]
    pub(crate) queue: Option<String>,
    /// Attribute of the guest; may be repeated
    #[arg(long = "attr", value_name = "NAME=VALUE")]
    pub(crate) attributes: Vec<String>,
    /// First name of the contact (web-messaging and open-messaging)
    #[arg(long, value_name = "NAME")]
    pub(crate) first_name: Option<String>,
    /// Last name of the contact (web-messaging and open-messaging)
    #[arg(long, value_name = "NAME")]
    pub(crate) last_name: Option<String>,
    /// E-mail address of the contact (web-messaging and open-messaging)
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) email: Option<String>,
    /// Telephone number of the contact, like +31 20 555 0100 (web-messaging and open-messaging)
    #[arg(long, value_name = "NUMBER")]
    pub(crate) phone: Option<String>,
    /// Idempotency key: the same key always returns the same session [default: generated]
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    /// Print the calls that would be sent, and send none of them
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print the guest token
    #[arg(long)]
    pub(crate) show_token: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Store {
    /// Migrate a store from a file into an empty PostgreSQL database; rerun the command to finish an interrupted migration
    ///
    /// From the first row on, the file cannot be opened until the migration is finished or abandoned. At the end, both stores are compared:
    /// all columns of all rows, and the roots of the audit logs.
    Migrate {
        /// Source file, as sqlite:PATH
        #[arg(long, value_name = "URL")]
        from: String,
        /// Target database, as postgres://USER:PASSWORD@HOST:5432/DATABASE
        #[arg(
            long,
            value_name = "URL",
            required_unless_present = "abandon",
            conflicts_with = "abandon"
        )]
        to: Option<String>,
        /// Abandon an unfinished migration: the file can be opened again, and the database cannot
        #[arg(long)]
        abandon: bool,
        /// With --abandon: apply it; otherwise only print what would happen
        #[arg(long, requires = "abandon")]
        yes: bool,
    },
}

/// A surface of the simulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum BenchSurface {
    Rest,
    WebMessaging,
    OpenMessaging,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Bench {
    /// Sessions in each run
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub(crate) sessions: u64,
    /// Number of runs; medians are reported
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) runs: u16,
    /// Maximum sessions in flight [default: as for a batch]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) concurrency: Option<u16>,
    /// Open-loop arrival rate, independent of completions: N/s or off
    #[arg(long, value_name = "RATE", default_value = "off")]
    pub(crate) arrival_rate: String,
    /// Rate limit of the simulator per OAuth client: N/s, N/min or off
    #[arg(long, value_name = "RATE", default_value = "off")]
    pub(crate) rate_limit: String,
    /// Number of OAuth clients
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) clients: u16,
    /// Minimum latency of the simulator's responses, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub(crate) latency: u64,
    /// Platform API that opens the conversation
    #[arg(long, value_enum, default_value_t = BenchSurface::Rest)]
    pub(crate) surface: BenchSurface,
    /// Also measure without CRM, and with the state directory in memory (/dev/shm)
    #[arg(long)]
    pub(crate) ablation: bool,
    /// Write a latency chart
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Directory, and thereby disk, to run on [default: the system's temporary directory]
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir(), hide_default_value = true)]
    pub(crate) directory: PathBuf,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Serve {
    /// Address to listen on; port 0 picks a free port [default: GUESTLANE_LISTEN, else 127.0.0.1:8971]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<String>,
    /// Address for metrics, without authentication; or off [default: GUESTLANE_METRICS_LISTEN, else 127.0.0.1:8972]
    #[arg(long, value_name = "ADDR")]
    pub(crate) metrics_listen: Option<String>,
    /// Also run a worker for batches in the database
    #[arg(long)]
    pub(crate) with_worker: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Simulate {
    /// Address to listen on; port 0 picks a free port
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8970")]
    pub(crate) listen: SocketAddr,
    /// Rate limit per OAuth client: N/s, N/min or off
    #[arg(long, value_name = "RATE", default_value = "100/s")]
    pub(crate) rate_limit: String,
    /// Number of OAuth clients, each with its own rate limit
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) clients: u16,
    /// Lower rate limit for one route, like contact:60/min; may be repeated
    #[arg(long = "endpoint-rate-limit", value_name = "ROUTE:RATE")]
    pub(crate) endpoint_rate_limits: Vec<String>,
    /// Fault to inject: `ROUTE:KIND[:WHEN]`, like conversation:answer-lost:p=0.05; docs/simulator.md lists 30 kinds; may be repeated
    #[arg(long = "fault", value_name = "SPEC")]
    pub(crate) faults: Vec<Fault>,
    /// Minimum latency of every response, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub(crate) latency: u64,
    /// Random seed: the same seed and calls reproduce a run
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Lifetime of access tokens, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1800)]
    pub(crate) token_ttl: u64,
    /// Secret with which the CRM verifies signatures, whsec_… [default: signatures are not verified]
    #[arg(long, value_name = "SECRET")]
    pub(crate) crm_secret: Option<String>,
    /// Serve HTTPS with a generated certificate authority
    #[arg(long)]
    pub(crate) tls: bool,
    /// File to which the authority's certificate is written
    #[arg(
        long,
        value_name = "FILE",
        default_value = "guestlane-simulator-ca.pem",
        requires = "tls"
    )]
    pub(crate) ca_file: PathBuf,
    /// Region whose host names the certificate covers: login., api., webmessaging., api-cdn.
    #[arg(
        long,
        value_name = "DOMAIN",
        default_value = "localhost",
        requires = "tls"
    )]
    pub(crate) region: String,
    /// Behaviour of the inbound flow on a first message
    #[arg(long, value_enum, default_value_t = InboundFlow::ReadsRoutingTarget)]
    pub(crate) flow: InboundFlow,
    /// Delay before details of a message become visible, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub(crate) details_delay: u64,
    /// Whether Open Messaging returns the conversation ID on request
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub(crate) prefetch: bool,
    /// Whether a Presence event alone opens a conversation
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub(crate) join_opens: bool,
    /// Domain that the deployment allows as Origin, with its subdomains; may be repeated [default: all]
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) allow_origin: Vec<String>,
    /// Push frames of the guest socket in an unexpected order
    #[arg(long)]
    pub(crate) out_of_order: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum InboundFlow {
    /// Route to the queue named by the attribute routingTarget
    ReadsRoutingTarget,
    /// Always route to the first queue
    Ignores,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Sessions {
    /// List sessions, newest first
    List {
        /// Only sessions of this guest
        #[arg(long, value_name = "ID")]
        guest: Option<String>,
        /// Only sessions in this state: admitted, contact_ready, message_sent, conversation_found, open, failed, parked, needs_attention
        #[arg(long, value_name = "STATE")]
        state: Option<String>,
        /// Maximum number of results
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: u32,
    },
    /// Show one session
    Show {
        /// Session ID; or the ID of a guest, conversation or contact, or an idempotency key, for the newest such session
        #[arg(value_name = "ID")]
        id: String,
        /// Print the guest token
        #[arg(long)]
        show_token: bool,
    },
    /// Show the timeline of a session: platform calls with correlation IDs, audit records and deliveries
    Timeline {
        /// Session ID; or the ID of a guest, conversation or contact, or an idempotency key, for the newest such session
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Resume unfinished sessions: all, or one
    Resume {
        /// Session ID
        #[arg(value_name = "ID")]
        id: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Show each setting with its value and source
    Show,
}
