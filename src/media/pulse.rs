//! Whether the lease that opened a response still lives, while its bytes are on their way.
//!
//! Owns: how often that is asked (twice a second and a little more) and that no byte goes out on an answer older than
//! that allows. Does not: judge leases. Called by: `flow`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::auth::Ticket;
use crate::gateway::Gateway;
use crate::lease::locals::Locals;

/// From an answer to the next question.
const PAUSE: Duration = Duration::from_millis(400);

/// No byte goes out when the last answer is older: with what is on the line, the bytes stop within a second.
const OLDEST: Duration = Duration::from_millis(750);

/// The lease behind a response.
pub(super) struct Pulse {
    gateway: Arc<Gateway>,
    ticket: Ticket,
    /// Where questions are asked: what the lease store spawns for all must not be on the slow lane.
    home: Handle,
    asking: Option<JoinHandle<bool>>,
    due: Instant,
    confirmed: Instant,
}

impl Pulse {
    /// The lease of a ticket, which was just found to live. Called where requests are answered.
    #[must_use]
    pub(super) fn new(gateway: Arc<Gateway>, ticket: Ticket) -> Self {
        let now = Instant::now();
        Self {
            gateway,
            ticket,
            home: Handle::current(),
            asking: None,
            due: now + PAUSE,
            confirmed: now,
        }
    }

    /// Whether it is too long ago that anybody said that the lease lives.
    #[must_use]
    pub(super) fn is_stale(&self) -> bool {
        self.confirmed.elapsed() > OLDEST
    }

    /// The next answer, when its time has come: whether the lease lives. Safe to cancel.
    pub(super) async fn next(&mut self) -> bool {
        if self.asking.is_none() {
            sleep_until(self.due).await;
            let (gateway, ticket) = (Arc::clone(&self.gateway), self.ticket.clone());
            self.asking = Some(self.home.spawn(async move { lives(&gateway, &ticket).await }));
        }
        let Some(asking) = &mut self.asking else {
            return false;
        };
        let lives = asking.await.unwrap_or(false);
        let now = Instant::now();
        (self.asking, self.confirmed, self.due) = (None, now, now + PAUSE);
        lives
    }
}

/// Whether a ticket's session holds its slot. A socket on this node is known here; else the store is asked. While that is
/// away nobody can tell: the ticket's own end counts where the operator wants nobody let in then.
pub(super) async fn lives(gateway: &Gateway, ticket: &Ticket) -> bool {
    if gateway.registry.holds(&ticket.account, ticket.session) {
        return true;
    }
    match gateway.lease.lives(&ticket.account, ticket.session).await {
        Ok(lives) => lives,
        Err(_) => !gateway.lease.is_refusing(&ticket.account) || ticket.expires_at > SystemTime::now(),
    }
}
