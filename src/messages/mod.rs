//! Messages: viewers talk, on the sockets that they already hold, and by HTTP. docs/messages.md says what is promised.
//!
//! Owns: what is stored and in which order ([`store`], [`conversations`], [`safety`], [`retention`]), live delivery on
//! this node and to the others (`delivery`, `wire`, `rooms`), what sockets ask (`desk`), and the routes.
//! Does not: hold sockets (`gateway` does, which asks through [`Exchange`]) or decide who watches what (`lease` does).
//! Called by: `app`, which builds it over the database, and the gateway's sessions.

pub mod conversations;
mod delivery;
mod desk;
mod inbox;
mod operators;
pub mod remembered;
pub mod retention;
mod rooms;
mod routes;
pub mod safety;
mod shapes;
pub mod store;
mod viewer;
mod wire;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use serde::Serializer;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config;
use crate::db::{Db, DbError};
use crate::gateway::exchange::{Busy, Exchange, Question, Speaker};
use crate::gateway::registry::Registry;
use crate::gateway::seat::Seat;
use crate::media::Showing;
use crate::net::limits::Pacer;
use crate::protocol::id::{AccountKey, OwnerId};
use crate::protocol::message::{Draft, room};
use crate::protocol::server::MessageText;
use crate::telemetry::Metrics;

use delivery::Delivery;
use store::{Message, New, SendError, Store, Stored};

pub use operators::operator_routes;
pub use routes::routes;
pub use wire::Wire;

/// Messages of an installation, as one node carries them.
pub struct Messages {
    store: Store,
    delivery: Arc<Delivery>,
    pace: Pacer,
    slow_mode: Pacer,
    settings: config::Messages,
    metrics: Arc<Metrics>,
    lanes: Vec<mpsc::Sender<desk::Waiting>>,
    readers: inbox::Readers,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// What messages are built over.
pub struct Parts {
    /// Where they are.
    pub db: Db,
    /// Whether accounts are rows of this installation.
    pub accounts: bool,
    /// `[messages]`
    pub settings: config::Messages,
    /// The sockets of this node.
    pub registry: Arc<Registry>,
    /// To the other nodes; none: there are none.
    pub wire: Option<Wire>,
    /// This node.
    pub owner: OwnerId,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

/// Why a message is not sent.
#[derive(Debug, thiserror::Error)]
pub enum SayError {
    /// They come too fast; the next may come after this time.
    #[error("too many messages; wait {0:?}")]
    TooFast(Duration),
    /// It cannot be stored.
    #[error(transparent)]
    Send(#[from] SendError),
}

impl From<DbError> for SayError {
    fn from(error: DbError) -> Self {
        Self::Send(error.into())
    }
}

impl Messages {
    /// Begins to carry messages, on tasks of the current runtime.
    #[must_use]
    pub fn start(parts: Parts) -> Arc<Self> {
        let Parts {
            db,
            accounts,
            settings,
            registry,
            wire,
            owner,
            metrics,
        } = parts;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let store = Store::new(db, accounts);
        let opened = wire::open(wire, owner);
        let (delivery, ends) = Delivery::new(store.clone(), registry, opened.mouth, &metrics);
        let (lanes, queues) = desk::lanes();
        let messages = Arc::new(Self {
            store: store.clone(),
            pace: Pacer::new(settings.per_second, settings.burst),
            slow_mode: Pacer::every(settings.slow_mode),
            settings: settings.clone(),
            metrics,
            lanes,
            readers: inbox::Readers::default(),
            delivery: Arc::clone(&delivery),
            tasks: tasks.clone(),
            stop: stop.clone(),
        });
        delivery.start(&tasks, &stop, ends, settings.poll, opened.renewed);
        let run = |task| tasks.spawn(stop.clone().run_until_cancelled_owned(task));
        if let Some(heard) = opened.heard {
            run(boxed(Arc::clone(&delivery).hear(heard)));
        }
        if let Some(speak) = opened.speak {
            run(boxed(speak.run()));
        }
        for queue in queues {
            run(boxed(Arc::clone(&messages).answer(queue)));
        }
        run(boxed(retention::keep(store, settings)));
        messages
    }

