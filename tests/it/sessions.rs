//! What a player sees: starts, refusals, take-overs, waits, resumes and ends.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::{Node, Player, now, sign, token};

async fn three(node: &Node, account: &str) -> Vec<Player> {
    let mut players = Vec::new();
    for number in 1..=3 {
        let mut player = node
            .watch(account, &format!("content=m1&device=tv-{number}"))
            .await;
        assert_eq!(player.next().await["slots"], json!({"used": number, "limit": 3}));
        players.push(player);
    }
    players
}

#[tokio::test]
async fn the_fourth_player_is_refused_and_told_who_is_watching() {
    let node = Node::start().await;
    let mut players = three(&node, "a").await;
    let query = "content=m2&device=web-1&device_name=Kitchen%20%C3%A9&device_class=web";
    let mut fourth = node.watch("a", query).await;
    let denied = fourth.next().await;
    assert_eq!(denied["type"], "denied");
    assert_eq!(denied["code"], "stream_limit_reached");
    assert_eq!(denied["rule"], "account");
    assert_eq!(denied["slots"], json!({"used": 3, "limit": 3}));
    assert_eq!(denied["may"], json!(["takeover", "wait"]));
    let holders: Vec<&str> = denied["holders"]
        .as_array()
        .unwrap()
        .iter()
        .map(|h| h["device"].as_str().unwrap())
        .collect();
    assert_eq!(holders, ["tv-1", "tv-2", "tv-3"]);
    assert_eq!(denied["holders"][0]["content"], "m1");
    assert_eq!(denied["holders"][0]["state"], "playing");
    assert_eq!(fourth.closed().await, (4001, vec![]));

    players.remove(0).close(1000).await;
    let mut fourth = node.watch("a", query).await;
    assert_eq!(fourth.next().await["type"], "granted");
    assert_eq!(
        node.metric("usher_admissions_total{outcome=\"denied\"}").await,
        1.0
    );
    assert_eq!(node.metric("usher_sessions_active{tenant=\"main\"}").await, 3.0);
    assert_eq!(node.sessions("a").await[2]["device_name"], "Kitchen é");
}

/// Larger than any buffer that a player who reads nothing may fill.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_names_all_holders_however_many() {
    let node = Node::start().await;
    let many = sign(&json!({"sub": "a", "exp": now() + 60, "streams": 60}));
    let mut players = Vec::new();
    for number in 0..60 {
        let device = format!("{number:0>256}");
        let query = format!("content=m&device={device}&device_name={device}");
        let mut player = node.try_watch(&many, &query).await.unwrap();
        player.next_of("granted").await;
        players.push(player);
    }
    let mut refused = node.try_watch(&many, "content=m&device=one-more").await.unwrap();
    let denied = refused.next().await;
    assert_eq!(denied["holders"].as_array().map(Vec::len), Some(60));
    assert!(denied.to_string().len() > 32 * 1024);
    assert_eq!(refused.closed().await.0, 4001);
}

#[tokio::test]
async fn granted_says_all_that_a_player_needs() {
    let node = Node::start().await;
    let mut player = node.watch("a", "content=m1").await;
    let granted = player.next().await;
    assert_eq!(
        (&granted["heartbeat_ms"], &granted["lease_ms"]),
        (&json!(5_000), &json!(10_000))
    );
    assert_eq!(
        (&granted["resumed"], &granted["provisional"]),
        (&json!(false), &json!(false))
    );
    assert!(granted["ticket"]["token"].is_string());
    let resume = granted["resume"].as_str().unwrap();
    assert_eq!(resume.len(), 22);
    assert!(
        resume
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    );
    assert!(granted["server_time"].as_str().unwrap().ends_with('Z'));
}

/// "Never one more": the acceptance's 100 rounds of fifty simultaneous starts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_simultaneous_starts_grant_exactly_the_limit_a_hundred_times() {
    let node = Node::start().await;
    for round in 0..100 {
        let account = format!("crowd-{round}");
        let connections = join_all((0..50).map(|_| node.connect())).await;
        let starts = connections.into_iter().enumerate().map(|(number, connection)| {
            let (node, token) = (&node, token(&account));
            async move {
                let path = format!("/v1/watch?content=m1&device=d{number}");
                let mut player = node.upgrade(connection, &path, Some(&token)).await.unwrap();
                let first = player.next().await;
                (first["type"].as_str().unwrap().to_owned(), player)
            }
        });
        let answers = join_all(starts).await;
        let granted = answers.iter().filter(|(kind, _)| kind == "granted").count();
        let denied = answers.iter().filter(|(kind, _)| kind == "denied").count();
        assert_eq!((granted, denied), (3, 47), "round {round}");
    }
}

