//! The nouns of the lease: entries, waiters, marks, and the questions and answers of a store.
//!
//! Over 400 lines: it is the vocabulary that rules, stores and nodes share, data and its meaning without any rule.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use crate::protocol::client::PlayState;
use crate::protocol::close::EndCode;
use crate::protocol::id::{AccountKey, Attempt, OwnerId, SessionId};
use crate::protocol::server::{Holder, Screen};

use super::group::Terms;

/// Milliseconds since the Unix epoch by the store's clock.
pub type Millis = u64;

/// An epoch above all others: what was ended by order never comes back (rule 8). The largest integer that every
/// JSON reader keeps.
pub const EPOCH_FOREVER: u64 = (1 << 53) - 1;

/// One life of a bucket's data: a fresh random value, compared only for equality (rule 1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Generation(pub u64);

impl Generation {
    /// Not confirmed by the store in any life of its data.
    pub const NONE: Self = Self(0);
}

/// How far a play is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Progress {
    /// Position in the content, in milliseconds.
    pub position_ms: u64,
    /// Time watched so far, pauses not counted, in milliseconds of the node's monotonic clock.
    pub watched_ms: u64,
}

/// One player installation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Device {
    /// Its id, unique in the account.
    pub id: Box<str>,
    /// Its name for people.
    pub name: Option<Box<str>>,
    /// `tv`, `phone`, `web`, ...
    pub class: Option<Box<str>>,
    /// The plan that the token of its player named when it started; the ledger's, no rule reads it here.
    pub plan: Option<Arc<str>>,
}

/// A taken slot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The session that holds it.
    pub session: SessionId,
    /// The process under which it is held.
    pub owner: OwnerId,
    /// +1 each time the session moves to another socket: the fencing token.
    pub epoch: u64,
    /// The life of the data in which its owner last confirmed it (rule 3).
    pub generation: Generation,
    /// Who plays.
    pub device: Arc<Device>,
    /// What.
    pub content: Arc<str>,
    /// How.
    pub state: PlayState,
    /// Since when.
    pub started_at: Millis,
    /// How far it was when its owner last said so,
    pub progress: Progress,
    /// which was then.
    pub checkpoint: Millis,
    /// The resume that brought it to its owner.
    pub attempt: Option<Attempt>,
    /// Set when the session is to end.
    pub mark: Option<Mark>,
    /// It came back, or was granted, without being certain of its slot: until then one that is older may take it.
    /// Zero for all others.
    pub settles: Millis,
    /// The groups that it counts in, beside the account's total.
    pub groups: Vec<Arc<str>>,
    /// It takes no slot.
    pub exempt: bool,
    /// When it ends unless a heartbeat comes, for a session without a socket: no node holds it ([`OwnerId::NONE`]). None:
    /// it lives as long as its owner's lease.
    pub expires: Option<Millis>,
}

/// Why an entry is to end. The owner's socket ends it and releases: a slot is never free while its socket is open.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
    /// What it will count in beside them.
    pub terms: Terms,
    /// When it last asked.
    pub refreshed: Millis,
    /// Whose slot it takes over; such waiters stand before all others.
    pub victim: Option<SessionId>,
    /// Whether that victim said no; told to the waiter when it asks next.
    pub refused: bool,
    /// As in the start that it asks for.
    pub period: Option<Millis>,
}

/// What a start wants when no slot is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
    /// What it counts in beside them.
    pub terms: Terms,
    /// What to do at the limit.
    pub wish: Wish,
    /// Whether a take-over asks its victim.
    pub consent: bool,
    /// Most waiters of the account.
    pub line: u32,
    /// How long the session lives without a heartbeat, for one without a socket, which no node holds. None: it lives as
    /// long as its owner's lease.
    pub period: Option<Millis>,
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
        /// The life of the data in which it was granted.
        generation: Generation,
        /// When.
        started_at: Millis,
        /// The operators' limit of the account, where there is one.
        limit: Option<u32>,
        /// The rules in shadow that would have refused it.
        shadowed: Vec<Box<str>>,
    },
    /// No slot.
    Denied {
        /// Whether the asked victim of a take-over said no.
        refused: bool,
        /// The rule that refused.
        refusal: Refusal,
        /// Who plays and counts in that rule.
        holders: Vec<Entry>,
        /// Whether waiting helps: the line has a place, and what refused can become free.
        line_open: bool,
        /// The operators' limit of the account, where there is one.
        limit: Option<u32>,
    },
    /// A place in the line.
    Waiting {
        /// 1 is next.
        position: u32,
        /// Whether a victim is about to go.
        taking_over: bool,
    },
    /// This session has ended already: a late duplicate. Or its account is blocked.
    Ended(EndCode),
}

/// The rule that left no place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Refusal {
    /// Its name; [`ACCOUNT`](super::group::ACCOUNT) for the account's total.
    pub rule: Box<str>,
    /// What it counts now,
    pub used: u32,
    /// and may count at most.
    pub limit: u32,
    /// Slots of the account that are taken.
    pub slots: u32,
    /// Whether there is a session whose end would make place.
    pub may_take_over: bool,
}

