//! Nodes that die, stand still, or leave.

use std::path::Path;
use std::time::Duration;

use tokio::time::sleep;

use crate::audience::{Audience, INTRUDER, Intruders};
use crate::checker::{Rules, Window};
use crate::events::Plays;
use crate::figures::{Figures, percentile};
use crate::fleet::Fleet;
use crate::harness::USHER;
use crate::log::What;
use crate::swarm::Start;

/// The node that the fault hits.
const VICTIM: usize = 1;

/// Accounts at which others try to get in; more would measure this machine.
const TRIED: u32 = 40;

const EARLIEST: Duration = Duration::from_secs(10);
const LATEST: Duration = Duration::from_secs(13);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_killed() {
    kill_a_node("node_killed", 100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "5,000 sessions"]
async fn node_killed_long() {
    kill_a_node("node_killed_long", 1_667).await;
}

/// Three players an account, one of them on the node that dies. In every second account it comes back at once; in the
/// others somebody else gets its slot, between 10 s and 13 s after the kill.
async fn kill_a_node(name: &'static str, accounts: u32) {
    let mut fleet = Fleet::sharing(name, 3).await;
    let doors = fleet.doors();
    let mut audience = Audience::new();
    for account in 0..accounts {
        for device in 0..3 {
            let home = (account + device) as usize % 3;
            let start = Start::of(account, device);
            audience.seat(&fleet.swarm, &doors, start, home, |account, _, _| {
                account % 2 == 0
            });
        }
    }
    audience.all_play(Duration::from_secs(180)).await;
    let before: Vec<_> = audience
        .seats
        .iter()
        .map(|seat| seat.state.borrow().playing)
        .collect();

    let killed = fleet.kill(VICTIM);
    // Slowly at first: not one of these may succeed.
    let alive: Vec<_> = [0, 2].map(|node| fleet.door(node)).to_vec();
    let tried: Vec<u32> = (0..accounts.min(TRIED)).collect();
    let early = Intruders::of(&fleet.swarm, &alive, &tried, Duration::from_secs(1));
    sleep(Duration::from_secs(9)).await;
    assert_eq!(
        early.grants().len(),
        0,
        "somebody got in before the lease of the dead node ended"
    );
    drop(early);
    let late = Intruders::of(&fleet.swarm, &alive, &tried, Duration::from_millis(250));
    sleep((killed + LATEST + Duration::from_millis(750)).saturating_sub(fleet.swarm.log.now())).await;

    let freed: Vec<_> = late
        .grants()
        .into_iter()
        .map(|(account, grant)| (account, grant.at - killed))
        .collect();
    let times: Vec<_> = freed.iter().map(|(_, after)| *after).collect();
    assert!(
        freed.iter().all(|(account, _)| account % 2 == 1),
        "a slot that was resumed was given away: {freed:?}"
    );
    assert_eq!(
        freed.len(),
        tried.len() / 2,
        "slots of players who did not come back: {freed:?}"
    );
    assert!(
        times.iter().all(|after| (EARLIEST..=LATEST).contains(after)),
        "{times:?}"
    );
    let mut back = 0;
    for (seat, before) in audience.seats.iter().zip(before) {
        let state = seat.state.borrow();
        let (node, session) = before.unwrap();
        if node as usize != VICTIM {
            assert_eq!(state.playing, before, "a session of another node was touched");
        } else if seat.account % 2 == 0 {
            assert_eq!(state.playing.map(|(_, session)| session), Some(session));
            assert_eq!(state.resumes, 1);
            back += 1;
        }
    }
    drop(late);
    audience.leave().await;
    let report = fleet.verdict(&Rules::of_limit(3));
    let plays = Plays::settled(&mut fleet, Duration::from_secs(20)).await;
    Figures::of(name)
        .add("sessions", accounts * 3)
        .add("resumed", back)
        .add("denials", report.denials)
        .add("most_playing", report.most_playing)
        .add("plays", plays)
        .times("freed_after", &times)
        .print();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_stalled() {
    stall_a_node("node_stalled", 60).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "3,000 sessions"]
async fn node_stalled_long() {
    stall_a_node("node_stalled_long", 1_000).await;
}

/// A node stands still for longer than its lease. Others take the slots; when it wakes it must not play on.
async fn stall_a_node(name: &'static str, accounts: u32) {
    let stall = Duration::from_secs(15);
    let back = Duration::from_secs(2);
    let fleet = Fleet::sharing(name, 3).await;
    let audience = Audience::full(&fleet.swarm, &fleet.doors(), accounts, 3).await;
    let stalled = fleet.stall(VICTIM);
    let alive: Vec<_> = [0, 2].map(|node| fleet.door(node)).to_vec();
    let tried: Vec<u32> = (0..accounts.min(TRIED)).collect();
    let intruders = Intruders::of(&fleet.swarm, &alive, &tried, Duration::from_millis(500));
    sleep((stalled + stall).saturating_sub(fleet.swarm.log.now())).await;
    let woken = fleet.wake(VICTIM);
    sleep(back + Duration::from_secs(4)).await;

    let freed: Vec<_> = intruders
        .grants()
        .iter()
        .map(|(_, grant)| grant.at - stalled)
        .collect();
    assert_eq!(
        freed.len(),
        tried.len(),
        "the slots of the stalled node were taken"
    );
    assert!(freed.iter().all(|after| *after >= EARLIEST), "{freed:?}");
    // When its sockets learnt that they play no more: the first thing that each of them heard.
    let entries = fleet.swarm.log.entries();
    let told: Vec<_> = entries
        .iter()
        .filter(|entry| entry.at > woken && entry.node as usize == VICTIM)
        .filter(|entry| matches!(entry.what, What::Ended { .. }))
        .map(|entry| entry.at - woken)
        .collect();
    for seat in audience.seats.iter().filter(|seat| seat.home as usize != VICTIM) {
        assert!(
            seat.state.borrow().resumes == 0 && seat.state.borrow().over.is_none(),
            "another node's was touched"
        );
    }
    let mut rules = Rules::of_limit(3);
    rules.windows.push(Window {
        from: stalled,
        to: woken + back,
        node: Some(1),
    });
    let report = fleet.verdict(&rules);
    Figures::of(name)
        .add("sessions", accounts * 3)
        .add("denials", report.denials)
        .times("freed_after", &freed)
        .times("told_after_waking", &told)
        .times("above_limit_meanwhile", &report.excused)
        .print();
    assert!(percentile(&told, 100) <= back, "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_restart() {
    restart_all("rolling_restart", 60).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "3,000 sessions"]
async fn rolling_restart_long() {
    restart_all("rolling_restart_long", 1_000).await;
}

/// Nodes of this version and the one before it share one Redis, upwards and back again. `USHER_PREVIOUS`: that one's
/// program (`tests/previous` builds it).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "wants the previous version's program"]
async fn rolling_upgrade_long() {
    let previous =
        std::env::var_os("USHER_PREVIOUS").expect("USHER_PREVIOUS: the previous version's program");
    let (previous, present) = (Path::new(&previous), Path::new(USHER));
    let mut fleet = Fleet::of_version("rolling_upgrade_long", 3, previous).await;
    let up = (0..3).map(|node| (node, present));
    let back = (0..3).map(|node| (node, previous));
    let versions: Vec<_> = up.chain(back).collect();
    restart_each(&mut fleet, "rolling_upgrade_long", 60, &versions).await;
}

/// Every node is replaced; every play goes on.
async fn restart_all(name: &'static str, accounts: u32) {
    let mut fleet = Fleet::sharing(name, 3).await;
    let versions = [0, 1, 2].map(|node| (node, Path::new(USHER)));
    restart_each(&mut fleet, name, accounts, &versions).await;
}

/// Restarts one node after the other, each as this version, while viewers play and others try to get in.
async fn restart_each(fleet: &mut Fleet, name: &'static str, accounts: u32, versions: &[(usize, &Path)]) {
    let mut audience = Audience::full(&fleet.swarm, &fleet.doors(), accounts, 3).await;
    let tried: Vec<u32> = (0..accounts.min(TRIED)).collect();
    let intruders = Intruders::of(&fleet.swarm, &fleet.doors(), &tried, Duration::from_secs(2));
    let mut times = Vec::new();
    for &(node, version) in versions {
        let start = fleet.swarm.log.now();
        fleet.drain(node);
        fleet.nodes[node].left(Duration::from_secs(40)).await;
        fleet.nodes[node].program = version.to_owned();
        fleet.restart(node).await;
        times.push(fleet.swarm.log.now() - start);
    }
    audience.all_play(Duration::from_secs(15)).await;
    for seat in &audience.seats {
        let state = seat.state.borrow();
        assert_eq!(
            state.playing.map(|(_, session)| session),
            state.first,
            "device {} of {}",
            seat.device,
            seat.account
        );
        assert!(state.resumes >= 1);
    }
    assert_eq!(intruders.grants().len(), 0, "device {INTRUDER} got in");
    drop(intruders);
    audience.leave().await;
    let report = fleet.verdict(&Rules::of_limit(3));
    let plays = Plays::settled(fleet, Duration::from_secs(20)).await;
    Figures::of(name)
        .add("sessions", accounts * 3)
        .add("resumed", report.resumed)
        .add("denials", report.denials)
        .add("plays", plays)
        .times("restart", &times)
        .print();
}
