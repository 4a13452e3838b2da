//! What operators do with accounts: on any node, inside their tenant, within a second, and never unrecorded.
//!
//! Long for the steps of each story; `admin` has the listener, its lists, and the sessions of one node.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Node, Player, now, sign, token};
use crate::redis_servers::{Redis, until};
use crate::stage::Place;

/// In which everybody must have been told, on whichever node.
const AT_ONCE: Duration = Duration::from_secs(1);

async fn gateway(redis: &Redis) -> Node {
    Node::with(&format!("[redis]\nurl = \"{}\"", redis.url())).await
}

fn operator() -> String {
    sign(&json!({"sub": "olga", "exp": now() + 600, "scope": "operator"}))
}

/// A call with this token: status and body.
async fn call(node: &Node, token: &str, method: &str, path: &str, body: &str) -> (u16, Value) {
    let path = format!("/v1/admin/accounts/{path}");
    let (status, _, body) = node.admin_request(method, &path, Some(token), body).await;
    (status.as_u16(), serde_json::from_str(&body).unwrap_or_default())
}

async fn operate(node: &Node, method: &str, path: &str, body: &str) -> Value {
    let (status, answer) = call(node, &operator(), method, path, body).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

async fn granted(node: &Node, token: &str, query: &str) -> (Player, Value) {
    let mut player = node.try_watch(token, query).await.unwrap();
    let message = player.next().await;
    assert_eq!(message["type"], "granted", "{message}");
    (player, message)
}

/// Ends with this code, in time.
async fn told(player: &mut Player, since: Instant, code: u16, name: &str) {
    let (closed, messages) = player.closed().await;
    let last = messages.last().cloned().unwrap_or_default();
    assert_eq!(
        (closed, &last["type"], &last["code"]),
        (code, &json!("ended"), &json!(name)),
        "{messages:?}"
    );
    assert!(since.elapsed() < AT_ONCE, "{:?}", since.elapsed());
}

async fn refused(node: &Node, token: &str, query: &str) -> (u16, String) {
    let (status, body) = node
        .try_watch(token, query)
        .await
        .err()
        .expect("a refusal before the upgrade");
    (
        status.as_u16(),
        body["error"]["code"].as_str().unwrap_or_default().to_owned(),
    )
}

#[tokio::test]
async fn all_sessions_of_an_account_end_on_three_nodes_within_a_second() {
    let redis = Redis::start(&[]).await;
    let (a, b, c) = tokio::join!(gateway(&redis), gateway(&redis), gateway(&redis));
    let mut players = Vec::new();
    for (node, device) in [(&a, "d1"), (&b, "d2"), (&c, "d3")] {
        players.push(
            granted(node, &token("ann"), &format!("content=m&device={device}"))
                .await
                .0,
        );
    }
    let (mut bystander, _) = granted(&b, &token("bob"), "content=m").await;
    let start = Instant::now();
    assert_eq!(
        operate(&c, "DELETE", "ann/sessions", "").await,
        json!({"ended": 3})
    );
    for player in &mut players {
        told(player, start, 4003, "ended_by_operator").await;
    }
    until("nobody is left", async || {
        a.sessions("ann").await.is_empty().then_some(())
    })
    .await;
    bystander.say(json!({"type": "stop"})).await;
    assert_eq!(bystander.closed().await.0, 4000, "nobody else was meant");
}

#[tokio::test]
async fn a_blocked_account_plays_nowhere_until_it_is_unblocked() {
    let redis = Redis::start(&[]).await;
    let (a, b) = tokio::join!(gateway(&redis), gateway(&redis));
    let single = sign(&json!({"sub": "cy", "exp": now() + 600, "streams": 2}));
    let (mut first, grant) = granted(&a, &single, "content=m&device=d1").await;
    let (mut second, _) = granted(&b, &single, "content=m&device=d2").await;
    let mut waiter = b
        .try_watch(&single, "content=m&device=d3&on_limit=wait")
        .await
        .unwrap();
    assert_eq!(waiter.next().await["type"], "waiting");
    let start = Instant::now();
    let expected = json!({"tenant": "main", "account": "cy", "blocked": true, "limit": null, "ended": 2});
    assert_eq!(operate(&a, "POST", "cy/block", "").await, expected);
    for player in [&mut first, &mut second, &mut waiter] {
        told(player, start, 4004, "account_blocked").await;
    }
    let resume = format!("content=m&device=d1&resume={}", grant["resume"].as_str().unwrap());
    let blocked = || (403, "account_blocked".to_owned());
    // Each has a player who was told, and so has heard of it.
    for node in [&a, &b] {
        for query in [
            "content=m",
            "content=m&on_limit=wait",
            "content=m&on_limit=oldest",
            &resume,
        ] {
            assert_eq!(refused(node, &single, query).await, blocked(), "{query}");
        }
        let other_tenant = sign(&json!({"sub": "cy", "exp": now() + 60, "tenant": "other"}));
        granted(node, &other_tenant, "content=m&device=x").await;
    }
    assert!(a.metric("usher_denials_total{rule=\"blocked\"}").await >= 4.0);
    // Again changes nothing, and ends nobody.
    assert_eq!(operate(&b, "POST", "cy/block", "").await["ended"], 0);
    // A node that has not heard of it is told by the store: after the upgrade at first, then before it.
    let c = gateway(&redis).await;
    let (code, messages) = c.try_watch(&single, "content=m").await.unwrap().closed().await;
    assert_eq!(
        (code, &messages[0]["code"]),
        (4004, &json!("account_blocked")),
        "{messages:?}"
    );
    assert_eq!(refused(&c, &single, "content=m").await, blocked());
    let shown = json!({"tenant": "main", "account": "cy", "blocked": true, "limit": null});
    assert_eq!(operate(&c, "GET", "cy", "").await, shown);

    assert_eq!(operate(&b, "POST", "cy/unblock", "").await["blocked"], false);
    for (node, device) in [(&a, "d1"), (&c, "d2")] {
        granted(node, &single, &format!("content=m&device={device}")).await;
    }
}

/// A node without any player of the account refuses the very first start before the upgrade: word came to all nodes. The
/// start may be faster than the word, so there are several accounts.
#[tokio::test]
async fn every_node_hears_of_a_block() {
    let redis = Redis::start(&[]).await;
    let (a, b) = tokio::join!(gateway(&redis), gateway(&redis));
    for number in 0..20 {
        let account = format!("blocked-{number}");
        operate(&a, "POST", &format!("{account}/block"), "").await;
        match b.try_watch(&token(&account), "content=m").await {
            Err((status, _)) => return assert_eq!(status, 403),
            Ok(mut player) => assert_eq!(player.closed().await.0, 4004, "never let in"),
        }
    }
    panic!("no start was refused before the upgrade");
}

#[tokio::test]
async fn a_limit_of_operators_stands_above_token_and_plan() {
    let redis = Redis::start(&[]).await;
    let (a, b) = tokio::join!(gateway(&redis), gateway(&redis));
    let account = token("di");
    let (mut oldest, _) = granted(&a, &account, "content=m&device=d1").await;
    let (mut middle, _) = granted(&b, &account, "content=m&device=d2").await;
    let (mut newest, _) = granted(&a, &account, "content=m&device=d3").await;
    // It counts for new starts, and ends nobody unless it is said.
    let answer = operate(&b, "PUT", "di/limit", "{\"limit\":2}").await;
    assert_eq!((&answer["limit"], &answer["ended"]), (&json!(2), &json!(0)));
    let mut fourth = b.try_watch(&account, "content=m&device=d4").await.unwrap();
    let denied = fourth.next().await;
    assert_eq!(
        (&denied["type"], &denied["slots"]),
        (&json!("denied"), &json!({"used": 3, "limit": 2}))
    );
    newest.say(json!({"type": "heartbeat"})).await;

    let start = Instant::now();
    let answer = operate(&b, "PUT", "di/limit", "{\"limit\":1,\"enforce_running\":true}").await;
    assert_eq!(answer["ended"], 2);
    told(&mut newest, start, 4001, "stream_limit_reached").await;
    told(&mut middle, start, 4001, "stream_limit_reached").await;
    oldest.say(json!({"type": "heartbeat"})).await;

    // A raised limit goes to who waits, at once.
    let mut waiter = a
        .try_watch(&account, "content=m&device=d5&on_limit=wait")
        .await
        .unwrap();
    assert_eq!(waiter.next().await["type"], "waiting");
    let start = Instant::now();
    operate(&b, "PUT", "di/limit", "{\"limit\":4}").await;
    assert_eq!(
        waiter.next_of("granted").await["slots"],
        json!({"used": 2, "limit": 4})
    );
    assert!(start.elapsed() < AT_ONCE);
    for device in ["d6", "d7"] {
        let (_, grant) = granted(&b, &account, &format!("content=m&device={device}")).await;
        assert_eq!(grant["slots"]["limit"], 4, "also above what the token says");
    }
    assert_eq!(
        operate(&a, "PUT", "di/limit", "{\"limit\":null}").await["limit"],
        Value::Null
    );
    let denied = b
        .try_watch(&account, "content=m&device=d8")
        .await
        .unwrap()
        .next()
        .await;
    assert_eq!(denied["slots"]["limit"], 3);
    for body in [
        "",
        "{}",
        "{\"limit\":-1}",
        "{\"limit\":1001}",
        "{\"limit\":\"2\"}",
        "{\"limit\":1.5}",
    ] {
        let (status, answer) = call(&a, &operator(), "PUT", "di/limit", body).await;
        assert_eq!(
            (status, &answer["error"]["field"]),
            (400, &json!("limit")),
            "{body}"
        );
    }
}

/// A single node keeps its operators' decisions over a restart.
#[tokio::test]
async fn a_single_node_remembers_over_a_restart() {
    let place = Place::new();
    let dir = place.path().to_owned();
    let mut node = place.start().await;
    operate(&node, "POST", "ed/block", "").await;
    operate(&node, "PUT", "flo/limit", "{\"limit\":1}").await;
    operate(&node, "POST", "gil/block", "").await;
    operate(&node, "POST", "gil/unblock", "").await;
    let kept: Value = serde_json::from_slice(&fs::read(dir.join("data/standings.json")).unwrap()).unwrap();
    let expected = json!([
        {"tenant": "main", "account": "ed", "blocked": true, "limit": null},
        {"tenant": "main", "account": "flo", "blocked": false, "limit": 1},
    ]);
    assert_eq!(kept, expected);
    node.child.kill().unwrap();
    node.child.wait().unwrap();
    fs::remove_file(dir.join("data/addresses.json")).unwrap();
    node.child = crate::harness::usher_in(&dir)
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--admin-listen",
            "127.0.0.1:0",
        ])
        .envs(crate::stage::USUAL.iter().copied())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    node.wait_until_ready().await;
    assert_eq!(
        refused(&node, &token("ed"), "content=m").await,
        (403, "account_blocked".to_owned())
    );
    let (_first, grant) = granted(&node, &token("flo"), "content=m&device=d1").await;
    assert_eq!(grant["slots"]["limit"], 1);
    granted(&node, &token("gil"), "content=m").await;
}

