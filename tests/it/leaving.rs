//! What a gateway leaves behind: sessions that may be resumed elsewhere for the rest of its lease, and slots that are
//! free after it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::future::select_all;
use serde_json::{Value, json};

use crate::harness::{Node, SOON, now, sign, token};
use crate::redis_servers::Redis;

/// The facts about a session in the event streams, of all buckets.
async fn facts(redis: &Redis, session: &Value) -> Vec<BTreeMap<String, String>> {
    let mut found = Vec::new();
    for bucket in 0..32 {
        let stream = redis
            .ask(&["XRANGE", &format!("{{usher:{bucket}}}:v1:events"), "-", "+"])
            .await;
        let facts: Vec<(String, BTreeMap<String, String>)> = redis::from_redis_value(stream).unwrap();
        found.extend(facts.into_iter().map(|(_, fact)| fact));
    }
    found.retain(|fact| Some(fact["session"].as_str()) == session.as_str());
    found
}

#[tokio::test]
async fn who_does_not_come_back_from_a_drain_frees_the_slot_with_the_lease() {
    let redis = Redis::start(&[]).await;
    let settings = format!("[redis]\nurl = \"{}\"\n[drain]\nwindow = \"1s\"", redis.url());
    let (mut a, b) = tokio::join!(Node::with(&settings), Node::with(&settings));
    let single = |account: &str| sign(&json!({"sub": account, "exp": now() + 600, "streams": 1}));
    let mut grants = BTreeMap::new();
    let mut players = Vec::new();
    for account in ["gone", "back"] {
        let mut player = a.try_watch(&single(account), "content=m&device=d").await.unwrap();
        grants.insert(account, player.next_of("granted").await);
        players.push(player);
    }
    a.signal("-TERM");
    for mut player in players {
        assert_eq!(player.closed().await.0, 4200);
    }
    assert_eq!(
        a.exit_within(SOON).await,
        Some(0),
        "nobody's lease keeps the process"
    );
    let left = Instant::now();

    // One is late, and finds its session.
    let resume = async {
        tokio::time::sleep(Duration::from_secs(8)).await;
        let secret = grants["back"]["resume"].as_str().unwrap();
        let query = format!("content=m&device=d&resume={secret}");
        let mut player = b.try_watch(&single("back"), &query).await.unwrap();
        (player.next().await, player)
    };
    // The other's slot stays taken until the lease is over.
    let free = async {
        loop {
            let mut player = b
                .try_watch(&single("gone"), "content=m&device=other")
                .await
                .unwrap();
            let first = player.next().await;
            if first["type"] == "granted" {
                return (left.elapsed(), player);
            }
            assert_eq!(
                first["holders"][0]["session"], grants["gone"]["session"],
                "{first}"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let ((resumed, mut back), (after, _player)) = tokio::join!(resume, free);
    assert_eq!(
        (&resumed["type"], &resumed["resumed"], &resumed["session"]),
        (&json!("granted"), &json!(true), &grants["back"]["session"])
    );
    eprintln!("the slot of a player that did not come back was free {after:?} after the exit");
    assert!(
        (Duration::from_secs(10)..Duration::from_secs(13)).contains(&after),
        "{after:?}"
    );

    let gone = facts(&redis, &grants["gone"]["session"]).await;
    let kinds: Vec<&str> = gone.iter().map(|fact| fact["kind"].as_str()).collect();
    assert_eq!(kinds, ["started", "ended"], "{gone:?}");
    assert_eq!(gone[1]["code"], "lease_lost");
    // The one that came back has not ended, until it does.
    assert_eq!(facts(&redis, &grants["back"]["session"]).await.len(), 1);
    back.say(json!({"type": "stop"})).await;
    assert_eq!(back.closed().await.0, 4000);
    let back = facts(&redis, &grants["back"]["session"]).await;
    assert_eq!((back.len(), back[1]["code"].as_str()), (2, "stopped"), "{back:?}");
}

/// While the balancer has not noticed yet, whoever it sends is served: with players here or without.
#[tokio::test]
async fn a_node_that_fails_readiness_still_takes_players_for_the_drains_delay() {
    let mut node = Node::with("[drain]\ndelay = \"2s\"\nwindow = \"1s\"").await;
    let left = Instant::now();
    node.signal("-TERM");
    node.logs(&["draining"]).await;
    assert_eq!(node.admin_get("/readyz", None).await.0, 503);
    let mut late = node.watch("late", "content=m&device=d").await;
    assert_eq!(late.next().await["type"], "granted");
    late.next_of("draining").await;
    assert!(left.elapsed() >= Duration::from_secs(2), "{:?}", left.elapsed());
    let refused = node.try_watch(&token("later"), "content=m").await.err();
    assert_eq!(
        refused.map(|(status, body)| (status.as_u16(), body["error"]["code"].clone())),
        Some((503, json!("draining")))
    );
    assert_eq!(late.closed().await.0, 4200);
    assert_eq!(node.exit_within(SOON).await, Some(0));
}

/// A long drain keeps no slot longer than a lease: its node is alive, and knows who does not come back.
#[tokio::test]
async fn a_slot_is_free_after_the_lease_while_its_node_still_drains() {
    let redis = Redis::start(&[]).await;
    let settings = format!("[redis]\nurl = \"{}\"\n[drain]\nwindow = \"24s\"", redis.url());
    let (mut a, b) = tokio::join!(Node::with(&settings), Node::with(&settings));
    let lost = a.watch("lost", "content=m&device=d").await;
    let mut players = Vec::new();
    for number in 0..5 {
        let mut player = a.watch(&format!("m{number}"), "content=m&device=d").await;
        player.next_of("granted").await;
        players.push(player);
    }
    lost.cut();
    let cut = Instant::now();
    a.signal("-TERM");
    // One socket is closed every 4 s; the first that was told does not come back either.
    let told = players.iter_mut().enumerate().map(|(number, player)| {
        Box::pin(async move {
            assert_eq!(player.closed_within(SOON * 2).await.0, 4200);
            format!("m{number}")
        })
    });
    let (gone, _, _others) = select_all(told).await;
    let closed = Instant::now();
    let mut freed = BTreeMap::new();
    while freed.len() < 2 {
        for account in ["lost", &gone] {
            if b.sessions(account).await.is_empty() {
                freed.entry(account.to_owned()).or_insert_with(Instant::now);
            }
        }
        assert!(cut.elapsed() < Duration::from_secs(22), "{freed:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let draining = a.child.try_wait().unwrap().is_none();
    assert!(draining, "{}", a.log());
    let (lost, gone) = (freed["lost"] - cut, freed[&gone] - closed);
    assert!(
        (Duration::from_secs(9)..Duration::from_secs(12)).contains(&lost),
        "{lost:?}"
    );
    assert!(gone < Duration::from_secs(12), "{gone:?}");
}
