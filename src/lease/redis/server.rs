//! One server, kept connected.
//!
//! Owns: connecting, checking that the server can serve, noticing that it went silent, and coming back.
//! Does not: run scripts, subscribe (`subscription` does) or choose among servers (`cluster` does).
//! Called by: `link` and `cluster`.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use redis::{Cmd, Value};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::backoff::Backoff;
use super::dial::Dialer;
use super::failed::{Verdict, judge, string_of, text_of};
use super::health::{Health, Need};
use super::sentinel::Sentinels;
use super::subscription;
use super::wire::Wire;
use crate::config::HostPort;

/// Longest pause between two attempts: a node's lease lives 12.5 s.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A connection that held this long was a good one: the next pause is short again.
pub(super) const STEADY: Duration = Duration::from_secs(5);
/// How often a quiet connection is asked for a sign of life.
pub(super) const PING_EVERY: Duration = Duration::from_secs(2);
/// How often the sentinels are asked whether the master is still the same.
const ASK_SENTINELS_EVERY: Duration = Duration::from_secs(5);

/// Receives what is published: channel and payload.
pub(super) type Mail = Box<dyn Fn(&str, &[u8]) + Send + Sync>;

/// What all servers of a link share.
pub(super) struct Shared {
    pub(super) dialer: Dialer,
    /// Whether the servers are a cluster's.
    pub(super) cluster: bool,
    /// For one command.
    pub(super) timeout: Duration,
    pub(super) health: Arc<Health>,
    pub(super) mail: Mail,
    /// How often a subscription began: what was published before one is lost.
    pub(super) subscriptions: watch::Sender<u64>,
    /// Told when a server was lost or does not own what it was thought to own.
    pub(super) doubt: Notify,
}

/// Where a server is.
pub(super) enum Target {
    Fixed(HostPort),
    /// The master that the sentinels name.
    Named(Sentinels),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(host) => host.fmt(f),
            Self::Named(sentinels) => write!(f, "master {}", sentinels.master),
        }
    }
}

/// Whether a server can be asked.
#[derive(Clone)]
pub(super) enum State {
    /// The first attempt is under way: worth waiting for.
    Connecting,
    Up(Arc<Wire>),
    /// Since its last connection failed, or its first attempt.
    Down,
}

/// A server, connected until the handle is dropped.
pub(super) struct Server {
    core: Arc<Core>,
    born: Instant,
    _stop: DropGuard,
}

/// What the tasks of a server share with its handle.
pub(super) struct Core {
    pub(super) shared: Arc<Shared>,
    pub(super) target: Target,
    pub(super) state: watch::Sender<State>,
    /// What to subscribe to here.
    pub(super) channels: watch::Sender<BTreeSet<String>>,
    need: Need,
    told: AtomicU8,
}

/// What was last logged: nothing, that it answers, that it does not.
const NOTHING: u8 = 0;
const ANSWERS: u8 = 1;
const AWAY: u8 = 2;

impl Server {
    /// Begins to connect, on tasks of its own.
    pub(super) fn start(shared: &Arc<Shared>, target: Target) -> Arc<Self> {
        let core = Arc::new(Core {
            shared: Arc::clone(shared),
            target,
            state: watch::Sender::new(State::Connecting),
            channels: watch::Sender::default(),
            need: shared.health.need(),
            told: AtomicU8::new(NOTHING),
        });
        let stop = CancellationToken::new();
        let keep = Arc::clone(&core).keep();
        tokio::spawn(stop.clone().run_until_cancelled_owned(keep));
        let hear = subscription::keep(Arc::clone(&core));
        tokio::spawn(stop.clone().run_until_cancelled_owned(hear));
        Arc::new(Self {
            core,
            born: Instant::now(),
            _stop: stop.drop_guard(),
        })
    }

    /// The connection, when there is one or the first attempt succeeds before the deadline.
    pub(super) async fn wire(&self, deadline: Instant) -> Option<Arc<Wire>> {
        let mut state = self.core.state.subscribe();
        let known = state.wait_for(|state| !matches!(state, State::Connecting));
        match tokio::time::timeout_at(deadline, known).await {
            Ok(Ok(state)) => match &*state {
                State::Up(wire) => Some(Arc::clone(wire)),
                State::Connecting | State::Down => None,
            },
            _ => None,
        }
    }

    /// The connection, when there is one now.
    pub(super) fn wire_now(&self) -> Option<Arc<Wire>> {
        match &*self.core.state.borrow() {
            State::Up(wire) => Some(Arc::clone(wire)),
            State::Connecting | State::Down => None,
        }
    }

    /// Subscribes to exactly these channels.
    pub(super) fn listen(&self, channels: BTreeSet<String>) {
        self.core.channels.send_if_modified(|old| {
            let changed = *old != channels;
            *old = channels;
            changed
        });
    }

    /// How long ago it was started.
    pub(super) fn age(&self) -> Duration {
        self.born.elapsed()
    }
}

