//! Redis loses what it knew: nobody who plays is dropped, and nobody gets a fourth slot out of it.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::audience::{Audience, Intruders};
use crate::checker::Rules;
use crate::cutter::Cutter;
use crate::figures::Figures;
use crate::fleet::Fleet;
use crate::servers::Redis;
use crate::swarm::Start;

/// The recovery window.
const WINDOW: Duration = Duration::from_secs(5);

/// Until every node has seen that Redis is back or new: one renewal, and a reconnect.
const DETECTION: Duration = Duration::from_millis(2_500 + 1_000);

/// Accounts whose table is compared, and at which others try to get in.
const LOOKED_AT: u32 = 40;

/// While Redis is away nobody new may get in: then there is no excuse for a fourth.
const REFUSE: &str = "[outage]\nadmit = \"refuse\"\n";

#[derive(Clone, Copy, PartialEq)]
enum Loss {
    Flushed,
    RestartedEmpty,
    OldSnapshot,
    ReplicaPromoted,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_flushed() {
    lose("redis_flushed", Loss::Flushed, 100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_restarted_empty() {
    lose("redis_restarted_empty", Loss::RestartedEmpty, 100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_old_snapshot() {
    lose("redis_old_snapshot", Loss::OldSnapshot, 100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_promoted() {
    lose("replica_promoted", Loss::ReplicaPromoted, 100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "5,000 sessions, four times"]
async fn redis_losses_long() {
    lose("redis_flushed_long", Loss::Flushed, 1_667).await;
    lose("redis_restarted_empty_long", Loss::RestartedEmpty, 1_667).await;
    lose("redis_old_snapshot_long", Loss::OldSnapshot, 1_667).await;
    lose("replica_promoted_long", Loss::ReplicaPromoted, 1_667).await;
}

async fn lose(name: &'static str, loss: Loss, accounts: u32) {
    let mut fleet = Fleet::with(name, 3, REFUSE).await;
    let replica = match loss {
        Loss::ReplicaPromoted => {
            let cutter = Cutter::for_replica_of(fleet.redis().port);
            // It waits for its primary, which the cutter, a task of this runtime, must carry meanwhile.
            let port = cutter.port;
            let replica = tokio::task::spawn_blocking(move || Redis::replica_of(port))
                .await
                .unwrap();
            Some((replica, cutter))
        }
        _ => None,
    };
    let doors = fleet.doors();
    let mut audience = Audience::full(&fleet.swarm, &doors, accounts, 2).await;
    // What comes now, and who left now, is what will be lost: the snapshot and the replica know nothing of it.
    let mut leavers = Audience::new();
    for account in 0..accounts {
        leavers.seat(
            &fleet.swarm,
            &doors,
            Start::of(account, 50),
            account as usize % 3,
            |_, _, _| true,
        );
    }
    leavers.all_play(Duration::from_secs(60)).await;
    match (&replica, loss) {
        (Some((_, link)), _) => link.black_hole(),
        (None, Loss::OldSnapshot) => fleet.redis().save(),
        _ => {}
    }
    leavers.leave().await;
    for account in 0..accounts {
        audience.seat(
            &fleet.swarm,
            &doors,
            Start::of(account, 2),
            account as usize % 3,
            |_, _, _| true,
        );
    }
    audience.all_play(Duration::from_secs(60)).await;
    let before: Vec<_> = audience
        .seats
        .iter()
        .map(|seat| seat.state.borrow().playing)
        .collect();
    let looked_at: Vec<u32> = (0..accounts.min(LOOKED_AT)).collect();
    let intruders = Intruders::of(&fleet.swarm, &doors, &looked_at, Duration::from_secs(1));
    sleep(Duration::from_secs(1)).await;

    fleet.swarm.log.fault("lost");
    match (loss, replica.as_ref()) {
        (Loss::Flushed, _) => fleet.redis().flush(),
        (Loss::RestartedEmpty, _) => fleet.redis().start_again(true),
        (Loss::OldSnapshot, _) => fleet.redis().start_again(false),
        (Loss::ReplicaPromoted, replica) => {
            let (replica, link) = replica.unwrap();
            fleet.redis().kill();
            link.cut();
            replica.promote();
            for cutter in &fleet.cutters {
                cutter.lead_to(replica.port);
            }
        }
    }
    let returned = Instant::now();
    fleet.swarm.log.fault("back");
    let repaired = loop {
        let mut wrong = None;
        for account in &looked_at {
            let mut listed = fleet.nodes[*account as usize % 3].sessions(*account).await;
            if let Some(listed) = &mut listed {
                listed.sort_unstable();
            }
            if listed.as_ref() != Some(&audience.playing(*account)) {
                wrong = Some((*account, listed));
                break;
            }
        }
        match wrong {
            None => break returned.elapsed(),
            Some(wrong) if returned.elapsed() > Duration::from_secs(20) => {
                panic!(
                    "{name}: the table is not the union of the sessions: account {} is {:?}",
                    wrong.0, wrong.1
                )
            }
            Some(_) => sleep(Duration::from_millis(100)).await,
        }
    };
    // Long enough for two more renewals, and for whoever would be ended late.
    let rest = Duration::from_secs(14).saturating_sub(returned.elapsed());
    sleep(rest).await;

    for (seat, before) in audience.seats.iter().zip(before) {
        assert_eq!(
            seat.state.borrow().playing,
            before,
            "device {} of {}",
            seat.device,
            seat.account
        );
    }
    assert_eq!(intruders.grants().len(), 0, "a fourth got in");
    let report = fleet.verdict(&Rules::of_limit(3));
    Figures::of(name)
        .add("sessions", accounts * 3)
        .add("dropped", 0)
        .add("denials", report.denials)
        .add("most_playing", report.most_playing)
        .add("repaired_after_ms", repaired.as_millis())
        .print();
    assert!(repaired <= WINDOW + DETECTION, "{repaired:?}");
}
