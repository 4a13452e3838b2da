//! Every metric of a node, declared once.
//!
//! Owns: names, help texts, buckets and the label values that are reported from the start.
//! Does not: listen (the admin listener serves [`Metrics::render`]); no global, so that many nodes fit in one process.
//! Called by: whatever counts, through an `Arc`.

use std::time::Duration;

use http::{Method, StatusCode};
use prometheus::{Gauge, Histogram, IntCounter, IntGauge, IntGaugeVec, Registry, Result, TextEncoder};

use super::instrument::{
    Counted, CounterFamily, Counters, Declare, HttpCounters, HttpTimes, LevelGauges, TimeFamily,
};
use super::process::Process;
use super::{Admission, Audit, Handshake, RateRule, Refusal};

/// 0.5 ms to 5 s: an undecided start is answered within 6 s.
const ADMISSION_SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];
/// 1 ms to 5 s, with the promised 250 ms among them.
const LATENESS_SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];
/// 1 ms to 60 s: a victim that is asked may take its time.
const TAKEOVER_SECONDS: &[f64] = &[
    0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0,
];
/// 1 s to 12 h.
const SESSION_SECONDS: &[f64] = &[
    1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 5400.0, 7200.0, 10800.0, 21600.0, 43200.0,
];
/// 1 ms to 10 s.
const REQUEST_SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// One bucket for each number of slots.
const LEVELS: &[f64] = &[
    0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0, 17.0, 18.0,
    19.0, 20.0,
];
/// 0.1 ms to 5 s: a script takes Redis some tens of microseconds.
const SCRIPT_SECONDS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];
/// The scripts that Redis is asked to run.
const SCRIPTS: &[&str] = &[
    "renew", "acquire", "resume", "switch", "beat", "release", "mark", "decide", "audit", "list", "webhooks",
    "publish",
];
/// Codes of the close-code table, and `closed` for the player's own close.
const ENDED_CODES: &[&str] = &[
    "closed",
    "stopped",
    "stream_limit_reached",
    "displaced",
    "ended_by_operator",
    "account_blocked",
    "content_unavailable",
    "moved",
    "bad_message",
    "message_too_large",
    "rate_limited",
    "token_expired",
    "draining",
    "heartbeat_missed",
    "lease_lost",
    "unavailable",
    "slow_consumer",
];

/// Declares the fields of [`Metrics`]: the doc comment is the help text, the field's name after `usher_` the metric's.
macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $name:ident: $kind:ty = $options:expr;)+) => {
        /// The metrics of one node. Counting needs no lock and, for fixed outcomes, no look-up.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            $($(#[doc = $help])+ pub $name: $kind,)+
        }

        impl Metrics {
            fn declare(registry: Registry) -> Result<Self> {
                $(let $name = <$kind>::declare(
                    &registry,
                    concat!("usher_", stringify!($name)),
                    concat!($($help),+).trim(),
                    $options,
                )?;)+
                Ok(Self { registry, $($name),+ })
            }
        }
    };
}

