//! Players without a socket: their sessions by HTTP, on one node without anything and on two with Redis.
//!
//! Over 400 lines: the steps of each story.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Node, Player, now, sign, token};
use crate::redis_servers::{Redis, until};
use crate::stage::{Answer, request};

/// A lease that a test can wait for.
const SHORT: &str = "[lease]\nperiod = \"4s\"\n";
const PERIOD: Duration = Duration::from_secs(4);

/// By how much later a slot may be free.
const LATE: Duration = Duration::from_millis(250);

/// What a slow machine may add to a test's own clock.
const SLACK: Duration = Duration::from_secs(3);

/// A session as its player keeps it.
#[derive(Clone)]
struct Lone {
    account: String,
    session: String,
    secret: String,
}

async fn gateway(redis: &Redis, more: &str) -> Node {
    Node::with(&format!("{more}[redis]\nurl = \"{}\"\n", redis.url())).await
}

async fn call(node: &Node, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let length = body.len().to_string();
    let mut all = headers.to_vec();
    if !body.is_empty() || method == "POST" {
        all.push(("Content-Length", &length));
    }
    if !body.is_empty() && !headers.iter().any(|(name, _)| *name == "Content-Type") {
        all.push(("Content-Type", "application/json"));
    }
    node.ask(&(request(method, path, &all) + body)).await
}

async fn start_as(node: &Node, token: &str, body: &Value) -> Answer {
    let bearer = format!("Bearer {token}");
    call(
        node,
        "POST",
        "/v1/sessions",
        &[("Authorization", &bearer)],
        &body.to_string(),
    )
    .await
}

/// Starts and must be granted.
async fn open(node: &Node, account: &str, device: &str) -> Lone {
    let answer = start_as(node, &token(account), &json!({"content": "m1", "device": device})).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    lone(account, &answer.json())
}

fn lone(account: &str, body: &Value) -> Lone {
    Lone {
        account: account.to_owned(),
        session: body["session"].as_str().unwrap().to_owned(),
        secret: body["resume"].as_str().unwrap().to_owned(),
    }
}

/// Word of a session, with this token and this secret.
async fn word(node: &Node, lone: &Lone, token: &str, method: &str, body: &Value) -> Answer {
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", &*bearer), ("Usher-Resume", &*lone.secret)];
    let text = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let path = match method {
        "POST" => format!("/v1/sessions/{}/heartbeat", lone.session),
        _ => format!("/v1/sessions/{}", lone.session),
    };
    call(node, method, &path, &headers, &text).await
}

async fn beat(node: &Node, lone: &Lone) -> Answer {
    word(node, lone, &token(&lone.account), "POST", &Value::Null).await
}