impl Core {
    /// Connects, watches, comes back.
    async fn keep(self: Arc<Self>) {
        let mut backoff = Backoff::new(LONGEST_PAUSE);
        loop {
            let reason = match self.connect().await {
                Ok((wire, about)) => {
                    let began = Instant::now();
                    self.say_up(&wire, about.as_deref());
                    self.state.send_replace(State::Up(Arc::clone(&wire)));
                    self.need.set(true);
                    let reason = self.watch_over(&wire).await;
                    wire.give_up(&reason);
                    if began.elapsed() > STEADY {
                        backoff.reset();
                    }
                    reason
                }
                Err(reason) => reason,
            };
            self.state.send_replace(State::Down);
            self.need.set(false);
            self.say_down(&reason);
            self.shared.doubt.notify_one();
            tokio::time::sleep(backoff.next()).await;
        }
    }

    /// A connection to a server that can serve, and what its INFO says.
    async fn connect(&self) -> Result<(Arc<Wire>, Option<String>), String> {
        let host = match &self.target {
            Target::Fixed(host) => host.clone(),
            Target::Named(sentinels) => sentinels.ask().await?,
        };
        let deadline = Instant::now() + self.shared.dialer.timeout();
        let connection = self.shared.dialer.dial(&host, None).await?;
        let wire = Wire::new(host, connection, self.shared.timeout);
        let mut info = redis::cmd("INFO");
        info.arg("server").arg("memory");
        let commands = [redis::cmd("ROLE"), redis::cmd("PING"), info];
        let answers = wire.ask(&commands, deadline.max(Instant::now() + self.shared.timeout / 2));
        let Ok(answers) = answers.await else {
            return Err(wire.ended().await);
        };
        for answer in answers.iter().take(2) {
            check(answer, &wire.host)?;
        }
        let about = answers.into_iter().nth(2).and_then(string_of);
        if !self.shared.cluster
            && about.as_deref().and_then(|about| fact(about, "redis_mode")) == Some("cluster")
        {
            return Err("this is a node of a cluster: write redis+cluster://".to_owned());
        }
        Ok((Arc::new(wire), about))
    }

    /// Returns when the connection is of no more use, with the reason.
    async fn watch_over(&self, wire: &Wire) -> String {
        let role: [Cmd; 1] = [redis::cmd("ROLE")];
        let mut asked = Instant::now();
        loop {
            tokio::select! {
                reason = wire.ended() => return reason,
                () = tokio::time::sleep(PING_EVERY) => {}
            }
            match wire.ask(&role, Instant::now() + self.shared.timeout).await {
                Ok(answers) => {
                    if let Some(Err(reason)) = answers.first().map(|answer| check(answer, &wire.host)) {
                        return reason;
                    }
                }
                Err(_) => return wire.ended().await,
            }
            if let Target::Named(sentinels) = &self.target
                && asked.elapsed() > ASK_SENTINELS_EVERY
            {
                asked = Instant::now();
                if let Ok(host) = sentinels.ask().await
                    && host != wire.host
                {
                    return format!("the sentinels name {host} now");
                }
            }
        }
    }

    fn say_up(&self, wire: &Wire, about: Option<&str>) {
        let fact = |name| fact(about.unwrap_or_default(), name);
        let version = fact("redis_version").unwrap_or("unknown");
        let valkey = fact("valkey_version");
        let before = self.told.swap(ANSWERS, Ordering::Relaxed);
        let server = &wire.host;
        if before != ANSWERS {
            tracing::info!(%server, version, valkey, "Redis answers");
        }
        if version
            .split('.')
            .next()
            .and_then(|major| major.parse().ok())
            .is_some_and(|major: u32| major < 7)
        {
            tracing::error!(%server, version, "Redis must be 7.0 or newer: the lease will not work");
        }
        if let Some(policy) = fact("maxmemory_policy").filter(|policy| *policy != "noeviction") {
            tracing::warn!(
                %server,
                policy,
                "Redis may evict sessions: set maxmemory-policy noeviction"
            );
        }
    }

    /// One warning per outage, whatever fails on the way back.
    fn say_down(&self, reason: &str) {
        let server = &self.target;
        if self.told.swap(AWAY, Ordering::Relaxed) == AWAY {
            tracing::debug!(%server, reason, "Redis still does not answer");
        } else {
            tracing::warn!(%server, reason, "Redis does not answer");
        }
    }
}

/// Whether an answer to ROLE or PING is that of a server that takes writes. One that may not be asked is believed.
fn check(answer: &Value, host: &HostPort) -> Result<(), String> {
    match answer {
        Value::ServerError(error) => match judge(error, host) {
            Verdict::Leave(reason) => Err(reason),
            Verdict::Refused(_) | Verdict::Later => Ok(()),
            _ => Err(text_of(error)),
        },
        Value::Array(parts) => match parts.first().cloned().and_then(string_of) {
            Some(role) if role == "master" => Ok(()),
            Some(role) => Err(format!("{host} is a {role}, not a master")),
            None => Err("ROLE was not answered as a server would".to_owned()),
        },
        _ => Ok(()),
    }
}

/// A line of INFO or CLUSTER INFO.
pub(super) fn fact<'a>(about: &'a str, name: &str) -> Option<&'a str> {
    let lines = about.lines().filter_map(|line| line.split_once(':'));
    lines
        .filter(|(key, _)| *key == name)
        .map(|(_, value)| value.trim())
        .next()
}
