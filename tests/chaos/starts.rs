//! Starts that meet: fifty at one moment, and take-overs between nodes.

use std::time::Duration;

use futures_util::future::join_all;

use crate::checker::Rules;
use crate::figures::{Figures, percentile};
use crate::fleet::Fleet;
use crate::log::Mode;
use crate::swarm::{Start, Told};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_starts() {
    fifty_at_once(&Fleet::sharing("parallel_starts", 3).await, 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes: a hundred rounds"]
async fn parallel_starts_long() {
    fifty_at_once(&Fleet::sharing("parallel_starts_long", 3).await, 100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_starts_on_one_node() {
    fifty_at_once(&Fleet::alone("parallel_starts_on_one_node", 1).await, 3).await;
}

/// Exactly three of fifty are granted, each round.
async fn fifty_at_once(fleet: &Fleet, rounds: u32) {
    let doors = fleet.doors();
    for account in 0..rounds {
        let connect = (0..50).map(|device| fleet.swarm.connect(&doors[device % doors.len()]));
        let connections = join_all(connect).await;
        let starts = (0..).zip(connections).map(|(device, connection)| {
            let start = Start::of(account, device);
            async move {
                let connection = connection.expect("a connection");
                let mut player = fleet.swarm.start(connection, &start).await.expect("an upgrade");
                (player.decision().await, player)
            }
        });
        let answers = join_all(starts).await;
        let granted = answers
            .iter()
            .filter(|(told, _)| matches!(told, Told::Granted(_)))
            .count();
        let denied = answers
            .iter()
            .filter(|(told, _)| matches!(told, Told::Denied { .. }))
            .count();
        assert_eq!((granted, denied), (3, 47), "round {account}");
        for (_, mut player) in answers {
            player.stop();
            player.closed().await;
        }
    }
    let report = fleet.verdict(&Rules::of_limit(3));
    Figures::of("parallel_starts")
        .add("rounds", rounds)
        .add("granted", report.grants)
        .add("denied", report.denials)
        .times("grant", &report.grant_times)
        .print();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn takeover_latency() {
    takeovers(&Fleet::sharing("takeover_latency", 2).await, 60).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes, and wants a machine of its own"]
async fn takeover_latency_long() {
    takeovers(&Fleet::sharing("takeover_latency_long", 2).await, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn takeover_latency_on_one_node() {
    takeovers(&Fleet::alone("takeover_latency_on_one_node", 1).await, 20).await;
}

/// Victims on the first node, newcomers on the last; never both granted at once.
async fn takeovers(fleet: &Fleet, runs: u32) {
    let (first, last) = (fleet.door(0), fleet.door(fleet.nodes.len() - 1));
    for account in 0..runs {
        let mut players = Vec::new();
        for device in 0..3 {
            let mut player = fleet
                .swarm
                .open(&first, &Start::of(account, device))
                .await
                .unwrap();
            let grant = player.granted().await.unwrap();
            players.push((player, grant));
        }
        let ask = Start::of(account, 3).mode(Mode::Ask);
        let mut newcomer = fleet.swarm.open(&last, &ask).await.unwrap();
        let Told::Denied { holders } = newcomer.decision().await else {
            panic!("not denied")
        };
        assert_eq!(holders.len(), 3);
        let (mut victim, grant) = players.swap_remove(1);
        newcomer.take_over(grant.session);
        newcomer.granted().await.unwrap();
        assert_eq!(victim.closed().await, 4002);
        players.push((newcomer, grant));
        for (mut player, _) in players {
            player.stop();
            player.closed().await;
        }
    }
    // Exact: the checker finds any moment in which both were granted.
    let report = fleet.verdict(&Rules::of_limit(3));
    let times = &report.takeover_times;
    assert_eq!(times.len(), usize::try_from(runs).unwrap());
    assert!(
        percentile(times, 50) < Duration::from_millis(500),
        "{:?}",
        percentile(times, 50)
    );
    Figures::of("takeover_latency").times("takeover", times).print();
}
