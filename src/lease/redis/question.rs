//! What the scripts are asked: one type for each script, as JSON. The scripts' headers say what the fields mean.
//!
//! Over 400 lines: one small type for each script, and nothing else.

use serde::Serialize;

use crate::protocol::client::PlayState;
use crate::protocol::close::EndCode;

use super::super::group::{Group, MAX_UNCOUNTED, Measure, Terms};
use super::super::model::{
    Acquire, Beat, Decision, Device, Generation, Heartbeat, Holding, Millis, Order, Resume, Switch, Wish,
};
use super::keys;
use super::scripts::{Hex, SessionText};

/// The largest number that a script writes exactly: cjson keeps 14 significant digits. As milliseconds, 3,168 years.
const MAX_NUMBER: u64 = 99_999_999_999_999;

#[derive(Serialize)]
pub(super) struct RenewAsk {
    pub(super) owner: Hex,
}

#[derive(Serialize)]
pub(super) struct AcquireAsk<'a> {
    account: &'a str,
    session: SessionText,
    owner: Hex,
    device: DeviceAsk<'a>,
    content: &'a str,
    limit: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    terms: Option<TermsAsk<'a>>,
    wish: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    victim: Option<SessionText>,
    consent: bool,
    line: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    period: Option<Millis>,
}

impl<'a> AcquireAsk<'a> {
    pub(super) fn new(account: &'a str, request: &'a Acquire) -> Self {
        let (wish, victim) = match request.wish {
            Wish::Slot => ("slot", None),
            Wish::Wait => ("wait", None),
            Wish::Oldest => ("oldest", None),
            Wish::TakeOver(victim) => ("take_over", Some(SessionText(victim))),
        };
        Self {
            account,
            session: SessionText(request.session),
            owner: Hex(request.owner.0),
            device: DeviceAsk::new(&request.device),
            content: &request.content,
            limit: request.limit,
            terms: TermsAsk::new(&request.terms),
            wish,
            victim,
            consent: request.consent,
            line: request.line,
            period: request.period,
        }
    }
}

#[derive(Serialize)]
pub(super) struct ResumeAsk<'a> {
    account: &'a str,
    session: SessionText,
    expected: u64,
    above: u64,
    owner: Hex,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a str>,
    content: &'a str,
    limit: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    terms: Option<TermsAsk<'a>>,
    attempt: Hex,
}

impl<'a> ResumeAsk<'a> {
    pub(super) fn new(account: &'a str, request: &'a Resume) -> Self {
        Self {
            account,
            session: SessionText(request.session),
            expected: request.expected,
            above: request.above,
            owner: Hex(request.owner.0),
            device: request.device.as_deref(),
            content: &request.content,
            limit: request.limit,
            terms: TermsAsk::new(&request.terms),
            attempt: Hex(request.attempt.0),
        }
    }
}

#[derive(Serialize)]
pub(super) struct SwitchAsk<'a> {
    account: &'a str,
    session: SessionText,
    owner: Hex,
    epoch: u64,
    content: &'a str,
    limit: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    terms: Option<TermsAsk<'a>>,
}

impl<'a> SwitchAsk<'a> {
    pub(super) fn new(account: &'a str, request: &'a Switch) -> Self {
        Self {
            account,
            session: SessionText(request.fence.session),
            owner: Hex(request.fence.owner.0),
            epoch: request.fence.epoch,
            content: &request.content,
            limit: request.limit,
            terms: TermsAsk::new(&request.terms),
        }
    }
}

#[derive(Serialize)]
pub(super) struct ReleaseAsk<'a> {
    pub(super) account: &'a str,
    pub(super) code: EndCode,
    pub(super) holding: HoldingAsk<'a>,
}

#[derive(Serialize)]
pub(super) struct MarkAsk<'a> {
    account: &'a str,
    session: SessionText,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<EndCode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<Hex>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<u64>,
}

impl<'a> MarkAsk<'a> {
    pub(super) fn new(account: &'a str, order: Order) -> Self {
        let (session, code, fence) = match order {
            Order::Kick { session, code } => (session, Some(code), None),
            Order::Refuse(fence) => (fence.session, None, Some(fence)),
        };
        Self {
            account,
            session: SessionText(session),
            code,
            owner: fence.map(|fence| Hex(fence.owner.0)),
            epoch: fence.map(|fence| fence.epoch),
        }
    }
}

#[derive(Serialize)]
pub(super) struct DecideAsk<'a> {
    account: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    blocked: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u32>,
    enforce: bool,
}

impl<'a> DecideAsk<'a> {
    pub(super) fn new(account: &'a str, decision: Decision) -> Self {
        let (blocked, limit, enforce) = match decision {
            Decision::Block => (Some(true), None, false),
            Decision::Unblock => (Some(false), None, false),
            Decision::Limit { limit, enforce } => (None, limit, enforce),
        };
        Self {
            account,
            blocked,
            limit,
            enforce,
        }
    }
}

#[derive(Serialize)]
pub(super) struct AuditAsk<'a> {
    pub(super) sessions: Vec<AuditedSession<'a>>,
}

