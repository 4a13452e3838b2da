//! Many nodes, one truth: what a player, an operator and a neighbour see when several gateways share one Redis.

use std::time::{Duration, Instant};

use http::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Node, Player, SOON, now, sign, token};
use crate::redis_servers::{Redis, until};
use crate::stage::Place;

/// A gateway on this Redis.
async fn gateway(redis: &Redis, more: &str) -> Node {
    Node::with(&format!("[redis]\nurl = \"{}\"\n{more}", redis.url())).await
}

async fn pair(redis: &Redis) -> (Node, Node) {
    tokio::join!(gateway(redis, ""), gateway(redis, ""))
}

async fn granted(node: &Node, account: &str, query: &str) -> (Player, Value) {
    let mut player = node.watch(account, query).await;
    let message = player.next().await;
    assert_eq!(message["type"], "granted", "{message}");
    (player, message)
}

#[tokio::test]
async fn one_limit_over_two_nodes() {
    let redis = Redis::start(&[]).await;
    let (a, b) = pair(&redis).await;
    let (mut first, grant) = granted(&a, "ann", "content=m1&device=d1&device_name=Kitchen").await;
    assert_eq!(grant["provisional"], false);
    let (_second, _) = granted(&b, "ann", "content=m2&device=d2").await;
    let (mut third, grant) = granted(&a, "ann", "content=m3&device=d3").await;
    assert_eq!(grant["slots"], json!({"used": 3, "limit": 3}));
    // Everybody hears the number, on whichever node.
    loop {
        if first.next_of("slots").await["used"] == 3 {
            break;
        }
    }
    let mut fourth = b.watch("ann", "content=m4&device=d4").await;
    let denied = fourth.next().await;
    let devices: Vec<_> = denied["holders"]
        .as_array()
        .unwrap()
        .iter()
        .map(|h| h["device"].clone())
        .collect();
    assert_eq!(devices, ["d1", "d2", "d3"], "{denied}");
    assert_eq!(denied["holders"][0]["device_name"], "Kitchen");
    assert_eq!(fourth.closed().await.0, 4001);
    // A stop on one node frees the slot on the other at once.
    third.say(json!({"type": "stop"})).await;
    assert_eq!(third.closed().await.0, 4000);
    granted(&b, "ann", "content=m4&device=d4").await;
    assert_eq!(b.sessions("ann").await.len(), a.sessions("ann").await.len());
}

#[tokio::test]
async fn a_take_over_across_nodes_is_strict() {
    let redis = Redis::start(&[]).await;
    let (a, b) = pair(&redis).await;
    let token = sign(&json!({"sub": "bob", "exp": now() + 600, "streams": 1}));
    let mut victim = a.try_watch(&token, "content=m1&device=tv").await.unwrap();
    assert_eq!(victim.next().await["type"], "granted");
    let mut taker = b
        .try_watch(&token, "content=m2&device=phone&device_name=Phone&on_limit=ask")
        .await
        .unwrap();
    let denied = taker.next().await;
    let session = denied["holders"][0]["session"].clone();
    let asked = Instant::now();
    taker.say(json!({"type": "takeover", "session": session})).await;
    let ended = victim.next_of("ended").await;
    assert_eq!(
        (&ended["code"], &ended["by"]["device_name"]),
        (&json!("displaced"), &json!("Phone"))
    );
    assert_eq!(taker.next_of("granted").await["slots"]["used"], 1);
    assert!(
        asked.elapsed() < Duration::from_secs(2),
        "word, not the next renewal: {:?}",
        asked.elapsed()
    );
    assert_eq!(victim.closed().await.0, 4002);
}

