//! The sections of the configuration, one struct each; `default.toml` says what every key means.
//!
//! Over 400 lines: the one list of all keys, data without a rule.
//!
//! Every key has its default in `default.toml`, so no struct here carries one in code.
//!
//! Over 400 lines: one struct after the other, without logic.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    Accounts, Catalogue, Database, Devices, Exempt, Facade, GroupRule, Ledger, Media, Messages, Modules,
    RedisUrl, Secret,
};

/// All settings of a node.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Config {
    /// Files that this node writes.
    pub data: Data,
    /// Addresses to listen on.
    pub listen: Listen,
    /// Certificates.
    pub tls: Tls,
    /// Origins.
    pub http: Http,
    /// Keys and claims.
    pub auth: Auth,
    /// Rows.
    pub database: Database,
    /// Parts that can be switched off.
    pub modules: Modules,
    /// How viewers may talk.
    pub messages: Messages,
    /// People who sign up here.
    pub accounts: Accounts,
    /// Contents.
    pub catalogue: Catalogue,
    /// Plays and statements.
    pub ledger: Ledger,
    /// Files.
    pub media: Media,
    /// Playback tickets.
    pub tickets: Tickets,
    /// The API of another product.
    pub facade: Facade,
    /// Limits by plan name (token claim `plan`).
    pub plans: BTreeMap<String, Plan>,
    /// Limits beside the account's total, by name.
    pub rules: BTreeMap<String, GroupRule>,
    /// Tags with the contents that have them; a `*` at the end stands for any rest.
    pub tags: BTreeMap<String, Vec<String>>,
    /// What plays and takes no slot.
    pub exempt: Exempt,
    /// What is known about devices.
    pub devices: Devices,
    /// The session lease.
    pub lease: Lease,
    /// What a refused player may do.
    pub takeover: Takeover,
    /// The waiting line.
    pub waiting: Waiting,
    /// Slots shared by several nodes.
    pub redis: Redis,
    /// What happens while Redis is away.
    pub outage: Outage,
    /// Calls to servers of others.
    pub outbound: Outbound,
    /// Telling them what happens.
    pub webhooks: Webhooks,
    /// Protection against strangers.
    pub limits: Limits,
    /// Leaving without breaking plays.
    pub drain: Drain,
    /// Logging.
    pub log: Log,
    /// The record of operators' calls.
    pub trail: Trail,
    /// Aids for tests.
    pub debug: Debug,
}

/// `[data]`
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Data {
    /// Directory of everything this node writes (made when missing).
    pub dir: PathBuf,
}

/// `[listen]`
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Listen {
    /// Players and API, over TLS.
    pub players: SocketAddr,
    /// Metrics, health and operators, plain HTTP.
    pub admin: SocketAddr,
    /// Whether every connection to `players` begins with a PROXY protocol v2 header.
    pub proxy_protocol: bool,
    /// Peers whose PROXY header and `X-Forwarded-For` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Host names, beside IP addresses and `localhost`, by which the admin listener may be called.
    pub admin_hosts: Vec<String>,
}

/// `[tls]`
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Tls {
    /// PEM file of the certificate chain; empty: a development certificate is made.
    pub cert: PathBuf,
    /// PEM file of its private key; empty together with `cert`.
    pub key: PathBuf,
    /// How often the two files are looked at for a change.
    #[serde(with = "super::section::duration")]
    pub reload_interval: Duration,
}

/// `[http]`
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Http {
    /// Origins that may open sockets; empty: only the host that was asked; `*`: all.
    pub origins: Vec<String>,
    /// Whether a request without `Origin` (anything but a browser) is allowed.
    pub allow_missing_origin: bool,
}

/// `[auth]`
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Auth {
    /// Shared secret of HS256 tokens; empty: HS256 is refused.
    pub hmac_secret: Secret,
    /// PEM file (PKCS#8) of the own signing key, Ed25519 or P-256; empty: made in the data directory.
    pub signing_key: PathBuf,
    /// PEM files of the installation's keys that signed before or will sign next.
    pub rotation_keys: Vec<PathBuf>,
    /// Required `aud`; empty: not checked.
    pub audience: String,
    /// Required `iss`; empty: not checked.
    pub issuer: String,
    /// Whether `?token=` is accepted.
    pub query_token: bool,
    /// Public keys from PEM files.
    pub keys: Vec<PemKey>,
    /// Keys of identity providers.
    pub jwks: Vec<Jwks>,
}

