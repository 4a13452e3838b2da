//! The rules of an account under random histories of three nodes, held against the invariants by name.
//!
//! More than 400 lines: one world, and what each of its steps promises.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::super::bucket::{Lease, Leases};
use super::super::group::{ACCOUNT, Group, Groups, Measure, Terms};
use super::super::model::{
    Acquire, Acquired, Device, EPOCH_FOREVER, Entry, Fence, Fenced, Generation, Held, Holding, Mark, Millis,
    NotNow, Order, Phase, Resume, Resumed, Wish,
};
use super::{Account, Effects, Fact, Ground, Look, TOMBSTONE_MS, WAITER_STALE_MS};
use crate::protocol::close::EndCode;
use crate::protocol::id::{Attempt, OwnerId, SessionId};

const LINE: u32 = 3;
const OWNERS: u64 = 3;
const SESSIONS: u8 = 24;
const DEVICES: u8 = 7;
/// Most sessions of the group that some count in.
const GROUP: u32 = 1;

/// What a new life of the data still has of the one before.
#[derive(Clone, Copy, Debug)]
enum Kept {
    /// All of it.
    All,
    /// What was there at the last snapshot.
    Snapshot,
    /// Nothing.
    Nothing,
}

#[derive(Clone, Debug)]
enum Step {
    /// Each session is started by the node of its number.
    Start {
        session: u8,
        wish: u8,
        consent: bool,
    },
    Resume {
        session: u8,
        owner: u64,
        device: Option<u8>,
        attempt: u64,
        astray: bool,
    },
    Release {
        session: u8,
        owner: u64,
        stale: bool,
    },
    Audit {
        session: u8,
        owner: u64,
        stale: bool,
        doubtful: bool,
    },
    /// Every session that a node holds is audited.
    AuditAll {
        owner: u64,
    },
    Kick {
        session: u8,
    },
    Refuse {
        session: u8,
    },
    Purge,
    Wait {
        ms: u64,
    },
    Lapse {
        owner: u64,
    },
    Renew {
        owner: u64,
    },
    Snapshot,
    /// A new life of the data: the bucket recovers.
    Recover {
        kept: Kept,
    },
    /// The recovery goes on.
    Next,
}

fn step() -> impl Strategy<Value = Step> {
    let session = || 0..SESSIONS;
    let owner = || 0..OWNERS;
    let kept = prop_oneof![Just(Kept::All), Just(Kept::Snapshot), Just(Kept::Nothing)];
    prop_oneof![
        14 => (session(), 0..4u8, any::<bool>())
            .prop_map(|(session, wish, consent)| Step::Start { session, wish, consent }),
        3 => (session(), owner(), proptest::option::of(0..DEVICES), 0..3u64, proptest::bool::weighted(0.2))
            .prop_map(|(session, owner, device, attempt, astray)| Step::Resume {
                session, owner, device, attempt, astray
            }),
        5 => (session(), owner(), proptest::bool::weighted(0.2))
            .prop_map(|(session, owner, stale)| Step::Release { session, owner, stale }),
        3 => (session(), owner(), proptest::bool::weighted(0.3), any::<bool>())
            .prop_map(|(session, owner, stale, doubtful)| Step::Audit { session, owner, stale, doubtful }),
        2 => owner().prop_map(|owner| Step::AuditAll { owner }),
        1 => session().prop_map(|session| Step::Kick { session }),
        1 => session().prop_map(|session| Step::Refuse { session }),
        1 => Just(Step::Purge),
        2 => (1..40_000u64).prop_map(|ms| Step::Wait { ms }),
        1 => owner().prop_map(|owner| Step::Lapse { owner }),
        2 => owner().prop_map(|owner| Step::Renew { owner }),
        1 => Just(Step::Snapshot),
        1 => kept.prop_map(|kept| Step::Recover { kept }),
        3 => Just(Step::Next),
    ]
}

fn id(session: u8) -> SessionId {
    SessionId::from_bytes([session; 16])
}

/// Who holds what. Any step may withdraw the question of a newcomer that is gone.
fn fences(entries: &[Entry]) -> Vec<Fence> {
    entries.iter().map(Entry::fence).collect()
}

fn device(number: u8) -> Arc<Device> {
    Arc::new(Device {
        id: format!("d{number}").into(),
        name: None,
        class: None,
        plan: None,
    })
}

/// The node that starts the session; others may resume it.
fn home(session: u8) -> OwnerId {
    OwnerId(u64::from(session) % OWNERS)
}

fn number(session: SessionId) -> u8 {
    (0..=u8::MAX).find(|number| id(*number) == session).unwrap()
}

/// A session keeps its device and limit for life; a device may have several sessions.
fn limit(session: SessionId) -> u32 {
    u32::from(number(session) / 2 % 5)
}

