//! Rules that a type cannot express: ranges, and settings that must fit each other.
//!
//! Owns: the ranges; `default.toml` states them for the user.
//! Does not: touch files or the network: whether a certificate is readable is for its owner to say.
//! Called by: `load`; `telemetry` for the log filter.
//! Over 400 lines: one function for each section, in the order of `default.toml`.

use std::fmt::{Debug, Display};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use http::Uri;
use http::uri::Authority;
use tracing_subscriber::EnvFilter;

use super::{
    Config, Database, Messages, Redis, RedisServers, Webhooks, accounts, catalogue, facade, ledger,
    media_validate, rules_validate,
};

const ALGORITHMS: [&str; 3] = ["EdDSA", "ES256", "RS256"];
const SCOPES: [&str; 7] = [
    "watch",
    "admin",
    "editor",
    "support",
    "finance",
    "introspect",
    "operator",
];
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// More streams of one account than any household has; keeps an account's table small.
const MOST_STREAMS: u32 = 1000;
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const SECOND: Duration = Duration::from_secs(1);

/// Paths of settings with what is wrong about them.
#[derive(Default)]
pub(super) struct Problems(Vec<(String, String)>);

/// Everything wrong with the values of `config`: path and message.
pub(super) fn problems(config: &Config) -> Vec<(String, String)> {
    let mut found = Problems::default();
    listeners(config, &mut found);
    auth(config, &mut found);
    slots(config, &mut found);
    rules_validate::check(config, &mut found);
    facade::check(config, &mut found);
    database(&config.database, &mut found);
    messages(&config.messages, &mut found);
    accounts::check(config, &mut found);
    catalogue::check(config, &mut found);
    ledger::check(&config.ledger, &mut found);
    media_validate::check(&config.media, &mut found);
    redis(&config.redis, &mut found);
    webhooks(&config.webhooks, &mut found);
    limits(config, &mut found);
    drain(config, &mut found);
    aids(config, &mut found);
    found.0
}

/// The filter of `log.level`. A lone word must be a level: `EnvFilter` would take a mistyped one for the name of a
/// module and then log nothing else.
///
/// # Errors
/// What is wrong with the text, for people.
pub fn log_filter(text: &str) -> Result<EnvFilter, String> {
    let usage =
        "write a level (off, error, warn, info, debug, trace) or directives such as info,usher::net=debug";
    let is_level = |part: &&str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(part));
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    if parts
        .iter()
        .any(|part| !part.contains(['=', '[']) && !is_level(part))
    {
        return Err(format!("not a log filter: {usage}"));
    }
    EnvFilter::builder()
        .parse(parts.join(","))
        .map_err(|_| format!("not a log filter: {usage}"))
}

impl Problems {
    pub(super) fn check(&mut self, path: impl Display, holds: bool, message: impl Display) {
        if !holds {
            self.0.push((path.to_string(), message.to_string()));
        }
    }

    pub(super) fn range<T: Copy + PartialOrd + Debug>(
        &mut self,
        path: impl Display,
        value: T,
        allowed: RangeInclusive<T>,
    ) {
        let message = format!("must be from {:?} to {:?}", allowed.start(), allowed.end());
        self.check(path, allowed.contains(&value), message);
    }

    pub(super) fn span(&mut self, path: impl Display, value: Duration, allowed: RangeInclusive<Duration>) {
        let [least, most] = [allowed.start(), allowed.end()].map(|d| humantime::format_duration(*d));
        self.check(
            path,
            allowed.contains(&value),
            format!("must be from {least} to {most}"),
        );
    }
}

fn listeners(config: &Config, found: &mut Problems) {
    let listen = &config.listen;
    let same = listen.players == listen.admin && listen.players.port() != 0;
    found.check("listen.admin", !same, "must differ from listen.players");
    for (i, host) in listen.admin_hosts.iter().enumerate() {
        let plain = !host.is_empty() && !host.contains(|c: char| c == ':' || c == '/' || c.is_whitespace());
        found.check(
            format_args!("listen.admin_hosts[{i}]"),
            plain,
            "must be a host name, without scheme and port",
        );
    }
    let (cert, key) = (config.tls.cert.as_os_str(), config.tls.key.as_os_str());
    found.check(
        "tls.key",
        cert.is_empty() || !key.is_empty(),
        "must be set together with tls.cert",
    );
    found.check(
        "tls.cert",
        key.is_empty() || !cert.is_empty(),
        "must be set together with tls.key",
    );
    found.span("tls.reload_interval", config.tls.reload_interval, SECOND..=DAY);
    for (i, origin) in config.http.origins.iter().enumerate() {
        let path = format_args!("http.origins[{i}]").to_string();
        found.check(
            path,
            is_origin(origin),
            "must be * or scheme://host[:port], without a path",
        );
    }
}