/// `[tickets]`
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Tickets {
    /// Whether players get tickets.
    pub enabled: bool,
    /// From a ticket's issue to its `exp`.
    #[serde(with = "super::section::duration")]
    pub lifetime: Duration,
    /// How long before its end the next one is pushed.
    #[serde(with = "super::section::duration")]
    pub renew_before: Duration,
    /// The `iss` of tickets.
    pub issuer: String,
}

/// `[[auth.keys]]`: one public key.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct PemKey {
    /// PEM file of the public key (`SubjectPublicKeyInfo`).
    pub file: PathBuf,
    /// `EdDSA`, `ES256` or `RS256`; must fit the key.
    pub algorithm: String,
    /// `kid` of the tokens that it signs; empty: any.
    #[serde(default)]
    pub kid: String,
    /// Tenants that it may assert; `*` for all.
    #[serde(default = "main_tenant")]
    pub tenants: Vec<String>,
    /// Scopes that it may assert; others in a token are ignored.
    #[serde(default = "watch_scope")]
    pub scopes: Vec<String>,
}

/// `[[auth.jwks]]`: one key set URL.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Jwks {
    /// `https://..`, or `http://` on a loopback address.
    pub url: String,
    /// PEM file of the CA that signs the URL's certificate; empty: the system's.
    #[serde(default)]
    pub ca: PathBuf,
    /// Required `iss` of tokens verified by these keys; empty: `auth.issuer`.
    #[serde(default)]
    pub issuer: String,
    /// Tenants that it may assert; `*` for all.
    #[serde(default = "main_tenant")]
    pub tenants: Vec<String>,
    /// Scopes that it may assert; others in a token are ignored.
    #[serde(default = "watch_scope")]
    pub scopes: Vec<String>,
    /// How long a fetched set is used before it is fetched again.
    #[serde(default = "jwks_refresh", with = "super::section::duration")]
    pub refresh: Duration,
}

fn main_tenant() -> Vec<String> {
    vec!["main".to_owned()]
}

fn watch_scope() -> Vec<String> {
    vec!["watch".to_owned()]
}

fn jwks_refresh() -> Duration {
    Duration::from_secs(300)
}

/// `[plans.<name>]`
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Plan {
    /// Concurrent streams.
    pub limit: u32,
    /// Allowed `on_limit` modes; absent: all.
    #[serde(default = "all_modes")]
    pub on_limit: Vec<Mode>,
}

fn all_modes() -> Vec<Mode> {
    vec![Mode::Reject, Mode::Ask, Mode::Wait, Mode::Oldest]
}

/// What a player that meets a full account asks for (`on_limit`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// `denied`, then close.
    Reject,
    /// `denied`, the socket stays a while for `takeover` or `wait`.
    Ask,
    /// Into the waiting line.
    Wait,
    /// The oldest session is taken over.
    Oldest,
}

/// `[lease]`
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Lease {
    /// Concurrent streams of an account whose token and plan name none.
    pub limit: u32,
    /// Whether the account's total refuses nobody and only counts what it would have refused.
    pub shadow: bool,
    /// Whether sessions beyond a lowered limit end, newest first.
    pub enforce_running: bool,
    /// Silence that ends a session; the node pings after half of it.
    #[serde(with = "super::section::duration")]
    pub period: Duration,
}

/// `[takeover]`
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Takeover {
    /// Whether the victim is asked.
    pub mode: TakeoverMode,
    /// In `consent`: silence of the victim for this long means yes.
    #[serde(with = "super::section::duration")]
    pub answer_within: Duration,
    /// How long a refused player in `on_limit=ask` may decide.
    #[serde(with = "super::section::duration")]
    pub ask_for: Duration,
}

