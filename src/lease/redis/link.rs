//! The link between a node and Redis.
//!
//! Owns: opening it from the settings, running scripts on it within their time, counting them, and what is heard.
//! Does not: queue anything while Redis is away, or know what the scripts do.
//! Called by: the Redis store.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::call::{Call, Script};
use super::cluster::Cluster;
use super::dial::Dialer;
use super::failed::{Failed, Verdict};
use super::health::Health;
use super::sentinel::Sentinels;
use super::server::{Server, Shared, Target};
use super::tls;
use crate::config::{self, RedisServers};
use crate::telemetry::Metrics;

/// A setting that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct LinkError {
    /// Path of the setting.
    pub key: &'static str,
    /// What is wrong with it, for people.
    pub message: String,
}

/// The connections to Redis; clones share them, and the last one ends them.
///
/// While Redis is away every call fails at once. The link comes back by itself: jittered pauses of at most 2 s, one
/// warning in the log per outage of a server and one line when it is back.
#[derive(Clone)]
pub struct Link {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    servers: Servers,
    _stop: DropGuard,
}

enum Servers {
    One {
        server: Arc<Server>,
        channels: Mutex<BTreeSet<String>>,
    },
    Cluster(Arc<Cluster>),
}

impl Link {
    /// Begins to connect, on tasks of the current runtime, and never waits for a server. `mail` is handed the channel
    /// and payload of everything that is published to the channels of [`Link::listen`]; it must not block.
    ///
    /// # Errors
    /// Settings that cannot work: an unreadable certificate, a URL that is none.
    pub fn open(
        settings: &config::Redis,
        metrics: Arc<Metrics>,
        mail: impl Fn(&str, &[u8]) + Send + Sync + 'static,
    ) -> Result<Self, LinkError> {
        let url = settings.url.parse();
        let address = url.map_err(|message| LinkError {
            key: "redis.url",
            message,
        })?;
        let tls = address.tls.then(|| tls::connector(settings)).transpose()?;
        let named = |own: &str, url: &str| {
            if own.is_empty() {
                url.to_owned()
            } else {
                own.to_owned()
            }
        };
        let username = named(&settings.username, &address.username);
        let password = named(settings.password.expose(), address.password.expose());
        let dialer = Dialer::new(
            tls.clone(),
            (&username, &password),
            address.database,
            settings.connect_timeout,
        );
        let shared = Arc::new(Shared {
            dialer,
            cluster: matches!(address.servers, RedisServers::Cluster(_)),
            timeout: settings.timeout,
            health: Health::new(Arc::clone(&metrics)),
            mail: Box::new(mail),
            subscriptions: watch::Sender::default(),
            doubt: Notify::new(),
        });
        let stop = CancellationToken::new();
        let one = |target| Servers::One {
            server: Server::start(&shared, target),
            channels: Mutex::default(),
        };
        let servers = match address.servers {
            RedisServers::Single(host) => one(Target::Fixed(host)),
            RedisServers::Sentinel { sentinels, master } => {
                let login = (
                    settings.sentinel_username.as_str(),
                    settings.sentinel_password.expose(),
                );
                let dialer = Dialer::new(tls, login, 0, settings.connect_timeout);
                one(Target::Named(Sentinels::new(master, sentinels, dialer)))
            }
            RedisServers::Cluster(seeds) => {
                let cluster = Cluster::new(Arc::clone(&shared), seeds);
                let keep = Arc::clone(&cluster).keep();
                tokio::spawn(stop.clone().run_until_cancelled_owned(keep));
                Servers::Cluster(cluster)
            }
        };
        let inner = Inner {
            shared,
            metrics,
            servers,
            _stop: stop.drop_guard(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Runs a script with these keys, all of one slot, and these arguments, within `redis.timeout`.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(&self, script: &Script, keys: &[String], arguments: &[&str]) -> Result<String, Failed> {
        let Inner {
            shared,
            metrics,
            servers,
            ..
        } = &*self.inner;
        let began = Instant::now();
        let deadline = began + shared.timeout;
        let call = Call {
            script,
            keys,
            arguments,
        };
        metrics.redis_commands_total.inc(script.name);
        // Boxed: the task of a player must not be as large as its rarest call.
        let result = match servers {
            Servers::One { server, .. } => Box::pin(one(server, call, deadline)).await,
            Servers::Cluster(cluster) => Box::pin(cluster.run(call, deadline)).await,
        };
        metrics
            .redis_duration_seconds
            .observe(script.name, began.elapsed());
        match &result {
            Ok(_) => {}
            Err(Failed::Refused(_)) => metrics.redis_errors_total.inc("refused"),
            Err(Failed::Unavailable) => metrics.redis_errors_total.inc("unavailable"),
        }
        shared.health.answered(result != Err(Failed::Unavailable));
        result
    }

    /// Shows how many facts the event streams have lost.
    pub(super) fn dropped(&self, facts: u64) {
        let facts = i64::try_from(facts).unwrap_or(i64::MAX);
        self.inner.metrics.events_dropped.set(facts);
    }

    /// Subscribes to these channels (SSUBSCRIBE) too, for the link's life: again after every reconnection, failover and
    /// move of a slot. What is published meanwhile is lost.
    pub fn listen(&self, channels: Vec<String>) {
        match &self.inner.servers {
            Servers::One {
                server,
                channels: all,
            } => {
                let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                all.extend(channels);
                server.listen(all.clone());
            }
            Servers::Cluster(cluster) => cluster.listen(channels),
        }
    }

    /// Changes whenever a subscription began, also anew: what was published before is lost.
    #[must_use]
    pub fn subscriptions(&self) -> watch::Receiver<u64> {
        self.inner.shared.subscriptions.subscribe()
    }

    /// Whether every server that is needed is connected and the last command was answered.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.inner.shared.health.is_up()
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("is_up", &self.is_up()).finish()
    }
}

async fn one(server: &Server, call: Call<'_>, deadline: Instant) -> Result<String, Failed> {
    let wire = server.wire(deadline).await.ok_or(Failed::Unavailable)?;
    call.run(&wire, false, deadline)
        .await
        .map_err(|verdict| match verdict {
            Verdict::Refused(text) => Failed::Refused(text),
            _ => Failed::Unavailable,
        })
}