#[tokio::test]
async fn stop_and_a_clean_close_free_the_slot_within_50_ms() {
    let node = Node::start().await;
    for how in ["stop", "1000", "1001"] {
        let mut players = three(&node, how).await;
        let mut leaving = players.remove(1);
        let mut waiter = node.watch(how, "content=m1&device=next&on_limit=wait").await;
        assert_eq!(waiter.next().await, json!({"type": "waiting", "position": 1}));
        let start = Instant::now();
        match how {
            "stop" => leaving.say(json!({"type": "stop", "id": 7})).await,
            code => leaving.close(code.parse().unwrap()).await,
        }
        assert_eq!(waiter.next().await["type"], "granted");
        let took = start.elapsed();
        assert!(took < Duration::from_millis(50), "{how}: {took:?}");
    }
}

#[tokio::test]
async fn a_stop_is_answered_with_ended_and_4000() {
    let node = Node::start().await;
    let mut player = node.watch("a", "content=m1&device=d").await;
    player.next_of("granted").await;
    player.say(json!({"type": "stop", "id": "last"})).await;
    let (code, messages) = player.closed().await;
    assert_eq!(code, 4000);
    assert_eq!(messages[0]["type"], "ended");
    assert_eq!(messages[0]["code"], "stopped");
    assert_eq!(messages[0]["id"], "last", "the answer echoes the id");
    assert!(node.sessions("a").await.is_empty());
}

#[tokio::test]
async fn the_line_is_first_come_first_served_and_bounded() {
    let node = Node::with("[waiting]\nmax = 2").await;
    let mut players = three(&node, "a").await;
    let mut first = node.watch("a", "content=m1&device=w1&on_limit=wait").await;
    assert_eq!(first.next().await["position"], 1);
    let mut second = node.watch("a", "content=m1&device=w2&on_limit=wait").await;
    assert_eq!(second.next().await["position"], 2);
    let mut third = node.watch("a", "content=m1&device=w3&on_limit=wait").await;
    let denied = third.next().await;
    assert_eq!(
        (&denied["type"], &denied["may"]),
        (&json!("denied"), &json!(["takeover"]))
    );
    assert_eq!(node.metric("usher_waiters").await, 2.0);
    players.pop().unwrap().close(1000).await;
    assert_eq!(first.next().await["type"], "granted");
    assert_eq!(second.next().await, json!({"type": "waiting", "position": 1}));
    // A waiter that leaves holds up nobody.
    second.close(1000).await;
    players.pop().unwrap().close(1000).await;
    let mut fresh = node.watch("a", "content=m1&device=fresh").await;
    assert_eq!(fresh.next().await["type"], "granted");
}

#[tokio::test]
async fn waiting_has_an_end() {
    let node = Node::with("[waiting]\ntimeout = \"1s\"").await;
    let _players = three(&node, "a").await;
    let mut waiter = node.watch("a", "content=m1&device=w1&on_limit=wait").await;
    let (code, messages) = waiter.closed().await;
    assert_eq!(code, 4001);
    assert_eq!(messages.last().unwrap()["code"], "stream_limit_reached");
}

#[tokio::test]
async fn oldest_takes_the_first_session_over_and_tells_it_by_whom() {
    let node = Node::start().await;
    let mut players = three(&node, "a").await;
    let mut newcomer = node
        .watch(
            "a",
            "content=m1&device=phone&device_name=My%20phone&on_limit=oldest",
        )
        .await;
    assert_eq!(newcomer.next().await["type"], "granted");
    let (code, messages) = players[0].closed().await;
    assert_eq!(code, 4002);
    let ended = messages.last().unwrap();
    assert_eq!(ended["code"], "displaced");
    assert_eq!(ended["by"], json!({"device": "phone", "device_name": "My phone"}));
    assert_eq!(node.sessions("a").await.len(), 3);
    assert_eq!(node.metric("usher_takeover_duration_seconds_count").await, 1.0);
}

