//! What the scripts answer: one type for each script, read from JSON, and the model's types made of it.
//!
//! Over 400 lines: the twin of the scripts' outcomes in one place, data without a rule.

use std::sync::Arc;

use serde::Deserialize;

use crate::protocol::client::PlayState;
use crate::protocol::close::EndCode;
use crate::protocol::id::{Attempt, OwnerId};

use super::super::model::{
    Acquired, Beaten, Decided, Device, Entry, Fenced, Generation, Held, Mark, Millis, NotNow, Phase,
    Progress, Refusal, Renewed, Resumed, Standing, Switched,
};
use super::keys;
use super::scripts::{Hex, SessionText};

/// The answer of every script.
#[derive(Deserialize)]
pub(super) struct Reply<T> {
    pub(super) now: Millis,
    #[serde(default)]
    pub(super) late: bool,
    #[serde(default)]
    pub(super) not_now: Option<NotNowText>,
    #[serde(default = "Option::default")]
    pub(super) done: Option<T>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum NotNowText {
    Recovering(Millis),
    RenewFirst,
}

impl From<NotNowText> for NotNow {
    fn from(text: NotNowText) -> Self {
        match text {
            NotNowText::Recovering(until) => Self::Recovering { until },
            NotNowText::RenewFirst => Self::RenewFirst,
        }
    }
}

#[derive(Deserialize)]
pub(super) struct RenewDone {
    generation: Hex,
    second: Millis,
    opens: Millis,
    since: Millis,
    count: u32,
    #[serde(default)]
    marked: Vec<(String, SessionText)>,
    purged: u32,
    /// Facts that the stream lost to its bound, since the bucket was first written.
    pub(super) dropped: u64,
}

impl RenewDone {
    pub(super) fn renewed(self, now: Millis) -> Renewed {
        let phase = if now < self.second {
            Phase::First {
                until: self.second,
                opens: self.opens,
            }
        } else if now < self.opens {
            Phase::Second { opens: self.opens }
        } else {
            Phase::Open
        };
        let marked = self.marked.into_iter();
        Renewed {
            now,
            generation: Generation(self.generation.0),
            phase,
            since: self.since,
            count: self.count,
            marked: marked
                .filter_map(|(account, session)| Some((keys::parse_account(&account)?, session.0)))
                .collect(),
            purged: self.purged,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum AcquireDone {
    Granted {
        used: u32,
        replaced: bool,
        generation: Hex,
        started_at: Millis,
        limit: Option<u32>,
        #[serde(default)]
        shadowed: Vec<Box<str>>,
    },
    Denied {
        refused: bool,
        refusal: RefusalText,
        line_open: bool,
        limit: Option<u32>,
        #[serde(default)]
        holders: Vec<EntryText>,
    },
    Waiting {
        position: u32,
        taking_over: bool,
    },
    Ended(EndCode),
}

impl From<AcquireDone> for Acquired {
    fn from(done: AcquireDone) -> Self {
        match done {
            AcquireDone::Granted {
                used,
                replaced,
                generation,
                started_at,
                limit,
                shadowed,
            } => Self::Granted {
                used,
                replaced,
                generation: Generation(generation.0),
                started_at,
                limit,
                shadowed,
            },
            AcquireDone::Denied {
                refused,
                refusal,
                line_open,
                holders,
                limit,
            } => Self::Denied {
                refused,
                refusal: refusal.into(),
                holders: holders.into_iter().map(Entry::from).collect(),
                line_open,
                limit,
            },
            AcquireDone::Waiting {
                position,
                taking_over,
            } => Self::Waiting {
                position,
                taking_over,
            },
            AcquireDone::Ended(code) => Self::Ended(code),
        }
    }
}

/// The rule that refused.
#[derive(Deserialize)]
pub(super) struct RefusalText {
    rule: Box<str>,
    used: u32,
    limit: u32,
    slots: u32,
    may_take_over: bool,
}

impl From<RefusalText> for Refusal {
    fn from(text: RefusalText) -> Self {
        Self {
            rule: text.rule,
            used: text.used,
            limit: text.limit,
            slots: text.slots,
            may_take_over: text.may_take_over,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SwitchDone {
    Done,
    Refused {
        refusal: RefusalText,
        #[serde(default)]
        holders: Vec<EntryText>,
    },
    NotYours,
    Gone,
}

impl From<SwitchDone> for Switched {
    fn from(done: SwitchDone) -> Self {
        match done {
            SwitchDone::Done => Self::Done,
            SwitchDone::Refused { refusal, holders } => Self::Refused {
                refusal: refusal.into(),
                holders: holders.into_iter().map(Entry::from).collect(),
            },
            SwitchDone::NotYours => Self::NotYours,
            SwitchDone::Gone => Self::Gone,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ResumeDone {
    Moved {
        used: u32,
        entry: Box<EntryText>,
        limit: Option<u32>,
    },
    At {
        epoch: u64,
        device: DeviceText,
    },
    Absent,
}

impl From<ResumeDone> for Resumed {
    fn from(done: ResumeDone) -> Self {
        match done {
            ResumeDone::Moved { used, entry, limit } => Self::Moved {
                entry: (*entry).into(),
                used,
                limit,
            },
            ResumeDone::At { epoch, device } => Self::At {
                epoch,
                device: device.into(),
            },
            ResumeDone::Absent => Self::Absent,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FencedText {
    Done,
    NotYours,
    Gone,
}

impl From<FencedText> for Fenced {
    fn from(text: FencedText) -> Self {
        match text {
            FencedText::Done => Self::Done,
            FencedText::NotYours => Self::NotYours,
            FencedText::Gone => Self::Gone,
        }
    }
}

#[derive(Deserialize)]
pub(super) struct AuditDone {
    pub(super) generation: Hex,
    #[serde(default)]
    pub(super) verdicts: Vec<Verdict>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    Yours { mark: Option<MarkText>, repaired: bool },
    Later,
    Moved,
    Gone { code: Option<EndCode> },
}

impl From<Verdict> for Held {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Yours { mark, repaired } => Self::Yours {
                mark: mark.map(Mark::from),
                repaired,
            },
            Verdict::Later => Self::Later,
            Verdict::Moved => Self::Moved,
            Verdict::Gone { code } => Self::Gone(code),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct BeatDone {
    #[serde(default)]
    pub(super) verdicts: Vec<BeatenText>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum BeatenText {
    Lives {
        entry: Box<EntryText>,
        used: u32,
        limit: Option<u32>,
    },
    Stopped,
    Later,
    Moved,
    Foreign,
    Gone {
        code: Option<EndCode>,
        by: Option<DeviceText>,
    },
}

impl From<BeatenText> for Beaten {
    fn from(text: BeatenText) -> Self {
        match text {
            BeatenText::Lives { entry, used, limit } => Self::Lives {
                entry: Box::new((*entry).into()),
                used,
                limit,
            },
            BeatenText::Stopped => Self::Stopped,
            BeatenText::Later => Self::Later,
            BeatenText::Moved => Self::Moved,
            BeatenText::Foreign => Self::Foreign,
            BeatenText::Gone { code, by } => Self::Gone {
                code,
                by: by.map(Arc::from),
            },
        }
    }
}

#[derive(Clone, Copy, Default, Deserialize)]
pub(super) struct StandingText {
    blocked: bool,
    limit: Option<u32>,
}

impl From<StandingText> for Standing {
    fn from(text: StandingText) -> Self {
        Self {
            blocked: text.blocked,
            limit: text.limit,
        }
    }
}

#[derive(Deserialize)]
pub(super) struct DecideDone {
    standing: StandingText,
    ended: u32,
}

impl From<DecideDone> for Decided {
    fn from(done: DecideDone) -> Self {
        Self {
            standing: done.standing.into(),
            ended: done.ended,
        }
    }
}

/// What `list` answers: a part of it each time.
#[derive(Deserialize)]
pub(super) struct ListDone {
    #[serde(default)]
    pub(super) entries: Vec<EntryText>,
    #[serde(default)]
    pub(super) standing: StandingText,
    #[serde(default)]
    pub(super) lives: bool,
    #[serde(default)]
    pub(super) owned: Vec<(String, SessionText, u64)>,
    #[serde(default)]
    pub(super) accounts: Vec<String>,
    /// Owner, end, last renewal.
    #[serde(default)]
    pub(super) leases: Vec<(Hex, Millis, Millis)>,
    #[serde(default)]
    pub(super) cursor: String,
}

#[derive(Deserialize)]
pub(super) struct DeviceText {
    id: Box<str>,
    name: Option<Box<str>>,
    class: Option<Box<str>>,
    plan: Option<Arc<str>>,
}

impl From<DeviceText> for Arc<Device> {
    fn from(text: DeviceText) -> Self {
        Self::new(Device {
            id: text.id,
            name: text.name,
            class: text.class,
            plan: text.plan,
        })
    }
}

/// An entry as it is stored.
#[derive(Deserialize)]
pub(super) struct EntryText {
    session: SessionText,
    owner: Hex,
    epoch: u64,
    generation: Hex,
    device: DeviceText,
    content: Arc<str>,
    state: PlayState,
    started: Millis,
    position: u64,
    watched: u64,
    checkpoint: Millis,
    attempt: Option<Hex>,
    mark: Option<MarkText>,
    #[serde(default)]
    settles: Millis,
    /// Absent in entries of versions without groups.
    #[serde(default)]
    groups: Vec<Arc<str>>,
    #[serde(default)]
    exempt: bool,
    /// Beside the table, of entries without a socket.
    expires: Option<Millis>,
}

impl From<EntryText> for Entry {
    fn from(text: EntryText) -> Self {
        Self {
            session: text.session.0,
            owner: OwnerId(text.owner.0),
            epoch: text.epoch,
            generation: Generation(text.generation.0),
            device: text.device.into(),
            content: text.content,
            state: text.state,
            started_at: text.started,
            progress: Progress {
                position_ms: text.position,
                watched_ms: text.watched,
            },
            checkpoint: text.checkpoint,
            attempt: text.attempt.map(|attempt| Attempt(attempt.0)),
            mark: text.mark.map(Mark::from),
            settles: text.settles,
            groups: text.groups,
            exempt: text.exempt,
            expires: text.expires,
        }
    }
}

/// A mark as it is stored.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum MarkText {
    Kick {
        kick: EndCode,
    },
    TakeOver {
        by: SessionText,
        device: DeviceText,
        asked: bool,
    },
}

impl From<MarkText> for Mark {
    fn from(text: MarkText) -> Self {
        match text {
            MarkText::Kick { kick } => Self::Kick(kick),
            MarkText::TakeOver { by, device, asked } => Self::TakeOver {
                by: by.0,
                device: device.into(),
                asked,
            },
        }
    }
}
