//! The nouns of the lease: entries, waiters, marks, and the questions and answers of a store.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use crate::protocol::client::PlayState;
use crate::protocol::close::EndCode;
use crate::protocol::id::{Attempt, OwnerId, SessionId};
use crate::protocol::server::{Holder, Screen};

/// Milliseconds since the Unix epoch by the store's clock.
pub type Millis = u64;

/// One player installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its id, unique in the account.
    pub id: Box<str>,
    /// Its name for people.
    pub name: Option<Box<str>>,
    /// `tv`, `phone`, `web`, ...
    pub class: Option<Box<str>>,
}

/// A taken slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The session that holds it.
    pub session: SessionId,
    /// The process under which it is held.
    pub owner: OwnerId,
    /// +1 each time the session moves to another socket: the fencing token.
    pub epoch: u64,
    /// Who plays.
    pub device: Arc<Device>,
    /// What.
    pub content: Arc<str>,
    /// How.
    pub state: PlayState,
    /// Since when.
    pub started_at: Millis,
    /// The resume that brought it to its owner.
    pub attempt: Option<Attempt>,
    /// Set when the session is to end.
    pub mark: Option<Mark>,
}

/// Why an entry is to end. The owner's socket ends it and releases: a slot is never free while its socket is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Ended from outside, with this code.
    Kick(EndCode),
    /// Taken over.
    TakeOver {
        /// The newcomer's session.
        by: SessionId,
        /// The newcomer's device.
        device: Arc<Device>,
        /// Whether the victim is asked first.
        asked: bool,
    },
}

/// A refused player that chose to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiter {
    /// The session that it will have.
    pub session: SessionId,
    /// The process that holds its socket.
    pub owner: OwnerId,
    /// Who waits.
    pub device: Arc<Device>,
    /// For what.
    pub content: Arc<str>,
    /// The slots that it counts against.
    pub limit: u32,
    /// When it last asked.
    pub refreshed: Millis,
    /// Whose slot it takes over; such waiters stand before all others.
    pub victim: Option<SessionId>,
    /// Whether that victim said no; told to the waiter when it asks next.
    pub refused: bool,
}

/// What a start wants when no slot is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// To be refused.
    Slot,
    /// A place in the line.
    Wait,
    /// The oldest session's slot.
    Oldest,
    /// This session's slot.
    TakeOver(SessionId),
}

/// A start. Repeating it changes nothing and gives the same answer: the session id makes it idempotent.
#[derive(Clone, Debug)]
pub struct Acquire {
    /// The session, chosen by the gateway.
    pub session: SessionId,
    /// The asking process.
    pub owner: OwnerId,
    /// Who.
    pub device: Arc<Device>,
    /// What.
    pub content: Arc<str>,
    /// Slots of the account, as this player's token and plan say.
    pub limit: u32,
    /// What to do at the limit.
    pub wish: Wish,
    /// Whether a take-over asks its victim.
    pub consent: bool,
    /// Most waiters of the account.
    pub line: u32,
}

/// The answer to a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// The slot is taken for this session.
    Granted {
        /// Slots taken now.
        used: u32,
        /// Whether the device's own earlier session made place.
        replaced: bool,
    },
    /// No slot.
    Denied {
        /// Whether the asked victim of a take-over said no.
        refused: bool,
        /// Who is playing.
        holders: Vec<Entry>,
        /// Whether the line has a place.
        line_open: bool,
    },
    /// A place in the line.
    Waiting {
        /// 1 is next.
        position: u32,
        /// Whether a victim is about to go.
        taking_over: bool,
    },
    /// This session has ended already: a late duplicate.
    Ended(EndCode),
}

/// A return to a session.
#[derive(Clone, Debug)]
pub struct Resume {
    /// The session.
    pub session: SessionId,
    /// The asking process.
    pub owner: OwnerId,
    /// The device, when the player named one; it must be the session's.
    pub device: Option<Box<str>>,
    /// What it plays from now on.
    pub content: Arc<str>,
    /// This try.
    pub attempt: Attempt,
}

/// The answer to a return.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resumed {
    /// The session is on this socket now.
    Moved {
        /// Its entry.
        entry: Entry,
        /// Slots taken.
        used: u32,
    },
    /// No such session, or not this device's, or about to end: an ordinary start.
    Absent,
}

/// The right to change an entry: only its present owner and epoch have it (I4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The session.
    pub session: SessionId,
    /// The process that believes to hold it.
    pub owner: OwnerId,
    /// The epoch under which it does.
    pub epoch: u64,
}

/// The answer to a fenced change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fenced {
    /// Done.
    Done,
    /// The session plays elsewhere under a higher epoch.
    NotYours,
    /// There is no such session (any more).
    Gone,
}

/// What became of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// It is held under this fence.
    Yours {
        /// Set when it is to end.
        mark: Option<Mark>,
    },
    /// It moved to another socket.
    Moved,
    /// It ended; the code when that is still known.
    Gone(Option<EndCode>),
}

impl Entry {
    /// The entry as it is shown to the refused and to operators.
    #[must_use]
    pub fn holder(&self) -> Holder {
        Holder {
            session: self.session,
            device: self.device.id.to_string(),
            device_name: self.device.name.as_deref().map(str::to_owned),
            device_class: self.device.class.as_deref().map(str::to_owned),
            content: self.content.to_string(),
            started_at: UNIX_EPOCH + Duration::from_millis(self.started_at),
            state: self.state,
        }
    }

    /// The right to change it as it stands.
    #[must_use]
    pub fn fence(&self) -> Fence {
        Fence {
            session: self.session,
            owner: self.owner,
            epoch: self.epoch,
        }
    }
}

impl Device {
    /// The device as the other side of a take-over sees it.
    #[must_use]
    pub fn screen(&self) -> Screen<'_> {
        Screen {
            device: &self.id,
            device_name: self.name.as_deref(),
        }
    }
}

impl Fence {
    /// Whether it fences this entry.
    #[must_use]
    pub fn holds(&self, entry: &Entry) -> bool {
        entry.session == self.session && entry.owner == self.owner && entry.epoch == self.epoch
    }
}