#[tokio::test]
async fn support_of_a_tenant_sees_and_ends_nothing_of_another() {
    let node = Node::start().await;
    let of = |tenant: &str, scope: &str| {
        sign(&json!({"sub": "sue", "exp": now() + 60, "tenant": tenant, "scope": scope}))
    };
    let player_of = |tenant: &str| sign(&json!({"sub": "hal", "exp": now() + 60, "tenant": tenant}));
    let (mut theirs, grant) = granted(&node, &player_of("b"), "content=secret&device=d1").await;
    let (mut ours, _) = granted(&node, &player_of("a"), "content=m&device=d1").await;
    let session = grant["session"].as_str().unwrap();
    let support = of("a", "support");
    // Every route, and each way to name the other tenant.
    for (method, path, body) in [
        ("GET", "hal", ""),
        ("GET", "hal/sessions", ""),
        ("DELETE", "hal/sessions", ""),
        ("DELETE", &*format!("hal/sessions/{session}"), ""),
        ("POST", "hal/block", ""),
        ("POST", "hal/unblock", ""),
        ("PUT", "hal/limit", "{\"limit\":0,\"enforce_running\":true}"),
    ] {
        for scope in ["support", "admin", "support admin watch introspect"] {
            let (status, answer) =
                call(&node, &of("a", scope), method, &format!("{path}?tenant=b"), body).await;
            assert_eq!(
                (status, &answer["error"]["code"]),
                (403, &json!("tenant_forbidden")),
                "{method} {path}"
            );
        }
        for scope in ["watch", "finance editor introspect"] {
            let (status, answer) = call(&node, &of("b", scope), method, path, body).await;
            assert_eq!(
                (status, &answer["error"]["code"]),
                (403, &json!("scope_forbidden")),
                "{method} {path}"
            );
        }
    }
    // Without naming it: its own tenant, in which that account is another one.
    let (_, list) = call(&node, &support, "GET", "hal/sessions", "").await;
    assert_eq!(
        (&list["total"], &list["items"][0]["content"]),
        (&json!(1), &json!("m"))
    );
    assert_eq!(
        call(&node, &support, "DELETE", &format!("hal/sessions/{session}"), "")
            .await
            .0,
        404
    );
    let start = Instant::now();
    assert_eq!(
        call(&node, &support, "POST", "hal/block?tenant=a", "").await.1["ended"],
        1
    );
    told(&mut ours, start, 4004, "account_blocked").await;
    theirs.say(json!({"type": "heartbeat"})).await;
    granted(&node, &player_of("b"), "content=m&device=d2").await;
    // What is of the whole node is not for them.
    for path in [
        "/v1/admin/sessions",
        "/v1/admin/sessions?tenant=a",
        "/v1/admin/log",
        "/v1/admin/trail",
    ] {
        let (status, _, body) = node.admin_get(path, Some(&support)).await;
        assert!(status == 403 && body.contains("scope_forbidden"), "{path} {body}");
    }
    let (status, answer) = call(&node, &of("a", "operator"), "POST", "hal/block?tenant=a%20b", "").await;
    assert_eq!((status, &answer["error"]["field"]), (400, &json!("tenant")));
    // An operator acts across tenants.
    let (status, list) = call(&node, &of("a", "operator"), "GET", "hal/sessions?tenant=b", "").await;
    assert_eq!((status, &list["total"]), (200, &json!(2)));
}

