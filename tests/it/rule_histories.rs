//! Rules against a plain reference: random rule sets and histories of one account. The reference keeps a list of plays
//! and answers from the configuration's own words; it knows no groups, keys or scripts. Both stores must say the same.
//!
//! Over 400 lines: the world of the histories, the reference, and what is asked of both belong together.
//!
//! `USHER_RULE_CASES` says how many histories are run.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::{Config as Cases, FileFailurePersistence, TestCaseError, TestRunner};

use usher::config::{self, Config, GroupRule, Overrides, Per};
use usher::lease::group::ACCOUNT;
use usher::lease::memory::Memory;
use usher::lease::model::{
    Acquire, Acquired, Device, Entry, Fence, Generation, Holding, Millis, Refusal, Resume, Resumed, Switch,
    Switched, Wish,
};
use usher::lease::policy::{Policy, Viewer};
use usher::lease::redis::Link;
use usher::lease::redis::store::{Layout, Pinned, RedisStore};
use usher::lease::store::{Mailbox, Store};
use usher::protocol::close::EndCode;
use usher::protocol::id::{AccountKey, Attempt, OwnerId, SessionId};
use usher::telemetry::Metrics;

use crate::redis_servers::Redis;

const OWNER: OwnerId = OwnerId(1);
const CLASSES: [Option<&str>; 6] = [
    Some("tv"),
    Some("tv"),
    Some("phone"),
    Some("phone"),
    Some("web"),
    None,
];
const CONTENTS: [&str; 5] = ["match-1", "match-2", "kids-1", "film-1", "film-2"];
const TAGS: [(&str, &[&str]); 3] = [
    ("kids", &["kids-*"]),
    ("live", &["match-1", "film-2"]),
    ("sports", &["match-*"]),
];
const PROFILES: [Option<&str>; 3] = [None, Some("ann"), Some("bob")];
const PLANS: [Option<&str>; 3] = [None, Some("basic"), Some("family")];
const HOME: &str = "10.0.0.0/8";
const ADDRESSES: [&str; 5] = [
    "10.0.0.1",
    "192.0.2.1",
    "2001:db8::1",
    "2001:db8::2",
    "::ffff:192.0.2.1",
];
const HOUR_MS: Millis = 3_600_000;

/// A player that starts, by its numbers in the tables above.
#[derive(Clone, Copy, Debug)]
struct Who {
    device: usize,
    content: usize,
    profile: usize,
    address: usize,
    plan: usize,
}

#[derive(Clone, Debug)]
enum Step {
    Start(Who),
    /// A start that takes the n-th play over when it is refused.
    TakeOver(Who, usize),
    Stop(usize),
    Switch(usize, usize),
    /// Another socket goes on with the n-th play: content, address.
    Resume(usize, usize, usize),
    /// Hours.
    Pass(u64),
}

fn who() -> impl Strategy<Value = Who> {
    let numbers = (
        0..CLASSES.len(),
        0..CONTENTS.len(),
        0..PROFILES.len(),
        0..ADDRESSES.len(),
        0..PLANS.len(),
    );
    numbers.prop_map(|(device, content, profile, address, plan)| Who {
        device,
        content,
        profile,
        address,
        plan,
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => who().prop_map(Step::Start),
        4 => (who(), 0..6usize).prop_map(|(who, victim)| Step::TakeOver(who, victim)),
        3 => (0..6usize).prop_map(Step::Stop),
        5 => (0..6usize, 0..CONTENTS.len()).prop_map(|(play, content)| Step::Switch(play, content)),
        4 => (0..6usize, 0..CONTENTS.len(), 0..ADDRESSES.len())
            .prop_map(|(play, content, address)| Step::Resume(play, content, address)),
        2 => (1..60u64).prop_map(Step::Pass),
    ]
}

fn texts(of: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    subsequence(of.to_vec(), 0..=of.len()).prop_map(|some| some.into_iter().map(str::to_owned).collect())
}

fn rule() -> impl Strategy<Value = GroupRule> {
    let per = select(vec![
        Per::DeviceClass,
        Per::Content,
        Per::Tag,
        Per::Profile,
        Per::Address,
        Per::Device,
    ]);
    let of = per.prop_flat_map(|per| {
        let of: &'static [&'static str] = match per {
            Per::DeviceClass => &["tv", "phone"],
            Per::Content => &["match-*", "film-1"],
            Per::Tag => &["kids", "live", "sports"],
            _ => &[],
        };
        (Just(per), texts(of))
    });
    let switches = (any::<bool>(), any::<bool>(), proptest::bool::weighted(0.2));
    (of, 0..4u32, texts(&["basic", "family"]), switches).prop_map(
        |((per, of), limit, plans, (home, lasts, shadow))| {
            let at_home = per == Per::Address && home;
            let lasts = lasts && (per == Per::Device || per == Per::Address && !at_home);
            GroupRule {
                per,
                of,
                limit,
                plans,
                home: at_home.then(|| HOME.parse().unwrap()).into_iter().collect(),
                within: lasts.then_some(Duration::from_secs(48 * 3_600)),
                shadow,
                enforce_running: false,
            }
        },
    )
}