/// One session in three counts in a group of its own beside the total.
fn terms(session: SessionId) -> Terms {
    let grouped = (0..SESSIONS).any(|number| number % 3 == 0 && id(number) == session);
    let group = Group {
        key: "tag/x".into(),
        limit: GROUP,
        measure: Measure::Sessions,
        shadow: false,
        enforce: false,
    };
    Terms {
        groups: if grouped {
            vec![group].into()
        } else {
            Groups::default()
        },
        ..Terms::default()
    }
}

fn is_grouped(session: SessionId) -> bool {
    terms(session).groups.iter().len() > 0
}

fn acquire(session: u8, owner: OwnerId, limit: u32, wish: Wish) -> Acquire {
    Acquire {
        session: id(session),
        owner,
        device: device(session % DEVICES),
        content: "m".into(),
        limit,
        terms: terms(id(session)),
        wish,
        consent: false,
        line: LINE,
        period: None,
    }
}

/// An end that the account must remember.
#[derive(Clone, Copy, Debug)]
struct Buried {
    epoch: u64,
    until: Millis,
}

/// An end that was told.
#[derive(Clone, Copy, Debug)]
struct Told {
    session: SessionId,
    epoch: u64,
    generation: Generation,
    at: Millis,
}

/// An account, the nodes that have sessions in it, and what was told of them.
#[derive(Clone)]
struct World {
    account: Account,
    leases: Leases,
    now: Millis,
    generation: Generation,
    phase: Phase,
    /// What each node believes to hold: it forgets nothing before it is told.
    held: BTreeMap<(OwnerId, SessionId), Holding>,
    snapshot: (Account, BTreeMap<SessionId, Buried>),
    started: BTreeSet<SessionId>,
    ended: Vec<Told>,
    buried: BTreeMap<SessionId, Buried>,
    /// The data lost them, and no node knows them (rule 9): nobody can tell their end.
    lost: BTreeSet<SessionId>,
    /// Ended by their nodes before they knew of a grant: they do not start later.
    closed: BTreeSet<SessionId>,
    /// Slots became free while nobody could be granted any.
    unsettled: bool,
}

impl World {
    fn new() -> Self {
        let lease = Lease {
            until: Millis::MAX,
            since: 0,
            renewed: 0,
        };
        Self {
            account: Account::default(),
            leases: (0..OWNERS).map(|owner| (OwnerId(owner), lease)).collect(),
            now: 1_000_000,
            generation: Generation(1),
            phase: Phase::Open,
            held: BTreeMap::new(),
            snapshot: Default::default(),
            started: BTreeSet::new(),
            ended: Vec::new(),
            buried: BTreeMap::new(),
            lost: BTreeSet::new(),
            closed: BTreeSet::new(),
            unsettled: false,
        }
    }

    fn entry(&self, session: SessionId) -> Option<&Entry> {
        self.account.entry(session)
    }

    fn live(&self, owner: OwnerId) -> bool {
        self.leases[&owner].until > self.now
    }

    fn is_buried(&self, session: SessionId) -> bool {
        self.buried
            .get(&session)
            .is_some_and(|buried| buried.until > self.now)
    }

    /// Whether it ended in some life of the data: no node starts it again.
    fn is_over(&self, session: SessionId) -> bool {
        self.ended.iter().any(|told| told.session == session)
    }

