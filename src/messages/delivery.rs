//! From a stored message to every open socket that it is for, on this node and, by the wire, on the others.
//!
//! Pub/sub for speed, the database for truth: a message names the one before it to the same account, so that a socket
//! that missed one sees the gap with the next, and is read to. What nobody would notice (the last message of an account,
//! lost) is found by a slow look at the newest ids, and at once after a subscription began anew.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::gateway::ear::{Direct, Heard};
use crate::gateway::registry::Registry;
use crate::gateway::seat::Seat;
use crate::protocol::id::AccountKey;
use crate::protocol::message::{ROOM, room};
use crate::protocol::server::{ServerMessage, encode};
use crate::telemetry::Metrics;

use super::boxed;
use super::rooms::{Rooms, Saying};
use super::store::{Message, Store};
use super::text_of;
use super::wire::{self, Mouth, Said, What};

/// Sockets that wait to be compared with the database, or read to.
const WAITING: usize = 8_192;

/// Accounts compared by one statement.
const COMPARED: usize = 500;

/// Newcomers are compared together when they come within this time.
const TOGETHER: Duration = Duration::from_millis(20);

/// The database is asked again after this time.
const AGAIN: Duration = Duration::from_secs(1);

/// Messages read at once, and sockets read to at once.
const PAGE: u32 = 100;
const READERS: usize = 4;

/// How long other nodes have to say how many are in a room, and how long that is remembered.
const COUNTED_WITHIN: Duration = Duration::from_millis(150);
const COUNT_KEPT: Duration = Duration::from_secs(1);

/// Rooms whose presence is asked for at once; those beyond show this node's alone.
const MOST_COUNTED: usize = 1_000;

/// A socket of an account.
type Listener = (AccountKey, Weak<Seat>);

/// A socket to be read to, and the newest message that is known to be there.
type Missing = (AccountKey, Weak<Seat>, u64);

/// What the other nodes said about a room, and when they were asked.
type Counted = (Instant, HashMap<String, u64>);

/// Delivers.
pub(super) struct Delivery {
    store: Store,
    registry: Arc<Registry>,
    pub(super) rooms: Rooms,
    mouth: Mouth,
    metrics: Arc<Metrics>,
    newcomers: mpsc::Sender<Listener>,
    missing: mpsc::Sender<Missing>,
    counted: Mutex<HashMap<(String, String), Counted>>,
}

/// The receiving ends, for the tasks.
pub(super) struct Ends {
    newcomers: mpsc::Receiver<Listener>,
    missing: mpsc::Receiver<Missing>,
    rooms: mpsc::Receiver<Saying>,
}

impl Delivery {
    pub(super) fn new(
        store: Store,
        registry: Arc<Registry>,
        mouth: Mouth,
        metrics: &Arc<Metrics>,
    ) -> (Arc<Self>, Ends) {
        let (rooms, words) = Rooms::new(metrics);
        let (newcomers, new) = mpsc::channel(WAITING);
        let (missing, gaps) = mpsc::channel(WAITING);
        let delivery = Self {
            store,
            registry,
            rooms,
            mouth,
            metrics: Arc::clone(metrics),
            newcomers,
            missing,
            counted: Mutex::default(),
        };
        let ends = Ends {
            newcomers: new,
            missing: gaps,
            rooms: words,
        };
        (Arc::new(delivery), ends)
    }

    /// The tasks of delivery, which end with the node.
    pub(super) fn start(
        self: &Arc<Self>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
        ends: Ends,
        poll: Duration,
        renewed: Option<watch::Receiver<u64>>,
    ) {
        let this = || Arc::clone(self);
        let (a, b, c, d) = (this(), this(), this(), this());
        let readers = tasks.clone();
        let run = |task| tasks.spawn(stop.clone().run_until_cancelled_owned(task));
        run(boxed(async move { a.welcome(ends.newcomers).await }));
        run(boxed(b.read_to_all(ends.missing, readers)));
        run(boxed(async move { c.rooms.speak(ends.rooms).await }));
        run(boxed(async move { d.look(poll, renewed).await }));
    }

