//! The store that all nodes share: the pure rules of `account` and `bucket` as scripts in Redis.
//!
//! Over 400 lines: one short method for each question of the interface, beside the clock and the refusals they share.
//!
//! Owns: which script answers what, Redis's clock as this node knows it, and saying what a refusal means. Does not:
//! decide anything about slots, or know connections (the link does). Called by whoever holds a [`Store`].

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::protocol::close::EndCode;
use crate::protocol::id::{AccountKey, OwnerId, SessionId};

use super::super::model::{
    Acquire, Acquired, Beaten, Decided, Decision, Entry, Fence, Fenced, Generation, Heartbeat, Held, Holding,
    Millis, Order, Renewed, Resume, Resumed, Standing, Switch, Switched,
};
use super::super::store::{Audited, NodeLease, Store, StoreError};
use super::answer::{
    AcquireDone, AuditDone, BeatDone, DecideDone, FencedText, ListDone, NotNowText, RenewDone, Reply,
    ResumeDone, SwitchDone,
};
use super::question::{
    AcquireAsk, AuditAsk, AuditedSession, BeatAsk, DecideAsk, HeartbeatAsk, HoldingAsk, ListAsk, MarkAsk,
    ReleaseAsk, RenewAsk, ResumeAsk, SwitchAsk,
};
use super::refusals::Refusals;
use super::scripts::{self, Fresh, Hex, SessionText, StepText};

pub use super::scripts::Pinned;
use super::{Failed, Link, Script, keys};

/// A start or a resume that reaches Redis later than this after it was asked does nothing (rule 11): far more than
/// any time-out, far less than an end is remembered.
const NOT_AFTER_MS: Millis = 10_000;

/// Room for most questions, in bytes.
const QUESTION_BYTES: usize = 512;

/// Sessions of a page of [`Store::owned`].
const PAGE: u32 = 100;

/// Tables looked at by one reading of accounts,
const SCAN: u32 = 100;

/// and readings of a bucket at most.
const MAX_SCANS: u32 = 1_000;

/// Slots in Redis.
pub struct RedisStore {
    link: Link,
    keys: Vec<[String; keys::COUNT]>,
    layout: Layout,
    /// Redis's clock, and when it said so.
    clock: Mutex<Option<(Millis, Instant)>>,
    refusals: Refusals,
    fresh: Fresh,
    seen: Vec<Seen>,
    /// Rings when a bucket recovers.
    alarm: Arc<Notify>,
    pinned: Option<Arc<Mutex<Pinned>>>,
}

/// What this node has heard of a bucket and acted on.
#[derive(Default)]
struct Seen {
    /// When its last recovery ends.
    opens: AtomicU64,
    /// Facts that its stream has lost.
    dropped: AtomicU64,
}

/// How the installation keeps its data; the same on every node.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Before every key.
    pub prefix: String,
    /// Buckets of accounts.
    pub buckets: u16,
    /// Facts kept in the stream of a bucket.
    pub events: u32,
    /// The two halves of a recovery.
    pub halves: (Duration, Duration),
}

impl RedisStore {
    /// The store over this link, which from now on listens to the word for `owner` and for all. `alarm`: its mail's.
    #[must_use]
    pub fn new(link: Link, layout: Layout, owner: OwnerId, alarm: Arc<Notify>) -> Self {
        let buckets = 0..layout.buckets;
        let own = |bucket| keys::mail(&layout.prefix, bucket, owner);
        let common = |bucket| keys::notices(&layout.prefix, bucket);
        link.listen(
            buckets
                .clone()
                .flat_map(|bucket| [own(bucket), common(bucket)])
                .collect(),
        );
        Self {
            link,
            keys: buckets
                .clone()
                .map(|bucket| keys::of_bucket(&layout.prefix, bucket))
                .collect(),
            layout,
            clock: Mutex::new(None),
            refusals: Refusals::default(),
            fresh: Fresh::default(),
            seen: buckets.map(|_| Seen::default()).collect(),
            alarm,
            pinned: None,
        }
    }

    /// The same, for tests: time and the lives of the data are what they say.
    #[doc(hidden)]
    #[must_use]
    pub fn pinned(self, pinned: Arc<Mutex<Pinned>>) -> Self {
        Self {
            pinned: Some(pinned),
            ..self
        }
    }

