//! The twins: random histories run through the scripts in Redis and through the pure rules, at the same times, in the
//! same lives of the data. Every answer, every table, every fact and all word must be the same.
//!
//! 400 lines: the steps, both stores under them, and the reading of everything that Redis holds belong together.
//!
//! `USHER_TWIN_CASES` says how many histories are run, of up to 50 steps each.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, TestCaseError, TestRunner};
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};

use usher::config::{self, Overrides};
use usher::lease::account::{Account, Effects, Fact, Ground};
use usher::lease::bucket::{Bucket, Lease, Step as Life};
use usher::lease::group::{Group, MAX_UNCOUNTED, Measure, Terms};
use usher::lease::model::{
    Acquire, Beat, Beaten, Decision, Device, Entry, Fence, Generation, Heartbeat, Holding, Mark, Millis,
    NotNow, Order, Progress, Resume, Switch, Waiter, Wish,
};
use usher::lease::redis::mail::Mail;
use usher::lease::redis::store::{Layout, Pinned, RedisStore};
use usher::lease::redis::{Link, keys};
use usher::lease::store::{Mailbox, Store, StoreError};
use usher::protocol::client::PlayState;
use usher::protocol::close::EndCode;
use usher::protocol::id::{AccountKey, Attempt, OwnerId, SessionId};
use usher::telemetry::Metrics;

use crate::redis_servers::Redis;

const OWNERS: u64 = 4;
const ACCOUNTS: u8 = 3;
const SESSIONS: u8 = 7;
const HALVES: (Duration, Duration) = (Duration::from_millis(2_500), Duration::from_millis(2_500));
const PREFIX: &str = "twins";

/// A session of an account.
type Player = (u8, u8);

#[derive(Clone, Debug)]
enum Step {
    Acquire {
        player: Player,
        owner: u64,
        device: u8,
        limit: u32,
        terms: u16,
        wish: u8,
        consent: bool,
        line: u32,
    },
    Resume {
        player: Player,
        owner: u64,
        stale: u8,
        device: u8,
        terms: u16,
        attempt: u64,
    },
    Switch {
        player: Player,
        stale: u8,
        limit: u32,
        terms: u16,
    },
    Release {
        holding: Held,
        code: bool,
    },
    Kick {
        player: Player,
    },
    Refuse {
        player: Player,
        stale: u8,
    },
    Decide {
        account: u8,
        what: u8,
        limit: u32,
        enforce: bool,
    },
    Audit {
        holdings: Vec<Held>,
    },
    Beat {
        beats: Vec<Word>,
    },
    Renew {
        owner: u64,
    },
    RenewAll,
    /// Everybody else renews until this one's lease has run out.
    Silence {
        owner: u64,
    },
    Pass(Millis),
    Back(Millis),
    NewServer,
    Wipe,
}

/// A heartbeat.
#[derive(Clone, Copy, Debug)]
struct Word {
    /// Whose, and what its node believes to know of it.
    held: Held,
    known: bool,
    /// 0: another device, 1: its own; otherwise none is named.
    device: u8,
    /// 0: an end, 1: nothing was heard; otherwise that it plays.
    word: u8,
    period: Millis,
}

/// What a node believes to hold: the entry as it is or was last seen, and how it differs from that.
#[derive(Clone, Copy, Debug)]
struct Held {
    player: Player,
    owner: u64,
    /// 0, 1, 2: one less, one more, another owner; otherwise exact.
    stale: u8,
    /// 0, 1, 2: never confirmed, of a strange life, of the present one; otherwise that of the entry.
    life: u8,
    limit: u32,
    terms: u16,
    doubtful: bool,
    state: u8,
    watched: u64,
}

fn player() -> impl Strategy<Value = Player> {
    (0..ACCOUNTS, 0..SESSIONS)
}

fn held() -> impl Strategy<Value = Held> {
    let knobs = (
        0..12u8,
        0..8u8,
        0..4u32,
        terms(),
        any::<bool>(),
        0..4u8,
        0..100_000u64,
    );
    (player(), 1..=OWNERS, knobs).prop_map(
        |(player, owner, (stale, life, limit, terms, doubtful, state, watched))| Held {
            player,
            owner,
            stale,
            life,
            limit,
            terms,
            doubtful,
            state,
            watched,
        },
    )
}

fn word() -> impl Strategy<Value = Word> {
    let knobs = (any::<bool>(), 0..6u8, 0..8u8, 1..30_000u64);
    (held(), knobs).prop_map(|(held, (known, device, word, period))| Word {
        held,
        known,
        device,
        word,
        period,
    })
}

/// Plain ones in most histories; otherwise the bits that [`terms_of`] reads.
fn terms() -> impl Strategy<Value = u16> {
    prop_oneof![3 => Just(0), 5 => 0..1024u16]
}

/// What a session counts in: groups of every kind, in shadow or not, and what it does about the total.
fn terms_of(bits: u16, device: &Device) -> Terms {
    let bit = |number: u16| bits & (1 << number) != 0;
    let exempt = bit(6) && bit(7);
    let group = |rule: &str, value: &str, limit, measure| Group {
        key: format!("{rule}/{value}").into(),
        limit,
        measure,
        shadow: bit(4) && rule.len().is_multiple_of(2),
        enforce: bit(5),
    };
    let value = ["", "a/b", "ä\"]{"][usize::from(bits) % 3];
    let groups = [
        bit(0).then(|| group("one", "tv", 1, Measure::Sessions)),
        bit(1).then(|| group("some", value, 2, Measure::Sessions)),
        bit(2).then(|| group("home", value, u32::from(bit(9)), Measure::Away(20_000))),
        bit(3).then(|| group("devices", &device.id, 2, Measure::Known(30_000))),
    ];
    let groups: Vec<_> = groups.into_iter().flatten().collect();
    Terms {
        exempt,
        shadow: bit(7) && bit(9),
        enforce: bit(8),
        groups: if exempt { vec![].into() } else { groups.into() },
    }
}