/// `*`, or `scheme://host[:port]` and nothing after it (RFC 6454 section 6.2).
pub(super) fn is_origin(text: &str) -> bool {
    let Some((scheme, host)) = text.split_once("://") else {
        return text == "*";
    };
    let scheme_char = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    let host = host.parse::<Authority>().ok();
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(scheme_char)
        && host.is_some_and(|host| {
            let port_fits = host.as_str() == host.host() || host.port_u16().is_some();
            port_fits && !host.host().is_empty() && !host.as_str().contains('@')
        })
}

fn auth(config: &Config, found: &mut Problems) {
    for (i, key) in config.auth.keys.iter().enumerate() {
        let path = format!("auth.keys[{i}]");
        found.check(
            format_args!("{path}.file"),
            !key.file.as_os_str().is_empty(),
            "must not be empty",
        );
        let known = ALGORITHMS.contains(&key.algorithm.as_str());
        found.check(
            format_args!("{path}.algorithm"),
            known,
            "must be EdDSA, ES256 or RS256",
        );
        reach(&path, &key.tenants, &key.scopes, found);
    }
    for (i, file) in config.auth.rotation_keys.iter().enumerate() {
        let path = format_args!("auth.rotation_keys[{i}]").to_string();
        found.check(path, !file.as_os_str().is_empty(), "must not be empty");
    }
    let tickets = &config.tickets;
    found.span("tickets.lifetime", tickets.lifetime, 10 * SECOND..=HOUR);
    found.span("tickets.renew_before", tickets.renew_before, SECOND..=HOUR);
    found.check(
        "tickets.renew_before",
        tickets.renew_before <= tickets.lifetime / 2,
        "must not be longer than half of tickets.lifetime",
    );
    found.check("tickets.issuer", !tickets.issuer.is_empty(), "must not be empty");
    for (i, set) in config.auth.jwks.iter().enumerate() {
        let path = format!("auth.jwks[{i}]");
        let rule = "must be https://.., or http:// on a loopback address, without credentials";
        found.check(format_args!("{path}.url"), is_key_set_url(&set.url), rule);
        found.span(format_args!("{path}.refresh"), set.refresh, SECOND..=DAY);
        reach(&path, &set.tenants, &set.scopes, found);
    }
}

/// The tenants and scopes that a key may assert.
fn reach(path: &str, tenants: &[String], scopes: &[String], found: &mut Problems) {
    let named = !tenants.is_empty() && tenants.iter().all(|tenant| !tenant.is_empty());
    found.check(
        format_args!("{path}.tenants"),
        named,
        "must name at least one tenant, or *",
    );
    let known = scopes.iter().all(|scope| SCOPES.contains(&scope.as_str()));
    let rule = format!("must be of {}", SCOPES.join(", "));
    found.check(format_args!("{path}.scopes"), known && !scopes.is_empty(), rule);
}

pub(super) fn is_key_set_url(text: &str) -> bool {
    let Ok(url) = text.parse::<Uri>() else {
        return false;
    };
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let private = url
        .authority()
        .is_none_or(|authority| !authority.as_str().contains('@'));
    let scheme = url.scheme_str();
    private && !host.is_empty() && (scheme == Some("https") || scheme == Some("http") && loopback)
}

fn slots(config: &Config, found: &mut Problems) {
    for (name, plan) in &config.plans {
        let path = super::keys::join("plans", name);
        found.check(&path, !name.is_empty(), "must have a name");
        found.range(format_args!("{path}.limit"), plan.limit, 0..=MOST_STREAMS);
        found.check(
            format_args!("{path}.on_limit"),
            !plan.on_limit.is_empty(),
            "must not be empty",
        );
    }
    found.range("lease.limit", config.lease.limit, 0..=MOST_STREAMS);
    found.span("lease.period", config.lease.period, SECOND..=10 * MINUTE);
    found.span(
        "takeover.answer_within",
        config.takeover.answer_within,
        SECOND..=5 * MINUTE,
    );
    found.span("takeover.ask_for", config.takeover.ask_for, SECOND..=5 * MINUTE);
    found.range("waiting.max", config.waiting.max, 0..=1000);
    found.span("waiting.timeout", config.waiting.timeout, SECOND..=DAY);
}