    /// Does one step of the rules, and checks what every step promises. `asker`: whose session it is about.
    fn act<T>(
        &mut self,
        asker: Option<SessionId>,
        rule: impl FnOnce(&mut Account, &Ground<'_>, &mut Effects) -> T,
    ) -> T {
        let before = self.account.entries.clone();
        let mut effects = Effects::default();
        let ground = Ground {
            now: self.now,
            generation: self.generation,
            phase: self.phase,
            leases: &self.leases,
        };
        let answer = rule(&mut self.account, &ground, &mut effects);
        self.check_facts(asker, &before, &effects);
        self.check_looks(asker, &before, &effects.looks);
        answer
    }

    /// Every entry that came or went did so by a fact, but for those that their node wrote again; every grant was
    /// within its limit when it was made (I1), under a living node (rule 4), and of nobody who was served (rule 18).
    fn check_facts(&mut self, asker: Option<SessionId>, before: &[Entry], effects: &Effects) {
        let mut playing: Vec<SessionId> = before.iter().map(|entry| entry.session).collect();
        let mut replaced: Option<&Entry> = None;
        for fact in &effects.facts {
            match fact {
                Fact::Started(entry) => {
                    let session = entry.session;
                    let limit = limit(session) as usize;
                    let takes_over = replaced.is_some_and(|old| old.device.id == entry.device.id);
                    // In a recovery those that were not written again do not count (rule 3).
                    let unproven = |entry: &&Entry| {
                        self.phase.recovering()
                            && entry.generation != self.generation
                            && playing.contains(&entry.session)
                    };
                    let used = playing.len() - before.iter().filter(unproven).count();
                    assert!(used < limit || takes_over, "I1: {} of {limit}", used + 1);
                    let stale: Vec<_> = before
                        .iter()
                        .filter(unproven)
                        .map(|entry| entry.session)
                        .collect();
                    let of_group = playing
                        .iter()
                        .filter(|one| is_grouped(**one) && !stale.contains(one));
                    assert_eq!(entry.groups, terms(session).keys());
                    assert!(
                        !is_grouped(session) || of_group.count() < GROUP as usize,
                        "I1: beyond the limit of its group"
                    );
                    assert!(self.live(entry.owner), "granted under a dead node (rules 4, 18)");
                    assert!(!playing.contains(&session), "rule 18: it plays already");
                    assert!(!self.is_buried(session), "rule 18: it has ended");
                    assert!(
                        !self.phase.recovering() || asker == Some(session),
                        "handed over in a recovery"
                    );
                    assert_eq!(
                        (entry.epoch, entry.generation),
                        (1.max(entry.epoch), self.generation)
                    );
                    playing.push(session);
                    self.started.insert(session);
                    replaced = None;
                }
                Fact::Ended { entry, code, at } => {
                    playing.retain(|session| *session != entry.session);
                    replaced = (*code == EndCode::Moved).then_some(entry);
                    self.hear_end(entry, *at);
                }
            }
        }
        for entry in self.account.entries.clone() {
            self.lost.remove(&entry.session);
            if !playing.contains(&entry.session) {
                assert_eq!(asker, Some(entry.session), "came without a fact");
                playing.push(entry.session);
            }
        }
        assert_eq!(playing.len(), self.account.entries.len(), "went without a fact");
    }

    /// I5: an end is told once in each life of the data; again only for a higher epoch, whose node was right.
    fn hear_end(&mut self, entry: &Entry, at: Millis) {
        assert!(at <= self.now);
        let played = at.saturating_sub(entry.started_at);
        assert!(entry.progress.watched_ms <= played, "watched more than it played");
        for told in &self.ended {
            let again = told.session == entry.session && told.generation == self.generation;
            // What is remembered for a minute may be told again after it.
            let forgotten = told.at + TOMBSTONE_MS <= self.now;
            assert!(
                !again || told.epoch < entry.epoch || forgotten,
                "I5: {entry:?} ended twice: {told:?}"
            );
        }
        self.ended.push(Told {
            session: entry.session,
            epoch: entry.epoch,
            generation: self.generation,
            at: self.now,
        });
        self.lost.remove(&entry.session);
        let kicked = matches!(entry.mark, Some(Mark::Kick(_)));
        let epoch = if kicked { EPOCH_FOREVER } else { entry.epoch };
        let (now, until) = (self.now, self.now + TOMBSTONE_MS);
        let buried = self
            .buried
            .entry(entry.session)
            .or_insert(Buried { epoch: 0, until });
        if buried.until <= now {
            *buried = Buried { epoch: 0, until };
        }
        if epoch > buried.epoch {
            *buried = Buried { epoch, until };
        }
    }

    /// Whoever must know is told.
    fn check_looks(&self, asker: Option<SessionId>, before: &[Entry], looks: &[Look]) {
        let told = |entry: &Entry| {
            looks
                .iter()
                .any(|look| look.session == entry.session && look.owner == entry.owner)
        };
        for entry in &self.account.entries {
            let old = before.iter().find(|old| old.session == entry.session);
            assert!(
                old.is_some() || asker == Some(entry.session) || told(entry),
                "a waiter that got the slot is told"
            );
            let marked = entry.mark.is_some() && old.is_some_and(|old| old.mark != entry.mark);
            assert!(
                !marked || told(entry) || asker == Some(entry.session),
                "a victim is told"
            );
        }
    }

    /// Whether a session counts in the group and has no place in it: others of other devices have all.
    fn is_group_full(&self, session: SessionId) -> bool {
        let number = (0..SESSIONS).find(|number| id(*number) == session);
        let own = device(number.unwrap() % DEVICES);
        let others = self
            .account
            .entries
            .iter()
            .filter(|entry| entry.device.id != own.id);
        let others = others.filter(|entry| is_grouped(entry.session)).count();
        is_grouped(session) && others >= GROUP as usize
    }

    /// What is true between any two steps.
    fn check(&self) {
        let entries = &self.account.entries;
        let sessions: HashSet<_> = entries.iter().map(|entry| entry.session).collect();
        assert_eq!(sessions.len(), entries.len(), "a session is counted once");
        let mut devices = HashSet::new();
        for entry in entries.iter().filter(|entry| entry.generation == self.generation) {
            assert!(devices.insert(&entry.device.id), "a device holds one slot");
        }
        let mut patient = 0;
        for waiter in &self.account.line {
            assert!(!sessions.contains(&waiter.session), "no waiter plays");
            let living = self.live(waiter.owner) && waiter.refreshed + WAITER_STALE_MS > self.now;
            assert!(
                waiter.refused
                    || !living
                    || self.phase.recovering()
                    || self.unsettled
                    || entries.len() >= waiter.limit as usize
                    || self.is_group_full(waiter.session),
                "rule 20: a slot idles past a waiter"
            );
            patient += u32::from(waiter.victim.is_none());
        }
        assert!(patient <= LINE, "the line is bounded");
        let mut takers = HashSet::new();
        for entry in entries {
            if let Some(Mark::TakeOver { by, .. }) = &entry.mark {
                assert!(
                    takers.insert(*by),
                    "rule 19: one newcomer never marks two victims"
                );
            }
            if self.is_buried(entry.session) {
                let buried = self.buried[&entry.session];
                assert!(
                    entry.epoch > buried.epoch,
                    "rule 8: {entry:?} came back under {buried:?}"
                );
            }
            // I5: never told to have ended while it plays.
            let told = |told: &&Told| told.session == entry.session && told.generation == self.generation;
            for told in self.ended.iter().filter(told) {
                let forgotten = told.at + TOMBSTONE_MS <= self.now;
                assert!(
                    told.epoch < entry.epoch || forgotten,
                    "I5: {entry:?} has ended: {told:?}"
                );
            }
        }
        for session in &self.started {
            assert!(
                sessions.contains(session) || self.is_over(*session) || self.is_known_lost(*session),
                "I5: {session} is gone and its end was not told"
            );
        }
    }

    /// Lost by the data; its node, if there is one, has yet to tell its end.
    fn is_known_lost(&self, session: SessionId) -> bool {
        self.lost.contains(&session) || self.held.keys().any(|(_, held)| *held == session)
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Start {
                session,
                wish,
                consent,
            } => self.start(session, wish, consent),
            Step::Resume {
                session,
                owner,
                ref device,
                attempt,
                astray,
            } => self.resume(id(session), OwnerId(owner), *device, attempt, astray),
            Step::Release {
                session,
                owner,
                stale,
            } => self.release(id(session), OwnerId(owner), stale),
            Step::Audit {
                session,
                owner,
                stale,
                doubtful,
            } => self.audit(session, OwnerId(owner), stale, doubtful),
            Step::AuditAll { owner } => {
                let held: Vec<_> = self
                    .held
                    .keys()
                    .filter(|key| key.0 == OwnerId(owner))
                    .copied()
                    .collect();
                for (owner, session) in held {
                    let holding = self.held[&(owner, session)].clone();
                    let _ = self.audit_one(&holding);
                }
            }
            Step::Kick { session } => self.kick(id(session)),
            Step::Refuse { session } => {
                if let Some(fence) = self.entry(id(session)).map(Entry::fence) {
                    let answer = self.act(None, |account, ground, effects| {
                        account.order(Order::Refuse(fence), ground, effects)
                    });
                    assert_ne!(answer, Ok(Fenced::NotYours));
                }
            }
            Step::Purge => self.purge(),
            Step::Wait { ms } => self.now += ms,
            Step::Lapse { owner } => self.leases.get_mut(&OwnerId(owner)).unwrap().until = self.now,
            Step::Renew { owner } => {
                let now = self.now;
                let lease = self.leases.get_mut(&OwnerId(owner)).unwrap();
                (lease.until, lease.renewed) = (Millis::MAX, now);
            }
            Step::Snapshot => self.snapshot = (self.account.clone(), self.buried.clone()),
            Step::Recover { kept } => self.recover(kept),
            Step::Next => {
                let opens = self.now + 1;
                self.phase = match self.phase {
                    Phase::First { .. } => Phase::Second { opens },
                    Phase::Second { .. } | Phase::Open => Phase::Open,
                };
            }
        }
        self.unsettled |= self.phase.recovering();
    }