/// A configuration with up to four rules, and now and then something exempt.
fn settings() -> impl Strategy<Value = Config> {
    let exempt = (
        prop_oneof![3 => Just(vec![]), 1 => Just(vec!["film-2".to_owned()])],
        prop_oneof![3 => Just(vec![]), 1 => Just(vec!["kids".to_owned()])],
    );
    (vec(rule(), 0..5), 0..5u32, proptest::bool::weighted(0.1), exempt).prop_map(
        |(rules, limit, shadow, exempt)| {
            let mut config = config::load(None, [], &Overrides::default()).unwrap();
            let tag =
                |(tag, of): (&str, &[&str])| (tag.to_owned(), of.iter().map(|&of| of.to_owned()).collect());
            config.tags = TAGS.into_iter().map(tag).collect();
            config.rules = rules
                .into_iter()
                .enumerate()
                .map(|(at, rule)| (format!("r{at}"), rule))
                .collect();
            config.lease.limit = limit;
            config.lease.shadow = shadow;
            (config.exempt.contents, config.exempt.tags) = exempt;
            config
        },
    )
}

// The reference -------------------------------------------------------------------------------------------------------

/// Somebody who plays, as the reference sees it.
#[derive(Clone, Debug)]
struct Play {
    number: u32,
    epoch: u64,
    who: Who,
}

/// What the reference knows.
struct Reference<'a> {
    config: &'a Config,
    plays: Vec<Play>,
    /// Rule and value, until when.
    seen: BTreeMap<(String, String), Millis>,
    now: Millis,
}

/// Who refuses, what it counts, and whose plays those are.
#[derive(Debug, PartialEq, Eq)]
struct No {
    rule: String,
    used: u32,
    limit: u32,
    holders: BTreeSet<u32>,
    takeover: bool,
}

fn matches(patterns: &[String], content: &str) -> bool {
    patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(stem) => content.starts_with(stem),
        None => pattern == content,
    })
}

fn place(address: &str) -> String {
    match address.parse::<IpAddr>().unwrap().to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("{:?}", &address.segments()[..4]),
    }
}