/// A return to a session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Resume {
    /// The session.
    pub session: SessionId,
    /// The epoch under which it was found: a move from any other is refused (rule 15). 0 only asks for it.
    pub expected: u64,
    /// The highest epoch of the session that the asking process holds or ended: the move goes above it. A failover may have lost
    /// the move that made it, and no fence could tell two sockets of one owner and one epoch apart.
    pub above: u64,
    /// The asking process.
    pub owner: OwnerId,
    /// The device, when the player named one; it must be the session's.
    pub device: Option<Box<str>>,
    /// What it plays from now on.
    pub content: Arc<str>,
    /// Slots of the account, as the player's token and plan say now.
    pub limit: u32,
    /// What it counts in beside them from now on.
    pub terms: Terms,
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
        /// The operators' limit of the account, where there is one.
        limit: Option<u32>,
    },
    /// It is held under another epoch than the expected one.
    At {
        /// This one.
        epoch: u64,
        /// Its device, on which the terms of the session depend.
        device: Arc<Device>,
    },
    /// No such session, or not this device's, or about to end, or a rule leaves no place for what it would count in
    /// now: an ordinary start.
    Absent,
}

/// Another content, or other terms, for a session that plays.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Switch {
    /// The session, its node and its epoch.
    pub fence: Fence,
    /// What it plays from now on.
    pub content: Arc<str>,
    /// Slots of the account.
    pub limit: u32,
    /// What it counts in beside them from now on.
    pub terms: Terms,
}

/// The answer to a switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Switched {
    /// Done.
    Done,
    /// A rule leaves no place; the session plays on as before.
    Refused {
        /// The rule.
        refusal: Refusal,
        /// Who counts in it.
        holders: Vec<Entry>,
    },
    /// The session plays elsewhere under a higher epoch.
    NotYours,
    /// There is no such session (any more).
    Gone,
}

/// The right to change an entry: only its present owner and epoch have it (I4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

/// What a node knows of a session that it holds: enough to end it, to compare it with the store, and to write it
/// again when the store lost it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Holding {
    /// The session, its node and its epoch.
    pub fence: Fence,
    /// The life of the data in which the store last confirmed it; none for what was never confirmed.
    pub generation: Generation,
    /// Slots of the account, as its player's token and plan say.
    pub limit: u32,
    /// What it counts in beside them.
    pub terms: Terms,
    /// Who plays.
    pub device: Arc<Device>,
    /// What.
    pub content: Arc<str>,
    /// How.
    pub state: PlayState,
    /// Since when, by the store's clock; estimated when it was granted without the store, 0 when it never was.
    pub started_at: Millis,
    /// How far it is.
    pub progress: Progress,
    /// Whether somebody else may have its slot: its node's lease lapsed, or it was granted without the store. It
    /// comes back only after those that are certain, and only below the limit (rule 5).
    pub doubtful: bool,
    /// How long it lives without a heartbeat, for a session without a socket.
    pub period: Option<Millis>,
}

/// What became of a session that its node holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// It is held under this fence.
    Yours {
        /// Set when it is to end.
        mark: Option<Mark>,
        /// Whether the store had lost it, or an end of it, and has it again.
        repaired: bool,
    },
    /// The bucket recovers and those that are certain come first: ask again in its second half.
    Later,
    /// It moved to another socket.
    Moved,
    /// It ended; the code when that is still known.
    Gone(Option<EndCode>),
}

/// An order about a session that another node may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// End it, with this code.
    Kick {
        /// The session.
        session: SessionId,
        /// Why.
        code: EndCode,
    },
    /// Its viewer's no to the take-over that asked.
    Refuse(Fence),
}

/// Word of a session without a socket, which no node holds: what keeps it, or ends it. Only who has the session's secret
/// knows its id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Heartbeat {
    /// The session.
    pub session: SessionId,
    /// The device, when the player's token names one; it must be the session's.
    pub device: Option<Box<str>>,
    /// How long it lives from now on without another one.
    pub period: Millis,
    /// What is said.
    pub word: Beat,
    /// What the asking node knows of the session: enough to write it again when the store lost it.
    pub known: Option<Holding>,
}

/// What a heartbeat says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Beat {
    /// It plays.
    Alive {
        /// Position in the content, in milliseconds, when it says one.
        position_ms: Option<u64>,
        /// How it plays, when it says so.
        state: Option<PlayState>,
    },
    /// Nothing was heard: the node compares what it knows.
    Silent,
    /// It ends.
    Stop,
}

/// What became of a session without a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beaten {
    /// It lives.
    Lives {
        /// Its entry, which says until when.
        entry: Box<Entry>,
        /// Slots taken.
        used: u32,
        /// The operators' limit of the account, where there is one.
        limit: Option<u32>,
    },
    /// It ended by this word.
    Stopped,
    /// The bucket recovers, and somebody else may know the session: ask again.
    Later,
    /// It plays on a socket now.
    Moved,
    /// It is another device's.
    Foreign,
    /// It ended.
    Gone {
        /// Why, when that is still known.
        code: Option<EndCode>,
        /// Who took its slot over.
        by: Option<Arc<Device>>,
    },
}