/// Terms as a table has them.
fn terms_text(terms: &Terms) -> Value {
    let mut text = json!({});
    for (field, set) in [
        ("exempt", terms.exempt),
        ("shadow", terms.shadow),
        ("enforce", terms.enforce),
    ] {
        if set {
            text[field] = json!(true);
        }
    }
    if terms.exempt || terms.shadow {
        text["most"] = json!(MAX_UNCOUNTED);
    }
    let group = |group: &Group| {
        let mut text = json!({ "key": group.key, "limit": group.limit });
        match group.measure {
            Measure::Sessions => {}
            Measure::Away(within) => text["away"] = json!(within),
            Measure::Known(within) => text["known"] = json!(within),
        }
        for (field, set) in [("shadow", group.shadow), ("enforce", group.enforce)] {
            if set {
                text[field] = json!(true);
            }
        }
        text
    };
    let groups: Vec<Value> = terms.groups.iter().map(group).collect();
    if !groups.is_empty() {
        text["groups"] = json!(groups);
    }
    text
}

fn step() -> impl Strategy<Value = Step> {
    let times = [
        1, 100, 1_000, 2_500, 2_501, 5_000, 7_500, 7_501, 12_500, 15_000, 61_000,
    ];
    let owner = 1..=OWNERS;
    prop_oneof![
        20 => (player(), owner.clone(), 0..8u8, 0..4u32, terms(), 0..5u8, any::<bool>(), 0..3u32).prop_map(
            |(player, owner, device, limit, terms, wish, consent, line)| Step::Acquire {
                player, owner, device, limit, terms, wish, consent, line,
            }
        ),
        6 => (player(), owner.clone(), 0..8u8, 0..6u8, terms(), 0..3u64).prop_map(
            |(player, owner, stale, device, terms, attempt)| Step::Resume {
                player, owner, stale, device, terms, attempt,
            }
        ),
        5 => (player(), 0..8u8, 0..4u32, terms())
            .prop_map(|(player, stale, limit, terms)| Step::Switch { player, stale, limit, terms }),
        6 => (held(), any::<bool>()).prop_map(|(holding, code)| Step::Release { holding, code }),
        2 => player().prop_map(|player| Step::Kick { player }),
        3 => (player(), 0..6u8).prop_map(|(player, stale)| Step::Refuse { player, stale }),
        // Mostly taken back, so that the account plays on.
        5 => (0..ACCOUNTS, 0..8u8, 0..4u32, any::<bool>()).prop_map(
            |(account, what, limit, enforce)| Step::Decide { account, what, limit, enforce }
        ),
        8 => vec(held(), 1..5).prop_map(|holdings| Step::Audit { holdings }),
        8 => vec(word(), 1..5).prop_map(|beats| Step::Beat { beats }),
        6 => owner.clone().prop_map(|owner| Step::Renew { owner }),
        3 => owner.prop_map(|owner| Step::Silence { owner }),
        4 => Just(Step::RenewAll),
        8 => proptest::sample::select(times.to_vec()).prop_map(Step::Pass),
        1 => proptest::sample::select(vec![1, 600, 3_000, 20_000]).prop_map(Step::Back),
        1 => Just(Step::NewServer),
        1 => Just(Step::Wipe),
    ]
}

/// Both stores, and what the test knows beside them.
struct Twins<'a> {
    bench: &'a Bench,
    bucket: Bucket,
    now: Millis,
    server: u64,
    lives: u64,
    /// Every session as it last played.
    seen: HashMap<Player, Entry>,
    facts: Facts,
    word: Told,
}

/// By account, in their order.
type Facts = BTreeMap<String, Vec<BTreeMap<String, String>>>;

/// By owner and account: sessions to look at and slots taken, in their order.
type Told = BTreeMap<(u64, String), Vec<String>>;

/// Remembered ends: epoch, code, until.
type Ends = BTreeMap<SessionId, (u64, EndCode, Millis)>;

/// What a reading of Redis finds: accounts, index, marked, waiting, tombstone times, expiries, owners, tombstones, events,
/// displacers.
type Found = (
    BTreeMap<String, String>,
    BTreeSet<String>,
    BTreeSet<String>,
    BTreeMap<String, Millis>,
    BTreeMap<String, Millis>,
    BTreeMap<String, Millis>,
    BTreeMap<String, String>,
    BTreeMap<String, String>,
    Vec<(String, BTreeMap<String, String>)>,
    BTreeMap<String, String>,
);

/// What it should find of the accounts.
#[derive(Default)]
struct Expected {
    tables: BTreeMap<String, Value>,
    index: BTreeSet<String>,
    marked: BTreeSet<String>,
    waiting: BTreeMap<String, Millis>,
    expiries: BTreeMap<String, Millis>,
}

impl Expected {
    fn add(&mut self, text: &str, account: &Account) {
        let mut table = json!({});
        if !account.entries().is_empty() {
            table["entries"] = account.entries().iter().map(entry_text).collect();
        }
        if !account.line().is_empty() {
            table["line"] = account.line().iter().map(waiter_text).collect();
        }
        if account.standing().blocked {
            table["blocked"] = json!(true);
        }
        if let Some(limit) = account.standing().limit {
            table["limit"] = json!(limit);
        }
        for entry in account.entries() {
            let own = format!("{}/{}/{text}", keys::hex(entry.owner.0), entry.session);
            self.index
                .insert(format!("{}/{own}", keys::hex(entry.generation.0)));
            if entry.mark.is_some() {
                self.marked.insert(own);
            }
            assert_eq!(entry.expires.is_some(), entry.owner == OwnerId::NONE);
            if let Some(expires) = entry.expires {
                self.expiries.insert(format!("{}/{text}", entry.session), expires);
            }
        }
        for waiter in account.line() {
            self.index.insert(format!(
                "line/{}/{}/{text}",
                keys::hex(waiter.owner.0),
                waiter.session
            ));
            self.waiting
                .insert(format!("{}/{text}", waiter.session), waiter.refreshed);
        }
        if table != json!({}) {
            self.tables.insert(text.to_owned(), table);
        }
    }
}