metrics! {
    /// Sessions that hold a slot on this node, or have none and were heard here last, by tenant.
    sessions_active: LevelGauges = ("tenant", "main");
    /// The same sessions by the plan that the token named at their start; `none`: it named none.
    plan_sessions_active: LevelGauges = ("plan", "none");
    /// Open connections of players.
    connections_open: IntGauge = ();
    /// Connections closed before they could ask for anything, by reason.
    connections_refused_total: Counters<Refusal> = ();
    /// TLS handshakes by outcome.
    tls_handshakes_total: Counters<Handshake> = ();
    /// Time of completed TLS handshakes.
    tls_handshake_duration_seconds: Histogram = ADMISSION_SECONDS;
    /// Unix time at which the certificate in use expires; 0 before one is loaded.
    certificate_expiry_seconds: IntGauge = ();
    /// Rejected tokens by reason.
    tokens_rejected_total: CounterFamily = ("reason", &[]);
    /// Playback tickets issued.
    tickets_issued_total: IntCounter = ();
    /// Operators' calls that are not in the audit trail, because it could not be written.
    trail_failures_total: IntCounter = ();
    /// Sign-ins by outcome; `granted`: a password fitted, `limited`: too many had failed, `busy`: the queue was full.
    sign_ins_total: CounterFamily = ("outcome", &["granted", "refused", "limited", "busy", "error"]);
    /// Uses of refresh tokens by outcome; `reused`: one was used twice, and its sign-in is over.
    refreshes_total: CounterFamily = ("outcome", &["granted", "refused", "reused", "error"]);
    /// Passwords that wait for a thread to hash them.
    password_queue: IntGauge = ();
    /// Time that hashing a password took, waiting in the queue excluded.
    password_hash_duration_seconds: Histogram = REQUEST_SECONDS;
    /// Requests refused because they came too fast, by the rule that refused them.
    rate_limited_total: Counters<RateRule> = ();
    /// Starts by outcome.
    admissions_total: Counters<Admission> = ();
    /// Time from a start's last byte to its decision, waiting in line excluded.
    admission_duration_seconds: Histogram = ADMISSION_SECONDS;
    /// Refusals by the rule that caused them; after "shadow:" stands a rule that only tells what it would have refused.
    denials_total: CounterFamily = ("rule", &["account", "blocked"]);
    /// Slots used by the account after each grant.
    concurrency_level: Histogram = LEVELS;
    /// Slots that the account would use if nothing were refused, at each try: what a higher limit would serve.
    attempt_level: Histogram = LEVELS;
    /// Players that wait for a slot.
    waiters: IntGauge = ();
    /// Time from a take-over's request to its grant.
    takeover_duration_seconds: Histogram = TAKEOVER_SECONDS;
    /// Frames that renewed a session's lease, and heartbeats of sessions without a socket.
    heartbeats_total: IntCounter = ();
    /// Ended sessions by code.
    sessions_ended_total: CounterFamily = ("code", ENDED_CODES);
    /// Length of ended sessions.
    session_duration_seconds: Histogram = SESSION_SECONDS;
    /// How much later than due a silent session's slot was freed.
    release_lateness_seconds: Histogram = LATENESS_SECONDS;
    /// How long this node's lease in the store still lives, where it lives shortest.
    node_lease_remaining_seconds: Gauge = ();
    /// Sessions compared with the store, by what became of them.
    audit_sessions_total: Counters<Audit> = ();
    /// Sessions granted while the store was away and not confirmed yet.
    provisional_sessions: IntGauge = ();
    /// Sessions of dead nodes that this node's renewals dropped.
    purged_sessions_total: IntCounter = ();
    /// Answered HTTP requests by route, method and status.
    http_requests_total: HttpCounters = ();
    /// Time from a request's headers to its answer, by route.
    http_request_duration_seconds: HttpTimes = REQUEST_SECONDS;
    /// Facts that the event streams lost to their bound, as the store counts them: the same on every node.
    events_dropped: IntGauge = ();
    /// 1 while Redis answers, 0 while it does not or none is configured.
    redis_up: IntGauge = ();
    /// Whether the database could be reached when it was asked last.
    database_up: IntGauge = ();
    /// Scripts that Redis was asked to run.
    redis_commands_total: CounterFamily = ("script", SCRIPTS);
    /// Scripts that failed: unavailable (no answer in time), refused (answered with an error).
    redis_errors_total: CounterFamily = ("kind", &["unavailable", "refused"]);
    /// Time from asking Redis to run a script to its answer or failure.
    redis_duration_seconds: TimeFamily = ("script", SCRIPTS, SCRIPT_SECONDS);
    /// Deliveries of webhooks by outcome; `missed`: the event stream lost entries that a receiver had not been told.
    webhook_deliveries_total: CounterFamily = ("outcome", &["delivered", "failed", "refused", "dead", "missed"]);
    /// How long the oldest event waits that a receiver of webhooks is to be told, of those that this node tells.
    webhook_lag_seconds: Gauge = ();
    /// Dead letters of all receivers so far, as the store counts them: the same on every node.
    webhook_dead_letters: IntGauge = ();
    /// Refusals that this node could not keep for webhooks: too many at once, or the store was away.
    webhook_refusals_lost_total: IntCounter = ();
    /// Plays by what became of them: written; repeated: there already; unfit: the database cannot hold it; missed: the journal
    /// lost some before they were written (counted once for each time that it was noticed).
    ledger_plays_total: CounterFamily = ("outcome", &["written", "repeated", "unfit", "missed"]);
    /// Readings of the ledger's sources by outcome.
    ledger_sources_total: CounterFamily = ("outcome", &["read", "failed"]);
    /// How long the oldest start or end waits to be written to the database, of those that this node writes.
    ledger_lag_seconds: Gauge = ();
    /// Uploads by outcome: stored, refused (for what they are or how they came), failed (the store or the database).
    media_uploads_total: CounterFamily = ("outcome", &["stored", "refused", "failed"]);
    /// Bytes of files sent to viewers.
    media_bytes_sent_total: IntCounter = ();
    /// Responses with a file's bytes that are under way.
    media_responses_open: IntGauge = ();
    /// Responses that were stopped because their lease had ended.
    media_responses_stopped_total: IntCounter = ();
    /// Scans of files by verdict; `error`: the scanner did not judge.
    media_scans_total: CounterFamily = ("verdict", &["clean", "infected", "error"]);
    /// Accesses to files that could not be written down.
    media_accesses_lost_total: IntCounter = ();
    /// Stored messages between viewers, by what they hold.
    messages_total: CounterFamily = ("kind", &["text", "image", "video"]);
    /// Room messages that a listener who does not keep up lost or that a whole node lost, by where, and words to other
    /// nodes that were not said: the database tells their messages.
    messages_lost_total: CounterFamily = ("where", &["room_listener", "room_queue", "wire"]);
    /// Always 1; the labels tell what runs.
    build_info: IntGaugeVec = &["version", "revision"];
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Content type of [`Metrics::render`].
    pub const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// All metrics at zero, beside those of the process.
    #[must_use]
    pub fn new() -> Self {
        let metrics =
            Self::declare(Registry::new()).expect("every metric is declared once, with valid names");
        let process = Box::new(Process::default());
        metrics
            .registry
            .register(process)
            .expect("no metric of ours begins with process_");
        let revision = option_env!("USHER_REVISION").unwrap_or("unknown");
        metrics
            .build_info
            .with_label_values(&[env!("CARGO_PKG_VERSION"), revision])
            .set(1);
        metrics
    }

    /// Counts an answered request. `route` is the pattern that matched (`/v1/sessions/{id}`, or `unmatched`), never the
    /// path that was asked.
    pub fn http_request(&self, route: &str, method: &Method, status: StatusCode, took: Duration) {
        self.http_requests_total.inc(route, method, status);
        self.http_request_duration_seconds.observe(route, took);
    }

    /// Counts a session that plays, until the answer is dropped.
    #[must_use]
    pub fn playing(&self, tenant: &str, plan: Option<&str>) -> [Counted; 2] {
        let plan = self.plan_sessions_active.of(plan.unwrap_or("none"));
        [self.sessions_active.of(tenant), plan].map(|gauge| Counted::begin(&gauge))
    }

    /// The text exposition format, version 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap_or_else(|e| {
                tracing::error!(error = %e, "metrics cannot be written");
                String::new()
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(text: &str, line: &str) -> bool {
        text.lines().any(|found| found == line)
    }

    #[test]
    fn known_values_report_zero_from_the_start() {
        let text = Metrics::new().render();
        for line in [
            "usher_sessions_active{tenant=\"main\"} 0",
            "usher_connections_open 0",
            "usher_heartbeats_total 0",
            "usher_rate_limited_total{rule=\"account_starts\"} 0",
            "usher_admissions_total{outcome=\"provisional\"} 0",
            "usher_denials_total{rule=\"account\"} 0",
            "usher_connections_refused_total{reason=\"address_rate\"} 0",
            "usher_tls_handshakes_total{outcome=\"resumed\"} 0",
            "usher_concurrency_level_bucket{le=\"20\"} 0",
            "usher_release_lateness_seconds_bucket{le=\"0.25\"} 0",
            "usher_redis_up 0",
            "usher_redis_commands_total{script=\"renew\"} 0",
            "usher_redis_errors_total{kind=\"unavailable\"} 0",
            "usher_redis_duration_seconds_count{script=\"audit\"} 0",
            "# HELP usher_waiters Players that wait for a slot.",
            "# TYPE usher_session_duration_seconds histogram",
        ] {
            assert!(has(&text, line), "{line} in\n{text}");
        }
        for code in ENDED_CODES {
            assert!(
                has(&text, &format!("usher_sessions_ended_total{{code=\"{code}\"}} 0")),
                "{code}"
            );
        }
        assert!(text.contains("process_open_fds "));
        assert!(
            text.contains(&format!("version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"))),
            "{text}"
        );
    }

    #[test]
    fn counting_shows_in_the_text() {
        let metrics = Metrics::new();
        metrics.admissions_total.inc(Admission::Granted);
        metrics.tokens_rejected_total.inc("expired");
        metrics.sessions_active.of("main").inc();
        metrics.concurrency_level.observe(3.0);
        metrics.http_request(
            "/v1/sessions/{id}",
            &Method::GET,
            StatusCode::GONE,
            Duration::from_millis(2),
        );
        let text = metrics.render();
        for line in [
            "usher_admissions_total{outcome=\"granted\"} 1",
            "usher_tokens_rejected_total{reason=\"expired\"} 1",
            "usher_sessions_active{tenant=\"main\"} 1",
            "usher_concurrency_level_bucket{le=\"2\"} 0",
            "usher_concurrency_level_bucket{le=\"3\"} 1",
            "usher_http_requests_total{method=\"GET\",route=\"/v1/sessions/{id}\",status=\"410\"} 1",
            "usher_http_request_duration_seconds_bucket{route=\"/v1/sessions/{id}\",le=\"0.0025\"} 1",
        ] {
            assert!(has(&text, line), "{line} in\n{text}");
        }
    }

    #[test]
    fn two_nodes_in_one_process_do_not_share_a_count() {
        let (a, b) = (Metrics::new(), Metrics::new());
        a.heartbeats_total.inc();
        assert_eq!((a.heartbeats_total.get(), b.heartbeats_total.get()), (1, 0));
    }
}
