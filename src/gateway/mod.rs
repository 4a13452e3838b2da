//! The connection: one task per player.
//!
//! Owns: what happens on an open socket, from the first frame to the last; the registry of local sessions; leaving; and
//! players without a socket (`lone`), who have requests in place of a task; inboxes, which hear messages and play nothing.
//! Does not: accept connections, read HTTP or verify how a request came in (that is `net` and `api`), nor decide
//! who may play (that is `lease`).
//! Called by: `api::watch`, which hands an upgraded connection over, and `app`, which drains.

pub mod attempts;
pub mod drain;
pub mod ear;
mod ending;
pub mod exchange;
pub mod inbox;
mod line;
pub mod lone;
mod lones;
mod park;
mod play;
pub mod player;
mod refusal;
pub mod registry;
pub mod seat;
mod session;
pub mod socket;
mod start;
mod ticket;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_util::task::TaskTracker;

use crate::auth::Verifier;
use crate::config::{Config, Tickets};
use crate::lease::model::Order;
use crate::lease::policy::Policy;
use crate::lease::service::Service;
use crate::lease::shelf::{Barred, Shelf, Sight};
use crate::net::stream::Handover;
use crate::protocol::close::EndCode;
use crate::telemetry::Metrics;
use crate::webhooks::refusals::Refusals;

use attempts::Attempts;
use exchange::Exchange;
use player::Player;
use registry::Registry;

/// What the sessions of a node share.
pub struct Gateway {
    /// Who may play.
    pub lease: Arc<Service>,
    /// Local sessions.
    pub registry: Arc<Registry>,
    /// What the catalogue says of contents; none: there is no catalogue.
    pub shelf: Option<Arc<dyn Shelf>>,
    /// Limits and modes.
    pub policy: ArcSwap<Policy>,
    /// Periods and bounds.
    pub timing: Timing,
    /// Which tickets players get.
    pub tickets: ArcSwap<Tickets>,
    /// Checks fresh tokens, and signs tickets.
    pub verifier: Arc<Verifier>,
    /// Carries messages between viewers; none: nobody does.
    pub exchange: Option<Arc<dyn Exchange>>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Where refusals go that somebody wants to be told; none: nobody.
    pub refusals: Option<Refusals>,
    /// Where starts are counted by the slot that they ask for; none: nobody wants to know.
    pub attempts: Option<Arc<Attempts>>,
    /// Counts every session's task, so that a drain can wait for all.
    pub tasks: TaskTracker,
}

/// Periods and bounds of a session, from the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Silence that ends a session.
    pub period: Duration,
    /// Frames at once; 0: no limit.
    pub burst: u32,
    /// Frames per second after that; 0: no limit.
    pub rate: u32,
}

impl Timing {
    /// The timing of a configuration.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            period: config.lease.period,
            burst: config.limits.messages_burst,
            rate: config.limits.messages_per_second,
        }
    }
}

impl Gateway {
    /// Takes the limits of a new configuration: starts are judged by them at once, those who play within one audit.
    pub fn govern(&self, config: &Config) {
        let policy = Policy::new(config).with_shelf(self.shelf.clone());
        self.count_rules(&policy);
        self.policy.store(Arc::new(policy));
        for seat in self.registry.seats() {
            seat.tell(|news| news.policy = true);
        }
    }

    /// Every rule's refusals are counted from zero on.
    pub fn count_rules(&self, policy: &Policy) {
        for label in policy.labels() {
            self.metrics.denials_total.begin_configured(&label);
        }
    }

    /// Whether the catalogue lets this tenant's viewer play a content. Where it is not enforced everybody may; only what
    /// the rules need of it is heard of.
    ///
    /// # Errors
    /// Why not.
    pub async fn admit(&self, tenant: &str, sight: &Sight, content: &str) -> Result<(), Barred> {
        let Some(shelf) = &self.shelf else {
            return Ok(());
        };
        if shelf.enforces() {
            return shelf.admit(tenant, sight, content).await;
        }
        let needed = self.policy.load().uses_tags();
        if needed {
            shelf.learn(tenant, content).await;
        }
        Ok(())
    }

    /// Ends this node's sessions on a content that may not be played any more, with 4005: those on sockets now, those
    /// without one as soon as the store has heard of it.
    pub fn withdraw(self: &Arc<Self>, tenant: &str, content: &str) {
        self.registry.withdraw(tenant, content);
        let playing = self.registry.lones.playing(tenant, content);
        if playing.is_empty() {
            return;
        }
        let gateway = Arc::clone(self);
        self.tasks.spawn(async move {
            for (account, session) in playing {
                let code = EndCode::ContentUnavailable;
                let ended = gateway.lease.order(&account, Order::Kick { session, code }).await;
                if let Err(error) = ended {
                    tracing::warn!(%session, ?error, "a session on a withdrawn content goes on");
                }
            }
        });
    }

    /// Runs a player's session on a task of its own. What the handshake needed is gone by then: only the task's
    /// small future stays for as long as the player plays.
    pub fn open(self: &Arc<Self>, handover: Handover, player: Player) {
        let gateway = Arc::clone(self);
        self.tasks.spawn(session::run(gateway, handover, player));
    }
}
