//! Redis is away, for everybody or for one node: who plays goes on, and what was granted meanwhile is put right.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::sleep;

use crate::audience::{Audience, Intruders, Seat};
use crate::checker::{Allowed, Rules, Window};
use crate::figures::Figures;
use crate::fleet::Fleet;
use crate::log::{Mode, What};
use crate::swarm::{Start, Told};

/// How long Redis is away.
const AWAY: Duration = Duration::from_secs(20);

/// A recovery, the renewal that finds it out, and a reconnect.
const RECONCILED: Duration = Duration::from_millis(5_000 + 2_500 + 2_500);

/// Until a node may take a Redis that does not answer for one that is away.
const NOTICED: Duration = Duration::from_secs(3);

/// Nodes that Redis does not answer know its time only as well as its last answers came fast: on a machine that is full
/// of players, tenths of a second.
const APART: Duration = Duration::from_millis(500);

fn device(audience: &Audience, account: u32, device: u32) -> &Seat {
    let mut seats = audience.seats.iter();
    seats
        .find(|seat| seat.account == account && seat.device == device)
        .unwrap()
}

/// Two of three slots are taken; while Redis is away a newcomer on each of three nodes gets in provisionally.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_killed() {
    local("redis_killed", 40).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "5,000 sessions"]
async fn redis_killed_long() {
    local("redis_killed_long", 1_000).await;
}

async fn local(name: &'static str, accounts: u32) {
    let mut fleet = Fleet::sharing(name, 3).await;
    let doors = fleet.doors();
    let mut audience = Audience::full(&fleet.swarm, &doors, accounts, 2).await;
    let before: Vec<_> = audience
        .seats
        .iter()
        .map(|seat| seat.state.borrow().playing)
        .collect();
    let away = fleet.swarm.log.fault("redis away");
    fleet.redis().kill();
    sleep(NOTICED).await;
    for newcomer in 0..3 {
        for account in 0..accounts {
            let start = Start::of(account, 10 + newcomer);
            audience.seat(&fleet.swarm, &doors, start, newcomer as usize, |_, _, _| true);
        }
        // One after another: which is the oldest must be certain.
        audience.all_play(Duration::from_secs(60)).await;
        sleep(APART).await;
    }
    for seat in audience.seats.iter().filter(|seat| seat.device >= 10) {
        let state = seat.state.borrow();
        assert!(state.provisional, "a grant without Redis says so");
        assert_eq!(state.playing.map(|(node, _)| node), Some(seat.home));
    }
    sleep((away + AWAY).saturating_sub(fleet.swarm.log.now())).await;
    for (seat, before) in audience.seats.iter().zip(&before) {
        assert_eq!(seat.state.borrow().playing, *before, "an outage ended a play");
    }
    fleet.redis().start_again(true);
    let back = fleet.swarm.log.fault("redis back");
    sleep(RECONCILED).await;

    // The checker finds, from here on, whoever is above the limit. Who stays is the oldest.
    for account in 0..accounts {
        for of in [0, 1, 10] {
            let state = device(&audience, account, of).state.borrow();
            assert!(
                state.playing.is_some(),
                "device {of} of {account} is older, and stays: {state:?}"
            );
        }
        for of in [11, 12] {
            let state = device(&audience, account, of).state.borrow();
            assert!(
                state.over.is_some(),
                "device {of} of {account} is beyond the limit: {state:?}"
            );
        }
    }
    let mut rules = Rules::of_limit(3);
    rules.windows.push(Window {
        from: away,
        to: back + RECONCILED,
        node: None,
    });
    let report = fleet.verdict(&rules);
    let ended: Vec<_> = fleet
        .swarm
        .log
        .entries()
        .iter()
        .filter_map(|entry| ended_at(entry.what, entry.at))
        .collect();
    let ended: Vec<_> = ended.iter().map(|at| at.saturating_sub(back)).collect();
    assert_eq!(report.most_playing, 5);
    Figures::of(name)
        .add("sessions", accounts * 2)
        .add("provisional", report.provisional)
        .times("reconciled_after", &ended)
        .print();
}

