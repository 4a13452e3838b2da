//! Webhooks from outside: what is told, to whom, in which order; receivers that fail; nodes that die.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Node, SOON, eventually_within, now, sign, token};
use crate::receiver::{Delivered, Mood, Receiver, settings};
use crate::redis_servers::Redis;
use crate::stage::Place;

/// A lease on a turn, a poll, and a busy machine.
const TAKE_OVER: Duration = Duration::from_secs(45);

/// Starts and stops a session.
async fn play(node: &Node, account: &str) {
    let mut player = node.watch(account, "content=m1&device=tv").await;
    player.next_of("granted").await;
    player.say(json!({"type": "stop"})).await;
    assert_eq!(player.closed().await.0, 4000);
}

/// Plays until something is told: a busy Redis may have missed the mark from which a new receiver is told.
async fn early(node: &Node, receiver: &Receiver) {
    let start = Instant::now();
    while receiver.taken().is_empty() {
        assert!(start.elapsed() < TAKE_OVER, "nothing is told: {}", node.log());
        play(node, "early").await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn operator(node: &Node) -> Value {
    let token = sign(&json!({"sub": "op", "exp": now() + 60, "scope": "operator"}));
    let (status, _, body) = node.admin_get("/v1/admin/webhooks", Some(&token)).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str::<Value>(&body).unwrap()["items"][0].clone()
}

/// The types of the events, by account, in the order of their coming.
fn by_account(taken: &[Delivered]) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for one in taken {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let account = text(&one.body["data"]["account"]);
        found.entry(account).or_default().push(text(&one.body["type"]));
    }
    found
}

/// Each of these accounts was started and ended so many times, in this order.
fn assert_plays(taken: &[Delivered], accounts: usize, plays: usize) {
    let found = by_account(taken);
    assert_eq!(found.len(), accounts, "{found:?}");
    for (account, events) in found {
        assert_eq!(
            events,
            ["session.started", "session.ended"].repeat(plays),
            "{account}"
        );
    }
}

/// Started, refused and ended, signed, with what is known of them.
async fn everything_is_told(node: &Node, receiver: &Receiver) {
    let mut held = node
        .watch(
            "ann",
            "content=m1&device=tv&device_name=Living%20room&device_class=tv",
        )
        .await;
    let granted = held.next_of("granted").await;
    let mut refused = node.watch("ann", "content=m2&device=phone").await;
    refused.next_of("denied").await;
    held.say(json!({"type": "heartbeat", "position_ms": 4200, "state": "playing"}))
        .await;
    held.say(json!({"type": "stop"})).await;
    assert_eq!(held.closed().await.0, 4000);
    // Another tenant's are not this receiver's.
    let foreign = sign(&json!({"sub": "ann", "tenant": "other", "exp": now() + 60}));
    let mut foreign = node.try_watch(&foreign, "content=m1").await.unwrap();
    foreign.next_of("granted").await;
    let taken = receiver.takes(3, SOON).await;
    let of = |kind: &str| {
        let found: Vec<_> = taken.iter().filter(|one| one.body["type"] == kind).collect();
        assert_eq!(found.len(), 1, "{kind} in {taken:?}");
        found[0].body.clone()
    };
    let started = of("session.started");
    let data = &started["data"];
    assert_eq!(data["session"], granted["session"]);
    assert_eq!(
        (&data["tenant"], &data["account"]),
        (&json!("main"), &json!("ann"))
    );
    assert_eq!(
        (&data["device"], &data["device_name"]),
        (&json!("tv"), &json!("Living room"))
    );
    assert_eq!(
        (&data["device_class"], &data["content"]),
        (&json!("tv"), &json!("m1"))
    );
    assert_eq!(started["timestamp"], data["started_at"]);
    assert!(data.get("ended_at").is_none() && data.get("code").is_none());
    let refusal = of("session.refused");
    assert_eq!(refusal["data"]["device"], "phone");
    assert_eq!(refusal["data"]["rule"], "account");
    assert_eq!(refusal["data"]["slots"], json!({"used": 1, "limit": 1}));
    let ended = of("session.ended");
    assert_eq!(ended["data"]["session"], granted["session"]);
    assert_eq!(ended["data"]["code"], "stopped");
    assert_eq!(ended["data"]["position_ms"], 4200);
    assert_eq!(ended["data"]["started_at"], data["started_at"]);
    assert_eq!(ended["timestamp"], ended["data"]["ended_at"]);
    assert!(ended["data"]["watched_ms"].is_u64());
    let plays: Vec<_> = taken
        .iter()
        .filter(|one| one.body["type"] != "session.refused")
        .collect();
    assert_eq!(plays[0].body["type"], "session.started");
    // Another poll and more.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(receiver.taken().len(), 3, "no other tenant's events");
    drop(foreign);
}

#[tokio::test]
async fn a_single_node_tells_what_happens() {
    let receiver = Receiver::start().await;
    let node = Node::with(&format!("{}[lease]\nlimit = 1", receiver.settings(""))).await;
    everything_is_told(&node, &receiver).await;
}

#[tokio::test]
async fn nodes_with_redis_tell_what_happens_once() {
    let (redis, receiver) = (Redis::start(&[]).await, Receiver::start().await);
    let toml = format!(
        "{}[lease]\nlimit = 1\n[redis]\nurl = \"{}\"",
        receiver.settings(""),
        redis.url()
    );
    let (a, b) = tokio::join!(Node::with(&toml), Node::with(&toml));
    everything_is_told(&a, &receiver).await;
    play(&b, "bob").await;
    receiver.takes(5, SOON).await;
    let (a, b) = tokio::join!(
        a.metric("usher_webhook_deliveries_total{outcome=\"delivered\"}"),
        b.metric("usher_webhook_deliveries_total{outcome=\"delivered\"}")
    );
    assert_eq!(a + b, 5.0);
    assert_eq!(receiver.taken().len(), 5, "nobody died: nothing is told twice");
}

/// 500, then silence, then nobody there; everything comes once it is back, and nobody's start was slower for it.
#[tokio::test]
async fn a_receiver_that_fails_delays_nobody_and_misses_nothing() {
    let (redis, mut receiver) = (Redis::start(&[]).await, Receiver::start().await);
    let url = format!("[redis]\nurl = \"{}\"", redis.url());
    let toml = format!("{}{url}\nprefix = \"told\"", receiver.impatient());
    let bare = format!("{url}\nprefix = \"plain\"");
    let (plain, told) = tokio::join!(Node::with(&bare), Node::with(&toml));
    const ACCOUNTS: usize = 20;
    const PLAYS: usize = 3;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for mood in 0..PLAYS {
        match mood {
            0 => receiver.is(Mood::Status(500, "Retry-After: 1\r\n")),
            1 => receiver.is(Mood::Hang),
            _ => receiver.goes_away().await,
        }
        for account in 0..ACCOUNTS {
            let account = format!("a{account}");
            for (node, times) in [(&plain, &mut without), (&told, &mut with)] {
                let start = Instant::now();
                play(node, &account).await;
                times.push(start.elapsed());
            }
        }
    }
    // Something is waiting, and an operator sees it.
    let standing = async {
        loop {
            let item = operator(&told).await;
            if item["lag_ms"].as_u64().unwrap() > 0 && !item["last_error"].is_null() {
                return item;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let item = tokio::time::timeout(SOON * 2, standing)
        .await
        .expect("a receiver that lags");
    assert_eq!(item["dead_letters"]["total"], 0, "{item}");
    assert!(told.metric("usher_webhook_lag_seconds").await > 0.0);
    receiver.is(Mood::Status(204, ""));
    receiver.come_back().await;
    let taken = receiver.takes(ACCOUNTS * PLAYS * 2, TAKE_OVER).await;
    assert_plays(&taken, ACCOUNTS, PLAYS);
    // Starts beside each other on the same machine; generous, because it is busy.
    without.sort_unstable();
    with.sort_unstable();
    let p95 = |times: &[Duration]| times[times.len() * 95 / 100];
    let (without, with) = (p95(&without), p95(&with));
    eprintln!("p95 of a play: {without:?} without webhooks, {with:?} with a failing receiver");
    assert!(
        with < without * 4 + Duration::from_millis(150),
        "{with:?} against {without:?}"
    );
}

#[tokio::test]
async fn another_node_goes_on_when_one_dies_while_it_delivers() {
    let (redis, receiver) = (Redis::start(&[]).await, Receiver::start().await);
    let toml = format!("{}[redis]\nurl = \"{}\"", receiver.impatient(), redis.url());
    // The first one has every turn: it was alone for its recovery.
    let mut first = Node::with(&toml).await;
    early(&first, &receiver).await;
    let second = Node::with(&toml).await;
    receiver.is(Mood::Hang);
    const ACCOUNTS: usize = 12;
    for account in 0..ACCOUNTS {
        play(&second, &format!("a{account}")).await;
    }
    let before = receiver.asked();
    eventually_within(TAKE_OVER, "a delivery under way", || {
        (receiver.asked() > before).then_some(())
    })
    .await;
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    receiver.is(Mood::Status(200, ""));
    let others = receiver.takes_of("a", ACCOUNTS * 2, TAKE_OVER).await;
    assert_plays(&others, ACCOUNTS, 1);
    let delivered = "usher_webhook_deliveries_total{outcome=\"delivered\"}";
    assert!(second.metric(delivered).await >= 24.0);
}

#[tokio::test]
async fn a_node_that_leaves_gives_its_turn_up() {
    let (redis, receiver) = (Redis::start(&[]).await, Receiver::start().await);
    let toml = format!(
        "{}[redis]\nurl = \"{}\"\n[drain]\nwindow = \"0s\"",
        receiver.settings(""),
        redis.url()
    );
    let mut first = Node::with(&toml).await;
    early(&first, &receiver).await;
    let second = Node::with(&toml).await;
    first.signal("-TERM");
    assert_eq!(first.exit_within(SOON).await, Some(0));
    play(&second, "late").await;
    // Well before the lease of 15 s would end: the others look every 5 to 6 s.
    let late = receiver.takes_of("late", 2, Duration::from_secs(13)).await;
    assert_plays(&late, 1, 1);
}

#[tokio::test]
async fn what_is_refused_for_good_is_a_dead_letter_and_the_next_has_its_turn() {
    for with_redis in [false, true] {
        let (redis, receiver) = (Redis::start(&[]).await, Receiver::start().await);
        let mut toml = receiver.settings("events = [\"session.started\"]");
        if with_redis {
            toml.push_str(&format!("[redis]\nurl = \"{}\"", redis.url()));
        }
        let node = Node::with(&toml).await;
        // A redirect is refused like any other: nobody is sent elsewhere.
        receiver.is(Mood::Status(307, "Location: https://localhost:1/elsewhere\r\n"));
        play(&node, "ann").await;
        let refused = "usher_webhook_deliveries_total{outcome=\"dead\"}";
        node.metric_becomes(refused, 1.0).await;
        node.metric_becomes("usher_webhook_dead_letters", 1.0).await;
        assert_eq!(receiver.asked(), 2, "refused_tries");
        receiver.is(Mood::Status(200, ""));
        play(&node, "ann").await;
        let taken = receiver.takes(1, SOON).await;
        let item = operator(&node).await;
        assert_eq!(item["name"], "test");
        assert_eq!(item["events"], json!(["session.started"]));
        let dead = &item["dead_letters"];
        assert_eq!(dead["total"], 1, "{item}");
        assert_eq!(dead["newest"][0]["reason"], "status 307");
        assert_eq!(dead["newest"][0]["body"]["data"]["account"], "ann");
        assert_ne!(dead["newest"][0]["id"], taken[0].id);
        assert_eq!(receiver.taken().len(), 1);
    }
}

/// What it has to say does not matter, nor how much of it.
#[tokio::test]
async fn a_receiver_that_takes_it_with_many_words_has_taken_it() {
    let receiver = Receiver::start().await;
    let node = Node::with(&receiver.settings("")).await;
    receiver.is(Mood::Verbose(1 << 20));
    play(&node, "ann").await;
    assert_plays(&receiver.takes(2, SOON).await, 1, 1);
    node.metric_becomes("usher_webhook_deliveries_total{outcome=\"delivered\"}", 2.0)
        .await;
    assert_eq!(receiver.asked(), 2, "each once");
}

#[tokio::test]
async fn an_event_that_gets_too_old_is_a_dead_letter() {
    let receiver = Receiver::start().await;
    let toml = receiver
        .settings("")
        .replace("[webhooks]\n", "[webhooks]\ngive_up = \"1s\"\n");
    let node = Node::with(&toml).await;
    receiver.is(Mood::Status(503, ""));
    play(&node, "ann").await;
    node.metric_becomes("usher_webhook_dead_letters", 2.0).await;
    receiver.is(Mood::Status(200, ""));
    play(&node, "bob").await;
    assert_plays(&receiver.takes(2, SOON).await, 1, 1);
}

#[tokio::test]
async fn private_addresses_are_not_called_unless_they_are_listed() {
    let receiver = Receiver::start().await;
    let unlisted = |toml: String| toml.replace("allowed_private = [\"127.0.0.0/8\", \"::1/128\"]", "");
    // A name is judged by the addresses that it leads to.
    let node = Node::with(&unlisted(receiver.settings(""))).await;
    play(&node, "ann").await;
    let failed = async {
        while operator(&node).await["last_error"].is_null() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(SOON * 2, failed)
        .await
        .expect("a failed delivery");
    let error = operator(&node).await["last_error"]["message"].to_string();
    assert!(error.contains("outbound.allowed_private"), "{error}");
    assert_eq!(receiver.asked(), 0);
    // An address is judged at the start, and so is everything else.
    let literal = |host: &str| {
        let toml = unlisted(settings(receiver.port, &receiver.ca(), ""));
        toml.replace("https://localhost", &format!("https://{host}"))
    };
    for host in ["127.0.0.1", "[::1]", "10.0.0.1", "169.254.169.254", "100.64.0.1"] {
        let place = Place::with(&literal(host));
        let ran = place.run(
            &[],
            &[
                "serve",
                "--config",
                "usher.toml",
                "--listen",
                "127.0.0.1:0",
                "--admin-listen",
                "127.0.0.1:0",
            ],
        );
        assert_eq!(ran.code, 2, "{host}: {}", ran.stderr);
        assert!(
            ran.stderr.contains("webhooks.receivers.test.url"),
            "{host}: {}",
            ran.stderr
        );
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_receiver_is_said_with_its_path() {
    let receiver = Receiver::start().await;
    let good = receiver.settings("");
    for (from, to, key) in [
        (
            "https://localhost",
            "http://localhost",
            "webhooks.receivers.test.url",
        ),
        ("whsec_", "", "webhooks.receivers.test.secret"),
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_",
            "webhooks.receivers.test.secret",
        ),
        (
            "timeout = \"5s\"",
            "timeout = \"0s\"",
            "webhooks.receivers.test.timeout",
        ),
        (
            "timeout = \"5s\"",
            "events = []",
            "webhooks.receivers.test.events",
        ),
        (
            "timeout = \"5s\"",
            "events = [\"session.paused\"]",
            "webhooks.receivers.test.events[0]",
        ),
        (
            "timeout = \"5s\"",
            "tenant = [\"main\"]",
            "webhooks.receivers.test.tenant",
        ),
        (
            "timeout = \"5s\"",
            "tenants = []",
            "webhooks.receivers.test.tenants",
        ),
        ("receivers.test]", "receivers.Test]", "webhooks.receivers.Test"),
        (
            "retry_most = \"200ms\"",
            "retry_most = \"20ms\"",
            "webhooks.retry_most",
        ),
    ] {
        let place = Place::with(&good.replace(from, to));
        let ran = place.run(&[], &["check-config", "--config", "usher.toml"]);
        assert_eq!(ran.code, 2, "{to}: {}", ran.stderr);
        assert!(ran.stderr.contains(key), "{to}: {}", ran.stderr);
        assert!(!ran.stderr.contains("MfKQ9r8"), "a secret in {}", ran.stderr);
    }
    let place = Place::with(&good.replace("secret = ", "# secret = "));
    place.write("secret", &format!("{}\n", crate::receiver::WEBHOOK_SECRET));
    let file = [("USHER_WEBHOOKS__RECEIVERS__TEST__SECRET_FILE", "secret")];
    let ran = place.run(&file, &["check-config", "--config", "usher.toml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(!ran.stdout.contains("MfKQ9r8"), "{}", ran.stdout);
}

#[tokio::test]
async fn only_an_operator_sees_the_receivers() {
    let node = Node::start().await;
    let path = "/v1/admin/webhooks";
    assert_eq!(node.admin_get(path, None).await.0, 401);
    assert_eq!(node.admin_get(path, Some(&token("a"))).await.0, 403);
    assert_eq!(operator(&node).await, Value::Null, "none is configured");
}