    /// Ends its tasks. What was acknowledged is stored already.
    pub fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
    }

    /// Stores a message and lets everybody hear it whom it is for. Whether its sender may speak in a room was judged before.
    ///
    /// # Errors
    /// As [`SayError`] says.
    pub async fn say(&self, who: &AccountKey, draft: &Draft) -> Result<Stored, SayError> {
        self.check_pace(who)?;
        if let Some(content) = room(&draft.to) {
            let checked = self.slow_mode.check((who, content), Instant::now());
            checked.map_err(SayError::TooFast)?;
        }
        let new = New {
            tenant: &who.tenant,
            from: &who.account,
            to: &draft.to,
            content: &draft.content,
            client_id: draft.client_id.as_deref(),
            now: now(),
        };
        let stored = self.store.send(&new).await?;
        if !stored.again {
            self.metrics.messages_total.inc(draft.content.kind.name());
            let message = Message {
                id: stored.id,
                from: who.account.to_string(),
                to: draft.to.clone(),
                content: draft.content.json.clone(),
                sent_at: stored.sent_at,
            };
            self.delivery.announce(&who.tenant, &message, stored.before);
        }
        Ok(stored)
    }

    /// Counts one thing that an account asks for.
    fn check_pace(&self, who: &AccountKey) -> Result<(), SayError> {
        self.pace.check(who, Instant::now()).map_err(SayError::TooFast)
    }
}

impl Exchange for Messages {
    fn enter(&self, who: &Speaker, since: Option<u64>, anew: bool) {
        who.seat.listen(since);
        self.delivery.welcome_soon(&who.account, &who.seat);
        if let Some(content) = &who.content {
            self.delivery.rooms.enter(&who.account.tenant, content, &who.seat);
            if since.is_some() && anew {
                self.tell_room(who);
            }
        }
    }

    fn switch(&self, who: &Speaker, from: &str) {
        let rooms = &self.delivery.rooms;
        rooms.leave(&who.account.tenant, from, &who.seat);
        if let Some(content) = &who.content {
            rooms.enter(&who.account.tenant, content, &who.seat);
        }
    }

    fn leave(&self, who: &Speaker) {
        who.seat.hush();
        if let Some(content) = &who.content {
            self.delivery.rooms.leave(&who.account.tenant, content, &who.seat);
        }
    }

    fn ask(&self, question: Question) -> Result<(), Busy> {
        self.queue(question)
    }

    fn read_on(&self, account: &AccountKey, seat: &Arc<Seat>) {
        self.delivery.read_to(account, seat, 0);
    }
}

#[async_trait]
impl Showing for Messages {
    async fn shows(&self, tenant: &str, owner: &str, account: &str, file: &str) -> Result<bool, DbError> {
        self.store.shows_file(tenant, owner, account, file).await
    }
}

/// A task of its own size, so that those that run it need not have room for it.
fn boxed(
    task: impl Future<Output = ()> + Send + 'static,
) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(task)
}

/// Unix milliseconds.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The time of Unix milliseconds.
fn time(millis: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis.unsigned_abs())
}

/// Unix milliseconds as RFC 3339.
fn rfc3339_millis<S: Serializer>(millis: &i64, to: S) -> Result<S::Ok, S::Error> {
    crate::protocol::server::rfc3339(&time(*millis), to)
}

/// A message as it is shown; none: what it says cannot be read.
fn text_of(message: &Message) -> Option<MessageText<'_>> {
    Some(MessageText {
        id: message.id,
        from: &message.from,
        to: &message.to,
        content: wire::raw(&message.content)?,
        sent_at: time(message.sent_at),
    })
}
