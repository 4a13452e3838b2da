//! Playing from the catalogue: the slot that a play takes, enforcement, removal, tags for rules, and streams of accounts.

use std::time::Duration;

use serde_json::{Value, json};

use crate::catalogue::{PLAIN, call, create, editor, film, on_postgres, send, token_of, with};
use crate::harness::Node;
use crate::library::upload;
use crate::redis_servers::until;
use crate::stage::{Answer, request};

const ENFORCED: &str = "[catalogue]\ndemo = false\nenforce = true\n";

fn ann(more: &Value) -> String {
    token_of("t1", "ann", more)
}

async fn play(node: &Node, token: &str, id: &str, query: &str) -> Answer {
    call(
        node,
        "GET",
        &format!("/v1/content/{id}/play?{query}"),
        token,
        &Value::Null,
    )
    .await
}

async fn start(node: &Node, token: &str, content: &str, device: &str) -> Answer {
    let body = json!({"content": content, "device": device});
    call(node, "POST", "/v1/sessions", token, &body).await
}

/// The answer to word of a session, with its secret.
async fn word(node: &Node, token: &str, method: &str, path: &str, secret: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    let headers = [
        ("Authorization", &*bearer),
        ("Usher-Resume", secret),
        ("Content-Length", "0"),
    ];
    node.ask(&request(method, path, &headers)).await
}

/// Three devices play, the fourth is refused, the socket takes a play over, stops, and the fourth plays.
async fn three_of_four(node: &Node) {
    create(node, "t1", &film("m 1")).await;
    let file = upload(node, &editor("t1"), &[], "text/plain", b"a text").await;
    let file = file["id"].as_str().unwrap();
    create(
        node,
        "t1",
        &with(film("m2"), &json!({"source": format!("file:{file}")})),
    )
    .await;
    let me = ann(&json!({}));
    let first = play(node, &me, "m%201", "device=tv-1&device_name=Den&device_class=tv").await;
    assert_eq!(
        (first.status.as_u16(), first.header("cache-control")),
        (200, Some("no-store")),
        "{first:?}"
    );
    let body = first.json();
    assert_eq!(body["source"], "https://cdn.example/film.m3u8");
    assert_eq!(
        (&body["slots"], &body["lease_ms"]),
        (&json!({"used": 1, "limit": 3}), &json!(10_000))
    );
    assert!(
        body["ticket"]["token"].is_string() && body["expires_at"].is_string(),
        "{body}"
    );
    let url = body["watch_url"].as_str().unwrap();
    let path = url.strip_prefix("wss://localhost").unwrap();
    let (session, secret) = (
        body["session"].as_str().unwrap(),
        body["resume"].as_str().unwrap(),
    );
    assert_eq!(path, format!("/v1/watch?content=m+1&device=tv-1&resume={secret}"));

    let second = call(node, "POST", "/v1/content/m2/play?device=tv-2", &me, &Value::Null).await;
    assert_eq!(
        second.json()["source"],
        format!("https://localhost/v1/media/{file}")
    );
    assert_eq!(play(node, &me, "m2", "device=tv-3").await.status, 200);
    let fourth = play(node, &me, "m2", "device=tv-4").await;
    assert_eq!(fourth.refusal(), (403, "stream_limit_reached".to_owned(), None));
    let devices: Vec<_> = fourth.json()["holders"]
        .as_array()
        .unwrap()
        .iter()
        .map(|holder| holder["device"].clone())
        .collect();
    assert_eq!(devices, ["tv-1", "tv-2", "tv-3"]);
    // What is not there takes no slot, also when all are taken; so does what cannot be read.
    assert_eq!(play(node, &me, "m3", "device=tv-4").await.refusal().0, 404);
    for (query, field) in [
        ("device=", "device"),
        ("device=a&device=b", "device"),
        ("takeover=x", "takeover"),
    ] {
        assert_eq!(
            play(node, &me, "m2", query).await.refusal().2.as_deref(),
            Some(field),
            "{query}"
        );
    }

    // The socket of `watch_url` goes on with the same session, for longer than a lease.
    let mut player = node.upgrade(node.connect().await, path, Some(&me)).await.unwrap();
    let granted = player.next().await;
    assert_eq!(
        (&granted["type"], &granted["resumed"]),
        (&json!("granted"), &json!(true))
    );
    assert_eq!(
        (&granted["session"], &granted["slots"]["used"]),
        (&json!(session), &json!(3))
    );
    let heartbeat = format!("/v1/sessions/{session}/heartbeat");
    assert_eq!(
        word(node, &me, "POST", &heartbeat, secret).await.refusal().1,
        "moved"
    );
    player.say(json!({"type": "stop"})).await;
    assert_eq!(player.closed().await.0, 4000);
    let fourth = play(node, &me, "m2", "device=tv-4").await;
    assert_eq!(fourth.status, 200, "{fourth:?}");
    // Taking a slot over, and being gone.
    let victim = fourth.json()["session"].as_str().unwrap().to_owned();
    let fifth = play(node, &me, "m2", &format!("device=tv-5&takeover={victim}")).await;
    assert_eq!(fifth.status, 200, "{fifth:?}");
    let end = call(node, "GET", "/v1/sessions", &me, &Value::Null).await.json();
    assert_eq!(end["total"], 3, "{end}");
}