#[tokio::test]
async fn a_waiter_gets_the_slot_that_another_node_frees() {
    let redis = Redis::start(&[]).await;
    let (a, b) = pair(&redis).await;
    let token = sign(&json!({"sub": "cy", "exp": now() + 600, "streams": 1}));
    let mut first = a.try_watch(&token, "content=m1&device=d1").await.unwrap();
    first.next().await;
    let mut waiter = b
        .try_watch(&token, "content=m2&device=d2&on_limit=wait")
        .await
        .unwrap();
    assert_eq!(waiter.next().await, json!({"type": "waiting", "position": 1}));
    let freed = Instant::now();
    first.say(json!({"type": "stop"})).await;
    assert_eq!(waiter.next().await["type"], "granted");
    assert!(freed.elapsed() < Duration::from_secs(1), "{:?}", freed.elapsed());
}

#[tokio::test]
async fn a_session_resumes_on_another_node_and_the_half_open_socket_is_closed() {
    let redis = Redis::start(&[]).await;
    let (a, b) = pair(&redis).await;
    let (mut old, grant) = granted(&a, "dan", "content=m1&device=d1").await;
    let query = format!(
        "content=m1&device=d1&resume={}",
        grant["resume"].as_str().unwrap()
    );
    let (_new, resumed) = granted(&b, "dan", &query).await;
    assert_eq!(
        (&resumed["resumed"], &resumed["session"]),
        (&json!(true), &grant["session"])
    );
    assert_eq!(resumed["slots"]["used"], 1, "never counted twice");
    assert_eq!(resumed["resume"], grant["resume"]);
    assert_eq!(old.closed().await.0, 4006);
    assert_eq!(a.sessions("dan").await.len(), 1);
    assert_eq!(a.sessions("dan").await[0]["epoch"], 2);
}

#[tokio::test]
async fn an_operator_ends_a_session_on_another_node() {
    let redis = Redis::start(&[]).await;
    let (a, b) = pair(&redis).await;
    let (mut player, grant) = granted(&a, "eve", "content=m1").await;
    let operator = sign(&json!({"sub": "op", "exp": now() + 60, "scope": "operator"}));
    let path = format!(
        "/v1/admin/accounts/eve/sessions/{}",
        grant["session"].as_str().unwrap()
    );
    let kicked = Instant::now();
    let (status, _, body) = b.admin_request("DELETE", &path, Some(&operator), "").await;
    assert_eq!(status, StatusCode::NO_CONTENT, "{body}");
    assert_eq!(player.closed().await.0, 4003);
    assert!(
        kicked.elapsed() < Duration::from_secs(1),
        "{:?}",
        kicked.elapsed()
    );
}