    /// Redis's clock by the last answer, moved on by this node's.
    fn estimate(&self) -> Option<Millis> {
        let clock = *self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        clock.map(|(now, at)| now + Millis::try_from(at.elapsed().as_millis()).unwrap_or_default())
    }

    fn step(&self, not_after: Option<Millis>) -> StepText {
        let fresh = self.fresh.next();
        let millis = |half: Duration| Millis::try_from(half.as_millis()).unwrap_or_default();
        let halves = (millis(self.layout.halves.0), millis(self.layout.halves.1));
        let mut step = StepText::new(fresh, halves, self.layout.buckets, not_after, self.layout.events);
        if let Some(pinned) = &self.pinned {
            let pinned = pinned.lock().unwrap_or_else(PoisonError::into_inner);
            step.pin(&pinned);
        }
        step
    }

    /// Runs a script once.
    async fn ask<T: DeserializeOwned>(
        &self,
        script: &'static Script,
        bucket: u16,
        not_after: Option<Millis>,
        ask: &impl Serialize,
    ) -> Result<Reply<T>, Failed> {
        let keys = self.keys.get(usize::from(bucket));
        let keys = keys.ok_or_else(|| Failed::Refused(format!("there is no bucket {bucket}")))?;
        let text = |problem: serde_json::Error| Failed::Refused(format!("unreadable: {problem}"));
        let step = written(&self.step(not_after)).map_err(text)?;
        let ask = written(ask).map_err(text)?;
        let reply = self.link.run(script, keys, &[&step, &ask]).await?;
        let reply: Reply<T> = serde_json::from_str(&reply).map_err(text)?;
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = Some((reply.now, Instant::now()));
        if let Some(NotNowText::Recovering(until)) = reply.not_now {
            self.recovers(bucket, until);
        }
        Ok(reply)
    }

    /// Runs a script and reads what it did, and when.
    async fn run<T: DeserializeOwned>(
        &self,
        script: &'static Script,
        bucket: u16,
        ask: &impl Serialize,
    ) -> Result<(Millis, T), StoreError> {
        let reply = self.ask(script, bucket, None, ask).await;
        self.read(script, reply.map_err(|failed| self.explain(script, failed))?)
    }

    /// Runs a script that does nothing when it comes late. When it did, this node's idea of Redis's clock was wrong,
    /// or Redis slow, and it is asked once more.
    async fn run_in_time<T: DeserializeOwned>(
        &self,
        script: &'static Script,
        bucket: u16,
        ask: &impl Serialize,
    ) -> Result<T, StoreError> {
        let mut again = true;
        loop {
            let not_after = self.estimate().map(|now| now + NOT_AFTER_MS);
            let reply = self.ask(script, bucket, not_after, ask).await;
            let reply = reply.map_err(|failed| self.explain(script, failed))?;
            if !(reply.late && again) {
                return Ok(self.read(script, reply)?.1);
            }
            again = false;
        }
    }

    /// A bucket that recovers is news once: others have probably lost their data with it.
    fn recovers(&self, bucket: u16, opens: Millis) {
        let seen = &self.seen[usize::from(bucket)].opens;
        if seen.swap(opens, Ordering::Relaxed) != opens {
            self.alarm.notify_one();
        }
    }

    fn read<T>(&self, script: &'static Script, reply: Reply<T>) -> Result<(Millis, T), StoreError> {
        match reply {
            Reply {
                not_now: Some(reason),
                ..
            } => Err(StoreError::NotNow(reason.into())),
            Reply { late: true, .. } => Err(StoreError::Unavailable),
            Reply {
                now,
                done: Some(done),
                ..
            } => Ok((now, done)),
            _ => Err(self.explain(script, Failed::Refused("an answer without an outcome".to_owned()))),
        }
    }