/// Only what the catalogue has, and shows, is started or switched to.
async fn enforced(node: &Node) {
    let ed = editor("t1");
    create(node, "t1", &film("open")).await;
    create(node, "t1", &with(film("gold"), &json!({"plans": ["gold"]}))).await;
    create(node, "t2", &film("theirs")).await;
    let (me, golden) = (ann(&json!({})), token_of("t1", "gil", &json!({"plan": "gold"})));
    for (content, status, code) in [
        ("nothing", 404, "content_unknown"),
        ("theirs", 404, "content_unknown"),
        ("a%00b", 404, "content_unknown"),
        ("gold", 403, "content_forbidden"),
    ] {
        let refused = node.try_watch(&me, &format!("content={content}&device=d1")).await;
        let (found, body) = refused.err().unwrap();
        assert_eq!(
            (found.as_u16(), &body["error"]["code"]),
            (status, &json!(code)),
            "{content}"
        );
        let content = content.replace("%00", "\0");
        let refusal = start(node, &me, &content, "d1").await.refusal();
        assert_eq!(refusal, (status, code.to_owned(), None), "{content:?}");
    }
    assert_eq!(play(node, &me, "gold", "").await.refusal().1, "content_forbidden");
    assert_eq!(play(node, &golden, "gold", "").await.status, 200);
    assert_eq!(start(node, &golden, "gold", "d2").await.status, 201);
    let streams = json!({"content": "nothing", "device": "d"});
    let answer = call(node, "POST", "/v1/accounts/ann/streams", &me, &streams).await;
    assert_eq!(answer.refusal().1, "content_unknown");

    let mut player = node.try_watch(&me, "content=open&device=d1").await.unwrap();
    assert_eq!(player.next().await["type"], "granted");
    for (content, code) in [("nothing", "content_unknown"), ("gold", "content_forbidden")] {
        player
            .say(json!({"type": "switch", "content": content, "id": content}))
            .await;
        let error = player.next_of("error").await;
        assert_eq!((&error["code"], &error["id"]), (&json!(code), &json!(content)));
    }
    // What is made is there at once on this node, though it was looked for and not found a moment ago.
    create(node, "t1", &film("nothing")).await;
    player.say(json!({"type": "switch", "content": "nothing"})).await;
    assert_eq!(player.next_of("ticket").await["type"], "ticket");
    assert_eq!(node.sessions("nobody").await.len(), 0);

    // What is taken out ends on this node, on sockets and without.
    let lone = start(node, &golden, "nothing", "d3").await.json();
    assert_eq!(
        call(node, "DELETE", "/v1/content/nothing", &ed, &Value::Null)
            .await
            .status,
        204
    );
    let (code, said) = player.closed().await;
    assert_eq!(
        (code, &said.last().unwrap()["code"]),
        (4005, &json!("content_unavailable"))
    );
    let path = format!("/v1/sessions/{}/heartbeat", lone["session"].as_str().unwrap());
    let secret = lone["resume"].as_str().unwrap();
    until("end of the session without a socket", || async {
        let answer = word(node, &golden, "POST", &path, secret).await;
        (answer.status == 410).then(|| assert_eq!(answer.refusal().1, "content_unavailable"))
    })
    .await;
    assert_eq!(start(node, &me, "nothing", "d1").await.refusal().0, 404);
    let mut player = node.try_watch(&me, "content=open&device=d1").await.unwrap();
    assert_eq!(
        player.next().await["slots"]["used"],
        1,
        "the slot of the one that ended is free"
    );
}

#[tokio::test]
async fn plays_on_sqlite() {
    three_of_four(&Node::with(PLAIN).await).await;
}

#[tokio::test]
async fn plays_on_postgresql() {
    let (node, _server) = on_postgres(PLAIN).await;
    three_of_four(&node).await;
}

#[tokio::test]
async fn enforcement_on_sqlite() {
    enforced(&Node::with(ENFORCED).await).await;
}