/// A key's tokens say no more than the key is configured for, whatever they claim.
#[tokio::test]
async fn a_key_operates_only_where_it_is_configured_to() {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let place = Place::with(
        "[[auth.keys]]\nfile = \"desk.pem\"\nalgorithm = \"EdDSA\"\ntenants = [\"a\"]\nscopes = [\"support\"]\n",
    );
    place.write("desk.pem", &pair.public_key_pem());
    let node = place.start().await;
    let key = jsonwebtoken::EncodingKey::from_ed_pem(pair.serialize_pem().as_bytes()).unwrap();
    let desk = |tenant: &str, scope: &str| {
        let claims = json!({"sub": "desk", "exp": now() + 60, "tenant": tenant, "scope": scope});
        jsonwebtoken::encode(
            &jsonwebtoken::Header::new(jsonwebtoken::Algorithm::EdDSA),
            &claims,
            &key,
        )
        .unwrap()
    };
    let everything = "operator admin support watch introspect";
    assert_eq!(
        call(&node, &desk("a", everything), "GET", "x/sessions", "")
            .await
            .0,
        200,
        "support"
    );
    assert_eq!(
        call(&node, &desk("a", everything), "GET", "x/sessions?tenant=b", "")
            .await
            .0,
        403,
        "no operator"
    );
    assert_eq!(
        call(&node, &desk("b", everything), "GET", "x/sessions", "")
            .await
            .0,
        401,
        "not its tenant"
    );
    assert_eq!(
        call(&node, &desk("a", "operator admin"), "GET", "x/sessions", "")
            .await
            .0,
        403
    );
    assert_eq!(
        node.try_watch(&desk("a", everything), "content=m")
            .await
            .err()
            .unwrap()
            .0,
        403,
        "no watching"
    );
    let (status, _, _) = node
        .admin_get("/v1/admin/sessions", Some(&desk("a", everything)))
        .await;
    assert_eq!(status, 403);
}