/// What operators decided about an account. It stands above tokens and plans, on every node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Standing {
    /// Whether nobody of the account may play.
    pub blocked: bool,
    /// Slots of the account, whatever its tokens and plans say.
    pub limit: Option<u32>,
}

/// An operator's decision about an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nobody of the account plays or waits any more.
    Block,
    /// They may again.
    Unblock,
    /// So many slots, whatever tokens and plans say; none: as those say.
    Limit {
        /// The number.
        limit: Option<u32>,
        /// Whether sessions beyond it end, the newest first; otherwise it counts for new starts only.
        enforce: bool,
    },
}

/// What a decision came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided {
    /// The account as it stands now.
    pub standing: Standing,
    /// Sessions that it ends.
    pub ended: u32,
}

/// Why the store did not decide. It says nothing about slots (rule 25).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotNow {
    /// The bucket's data were lost, or may be; what is playing is written again until then.
    Recovering {
        /// When the bucket opens.
        until: Millis,
    },
    /// The asking node's own lease in the bucket is not live (rule 4).
    RenewFirst,
}

/// The answer to a renewal: what the node compares with its own memory (rule 12).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// The store's clock.
    pub now: Millis,
    /// The life of the bucket's data.
    pub generation: Generation,
    /// Where the bucket stands.
    pub phase: Phase,
    /// When this lease began; another value than before tells that it had run out meanwhile.
    pub since: Millis,
    /// Entries of this generation that the bucket holds for the node.
    pub count: u32,
    /// The node's sessions that are to end, a bounded number of them.
    pub marked: Vec<(AccountKey, SessionId)>,
    /// Entries that this renewal purged.
    pub purged: u32,
}

/// Where a bucket stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It grants.
    Open,
    /// Its data were lost, or may be. First those sessions that are certain come back,
    First {
        /// until then,
        until: Millis,
        /// and the bucket opens then;
        opens: Millis,
    },
    /// then the doubtful ones.
    Second {
        /// The bucket opens then.
        opens: Millis,
    },
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

    /// Whether it is this session's slot, which no order takes away.
    #[must_use]
    pub fn is_held_by(&self, session: SessionId) -> bool {
        self.session == session && !matches!(self.mark, Some(Mark::Kick(_)))
    }

    /// Whether a session without a socket was silent for too long.
    #[must_use]
    pub fn is_over(&self, now: Millis) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
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

impl Phase {
    /// Whether the bucket does not grant yet.
    #[must_use]
    pub fn recovering(self) -> bool {
        self != Self::Open
    }

    /// When it opens; none when it is open.
    #[must_use]
    pub fn opens(self) -> Option<Millis> {
        match self {
            Self::Open => None,
            Self::First { opens, .. } | Self::Second { opens } => Some(opens),
        }
    }
}

impl Holding {
    /// What a start holds once it is granted.
    #[must_use]
    pub fn new(request: &Acquire, generation: Generation, started_at: Millis) -> Self {
        Self {
            fence: Fence {
                session: request.session,
                owner: request.owner,
                epoch: 1,
            },
            generation,
            limit: request.limit,
            terms: request.terms.clone(),
            device: Arc::clone(&request.device),
            content: Arc::clone(&request.content),
            state: PlayState::default(),
            started_at,
            progress: Progress::default(),
            doubtful: generation == Generation::NONE,
            period: request.period,
        }
    }

    /// What a node holds when it got this entry.
    #[must_use]
    pub fn of(entry: &Entry, limit: u32, terms: Terms) -> Self {
        Self {
            fence: entry.fence(),
            generation: entry.generation,
            limit,
            terms,
            device: Arc::clone(&entry.device),
            content: Arc::clone(&entry.content),
            state: entry.state,
            started_at: entry.started_at,
            progress: entry.progress,
            doubtful: false,
            period: None,
        }
    }

    /// Something that the store holds for a node that does not know it: nothing but the right to end it.
    #[must_use]
    pub fn stranger(fence: Fence) -> Self {
        Self {
            fence,
            generation: Generation::NONE,
            limit: 0,
            terms: Terms::default(),
            device: Arc::new(Device {
                id: "".into(),
                name: None,
                class: None,
                plan: None,
            }),
            content: "".into(),
            state: PlayState::default(),
            started_at: 0,
            progress: Progress::default(),
            doubtful: true,
            period: None,
        }
    }

    /// Whether it was ever granted, by the store or without it: what was not has no beginning.
    #[must_use]
    pub fn was_granted(&self) -> bool {
        self.started_at > 0
    }

    /// The entry that it makes in the store.
    #[must_use]
    pub fn entry(&self, generation: Generation, now: Millis) -> Entry {
        Entry {
            session: self.fence.session,
            owner: self.fence.owner,
            epoch: self.fence.epoch,
            generation,
            device: Arc::clone(&self.device),
            content: Arc::clone(&self.content),
            state: self.state,
            started_at: self.started_at,
            progress: self.progress,
            checkpoint: now,
            attempt: None,
            settles: 0,
            mark: None,
            groups: self.terms.keys(),
            exempt: self.terms.exempt,
            expires: self.period.map(|period| now + period),
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