/// Also: what is remembered is admitted while the database is away, everything else is 503, and nobody waits long.
#[tokio::test]
async fn enforcement_on_postgresql() {
    let (node, mut server) = on_postgres(&format!("{ENFORCED}cache_for = \"100ms\"\n")).await;
    enforced(&node).await;
    let me = ann(&json!({}));
    assert_eq!(start(&node, &me, "open", "d1").await.status, 201);
    server.kill();
    tokio::time::sleep(Duration::from_millis(150)).await;
    for _ in 0..3 {
        let begun = std::time::Instant::now();
        let known = start(&node, &me, "open", "d1").await;
        assert_eq!(known.status, 201, "{known:?}");
        let unknown = start(&node, &me, "new", "d1").await;
        assert_eq!(unknown.refusal(), (503, "catalogue_away".to_owned(), None));
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    }
    let shown = call(&node, "GET", "/v1/content", &me, &Value::Null).await;
    assert_eq!(shown.refusal().1, "database_away");
    server.restart().await;
    until("answers of the catalogue", || async {
        (start(&node, &me, "new", "d1").await.status == 404).then_some(())
    })
    .await;
}

/// Whoever does not enforce lets everything be played, and the catalogue's tags count in rules all the same.
#[tokio::test]
async fn tags_of_the_catalogue_count_in_rules() {
    let rule = "[tags]\nsports = []\nquiet = []\n[rules.sports]\nper = \"tag\"\nof = [\"sports\"]\nlimit = 1\n\
                [exempt]\ntags = [\"quiet\"]\n";
    let node = Node::with(&format!("{PLAIN}{rule}")).await;
    for id in ["m1", "m2"] {
        create(&node, "t1", &with(film(id), &json!({"tags": ["sports", "more"]}))).await;
    }
    create(&node, "t1", &with(film("still"), &json!({"tags": ["quiet"]}))).await;
    let me = ann(&json!({}));
    assert_eq!(start(&node, &me, "m1", "d1").await.status, 201);
    let refused = start(&node, &me, "m2", "d2").await;
    assert_eq!(refused.refusal().1, "stream_limit_reached");
    assert_eq!(refused.json()["rule"], "sports");
    for device in ["d2", "d3"] {
        assert_eq!(start(&node, &me, "unheard-of", device).await.status, 201);
    }
    assert_eq!(
        start(&node, &me, "unheard-of", "d4").await.json()["rule"],
        "account"
    );
    assert_eq!(start(&node, &me, "still", "d5").await.status, 201, "exempt");
    let of_another_tenant = token_of("t2", "ann", &json!({}));
    for device in ["d1", "d2"] {
        assert_eq!(start(&node, &of_another_tenant, "m1", device).await.status, 201);
    }
    let mut player = node
        .try_watch(&token_of("t1", "bo", &json!({})), "content=x&device=b1")
        .await
        .unwrap();
    assert_eq!(player.next().await["type"], "granted");
    assert_eq!(
        start(&node, &token_of("t1", "bo", &json!({})), "m1", "b2")
            .await
            .status,
        201
    );
    player.say(json!({"type": "switch", "content": "m2"})).await;
    let refused = player.next_of("error").await;
    assert_eq!(
        (&refused["code"], &refused["rule"]),
        (&json!("stream_limit_reached"), &json!("sports"))
    );
}