/// `takeover.mode`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TakeoverMode {
    /// The victim ends at once.
    Immediate,
    /// The victim is asked first.
    Consent,
}

/// `[waiting]`
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Waiting {
    /// Waiters of one account.
    pub max: u32,
    /// The longest wait.
    #[serde(with = "super::section::duration")]
    pub timeout: Duration,
}

/// `[redis]`
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Redis {
    /// Where it is; empty: slots live in this process's memory.
    pub url: RedisUrl,
    /// ACL user; empty: the URL's, or `default`.
    pub username: String,
    /// Its password; empty: the URL's, or none.
    pub password: Secret,
    /// ACL user of the sentinels; empty: `default`.
    pub sentinel_username: String,
    /// Its password; empty: none.
    pub sentinel_password: Secret,
    /// PEM file of the CA that signs the servers' certificates; empty: the system's.
    pub ca: PathBuf,
    /// PEM file of the client certificate chain; empty: none is shown.
    pub cert: PathBuf,
    /// PEM file of its private key; empty together with `cert`.
    pub key: PathBuf,
    /// The longest wait for one command's answer.
    #[serde(with = "super::section::duration")]
    pub timeout: Duration,
    /// The longest wait for one connection, TLS and authentication included.
    #[serde(with = "super::section::duration")]
    pub connect_timeout: Duration,
    /// What every key and channel begins with.
    pub prefix: String,
    /// Buckets over which accounts are spread; the same on every node.
    pub buckets: u32,
    /// Most event facts kept per bucket.
    pub events: u32,
    /// How long a bucket collects what the nodes know after Redis lost its memory.
    #[serde(with = "super::section::duration")]
    pub recovery: Duration,
}

/// `[outage]`
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Outage {
    /// Who decides about new players while Redis does not answer.
    pub admit: Admit,
    /// Whether a recovery waits for nodes that stalled.
    pub strict: bool,
}

/// `outage.admit`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Admit {
    /// This node, from what it knows; the starts are provisional.
    Local,
    /// Nobody: new players are refused.
    Refuse,
}

/// `[outbound]`
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Outbound {
    /// Networks that are not public and may be called all the same.
    pub allowed_private: Vec<IpNet>,
}

/// `[webhooks]`
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Webhooks {
    /// Pause after the first failure of a delivery; it doubles with each further one.
    #[serde(with = "super::section::duration")]
    pub retry_first: Duration,
    /// The longest pause.
    #[serde(with = "super::section::duration")]
    pub retry_most: Duration,
    /// An event that is older than this when its delivery fails becomes a dead letter.
    #[serde(with = "super::section::duration")]
    pub give_up: Duration,
    /// Tries of an event that the receiver refuses (4xx) before it becomes a dead letter.
    pub refused_tries: u32,
    /// Deliveries under way at once, for each receiver on each node.
    pub concurrency: u32,
    /// Refusals kept per bucket until they are told.
    pub refusals: u32,
    /// Dead letters kept per bucket.
    pub dead_letters: u32,
    /// Without Redis: facts kept per bucket, in memory.
    pub journal: u32,
    /// Who is told, by name.
    pub receivers: BTreeMap<String, Receiver>,
}

/// `[webhooks.receivers.<name>]`
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Receiver {
    /// `https://..`
    pub url: String,
    /// `whsec_` and 24 to 64 bytes in base64: signs every delivery.
    pub secret: Secret,
    /// What it is told.
    #[serde(default = "all_events")]
    pub events: Vec<Event>,
    /// Tenants whose events it is told; `*` for all.
    #[serde(default = "main_tenant")]
    pub tenants: Vec<String>,
    /// PEM file of the CA that signs the URL's certificate; empty: the system's.
    #[serde(default)]
    pub ca: PathBuf,
    /// The longest wait for one answer.
    #[serde(default = "receiver_timeout", with = "super::section::duration")]
    pub timeout: Duration,
}

/// What a receiver can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum Event {
    /// A session took a slot.
    #[serde(rename = "session.started")]
    Started,
    /// A start was refused.
    #[serde(rename = "session.refused")]
    Refused,
    /// A session ended.
    #[serde(rename = "session.ended")]
    Ended,
}