#[derive(Serialize)]
pub(super) struct AuditedSession<'a> {
    pub(super) account: String,
    pub(super) holding: HoldingAsk<'a>,
}

/// What `beat` is asked.
#[derive(Serialize)]
pub(super) struct BeatAsk<'a> {
    pub(super) beats: Vec<HeartbeatAsk<'a>>,
}

#[derive(Serialize)]
pub(super) struct HeartbeatAsk<'a> {
    account: String,
    session: SessionText,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a str>,
    period: Millis,
    word: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<PlayState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    known: Option<HoldingAsk<'a>>,
}

impl<'a> HeartbeatAsk<'a> {
    pub(super) fn new(account: String, beat: &'a Heartbeat) -> Self {
        let (word, position, state) = match beat.word {
            Beat::Alive { position_ms, state } => ("alive", position_ms, state),
            Beat::Silent => ("silent", None, None),
            Beat::Stop => ("stop", None, None),
        };
        Self {
            account,
            session: SessionText(beat.session),
            device: beat.device.as_deref(),
            period: beat.period,
            word,
            position: position.map(|position| position.min(MAX_NUMBER)),
            state,
            known: beat.known.as_ref().map(HoldingAsk::new),
        }
    }
}

/// What `list` is asked.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum ListAsk<'a> {
    Account {
        account: &'a str,
    },
    Session {
        account: &'a str,
        session: SessionText,
    },
    Owned {
        owner: Hex,
        #[serde(skip_serializing_if = "Option::is_none")]
        after: Option<String>,
        most: u32,
    },
    Accounts {
        cursor: &'a str,
        most: u32,
    },
    Leases {
        leases: bool,
    },
}

/// A holding in a question.
#[derive(Serialize)]
pub(super) struct HoldingAsk<'a> {
    session: SessionText,
    owner: Hex,
    epoch: u64,
    generation: String,
    limit: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    terms: Option<TermsAsk<'a>>,
    device: DeviceAsk<'a>,
    content: &'a str,
    state: PlayState,
    started: Millis,
    position: u64,
    watched: u64,
    doubtful: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    period: Option<Millis>,
}

impl<'a> HoldingAsk<'a> {
    pub(super) fn new(holding: &'a Holding) -> Self {
        let confirmed = holding.generation != Generation::NONE;
        Self {
            session: SessionText(holding.fence.session),
            owner: Hex(holding.fence.owner.0),
            epoch: holding.fence.epoch,
            generation: if confirmed {
                keys::hex(holding.generation.0)
            } else {
                String::new()
            },
            limit: holding.limit,
            terms: TermsAsk::new(&holding.terms),
            device: DeviceAsk::new(&holding.device),
            content: &holding.content,
            state: holding.state,
            started: holding.started_at.min(MAX_NUMBER),
            position: holding.progress.position_ms.min(MAX_NUMBER),
            watched: holding.progress.watched_ms.min(MAX_NUMBER),
            doubtful: holding.doubtful,
            period: holding.period,
        }
    }
}

/// Terms in a question; most sessions have none.
#[derive(Serialize)]
struct TermsAsk<'a> {
    #[serde(skip_serializing_if = "is_false")]
    exempt: bool,
    #[serde(skip_serializing_if = "is_false")]
    shadow: bool,
    #[serde(skip_serializing_if = "is_false")]
    enforce: bool,
    /// Most sessions of the account where its total refuses nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    most: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<GroupAsk<'a>>,
}

#[derive(Serialize)]
struct GroupAsk<'a> {
    key: &'a str,
    limit: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    away: Option<Millis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    known: Option<Millis>,
    #[serde(skip_serializing_if = "is_false")]
    shadow: bool,
    #[serde(skip_serializing_if = "is_false")]
    enforce: bool,
}

impl<'a> TermsAsk<'a> {
    fn new(terms: &'a Terms) -> Option<Self> {
        (!terms.is_plain()).then(|| Self {
            exempt: terms.exempt,
            shadow: terms.shadow,
            enforce: terms.enforce,
            most: (terms.exempt || terms.shadow).then_some(MAX_UNCOUNTED),
            groups: terms.groups.iter().map(GroupAsk::new).collect(),
        })
    }
}

impl<'a> GroupAsk<'a> {
    fn new(group: &'a Group) -> Self {
        let (away, known) = match group.measure {
            Measure::Sessions => (None, None),
            Measure::Away(within) => (Some(within), None),
            Measure::Known(within) => (None, Some(within)),
        };
        Self {
            key: &group.key,
            limit: group.limit,
            away,
            known,
            shadow: group.shadow,
            enforce: group.enforce,
        }
    }
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde asks for"
)]
fn is_false(value: &bool) -> bool {
    !value
}

#[derive(Serialize)]
struct DeviceAsk<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<&'a str>,
}

impl<'a> DeviceAsk<'a> {
    fn new(device: &'a Device) -> Self {
        Self {
            id: &device.id,
            name: device.name.as_deref(),
            class: device.class.as_deref(),
            plan: device.plan.as_deref(),
        }
    }
}
