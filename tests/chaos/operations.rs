//! Everything that players do, at random and without faults: never above the limit, never refused below it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::checker::{Report, Rules};
use crate::dice::Dice;
use crate::figures::Figures;
use crate::fleet::Fleet;
use crate::log::Mode;
use crate::swarm::{Door, Grant, Player, Start, Swarm, Told};

/// Devices of an account; its limit is three.
const DEVICES: u32 = 5;

/// A start that is undecided for longer is given up; the checker finds it.
const PATIENCE: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations() {
    let fleet = Fleet::sharing("operations", 3).await;
    run(&fleet, 3_000, 60).await;
}

/// An hour's worth of a small installation. Needs a release build.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "half an hour: a million operations"]
async fn operations_long() {
    let fleet = Fleet::sharing("operations_long", 3).await;
    let count = std::env::var("USHER_CHAOS_OPERATIONS").ok();
    run(
        &fleet,
        count.map_or(1_000_000, |count| count.parse().unwrap()),
        // As many as two cores serve in time: each of them does one thing after another without a pause.
        120,
    )
    .await;
}

/// The embedded default keeps the same promises.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_on_one_node() {
    let fleet = Fleet::alone("operations_on_one_node", 1).await;
    run(&fleet, 3_000, 60).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a minute or two"]
async fn operations_on_one_node_long() {
    let fleet = Fleet::alone("operations_on_one_node_long", 1).await;
    run(&fleet, 50_000, 200).await;
}

/// The proof that the checker can fail: nodes that share nothing grant three each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn independent_nodes_break_the_limit_and_the_checker_says_so() {
    let fleet = Fleet::alone("independent_nodes", 3).await;
    play(&fleet, 600, 20).await;
    let report = crate::checker::check(&fleet.swarm.log.entries(), &Rules::of_limit(3));
    assert!(
        report.limit_violations() > 10,
        "{} found",
        report.limit_violations()
    );
    assert!(report.most_playing > 3);
    // A session of one node cannot go on at another.
    let lost = |violation: &&crate::checker::Violation| {
        matches!(violation, crate::checker::Violation::NotResumed { .. })
    };
    assert!(report.violations.iter().any(|violation| lost(&violation)));
}

async fn run(fleet: &Fleet, count: u64, accounts: u32) -> Report {
    let start = Instant::now();
    play(fleet, count, accounts).await;
    let took = start.elapsed();
    let report = fleet.verdict(&Rules::of_limit(3));
    assert!(
        report.denials > 0 && report.resumed > 0 && report.most_playing == 3,
        "{report:?}"
    );
    Figures::of("operations")
        .add("operations", count)
        .add("accounts", accounts)
        .add("seconds", took.as_secs())
        .add("grants", report.grants)
        .add("resumed", report.resumed)
        .add("denials", report.denials)
        .add("refusals", report.refusals)
        .add("most_playing", report.most_playing)
        .add("violations", report.violations.len())
        .times("grant", &report.grant_times)
        .times("takeover", &report.takeover_times)
        .print();
    report
}

/// Lets all devices live until so many operations are done.
async fn play(fleet: &Fleet, count: u64, accounts: u32) {
    let done = Arc::new(AtomicU64::new(0));
    let mut devices = JoinSet::new();
    for account in 0..accounts {
        for device in 0..DEVICES {
            let device = Device {
                swarm: Arc::clone(&fleet.swarm),
                doors: fleet.doors(),
                account,
                device,
                dice: Dice::new(u64::from(account * DEVICES + device)),
                done: Arc::clone(&done),
                count,
                broken: None,
            };
            devices.spawn(device.live());
        }
    }
    let start = Instant::now();
    let progress = tokio::spawn(async move {
        loop {
            sleep(Duration::from_secs(30)).await;
            let done = done.load(Ordering::Relaxed);
            eprintln!(
                "operations: {done} of {count} after {} s",
                start.elapsed().as_secs()
            );
        }
    });
    while let Some(device) = devices.join_next().await {
        device.unwrap();
    }
    progress.abort();
}

