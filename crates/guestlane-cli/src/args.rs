//! The command line.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::{Parser, Subcommand};
use clap_complete::Shell;
use guestlane_sim::Fault;

use crate::commands::confirm::Confirmed;

/// Creates Genesys Cloud web-messaging guest sessions: none lost, none twice, and proof of both.
#[derive(Debug, Parser)]
#[command(name = "guestlane", version, max_term_width = 100, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Global {
    /// Print data as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Settings file [default: guestlane.toml, if there is one]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where the store and the keys are [default: .guestlane]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Say more on stderr; twice also the shape of requests and answers
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// A simulated platform, a CRM and a few guests on this machine: no set-up at all
    Demo(Demo),
    /// Create one session
    Create(Create),
    /// Create a session for each row of a file
    Batch(Batch),
    /// Work on the batches in the database, until interrupted
    Work(Work),
    /// Pretend the platform and a CRM, until interrupted
    Simulate(Simulate),
    /// Measure whole runs against a simulator, on this machine
    Bench(Bench),
    /// Serve sessions over HTTP, with a dashboard, until interrupted
    Serve(Serve),
    /// Look at sessions, and finish what was left behind
    #[command(subcommand)]
    Sessions(Sessions),
    /// Look at events for the CRM, and deliver them
    #[command(subcommand)]
    Outbox(Outbox),
    /// Who may ask the service, and for what
    #[command(subcommand)]
    ApiKeys(ApiKeys),
    /// Look at signing keys, export their public halves, rotate and revoke them
    #[command(subcommand)]
    Keys(Keys),
    /// Rotate the master key, under which the store's secrets are sealed
    #[command(subcommand)]
    MasterKey(MasterKey),
    /// Sign, verify and look into guest tokens
    #[command(subcommand)]
    Token(Token),
    /// Look at the audit log, and prove it
    #[command(subcommand)]
    Audit(Audit),
    /// Forget guests
    #[command(subcommand)]
    Guests(Guests),
    /// Move the store into a database
    #[command(subcommand)]
    Store(Store),
    /// Errors by category, latency, sessions and events by state
    Metrics,
    /// Check settings, platform, CRM and this machine, and say what to do; changes nothing
    Doctor,
    /// Look at settings
    #[command(subcommand)]
    Config(Config),
    /// Print a completion script for a shell
    Completions { shell: Shell },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Demo {
    /// Guests as CSV: guest_id,queue,attr.NAME… [default: twelve that are built in]
    #[arg(long, value_name = "FILE")]
    pub(crate) guests: Option<PathBuf>,
    /// Serve the dashboard while guests go on arriving and things go wrong, until interrupted
    #[arg(long)]
    pub(crate) serve: bool,
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8971", requires = "serve")]
    pub(crate) listen: SocketAddr,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// The id under which the CRM knows the guest
    #[arg(long, value_name = "ID")]
    pub(crate) guest: String,
    /// The queue's id [default: GENESYS_QUEUE_ID]
    #[arg(long, value_name = "ID")]
    pub(crate) queue: Option<String>,
    /// What is known of the guest; may be repeated
    #[arg(long = "attr", value_name = "NAME=VALUE")]
    pub(crate) attributes: Vec<String>,
    /// The contact's first name (official surfaces)
    #[arg(long, value_name = "NAME")]
    pub(crate) first_name: Option<String>,
    /// The contact's last name (official surfaces)
    #[arg(long, value_name = "NAME")]
    pub(crate) last_name: Option<String>,
    /// The contact's e-mail address (official surfaces)
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) email: Option<String>,
    /// The contact's telephone number, like +31 20 555 0100 (official surfaces)
    #[arg(long, value_name = "NUMBER")]
    pub(crate) phone: Option<String>,
    /// The name of this wish: the same key is the same session [default: a new one]
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    /// Show the calls that would be made, and make none
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Show the guest token
    #[arg(long)]
    pub(crate) show_token: bool,
}

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Batch {
    #[command(subcommand)]
    pub(crate) command: Option<BatchCommand>,
    /// CSV (guest_id,queue_id,idempotency_key,first_name,last_name,email,phone,attr.NAME…) or JSON lines; - is standard input
    #[arg(value_name = "FILE", required = true)]
    file: Option<PathBuf>,
    /// Put the rows into the database, for every process that works (`work`, `serve --work`); needs a PostgreSQL database
    #[arg(long, conflicts_with_all = ["out", "concurrency", "quota", "check"])]
    pub(crate) enqueue: bool,
    /// Write one JSON line for each row; what it holds already is not done again
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Sessions under way at once, at the most; how many are, follows the quota and how fast the platform answers [default: 256]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) concurrency: Option<u16>,
    /// How many calls the platform allows each OAuth client: N/s, N/min or off [default: GUESTLANE_QUOTA]
    #[arg(long, value_name = "RATE")]
    pub(crate) quota: Option<String>,
    /// The name of this batch, from which rows without a key get theirs [default: the file's path]
    #[arg(long, value_name = "NAME")]
    pub(crate) batch_key: Option<String>,
    /// Read and check every row, and send nothing
    #[arg(long, conflicts_with_all = ["out", "concurrency", "quota"])]
    pub(crate) check: bool,
    /// Show no progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