impl Event {
    /// The name in the configuration and in a delivery.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Started => "session.started",
            Self::Refused => "session.refused",
            Self::Ended => "session.ended",
        }
    }
}

fn all_events() -> Vec<Event> {
    vec![Event::Started, Event::Refused, Event::Ended]
}

fn receiver_timeout() -> Duration {
    Duration::from_secs(10)
}

impl Receiver {
    /// The bytes of the secret; none when it is not one (Standard Webhooks specification, "Signature scheme").
    #[must_use]
    pub fn key(&self) -> Option<Vec<u8>> {
        let text = self.secret.expose().strip_prefix("whsec_")?;
        let key = STANDARD.decode(text).ok()?;
        (24..=64).contains(&key.len()).then_some(key)
    }
}

/// `[limits]`; 0 switches one off.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Limits {
    /// Open connections of the node; 0: what the open-files limit allows, less a reserve.
    pub connections: u32,
    /// Open connections of one address (an IPv6 /64 counts as one).
    pub connections_per_address: u32,
    /// TLS handshakes under way at once on the node.
    pub handshakes: u32,
    /// New connections per second on the node.
    pub handshakes_per_second: u32,
    /// New connections per second of one address; a burst of ten times this is let through.
    pub handshakes_per_second_per_address: u32,
    /// Addresses free of every per-address limit.
    pub exempt_addresses: Vec<IpNet>,
    /// One deadline over accept, TLS, headers, upgrade and authentication.
    #[serde(with = "super::section::duration")]
    pub handshake_timeout: Duration,
    /// Starts of one account at once.
    pub starts_burst: u32,
    /// Starts per second of one account after that.
    pub starts_per_second: u32,
    /// Requests of one address at once (an IPv6 /64 counts as one).
    pub requests_burst_per_address: u32,
    /// Requests per second of one address after that.
    pub requests_per_second_per_address: u32,
    /// Requests with one token at once.
    pub requests_burst_per_token: u32,
    /// Requests per second with one token after that.
    pub requests_per_second_per_token: u32,
    /// Frames that one socket may send at once.
    pub messages_burst: u32,
    /// Frames per second of one socket after that.
    pub messages_per_second: u32,
}

/// `[drain]`
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Drain {
    /// Pause between failing readiness and the first `draining`, for load balancers to notice.
    #[serde(with = "super::section::duration")]
    pub delay: Duration,
    /// What `draining.reconnect_within_ms` says; sockets are closed over this time.
    #[serde(with = "super::section::duration")]
    pub window: Duration,
    /// Most sockets closed per second.
    pub rate: u32,
    /// After this the process ends whatever is left.
    #[serde(with = "super::section::duration")]
    pub deadline: Duration,
}

/// `[log]`
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Log {
    /// `pretty` or `json`.
    pub format: LogFormat,
    /// A `tracing` filter directive, such as `info` or `usher=debug,hyper=warn`.
    pub level: String,
    /// Log file; empty: stdout.
    pub file: PathBuf,
    /// Size at which the file is rotated, in bytes.
    pub max_bytes: u64,
    /// Files kept, the current one included.
    pub files: u32,
    /// Whether each HTTP request is logged.
    pub access: bool,
}

/// `[trail]`
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Trail {
    /// Size at which its file is rotated, in bytes.
    pub max_bytes: u64,
    /// Files kept, the current one included.
    pub files: u32,
}

/// `log.format`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// For programs.
    Json,
}

/// `[debug]`
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Debug {
    /// Serves `/debug/echo` for WebSocket conformance suites.
    pub echo: bool,
    /// Largest message that it takes, in bytes.
    pub echo_max_bytes: usize,
}

/// Durations are written as `10s`, `250ms` or `5m` (crate `humantime`).
pub(crate) mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        humantime::parse_duration(&text)
            .map_err(|e| D::Error::custom(format!("not a duration such as \"10s\": {e}")))
    }

    pub(crate) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_duration(*value))
    }
}
