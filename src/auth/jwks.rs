//! The keys of one identity provider, kept fresh.
//!
//! Owns: when a key set is fetched, and the last good set, which serves for as long as the provider is away.
//! Does not: choose between keys. A refresh runs in a task of its own, so that a caller who leaves does not stop it.
//! Called by: `keyring`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::Instant;

use super::error::AuthError;
use super::fetch::Fetcher;
use super::jwk::parse_set;
use super::keys::{Authority, Key};
use crate::config::Jwks;
use crate::outbound::Guard;

/// Least time between the starts of two refreshes, whatever tokens come in and however the last one ended.
pub(crate) const FLOOR: Duration = Duration::from_secs(10);

/// One `[[auth.jwks]]`.
pub(crate) struct Source {
    /// Its place in the configuration, for the log.
    at: String,
    fetcher: Fetcher,
    authority: Arc<Authority>,
    refresh_after: Duration,
    keys: ArcSwap<Vec<Arc<Key>>>,
    schedule: Mutex<Schedule>,
    /// Ticks when a refresh ends, well or not.
    ended: watch::Sender<()>,
}

#[derive(Default)]
struct Schedule {
    under_way: bool,
    /// Start of the last refresh.
    started: Option<Instant>,
    /// End of the last one that brought keys.
    fetched: Option<Instant>,
}

impl Source {
    /// From the settings under `at`, such as `auth.jwks[0]`; nothing is fetched yet.
    pub(crate) fn new(
        settings: &Jwks,
        default_issuer: Option<String>,
        at: String,
        guard: Guard,
    ) -> Result<Arc<Self>, AuthError> {
        let issuer = Some(settings.issuer.clone())
            .filter(|i| !i.is_empty())
            .or(default_issuer);
        let authority = Authority::from_settings(&at, issuer, &settings.tenants, &settings.scopes)?;
        Ok(Arc::new(Self {
            fetcher: Fetcher::new(settings, &at, guard)?,
            at,
            authority: Arc::new(authority),
            refresh_after: settings.refresh,
            keys: ArcSwap::default(),
            schedule: Mutex::default(),
            ended: watch::Sender::new(()),
        }))
    }

    /// The last good set; empty before the first.
    pub(crate) fn keys(&self) -> Arc<Vec<Arc<Key>>> {
        self.keys.load_full()
    }

    /// Whether the set was ever fetched.
    pub(crate) fn is_known(&self) -> bool {
        self.schedule().fetched.is_some()
    }

    /// Starts a refresh when the set is old, without waiting for it. The first fetch waits for [`Self::refresh`].
    pub(crate) fn refresh_if_old(self: &Arc<Self>) {
        let old = {
            let schedule = self.schedule();
            let fresh = schedule
                .fetched
                .is_some_and(|at| at.elapsed() < self.refresh_after);
            schedule.started.is_some() && !fresh
        };
        if old {
            let _ = self.start();
        }
    }

    /// Joins the refresh under way, or starts one and waits for it, or returns at once within [`FLOOR`] of the last.
    pub(crate) async fn refresh(self: &Arc<Self>) {
        if let Some(mut ended) = self.start() {
            // The sender lives in self: this fails never, and would mean "ended" if it did.
            let _ = ended.changed().await;
        }
    }

    fn start(self: &Arc<Self>) -> Option<watch::Receiver<()>> {
        let mut schedule = self.schedule();
        let ended = self.ended.subscribe();
        if !schedule.under_way {
            if schedule.started.is_some_and(|at| at.elapsed() < FLOOR) {
                return None;
            }
            schedule.under_way = true;
            schedule.started = Some(Instant::now());
            // Uncounted on purpose: it ends within the fetch's time-out and a drain has nothing to wait for.
            tokio::spawn(run(Flight(self.clone())));
        }
        Some(ended)
    }

    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A refresh under way; dropping it ends it, so that not even a panic leaves callers waiting.
struct Flight(Arc<Source>);

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.schedule().under_way = false;
        self.0.ended.send_replace(());
    }
}

async fn run(flight: Flight) {
    let source = &flight.0;
    let fetched = source.fetcher.fetch().await;
    match fetched.and_then(|body| parse_set(&body, &source.authority).map_err(|e| format!("no key set: {e}")))
    {
        Ok(keys) => {
            if keys.is_empty() {
                tracing::warn!(source = %source.at, "key set without a usable key");
            }
            tracing::debug!(source = %source.at, keys = keys.len(), "key set fetched");
            source.keys.store(Arc::new(keys));
            source.schedule().fetched = Some(Instant::now());
        }
        Err(error) => {
            tracing::warn!(source = %source.at, %error, "key set not fetched; the last one stays in use");
        }
    }
}