    fn start(&mut self, session: u8, wish: u8, consent: bool) {
        let owner = home(session);
        let wish = [
            Wish::Slot,
            Wish::Wait,
            Wish::Oldest,
            Wish::TakeOver(id(session ^ 1)),
        ][wish as usize];
        let limit = limit(id(session));
        let request = Acquire {
            consent,
            ..acquire(session, owner, limit, wish)
        };
        let session = id(session);
        // A node repeats the start of what it has only while the answer may be on its way.
        let had = self.held.contains_key(&(owner, session)) && self.entry(session).is_none();
        let over = self.is_over(session) || self.closed.contains(&session);
        if had || (over && self.account.tombstone(session).is_none()) {
            return;
        }
        let before = self.account.entries.clone();
        let old = before.iter().find(|entry| entry.session == session);
        let answer = self.act(Some(session), |account, ground, effects| {
            account.acquire(&request, ground, effects)
        });
        if self.is_buried(session) && old.is_none() {
            assert!(matches!(answer, Ok(Acquired::Ended(_))), "rule 11: {answer:?}");
        }
        let (live, recovering) = (self.live(owner), self.phase.recovering());
        match answer {
            Ok(Acquired::Granted {
                used,
                replaced,
                generation,
                started_at,
                ref shadowed,
                ..
            }) => {
                assert!(shadowed.is_empty());
                let entry = self.entry(session).unwrap().clone();
                assert_eq!(used as usize, self.account.entries.len());
                assert_eq!((generation, started_at), (entry.generation, entry.started_at));
                assert!(live && entry.owner == owner, "rule 4");
                assert!(old.is_some() || !recovering, "granted in a recovery");
                assert!(
                    !replaced || old.is_none(),
                    "its own session is not its earlier one"
                );
                assert_eq!(generation, self.generation, "rule 3: an old entry proves nothing");
                self.held
                    .insert((owner, session), Holding::of(&entry, limit, terms(session)));
                self.unsettled &= old.is_some();
            }
            Ok(Acquired::Denied {
                ref refusal,
                ref holders,
                ..
            }) => {
                assert!(live && !recovering, "rules 4 and 25: it cannot judge");
                let of_account = *refusal.rule == *ACCOUNT;
                assert_eq!(refusal.limit, if of_account { limit } else { GROUP });
                assert!(
                    holders.len() >= refusal.limit as usize,
                    "I2: {} of {limit}",
                    holders.len()
                );
                assert!(
                    of_account || holders.iter().all(|holder| is_grouped(holder.session)),
                    "only its own holders are told"
                );
                for holder in holders {
                    let proven = holder.generation == self.generation && self.live(holder.owner);
                    assert!(proven, "I2: refused for the dead: {holder:?}");
                }
                let waits = self.account.line.iter().any(|waiter| waiter.session == session);
                assert!(!waits, "the refused does not stand in the line");
                self.unsettled = false;
            }
            Ok(Acquired::Waiting { position, .. }) => {
                assert!(live && !recovering && position >= 1);
                assert!(
                    self.account.entries.len() >= limit as usize || self.is_group_full(session),
                    "I2: it waits for nothing"
                );
                self.unsettled = false;
            }
            Ok(Acquired::Ended(_)) => {
                let elsewhere = old.is_some_and(|entry| entry.owner != owner);
                assert!(
                    elsewhere || self.account.tombstone(session).is_some(),
                    "it had not ended"
                );
            }
            Err(NotNow::RenewFirst) => assert!(!live),
            Err(NotNow::Recovering { .. }) => assert!(recovering),
        }
        if answer.is_err() {
            assert_eq!(fences(&self.account.entries), fences(&before), "nothing was done");
        }
    }