struct Device {
    swarm: Arc<Swarm>,
    doors: Vec<Door>,
    account: u32,
    device: u32,
    dice: Dice,
    done: Arc<AtomicU64>,
    count: u64,
    /// The session whose connection broke last.
    broken: Option<Grant>,
}

impl Device {
    async fn live(mut self) {
        let mut playing = None;
        while self.done.fetch_add(1, Ordering::Relaxed) < self.count {
            sleep(self.dice.millis(0, 400)).await;
            playing = match playing {
                None => self.start().await,
                Some((player, grant)) => self.act(player, grant).await,
            };
        }
        if let Some((mut player, _)) = playing {
            player.stop();
            player.closed().await;
        }
    }

    /// One operation of a player that does not play.
    async fn start(&mut self) -> Option<(Player, Grant)> {
        let mut start = Start::of(self.account, self.device);
        if let Some(broken) = self.broken.take()
            && self.dice.percent(80)
        {
            start = start.resume(&broken);
        }
        match self.dice.below(100) {
            0..50 => self.enter(start).await,
            50..65 => self.enter(start.mode(Mode::Wait)).await,
            65..80 => self.enter(start.mode(Mode::Oldest)).await,
            _ => self.enter(start.mode(Mode::Ask)).await,
        }
    }

    /// One operation of a player that plays, or did until now.
    async fn act(&mut self, mut player: Player, grant: Grant) -> Option<(Player, Grant)> {
        while let Some(told) = player.next_within(Duration::ZERO).await {
            if let Told::Closed { .. } = told {
                return None;
            }
        }
        match self.dice.below(100) {
            0..35 => player.stop(),
            35..45 => player.close(1000),
            45..50 => player.close(1001),
            50..70 => {
                player.cut().await;
                self.broken = Some(grant);
                return None;
            }
            // The next film on the same device, with or without its secret, while the old socket still lives.
            70..80 => return self.enter(Start::of(self.account, self.device)).await,
            80..90 => {
                return self
                    .enter(Start::of(self.account, self.device).resume(&grant))
                    .await;
            }
            _ => return Some((player, grant)),
        }
        timeout(PATIENCE, player.closed())
            .await
            .expect("a stop is answered");
        None
    }

    async fn enter(&mut self, start: Start) -> Option<(Player, Grant)> {
        let door = self.doors[self.dice.below(self.doors.len())].clone();
        let mut player = self.swarm.open(&door, &start).await.ok()?;
        match player.next_within(PATIENCE).await? {
            Told::Granted(grant) => Some((player, grant)),
            Told::Waiting if start.mode == Mode::Wait => self.wait(player).await,
            Told::Waiting => self.hope(player).await,
            Told::Denied { holders } if start.mode == Mode::Ask => {
                if holders.is_empty() || self.dice.percent(25) {
                    player.wait();
                    return self.wait(player).await;
                }
                player.take_over(holders[self.dice.below(holders.len())]);
                self.hope(player).await
            }
            _ => None,
        }
    }

    /// Waits in the line for a while, then leaves it in one way or another.
    async fn wait(&mut self, mut player: Player) -> Option<(Player, Grant)> {
        let patience = self.dice.millis(200, 2_000);
        if let Ok(outcome) = timeout(patience, player.granted()).await {
            return outcome.ok().map(|grant| (player, grant));
        }
        if self.dice.percent(50) {
            player.close(1000);
            player.closed().await;
        } else {
            player.cut().await;
        }
        None
    }

    /// Waits for what a take-over brings.
    async fn hope(&mut self, mut player: Player) -> Option<(Player, Grant)> {
        let outcome = timeout(PATIENCE, player.granted()).await;
        outcome
            .expect("a take-over is decided")
            .ok()
            .map(|grant| (player, grant))
    }
}