/// Nothing that a device says ends or renews another device's session, but the account's take-over rules.
#[tokio::test]
async fn a_device_cannot_end_or_beat_the_session_of_another() {
    let node = Node::with("[plans.strict]\nlimit = 1\non_limit = [\"reject\"]\n").await;
    let of =
        |device: &str| sign(&json!({"sub": "ida", "exp": now() + 60, "device": device, "plan": "strict"}));
    let (mut victim, grant) = granted(&node, &of("tv"), "content=m1").await;
    let (session, resume) = (
        grant["session"].as_str().unwrap(),
        grant["resume"].as_str().unwrap(),
    );
    // The plan lets nobody take over, choose, wait, or end the oldest.
    for mode in ["reject", "ask", "wait", "oldest"] {
        let mut phone = node
            .try_watch(&of("phone"), &format!("content=m&on_limit={mode}"))
            .await
            .unwrap();
        let denied = phone.next().await;
        assert_eq!(
            (&denied["type"], &denied["may"]),
            (&json!("denied"), &json!([])),
            "{mode}"
        );
        assert_eq!(phone.closed().await.0, 4001, "{mode}");
    }
    // Nor does the victim's name or secret help: the token is bound to its device.
    assert_eq!(
        refused(&node, &of("phone"), "content=m&device=tv").await,
        (403, "device_forbidden".to_owned())
    );
    let mut phone = node
        .try_watch(&of("phone"), &format!("content=m&resume={resume}"))
        .await
        .unwrap();
    assert_eq!(phone.next().await["type"], "denied");
    // Whoever has a slot of the account has no word about another one's.
    let roomy = sign(&json!({"sub": "ida", "exp": now() + 60, "device": "pc", "streams": 2}));
    let (mut pc, _) = granted(&node, &roomy, "content=m2").await;
    for message in [
        json!({"type": "takeover", "session": session}),
        json!({"type": "takeover_answer", "allow": true}),
        json!({"type": "stop_session", "session": session}),
    ] {
        pc.say(message).await;
        assert_eq!(pc.next_of("error").await["type"], "error");
    }
    pc.say(json!({"type": "heartbeat", "session": session, "state": "paused"}))
        .await;
    pc.say(json!({"type": "stop", "session": session})).await;
    assert_eq!(pc.closed().await.0, 4000);
    let sessions = node.sessions("ida").await;
    assert_eq!(sessions.len(), 1);
    assert_eq!(
        (&sessions[0]["device"], &sessions[0]["state"]),
        (&json!("tv"), &json!("playing"))
    );
    // A player's token operates nothing.
    assert_eq!(
        call(
            &node,
            &of("phone"),
            "DELETE",
            &format!("ida/sessions/{session}"),
            ""
        )
        .await
        .0,
        403
    );
    victim.say(json!({"type": "stop"})).await;
    assert_eq!(victim.closed().await.0, 4000, "it played on all the time");
}