    fn resume(&mut self, session: SessionId, owner: OwnerId, device: Option<u8>, attempt: u64, astray: bool) {
        let before = self.account.entries.clone();
        let old = before.iter().find(|entry| entry.session == session);
        let request = Resume {
            session,
            expected: old.map_or(1, |entry| entry.epoch) + u64::from(astray),
            above: self
                .held
                .get(&(owner, session))
                .map_or(0, |held| held.fence.epoch),
            owner,
            device: device.map(|number| format!("d{number}").into()),
            content: "m2".into(),
            limit: 3,
            terms: terms(session),
            attempt: Attempt(attempt),
        };
        let answer = self.act(Some(session), |account, ground, effects| {
            account.resume(&request, ground, effects)
        });
        match answer {
            Ok(Resumed::Moved { entry, used, .. }) => {
                let old = old.unwrap();
                let repeated = old.attempt == Some(request.attempt) && old.owner == owner;
                assert_eq!(
                    entry.epoch,
                    if repeated {
                        old.epoch
                    } else {
                        old.epoch.max(request.above) + 1
                    },
                    "a move is one epoch, above what its node knows; a repeat none"
                );
                assert!(self.live(owner), "rule 4");
                assert!(repeated || !astray, "rule 15: moved from another epoch");
                assert!(entry.generation == self.generation || repeated, "rule 3");
                assert!(
                    old.generation == self.generation,
                    "rule 3: an old entry proves nothing to a resume"
                );
                assert_eq!(used as usize, before.len());
                assert_eq!(self.account.entries.len(), before.len(), "never counted twice");
                if !repeated {
                    let stale = Holding::of(old, limit(session), terms(session));
                    if self.live(old.owner) {
                        assert_eq!(self.audit_one(&stale), Ok(Held::Moved), "I4");
                    }
                }
                self.held.insert(
                    (owner, session),
                    Holding::of(&entry, limit(session), terms(session)),
                );
            }
            Ok(Resumed::At { epoch, .. }) => {
                assert!(astray && old.is_some_and(|old| old.epoch == epoch));
                assert_eq!(
                    fences(&self.account.entries),
                    fences(&before),
                    "rule 15: it moves nothing"
                );
            }
            Ok(Resumed::Absent) => {}
            Err(NotNow::RenewFirst) => assert!(!self.live(owner)),
            Err(NotNow::Recovering { .. }) => assert!(self.phase.recovering()),
        }
    }

