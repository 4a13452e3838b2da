//! The store in Redis under the suite: one server for all tests that run at once, a key prefix for each bench, a link of
//! its own for each node. The store's clock is Redis's, moved on by what a test lets pass.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Mutex as AsyncMutex;

use usher::config::{self, Overrides};
use usher::lease::redis::mail::Mail as Ear;
use usher::lease::redis::store::{Layout, Pinned, RedisStore};
use usher::lease::redis::{Link, keys};
use usher::lease::store::Store;
use usher::protocol::id::OwnerId;
use usher::telemetry::Metrics;

use crate::redis_servers::{Redis, SERVERS};

use super::{Bench, Kept, Mail, Node};

/// Fewer than in production: a test renews in all of them all the time.
const BUCKETS: u16 = 4;

/// Both halves of a recovery: short, since a test begins in open buckets.
const HALF: Duration = Duration::from_millis(1);

/// Whoever opens the buckets.
const WITNESS: OwnerId = OwnerId(u64::MAX);

static SERVER: AsyncMutex<Weak<Redis>> = AsyncMutex::const_new(Weak::new());

static BENCHES: AtomicU32 = AtomicU32::new(0);

/// A prefix in a real Redis.
pub(crate) struct RedisBench {
    server: Arc<Redis>,
    prefix: String,
    pinned: Arc<Mutex<Pinned>>,
    kept: Kept,
}

impl RedisBench {
    async fn open() -> Self {
        let mut shared = SERVER.lock().await;
        let server = match shared.upgrade() {
            Some(server) => server,
            None => Arc::new(Redis::start(&[]).await),
        };
        *shared = Arc::downgrade(&server);
        drop(shared);
        let bench = Self {
            server,
            prefix: format!("contract{}", BENCHES.fetch_add(1, Ordering::Relaxed)),
            pinned: Arc::default(),
            kept: Kept::default(),
        };
        let witness = bench.store(WITNESS, Arc::default()).await;
        for bucket in 0..BUCKETS {
            witness.renew(bucket, WITNESS).await.unwrap();
        }
        bench.sleep(2 * HALF).await;
        bench
    }

    /// The store as a process has it, connected and listening.
    async fn store(&self, owner: OwnerId, mail: Arc<Mail>) -> RedisStore {
        let mut settings = config::load(None, [], &Overrides::default()).unwrap().redis;
        settings.url = self.server.url().into();
        let ear = Ear::new(mail, owner);
        let alarm = ear.alarm();
        let hear = move |channel: &str, payload: &[u8]| ear.deliver(channel, payload);
        let link = Link::open(&settings, Arc::new(Metrics::new()), hear).unwrap();
        let layout = Layout {
            prefix: self.prefix.clone(),
            buckets: BUCKETS,
            events: 1_000,
            halves: (HALF, HALF),
        };
        let store = RedisStore::new(link, layout, owner, alarm).pinned(Arc::clone(&self.pinned));
        let channels: Vec<_> = (0..BUCKETS)
            .map(|bucket| keys::mail(&self.prefix, bucket, owner))
            .collect();
        let mut question = vec!["PUBSUB", "SHARDNUMSUB"];
        question.extend(channels.iter().map(String::as_str));
        let deadline = Instant::now() + SERVERS;
        loop {
            let ears = self.server.ask(&question).await;
            let ears: Vec<(String, u32)> = redis::from_redis_value(ears).unwrap();
            if ears.iter().all(|(_, ears)| *ears == 1) && store.accounts(1).await.is_ok() {
                return store;
            }
            assert!(Instant::now() < deadline, "the link does not listen in time");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn with(threads: usize, test: impl AsyncFnOnce(Self)) {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.enable_all().worker_threads(threads).build().unwrap();
        runtime.block_on(async { test(Self::open().await).await });
    }
}

impl Bench for RedisBench {
    const HISTORIES: u32 = 12;

    fn run(test: impl AsyncFnOnce(Self)) {
        Self::with(1, test);
    }

    fn race(test: impl AsyncFnOnce(Self)) {
        Self::with(4, test);
    }

    async fn join(&self) -> Node {
        let (owner, mail) = (self.kept.next_owner(), Arc::<Mail>::default());
        Node {
            owner,
            store: Arc::new(self.store(owner, Arc::clone(&mail)).await),
            mail,
        }
    }

    fn kept(&self) -> &Kept {
        &self.kept
    }

    async fn sleep(&self, time: Duration) {
        self.pinned.lock().unwrap().offset_ms += u64::try_from(time.as_millis()).unwrap();
    }
}

/// All nodes hear at once that data were lost, not only the one that noticed.
#[test]
fn a_recovery_is_told_to_all() {
    RedisBench::run(async |bench| {
        let store = async || bench.store(bench.kept.next_owner(), Arc::default()).await;
        let (first, second) = (store().await, store().await);
        first.renew(0, OwnerId(1)).await.unwrap();
        let silent = tokio::time::timeout(Duration::from_millis(50), second.alarm()).await;
        assert!(silent.is_err(), "an alarm without a loss");
        let marker = &keys::of_bucket(&bench.prefix, 0)[0];
        let () = redis::from_redis_value(bench.server.ask(&["DEL", marker]).await).unwrap();
        first.renew(0, OwnerId(1)).await.unwrap();
        let heard = tokio::time::timeout(super::SOON, second.alarm()).await;
        assert!(heard.is_ok(), "the other node was not told");
    });
}