fn trail(node: &Node) -> Vec<Value> {
    let text = fs::read_to_string(node.dir.join("data/audit.log")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test]
async fn every_call_is_in_the_trail() {
    let node = Node::start().await;
    let (_player, grant) = granted(&node, &token("jo"), "content=m&device=tv").await;
    let session = grant["session"].as_str().unwrap();
    operate(&node, "DELETE", "jo/sessions?device=phone", "").await;
    assert_eq!(
        call(
            &node,
            &operator(),
            "DELETE",
            &format!("jo/sessions/{session}"),
            ""
        )
        .await
        .0,
        204
    );
    operate(&node, "PUT", "jo/limit", "{\"limit\":2}").await;
    let support = sign(&json!({"sub": "sam", "exp": now() + 60, "tenant": "a", "scope": "support"}));
    assert_eq!(
        call(&node, &support, "POST", "jo/block?tenant=b", "").await.0,
        403
    );
    // Neither a player nor a stranger leaves a line: they could push what operators did out of the trail.
    assert_eq!(call(&node, &token("jo"), "POST", "jo/unblock", "").await.0, 403);
    assert_eq!(call(&node, "x.y.z", "POST", "jo/block", "").await.0, 401);
    let calls = trail(&node);
    let expected = [
        (
            "olga",
            "sessions.end",
            "main",
            "jo",
            Value::Null,
            json!("phone"),
            200,
            Value::Null,
            json!({"ended": 0}),
        ),
        (
            "olga",
            "sessions.end",
            "main",
            "jo",
            json!(session),
            Value::Null,
            204,
            Value::Null,
            Value::Null,
        ),
        (
            "olga",
            "account.limit",
            "main",
            "jo",
            Value::Null,
            Value::Null,
            200,
            Value::Null,
            json!({"tenant": "main", "account": "jo", "blocked": false, "limit": 2, "ended": 0}),
        ),
        (
            "sam",
            "account.block",
            "b",
            "jo",
            Value::Null,
            Value::Null,
            403,
            json!("tenant_forbidden"),
            Value::Null,
        ),
    ];
    assert_eq!(calls.len(), expected.len(), "{calls:?}");
    for (call, (who, action, tenant, account, session, device, status, error, outcome)) in
        calls.iter().zip(&expected)
    {
        let found = json!([
            call["who"],
            call["action"],
            call["tenant"],
            call["account"],
            call["session"],
            call["device"],
            call["status"],
            call["error"],
            call["outcome"],
        ]);
        assert_eq!(
            found,
            json!([
                who, action, tenant, account, session, device, status, error, outcome
            ])
        );
        assert_eq!(call["from"], "127.0.0.1");
        assert!(humantime::parse_rfc3339(call["at"].as_str().unwrap()).is_ok());
        assert_eq!(call["request_id"].as_str().unwrap().len(), 16);
    }
    assert_eq!(
        (&calls[3]["who_tenant"], &calls[3]["scope"]),
        (&json!("a"), &json!("support"))
    );
    // And read, the newest first; the reading is a call too.
    let (status, _, body) = node.admin_get("/v1/admin/trail?limit=2", Some(&operator())).await;
    assert_eq!(status, 200, "{body}");
    let list: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (&list["total"], list["items"].as_array().unwrap().len()),
        (&json!(4), 2)
    );
    assert_eq!(list["items"][0], calls[3]);
    assert_eq!(trail(&node).last().unwrap()["action"], "trail.list");
    let text = fs::read_to_string(node.dir.join("data/audit.log")).unwrap();
    assert!(!text.contains("eyJ"), "no token is recorded");
    // The command says whose it was.
    node.command(&["accounts", "block", "--account", "jo"]).unwrap();
    assert!(
        trail(&node).last().unwrap()["who"]
            .as_str()
            .unwrap()
            .starts_with("cli:uid=")
    );
}