    /// The end of what a node holds; of what it only waits for, or does not know, when it holds nothing.
    fn release(&mut self, session: SessionId, owner: OwnerId, stale: bool) {
        let unknown = Fence {
            session,
            owner,
            epoch: 1,
        };
        let held = self.held.get(&(owner, session)).cloned();
        let waits = self
            .account
            .line
            .iter()
            .any(|w| w.session == session && w.owner == owner);
        let own = self.entry(session).is_some_and(|entry| entry.owner == owner);
        if held.is_none() && !waits && !own {
            // A node ends only what it had; or what it asked for, before it heard of it.
            if self.started.contains(&session) || owner != home(number(session)) {
                return;
            }
        }
        if held.is_none() {
            self.closed.insert(session);
        }
        let mut holding = held.unwrap_or_else(|| Holding::stranger(unknown));
        let stale = stale && holding.fence.epoch > 1;
        holding.fence.epoch -= u64::from(stale);
        self.release_one(&holding);
        if !stale {
            self.held.remove(&(owner, session));
        }
    }

    fn release_one(&mut self, holding: &Holding) {
        let (session, fence) = (holding.fence.session, holding.fence);
        let old = self.entry(session).cloned();
        let answer = self.act(Some(session), |account, ground, effects| {
            account.release(holding, EndCode::Stopped, ground, effects)
        });
        match old {
            Some(old) if fence.holds(&old) || old.epoch < fence.epoch => {
                assert_eq!(answer, Fenced::Done);
                assert_eq!(self.entry(session), None);
            }
            Some(old) => {
                assert_eq!(answer, Fenced::NotYours, "I4");
                // But for the mark of a taker that has stopped asking meanwhile.
                let unmarked = |entry: &Entry| Entry {
                    mark: None,
                    ..entry.clone()
                };
                assert_eq!(self.entry(session).map(unmarked), Some(unmarked(&old)), "I4");
            }
            None => {
                assert_ne!(answer, Fenced::NotYours);
                assert!(self.account.tombstone(session).is_some(), "rule 11");
            }
        }
    }

    fn audit(&mut self, session: u8, owner: OwnerId, stale: bool, doubtful: bool) {
        let held = self.held.get(&(owner, id(session))).cloned();
        let mut holding = if let Some(held) = held {
            held
        } else {
            let waits = self
                .account
                .line
                .iter()
                .any(|waiter| waiter.session == id(session));
            let known = self.is_over(id(session))
                || self.closed.contains(&id(session))
                || self.started.contains(&id(session));
            if waits || known || owner != home(session) {
                return;
            }
            // Granted without the store.
            let request = acquire(session, owner, limit(id(session)), Wish::Slot);
            let holding = Holding::new(&request, Generation::NONE, self.now);
            self.held.insert((owner, id(session)), holding.clone());
            holding
        };
        holding.doubtful |= doubtful && holding.generation != self.generation;
        if stale && holding.fence.epoch > 1 {
            holding.fence.epoch -= 1;
            let before = self.account.entries.clone();
            let newer = before.iter().any(|entry| {
                entry.session == id(session)
                    && entry.epoch > holding.fence.epoch
                    && entry.generation == self.generation
            });
            let answer = self.act(Some(id(session)), |account, ground, effects| {
                account.audit(&holding, ground, effects)
            });
            if newer && self.live(owner) {
                assert_eq!(answer, Ok(Held::Moved), "I4");
                assert_eq!(fences(&self.account.entries), fences(&before), "I4");
            }
            return;
        }
        let _ = self.audit_one(&holding);
    }

    fn audit_one(&mut self, holding: &Holding) -> Result<Held, NotNow> {
        let (session, fence) = (holding.fence.session, holding.fence);
        let before = self.account.entries.clone();
        let old = before.iter().find(|entry| entry.session == session);
        let answer = self.act(Some(session), |account, ground, effects| {
            account.audit(holding, ground, effects)
        });
        let own = self
            .held
            .get(&(fence.owner, session))
            .is_some_and(|held| held.fence == fence);
        match &answer {
            Ok(Held::Yours { mark, repaired }) => {
                assert!(self.live(fence.owner), "rule 4");
                let entry = self.entry(session).unwrap();
                assert_eq!((entry.fence(), entry.generation), (fence, self.generation));
                assert_eq!(&entry.mark, mark);
                assert!(old.is_none_or(|old| old.epoch <= fence.epoch), "I4");
                let was = old.is_some_and(|old| fence.holds(old) && old.generation == self.generation);
                assert_eq!(*repaired, !was);
                if *repaired {
                    self.check_repair(holding, old, &before);
                }
                if own {
                    self.held.get_mut(&(fence.owner, session)).unwrap().generation = self.generation;
                }
            }
            Ok(Held::Later) => {
                assert!(
                    matches!(self.phase, Phase::First { .. }) && holding.doubtful,
                    "rule 5"
                );
                assert_eq!(fences(&self.account.entries), fences(&before));
            }
            Ok(Held::Moved) => {
                let old = old.unwrap();
                assert!(
                    old.epoch >= fence.epoch && old.fence() != fence,
                    "it did not move"
                );
                assert_eq!(fences(&self.account.entries), fences(&before));
            }
            Ok(Held::Gone(code)) => {
                assert_eq!(
                    self.entry(session).filter(|entry| entry.epoch <= fence.epoch),
                    None
                );
                let confirmed = holding.generation == self.generation;
                assert!(
                    code.is_some() || confirmed,
                    "rule 7: only the same life of the data says that"
                );
            }
            Err(reason) => {
                assert_eq!((*reason, self.live(fence.owner)), (NotNow::RenewFirst, false));
                assert_eq!(fences(&self.account.entries), fences(&before));
            }
        }
        if own && matches!(answer, Ok(Held::Moved | Held::Gone(_))) {
            self.held.remove(&(fence.owner, session));
        }
        answer
    }

