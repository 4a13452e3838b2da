//! A primary of Redis dies, and a replica takes over: under Sentinel and in a cluster, tuned and with the servers' own
//! time-outs. Who plays goes on; who comes is let in provisionally at the latest, and for certain soon after.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::audience::Audience;
use crate::checker::{Rules, Window};
use crate::figures::{Figures, percentile};
use crate::fleet::Fleet;
use crate::redis_servers::{Cluster, Sentinels};
use crate::swarm::{Start, Swarm};

const TUNED: Duration = Duration::from_secs(2);

/// `down-after-milliseconds` and `cluster-node-timeout`, as the servers have them.
const SENTINEL_DEFAULT: Duration = Duration::from_secs(30);
const CLUSTER_DEFAULT: Duration = Duration::from_secs(15);

/// From the promotion on, new starts are certain within this.
const WORKS: Duration = Duration::from_secs(10);

/// Accounts that only a start asks about, so many that every shard of a cluster has some.
const PROBES: u32 = 24;

/// Its accounts begin here.
const PROBED: u32 = 50_000;

/// A recovery, the renewal that finds it out, and a reconnect.
const RECONCILED: Duration = Duration::from_secs(10);

enum Servers {
    Sentinels(Sentinels),
    Cluster(Cluster),
}

impl Servers {
    fn url(&self) -> String {
        match self {
            Self::Sentinels(set) => set.url(),
            Self::Cluster(cluster) => cluster.url(),
        }
    }

    fn kill_primary(&mut self) {
        match self {
            Self::Sentinels(set) => set.servers[0].kill(),
            Self::Cluster(cluster) => cluster.servers[0].kill(),
        }
    }

    /// Whether the replica has taken over.
    async fn promoted(&self) -> bool {
        let replicas = match self {
            Self::Sentinels(set) => &set.servers[1..],
            Self::Cluster(cluster) => &cluster.servers[3..4],
        };
        for replica in replicas {
            // It closes its connections while it changes its role.
            let info = replica.try_ask(&["INFO", "replication"]).await;
            let info: String = info
                .ok()
                .and_then(|info| redis::from_redis_value(info).ok())
                .unwrap_or_default();
            if info.contains("role:master") {
                return true;
            }
        }
        false
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinel_primary_killed() {
    let servers = Servers::Sentinels(Sentinels::start(TUNED).await);
    fail_over("sentinel_primary_killed", servers, 30, TUNED).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_primary_killed() {
    let servers = Servers::Cluster(Cluster::start(TUNED).await);
    fail_over("cluster_primary_killed", servers, 30, TUNED).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes: 3,000 sessions, and the servers' own time-outs"]
async fn primary_killed_long() {
    let servers = Servers::Sentinels(Sentinels::start(TUNED).await);
    fail_over("sentinel_primary_killed_long", servers, 1_000, TUNED).await;
    let servers = Servers::Cluster(Cluster::start(TUNED).await);
    fail_over("cluster_primary_killed_long", servers, 1_000, TUNED).await;
    let servers = Servers::Sentinels(Sentinels::start(SENTINEL_DEFAULT).await);
    fail_over("sentinel_default_long", servers, 1_000, SENTINEL_DEFAULT).await;
    let servers = Servers::Cluster(Cluster::start(CLUSTER_DEFAULT).await);
    fail_over("cluster_default_long", servers, 1_000, CLUSTER_DEFAULT).await;
}

/// Two of three slots are taken; two more viewers come while the primary is dead.
async fn fail_over(name: &'static str, mut servers: Servers, accounts: u32, down_after: Duration) {
    let fleet = Fleet::at(name, 3, servers.url()).await;
    let doors = fleet.doors();
    let mut audience = Audience::full(&fleet.swarm, &doors, accounts, 2).await;
    let before: Vec<_> = audience
        .seats
        .iter()
        .map(|seat| seat.state.borrow().playing)
        .collect();
    // The replicas have all of it: what a promotion loses is tried elsewhere.
    sleep(Duration::from_secs(1)).await;

    let away = fleet.swarm.log.fault("primary killed");
    servers.kill_primary();
    for account in 0..accounts.min(100) {
        for device in [10, 11] {
            let home = (account + device) as usize % 3;
            audience.seat(
                &fleet.swarm,
                &doors,
                Start::of(account, device),
                home,
                |_, _, _| true,
            );
        }
    }
    let killed = Instant::now();
    while !servers.promoted().await {
        assert!(
            killed.elapsed() < down_after * 2 + Duration::from_secs(30),
            "no promotion"
        );
        sleep(Duration::from_millis(20)).await;
    }
    let promoted = fleet.swarm.log.fault("replica promoted");
    let outage = killed.elapsed();
    let certain = probe(&fleet, promoted).await;
    let rest = (promoted + RECONCILED).saturating_sub(fleet.swarm.log.now());
    sleep(rest).await;

    for (seat, before) in audience.seats.iter().zip(&before) {
        assert_eq!(seat.state.borrow().playing, *before, "the fail-over ended a play");
    }
    for account in 0..accounts.min(100) {
        let playing = audience.playing(account).len();
        assert_eq!(playing, 3, "one newcomer of account {account} has the free slot");
    }
    let provisional = metric(&fleet, "usher_provisional_sessions").await;
    assert_eq!(provisional, 0, "all are settled");
    let mut rules = Rules::of_limit(3);
    rules.windows.push(Window {
        from: away,
        to: promoted + RECONCILED,
        node: None,
    });
    let report = fleet.verdict(&rules);
    Figures::of(name)
        .add("sessions", accounts * 2)
        .add("dropped", 0)
        .add("promoted_after_ms", outage.as_millis())
        .add("provisional", report.provisional)
        .times("certain_after_promotion", &certain)
        .print();
    assert!(percentile(&certain, 100) <= WORKS, "{certain:?}");
}

/// When a start in each of many accounts was answered for certain, since the promotion.
async fn probe(fleet: &Fleet, promoted: Duration) -> Vec<Duration> {
    let doors = fleet.doors();
    let probes = (0..PROBES).map(|number| {
        let (swarm, door) = (fleet.swarm.clone(), doors[number as usize % doors.len()].clone());
        async move {
            for attempt in 0.. {
                let start = Start::of(PROBED + number * 100 + attempt, 0);
                if let Some(at) = certain(&swarm, &door, &start).await {
                    return at.saturating_sub(promoted);
                }
                sleep(Duration::from_millis(200)).await;
            }
            unreachable!()
        }
    });
    futures_util::future::join_all(probes).await
}

/// The time of a grant that is not provisional. Each try is another account of the same door.
async fn certain(
    swarm: &std::sync::Arc<Swarm>,
    door: &crate::swarm::Door,
    start: &Start,
) -> Option<Duration> {
    let mut player = swarm.open(door, start).await.ok()?;
    let grant = player.granted().await.ok()?;
    player.stop();
    player.closed().await;
    (!grant.provisional).then_some(grant.at)
}

/// The sum of a metric over all nodes.
async fn metric(fleet: &Fleet, name: &str) -> u64 {
    let mut sum = 0;
    for node in &fleet.nodes {
        let (_, text) = node.get("/metrics").await.expect("metrics");
        let line = text.lines().find(|line| line.starts_with(name)).expect(name);
        sum += line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64;
    }
    sum
}