#[tokio::test]
async fn a_refused_player_may_choose_whom_to_end_or_wait() {
    let node = Node::start().await;
    let mut players = three(&node, "a").await;
    let mut newcomer = node.watch("a", "content=m1&device=phone&on_limit=ask").await;
    let denied = newcomer.next().await;
    let victim = denied["holders"][1]["session"].clone();
    newcomer
        .say(json!({"type": "takeover", "session": victim, "id": "t-1"}))
        .await;
    let granted = newcomer.next().await;
    assert_eq!(
        (&granted["type"], &granted["id"]),
        (&json!("granted"), &json!("t-1"))
    );
    assert_eq!(players[1].closed().await.0, 4002);

    let mut second = node.watch("a", "content=m1&device=web&on_limit=ask").await;
    second.next_of("denied").await;
    second.say(json!({"type": "takeover", "session": victim})).await;
    assert_eq!(
        second.next().await["type"],
        "denied",
        "the victim is gone: told anew"
    );
    second.say(json!({"type": "wait", "id": 2})).await;
    assert_eq!(
        second.next().await,
        json!({"type": "waiting", "position": 1, "id": 2})
    );
    players.remove(0).close(1000).await;
    assert_eq!(second.next().await["type"], "granted");
}

#[tokio::test]
async fn asking_has_an_end() {
    let node = Node::with("[takeover]\nask_for = \"1s\"").await;
    let _players = three(&node, "a").await;
    let mut newcomer = node.watch("a", "content=m1&device=phone&on_limit=ask").await;
    newcomer.next_of("denied").await;
    let (code, messages) = newcomer.closed().await;
    assert_eq!((code, &messages[0]["type"]), (4001, &json!("ended")));
}

