//! Options that all scenarios share.
//!
//! Owns: what to load, as whom, how much of the machine to take, and where results go. Called by: the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use humantime::parse_duration;

use crate::target::Dialect;

/// Against what, as whom, and where the results go.
#[derive(Args, Debug, Clone)]
pub struct Common {
    /// Gateway, as wss://host:port; several are used in turn, and so are all addresses behind a name
    #[arg(
        long,
        value_name = "URL",
        default_value = "wss://127.0.0.1:8443",
        help_heading = "Target"
    )]
    pub url: Vec<String>,
    /// Its admin listener, whose /metrics tell memory and processor time; one for each node
    /// [default: http://127.0.0.1:9600 when --url is not given either]
    #[arg(long, value_name = "URL", help_heading = "Target")]
    pub admin: Vec<String>,
    /// Server process on this machine to weigh with its children, instead of --admin
    #[arg(long, value_name = "PID", conflicts_with = "admin", help_heading = "Target")]
    pub pid: Vec<u32>,
    /// Redis of the nodes, whose round trips are counted
    #[arg(long, value_name = "HOST:PORT", help_heading = "Target")]
    pub redis: Option<String>,
    /// What is spoken: usher, or a WebSocket that is only held
    #[arg(long, value_enum, default_value = "usher", help_heading = "Target")]
    pub protocol: Dialect,
    /// PEM file of the CA that signs the server's certificate [default: the system's]
    #[arg(long, value_name = "FILE", help_heading = "Target")]
    pub ca: Option<PathBuf>,
    /// Do not verify the server's certificate
    #[arg(short = 'k', long, conflicts_with = "ca", help_heading = "Target")]
    pub insecure: bool,
    /// Resume TLS sessions, as players that come back may
    #[arg(long, help_heading = "Target")]
    pub resumption: bool,
    /// Longest wait for a connection or an answer
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration, help_heading = "Target")]
    pub timeout: Duration,
    /// Access token of all players; its account needs as many slots as there are sessions
    #[arg(long, value_name = "JWT", help_heading = "Tokens", group = "identity")]
    pub token: Option<String>,
    /// File with an access token on each line, used in turn
    #[arg(long, value_name = "FILE", help_heading = "Tokens", group = "identity")]
    pub token_file: Option<PathBuf>,
    /// File with the nodes' auth.hmac_secret: a token is made for each account (load-0, load-1, ..)
    #[arg(long, value_name = "FILE", help_heading = "Tokens", group = "identity")]
    pub secret_file: Option<PathBuf>,
    /// Tenant of the tokens that are made
    #[arg(long, value_name = "NAME", requires = "secret_file", help_heading = "Tokens")]
    pub tenant: Option<String>,
    /// Life of the tokens that are made; at least as long as the run
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse_duration, help_heading = "Tokens")]
    pub token_life: Duration,
    /// Worker processes [default: one for 15000 sessions, and one for two processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256), help_heading = "Load")]
    pub workers: Option<u32>,
    /// Call from this many addresses 127.0.0.1, 127.0.0.2, ..; an address has about 28000 ports (loopback only)
    /// [default: one for 20000 sessions]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=250), help_heading = "Load")]
    pub sources: Option<u32>,
    /// Measure this floor server too, and print gateway / floor; its admin address after a comma
    #[arg(
        long,
        value_name = "URL[,ADMIN]",
        conflicts_with = "with_floor",
        help_heading = "Floor"
    )]
    pub floor: Option<String>,
    /// Start a floor server, measure it too, and print gateway / floor
    #[arg(long, help_heading = "Floor")]
    pub with_floor: bool,
    /// Write everything as JSON (- for stdout, instead of the table)
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub json: Option<PathBuf>,
    /// Write a report with plots, one file that needs nothing else
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub html: Option<PathBuf>,
}