impl Reference<'_> {
    fn is_exempt(&self, who: Who) -> bool {
        let content = CONTENTS[who.content];
        let tagged = |tag: &String| matches(&self.config.tags[tag], content);
        matches(&self.config.exempt.contents, content) || self.config.exempt.tags.iter().any(tagged)
    }

    /// The values under which a rule counts a player: none when it is not about it.
    fn values(&self, rule: &GroupRule, who: Who) -> Vec<String> {
        let planned = PLANS[who.plan].is_some_and(|plan| rule.plans.iter().any(|of| of == plan));
        if self.is_exempt(who) || !(rule.plans.is_empty() || planned) {
            return vec![];
        }
        let listed = |value: &str| rule.of.is_empty() || rule.of.iter().any(|of| of == value);
        let content = CONTENTS[who.content];
        match rule.per {
            Per::DeviceClass => {
                let class = CLASSES[who.device].unwrap_or("");
                if listed(class) {
                    vec![class.to_owned()]
                } else {
                    vec![]
                }
            }
            Per::Content if rule.of.is_empty() || matches(&rule.of, content) => vec![content.to_owned()],
            Per::Content => vec![],
            Per::Tag => {
                let tags = TAGS
                    .iter()
                    .filter(|(tag, _)| matches(&self.config.tags[*tag], content));
                tags.map(|(tag, _)| (*tag).to_owned())
                    .filter(|tag| listed(tag))
                    .collect()
            }
            Per::Profile => PROFILES[who.profile].map(str::to_owned).into_iter().collect(),
            Per::Address if !rule.home.is_empty() => {
                let address: IpAddr = ADDRESSES[who.address].parse().unwrap();
                let home = rule.home.iter().any(|net| net.contains(&address.to_canonical()));
                if home { vec![] } else { vec!["away".to_owned()] }
            }
            Per::Address => vec![place(ADDRESSES[who.address])],
            Per::Device if rule.within.is_none() => vec!["any".to_owned()],
            Per::Device => vec![format!("d{}", who.device)],
        }
    }

    fn is_home_rule(rule: &GroupRule) -> bool {
        rule.per == Per::Address && rule.home.is_empty()
    }

    fn lasts(rule: &GroupRule) -> bool {
        rule.per == Per::Device && rule.within.is_some()
    }

    fn seen_of(&self, name: &str) -> usize {
        self.seen.keys().filter(|(rule, _)| rule == name).count()
    }

    fn knows(&self, name: &str, value: &str) -> bool {
        self.seen.contains_key(&(name.to_owned(), value.to_owned()))
    }

    /// Whether a play counts where a newcomer of this value would.
    fn counts(&self, name: &str, rule: &GroupRule, value: &str, play: &Play) -> bool {
        let values = self.values(rule, play.who);
        if Self::lasts(rule) {
            !values.is_empty()
        } else if Self::is_home_rule(rule) {
            values.iter().any(|value| !self.knows(name, value))
        } else {
            values.iter().any(|own| own == value)
        }
    }

    /// The first rule without a place for one more, beside these plays; `keeps`: the play that asks, which keeps what it
    /// has. `shadow`: of the rules in shadow, all of them.
    fn full(
        &self,
        who: Who,
        others: &[&Play],
        keeps: Option<&Play>,
        shadow: bool,
    ) -> Vec<(String, Option<String>)> {
        let mut full = Vec::new();
        for (name, rule) in self.config.rules.iter().filter(|(_, rule)| rule.shadow == shadow) {
            for value in self.values(rule, who) {
                let has = keeps.is_some_and(|play| self.counts(name, rule, &value, play));
                let room = if Self::lasts(rule) {
                    self.knows(name, &value) || self.seen_of(name) < rule.limit as usize
                } else if Self::is_home_rule(rule) && (self.knows(name, &value) || self.seen_of(name) == 0) {
                    true
                } else {
                    let counted = others.iter().filter(|play| self.counts(name, rule, &value, play));
                    counted.count() < rule.limit as usize
                };
                if !room && !has {
                    full.push((name.clone(), Some(value)));
                }
            }
        }
        full
    }

    fn has_slot(&self, who: Who, others: &[&Play], own: Option<&Play>) -> bool {
        let counted = others.iter().filter(|play| !self.is_exempt(play.who));
        let swaps = own.is_some_and(|own| !self.is_exempt(own.who));
        self.is_exempt(who) || swaps || counted.count() < self.config.lease.limit as usize
    }

    /// What refuses the player; none when it may play.
    fn refused(&self, who: Who, without: Option<u32>) -> Vec<(String, Option<String>)> {
        let own = self.plays.iter().find(|play| play.who.device == who.device);
        let others = self.plays.iter().filter(|play| play.who.device != who.device);
        let others: Vec<&Play> = others.filter(|play| Some(play.number) != without).collect();
        let mut full = self.full(who, &others, None, false);
        if !self.config.lease.shadow && !self.has_slot(who, &others, own) {
            full.push((ACCOUNT.to_owned(), None));
        }
        full
    }

    /// The refusal as a player is told.
    fn no(&self, who: Who, full: &[(String, Option<String>)], asks: Option<u32>) -> No {
        let (name, value) = &full[0];
        let others = |play: &&Play| play.who.device != who.device && Some(play.number) != asks;
        let numbers = |plays: Vec<&Play>| plays.into_iter().map(|play| play.number).collect::<BTreeSet<_>>();
        let ends = |play: &Play| asks.is_none() && self.refused(who, Some(play.number)).is_empty();
        let takeover = self.plays.iter().filter(others).any(ends);
        let Some(value) = value else {
            let holders: Vec<_> = self
                .plays
                .iter()
                .filter(|play| !self.is_exempt(play.who))
                .collect();
            return No {
                rule: name.clone(),
                used: u32::try_from(holders.len()).unwrap(),
                limit: self.config.lease.limit,
                holders: numbers(holders),
                takeover,
            };
        };
        let rule = &self.config.rules[name];
        let holders: Vec<_> = self
            .plays
            .iter()
            .filter(|play| self.counts(name, rule, value, play))
            .collect();
        let used = if Self::lasts(rule) {
            self.seen_of(name)
        } else {
            holders.iter().copied().filter(others).count()
        };
        No {
            rule: name.clone(),
            used: u32::try_from(used).unwrap(),
            limit: rule.limit,
            holders: numbers(holders),
            takeover,
        }
    }

    /// Rules in shadow that would have refused.
    fn shadowed(&self, who: Who) -> BTreeSet<String> {
        let others: Vec<&Play> = self
            .plays
            .iter()
            .filter(|play| play.who.device != who.device)
            .collect();
        let full = self.full(who, &others, None, true);
        let mut names: BTreeSet<String> = full.into_iter().map(|(name, _)| name).collect();
        let counted = others.iter().filter(|play| !self.is_exempt(play.who)).count();
        if self.config.lease.shadow && !self.is_exempt(who) && counted >= self.config.lease.limit as usize {
            names.insert(ACCOUNT.to_owned());
        }
        names
    }

    fn remember(&mut self, who: Who) {
        for (name, rule) in &self.config.rules {
            let home = Self::is_home_rule(rule);
            if !home && !Self::lasts(rule) {
                continue;
            }
            let within = if rule.within.is_some() { 48 } else { 30 * 24 } * HOUR_MS;
            for value in self.values(rule, who) {
                let room = if home { 1 } else { rule.limit as usize };
                if self.knows(name, &value) || self.seen_of(name) < room {
                    self.seen.insert((name.clone(), value), self.now + within);
                }
            }
        }
    }

    fn start(&mut self, number: u32, who: Who) {
        self.remember(who);
        self.plays.retain(|play| play.who.device != who.device);
        self.plays.push(Play {
            number,
            epoch: 1,
            who,
        });
    }

    /// What refuses other terms to a play.
    fn refuses_change(&self, at: usize, who: Who) -> Vec<(String, Option<String>)> {
        let play = &self.plays[at];
        let others: Vec<&Play> = self
            .plays
            .iter()
            .filter(|other| other.number != play.number)
            .collect();
        let mut full = self.full(who, &others, Some(play), false);
        if !self.config.lease.shadow && !self.has_slot(who, &others, Some(play)) {
            full.push((ACCOUNT.to_owned(), None));
        }
        full
    }

    fn change(&mut self, at: usize, who: Who) {
        let all = |who: Who| {
            let values = self.config.rules.values().map(|rule| self.values(rule, who));
            (self.is_exempt(who), values.collect::<Vec<_>>())
        };
        let changed = all(self.plays[at].who) != all(who);
        self.plays[at].who = who;
        if changed {
            self.remember(who);
        }
    }
}