impl Batch {
    /// Where the rows are.
    pub(crate) fn file(&self) -> &Path {
        self.file.as_deref().unwrap_or(Path::new("-")) // there is one where there is no subcommand
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum BatchCommand {
    /// How far a batch in the database got; without an id, the last ones
    Status {
        /// The batch's id
        #[arg(value_name = "ID")]
        id: Option<String>,
    },
    /// What came of each row of a batch in the database: one JSON line for each that has ended
    Results {
        /// The batch's id
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Begin no more rows of a batch in the database
    Cancel {
        /// The batch's id
        #[arg(value_name = "ID")]
        id: String,
        #[command(flatten)]
        confirmed: Confirmed,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Store {
    /// Move a store from a file into an empty PostgreSQL database; the same command finishes a move that was interrupted
    ///
    /// From the first row on the file is refused, until the move is finished or abandoned. Both stores are compared at the end:
    /// all columns of all rows, and the roots of the audit logs.
    Copy {
        /// The file, as sqlite:PATH
        #[arg(long, value_name = "URL")]
        from: String,
        /// The database, as postgres://USER:PASSWORD@HOST:5432/DATABASE
        #[arg(long, value_name = "URL", required_unless_present = "abandon", conflicts_with = "abandon")]
        to: Option<String>,
        /// Give up an unfinished move: the file is used again, and the database stays refused
        #[arg(long)]
        abandon: bool,
        /// With --abandon: do it; without it, say what would happen
        #[arg(long, requires = "abandon")]
        yes: bool,
    },
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Work {
    /// Sessions under way at once, at the most; how many are, follows the quota and how fast the platform answers [default: 256]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) concurrency: Option<u16>,
    /// How many calls the platform allows each OAuth client, all processes together: N/s, N/min or off [default: GUESTLANE_QUOTA]
    #[arg(long, value_name = "RATE")]
    pub(crate) quota: Option<String>,
    /// Where metrics and probes (`/metrics`, `/healthz`, `/readyz`) are, without a key [default: nowhere]
    #[arg(long, value_name = "ADDR")]
    pub(crate) metrics_listen: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Bench {
    /// Sessions in each run
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub(crate) sessions: u64,
    /// Runs, of which the medians are told
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) runs: u16,
    /// Sessions under way at once, at the most [default: as a batch has it]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) concurrency: Option<u16>,
    /// Sessions come evenly, so many a second, whether the ones before are done or not: N/s or off
    #[arg(long, value_name = "RATE", default_value = "off")]
    pub(crate) arrivals: String,
    /// Calls that the simulator allows each OAuth client: N/s, N/min or off
    #[arg(long, value_name = "RATE", default_value = "off")]
    pub(crate) quota: String,
    /// OAuth clients
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) clients: u16,
    /// How long each of the simulator's answers takes at least, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub(crate) latency: u64,
    /// Which of the platform's APIs opens the conversation
    #[arg(long, default_value = "rest", value_parser = ["rest", "web-messaging", "open-messaging"])]
    pub(crate) surface: String,
    /// Also without CRM, without audit log, and without durability: what each costs
    #[arg(long)]
    pub(crate) costs: bool,
    /// Draw the latencies
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// On which disk [default: the system's directory for temporary files]
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir(), hide_default_value = true)]
    pub(crate) directory: PathBuf,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Serve {
    /// Where to listen; port 0 takes a free one [default: GUESTLANE_LISTEN, else 127.0.0.1:8971]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<String>,
    /// Where the metrics are, without a key; or off [default: GUESTLANE_METRICS_LISTEN, else 127.0.0.1:8972]
    #[arg(long, value_name = "ADDR")]
    pub(crate) metrics_listen: Option<String>,
    /// Also work on the batches in the database
    #[arg(long)]
    pub(crate) work: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ApiKeys {
    /// Make a key and print it: this once
    Create {
        /// Whose it is
        #[arg(long, value_name = "NAME")]
        name: String,
        /// What it is for: sessions:write, sessions:read, tokens:verify, admin; may be repeated
        #[arg(long = "scope", value_name = "SCOPE", required_unless_present = "replaces")]
        scopes: Vec<String>,
        /// How long it is good: like 12h or 90d [default: until it is revoked]
        #[arg(long, value_name = "SPAN")]
        expires: Option<String>,
        /// The id of the key that it takes the place of; without --scope it gets the same scopes
        #[arg(long, value_name = "ID")]
        replaces: Option<String>,
        /// How long the replaced key is good yet
        #[arg(long, value_name = "SPAN", default_value = "24h", requires = "replaces")]
        overlap: String,
    },
    /// All keys, without what is secret of them
    List,
    /// End a key: within a second no service accepts it
    Revoke {
        /// The key's id
        #[arg(value_name = "ID")]
        id: String,
        #[command(flatten)]
        confirmed: Confirmed,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Simulate {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8970")]
    pub(crate) listen: SocketAddr,
    /// Calls allowed to each OAuth client: N/s, N/min or off
    #[arg(long, value_name = "RATE", default_value = "100/s")]
    pub(crate) quota: String,
    /// How many OAuth clients there are, each with a quota of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) clients: u16,
    /// A route that allows each OAuth client less, like contact:60/min; may be repeated
    #[arg(long = "endpoint-quota", value_name = "ROUTE:RATE")]
    pub(crate) endpoint_quotas: Vec<String>,
    /// What goes wrong: ROUTE:KIND[:WHEN], like conversation:answer-lost:p=0.05; 28 kinds in docs/simulator.md; may be repeated
    #[arg(long = "fault", value_name = "SPEC")]
    pub(crate) faults: Vec<Fault>,
    /// How long every answer takes at least, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub(crate) latency: u64,
    /// The same seed and the same calls give the same run
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// How long an access token is good, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1800)]
    pub(crate) token_life: u64,
    /// The secret with which the CRM checks signatures, whsec_… [default: any signature will do]
    #[arg(long, value_name = "SECRET")]
    pub(crate) crm_secret: Option<String>,
    /// Serve https, with a certificate authority of its own
    #[arg(long)]
    pub(crate) tls: bool,
    /// Where the authority's certificate is written
    #[arg(long, value_name = "FILE", default_value = "guestlane-simulator-ca.pem", requires = "tls")]
    pub(crate) ca_file: PathBuf,
    /// The region whose host names the certificate has: login., api., webmessaging., api-cdn.
    #[arg(long, value_name = "DOMAIN", default_value = "localhost", requires = "tls")]
    pub(crate) region: String,
    /// What the inbound flow does with a first message
    #[arg(long, value_enum, default_value_t = InboundFlow::ReadsRoutingTarget)]
    pub(crate) flow: InboundFlow,
    /// How long after a message its details cannot be read yet, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub(crate) details_delay: u64,
    /// Whether Open Messaging tells the conversation when it is asked to
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub(crate) prefetch: bool,
    /// Whether a Presence event alone opens a conversation
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub(crate) join_opens: bool,
    /// The deployment takes this Origin's domain only, and those under it; may be repeated [default: all]
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) allow_origin: Vec<String>,
    /// Push frames of the guest socket in an unexpected order
    #[arg(long)]
    pub(crate) out_of_order: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum InboundFlow {
    /// To the queue that the attribute routingTarget names
    ReadsRoutingTarget,
    /// To the first queue, whatever is asked for
    Ignores,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Sessions {
    /// Sessions, newest first
    List {
        /// Only this guest's
        #[arg(long, value_name = "ID")]
        guest: Option<String>,
        /// Only those in this state: admitted, contact_created, open, failed, parked, needs_attention
        #[arg(long, value_name = "STATE")]
        state: Option<String>,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: u32,
    },
    /// One session
    Show {
        /// The session's id; or a guest's, conversation's or contact's, or an idempotency key: the newest such session
        #[arg(value_name = "ID")]
        id: String,
        /// Show the guest token
        #[arg(long)]
        show_token: bool,
    },
    /// What happened to a session: each call with its correlation id, each audit record, each delivery to the CRM
    Timeline {
        /// The session's id; or a guest's, conversation's or contact's, or an idempotency key: the newest such session
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Finish what was left behind: all, or one session
    Resume {
        /// The session's id
        #[arg(value_name = "ID")]
        id: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Outbox {
    /// Events, newest first
    List {
        /// Only those in this state: pending, delivered, dead, erased
        #[arg(long, value_name = "STATE")]
        state: Option<String>,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: u32,
    },
    /// One event, with its body
    Show {
        /// The event's id
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Try all that wait, now
    Deliver,
    /// Start events over, with the same ids and bodies: one, or those of a time
    Replay {
        /// The event's id
        #[arg(value_name = "ID", required_unless_present = "since", conflicts_with_all = ["since", "until", "state"])]
        id: Option<String>,
        /// Those written from then on: 2026-11-22T15:00:00Z
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
        /// Those written before [default: now]
        #[arg(long, value_name = "TIME", requires = "since")]
        until: Option<String>,
        /// Only those in this state: delivered, dead [default: both]
        #[arg(long, value_name = "STATE", requires = "since")]
        state: Option<String>,
        #[command(flatten)]
        confirmed: Confirmed,
    },
    /// Send events to a webhook endpoint again that answered 410 Gone
    Enable {
        /// The endpoint's number, in the order of CRM_WEBHOOK_URL
        #[arg(value_name = "N")]
        endpoint: u32,
    },
    /// Print the secret that each webhook endpoint verifies events with, or rotate one
    Secret {
        /// The endpoint's number, in the order of CRM_WEBHOOK_URL [default: all]
        #[arg(long, value_name = "N")]
        endpoint: Option<u32>,
        /// Print the public key of Ed25519 signatures (v1a) instead, which are sent, too, once this was asked for
        #[arg(long)]
        ed25519: bool,
        /// Make a new one, which signs from now on
        #[arg(long)]
        rotate: bool,
        /// How long the one before signs, too, so that the receiver can change over: like 24h or 7d, at most 90d; 0h ends it at once
        #[arg(long, value_name = "SPAN", default_value = "24h", requires = "rotate")]
        overlap: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum MasterKey {
    /// Replace a master key that is in the state directory; the same command finishes a rotation that was interrupted
    ///
    /// Stop all processes on the state directory first. A new key takes the place of the old one, everything in the store is sealed
    /// again, and the old key is deleted.
    Rotate {
        #[command(flatten)]
        confirmed: Confirmed,
    },
    /// Seal everything again under GUESTLANE_MASTER_KEY that GUESTLANE_MASTER_KEY_PREVIOUS sealed, while processes run
    Reseal {
        #[command(flatten)]
        confirmed: Confirmed,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// The signing keys
    List,
    /// The public halves: for the admin console, and for those who verify
    Export {
        /// How
        #[arg(long, value_enum, default_value_t = Format::Pem)]
        format: Format,
        /// Which, as PEM [default: the newest that is published: it must be registered before it signs]
        #[arg(long, value_name = "KID")]
        kid: Option<String>,
    },
    /// Make the next key: it is published now, and signs once it was published for GUESTLANE_KEYS_PUBLISH_BEFORE
    Rotate,
    /// Believe a key no more, from now on; where it signs, another one signs at once
    Revoke {
        /// The key's id
        #[arg(value_name = "KID")]
        kid: String,
        #[command(flatten)]
        confirmed: Confirmed,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// SPKI, PEM: what the admin console takes
    Pem,
    /// A JWK set: what verifiers take
    Jwks,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Sign a guest token and print it
    Sign {
        /// The id under which the CRM knows the guest
        #[arg(long, value_name = "ID")]
        guest: String,
        /// A claim; may be repeated
        #[arg(long = "attr", value_name = "NAME=VALUE")]
        attributes: Vec<String>,
    },
    /// Verify a guest token: is it ours, and whose
    Verify {
        /// The token; - reads it from standard input
        #[arg(value_name = "TOKEN")]
        token: String,
    },
    /// Show header and claims, with nothing checked
    Decode {
        /// The token; - reads it from standard input
        #[arg(value_name = "TOKEN")]
        token: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Records, oldest first
    Show {
        /// Only this session's
        #[arg(long, value_name = "ID")]
        session: Option<String>,
        /// Only this guest's, also where the log has a pseudonym
        #[arg(long, value_name = "ID")]
        guest: Option<String>,
        /// The last so many
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: u32,
    },
    /// Check that nothing in the log was changed, dropped or added: by files and a public key alone
    Verify {
        /// Files of lines; their checkpoints and hashes stand beside them [default: all logs of the state directory]
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
        /// The public key, as `audit key` prints it, or a file that has it [default: that of the state directory]
        #[arg(long, value_name = "KEY")]
        key: Option<String>,
        /// A checkpoint that somebody kept: the log must still agree with it; may be repeated
        #[arg(long, value_name = "FILE")]
        checkpoint: Vec<PathBuf>,
        /// Check a proof of `audit prove` instead
        #[arg(long, value_name = "FILE", conflicts_with_all = ["files", "checkpoint"])]
        proof: Option<PathBuf>,
    },
    /// Print the proof that a session's records are in the log, for somebody who has neither the log nor us
    Prove {
        /// The session's id
        #[arg(value_name = "SESSION")]
        session: String,
    },
    /// Write the files of a log anew from the store, after they were moved away
    Restore {
        /// The log's number: 2 is session-audit.2.jsonl
        #[arg(value_name = "LOG")]
        log: u32,
    },
    /// Print the public key that the log is checked with
    Key,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Guests {
    /// Make a guest unreadable: in sessions, events, dead letters and, where it has pseudonyms, in the audit log
    Erase {
        /// The id under which the CRM knows the guest
        #[arg(value_name = "ID")]
        id: String,
        #[command(flatten)]
        confirmed: Confirmed,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Each setting, its value, and where that came from
    Show,
}