/// Redis is stopped: who plays goes on, who comes is let in provisionally, and the surplus ends when Redis is back.
#[tokio::test]
async fn an_outage_is_bridged_and_settled() {
    let redis = Redis::start(&[]).await;
    let (a, b) = pair(&redis).await;
    let token = sign(&json!({"sub": "fay", "exp": now() + 600, "streams": 2}));
    let mut firm = a.try_watch(&token, "content=m1&device=d1").await.unwrap();
    firm.next().await;
    redis.stop();
    let mut provisional = Vec::new();
    for (node, device) in [(&b, "d2"), (&b, "d3")] {
        let mut player = node
            .try_watch(&token, &format!("content=m&device={device}"))
            .await
            .unwrap();
        let grant = player.next().await;
        assert_eq!(
            (&grant["type"], &grant["provisional"]),
            (&json!("granted"), &json!(true)),
            "{grant}"
        );
        provisional.push((player, grant));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Who comes back to such a slot is told again that it is one.
    let (mut old, grant) = provisional.remove(0);
    let query = format!("content=m&device=d2&resume={}", grant["resume"].as_str().unwrap());
    let mut resumed = b.try_watch(&token, &query).await.unwrap();
    let again = resumed.next().await;
    assert_eq!(
        (&again["resumed"], &again["provisional"], &again["session"]),
        (&json!(true), &json!(true), &grant["session"])
    );
    assert_eq!(old.closed().await.0, 4006);
    provisional.insert(0, (resumed, again));
    let mut provisional: Vec<_> = provisional.into_iter().map(|(player, _)| player).collect();
    // What the node can see is a limit all the same.
    let mut third = b.try_watch(&token, "content=m&device=d4").await.unwrap();
    let denied = third.next().await;
    assert_eq!(
        (&denied["type"], &denied["slots"]["used"]),
        (&json!("denied"), &json!(2)),
        "{denied}"
    );
    assert!(b.metric("usher_provisional_sessions").await >= 2.0);
    until("readiness fails", async || {
        (b.admin_get("/readyz", None).await.0 == StatusCode::SERVICE_UNAVAILABLE).then_some(())
    })
    .await;
    assert_eq!(
        b.admin_get("/healthz", None).await.0,
        StatusCode::OK,
        "liveness never"
    );
    firm.say(json!({"type": "heartbeat"})).await;
    redis.cont();
    // One slot is free: the older of the two has it, the younger one ends with a code of its own.
    let (code, messages) = provisional[1].closed_within(SOON * 2).await;
    assert_eq!(code, 4001, "{messages:?}");
    until("the older one is confirmed", async || {
        (b.metric("usher_provisional_sessions").await == 0.0).then_some(())
    })
    .await;
    // The other node finds the way back by itself, perhaps a moment later.
    until("the other node is ready", async || {
        (a.admin_get("/readyz", None).await.0 == StatusCode::OK).then_some(())
    })
    .await;
    assert_eq!(a.sessions("fay").await.len(), 2);
    firm.say(json!({"type": "heartbeat"})).await;
    firm.say(json!({"type": "stop"})).await;
    assert_eq!(firm.closed().await.0, 4000, "it played on all the time");
    provisional[0].say(json!({"type": "stop"})).await;
    assert_eq!(provisional[0].closed().await.0, 4000);
    until("both are gone", async || {
        a.sessions("fay").await.is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_outage_may_refuse_or_be_strict() {
    let redis = Redis::start(&[]).await;
    let (refusing, strict) = tokio::join!(
        gateway(&redis, "[outage]\nadmit = \"refuse\""),
        gateway(&redis, "[outage]\nstrict = true"),
    );
    let (mut on_refusing, grant) = granted(&refusing, "gil", "content=m1&device=d1").await;
    let secret = grant["resume"].as_str().unwrap();
    // It answers pings.
    let on_refusing = tokio::spawn(async move { on_refusing.closed_within(SOON * 4).await });
    let (mut on_strict, _) = granted(&strict, "gil", "content=m1&device=d2").await;
    redis.stop();
    let stopped = Instant::now();
    // It does not get its session back, which plays on all the same.
    let query = format!("content=m1&device=d1&resume={secret}");
    let mut early = refusing
        .try_watch(&token("gil"), &query)
        .await
        .expect("not known yet");
    assert_eq!(early.closed_within(SOON).await.0, 4204);
    until("503 before the upgrade", async || {
        match refusing.try_watch(&token("gil"), "content=m").await {
            Err((status, body)) => {
                assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
                Some(())
            }
            // Until the node knows: the socket is told to come back.
            Ok(mut player) => {
                assert_eq!(player.closed().await.0, 4204);
                None
            }
        }
    })
    .await;
    let (code, _) = on_strict.closed_within(Duration::from_secs(20)).await;
    assert_eq!(code, 4203, "a strict node ends with its lease");
    let after = stopped.elapsed();
    assert!(
        (Duration::from_secs(9)..Duration::from_secs(14)).contains(&after),
        "{after:?}"
    );
    assert!(!on_refusing.is_finished(), "it plays on all the time");
    redis.cont();
    for node in [&refusing, &strict] {
        until("readiness is back", async || {
            (node.admin_get("/readyz", None).await.0 == StatusCode::OK).then_some(())
        })
        .await;
    }
    let operator = sign(&json!({"sub": "op", "exp": now() + 60, "scope": "operator"}));
    let (status, _, _) = strict
        .admin_request("DELETE", "/v1/admin/accounts/gil/sessions", Some(&operator), "")
        .await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        on_refusing.await.unwrap().0,
        4003,
        "and is still held, on its own node"
    );
}

#[tokio::test]
async fn a_node_with_another_number_of_buckets_refuses_to_start() {
    let redis = Redis::start(&[]).await;
    let _first = gateway(&redis, "").await;
    let place = Place::new();
    let ran = place.run(
        &[("USHER_REDIS__BUCKETS", "16")],
        &[
            "serve",
            "--redis",
            &redis.url(),
            "--listen",
            "127.0.0.1:0",
            "--admin-listen",
            "127.0.0.1:0",
        ],
    );
    let said = ran.stderr + &ran.stdout;
    assert_eq!(ran.code, 2, "{said}");
    assert!(said.contains("redis.buckets") && said.contains("32"), "{said}");
}

/// Redis comes back with the data of another installation: nothing is granted beside them, and who plays goes on.
#[tokio::test]
async fn a_node_that_meets_data_of_another_number_of_buckets_refuses_starts() {
    let redis = Redis::start(&[]).await;
    let node = gateway(&redis, "").await;
    let (mut playing, _) = granted(&node, "ida", "content=m1").await;
    let markers = || (0..32).map(|bucket| format!("{{usher:{bucket}}}:v1:marker"));
    for marker in markers() {
        assert_eq!(redis.text(&["TYPE", &marker]).await, "hash");
        redis.ask(&["HSET", &marker, "buckets", "7"]).await;
    }
    until("503 before the upgrade", async || {
        match node.try_watch(&token("ida"), "content=m2").await {
            Err((status, body)) => {
                assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
                Some(())
            }
            Ok(mut player) => {
                let (code, messages) = player.closed_within(SOON).await;
                assert_eq!(code, 4204, "never provisionally: {messages:?}");
                None
            }
        }
    })
    .await;
    assert_eq!(
        node.admin_get("/readyz", None).await.0,
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert!(node.log().contains("USHERBUCKETS configured 32 found 7"));
    for marker in markers() {
        redis.ask(&["DEL", &marker]).await;
    }
    until("readiness is back", async || {
        (node.admin_get("/readyz", None).await.0 == StatusCode::OK).then_some(())
    })
    .await;
    playing.say(json!({"type": "stop"})).await;
    assert_eq!(playing.closed().await.0, 4000, "it played on all the time");
}

/// What a promotion can do to a newcomer: the store gave it a slot, lost it, and says that it has ended.
#[tokio::test]
async fn a_waiter_whose_slot_the_store_lost_asks_again() {
    let redis = Redis::start(&[]).await;
    let node = gateway(&redis, "").await;
    let token = sign(&json!({"sub": "jo", "exp": now() + 600, "streams": 1}));
    let mut first = node.try_watch(&token, "content=m1&device=d1").await.unwrap();
    assert_eq!(first.next().await["type"], "granted");
    let mut waiter = node
        .try_watch(&token, "content=m2&device=d2&on_limit=wait")
        .await
        .unwrap();
    assert_eq!(waiter.next().await["type"], "waiting");
    let mut waits = String::new();
    for bucket in 0..32 {
        let tables = redis
            .ask(&["HVALS", &format!("{{usher:{bucket}}}:v1:accounts")])
            .await;
        for table in redis::from_redis_value::<Vec<String>>(tables).unwrap() {
            let table: Value = serde_json::from_str(&table).unwrap();
            waits = table["line"][0]["session"].as_str().unwrap().to_owned();
            let ended = format!("1 lease_lost {}", (now() + 60) * 1_000);
            let tombstones = format!("{{usher:{bucket}}}:v1:tombstones");
            redis.ask(&["HSET", &tombstones, &waits, &ended]).await;
        }
    }
    assert_eq!(
        waiter.next().await,
        json!({"type": "waiting", "position": 1}),
        "told again"
    );
    first.say(json!({"type": "stop"})).await;
    let grant = waiter.next().await;
    assert_eq!(grant["type"], "granted", "{grant}");
    assert_ne!(grant["session"], waits);
}