/// Naming sessions that are gone keeps no socket open without a slot.
#[tokio::test]
async fn asking_has_one_end_for_all_its_choices() {
    let node = Node::with("[takeover]\nask_for = \"1s\"").await;
    let _players = three(&node, "a").await;
    let mut newcomer = node.watch("a", "content=m1&device=phone&on_limit=ask").await;
    let start = Instant::now();
    loop {
        match newcomer.next().await["type"].as_str().unwrap() {
            "ended" => break,
            kind => assert_eq!(kind, "denied"),
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let gone = json!({"type": "takeover", "session": "AAAAAAAAAAAAAAAAAAAAAA"});
        newcomer.say(gone).await;
        assert!(start.elapsed() < Duration::from_secs(5));
    }
    assert_eq!(newcomer.closed().await.0, 4001);
}

#[tokio::test]
async fn who_asks_next_is_shown_and_who_gave_up_takes_nothing() {
    let node = Node::with("[takeover]\nmode = \"consent\"\nanswer_within = \"2s\"").await;
    let mut players = three(&node, "a").await;
    for device in ["first", "second"] {
        let mut newcomer = node
            .watch("a", &format!("content=m1&device={device}&on_limit=oldest"))
            .await;
        assert_eq!(newcomer.next().await["type"], "waiting");
        assert_eq!(
            players[0].next_of("takeover_request").await["by"]["device"],
            device
        );
        newcomer.close(1000).await;
    }
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    players[0]
        .say(json!({"type": "takeover_answer", "allow": true}))
        .await;
    assert_eq!(players[0].next_of("error").await["code"], "bad_state");
    assert_eq!(node.sessions("a").await.len(), 3);
}

#[tokio::test]
async fn consent_asks_the_victim() {
    let node = Node::with("[takeover]\nmode = \"consent\"\nanswer_within = \"1s\"").await;
    let mut players = three(&node, "a").await;
    let mut newcomer = node.watch("a", "content=m1&device=phone&on_limit=ask").await;
    let denied = newcomer.next().await;
    // No.
    newcomer
        .say(json!({"type": "takeover", "session": denied["holders"][0]["session"]}))
        .await;
    assert_eq!(newcomer.next().await["type"], "waiting");
    let request = players[0].next_of("takeover_request").await;
    assert_eq!(request["by"]["device"], "phone");
    assert_eq!(request["answer_within_ms"], 1000);
    players[0]
        .say(json!({"type": "takeover_answer", "allow": false}))
        .await;
    let refused = newcomer.next().await;
    assert_eq!(
        (&refused["type"], &refused["code"]),
        (&json!("denied"), &json!("takeover_refused"))
    );
    // Yes.
    newcomer
        .say(json!({"type": "takeover", "session": denied["holders"][1]["session"]}))
        .await;
    players[1].next_of("takeover_request").await;
    players[1]
        .say(json!({"type": "takeover_answer", "allow": true, "id": 5}))
        .await;
    newcomer.next_of("granted").await;
    let (code, messages) = players[1].closed().await;
    let ended = messages.last().unwrap();
    assert_eq!(
        (code, &ended["code"], &ended["id"]),
        (4002, &json!("displaced"), &json!(5))
    );
    // Silence means yes.
    let mut second = node.watch("a", "content=m1&device=web&on_limit=oldest").await;
    assert_eq!(second.next().await["type"], "waiting");
    let start = Instant::now();
    second.next_of("granted").await;
    assert!(
        start.elapsed() > Duration::from_millis(800),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(players[0].closed().await.0, 4002);
    players[2]
        .say(json!({"type": "takeover_answer", "allow": true, "id": 1}))
        .await;
    let error = players[2].next_of("error").await;
    assert_eq!((&error["code"], &error["id"]), (&json!("bad_state"), &json!(1)));
}

#[tokio::test]
async fn a_resume_keeps_session_and_slot() {
    let node = Node::start().await;
    let mut players = three(&node, "a").await;
    let mut lost = players.remove(0);
    lost.say(json!({"type": "heartbeat", "position_ms": 5, "state": "paused"}))
        .await;
    let before = node.sessions("a").await[0].clone();
    lost.cut();
    // Its slot is kept ...
    let mut other = node.watch("a", "content=m1&device=other").await;
    assert_eq!(other.next().await["type"], "denied");
    // ... and only for who has the secret of this device.
    let secret = |granted: &Value| granted["resume"].as_str().unwrap().to_owned();
    let again = node.sessions("a").await[0].clone();
    assert_eq!(again["epoch"], 1);
    let mut player = node.watch("b", "content=m1&device=tv-1").await;
    let foreign = secret(&player.next().await);
    let mut thief = node
        .watch("a", &format!("content=m1&device=thief&resume={foreign}"))
        .await;
    assert_eq!(
        thief.next().await["type"],
        "denied",
        "another account's secret is no secret"
    );
    assert_eq!(before["session"], again["session"]);
}

#[tokio::test]
async fn a_resume_is_one_more_epoch_of_one_slot_and_the_old_socket_hears_of_it() {
    let node = Node::start().await;
    let mut old = node.watch("a", "content=m1&device=d").await;
    let granted = old.next().await;
    let resume = granted["resume"].as_str().unwrap();
    // The old socket is still half open.
    let mut new = node
        .watch("a", &format!("content=m2&device=d&resume={resume}"))
        .await;
    let resumed = new.next().await;
    assert_eq!(resumed["resumed"], true);
    assert_eq!(resumed["session"], granted["session"]);
    assert_eq!(resumed["resume"], granted["resume"]);
    assert_eq!(resumed["slots"]["used"], 1);
    let (code, messages) = old.closed().await;
    assert_eq!((code, &messages.last().unwrap()["code"]), (4006, &json!("moved")));
    let sessions = node.sessions("a").await;
    assert_eq!(
        (sessions.len(), &sessions[0]["epoch"], &sessions[0]["content"]),
        (1, &json!(2), &json!("m2"))
    );
    // Without a close frame, from a new socket, again.
    new.cut();
    let mut third = node.watch("a", &format!("content=m2&resume={resume}")).await;
    assert_eq!(third.next().await["resumed"], true);
    assert_eq!(node.sessions("a").await[0]["epoch"], 3);
    assert_eq!(node.metric("usher_sessions_active{tenant=\"main\"}").await, 1.0);
    // Another device with the secret starts anew.
    let mut foreign = node
        .watch("a", &format!("content=m2&device=other&resume={resume}"))
        .await;
    let start = foreign.next().await;
    assert_eq!(
        (&start["resumed"], &start["slots"]["used"]),
        (&json!(false), &json!(2))
    );
}

#[tokio::test]
async fn after_a_stop_nothing_is_resumed() {
    let node = Node::start().await;
    let mut player = node.watch("a", "content=m1&device=d").await;
    let granted = player.next().await;
    player.close(1000).await;
    let query = format!(
        "content=m1&device=d&resume={}",
        granted["resume"].as_str().unwrap()
    );
    let again = node.watch("a", &query).await.next().await;
    assert_eq!(again["resumed"], false);
    assert_ne!(again["session"], granted["session"]);
}

#[tokio::test]
async fn the_same_device_replaces_its_own_session() {
    let node = Node::start().await;
    let mut players = three(&node, "a").await;
    for zap in 0..5 {
        let mut player = node.watch("a", &format!("content=zap-{zap}&device=tv-2")).await;
        assert_eq!(player.next().await["slots"]["used"], 3);
        let (code, messages) = std::mem::replace(&mut players[1], player).closed().await;
        assert_eq!((code, &messages.last().unwrap()["code"]), (4006, &json!("moved")));
    }
    assert_eq!(
        node.metric("usher_admissions_total{outcome=\"replaced\"}").await,
        5.0
    );
}

#[tokio::test]
async fn slots_are_told_to_the_others_when_they_change() {
    let node = Node::start().await;
    let mut first = node.watch("a", "content=m1&device=1").await;
    first.next_of("granted").await;
    let mut second = node.watch("a", "content=m1&device=2").await;
    assert_eq!(second.next().await["slots"]["used"], 2);
    assert_eq!(
        first.next().await,
        json!({"type": "slots", "used": 2, "limit": 3})
    );
    second.close(1000).await;
    assert_eq!(
        first.next().await,
        json!({"type": "slots", "used": 1, "limit": 3})
    );
}

#[tokio::test]
async fn switch_and_pause_are_shown_to_others() {
    let node = Node::start().await;
    let claims = json!({"sub": "a", "exp": now() + 60, "contents": ["m1", "m2"], "streams": 1});
    let mut player = node
        .try_watch(&sign(&claims), "content=m1&device=1")
        .await
        .unwrap();
    player.next_of("granted").await;
    player
        .say(json!({"type": "switch", "content": "m3", "id": 3}))
        .await;
    let error = player.next().await;
    assert_eq!(
        (&error["code"], &error["id"]),
        (&json!("content_forbidden"), &json!(3))
    );
    player.say(json!({"type": "switch", "content": "m2"})).await;
    player.say(json!({"type": "heartbeat", "state": "paused"})).await;
    player.say(json!({"type": "fly", "id": 4})).await;
    assert_eq!(player.next_of("error").await["code"], "unknown_type");
    let mut other = node
        .try_watch(&sign(&claims), "content=m1&device=2")
        .await
        .unwrap();
    let denied = other.next().await;
    assert_eq!(denied["slots"]["limit"], 1);
    assert_eq!(
        (&denied["holders"][0]["content"], &denied["holders"][0]["state"]),
        (&json!("m2"), &json!("paused"))
    );
}

#[tokio::test]
async fn the_limit_is_the_tokens_else_the_plans_else_three() {
    let node =
        Node::with("[plans.solo]\nlimit = 1\non_limit = [\"reject\"]\n[plans.family]\nlimit = 5").await;
    for (claims, limit) in [
        (json!({}), 3),
        (json!({"plan": "solo"}), 1),
        (json!({"plan": "family"}), 5),
        (json!({"plan": "unknown"}), 3),
        (json!({"plan": "family", "streams": 2}), 2),
    ] {
        let mut all = json!({"sub": format!("acc{claims}"), "exp": now() + 60});
        all.as_object_mut()
            .unwrap()
            .extend(claims.as_object().unwrap().clone());
        let first = node
            .try_watch(&sign(&all), "content=m&device=1")
            .await
            .unwrap()
            .next()
            .await;
        assert_eq!(first["slots"]["limit"], limit, "{claims}");
    }
    // A mode that the plan forbids is a plain refusal.
    let solo = sign(&json!({"sub": "solo", "exp": now() + 60, "plan": "solo"}));
    let _first = node.try_watch(&solo, "content=m&device=1").await.unwrap();
    let mut second = node
        .try_watch(&solo, "content=m&device=2&on_limit=oldest")
        .await
        .unwrap();
    let denied = second.next().await;
    assert_eq!((&denied["type"], &denied["may"]), (&json!("denied"), &json!([])));
    // No streams at all.
    let none = sign(&json!({"sub": "none", "exp": now() + 60, "streams": 0}));
    let denied = node
        .try_watch(&none, "content=m&device=1&on_limit=oldest")
        .await
        .unwrap()
        .next()
        .await;
    assert_eq!(
        (&denied["type"], &denied["holders"]),
        (&json!("denied"), &json!([]))
    );
}

#[tokio::test]
async fn a_plan_that_lets_players_choose_does_not_let_them_end_the_oldest() {
    let node = Node::with("[plans.basic]\nlimit = 1\non_limit = [\"reject\", \"ask\"]").await;
    let basic = sign(&json!({"sub": "a", "exp": now() + 60, "plan": "basic"}));
    let mut first = node.try_watch(&basic, "content=m&device=1").await.unwrap();
    let session = first.next().await["session"].clone();
    let mut oldest = node
        .try_watch(&basic, "content=m&device=2&on_limit=oldest")
        .await
        .unwrap();
    let denied = oldest.next().await;
    assert_eq!(
        (&denied["type"], &denied["may"]),
        (&json!("denied"), &json!(["takeover"]))
    );
    assert_eq!(oldest.closed().await, (4001, vec![]));
    assert_eq!(node.sessions("a").await[0]["session"], session);
    let mut chooser = node
        .try_watch(&basic, "content=m&device=2&on_limit=ask")
        .await
        .unwrap();
    chooser.next_of("denied").await;
    chooser.say(json!({"type": "takeover", "session": session})).await;
    assert_eq!(chooser.next().await["type"], "granted");
    let of_plan = |plan: &str| format!("usher_plan_sessions_active{{plan=\"{plan}\"}}");
    node.metric_becomes(&of_plan("basic"), 1.0).await;
    let mut other = node.watch("b", "content=m").await;
    other.next_of("granted").await;
    assert_eq!(node.metric(&of_plan("none")).await, 1.0);
    other.close(1000).await;
    node.metric_becomes(&of_plan("none"), 0.0).await;
}

#[tokio::test]
async fn tenants_never_meet() {
    let node = Node::start().await;
    let of = |tenant| sign(&json!({"sub": "same", "exp": now() + 60, "tenant": tenant, "streams": 1}));
    let mut a = node.try_watch(&of("a"), "content=m&device=1").await.unwrap();
    let mut b = node.try_watch(&of("b"), "content=m&device=1").await.unwrap();
    assert_eq!(a.next().await["slots"]["used"], 1);
    assert_eq!(b.next().await["slots"]["used"], 1);
    assert_eq!(node.metric("usher_sessions_active{tenant=\"b\"}").await, 1.0);
}

#[tokio::test]
async fn an_expired_token_ends_the_session_unless_a_fresh_one_came() {
    let node = Node::start().await;
    let short = |device: &str| sign(&json!({"sub": "a", "exp": now() + 3, "device": device}));
    let mut careless = node.try_watch(&short("1"), "content=m").await.unwrap();
    let mut careful = node.try_watch(&short("2"), "content=m").await.unwrap();
    careless.next_of("granted").await;
    careful.next_of("granted").await;
    for (bad, code) in [
        ("nonsense".to_owned(), "bad_token"),
        (token("somebody else"), "bad_token"),
        (
            sign(&json!({"sub": "a", "exp": now() + 60, "device": "1"})),
            "bad_token",
        ),
        (
            sign(&json!({"sub": "a", "exp": now() + 60, "contents": ["other"]})),
            "content_forbidden",
        ),
    ] {
        careful.say(json!({"type": "token", "token": bad, "id": 1})).await;
        let error = careful.next_of("error").await;
        assert_eq!((&error["code"], &error["id"]), (&json!(code), &json!(1)));
    }
    careful.say(json!({"type": "token", "token": token("a")})).await;
    let (code, messages) = careless.closed().await;
    assert_eq!(
        (code, &messages.last().unwrap()["code"]),
        (4103, &json!("token_expired"))
    );
    let used = careful.next_of("slots").await;
    assert_eq!(used["used"], 1);
    careful.say(json!({"type": "fly"})).await;
    careful.next_of("error").await;
}