fn messages(messages: &Messages, found: &mut Problems) {
    const LONGEST: Duration = Duration::from_secs(10_000 * 24 * 60 * 60);
    found.range("messages.burst", messages.burst, 0..=1_000_000);
    found.range("messages.per_second", messages.per_second, 0..=1_000_000);
    found.range(
        "messages.sockets_per_account",
        messages.sockets_per_account,
        1..=1000,
    );
    found.span(
        "messages.slow_mode",
        messages.slow_mode,
        Duration::ZERO..=10 * MINUTE,
    );
    found.span("messages.poll", messages.poll, SECOND..=10 * MINUTE);
    let tenants = messages.tenant_retention.iter();
    let tenants = tenants.map(|(tenant, span)| (format!("messages.tenant_retention.{tenant}"), span.0));
    for (path, span) in tenants.chain([("messages.retention".to_owned(), messages.retention)]) {
        if !span.is_zero() {
            found.span(path, span, HOUR..=LONGEST);
        }
    }
}

fn database(database: &Database, found: &mut Problems) {
    let problem = database.url.problem();
    found.check("database.url", problem.is_none(), problem.unwrap_or_default());
    found.range("database.connections", database.connections, 1..=1000);
    found.span("database.timeout", database.timeout, SECOND / 10..=10 * SECOND);
    let needless = database.password.is_empty() || database.is_shared();
    found.check("database.password", needless, "needs a URL postgres://..");
}

fn redis(redis: &Redis, found: &mut Problems) {
    let address = redis.url.parse();
    if let Err(problem) = &address {
        found.check("redis.url", redis.url.is_empty(), problem);
    }
    let in_url = address.as_ref().is_ok_and(|address| !address.password.is_empty());
    let named = redis.username.is_empty() || in_url || !redis.password.is_empty();
    found.check(
        "redis.password",
        named,
        "must be set together with redis.username",
    );
    let named = redis.sentinel_username.is_empty() || !redis.sentinel_password.is_empty();
    found.check(
        "redis.sentinel_password",
        named,
        "must be set together with redis.sentinel_username",
    );
    let sentinels = |servers: &RedisServers| matches!(servers, RedisServers::Sentinel { .. });
    let asked = address.as_ref().is_ok_and(|address| sentinels(&address.servers));
    found.check(
        "redis.sentinel_password",
        redis.sentinel_password.is_empty() || redis.url.is_empty() || asked,
        "needs a URL redis+sentinel://..",
    );
    // A CA that nothing uses is a URL that was meant to say rediss.
    let plain = address.as_ref().is_ok_and(|address| !address.tls);
    for (path, file) in [
        ("redis.ca", &redis.ca),
        ("redis.cert", &redis.cert),
        ("redis.key", &redis.key),
    ] {
        let unused = plain && !file.as_os_str().is_empty();
        found.check(path, !unused, "needs a URL rediss://..");
    }
    let (cert, key) = (redis.cert.as_os_str(), redis.key.as_os_str());
    let message = "must be set together with redis.cert";
    found.check("redis.key", cert.is_empty() || !key.is_empty(), message);
    let message = "must be set together with redis.key";
    found.check("redis.cert", key.is_empty() || !cert.is_empty(), message);
    found.span("redis.timeout", redis.timeout, SECOND / 10..=5 * SECOND);
    found.span(
        "redis.connect_timeout",
        redis.connect_timeout,
        SECOND / 10..=5 * SECOND,
    );
    let of_prefix = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    found.check(
        "redis.prefix",
        (1..=32).contains(&redis.prefix.len()) && redis.prefix.chars().all(of_prefix),
        "must be 1 to 32 of a-z, 0-9, - and _",
    );
    found.range("redis.buckets", redis.buckets, 1..=1024);
    found.range("redis.events", redis.events, 100..=1_000_000);
    // Each half must see a renewal of every node (rule 5).
    found.span("redis.recovery", redis.recovery, 5 * SECOND..=MINUTE);
}