/// A heartbeat that must be heard.
async fn lives(node: &Node, lone: &Lone) -> Value {
    let answer = beat(node, lone).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

async fn stop(node: &Node, lone: &Lone) {
    let answer = word(node, lone, &token(&lone.account), "DELETE", &Value::Null).await;
    assert_eq!((answer.status.as_u16(), &*answer.body), (204, ""), "{answer:?}");
}

fn code(answer: &Answer) -> (u16, String) {
    let code = answer.json()["error"]["code"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    (answer.status.as_u16(), code)
}

async fn is_gone(node: &Node, lone: &Lone, name: &str) -> Value {
    let answer = beat(node, lone).await;
    assert_eq!(code(&answer), (410, name.to_owned()), "{answer:?}");
    answer.json()
}

async fn granted(node: &Node, account: &str, query: &str) -> (Player, Value) {
    let mut player = node.try_watch(&token(account), query).await.unwrap();
    let message = player.next().await;
    assert_eq!(message["type"], "granted", "{message}");
    (player, message)
}

async fn listed(node: &Node, token: &str, query: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    call(
        node,
        "GET",
        &format!("/v1/sessions{query}"),
        &[("Authorization", &bearer)],
        "",
    )
    .await
}

/// Sockets and sessions without one compete for the same slots; `a` and `b` may be one node.
async fn compete(a: &Node, b: &Node) {
    let first = start_as(
        a,
        &token("ann"),
        &json!({"content": "m1", "device": "d1", "device_name": "Den", "device_class": "tv", "more": 1}),
    )
    .await;
    assert_eq!(first.status, 201, "{first:?}");
    let body = first.json();
    assert_eq!(body["slots"], json!({"used": 1, "limit": 3}));
    assert_eq!(
        (&body["heartbeat_ms"], &body["lease_ms"]),
        (&json!(5_000), &json!(10_000))
    );
    assert!(body["ticket"]["token"].is_string(), "{body}");
    let session = body["session"].as_str().unwrap();
    assert_eq!(
        first.header("location"),
        Some(&*format!("/v1/sessions/{session}"))
    );
    assert_eq!(first.header("cache-control"), Some("no-store"));
    let first = lone("ann", &body);
    let (mut socket, grant) = granted(b, "ann", "content=m2&device=d2").await;
    assert_eq!(grant["slots"]["used"], 2);
    let third = open(b, "ann", "d3").await;

    let denied = start_as(a, &token("ann"), &json!({"content": "m4", "device": "d4"})).await;
    assert_eq!(code(&denied), (403, "stream_limit_reached".to_owned()));
    let denied = denied.json();
    assert_eq!(
        (&denied["rule"], &denied["slots"]),
        (&json!("account"), &json!({"used": 3, "limit": 3}))
    );
    assert_eq!(denied["may"], json!(["takeover"]));
    let holders = denied["holders"].as_array().unwrap();
    let devices: Vec<_> = holders
        .iter()
        .map(|holder| holder["device"].as_str().unwrap())
        .collect();
    assert_eq!(devices, ["d1", "d2", "d3"]);
    assert_eq!(
        (&holders[0]["device_name"], &holders[0]["device_class"]),
        (&json!("Den"), &json!("tv"))
    );
    let mut player = a.try_watch(&token("ann"), "content=m4&device=d4").await.unwrap();
    assert_eq!(player.next().await["type"], "denied");
    assert_eq!(player.closed().await.0, 4001);

    // A waiting socket gets the slot of one that stops, and every socket hears of it.
    let mut waiter = b
        .try_watch(&token("ann"), "content=m5&device=d5&on_limit=wait")
        .await
        .unwrap();
    assert_eq!(waiter.next().await["type"], "waiting");
    stop(b, &first).await;
    assert_eq!(waiter.next_of("granted").await["slots"]["used"], 3);
    is_gone(a, &first, "gone").await;
    socket.say(json!({"type": "stop"})).await;
    assert_eq!(socket.closed().await.0, 4000);
    assert_eq!(lives(a, &third).await["slots"], json!({"used": 2, "limit": 3}));

    // The same device starts again: its own session makes place, and does not come back by itself.
    let again = open(a, "ann", "d3").await;
    is_gone(b, &third, "moved").await;
    stop(a, &again).await;
    waiter.say(json!({"type": "stop"})).await;
    waiter.closed().await;
    let answer = listed(b, &token("ann"), "").await;
    assert_eq!(answer.json()["total"], 0, "{answer:?}");
}

#[tokio::test]
async fn sockets_and_sessions_without_one_compete_for_the_same_slots() {
    let node = Node::start().await;
    compete(&node, &node).await;
    assert!(node.metric("usher_admissions_total{outcome=\"replaced\"}").await >= 1.0);
    assert!(node.metric("usher_sessions_active{tenant=\"main\"}").await < 0.5);
    assert!(node.metric("usher_sessions_ended_total{code=\"stopped\"}").await >= 2.0);
}

#[tokio::test]
async fn they_do_so_on_all_nodes() {
    let redis = Redis::start(&[]).await;
    let (a, b) = tokio::join!(gateway(&redis, ""), gateway(&redis, ""));
    compete(&a, &b).await;
}

/// It lapses in its time, and not before: whoever waits gets the slot.
async fn lapse(a: &Node, b: &Node) {
    let (one, two) = (open(a, "bo", "d1").await, open(a, "bo", "d2").await);
    let (mut third, _) = granted(b, "bo", "content=m&device=d3").await;
    let mut waiter = b
        .try_watch(&token("bo"), "content=m&device=d4&on_limit=wait")
        .await
        .unwrap();
    assert_eq!(waiter.next().await["type"], "waiting");
    let mut heard = Instant::now();
    for _ in 0..6 {
        tokio::time::sleep(PERIOD / 4).await;
        lives(b, &one).await;
        heard = Instant::now();
        lives(a, &two).await;
        third.say(json!({"type": "heartbeat"})).await;
        waiter.say(json!({"type": "heartbeat"})).await;
    }
    let others = async {
        loop {
            tokio::time::sleep(PERIOD / 4).await;
            lives(a, &two).await;
            third.say(json!({"type": "heartbeat"})).await;
        }
    };
    let granted = tokio::select! {
        granted = waiter.next_of("granted") => granted,
        () = others => unreachable!("it goes on for ever"),
    };
    assert_eq!(granted["slots"]["used"], 3);
    let took = heard.elapsed();
    assert!(took >= PERIOD - LATE, "{took:?}");
    assert!(took <= PERIOD + LATE + SLACK, "{took:?}");
    is_gone(a, &one, "gone").await;
    is_gone(b, &one, "gone").await;
    lives(b, &two).await;
}

#[tokio::test]
async fn a_silent_one_lapses_in_its_time() {
    let node = Node::with(SHORT).await;
    lapse(&node, &node).await;
}

#[tokio::test]
async fn it_lapses_so_on_two_nodes() {
    let redis = Redis::start(&[]).await;
    let (a, b) = tokio::join!(gateway(&redis, SHORT), gateway(&redis, SHORT));
    lapse(&a, &b).await;
}

/// No node's death ends it, and no node's life keeps it.
#[tokio::test]
async fn it_lives_and_lapses_whichever_node_dies() {
    let redis = Redis::start(&[]).await;
    let (mut a, b) = tokio::join!(gateway(&redis, SHORT), gateway(&redis, SHORT));
    let single = sign(&json!({"sub": "cy", "exp": now() + 600, "streams": 2}));
    let mut sessions = Vec::new();
    let mut before = Instant::now();
    for device in ["d1", "d2"] {
        before = Instant::now();
        let answer = start_as(&a, &single, &json!({"content": "m", "device": device})).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        sessions.push(lone("cy", &answer.json()));
    }
    let begun = Instant::now();
    a.child.kill().unwrap();
    a.child.wait().unwrap();
    // One is heard by the other node for longer than the dead node's lease of 12.5 s, the other one by nobody: its slot is
    // free at its time, whenever a test's machine finds the time to ask.
    let mut third = None;
    while begun.elapsed() < Duration::from_secs(14) {
        lives(&b, &sessions[0]).await;
        if let Some(third) = &third {
            lives(&b, third).await;
        } else {
            let asked = begun.elapsed();
            let answer = start_as(&b, &single, &json!({"content": "m", "device": "d3"})).await;
            if answer.status == 201 {
                assert!(before.elapsed() >= PERIOD, "too early: {:?}", before.elapsed());
                third = Some(lone("cy", &answer.json()));
            } else {
                assert_eq!(code(&answer), (403, "stream_limit_reached".to_owned()));
                assert!(asked <= PERIOD + LATE, "too late: {asked:?}");
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(third.is_some());
    is_gone(&b, &sessions[1], "gone").await;
    lives(&b, &sessions[0]).await;
}

/// What ends it is told with its next heartbeat, and whose doing it was.
async fn displace(a: &Node, b: &Node) {
    let first = open(a, "di", "d1").await;
    let second = open(b, "di", "d2").await;
    let third = open(a, "di", "d3").await;
    let body = json!({"content": "m", "device": "d4", "device_name": "Kitchen", "takeover": first.session});
    let answer = start_as(b, &token("di"), &body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(answer.json()["slots"]["used"], 3);
    let fourth = lone("di", &answer.json());
    let told = is_gone(a, &first, "displaced").await;
    assert_eq!(told["by"], json!({"device": "d4", "device_name": "Kitchen"}));
    // A socket takes one over.
    let (mut socket, _) = granted(a, "di", "content=m&device=d5&on_limit=oldest").await;
    let told = is_gone(b, &second, "displaced").await;
    assert_eq!(told["by"]["device"], "d5");
    // One without a socket takes the socket's over, which must have ended before.
    let sessions = listed(b, &token("di"), "?q=d5").await.json();
    let victim = sessions["items"][0]["session"].clone();
    let body = json!({"content": "m", "device": "d6", "takeover": victim});
    let answer = start_as(b, &token("di"), &body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let (closed, messages) = socket.closed().await;
    assert_eq!(
        (closed, &messages.last().unwrap()["by"]["device"]),
        (4002, &json!("d6"))
    );
    // Nobody of another account may be named, nor one that is gone, nor nonsense.
    let other = open(a, "other", "d1").await;
    for victim in [&other.session, &first.session] {
        let body = json!({"content": "m", "device": "d7", "takeover": victim});
        let answer = start_as(a, &token("di"), &body).await;
        assert_eq!(code(&answer), (403, "stream_limit_reached".to_owned()));
    }
    lives(b, &other).await;
    // An operator's word.
    let operator = sign(&json!({"sub": "olga", "exp": now() + 600, "scope": "operator"}));
    let path = format!("/v1/admin/accounts/di/sessions/{}", third.session);
    assert_eq!(a.admin_request("DELETE", &path, Some(&operator), "").await.0, 204);
    is_gone(b, &third, "ended_by_operator").await;
    let path = "/v1/admin/accounts/di/block";
    assert_eq!(b.admin_request("POST", path, Some(&operator), "").await.0, 200);
    is_gone(a, &fourth, "account_blocked").await;
    let answer = start_as(a, &token("di"), &json!({"content": "m"})).await;
    assert_eq!(code(&answer), (403, "account_blocked".to_owned()));
}

#[tokio::test]
async fn its_end_is_told_with_the_next_heartbeat() {
    let node = Node::start().await;
    displace(&node, &node).await;
}

#[tokio::test]
async fn its_end_is_told_by_any_node() {
    let redis = Redis::start(&[]).await;
    let (a, b) = tokio::join!(gateway(&redis, ""), gateway(&redis, ""));
    displace(&a, &b).await;
}

/// Only who has the secret, a token of the account, and the device.
#[tokio::test]
async fn nobody_else_keeps_ends_or_sees_it() {
    let redis = Redis::start(&[]).await;
    let (a, b) = tokio::join!(gateway(&redis, ""), gateway(&redis, ""));
    let of_device = |device: &str| sign(&json!({"sub": "ed", "exp": now() + 600, "device": device}));
    let answer = start_as(&a, &of_device("d1"), &json!({"content": "m1"})).await;
    let mine = lone("ed", &answer.json());
    let other = open(&a, "ed", "d2").await;
    let forbidden = |name: &str| (403, name.to_owned());
    for node in [&a, &b] {
        for method in ["POST", "DELETE"] {
            // Another device's secret does not open it, no secret and nonsense neither.
            for secret in [&*other.secret, "", "x", "AAAAAAAAAAAAAAAAAAAAAA"] {
                let wrong = Lone {
                    secret: secret.to_owned(),
                    ..mine.clone()
                };
                let answer = word(node, &wrong, &of_device("d2"), method, &Value::Null).await;
                assert_eq!(code(&answer), forbidden("secret_forbidden"), "{secret}");
            }
            // With its secret, but the token of another device, of another account, or none.
            let answer = word(node, &mine, &of_device("d2"), method, &Value::Null).await;
            assert_eq!(code(&answer), forbidden("device_forbidden"));
            let answer = word(node, &mine, &token("eve"), method, &Value::Null).await;
            assert_eq!(code(&answer), (410, "gone".to_owned()));
            let answer = word(node, &mine, "x.y.z", method, &Value::Null).await;
            assert_eq!(code(&answer), (401, "unauthorized".to_owned()));
            let support = sign(&json!({"sub": "ed", "exp": now() + 600, "scope": "support"}));
            let answer = word(node, &mine, &support, method, &Value::Null).await;
            assert_eq!(code(&answer), forbidden("scope_forbidden"));
            let nowhere = Lone {
                session: "../x".to_owned(),
                ..mine.clone()
            };
            assert!(
                word(node, &nowhere, &token("ed"), method, &Value::Null)
                    .await
                    .status
                    .is_client_error()
            );
        }
        assert_eq!(listed(node, &token("eve"), "").await.json()["items"], json!([]));
        lives(node, &mine).await;
        lives(node, &other).await;
    }
    let answer = word(&b, &mine, &of_device("d1"), "DELETE", &Value::Null).await;
    assert_eq!(answer.status, 204);
}

/// A socket takes it over with `resume`; heartbeats are told so.
async fn resume(a: &Node, b: &Node) {
    let one = open(a, "flo", "d1").await;
    let body = json!({"position_ms": 83_500, "state": "paused"});
    let answer = word(b, &one, &token("flo"), "POST", &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(
        listed(a, &token("flo"), "").await.json()["items"][0]["state"],
        "paused"
    );
    let query = format!("content=m1&device=d1&resume={}", one.secret);
    let (mut player, grant) = granted(b, "flo", &query).await;
    assert_eq!(
        (&grant["resumed"], grant["session"].as_str()),
        (&json!(true), Some(&*one.session))
    );
    assert_eq!(grant["slots"]["used"], 1);
    for node in [a, b] {
        is_gone(node, &one, "moved").await;
        let answer = word(node, &one, &token("flo"), "DELETE", &Value::Null).await;
        assert_eq!(code(&answer), (410, "moved".to_owned()));
    }
    player.say(json!({"type": "stop"})).await;
    assert_eq!(player.closed().await.0, 4000);
    is_gone(a, &one, "gone").await;
}

#[tokio::test]
async fn a_socket_takes_it_over_with_resume() {
    let node = Node::start().await;
    resume(&node, &node).await;
}

#[tokio::test]
async fn a_socket_on_another_node_takes_it_over() {
    let redis = Redis::start(&[]).await;
    let (a, b) = tokio::join!(gateway(&redis, ""), gateway(&redis, ""));
    resume(&a, &b).await;
}

/// A rule beside the total counts it as it counts sockets, and names itself.
#[tokio::test]
async fn rules_count_it() {
    let rules = "[rules.tv]\nper = \"device_class\"\nof = [\"tv\"]\nlimit = 1\n";
    let node = Node::with(rules).await;
    let tv = |device: &str| json!({"content": "m", "device": device, "device_class": "tv"});
    let answer = start_as(&node, &token("gil"), &tv("d1")).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let answer = start_as(&node, &token("gil"), &tv("d2")).await;
    assert_eq!(code(&answer), (403, "stream_limit_reached".to_owned()));
    assert_eq!(
        (&answer.json()["rule"], &answer.json()["slots"]),
        (&json!("tv"), &json!({"used": 1, "limit": 1}))
    );
    let mut player = node
        .try_watch(&token("gil"), "content=m&device=d3&device_class=tv")
        .await
        .unwrap();
    assert_eq!(player.next().await["rule"], "tv");
    open(&node, "gil", "d4").await;
}

/// Who asks victims first asks those on sockets only.
#[tokio::test]
async fn with_consent_nobody_on_a_socket_is_taken_over_by_http() {
    let node = Node::with("[takeover]\nmode = \"consent\"\n").await;
    let single = sign(&json!({"sub": "hal", "exp": now() + 600, "streams": 1}));
    let mut player = node.try_watch(&single, "content=m&device=d1").await.unwrap();
    let session = player.next().await["session"].clone();
    let body = json!({"content": "m", "device": "d2", "takeover": session});
    let answer = start_as(&node, &single, &body).await;
    assert_eq!(code(&answer), (403, "stream_limit_reached".to_owned()));
    assert_eq!(answer.json()["may"], json!([]));
    player.say(json!({"type": "stop"})).await;
    let (_, messages) = player.closed().await;
    assert_eq!(messages.len(), 1, "nobody was asked: {messages:?}");
    let answer = start_as(&node, &single, &json!({"content": "m", "device": "d2"})).await;
    let body = json!({"content": "m", "device": "d3", "takeover": answer.json()["session"]});
    assert_eq!(start_as(&node, &single, &body).await.status, 201);
}

/// Redis forgets everything: what a node heard last it writes again, and other nodes say so, not `gone`.
#[tokio::test]
async fn a_loss_of_data_ends_none() {
    let redis = Redis::start(&[]).await;
    let (a, b) = tokio::join!(gateway(&redis, ""), gateway(&redis, ""));
    let sessions = [open(&a, "ivy", "d1").await, open(&a, "ivy", "d2").await];
    lives(&b, &sessions[1]).await;
    redis.ask(&["FLUSHALL"]).await;
    // At once, by a heartbeat or by the node itself; whoever knows nothing of it answers 503 until then.
    let answer = beat(&b, &sessions[0]).await;
    match answer.status.as_u16() {
        200 => {}
        503 => assert!(answer.header("retry-after").is_some()),
        _ => panic!("{answer:?}"),
    }
    for lone in &sessions {
        lives(&a, lone).await;
    }
    until("the buckets are open", async || {
        let answer = start_as(&b, &token("ivy"), &json!({"content": "m", "device": "d3"})).await;
        (answer.status == 201).then_some(())
    })
    .await;
    for lone in &sessions {
        lives(&b, lone).await;
    }
    let answer = start_as(&b, &token("ivy"), &json!({"content": "m", "device": "d4"})).await;
    assert_eq!(
        code(&answer),
        (403, "stream_limit_reached".to_owned()),
        "the limit holds after the loss"
    );
}

/// It comes back also when nobody is heard while Redis puts itself together: its node speaks for it.
#[tokio::test]
async fn its_node_writes_it_again_by_itself() {
    let redis = Redis::start(&[]).await;
    let (a, b) = tokio::join!(gateway(&redis, ""), gateway(&redis, ""));
    let mine = open(&a, "jo", "d1").await;
    redis.ask(&["FLUSHALL"]).await;
    until("the session is back", async || {
        let answer = listed(&b, &token("jo"), "").await;
        (answer.json()["total"] == 1).then_some(())
    })
    .await;
    until("another node hears it", async || {
        (beat(&b, &mine).await.status == 200).then_some(())
    })
    .await;
}

/// Redis is away: nobody starts, nobody is told to be gone, and those who play go on.
#[tokio::test]
async fn without_redis_it_is_told_to_come_again() {
    let redis = Redis::start(&[]).await;
    let node = gateway(&redis, "").await;
    let mine = open(&node, "kim", "d1").await;
    redis.stop();
    for answer in [
        beat(&node, &mine).await,
        start_as(&node, &token("kim"), &json!({"content": "m"})).await,
    ] {
        assert_eq!(code(&answer), (503, "unavailable".to_owned()), "{answer:?}");
        assert!(answer.header("retry-after").is_some());
    }
    redis.cont();
    until("it is heard again", async || {
        (beat(&node, &mine).await.status == 200).then_some(())
    })
    .await;
}

/// Many heartbeats cost Redis few scripts.
#[tokio::test]
async fn heartbeats_that_come_together_are_one_script() {
    let redis = Redis::start(&[]).await;
    let node = gateway(&redis, "").await;
    let token = sign(&json!({"sub": "lea", "exp": now() + 600, "streams": 200}));
    let mut sessions = Vec::new();
    for number in 0..60 {
        let answer = start_as(
            &node,
            &token,
            &json!({"content": "m", "device": format!("d{number}")}),
        )
        .await;
        sessions.push(lone("lea", &answer.json()));
    }
    let scripts = async || node.metric("usher_redis_commands_total{script=\"beat\"}").await;
    let bearer = format!("Bearer {token}");
    let heads: Vec<String> = sessions
        .iter()
        .map(|lone| {
            let path = format!("/v1/sessions/{}/heartbeat", lone.session);
            let headers = [
                ("Authorization", &*bearer),
                ("Usher-Resume", &*lone.secret),
                ("Content-Length", "0"),
            ];
            request("POST", &path, &headers)
        })
        .collect();
    // Each on a connection that it has already; the second time all at once.
    let mut streams = Vec::new();
    for head in &heads {
        let mut stream = node.connect().await;
        assert_eq!(crate::stage::ask(&mut stream, head).await.status, 200);
        streams.push(stream);
    }
    let before = scripts().await;
    let beats = heads
        .iter()
        .zip(&mut streams)
        .map(|(head, stream)| crate::stage::ask(stream, head));
    for answer in futures_util::future::join_all(beats).await {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let asked = scripts().await - before;
    assert!((1.0..=30.0).contains(&asked), "{asked} scripts for 60 heartbeats");
    assert!(node.metric("usher_heartbeats_total").await >= 120.0);
}

#[tokio::test]
async fn bodies_are_strict_and_lists_too() {
    let node = Node::start().await;
    let bearer = format!("Bearer {}", token("mo"));
    let long = "x".repeat(257);
    let huge = format!("{{\"content\":\"{}\"}}", "x".repeat(20_000));
    let too_long = format!("{{\"content\":\"{long}\"}}");
    for (kind, body, status, field) in [
        ("text/plain", "{\"content\":\"m\"}", 415, None),
        ("application/json", &*huge, 413, None),
        ("application/json", "[]", 400, Some("body")),
        ("application/json", "{", 400, Some("body")),
        ("application/json", "{}", 400, Some("content")),
        ("application/json", "{\"content\":7}", 400, Some("content")),
        ("application/json", "{\"content\":\"\"}", 400, Some("content")),
        ("application/json", &*too_long, 400, Some("content")),
        (
            "application/json",
            "{\"content\":\"m\",\"device\":[]}",
            400,
            Some("device"),
        ),
        (
            "application/json",
            "{\"content\":\"m\",\"takeover\":\"x\"}",
            400,
            Some("takeover"),
        ),
    ] {
        let headers = [("Authorization", &*bearer), ("Content-Type", kind)];
        let answer = call(&node, "POST", "/v1/sessions", &headers, body).await;
        let (found, _, of) = answer.refusal();
        assert_eq!((found, of.as_deref()), (status, field), "{body:.40}");
    }
    let mine = open(&node, "mo", "tv \u{e4}").await;
    for (body, field) in [
        (json!({"position_ms": -1}), "position_ms"),
        (json!({"position_ms": "7"}), "position_ms"),
        (json!({"state": "asleep"}), "state"),
        (json!([1]), "body"),
    ] {
        let answer = word(&node, &mine, &token("mo"), "POST", &body).await;
        assert_eq!(
            answer.refusal(),
            (400, "bad_request".to_owned(), Some(field.to_owned()))
        );
    }
    for (query, field) in [
        ("?page=0", "page"),
        ("?limit=101", "limit"),
        ("?limit=0", "limit"),
        ("?sort=age", "sort"),
        ("?fields=secret", "fields"),
        ("?colour=red", "query"),
    ] {
        let answer = listed(&node, &token("mo"), query).await;
        assert_eq!(
            answer.refusal(),
            (400, "bad_request".to_owned(), Some(field.to_owned())),
            "{query}"
        );
    }
    granted(&node, "mo", "content=film&device=phone").await.0.cut();
    let all = listed(&node, &token("mo"), "").await.json();
    assert_eq!(
        (&all["total"], &all["page"], &all["limit"]),
        (&json!(2), &json!(1), &json!(30))
    );
    let names = async |query: &str| -> Vec<String> {
        let body = listed(&node, &token("mo"), query).await.json();
        let items = body["items"].as_array().unwrap().clone();
        items
            .iter()
            .map(|item| item["device"].as_str().unwrap_or("-").to_owned())
            .collect()
    };
    assert_eq!(names("?sort=-started_at").await, ["phone", "tv \u{e4}"]);
    assert_eq!(names("?sort=device&limit=1&page=2").await, ["tv \u{e4}"]);
    assert_eq!(names("?q=FILM").await, ["phone"]);
    let few = listed(&node, &token("mo"), "?fields=content&q=film").await.json();
    assert_eq!(
        few["items"][0].as_object().unwrap().keys().collect::<Vec<_>>(),
        ["content", "session"]
    );
    assert!(call(&node, "GET", "/v1/sessions", &[], "").await.status == 401);
    assert_eq!(
        call(&node, "PUT", "/v1/sessions", &[("Authorization", &bearer)], "")
            .await
            .status,
        405
    );
}
