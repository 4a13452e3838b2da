//! The session lease: silence ends it on time, any frame renews it, and a stalled node judges nobody unfairly.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join_all;
use serde_json::json;

use crate::harness::Node;

/// A black-holed client: its connection stays open and says nothing, not even pongs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_silent_players_are_freed_between_10_00_and_10_25_s() {
    let node = Node::start().await;
    let node = &node;
    let silent = join_all((0..200).map(|number| async move {
        let mut player = node.watch(&format!("quiet-{number}"), "content=m&device=d").await;
        let granted = player.next().await;
        (player, granted)
    }))
    .await;
    assert_eq!(node.metric("usher_sessions_active{tenant=\"main\"}").await, 200.0);
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(
        node.metric("usher_release_lateness_seconds_bucket{le=\"0.25\"}")
            .await,
        200.0
    );
    assert_eq!(node.metric("usher_release_lateness_seconds_count").await, 200.0);
    assert_eq!(node.metric("usher_sessions_active{tenant=\"main\"}").await, 0.0);
    assert_eq!(
        node.metric("usher_sessions_ended_total{code=\"heartbeat_missed\"}")
            .await,
        200.0
    );
    // Told, with the right code, although they had not listened.
    for (mut player, _) in silent {
        let (code, messages) = player.closed().await;
        assert_eq!(
            (code, &messages.last().unwrap()["code"]),
            (4201, &json!("heartbeat_missed"))
        );
    }
}

/// The same from outside, on the player's own clock: the next one in line is granted then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_slot_of_a_silent_player_goes_to_the_next_after_10_s() {
    let node = Node::start().await;
    let node = &node;
    let waits = join_all((0..20).map(|number| async move {
        let account = format!("pair-{number}");
        let single =
            crate::harness::sign(&json!({"sub": account, "exp": crate::harness::now() + 60, "streams": 1}));
        let mut silent = node.try_watch(&single, "content=m&device=silent").await.unwrap();
        let before = Instant::now();
        silent.say(json!({"type": "heartbeat"})).await;
        let after = Instant::now();
        let mut next = node
            .try_watch(&single, "content=m&device=next&on_limit=wait")
            .await
            .unwrap();
        next.next_of("waiting").await;
        let granted = tokio::time::timeout(Duration::from_secs(15), async {
            loop {
                // Polling the socket answers pings, so that the waiter itself is heard.
                if next.next_within(Duration::from_secs(15)).await["type"] == "granted" {
                    return Instant::now();
                }
            }
        });
        let granted = granted.await.unwrap();
        drop(silent);
        (granted - before, granted - after)
    }))
    .await;
    for (longest, shortest) in waits {
        assert!(longest >= Duration::from_secs(10), "{longest:?}");
        assert!(shortest <= Duration::from_millis(10_250), "{shortest:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_player_that_only_answers_pings_stays() {
    let node = Node::with("[lease]\nperiod = \"2s\"").await;
    let mut player = node.watch("a", "content=m&device=d").await;
    assert_eq!(player.next().await["lease_ms"], 2_000);
    let pinged = tokio::time::timeout(Duration::from_secs(7), async {
        for _ in 0..5 {
            assert!(player.socket.next().await.unwrap().unwrap().is_ping());
        }
    });
    pinged.await.unwrap();
    assert_eq!(node.sessions("a").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_connection_keeps_its_slot_for_the_lease_and_no_longer() {
    let node = Node::with("[lease]\nperiod = \"2s\"").await;
    let mut player = node.watch("a", "content=m&device=d").await;
    let granted = player.next().await;
    player.say(json!({"type": "heartbeat"})).await;
    let start = Instant::now();
    player.cut();
    tokio::time::sleep(Duration::from_millis(1_800)).await;
    assert_eq!(node.sessions("a").await.len(), 1);
    while !node.sessions("a").await.is_empty() {
        assert!(start.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let freed = start.elapsed();
    assert!((1_990..2_350).contains(&freed.as_millis()), "{freed:?}");
    let query = format!(
        "content=m&device=d&resume={}",
        granted["resume"].as_str().unwrap()
    );
    assert_eq!(node.watch("a", &query).await.next().await["resumed"], false);
}

/// Players beat on while the node stands still: their frames wait in the kernel and are read before anybody is
/// judged; those that only answer pings are asked first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_node_reads_its_sockets_before_it_judges() {
    let node = Node::with("[lease]\nperiod = \"4s\"").await;
    let node = &node;
    let players = join_all((0..100).map(|number| async move {
        let mut player = node.watch(&format!("stall-{number}"), "content=m&device=d").await;
        player.next_of("granted").await;
        player
    }))
    .await;
    node.signal("-STOP");
    let mut beating = Vec::new();
    for (number, mut player) in players.into_iter().enumerate() {
        beating.push(tokio::spawn(async move {
            for _ in 0..6 {
                if number % 2 == 0 {
                    player.say(json!({"type": "heartbeat"})).await;
                }
                let _ = tokio::time::timeout(Duration::from_secs(1), player.socket.next()).await;
            }
            player
        }));
    }
    tokio::time::sleep(Duration::from_secs(6)).await;
    node.signal("-CONT");
    let mut players = join_all(beating).await;
    for player in &mut players {
        let player = player.as_mut().unwrap();
        player.say(json!({"type": "fly"})).await;
        player.next_of("error").await;
    }
    assert_eq!(node.metric("usher_sessions_active{tenant=\"main\"}").await, 100.0);
    assert_eq!(
        node.metric("usher_sessions_ended_total{code=\"heartbeat_missed\"}")
            .await,
        0.0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_ends_with_rate_limited() {
    let node = Node::start().await;
    let mut player = node.watch("a", "content=m&device=d").await;
    player.next_of("granted").await;
    for _ in 0..400 {
        use futures_util::SinkExt;
        let beat = tokio_tungstenite::tungstenite::Message::text(r#"{"type":"heartbeat"}"#);
        if player.socket.send(beat).await.is_err() {
            break;
        }
    }
    let (code, messages) = player.closed().await;
    assert_eq!(
        (code, &messages.last().unwrap()["code"]),
        (4102, &json!("rate_limited"))
    );
}