    /// Rules 5 and 6: the firm come back in any case, the doubtful and the late only below the limit.
    fn check_repair(&mut self, holding: &Holding, old: Option<&Entry>, before: &[Entry]) {
        let session = holding.fence.session;
        assert!(
            old.is_some() || holding.generation != self.generation,
            "rule 7: absent in its own life is lost"
        );
        let proven = |entry: &&Entry| {
            let counts = !self.phase.recovering() || entry.generation == self.generation;
            // Who came from the line did so after it, when its device had held more than one slot.
            let waited = !before.iter().any(|one| one.session == entry.session);
            entry.session != session && counts && !waited
        };
        let others = self.account.entries.iter().filter(proven).count();
        let of_group = self.account.entries.iter().filter(proven);
        let of_group = of_group.filter(|entry| is_grouped(entry.session)).count();
        let firm_first = matches!(self.phase, Phase::First { .. }) && !holding.doubtful;
        let present = old.is_some_and(|old| old.generation == self.generation);
        assert!(
            firm_first || present || others < limit(session) as usize,
            "I1: written again at the limit"
        );
        assert!(
            firm_first || present || !is_grouped(session) || of_group < GROUP as usize,
            "I1: written again at the limit of its group"
        );
    }

    fn kick(&mut self, session: SessionId) {
        let known = self.entry(session).is_some();
        let code = EndCode::EndedByOperator;
        let answer = self.act(None, |account, ground, effects| {
            account.order(Order::Kick { session, code }, ground, effects)
        });
        match answer {
            Ok(Fenced::Done) => assert!(matches!(self.entry(session).unwrap().mark, Some(Mark::Kick(_)))),
            Ok(Fenced::Gone) => assert!(!known),
            Ok(Fenced::NotYours) => panic!("an order has no fence"),
            Err(_) => assert!(!known && self.phase.recovering()),
        }
    }

    fn purge(&mut self) {
        let before = self.account.entries.len();
        let purged = self.act(None, |account, ground, effects| {
            if account.needs_upkeep(ground) {
                account.purge(ground, effects)
            } else {
                0
            }
        });
        if self.phase.recovering() {
            assert_eq!((purged, self.account.entries.len()), (0, before), "rule 1");
        } else {
            for entry in &self.account.entries {
                let proven = entry.generation == self.generation;
                assert!(proven && self.live(entry.owner), "rules 3 and 13: {entry:?}");
            }
        }
        for waiter in &self.account.line {
            assert!(waiter.refreshed + WAITER_STALE_MS > self.now, "rule 17");
            assert!(self.phase.recovering() || self.live(waiter.owner), "rule 13");
        }
        self.unsettled &= purged == 0;
    }

    fn recover(&mut self, kept: Kept) {
        let before = self.account.entries.clone();
        match kept {
            Kept::All => {}
            Kept::Snapshot => (self.account, self.buried) = self.snapshot.clone(),
            Kept::Nothing => (self.account, self.buried) = Default::default(),
        }
        for entry in before {
            let known = self.held.keys().any(|(_, session)| *session == entry.session);
            if self.entry(entry.session).is_none() && !known {
                self.lost.insert(entry.session);
            }
        }
        self.generation = Generation(self.generation.0 + 1);
        self.phase = Phase::First {
            until: self.now + 1,
            opens: self.now + 2,
        };
        for lease in self.leases.values_mut() {
            lease.until = Millis::MAX;
        }
    }

    /// Everybody comes back, and everything ends.
    fn finish(mut self) {
        self.phase = Phase::Open;
        for owner in 0..OWNERS {
            self.run(&Step::Renew { owner });
            self.run(&Step::AuditAll { owner });
            self.check();
        }
        self.run(&Step::Purge);
        self.check();
        for key in self.held.keys().copied().collect::<Vec<_>>() {
            self.release(key.1, key.0, false);
        }
        // Whoever waited plays now, until all have ended; then nothing is left to leak.
        while let Some(fence) = self.account.entries.first().map(Entry::fence) {
            self.release_one(&Holding::stranger(fence));
        }
        self.check();
        for session in &self.started {
            let told = self.is_over(*session) || self.lost.contains(session);
            assert!(told, "I5: the end of {session} was never told");
        }
        self.now += 100_000;
        self.purge();
        assert!(self.account.is_empty());
    }
}