// The history ---------------------------------------------------------------------------------------------------------

struct Deaf;

impl Mailbox for Deaf {
    fn look(&self, _: &AccountKey, _: OwnerId, _: SessionId) {}
    fn slots(&self, _: &AccountKey, _: u32) {}
}

/// A store whose clock the test moves.
struct Bench {
    store: Box<dyn Store>,
    pinned: Option<Arc<Mutex<Pinned>>>,
    now: Millis,
    accounts: u32,
}

impl Bench {
    fn memory() -> Self {
        let store = Box::new(Memory::new(Arc::new(Deaf)));
        Self {
            store,
            pinned: None,
            now: 0,
            accounts: 0,
        }
    }

    fn redis(server: &Redis) -> Self {
        let mut settings = config::load(None, [], &Overrides::default()).unwrap().redis;
        settings.url = server.url().into();
        let link = Link::open(&settings, Arc::new(Metrics::new()), |_: &str, _: &[u8]| {}).unwrap();
        let layout = Layout {
            prefix: "rules".to_owned(),
            buckets: 1,
            events: 1_000,
            halves: (Duration::from_millis(2_500), Duration::from_millis(2_500)),
        };
        let pinned = Arc::<Mutex<Pinned>>::default();
        let store = RedisStore::new(link, layout, OWNER, Arc::default()).pinned(Arc::clone(&pinned));
        let now = 1_700_000_000_000;
        Self {
            store: Box::new(store),
            pinned: Some(pinned),
            now,
            accounts: 0,
        }
    }