fn ended_at(what: What, at: Duration) -> Option<Duration> {
    matches!(what, What::Ended { code } if code != 4000).then_some(at)
}

/// With `refuse` nobody new gets in: 503 before the upgrade, or 4204.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_killed_refusing() {
    let mut fleet = Fleet::with("redis_killed_refusing", 3, "[outage]\nadmit = \"refuse\"\n").await;
    let doors = fleet.doors();
    let audience = Audience::full(&fleet.swarm, &doors, 30, 2).await;
    let before: Vec<_> = audience
        .seats
        .iter()
        .map(|seat| seat.state.borrow().playing)
        .collect();
    let away = fleet.swarm.log.fault("redis away");
    fleet.redis().kill();
    sleep(NOTICED).await;
    let (mut by_status, mut by_close) = (0, 0);
    for account in 0..30 {
        let door = &doors[account as usize % 3];
        match fleet
            .swarm
            .open(door, &Start::of(account, 10).mode(Mode::Reject))
            .await
        {
            Err(refusal) => {
                assert_eq!(refusal.status, 503);
                by_status += 1;
            }
            Ok(mut player) => {
                let told = player.granted().await.expect_err("nobody new gets in");
                assert!(
                    matches!(told, Told::Ended { code: 4204 } | Told::Closed { code: 4204 }),
                    "{told:?}"
                );
                by_close += 1;
            }
        }
    }
    sleep((away + AWAY).saturating_sub(fleet.swarm.log.now())).await;
    fleet.redis().start_again(true);
    fleet.swarm.log.fault("redis back");
    sleep(RECONCILED).await;
    for (seat, before) in audience.seats.iter().zip(before) {
        assert_eq!(seat.state.borrow().playing, before, "an outage ended a play");
    }
    // And in again.
    let mut player = fleet.swarm.open(&doors[0], &Start::of(0, 10)).await.unwrap();
    assert!(!player.granted().await.unwrap().provisional);
    fleet.verdict(&Rules::of_limit(3));
    Figures::of("redis_killed_refusing")
        .add("status_503", by_status)
        .add("close_4204", by_close)
        .print();
}

/// Redis stands still for longer than every lease, and wakes with all of its data: nobody is dead (rule 2).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_stalled() {
    let mut fleet = Fleet::with("redis_stalled", 3, "[outage]\nadmit = \"refuse\"\n").await;
    let doors = fleet.doors();
    let audience = Audience::full(&fleet.swarm, &doors, 40, 3).await;
    let before: Vec<_> = audience
        .seats
        .iter()
        .map(|seat| seat.state.borrow().playing)
        .collect();
    let accounts: Vec<u32> = (0..40).collect();
    let intruders = Intruders::of(&fleet.swarm, &doors, &accounts, Duration::from_secs(1));
    fleet.swarm.log.fault("redis stands still");
    fleet.redis().stall();
    sleep(Duration::from_secs(15)).await;
    fleet.redis().wake();
    fleet.swarm.log.fault("redis goes on");
    sleep(RECONCILED).await;
    for (seat, before) in audience.seats.iter().zip(before) {
        assert_eq!(
            seat.state.borrow().playing,
            before,
            "a pause of Redis ended a play"
        );
    }
    assert_eq!(intruders.grants().len(), 0, "a fourth got in");
    let report = fleet.verdict(&Rules::of_limit(3));
    Figures::of("redis_stalled")
        .add("sessions", 120)
        .add("dropped", 0)
        .add("denials", report.denials)
        .print();
}

/// One node loses the way to Redis for longer than its lease; the others purge it, and give its slots on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateway_cut_off() {
    cut_off("gateway_cut_off", 40, false).await;
}

/// The same by silence instead of resets: only time-outs tell the node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateway_black_holed() {
    cut_off("gateway_black_holed", 40, true).await;
}