    fn explain(&self, script: &'static Script, failed: Failed) -> StoreError {
        let Failed::Refused(text) = failed else {
            return StoreError::Unavailable;
        };
        let digits = text
            .split_once("USHERBUCKETS")
            .and_then(|(_, text)| text.rsplit_once("found "));
        let found =
            digits.and_then(|(_, found)| found.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
        self.refusals.say(script.name, text);
        found.map_or(StoreError::Unavailable, StoreError::Foreign)
    }
}

/// A question as JSON.
fn written(question: &impl Serialize) -> serde_json::Result<String> {
    let mut text = Vec::with_capacity(QUESTION_BYTES);
    serde_json::to_writer(&mut text, question)?;
    String::from_utf8(text).map_err(serde::ser::Error::custom)
}

#[async_trait]
impl Store for RedisStore {
    fn is_shared(&self) -> bool {
        true
    }

    fn buckets(&self) -> u16 {
        self.layout.buckets
    }

    async fn renew(&self, bucket: u16, owner: OwnerId) -> Result<Renewed, StoreError> {
        let ask = RenewAsk { owner: Hex(owner.0) };
        let (now, done) = self.run::<RenewDone>(&scripts::RENEW, bucket, &ask).await?;
        self.seen[usize::from(bucket)]
            .dropped
            .store(done.dropped, Ordering::Relaxed);
        let dropped = self
            .seen
            .iter()
            .map(|seen| seen.dropped.load(Ordering::Relaxed))
            .sum::<u64>();
        self.link.dropped(dropped);
        let renewed = done.renewed(now);
        if let Some(opens) = renewed.phase.opens() {
            self.recovers(bucket, opens);
        }
        Ok(renewed)
    }

    async fn acquire(&self, account: &AccountKey, request: &Acquire) -> Result<Acquired, StoreError> {
        let (bucket, text) = (self.bucket(account), keys::account(account));
        let ask = AcquireAsk::new(&text, request);
        let done: AcquireDone = self.run_in_time(&scripts::ACQUIRE, bucket, &ask).await?;
        Ok(done.into())
    }

    async fn resume(&self, account: &AccountKey, request: &Resume) -> Result<Resumed, StoreError> {
        let (bucket, text) = (self.bucket(account), keys::account(account));
        let ask = ResumeAsk::new(&text, request);
        let done: ResumeDone = self.run_in_time(&scripts::RESUME, bucket, &ask).await?;
        Ok(done.into())
    }

    async fn switch(&self, account: &AccountKey, request: &Switch) -> Result<Switched, StoreError> {
        let (bucket, text) = (self.bucket(account), keys::account(account));
        let ask = SwitchAsk::new(&text, request);
        let done: SwitchDone = self.run_in_time(&scripts::SWITCH, bucket, &ask).await?;
        Ok(done.into())
    }

    async fn release(
        &self,
        account: &AccountKey,
        holding: &Holding,
        code: EndCode,
    ) -> Result<Fenced, StoreError> {
        let text = keys::account(account);
        let ask = ReleaseAsk {
            account: &text,
            code,
            holding: HoldingAsk::new(holding),
        };
        let (_, done) = self
            .run::<FencedText>(&scripts::RELEASE, self.bucket(account), &ask)
            .await?;
        Ok(done.into())
    }

    async fn order(&self, account: &AccountKey, order: Order) -> Result<Fenced, StoreError> {
        let text = keys::account(account);
        let ask = MarkAsk::new(&text, order);
        let (_, done) = self
            .run::<FencedText>(&scripts::MARK, self.bucket(account), &ask)
            .await?;
        Ok(done.into())
    }

    async fn decide(&self, account: &AccountKey, decision: Decision) -> Result<Decided, StoreError> {
        let text = keys::account(account);
        let ask = DecideAsk::new(&text, decision);
        let (_, done) = self
            .run::<DecideDone>(&scripts::DECIDE, self.bucket(account), &ask)
            .await?;
        Ok(done.into())
    }

    async fn audit(
        &self,
        bucket: u16,
        _owner: OwnerId,
        sessions: &[(AccountKey, Holding)],
    ) -> Result<Audited, StoreError> {
        let sessions = sessions.iter().map(|(account, holding)| AuditedSession {
            account: keys::account(account),
            holding: HoldingAsk::new(holding),
        });
        let ask = AuditAsk {
            sessions: sessions.collect(),
        };
        let (_, done) = self.run::<AuditDone>(&scripts::AUDIT, bucket, &ask).await?;
        if done.verdicts.len() != ask.sessions.len() {
            let refusal = "not a verdict for each session".to_owned();
            return Err(self.explain(&scripts::AUDIT, Failed::Refused(refusal)));
        }
        Ok(Audited {
            generation: Generation(done.generation.0),
            verdicts: done.verdicts.into_iter().map(Held::from).collect(),
        })
    }