/// So many cases, unless the environment asks for another number (`PROPTEST_CASES`).
fn few_or(cases: u32) -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(cases),
    }
}

proptest! {
    #![proptest_config(few_or(6_000))]
    #[test]
    fn invariants_hold_in_every_history(steps in proptest::collection::vec(step(), 1..80)) {
        let mut world = World::new();
        for step in &steps {
            world.run(step);
            world.check();
            world.now += 1;
        }
        world.finish();
    }
}

/// One node at an account, in one life of the data.
struct Table {
    account: Account,
    leases: Leases,
    now: Millis,
}

const OWNER: OwnerId = OwnerId(1);

impl Table {
    fn new() -> Self {
        let lease = Lease {
            until: Millis::MAX,
            since: 0,
            renewed: 0,
        };
        Self {
            account: Account::default(),
            leases: Leases::from([(OWNER, lease)]),
            now: 10,
        }
    }

    /// Three devices play, at a limit of three.
    fn full() -> Self {
        let mut table = Self::new();
        for number in 0..3 {
            table.now = u64::from(number);
            let answer = table.acquire(&acquire(number, OWNER, 3, Wish::Slot));
            assert!(matches!(answer, Acquired::Granted { .. }));
        }
        table.now = 10;
        table
    }

    fn act<T>(&mut self, rule: impl FnOnce(&mut Account, &Ground<'_>, &mut Effects) -> T) -> (T, Effects) {
        let ground = Ground {
            now: self.now,
            generation: Generation(1),
            phase: Phase::Open,
            leases: &self.leases,
        };
        let mut effects = Effects::default();
        (rule(&mut self.account, &ground, &mut effects), effects)
    }

    fn acquire(&mut self, request: &Acquire) -> Acquired {
        self.act(|account, ground, effects| account.acquire(request, ground, effects))
            .0
            .unwrap()
    }

    fn release(&mut self, session: u8) -> (Fenced, Vec<Look>) {
        let fence = Fence {
            session: id(session),
            owner: OWNER,
            epoch: 1,
        };
        let (answer, effects) = self.act(|account, ground, effects| {
            account.release(&Holding::stranger(fence), EndCode::Stopped, ground, effects)
        });
        (answer, effects.looks)
    }
}

#[test]
fn the_line_is_first_come_first_served_and_takers_stand_before_it() {
    let mut table = Table::full();
    for number in 3..6 {
        let answer = table.acquire(&acquire(number, OWNER, 3, Wish::Wait));
        assert_eq!(
            answer,
            Acquired::Waiting {
                position: u32::from(number) - 2,
                taking_over: false
            }
        );
    }
    let late = table.acquire(&acquire(6, OWNER, 3, Wish::Wait));
    assert!(matches!(late, Acquired::Denied { line_open: false, .. }));
    let taker = Acquire {
        device: device(99),
        ..acquire(7, OWNER, 3, Wish::Oldest)
    };
    assert_eq!(
        table.acquire(&taker),
        Acquired::Waiting {
            position: 1,
            taking_over: true
        }
    );
    let order = [0, 1, 2].map(|session| table.release(session).1[0].session);
    assert_eq!(order, [id(7), id(3), id(4)]);
}

#[test]
fn a_repeated_take_over_marks_one_victim_and_a_second_taker_is_denied() {
    let mut table = Table::full();
    for _ in 0..3 {
        table.acquire(&acquire(5, OWNER, 3, Wish::Oldest));
    }
    let marked = table.account.entries.iter().filter(|entry| entry.mark.is_some());
    assert_eq!(marked.count(), 1);
    let second = table.acquire(&acquire(6, OWNER, 3, Wish::TakeOver(id(0))));
    assert!(matches!(second, Acquired::Denied { .. }));
}

#[test]
fn a_release_before_its_acquire_wins() {
    let mut table = Table::new();
    assert_eq!(table.release(1).0, Fenced::Gone);
    let late = table.acquire(&acquire(1, OWNER, 3, Wish::Slot));
    assert_eq!(late, Acquired::Ended(EndCode::Stopped));
}

#[test]
fn a_no_is_told_to_the_taker_and_takes_nothing() {
    let mut table = Table::full();
    let ask = Acquire {
        consent: true,
        ..acquire(5, OWNER, 3, Wish::TakeOver(id(1)))
    };
    table.acquire(&ask);
    let victim = table.account.entries[1].fence();
    let (answer, effects) =
        table.act(|account, ground, effects| account.order(Order::Refuse(victim), ground, effects));
    assert_eq!(answer, Ok(Fenced::Done));
    assert_eq!(
        effects.looks,
        [Look {
            session: id(5),
            owner: OWNER
        }]
    );
    assert!(matches!(
        table.acquire(&ask),
        Acquired::Denied { refused: true, .. }
    ));
    assert!(table.account.entries[1].mark.is_none());
}