async fn cut_off(name: &'static str, accounts: u32, silently: bool) {
    let fleet = Fleet::sharing(name, 3).await;
    let doors = fleet.doors();
    let audience = Audience::full(&fleet.swarm, &doors, accounts, 3).await;
    let away = fleet.swarm.log.fault("node 0 is cut off");
    if silently {
        fleet.cutters[0].black_hole();
    } else {
        fleet.cutters[0].cut();
    }
    sleep((away + AWAY).saturating_sub(fleet.swarm.log.now())).await;
    for seat in &audience.seats {
        let state = seat.state.borrow();
        assert!(
            state.playing.is_some() && state.resumes == 0,
            "an outage ended a play: {state:?}"
        );
    }
    // The slots of the node that the others hold for dead are free: each account gets one player more.
    let mut fourth = Vec::new();
    for account in 0..accounts {
        let mut player = fleet
            .swarm
            .open(&doors[1], &Start::of(account, 10))
            .await
            .unwrap();
        player
            .granted()
            .await
            .expect("the slots of the node that is cut off are free by now");
        fourth.push(player);
    }
    fleet.cutters[0].heal();
    let healed = fleet.swarm.log.fault("node 0 is back");
    sleep(RECONCILED).await;

    let mut touched = BTreeSet::new();
    for seat in audience.seats.iter().filter(|seat| seat.home != 0) {
        let state = seat.state.borrow();
        assert!(
            state.playing.is_some() && state.resumes == 0,
            "another node's session was touched: {state:?}"
        );
    }
    for seat in audience.seats.iter().filter(|seat| seat.home == 0) {
        touched.insert(seat.state.borrow().over);
    }
    assert_eq!(touched, BTreeSet::from([Some(4001)]), "their slots are taken");
    let mut rules = Rules::of_limit(3);
    // Rule I1: its sockets do not count until it is back plus 2 s. A reconnect comes before it is back.
    let back = healed + Duration::from_secs(1) + Duration::from_secs(2);
    rules.windows.push(Window {
        from: away,
        to: back,
        node: Some(0),
    });
    rules.allowed.push(Allowed {
        from: healed,
        to: back,
        code: 4203,
    });
    let report = fleet.verdict(&rules);
    Figures::of(name)
        .add("sessions", accounts * 3)
        .add("most_playing", report.most_playing)
        .times("above_limit_meanwhile", &report.excused)
        .print();
}

/// Shorter than a lease: as if nothing had been.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateway_cut_off_briefly() {
    let fleet = Fleet::with("gateway_cut_off_briefly", 3, "[outage]\nadmit = \"refuse\"\n").await;
    let doors = fleet.doors();
    let audience = Audience::full(&fleet.swarm, &doors, 40, 3).await;
    let before: Vec<_> = audience
        .seats
        .iter()
        .map(|seat| seat.state.borrow().playing)
        .collect();
    for (node, cutter) in fleet.cutters.iter().enumerate() {
        fleet.swarm.log.fault("a way to redis is broken");
        match node {
            0 => cutter.cut(),
            1 => cutter.black_hole(),
            _ => cutter.delay(Duration::from_millis(300)),
        }
        sleep(Duration::from_secs(6)).await;
        cutter.heal();
        fleet.swarm.log.fault("and healed");
    }
    sleep(Duration::from_secs(5)).await;
    for (seat, before) in audience.seats.iter().zip(before) {
        assert_eq!(seat.state.borrow().playing, before);
        let account = seat.account;
        let listed = fleet.nodes[0].sessions(account).await.expect("a list");
        assert_eq!(
            BTreeSet::from_iter(listed),
            BTreeSet::from_iter(audience.playing(account))
        );
    }
    fleet.verdict(&Rules::of_limit(3));
    Figures::of("gateway_cut_off_briefly")
        .add("sessions", 120)
        .add("dropped", 0)
        .print();
}