/// The Redis that all histories share.
struct Bench {
    store: RedisStore,
    pinned: Arc<Mutex<Pinned>>,
    connection: MultiplexedConnection,
    heard: Arc<Heard>,
}

#[derive(Default)]
struct Heard(Mutex<Told>);

struct Ear(Arc<Heard>, OwnerId);

impl Mailbox for Ear {
    fn look(&self, account: &AccountKey, owner: OwnerId, session: SessionId) {
        assert_eq!(owner, self.1);
        self.hear(account, session.to_string());
    }

    fn slots(&self, account: &AccountKey, used: u32) {
        self.hear(account, format!("used {used}"));
    }
}

impl Ear {
    fn hear(&self, account: &AccountKey, word: String) {
        let key = (self.1.0, keys::account(account));
        self.0.0.lock().unwrap().entry(key).or_default().push(word);
    }
}

impl Bench {
    async fn open(server: &Redis, buckets: u16) -> Self {
        let mut settings = config::load(None, [], &Overrides::default()).unwrap().redis;
        settings.url = server.url().into();
        let heard = Arc::new(Heard::default());
        let ears: HashMap<String, Mail> = (1..=OWNERS)
            .map(|owner| {
                let owner = OwnerId(owner);
                let ear: Arc<dyn Mailbox> = Arc::new(Ear(Arc::clone(&heard), owner));
                (keys::mail(PREFIX, 0, owner), Mail::new(ear, owner))
            })
            .collect();
        let channels: Vec<String> = ears.keys().cloned().collect();
        // Notices to all nodes say nothing about an account.
        let deliver = move |channel: &str, payload: &[u8]| {
            if let Some(ear) = ears.get(channel) {
                ear.deliver(channel, payload);
            }
        };
        let link = Link::open(&settings, Arc::new(Metrics::new()), deliver).unwrap();
        let layout = Layout {
            prefix: PREFIX.to_owned(),
            buckets,
            events: 1_000,
            halves: HALVES,
        };
        let pinned = Arc::<Mutex<Pinned>>::default();
        let store =
            RedisStore::new(link.clone(), layout, OwnerId(1), Arc::default()).pinned(Arc::clone(&pinned));
        link.listen(channels.clone());
        let client = redis::Client::open(server.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let mut listening = redis::cmd("PUBSUB");
            let listening: Vec<(String, u32)> = listening
                .arg("SHARDNUMSUB")
                .arg(&channels)
                .query_async(&mut connection)
                .await
                .unwrap();
            if listening.iter().all(|(_, ears)| *ears >= 1) {
                break;
            }
            assert!(Instant::now() < deadline, "the link does not listen");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Self {
            store,
            pinned,
            connection,
            heard,
        }
    }

    async fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query_async(&mut self.connection.clone()).await.unwrap()
    }
}

/// Two answers, or two readings, that are not the same.
fn same<T: PartialEq + Debug>(what: &str, redis: &T, rules: &T) -> Result<(), TestCaseError> {
    prop_assert_eq!(redis, rules, "{}: redis (left) is not the rules (right)", what);
    Ok(())
}

fn account(number: u8) -> AccountKey {
    // Names that a text of JSON must escape.
    AccountKey::new(
        ["main", "ä\"]", "t/1"][usize::from(number)],
        ["a", "[\"b\\", "c\u{1}\u{7f}"][usize::from(number)],
    )
}

fn session((account, number): Player) -> SessionId {
    let mut bytes = [0xfb; 16];
    (bytes[0], bytes[1]) = (number.wrapping_mul(37), account);
    SessionId::from_bytes(bytes)
}

/// Every third player has no socket.
fn without_socket((_, number): Player) -> bool {
    number.is_multiple_of(3)
}

fn device(number: u8) -> Arc<Device> {
    Arc::new(Device {
        id: format!("d/{number}\"entries\":[{{").into(),
        name: (number.is_multiple_of(2)).then(|| format!("Küche {number} \u{1}\\").into()),
        class: (number.is_multiple_of(3)).then(|| "tv".into()),
        plan: (number.is_multiple_of(5)).then(|| "gold".into()),
    })
}

fn state(number: u8) -> PlayState {
    [
        PlayState::Playing,
        PlayState::Paused,
        PlayState::Buffering,
        PlayState::Background,
    ][usize::from(number)]
}

fn outcome<T>(answer: Result<T, StoreError>) -> Result<T, NotNow> {
    answer.map_err(|error| match error {
        StoreError::NotNow(reason) => reason,
        StoreError::Unavailable | StoreError::Foreign(_) => panic!("redis refused"),
    })
}

impl<'a> Twins<'a> {
    async fn new(bench: &'a Bench) -> Self {
        let () = bench.ask(&["FLUSHALL"]).await;
        bench.heard.0.lock().unwrap().clear();
        Self {
            bench,
            bucket: Bucket::default(),
            now: 1_700_000_000_000,
            server: 1,
            lives: 1,
            seen: HashMap::new(),
            facts: Facts::new(),
            word: Told::new(),
        }
    }

    /// The step at this time, for both.
    fn life(&mut self) -> Life {
        self.lives += 1;
        let life = Life {
            now: self.now,
            server: self.server,
            fresh: Generation(self.lives),
            halves: (2_500, 2_500),
        };
        *self.bench.pinned.lock().unwrap() = Pinned {
            now: Some(life.now),
            offset_ms: 0,
            server: Some(life.server),
            fresh: Some(life.fresh),
        };
        life
    }