    /// Moves the clock on. The node's lease runs out meanwhile, and is renewed; the sessions are those of a living node.
    async fn pass(&mut self, ms: Millis, plays: bool) {
        match &self.pinned {
            Some(pinned) => {
                self.now += ms;
                *pinned.lock().unwrap() = Pinned {
                    now: Some(self.now),
                    server: Some(1),
                    ..Pinned::default()
                };
            }
            None => {
                assert!(!plays || ms < 12_000);
                tokio::time::advance(Duration::from_millis(ms)).await;
                self.now += ms;
            }
        }
        for bucket in 0..self.store.buckets() {
            self.store.renew(bucket, OWNER).await.unwrap();
        }
    }
}

fn session(account: u32, number: u32) -> SessionId {
    let mut bytes = [7; 16];
    bytes[..4].copy_from_slice(&account.to_be_bytes());
    bytes[4..8].copy_from_slice(&number.to_be_bytes());
    SessionId::from_bytes(bytes)
}

fn device(number: usize) -> Arc<Device> {
    Arc::new(Device {
        id: format!("d{number}").into(),
        name: None,
        class: CLASSES[number].map(Into::into),
        plan: None,
    })
}

struct History<'a> {
    bench: &'a mut Bench,
    policy: Policy,
    account: AccountKey,
    number: u32,
    started: u32,
    reference: Reference<'a>,
}