    async fn beat(&self, bucket: u16, beats: &[(AccountKey, Heartbeat)]) -> Result<Vec<Beaten>, StoreError> {
        let asks = beats
            .iter()
            .map(|(account, beat)| HeartbeatAsk::new(keys::account(account), beat));
        let ask = BeatAsk {
            beats: asks.collect(),
        };
        let (_, done) = self.run::<BeatDone>(&scripts::BEAT, bucket, &ask).await?;
        if done.verdicts.len() != ask.beats.len() {
            let refusal = "not a verdict for each heartbeat".to_owned();
            return Err(self.explain(&scripts::BEAT, Failed::Refused(refusal)));
        }
        Ok(done.verdicts.into_iter().map(Beaten::from).collect())
    }

    async fn owned(
        &self,
        bucket: u16,
        owner: OwnerId,
        after: Option<&(AccountKey, SessionId)>,
    ) -> Result<Vec<(AccountKey, Fence)>, StoreError> {
        let ask = ListAsk::Owned {
            owner: Hex(owner.0),
            after: after.map(|(account, session)| format!("{session}/{}", keys::account(account))),
            most: PAGE,
        };
        let (_, done) = self.run::<ListDone>(&scripts::LIST, bucket, &ask).await?;
        let owned = done.owned.into_iter().filter_map(|(account, session, epoch)| {
            let session = session.0;
            let fence = Fence {
                session,
                owner,
                epoch,
            };
            Some((keys::parse_account(&account)?, fence))
        });
        Ok(owned.collect())
    }

    async fn list(&self, account: &AccountKey) -> Result<Vec<Entry>, StoreError> {
        let text = keys::account(account);
        let ask = ListAsk::Account { account: &text };
        let (_, done) = self
            .run::<ListDone>(&scripts::LIST, self.bucket(account), &ask)
            .await?;
        Ok(done.entries.into_iter().map(Entry::from).collect())
    }

    async fn standing(&self, account: &AccountKey) -> Result<Standing, StoreError> {
        let text = keys::account(account);
        let ask = ListAsk::Account { account: &text };
        let (_, done) = self
            .run::<ListDone>(&scripts::LIST, self.bucket(account), &ask)
            .await?;
        Ok(done.standing.into())
    }

    async fn lives(&self, account: &AccountKey, session: SessionId) -> Result<bool, StoreError> {
        let text = keys::account(account);
        let ask = ListAsk::Session {
            account: &text,
            session: SessionText(session),
        };
        let (_, done) = self
            .run::<ListDone>(&scripts::LIST, self.bucket(account), &ask)
            .await?;
        Ok(done.lives)
    }

    async fn accounts(&self, most: usize) -> Result<Vec<AccountKey>, StoreError> {
        // HSCAN may name a field twice.
        let mut found = BTreeSet::new();
        for bucket in 0..self.layout.buckets {
            let mut cursor = "0".to_owned();
            for _ in 0..MAX_SCANS {
                if found.len() >= most {
                    break;
                }
                let ask = ListAsk::Accounts {
                    cursor: &cursor,
                    most: SCAN,
                };
                let (_, done) = self.run::<ListDone>(&scripts::LIST, bucket, &ask).await?;
                found.extend(done.accounts.iter().filter_map(|text| keys::parse_account(text)));
                cursor = done.cursor;
                if cursor == "0" {
                    break;
                }
            }
        }
        Ok(found.into_iter().take(most).collect())
    }

    async fn leases(&self, bucket: u16) -> Result<Vec<NodeLease>, StoreError> {
        let ask = ListAsk::Leases { leases: true };
        let (now, done) = self.run::<ListDone>(&scripts::LIST, bucket, &ask).await?;
        let leases = done.leases.into_iter();
        Ok(leases
            .map(|(owner, until, renewed)| NodeLease::new(OwnerId(owner.0), now, renewed, until))
            .collect())
    }

    async fn alarm(&self) {
        self.alarm.notified().await;
    }
}