    fn entry(&self, player: Player) -> Option<Entry> {
        let entries = self
            .bucket
            .account(&account(player.0))
            .map_or(&[][..], Account::entries);
        entries
            .iter()
            .find(|entry| entry.session == session(player))
            .cloned()
    }

    fn holding(&self, held: Held) -> Holding {
        let seen = self
            .entry(held.player)
            .or_else(|| self.seen.get(&held.player).cloned());
        let fence = seen.as_ref().map(Entry::fence).unwrap_or(Fence {
            session: session(held.player),
            owner: OwnerId(held.owner),
            epoch: 1,
        });
        let present = self.bucket.accounts().flat_map(|(_, account)| account.entries());
        let present = present.map(|entry| entry.generation).max().unwrap_or_default();
        Holding {
            fence: Fence {
                epoch: match held.stale {
                    0 => fence.epoch.saturating_sub(1).max(1),
                    1 => fence.epoch + 1,
                    _ => fence.epoch,
                },
                owner: if held.stale == 2 {
                    OwnerId(held.owner)
                } else {
                    fence.owner
                },
                ..fence
            },
            generation: match held.life {
                0 => Generation::NONE,
                1 => Generation(0xffff_ffff_ffff_ffff),
                2 => present,
                _ => seen.as_ref().map_or(Generation(1), |entry| entry.generation),
            },
            limit: held.limit,
            // A session plays mostly as it started.
            terms: seen
                .as_ref()
                .filter(|entry| entry.groups.is_empty() && !entry.exempt && held.terms.is_multiple_of(2))
                .map_or_else(
                    || terms_of(held.terms, &device(held.player.1)),
                    |_| Terms::default(),
                ),
            device: seen
                .as_ref()
                .map_or_else(|| device(held.player.1), |entry| Arc::clone(&entry.device)),
            content: format!("m{}", held.watched % 3).into(),
            state: state(held.state),
            started_at: seen
                .as_ref()
                .map_or(self.now - held.watched % 3, |entry| entry.started_at),
            progress: Progress {
                position_ms: held.watched * 7,
                watched_ms: held.watched,
            },
            doubtful: held.doubtful,
            period: None,
        }
    }

    fn heartbeat(&self, word: Word) -> Heartbeat {
        let mut known = self.holding(word.held);
        known.fence.owner = OwnerId::NONE;
        known.period = Some(word.period);
        if known.generation == Generation::NONE {
            known.generation = Generation(1);
        }
        Heartbeat {
            session: session(word.held.player),
            device: match word.device {
                0 => Some("another".into()),
                1 => Some(known.device.id.clone()),
                _ => None,
            },
            period: word.period,
            word: match word.word {
                0 => Beat::Stop,
                1 => Beat::Silent,
                2 => Beat::Alive {
                    position_ms: None,
                    state: None,
                },
                _ => Beat::Alive {
                    position_ms: Some(word.held.watched),
                    state: Some(state(word.held.state)),
                },
            },
            known: word.known.then_some(known),
        }
    }