impl History<'_> {
    fn acquire(&self, number: u32, who: Who, wish: Wish) -> Acquire {
        let device = device(who.device);
        let terms = self.policy.terms(&Viewer {
            account: &self.account,
            plan: PLANS[who.plan],
            profile: PROFILES[who.profile],
            device: &device,
            content: CONTENTS[who.content],
            address: ADDRESSES[who.address].parse().unwrap(),
        });
        Acquire {
            session: session(self.number, number),
            owner: OWNER,
            device,
            content: CONTENTS[who.content].into(),
            limit: self.reference.config.lease.limit,
            terms,
            wish,
            consent: false,
            line: 10,
            period: None,
        }
    }

    fn told(&self, refusal: &Refusal, holders: &[Entry], takeover: bool) -> No {
        let number =
            |entry: &Entry| (0..=self.started).find(|number| session(self.number, *number) == entry.session);
        No {
            rule: refusal.rule.to_string(),
            used: refusal.used,
            limit: refusal.limit,
            holders: holders.iter().map(|entry| number(entry).unwrap()).collect(),
            takeover: takeover && refusal.may_take_over,
        }
    }

    async fn run(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let plays = self.reference.plays.len();
        match *step {
            Step::Start(who) => self.start(who, None).await?,
            Step::TakeOver(who, victim) if plays > 0 => self.start(who, Some(victim % plays)).await?,
            Step::Stop(at) if plays > 0 => self.stop(at % plays).await,
            Step::Switch(at, content) if plays > 0 => {
                let at = at % plays;
                let play = self.reference.plays[at].clone();
                let who = Who { content, ..play.who };
                let request = self.acquire(play.number, who, Wish::Slot);
                let request = Switch {
                    fence: Fence {
                        session: request.session,
                        owner: OWNER,
                        epoch: play.epoch,
                    },
                    content: request.content,
                    limit: request.limit,
                    terms: request.terms,
                };
                let ours = self.bench.store.switch(&self.account, &request).await.unwrap();
                let full = self.reference.refuses_change(at, who);
                match ours {
                    Switched::Done => {
                        prop_assert!(full.is_empty(), "switched past {full:?}");
                        self.reference.change(at, who);
                    }
                    Switched::Refused { refusal, holders } => {
                        prop_assert!(!full.is_empty(), "{refusal:?} refused a switch");
                        let no = self.reference.no(who, &full, Some(play.number));
                        prop_assert_eq!(self.told(&refusal, &holders, false), no);
                    }
                    other => prop_assert!(false, "{other:?}"),
                }
            }
            Step::Resume(at, content, address) if plays > 0 => {
                let at = at % plays;
                let play = self.reference.plays[at].clone();
                let who = Who {
                    content,
                    address,
                    ..play.who
                };
                let request = self.acquire(play.number, who, Wish::Slot);
                let request = Resume {
                    session: request.session,
                    expected: play.epoch,
                    above: 0,
                    owner: OWNER,
                    device: None,
                    content: request.content,
                    limit: request.limit,
                    terms: request.terms,
                    attempt: Attempt(play.epoch),
                };
                let ours = self.bench.store.resume(&self.account, &request).await.unwrap();
                let full = self.reference.refuses_change(at, who);
                match ours {
                    Resumed::Moved { entry, .. } => {
                        prop_assert!(full.is_empty(), "resumed past {full:?}");
                        self.reference.change(at, who);
                        self.reference.plays[at].epoch = entry.epoch;
                    }
                    Resumed::Absent => prop_assert!(!full.is_empty(), "a resume was refused"),
                    Resumed::At { .. } => prop_assert!(false, "the epoch is known"),
                }
            }
            Step::Pass(hours) => {
                // Nobody plays for days: the memory of an account is what time passes for.
                while !self.reference.plays.is_empty() {
                    self.stop(0).await;
                }
                self.bench.pass(hours * HOUR_MS, false).await;
                self.reference.now = self.bench.now;
                let now = self.bench.now;
                self.reference.seen.retain(|_, until| *until > now);
            }
            _ => {}
        }
        self.compare().await
    }

    async fn start(&mut self, who: Who, victim: Option<usize>) -> Result<(), TestCaseError> {
        self.started += 1;
        let number = self.started;
        let victim = victim.map(|at| self.reference.plays[at].clone());
        let wish = victim.as_ref().map_or(Wish::Slot, |play| {
            Wish::TakeOver(session(self.number, play.number))
        });
        let request = self.acquire(number, who, wish);
        let ours = self.bench.store.acquire(&self.account, &request).await.unwrap();
        let full = self.reference.refused(who, None);
        match ours {
            Acquired::Granted { used, shadowed, .. } => {
                prop_assert!(full.is_empty(), "granted past {full:?}");
                let names: BTreeSet<String> = shadowed.iter().map(ToString::to_string).collect();
                prop_assert_eq!(names, self.reference.shadowed(who));
                self.reference.start(number, who);
                let reference = &self.reference;
                let counted = reference
                    .plays
                    .iter()
                    .filter(|play| !reference.is_exempt(play.who));
                prop_assert_eq!(used as usize, counted.count());
            }
            Acquired::Denied { refusal, holders, .. } => {
                prop_assert!(!full.is_empty(), "{refusal:?} refused");
                prop_assert_eq!(
                    self.told(&refusal, &holders, true),
                    self.reference.no(who, &full, None)
                );
                if let Some(victim) = victim {
                    let freed = self.reference.refused(who, Some(victim.number)).is_empty();
                    prop_assert!(
                        !freed || victim.who.device == who.device,
                        "{victim:?} makes place"
                    );
                }
            }
            Acquired::Waiting {
                taking_over: true, ..
            } => {
                let victim = victim.unwrap();
                prop_assert!(
                    self.reference.refused(who, Some(victim.number)).is_empty(),
                    "for nothing"
                );
                let at = self
                    .reference
                    .plays
                    .iter()
                    .position(|play| play.number == victim.number)
                    .unwrap();
                self.stop(at).await;
                let ours = self.bench.store.acquire(&self.account, &request).await.unwrap();
                prop_assert!(
                    matches!(ours, Acquired::Granted { .. }),
                    "{ours:?} after the victim's end"
                );
                self.reference.start(number, who);
            }
            other => prop_assert!(false, "{other:?}"),
        }
        Ok(())
    }

    async fn stop(&mut self, at: usize) {
        let play = self.reference.plays.remove(at);
        let request = self.acquire(play.number, play.who, Wish::Slot);
        let mut holding = Holding::new(&request, Generation(1), 1);
        holding.fence.epoch = play.epoch;
        self.bench
            .store
            .release(&self.account, &holding, EndCode::Stopped)
            .await
            .unwrap();
    }

    /// The same plays, each counted where the reference counts it.
    async fn compare(&self) -> Result<(), TestCaseError> {
        let entries = self.bench.store.list(&self.account).await.unwrap();
        let ours: BTreeMap<SessionId, (bool, &str)> = entries
            .iter()
            .map(|entry| (entry.session, (entry.exempt, &*entry.content)))
            .collect();
        let play = |play: &Play| {
            let exempt = self.reference.is_exempt(play.who);
            (
                session(self.number, play.number),
                (exempt, CONTENTS[play.who.content]),
            )
        };
        prop_assert_eq!(ours, self.reference.plays.iter().map(play).collect());
        Ok(())
    }
}