/// A disk that is full ends nobody's work and is never passed over in silence.
#[tokio::test]
async fn a_trail_that_cannot_be_written_is_said() {
    let place = Place::new();
    fs::create_dir_all(place.path().join("data")).unwrap();
    std::os::unix::fs::symlink("/dev/full", place.path().join("data/audit.log")).unwrap();
    let node = place.start().await;
    assert_eq!(operate(&node, "POST", "kim/block", "").await["blocked"], true);
    node.logs(&[
        "an operator's call is not in the audit trail",
        "account.block",
        "olga",
    ])
    .await;
    assert!((node.metric("usher_trail_failures_total").await - 1.0).abs() < 0.5);
}

#[tokio::test]
async fn the_command_line_blocks_unblocks_and_limits() {
    let node = Node::start().await;
    let (mut player, _) = granted(&node, &token("a b/c"), "content=m").await;
    let run = |arguments: &[&str]| node.command(&[&["accounts"], arguments].concat()).unwrap();
    let start = Instant::now();
    assert_eq!(
        run(&["block", "--account", "a b/c"]),
        "blocked, limit as its tokens and plan say; 1 ended\n"
    );
    told(&mut player, start, 4004, "account_blocked").await;
    assert_eq!(
        run(&["show", "--account", "a b/c"]),
        "blocked, limit as its tokens and plan say\n"
    );
    run(&["unblock", "--account", "a b/c"]);
    let limited = run(&[
        "limit",
        "--account",
        "a b/c",
        "--streams",
        "1",
        "--enforce",
        "--json",
    ]);
    let expected = json!({"tenant": "main", "account": "a b/c", "blocked": false, "limit": 1, "ended": 0});
    assert_eq!(serde_json::from_str::<Value>(&limited).unwrap(), expected);
    assert_eq!(
        run(&["show", "--account", "a b/c", "--tenant", "other"]),
        "not blocked, limit as its tokens and plan say\n"
    );
    assert_eq!(
        run(&["limit", "--account", "a b/c"]),
        "not blocked, limit as its tokens and plan say; 0 ended\n"
    );
    let error = node
        .command(&["accounts", "limit", "--account", "a", "--streams", "1001"])
        .unwrap_err();
    assert!(
        error.starts_with("exit status: 1") && error.contains("0 to 1000"),
        "{error}"
    );
    let error = node.command(&["accounts", "block"]).unwrap_err();
    assert!(error.starts_with("exit status: 2"), "{error}");
}