    /// Runs a rule on an account and keeps what it does beside.
    fn rule<T>(
        &mut self,
        key: &AccountKey,
        life: &Life,
        asker: Option<(SessionId, OwnerId)>,
        rule: impl FnOnce(&mut Account, &Ground<'_>, &mut Effects) -> T,
    ) -> T {
        let used = |bucket: &Bucket| bucket.account(key).map_or(0, Account::used);
        let (before, mut effects) = (used(&self.bucket), Effects::default());
        let answer = self.bucket.step(key, life, &mut effects, rule);
        let after = used(&self.bucket);
        self.keep(key, effects, (before != after).then_some(after), asker);
        answer
    }

    fn keep(
        &mut self,
        key: &AccountKey,
        effects: Effects,
        used: Option<u32>,
        asker: Option<(SessionId, OwnerId)>,
    ) {
        let text = keys::account(key);
        for fact in effects.facts {
            self.facts
                .entry(text.clone())
                .or_default()
                .push(fields(key, &fact));
        }
        // Nobody listens for those without a socket.
        for look in effects.looks.iter().filter(|look| look.owner != OwnerId::NONE) {
            let word = self.word.entry((look.owner.0, text.clone())).or_default();
            word.push(look.session.to_string());
        }
        let (Some(used), Some(account)) = (used, self.bucket.account(key)) else {
            return;
        };
        let entries = account.entries().iter().map(|entry| (entry.session, entry.owner));
        let line = account.line().iter().map(|waiter| (waiter.session, waiter.owner));
        let all: Vec<_> = entries.chain(line).collect();
        let mut owners: BTreeSet<OwnerId> = all.iter().map(|(_, owner)| *owner).collect();
        if all.len() == 1 && asker == Some(all[0]) {
            // Its own answer says so.
            owners.clear();
        }
        // Who is told something is told this too.
        owners.extend(effects.looks.iter().map(|look| look.owner));
        owners.remove(&OwnerId::NONE);
        for owner in owners {
            self.word
                .entry((owner.0, text.clone()))
                .or_default()
                .push(format!("used {used}"));
        }
    }

    async fn run(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let store = &self.bench.store;
        match step {
            Step::Acquire {
                player,
                owner,
                device: number,
                limit,
                terms,
                wish,
                consent,
                line,
            } => {
                let (key, life) = (account(player.0), self.life());
                // Most players have a device of their own.
                let device = device(if *number < SESSIONS - 5 { *number } else { player.1 });
                let period = without_socket(*player).then_some(10_000);
                let request = Acquire {
                    session: session(*player),
                    owner: period.map_or(OwnerId(*owner), |_| OwnerId::NONE),
                    period,
                    terms: terms_of(*terms, &device),
                    device,
                    content: "m0".into(),
                    limit: *limit,
                    wish: match wish {
                        0 => Wish::Slot,
                        1 | 2 => Wish::Wait,
                        3 => Wish::Oldest,
                        _ => Wish::TakeOver(session((player.0, number % SESSIONS))),
                    },
                    consent: *consent,
                    line: *line,
                };
                let redis = outcome(store.acquire(&key, &request).await);
                let asker = Some((request.session, request.owner));
                let rules = self.rule(&key, &life, asker, |a, g, e| a.acquire(&request, g, e));
                same("acquire", &redis, &rules)?;
            }
            Step::Resume {
                player,
                owner,
                stale,
                device: number,
                terms,
                attempt,
            } => {
                let (key, life) = (account(player.0), self.life());
                let entry = self.entry(*player);
                let request = Resume {
                    session: session(*player),
                    expected: entry
                        .as_ref()
                        .map_or(1, |e| e.epoch)
                        .saturating_sub(u64::from(*stale == 0)),
                    above: attempt % 4,
                    owner: OwnerId(*owner),
                    device: match number {
                        0 => Some("another".into()),
                        1 => None,
                        _ => Some(entry.map_or_else(|| "d".into(), |e| e.device.id.clone())),
                    },
                    content: "m1".into(),
                    limit: 2,
                    terms: terms_of(*terms, &device(player.1)),
                    attempt: Attempt(*attempt),
                };
                let redis = outcome(store.resume(&key, &request).await);
                let asker = Some((request.session, request.owner));
                let rules = self.rule(&key, &life, asker, |a, g, e| a.resume(&request, g, e));
                same("resume", &redis, &rules)?;
            }
            Step::Switch {
                player,
                stale,
                limit,
                terms,
            } => {
                let (key, life) = (account(player.0), self.life());
                let fence = self.entry(*player).as_ref().map(Entry::fence).unwrap_or(Fence {
                    session: session(*player),
                    owner: OwnerId(1),
                    epoch: 1,
                });
                let request = Switch {
                    fence: Fence {
                        epoch: fence.epoch + u64::from(*stale == 0),
                        ..fence
                    },
                    content: "m2".into(),
                    limit: *limit,
                    terms: terms_of(*terms, &device(player.1)),
                };
                let redis = outcome(store.switch(&key, &request).await);
                let rules = self.rule(&key, &life, None, |a, g, e| a.switch(&request, g, e));
                same("switch", &redis, &rules)?;
            }
            Step::Release { holding, code } => {
                let (key, life) = (account(holding.player.0), self.life());
                let holding = self.holding(*holding);
                let code = if *code {
                    EndCode::Stopped
                } else {
                    EndCode::HeartbeatMissed
                };
                let redis = outcome(store.release(&key, &holding, code).await);
                let asker = Some((holding.fence.session, holding.fence.owner));
                let rules = self.rule(&key, &life, asker, |a, g, e| a.release(&holding, code, g, e));
                same("release", &redis, &Ok(rules))?;
            }
            Step::Kick { player } => {
                let code = EndCode::EndedByOperator;
                self.order(
                    account(player.0),
                    Order::Kick {
                        session: session(*player),
                        code,
                    },
                )
                .await?;
            }
            Step::Refuse { player, stale } => {
                let fence = self.entry(*player).as_ref().map(Entry::fence).unwrap_or(Fence {
                    session: session(*player),
                    owner: OwnerId(1),
                    epoch: 1,
                });
                let epoch = fence.epoch + u64::from(*stale == 0);
                self.order(account(player.0), Order::Refuse(Fence { epoch, ..fence }))
                    .await?;
            }
            Step::Decide {
                account: number,
                what,
                limit,
                enforce,
            } => {
                let (key, life) = (account(*number), self.life());
                let decision = match what {
                    0 => Decision::Block,
                    1..=3 => Decision::Unblock,
                    4 | 5 => Decision::Limit {
                        limit: Some(*limit),
                        enforce: *enforce,
                    },
                    _ => Decision::Limit {
                        limit: None,
                        enforce: *enforce,
                    },
                };
                let redis = outcome(store.decide(&key, decision).await);
                let rules = self.rule(&key, &life, None, |a, g, e| a.decide(decision, g, e));
                same("decide", &redis, &Ok(rules))?;
                let standing = outcome(store.standing(&key).await);
                same("standing", &standing, &Ok(rules.standing))?;
            }
            Step::Audit { holdings } => {
                let life = self.life();
                let sessions: Vec<_> = holdings
                    .iter()
                    .map(|held| (account(held.player.0), self.holding(*held)))
                    .collect();
                let redis = outcome(store.audit(0, OwnerId(1), &sessions).await);
                let redis = redis.map(|audited| (audited.generation, audited.verdicts));
                same("audit", &redis, &self.audit(&life, &sessions))?;
            }
            Step::Beat { beats } => {
                let life = self.life();
                let beats: Vec<_> = beats
                    .iter()
                    .map(|word| (account(word.held.player.0), self.heartbeat(*word)))
                    .collect();
                let redis = outcome(store.beat(0, &beats).await);
                let rules = self.batch(&life, &beats, |account, beat, ground, effects| {
                    Ok(account.beat(beat, ground, effects))
                });
                same::<Result<Vec<Beaten>, NotNow>>("beat", &redis, &rules)?;
            }
            Step::Renew { owner } => self.renew(*owner).await?,
            Step::RenewAll => {
                for owner in 1..=OWNERS {
                    self.renew(owner).await?;
                }
            }
            Step::Silence { owner } => {
                for _ in 0..5 {
                    self.now += 2_500;
                    for other in (1..=OWNERS).filter(|other| other != owner) {
                        self.renew(other).await?;
                    }
                }
            }
            Step::Pass(time) => self.now += time,
            Step::Back(time) => {
                // Ends are forgotten by the rules when an account is touched and by Redis a few at a time: a clock
                // must not bring one back that only one of them still has.
                let back = self.now - time;
                let ends = self.ends().await.into_values().map(|(.., until)| until);
                let values = self.remembered().await.into_iter().map(|(.., until)| until);
                if !ends
                    .chain(values)
                    .any(|until| (back + 1..=self.now).contains(&until))
                {
                    self.now = back;
                }
            }
            Step::NewServer => self.server += 1,
            Step::Wipe => {
                let () = self.bench.ask(&["FLUSHALL"]).await;
                self.bucket = Bucket::default();
            }
        }
        self.compare().await
    }

    async fn order(&mut self, key: AccountKey, order: Order) -> Result<(), TestCaseError> {
        let life = self.life();
        let redis = outcome(self.bench.store.order(&key, order).await);
        let rules = self.rule(&key, &life, None, |a, g, e| a.order(order, g, e));
        same("order", &redis, &rules)
    }

    /// The rules' audit of a batch.
    fn audit(
        &mut self,
        life: &Life,
        sessions: &[(AccountKey, Holding)],
    ) -> Result<(Generation, Vec<usher::lease::model::Held>), NotNow> {
        let mut generation = Generation::NONE;
        let verdicts = self.batch(life, sessions, |account, holding, ground, effects| {
            let held = account.audit(holding, ground, effects)?;
            generation = ground.generation;
            Ok(held)
        })?;
        Ok((generation, verdicts))
    }

    /// A step for each of a batch: one script looks at all of it, so word is sent once for each account.
    fn batch<Q, T>(
        &mut self,
        life: &Life,
        questions: &[(AccountKey, Q)],
        mut rule: impl FnMut(&mut Account, &Q, &Ground<'_>, &mut Effects) -> Result<T, NotNow>,
    ) -> Result<Vec<T>, NotNow> {
        let used = |bucket: &Bucket, key: &AccountKey| bucket.account(key).map_or(0, Account::used);
        let mut touched: Vec<(AccountKey, u32, Effects)> = Vec::new();
        let mut verdicts = Ok(Vec::new());
        for (key, question) in questions {
            let before = used(&self.bucket, key);
            let mut effects = Effects::default();
            let answer = self
                .bucket
                .step(key, life, &mut effects, |account, ground, effects| {
                    rule(account, question, ground, effects)
                });
            match answer {
                Ok(answer) => verdicts.as_mut().unwrap().push(answer),
                Err(reason) => {
                    verdicts = Err(reason);
                    break;
                }
            }
            match touched.iter_mut().find(|(of, ..)| of == key) {
                Some((_, _, all)) => {
                    all.facts.extend(effects.facts);
                    all.looks.extend(effects.looks);
                }
                None => touched.push((key.clone(), before, effects)),
            }
        }
        for (key, before, effects) in touched {
            let after = used(&self.bucket, &key);
            self.keep(&key, effects, (before != after).then_some(after), None);
        }
        verdicts
    }

    async fn renew(&mut self, owner: u64) -> Result<(), TestCaseError> {
        let life = self.life();
        let mut upkeep = Vec::new();
        let mut redis = self.bench.store.renew(0, OwnerId(owner)).await.unwrap();
        let mut rules = self.bucket.renew(OwnerId(owner), &life, &mut upkeep);
        for (key, effects, used) in upkeep {
            self.keep(&key, effects, used, None);
        }
        redis.marked.sort();
        rules.marked.sort();
        same("renew", &redis, &rules)?;
        let mut owned = self.bench.store.owned(0, OwnerId(owner), None).await.unwrap();
        let all = self.bucket.accounts().flat_map(|(key, account)| {
            let mine = move |entry: &&Entry| entry.owner.0 == owner && entry.generation == rules.generation;
            account
                .entries()
                .iter()
                .filter(mine)
                .map(move |entry| (key.clone(), entry.fence()))
        });
        let mut all: Vec<_> = all.collect();
        let order = |item: &(AccountKey, Fence)| (item.0.clone(), item.1.session);
        owned.sort_by_key(order);
        all.sort_by_key(order);
        same("owned", &owned, &all)
    }

    /// The remembered ends, those of Redis above those of the rules.
    async fn ends(&self) -> Ends {
        let mut ends = self.rules_ends();
        ends.extend(read_ends(self.bench.ask(&["HGETALL", &key("tombstones")]).await));
        ends
    }

    /// The values that Redis remembers, those whose time is over too.
    async fn remembered(&self) -> BTreeSet<(String, String, Millis)> {
        let found: BTreeMap<String, String> = self.bench.ask(&["HGETALL", &key("remembered")]).await;
        read_values(&found)
    }

    /// What Redis remembers beyond the plays is what the rules do.
    async fn compare_remembered(&self) -> Result<(), TestCaseError> {
        let found: BTreeMap<String, String> = self.bench.ask(&["HGETALL", &key("remembered")]).await;
        let times = ["ZRANGE", &key("remembered_times"), "0", "-1", "WITHSCORES"];
        let times: BTreeMap<String, Millis> = self.bench.ask(&times).await;
        let values = read_values(&found);
        let mut last = BTreeMap::new();
        for (account, _, until) in &values {
            let last = last.entry(account.clone()).or_insert(*until);
            *last = (*last).max(*until);
        }
        same("times of what is remembered", &times, &last)?;
        let expected = self.bucket.accounts().flat_map(|(name, account)| {
            let text = keys::account(name);
            let of_account = account.remembered();
            of_account.map(move |(value, until)| (text.clone(), value.to_owned(), until))
        });
        let now = self.now;
        let alive = |(.., until): &(String, String, Millis)| *until > now;
        let expected: BTreeSet<_> = expected.filter(alive).collect();
        same(
            "remembered",
            &values.into_iter().filter(alive).collect(),
            &expected,
        )
    }

    fn rules_ends(&self) -> Ends {
        let end = |player: Player| {
            let end = self.bucket.account(&account(player.0))?.end_of(session(player))?;
            Some((session(player), end))
        };
        players().filter_map(end).collect()
    }

    fn rules_displacers(&self) -> BTreeMap<String, Value> {
        let displacer = |player: Player| {
            let table = self.bucket.account(&account(player.0))?;
            let (.., until) = table.end_of(session(player))?;
            let by = table.displacer_of(session(player))?;
            (until > self.now).then(|| (session(player).to_string(), device_text(by)))
        };
        players().filter_map(displacer).collect()
    }

    /// Everything that Redis holds, but the beat of the marker.
    async fn compare(&mut self) -> Result<(), TestCaseError> {
        let mut read = redis::pipe();
        read.cmd("HGETALL").arg(key("accounts"));
        for set in ["index", "marked"] {
            read.cmd("ZRANGE").arg(key(set)).arg("0").arg("-1");
        }
        for set in ["waiting", "tombstone_times", "expiries"] {
            read.cmd("ZRANGE")
                .arg(key(set))
                .arg("0")
                .arg("-1")
                .arg("WITHSCORES");
        }
        read.cmd("HGETALL").arg(key("owners"));
        read.cmd("HGETALL").arg(key("tombstones"));
        read.cmd("XRANGE").arg(key("events")).arg("-").arg("+");
        read.cmd("HGETALL").arg(key("displacers"));
        read.cmd("DEL").arg(key("events")).ignore();
        let found: Found = read
            .query_async(&mut self.bench.connection.clone())
            .await
            .unwrap();
        let (tables, index, marked, waiting, times, expiries, owners, ends, stream, displacers) = found;
        let mut expected = Expected::default();
        for (name, account) in self.bucket.accounts() {
            expected.add(&keys::account(name), account);
        }
        let table = |(key, text): (String, String)| (key, serde_json::from_str(&text).unwrap());
        same(
            "tables",
            &tables.into_iter().map(table).collect(),
            &expected.tables,
        )?;
        same("index", &index, &expected.index)?;
        same("marked", &marked, &expected.marked)?;
        same("waiting", &waiting, &expected.waiting)?;
        same("expiries", &expiries, &expected.expiries)?;
        let leases = self.bucket.leases().iter();
        let lease = |l: &Lease| format!("{} {} {}", l.until, l.since, l.renewed);
        let leases = leases.map(|(owner, l)| (keys::hex(owner.0), lease(l)));
        same("owners", &owners, &leases.collect())?;
        let ends = read_ends(ends);
        let until = ends
            .iter()
            .map(|(session, (.., until))| (session.to_string(), *until));
        same("tombstone times", &times, &until.collect())?;
        let now = self.now;
        let alive =
            |ends: Ends| -> Ends { ends.into_iter().filter(|(_, (.., until))| *until > now).collect() };
        let ends = alive(ends);
        let displacers = displacers
            .iter()
            .filter(|(session, _)| ends.contains_key(&SessionId::parse(session).unwrap()));
        let displacers: BTreeMap<String, Value> = displacers
            .map(|(session, text)| (session.clone(), serde_json::from_str(text).unwrap()))
            .collect();
        same("ends", &ends, &alive(self.rules_ends()))?;
        same("displacers", &displacers, &self.rules_displacers())?;
        same("facts", &facts(stream), &std::mem::take(&mut self.facts))?;
        self.compare_remembered().await?;
        for player in players() {
            if let Some(entry) = self.entry(player) {
                self.seen.insert(player, entry);
            }
        }
        Ok(())
    }

    /// The tables as the store reads them.
    async fn list(&mut self) -> Result<(), TestCaseError> {
        // At this time, and not at that of the last step.
        self.life();
        let store = &self.bench.store;
        let mut playing = BTreeSet::new();
        for (name, account) in self.bucket.accounts() {
            let entries = store.list(name).await.unwrap();
            let living = account.entries().iter().filter(|entry| !entry.is_over(self.now));
            same("list", &entries, &living.cloned().collect())?;
            if !account.entries().is_empty() {
                playing.insert(name.clone());
            }
        }
        let found = store.accounts(100).await.unwrap();
        same("accounts", &found.into_iter().collect(), &playing)
    }

    /// All word that was sent has come, and no other.
    async fn hear(&self) -> Result<(), TestCaseError> {
        let count = |word: &Told| word.values().map(Vec::len).sum::<usize>();
        let deadline = Instant::now() + Duration::from_secs(5);
        while count(&self.bench.heard.0.lock().unwrap()) < count(&self.word) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        let heard = self.bench.heard.0.lock().unwrap().clone();
        same("word", &heard, &self.word)
    }
}

fn key(name: &str) -> String {
    format!("{{{PREFIX}:0}}:v1:{name}")
}

fn players() -> impl Iterator<Item = Player> {
    (0..ACCOUNTS).flat_map(|account| (0..SESSIONS).map(move |number| (account, number)))
}

fn read_ends(ends: BTreeMap<String, String>) -> Ends {
    let end = |(session, text): (String, String)| {
        let parts: Vec<&str> = text.split(' ').collect();
        let code = serde_json::from_value(json!(parts[1])).unwrap();
        let end = (parts[0].parse().unwrap(), code, parts[2].parse().unwrap());
        (SessionId::parse(&session).unwrap(), end)
    };
    ends.into_iter().map(end).collect()
}

/// Account, key of the group, end.
fn read_values(found: &BTreeMap<String, String>) -> BTreeSet<(String, String, Millis)> {
    let values = found.iter().flat_map(|(account, text)| {
        let values: BTreeMap<String, Millis> = serde_json::from_str(text).unwrap();
        values
            .into_iter()
            .map(|(value, until)| (account.clone(), value, until))
    });
    values.collect()
}

fn device_text(device: &Device) -> Value {
    let mut text = json!({ "id": device.id });
    let (name, class) = (device.name.as_deref(), device.class.as_deref());
    for (field, value) in [("name", name), ("class", class), ("plan", device.plan.as_deref())] {
        if let Some(value) = value {
            text[field] = json!(value);
        }
    }
    text
}

fn entry_text(entry: &Entry) -> Value {
    let mut text = json!({
        "session": entry.session.to_string(),
        "owner": keys::hex(entry.owner.0),
        "epoch": entry.epoch,
        "generation": keys::hex(entry.generation.0),
        "device": device_text(&entry.device),
        "content": entry.content,
        "state": entry.state,
        "started": entry.started_at,
        "position": entry.progress.position_ms,
        "watched": entry.progress.watched_ms,
        "checkpoint": entry.checkpoint,
    });
    if let Some(attempt) = entry.attempt {
        text["attempt"] = json!(keys::hex(attempt.0));
    }
    if entry.settles > 0 {
        text["settles"] = json!(entry.settles);
    }
    if !entry.groups.is_empty() {
        text["groups"] = json!(entry.groups);
    }
    if entry.exempt {
        text["exempt"] = json!(true);
    }
    match &entry.mark {
        Some(Mark::Kick(code)) => text["mark"] = json!({ "kick": code }),
        Some(Mark::TakeOver { by, device, asked }) => {
            text["mark"] = json!({ "by": by.to_string(), "device": device_text(device), "asked": asked });
        }
        None => {}
    }
    text
}

fn waiter_text(waiter: &Waiter) -> Value {
    let mut text = json!({
        "session": waiter.session.to_string(),
        "owner": keys::hex(waiter.owner.0),
        "device": device_text(&waiter.device),
        "content": waiter.content,
        "limit": waiter.limit,
    });
    if !waiter.terms.is_plain() {
        text["terms"] = terms_text(&waiter.terms);
    }
    if let Some(victim) = waiter.victim {
        text["victim"] = json!(victim.to_string());
    }
    if waiter.refused {
        text["refused"] = json!(true);
    }
    if let Some(period) = waiter.period {
        text["period"] = json!(period);
    }
    text
}

/// A fact as the stream has it.
fn fields(key: &AccountKey, fact: &Fact) -> BTreeMap<String, String> {
    let (entry, at, code) = match fact {
        Fact::Started(entry) => (entry, entry.started_at, None),
        Fact::Ended { entry, code, at } => (entry, *at, Some(code.name())),
    };
    assert!(!matches!(entry.mark, Some(Mark::TakeOver { .. })) || code.is_some());
    let mut fields = BTreeMap::from([
        ("kind", code.map_or("started", |_| "ended").to_owned()),
        ("v", "1".to_owned()),
        ("tenant", key.tenant.to_string()),
        ("account", key.account.to_string()),
        ("session", entry.session.to_string()),
        ("epoch", entry.epoch.to_string()),
        ("owner", keys::hex(entry.owner.0)),
        ("device", entry.device.id.to_string()),
        ("content", entry.content.to_string()),
        (
            "state",
            serde_json::to_value(entry.state)
                .unwrap()
                .as_str()
                .unwrap()
                .to_owned(),
        ),
        ("started", entry.started_at.to_string()),
        ("at", at.to_string()),
        ("watched", entry.progress.watched_ms.to_string()),
        ("position", entry.progress.position_ms.to_string()),
        ("generation", keys::hex(entry.generation.0)),
    ]);
    let device = &*entry.device;
    let (name, class) = (device.name.as_deref(), device.class.as_deref());
    for (field, value) in [("name", name), ("class", class), ("plan", device.plan.as_deref())] {
        fields.extend(value.map(|value| (field, value.to_owned())));
    }
    fields.extend(code.map(|code| ("code", code.to_owned())));
    fields
        .into_iter()
        .map(|(field, value)| (field.to_owned(), value))
        .collect()
}

fn facts(stream: Vec<(String, BTreeMap<String, String>)>) -> Facts {
    let mut facts = Facts::new();
    for (_, fields) in stream {
        let key = keys::account(&AccountKey::new(&fields["tenant"], &fields["account"]));
        facts.entry(key).or_default().push(fields);
    }
    facts
}

#[test]
fn the_scripts_are_the_rules() {
    let cases = std::env::var("USHER_TWIN_CASES").map_or(60, |cases| cases.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let server = runtime.block_on(Redis::start(&[]));
    let bench = runtime.block_on(Bench::open(&server, 1));
    let mut runner = TestRunner::new(Config {
        cases,
        max_shrink_iters: 2_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..Config::default()
    });
    let result = runner.run(&vec(step(), 1..50), |steps| {
        runtime.block_on(async {
            let mut twins = Twins::new(&bench).await;
            // A history usually begins in an open bucket.
            let begin = [Step::RenewAll, Step::Pass(5_000), Step::RenewAll];
            for step in begin.iter().chain(&steps) {
                twins.run(step).await?;
            }
            twins.list().await?;
            twins.hear().await
        })
    });
    if let Err(failure) = result {
        panic!("{failure}\n{}", server.log());
    }
}

#[tokio::test]
async fn data_of_another_number_of_buckets_are_refused() {
    let server = Redis::start(&[]).await;
    let one = Bench::open(&server, 1).await;
    one.store.renew(0, OwnerId(1)).await.unwrap();
    let two = Bench::open(&server, 2).await;
    assert_eq!(two.store.renew(0, OwnerId(2)).await, Err(StoreError::Foreign(1)));
}