async fn run(bench: &mut Bench, config: &Config, steps: &[Step]) -> Result<(), TestCaseError> {
    bench.accounts += 1;
    let number = bench.accounts;
    // The first begins a recovery, which is over after its window.
    bench.pass(6_000, false).await;
    bench.pass(6_000, false).await;
    let reference = Reference {
        config,
        plays: vec![],
        seen: BTreeMap::new(),
        now: bench.now,
    };
    let mut history = History {
        policy: Policy::new(config),
        account: AccountKey::new("main", &format!("a{number}")),
        number,
        started: 0,
        reference,
        bench,
    };
    for step in steps {
        history.run(step).await?;
    }
    Ok(())
}

fn histories(runtime: &tokio::runtime::Runtime, mut bench: Bench) {
    let cases = std::env::var("USHER_RULE_CASES").map_or(1_000, |cases| cases.parse().unwrap());
    let mut runner = TestRunner::new(Cases {
        cases,
        max_shrink_iters: 4_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..Cases::default()
    });
    let bench = std::cell::RefCell::new(&mut bench);
    let result = runner.run(&(settings(), vec(step(), 1..25)), |(config, steps)| {
        runtime.block_on(run(&mut bench.borrow_mut(), &config, &steps))
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
}

#[test]
fn the_rules_say_what_a_plain_reference_says() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let bench = runtime.block_on(async { Bench::memory() });
    histories(&runtime, bench);
}

#[test]
fn the_scripts_say_what_a_plain_reference_says() {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).enable_all().build().unwrap();
    let server = runtime.block_on(Redis::start(&[]));
    let bench = runtime.block_on(async { Bench::redis(&server) });
    histories(&runtime, bench);
}
