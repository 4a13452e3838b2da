//! Label values that are known beforehand.
//!
//! Owns: the outcomes that a counter tells apart.
//! Does not: count (`instrument` does).
//! Called by: `metrics`, and whoever counts an outcome.

/// The values of one label: an enum whose variants are numbered as in `VALUES`.
pub trait Label: Copy + 'static {
    /// Name of the label.
    const NAME: &'static str;
    /// The value of every variant, in their order.
    const VALUES: &'static [&'static str];

    /// Position of the variant in `VALUES`.
    fn index(self) -> usize;
}

/// How a start ended (`usher_admissions_total`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// A new session took a slot.
    Granted,
    /// The account was at its limit.
    Denied,
    /// A session moved to this socket.
    Resumed,
    /// A device replaced its own session.
    Replaced,
    /// Granted while the store is away.
    Provisional,
    /// The store failed.
    Error,
}

impl Label for Admission {
    const NAME: &'static str = "outcome";
    const VALUES: &'static [&'static str] =
        &["granted", "denied", "resumed", "replaced", "provisional", "error"];

    fn index(self) -> usize {
        self as usize
    }
}

/// How a TLS handshake ended (`usher_tls_handshakes_total`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// With certificates.
    Full,
    /// From a session ticket.
    Resumed,
    /// Not at all.
    Failed,
}

impl Label for Handshake {
    const NAME: &'static str = "outcome";
    const VALUES: &'static [&'static str] = &["full", "resumed", "failed"];

    fn index(self) -> usize {
        self as usize
    }
}

/// Why a connection was closed before it could ask for anything (`usher_connections_refused_total`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// `limits.connections`
    NodeLimit,
    /// `limits.connections_per_address`
    AddressLimit,
    /// `limits.handshakes_per_second_per_address`
    AddressRate,
    /// `limits.handshakes_per_second`
    NodeRate,
    /// A missing, malformed or untrusted PROXY header.
    ProxyHeader,
}

impl Label for Refusal {
    const NAME: &'static str = "reason";
    const VALUES: &'static [&'static str] = &[
        "node_limit",
        "address_limit",
        "address_rate",
        "node_rate",
        "proxy_header",
    ];

    fn index(self) -> usize {
        self as usize
    }
}

/// The rate that a request broke (`usher_rate_limited_total`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateRule {
    /// `limits.starts_per_second`
    AccountStarts,
    /// `limits.requests_per_second_per_address`
    AddressRequests,
    /// `limits.requests_per_second_per_token`
    TokenRequests,
    /// `accounts.failures_per_minute`
    AccountTries,
    /// `accounts.tries_per_minute_per_address`
    AddressTries,
}

impl Label for RateRule {
    const NAME: &'static str = "rule";
    const VALUES: &'static [&'static str] = &[
        "account_starts",
        "address_requests",
        "token_requests",
        "account_tries",
        "address_tries",
    ];

    fn index(self) -> usize {
        self as usize
    }
}

/// What became of an audited session (`usher_audit_sessions_total`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audit {
    /// The store knows it.
    Ok,
    /// The store had lost it and has it again.
    Repaired,
    /// It is over: it moved, was ended, or its slot is taken.
    Lost,
}

impl Label for Audit {
    const NAME: &'static str = "outcome";
    const VALUES: &'static [&'static str] = &["ok", "repaired", "lost"];

    fn index(self) -> usize {
        self as usize
    }
}