    /// A message is stored: everybody whom it is for hears of it.
    pub(super) fn announce(&self, tenant: &str, message: &Message, before: u64) {
        self.deliver(tenant, message, before);
        let said = Said {
            id: message.id,
            before,
            from: message.from.clone(),
            content: message.content.clone(),
            sent_at: message.sent_at,
        };
        self.mouth
            .say(&self.metrics, tenant, &message.to, What::Said(said));
    }

    /// Hears other nodes, for as long as the node runs.
    pub(super) async fn hear(self: Arc<Self>, mut heard: mpsc::Receiver<Vec<u8>>) {
        while let Some(payload) = heard.recv().await {
            let Some(word) = wire::read(&payload, &self.mouth.node) else {
                continue;
            };
            match word.what {
                What::Said(said) => {
                    let message = Message {
                        id: said.id,
                        from: said.from,
                        to: word.to,
                        content: said.content,
                        sent_at: said.sent_at,
                    };
                    self.deliver(&word.tenant, &message, said.before);
                }
                What::HowMany(_) => {
                    let content = room(&word.to).unwrap_or_default();
                    let present = self.rooms.present(&word.tenant.as_str().into(), content);
                    if present > 0 {
                        let what = What::Present(present);
                        self.mouth.say(&self.metrics, &word.tenant, &word.to, what);
                    }
                }
                What::Present(present) => {
                    let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some((_, nodes)) = counted.get_mut(&(word.tenant, word.to)) {
                        nodes.insert(word.node, present);
                    }
                }
            }
        }
    }

    fn deliver(&self, tenant: &str, message: &Message, before: u64) {
        let Some(text) = frame(message) else { return };
        if let Some(content) = room(&message.to) {
            return self.rooms.say(tenant, content, text);
        }
        let account = AccountKey::new(tenant, &message.to);
        let direct = Direct {
            id: message.id,
            before,
            text,
        };
        for seat in self.registry.of_account(&account) {
            if seat.offer(&direct) == Heard::Gap {
                self.read_to(&account, &seat, message.id);
            }
        }
    }

    /// A socket listens from now on.
    pub(super) fn welcome_soon(&self, account: &AccountKey, seat: &Arc<Seat>) {
        // With no room the slow look finds it.
        let _ = self.newcomers.try_send((account.clone(), Arc::downgrade(seat)));
    }

    /// A socket misses something.
    pub(super) fn read_to(&self, account: &AccountKey, seat: &Arc<Seat>, newest: u64) {
        let missing = (account.clone(), Arc::downgrade(seat), newest);
        let _ = self.missing.try_send(missing);
    }

    /// How many sockets are in a room, on all nodes that answer soon.
    pub(super) async fn present(&self, tenant: &Arc<str>, content: &str) -> u64 {
        let here = self.rooms.present(tenant, content);
        if !self.mouth.reaches_others() {
            return here;
        }
        let key = (tenant.to_string(), format!("{ROOM}{content}"));
        let asks = {
            let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
            counted.retain(|_, (asked, _)| asked.elapsed() < COUNT_KEPT);
            let fresh = !counted.contains_key(&key) && counted.len() < MOST_COUNTED;
            if fresh {
                counted.insert(key.clone(), (Instant::now(), HashMap::new()));
            }
            fresh
        };
        if asks {
            self.mouth.say(&self.metrics, &key.0, &key.1, What::HowMany(true));
        }
        tokio::time::sleep(COUNTED_WITHIN).await;
        let counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let elsewhere: u64 = counted.get(&key).map_or(0, |(_, nodes)| nodes.values().sum());
        here + elsewhere
    }