fn webhooks(webhooks: &Webhooks, found: &mut Problems) {
    found.span(
        "webhooks.retry_first",
        webhooks.retry_first,
        SECOND / 100..=MINUTE,
    );
    found.span("webhooks.retry_most", webhooks.retry_most, SECOND / 100..=HOUR);
    let ordered = webhooks.retry_first <= webhooks.retry_most;
    found.check(
        "webhooks.retry_most",
        ordered,
        "must not be shorter than webhooks.retry_first",
    );
    found.span("webhooks.give_up", webhooks.give_up, SECOND..=30 * DAY);
    found.range("webhooks.refused_tries", webhooks.refused_tries, 1..=100);
    found.range("webhooks.concurrency", webhooks.concurrency, 1..=1000);
    found.range("webhooks.refusals", webhooks.refusals, 10..=1_000_000);
    found.range("webhooks.dead_letters", webhooks.dead_letters, 10..=100_000);
    found.range("webhooks.journal", webhooks.journal, 10..=1_000_000);
    for (name, receiver) in &webhooks.receivers {
        let path = super::keys::join("webhooks.receivers", name);
        let of_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        let named = (1..=32).contains(&name.len()) && name.chars().all(of_name);
        found.check(&path, named, "must be named by 1 to 32 of a-z, 0-9, - and _");
        let https = receiver.url.parse::<Uri>().is_ok_and(|url| {
            url.scheme_str() == Some("https") && url.host().is_some_and(|host| !host.is_empty())
        });
        found.check(format_args!("{path}.url"), https, "must be https://..");
        let rule = "must be whsec_ and 24 to 64 bytes in base64";
        // What check-config prints can be checked again; a node refuses to start with it.
        let formed = receiver.key().is_some() || receiver.secret.is_masked();
        found.check(format_args!("{path}.secret"), formed, rule);
        let some = !receiver.events.is_empty();
        found.check(format_args!("{path}.events"), some, "must not be empty");
        let named = !receiver.tenants.is_empty() && receiver.tenants.iter().all(|tenant| !tenant.is_empty());
        let rule = "must name at least one tenant, or *";
        found.check(format_args!("{path}.tenants"), named, rule);
        found.span(
            format_args!("{path}.timeout"),
            receiver.timeout,
            SECOND / 10..=MINUTE,
        );
    }
}

fn limits(config: &Config, found: &mut Problems) {
    let limits = &config.limits;
    found.span(
        "limits.handshake_timeout",
        limits.handshake_timeout,
        SECOND / 10..=MINUTE,
    );
    for (key, value) in [
        ("starts_burst", limits.starts_burst),
        ("starts_per_second", limits.starts_per_second),
        ("requests_burst_per_address", limits.requests_burst_per_address),
        (
            "requests_per_second_per_address",
            limits.requests_per_second_per_address,
        ),
        ("requests_burst_per_token", limits.requests_burst_per_token),
        (
            "requests_per_second_per_token",
            limits.requests_per_second_per_token,
        ),
        ("messages_burst", limits.messages_burst),
        ("messages_per_second", limits.messages_per_second),
    ] {
        found.range(format_args!("limits.{key}"), value, 0..=1_000_000);
    }
}

fn drain(config: &Config, found: &mut Problems) {
    let drain = &config.drain;
    found.span("drain.delay", drain.delay, Duration::ZERO..=10 * MINUTE);
    found.span("drain.window", drain.window, Duration::ZERO..=10 * MINUTE);
    found.range("drain.rate", drain.rate, 1..=1_000_000);
    found.span("drain.deadline", drain.deadline, Duration::ZERO..=HOUR);
    found.check(
        "drain.deadline",
        drain.deadline >= drain.window,
        "must not be shorter than drain.window",
    );
}

fn aids(config: &Config, found: &mut Problems) {
    if let Err(message) = log_filter(&config.log.level) {
        found.check("log.level", false, message);
    }
    found.check(
        "log.max_bytes",
        config.log.max_bytes >= 4096,
        "must be at least 4096",
    );
    found.range("log.files", config.log.files, 1..=100);
    let enough = config.trail.max_bytes >= 4096;
    found.check("trail.max_bytes", enough, "must be at least 4096");
    found.range("trail.files", config.trail.files, 2..=1000);
    found.range(
        "debug.echo_max_bytes",
        config.debug.echo_max_bytes,
        125..=64 * 1024 * 1024,
    );
}