/// A backend that knows only accounts counts and starts their streams; nobody else does.
#[tokio::test]
async fn streams_of_accounts() {
    let plans = "[plans.one]\nlimit = 1\n";
    let node = Node::with(&format!("{PLAIN}{plans}")).await;
    let me = ann(&json!({}));
    let backend = token_of("t1", "shop", &json!({"scope": "support"}));
    let path = "/v1/accounts/ann/streams";
    let empty = call(&node, "GET", path, &me, &Value::Null).await;
    assert_eq!(empty.json(), json!({"count": 0, "limit": 3, "items": []}));
    let own = call(
        &node,
        "POST",
        path,
        &me,
        &json!({"content": "m1", "device": "d1"}),
    )
    .await;
    assert_eq!(own.status, 201, "{own:?}");
    let own_session = own.json()["session"].as_str().unwrap().to_owned();
    assert_eq!(
        own.header("location").unwrap(),
        format!("/v1/sessions/{own_session}")
    );

    let body = json!({"content": "m2", "device": "d2", "device_name": "Den"});
    let begun = call(&node, "POST", path, &backend, &body).await;
    assert_eq!(
        (begun.status.as_u16(), &begun.json()["slots"]),
        (201, &json!({"used": 2, "limit": 3})),
        "{begun:?}"
    );
    let listed = call(&node, "GET", path, &backend, &Value::Null).await.json();
    assert_eq!((&listed["count"], &listed["limit"]), (&json!(2), &json!(3)));
    assert_eq!(listed["items"][1]["device_name"], "Den");
    let limited = call(&node, "GET", &format!("{path}?plan=one"), &backend, &Value::Null).await;
    assert_eq!(limited.json()["limit"], 1);
    let refused = call(
        &node,
        "POST",
        path,
        &backend,
        &with(body, &json!({"device": "d3", "plan": "one"})),
    )
    .await;
    assert_eq!(refused.refusal().1, "stream_limit_reached");
    assert_eq!(refused.json()["holders"].as_array().unwrap().len(), 2);

    // It keeps and ends what it started: by the path that it was given, or, on this node, without the account.
    let location = begun.header("location").unwrap().to_owned();
    let secret = begun.json()["resume"].as_str().unwrap().to_owned();
    let (session, query) = location.split_once('?').unwrap();
    assert_eq!(query, "account=ann&tenant=t1");
    for path in [
        format!("{session}/heartbeat?{query}"),
        format!("{session}/heartbeat"),
    ] {
        let beat = word(&node, &backend, "POST", &path, &secret).await;
        assert_eq!(
            (beat.status.as_u16(), &beat.json()["slots"]["used"]),
            (200, &json!(2)),
            "{path}: {beat:?}"
        );
    }
    let wrong = word(
        &node,
        &backend,
        "POST",
        &format!("{session}/heartbeat?account=bo"),
        &secret,
    )
    .await;
    assert_eq!(wrong.refusal().1, "gone");
    let no_secret = word(&node, &backend, "DELETE", &location, "AAAAAAAAAAAAAAAAAAAAAA").await;
    assert_eq!(no_secret.refusal().1, "secret_forbidden");
    let foreign = token_of("t2", "shop", &json!({"scope": "admin"}));
    assert_eq!(
        word(&node, &foreign, "DELETE", &location, &secret)
            .await
            .refusal()
            .1,
        "tenant_forbidden"
    );
    let blind = word(&node, &foreign, "DELETE", session, &secret).await;
    // Another tenant's session does not exist, and this token may not watch for itself.
    assert_eq!(blind.refusal().1, "scope_forbidden");
    assert_eq!(
        word(&node, &backend, "DELETE", &location, &secret).await.status,
        204
    );
    assert_eq!(
        call(&node, "GET", path, &me, &Value::Null).await.json()["count"],
        1
    );

    for (token, code) in [
        (token_of("t1", "bo", &json!({})), "account_forbidden"),
        (
            token_of("t1", "ann", &json!({"scope": "finance"})),
            "scope_forbidden",
        ),
        (
            token_of("t1", "bo", &json!({"scope": "editor watch"})),
            "account_forbidden",
        ),
    ] {
        for method in ["GET", "POST"] {
            let body = json!({"content": "m"});
            let answer = call(&node, method, path, &token, &body).await;
            assert_eq!(answer.refusal().1, code, "{method}");
        }
    }
    let operator = token_of("main", "op", &json!({"scope": "operator"}));
    let there = call(
        &node,
        "GET",
        &format!("{path}?tenant=t1"),
        &operator,
        &Value::Null,
    )
    .await;
    assert_eq!(there.json()["count"], 1);
    assert_eq!(
        call(&node, "GET", path, &operator, &Value::Null).await.json()["count"],
        0
    );
    let admin = call(&node, "GET", &format!("{path}?tenant=t1"), &foreign, &Value::Null).await;
    assert_eq!(admin.refusal().1, "tenant_forbidden");
    assert_eq!(
        call(&node, "GET", path, &foreign, &Value::Null).await.json()["count"],
        0
    );
    for (body, field) in [
        (json!({}), "content"),
        (json!({"content": ""}), "content"),
        (json!({"content": 1}), "content"),
        (json!({"content": "m", "device": ""}), "device"),
        (json!({"content": "m", "takeover": "x"}), "takeover"),
        (json!({"content": "m", "plan": 1}), "plan"),
        (json!({"content": "m", "roles": "x"}), "roles"),
    ] {
        let answer = call(&node, "POST", path, &backend, &body).await;
        assert_eq!(answer.refusal().2.as_deref(), Some(field), "{body}");
    }
    let odd = send(&node, "GET", "/v1/accounts/%FF/streams", &backend, "", "").await;
    assert_eq!(odd.refusal().0, 404);
    let long = format!("/v1/accounts/{}/streams", "x".repeat(257));
    assert_eq!(send(&node, "GET", &long, &backend, "", "").await.refusal().0, 400);
}