    /// Tells those who came what the newest message is, so that they see a gap.
    async fn welcome(&self, mut newcomers: mpsc::Receiver<Listener>) {
        let mut waiting = Vec::new();
        while newcomers.recv_many(&mut waiting, COMPARED).await > 0 {
            tokio::time::sleep(TOGETHER).await;
            while waiting.len() < COMPARED {
                match newcomers.try_recv() {
                    Ok(one) => waiting.push(one),
                    Err(_) => break,
                }
            }
            let seats = waiting
                .drain(..)
                .filter_map(|(account, seat)| Some((account, seat.upgrade()?)));
            let seats: Vec<_> = seats.collect();
            while !self.compare(&seats).await {
                tokio::time::sleep(AGAIN).await;
            }
        }
    }

    /// Compares sockets with the newest message of their accounts; false: the database does not answer.
    async fn compare(&self, seats: &[(AccountKey, Arc<Seat>)]) -> bool {
        let mut tenants: BTreeMap<&str, Vec<&(AccountKey, Arc<Seat>)>> = BTreeMap::new();
        for one in seats {
            tenants.entry(&one.0.tenant).or_default().push(one);
        }
        for (tenant, seats) in tenants {
            for some in seats.chunks(COMPARED) {
                let names: Vec<&str> = some.iter().map(|(account, _)| &*account.account).collect();
                let Ok(newest) = self.store.newest_ids(tenant, &names).await else {
                    return false;
                };
                let newest: HashMap<String, u64> = newest.into_iter().collect();
                for (account, seat) in some {
                    let id = newest.get(&*account.account).copied().unwrap_or_default();
                    if seat.compare(id) {
                        self.read_to(account, seat, id);
                    }
                }
            }
        }
        true
    }

    async fn read_to_all(self: Arc<Self>, mut missing: mpsc::Receiver<Missing>, tasks: TaskTracker) {
        let places = Arc::new(Semaphore::new(READERS));
        while let Some((account, seat, newest)) = missing.recv().await {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            let this = Arc::clone(&self);
            tasks.spawn(async move {
                let _place = place;
                if let Some(seat) = seat.upgrade() {
                    this.read(&account, &seat, newest).await;
                }
            });
        }
    }

    /// Reads to a socket until it has heard everything, or takes no more.
    async fn read(&self, account: &AccountKey, seat: &Seat, newest: u64) {
        while let Some(mut after) = seat.begin_reading() {
            loop {
                let page = self
                    .store
                    .received(&account.tenant, &account.account, after, PAGE)
                    .await;
                // The slow look comes again.
                let Ok(page) = page else { break };
                let taken = page.iter().all(|message| {
                    let text = frame(message);
                    text.is_none_or(|text| seat.read(message.id, &text) != Heard::Full)
                });
                match page.last() {
                    _ if !taken => break,
                    Some(last) if page.len() >= PAGE as usize => after = last.id,
                    // What was removed between is not missing.
                    _ => {
                        seat.pass(newest);
                        break;
                    }
                }
            }
            if !seat.end_reading() {
                return;
            }
        }
    }

    /// Looks for what listeners missed, bucket by bucket, and at all of them when a subscription began anew.
    async fn look(&self, every: Duration, mut renewed: Option<watch::Receiver<u64>>) {
        let buckets = self.registry.buckets();
        let pause = every / u32::from(buckets.max(1));
        let mut bucket = 0;
        loop {
            let anew = async {
                let changed = match &mut renewed {
                    Some(renewed) => renewed.changed().await.is_ok(),
                    None => false,
                };
                if !changed {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {
                    bucket = (bucket + 1) % buckets.max(1);
                    self.compare(&self.registry.listeners(bucket)).await;
                }
                () = anew => {
                    // What was published before the subscription and stored after this look is heard by it.
                    for bucket in 0..buckets {
                        self.compare(&self.registry.listeners(bucket)).await;
                    }
                }
            }
        }
    }
}

/// The frame of a message.
pub(super) fn frame(message: &Message) -> Option<Utf8Bytes> {
    let text = text_of(message)?;
    Some(encode(&ServerMessage::Message(text), None).into())
}
