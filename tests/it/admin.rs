//! The admin listener: what everybody may see, and what operators may do.
//!
//! Long for its tables of requests.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::harness::{Node, Player, now, sign, token};
use crate::stage::{Answer, Place, ask, get, request};

/// An operator's token.
fn operator() -> String {
    sign(&json!({"sub": "op", "exp": now() + 60, "scope": "operator"}))
}

async fn plainly(node: &Node, text: &str) -> Answer {
    ask(&mut TcpStream::connect(node.admin).await.unwrap(), text).await
}

/// A request of an operator's, with a JSON body.
async fn operate(node: &Node, method: &str, target: &str, body: &str) -> Answer {
    let bearer = format!("Bearer {}", operator());
    let length = body.len().to_string();
    let headers = [
        ("Authorization", &*bearer),
        ("Content-Type", "application/json"),
        ("Content-Length", &length),
    ];
    plainly(node, &(request(method, target, &headers) + body)).await
}

async fn playing(node: &Node, account: &str, device: &str) -> Player {
    let mut player = node.watch(account, &format!("content=m1&device={device}")).await;
    player.next_of("granted").await;
    player
}

/// One sample of the exposition format: its name and labels as written, and its value.
fn sample(line: &str) -> (&str, &str, f64) {
    let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
    let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let labels = labels.strip_suffix('}').unwrap_or_else(|| panic!("{line}"));
    for label in labels.split("\",").filter(|label| !label.is_empty()) {
        let (name, value) = label.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
        assert!(
            name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'),
            "{line}"
        );
        assert!(!value.contains('\n'), "{line}");
    }
    (name, labels, value)
}

#[tokio::test]
async fn metrics_are_a_valid_exposition_with_every_promised_name() {
    let node = Node::start().await;
    let mut player = playing(&node, "secret-account", "secret-device").await;
    player.say(json!({"type": "heartbeat"})).await;
    node.ask(&get("/", &[])).await;
    node.metric_becomes("usher_heartbeats_total", 1.0).await;
    let answer = plainly(&node, &get("/metrics", &[])).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    let (mut helps, mut types, mut series) = (HashSet::new(), HashMap::new(), HashMap::new());
    for line in answer.body.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').unwrap();
            assert!(text.len() > 5, "{line}");
            assert!(helps.insert(name), "twice: {line}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(types.insert(name, kind).is_none(), "twice: {line}");
        } else {
            let (name, labels, value) = sample(line);
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .filter_map(|part| name.strip_suffix(part))
                .find(|base| types.get(base) == Some(&"histogram"))
                .unwrap_or(name);
            assert!(
                helps.contains(family) && types.contains_key(family),
                "no HELP and TYPE before {line}"
            );
            assert!(series.insert((name, labels), value).is_none(), "twice: {line}");
        }
    }
    assert_eq!(helps, types.keys().copied().collect());
    for (name, kind) in [
        ("sessions_active", "gauge"),
        ("connections_open", "gauge"),
        ("connections_refused_total", "counter"),
        ("admissions_total", "counter"),
        ("denials_total", "counter"),
        ("sessions_ended_total", "counter"),
        ("session_duration_seconds", "histogram"),
        ("admission_duration_seconds", "histogram"),
        ("release_lateness_seconds", "histogram"),
        ("takeover_duration_seconds", "histogram"),
        ("waiters", "gauge"),
        ("heartbeats_total", "counter"),
        ("concurrency_level", "histogram"),
        ("attempt_level", "histogram"),
        ("tls_handshakes_total", "counter"),
        ("tls_handshake_duration_seconds", "histogram"),
        ("http_requests_total", "counter"),
        ("http_request_duration_seconds", "histogram"),
        ("certificate_expiry_seconds", "gauge"),
        ("build_info", "gauge"),
    ] {
        assert_eq!(types.get(&*format!("usher_{name}")), Some(&kind), "usher_{name}");
    }
    assert!(types.contains_key("process_resident_memory_bytes"));
    for (name, _) in types.iter().filter(|(_, kind)| **kind == "histogram") {
        for ((_, labels), count) in series
            .iter()
            .filter(|((of, _), _)| *of == format!("{name}_count"))
        {
            let parts: Vec<&str> = [*labels, "le=\"+Inf\""]
                .into_iter()
                .filter(|part| !part.is_empty())
                .collect();
            let (bucket, labels) = (format!("{name}_bucket"), parts.join(","));
            let all = series
                .iter()
                .find(|((name, of), _)| (*name, *of) == (&*bucket, &*labels));
            assert_eq!(all.map(|(_, all)| all), Some(count), "{bucket}{{{labels}}}");
        }
    }
    assert!(series[&("usher_certificate_expiry_seconds", "")] > now() as f64);
    assert!(
        !answer.body.contains("secret-"),
        "no account or device is a label"
    );
}

#[tokio::test]
async fn health_is_open_and_the_rest_is_for_operators() {
    let place = Place::with("[listen]\nadmin_hosts = [\"usher-admin.internal\"]");
    let node = place.start().await;
    for (path, body) in [("/healthz", "ok\n"), ("/readyz", "ready\n")] {
        let answer = plainly(&node, &get(path, &[])).await;
        assert_eq!((answer.status.as_u16(), &*answer.body), (200, body));
    }
    let (wrong, watcher) = ("Bearer x.y.z".to_owned(), format!("Bearer {}", token("a")));
    for (method, path) in [
        ("GET", "/v1/admin/sessions"),
        ("GET", "/v1/admin/accounts/a/sessions"),
        ("DELETE", "/v1/admin/accounts/a/sessions"),
        ("DELETE", "/v1/admin/accounts/a/sessions/x"),
        ("GET", "/v1/admin/accounts/a"),
        ("POST", "/v1/admin/accounts/a/block"),
        ("POST", "/v1/admin/accounts/a/unblock"),
        ("PUT", "/v1/admin/accounts/a/limit"),
        ("GET", "/v1/admin/trail"),
        ("GET", "/v1/admin/log"),
        ("PUT", "/v1/admin/log"),
        ("POST", "/v1/admin/sessions"),
        ("GET", "/"),
        ("GET", "/nothing"),
    ] {
        let answer = plainly(&node, &request(method, path, &[])).await;
        assert_eq!(answer.refusal().0, 401, "{method} {path}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        let answer = plainly(&node, &request(method, path, &[("Authorization", &wrong)])).await;
        assert_eq!(answer.refusal().0, 401, "{method} {path}");
        let answer = plainly(&node, &request(method, path, &[("Authorization", &watcher)])).await;
        assert_eq!(
            answer.refusal(),
            (403, "scope_forbidden".to_owned(), None),
            "{method} {path}"
        );
    }
    // A token in the query is never believed here.
    let target = format!("/v1/admin/sessions?token={}", operator());
    assert_eq!(plainly(&node, &get(&target, &[])).await.refusal().0, 401);
    assert_eq!(operate(&node, "GET", "/nothing", "").await.refusal().0, 404);
    for (method, path) in [
        ("POST", "/v1/admin/sessions"),
        ("PATCH", "/v1/admin/log"),
        ("GET", "/v1/admin/accounts/a/sessions/x"),
        ("POST", "/metrics"),
        ("DELETE", "/healthz"),
    ] {
        let answer = operate(&node, method, path, "").await;
        assert_eq!(answer.refusal().0, 405, "{method} {path}");
        assert!(answer.header("allow").is_some(), "{method} {path}");
    }
    for (host, status) in [
        ("localhost", 200),
        ("localhost:9600", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:9600", 200),
        ("usher-admin.internal:9600", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example:9600", 403),
        ("", 403),
    ] {
        for path in ["/metrics", "/healthz"] {
            let answer = plainly(&node, &get(path, &[("Host", host)])).await;
            assert_eq!(answer.status, status, "{host}");
        }
    }
    let answer = plainly(&node, &get("/readyz", &[("Host", "evil.example")])).await;
    assert_eq!(answer.refusal().1, "host_forbidden");
}

#[tokio::test]
async fn sessions_are_listed_by_pages() {
    let node = Node::start().await;
    let mut players = Vec::new();
    for account in ["a", "b"] {
        for device in ["d1", "d2"] {
            players.push(playing(&node, account, device).await);
        }
    }
    let other = sign(&json!({"sub": "a", "exp": now() + 60, "tenant": "other"}));
    let mut player = node.try_watch(&other, "content=m9&device=d9").await.unwrap();
    player.next_of("granted").await;
    let list = async |query: &str| operate(&node, "GET", &format!("/v1/admin/sessions{query}"), "").await;
    let all = list("").await.json();
    assert_eq!(
        (&all["page"], &all["limit"], &all["total"]),
        (&json!(1), &json!(30), &json!(5))
    );
    let devices = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap();
        let name = |item: &Value| format!("{}/{}/{}", item["tenant"], item["account"], item["device"]);
        items.iter().map(|item| name(item).replace('"', "")).collect()
    };
    let expected = ["main/a/d1", "main/a/d2", "main/b/d1", "main/b/d2", "other/a/d9"];
    assert_eq!(devices(&all), expected);
    for (query, expected) in [
        ("?limit=2", &expected[..2]),
        ("?limit=2&page=2", &expected[2..4]),
        ("?limit=2&page=3", &expected[4..]),
        ("?limit=2&page=4", &[]),
        ("?page=1000000&limit=100", &[]),
        ("?account=b", &expected[2..4]),
        ("?tenant=other", &expected[4..]),
        ("?account=a&tenant=other", &expected[4..]),
        ("?account=never-seen", &[]),
    ] {
        assert_eq!(devices(&list(query).await.json()), expected, "{query}");
    }
    let one = &all["items"][4];
    assert_eq!(
        (&one["content"], &one["state"], &one["epoch"]),
        (&json!("m9"), &json!("playing"), &json!(1))
    );
    for query in [
        "?page=0",
        "?page=-1",
        "?page=x",
        "?limit=0",
        "?limit=101",
        "?limit=1e1",
        "?unknown=1",
        "?page=1&page=2",
        "?page=99999999999999999999",
    ] {
        for path in ["/v1/admin/sessions", "/v1/admin/accounts/a/sessions"] {
            let answer = operate(&node, "GET", &format!("{path}{query}"), "").await;
            assert_eq!(answer.refusal().0, 400, "{path}{query}");
            assert!(answer.refusal().2.is_some(), "{query} names no field");
        }
    }
    let empty = operate(&node, "GET", "/v1/admin/accounts/never%20seen/sessions", "")
        .await
        .json();
    assert_eq!(empty, json!({"items": [], "page": 1, "limit": 30, "total": 0}));
    let broken = operate(&node, "GET", "/v1/admin/accounts/%FF/sessions", "").await;
    assert_eq!(broken.refusal().0, 400);
}

async fn is_told(player: &mut Player, since: Instant) {
    let (code, messages) = player.closed().await;
    let ended = messages.last().unwrap();
    assert_eq!(
        (code, &ended["type"], &ended["code"]),
        (4003, &json!("ended"), &json!("ended_by_operator"))
    );
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
}

#[tokio::test]
async fn an_operator_ends_one_or_those_of_a_device_or_all() {
    let node = Node::start().await;
    let sessions = "/v1/admin/accounts/a/sessions";
    let mut one = node.watch("a", "content=m&device=one").await;
    let granted = one.next_of("granted").await;
    let mut two = playing(&node, "a", "two").await;
    let mut three = playing(&node, "a", "three").await;
    let mut waiter = node.watch("a", "content=m&device=four&on_limit=wait").await;
    waiter.next_of("waiting").await;
    let mut bystander = playing(&node, "b", "two").await;

    let start = Instant::now();
    let path = format!("{sessions}/{}", granted["session"].as_str().unwrap());
    assert_eq!(operate(&node, "DELETE", &path, "").await.status, 204);
    is_told(&mut one, start).await;
    assert_eq!(waiter.next_of("granted").await["slots"]["used"], 3);
    assert!(start.elapsed() < Duration::from_secs(1));
    for gone in [
        &*path,
        &format!("{sessions}/not-a-session"),
        "/v1/admin/accounts/b/sessions/x",
    ] {
        assert_eq!(
            operate(&node, "DELETE", gone, "").await.refusal().0,
            404,
            "{gone}"
        );
    }
    // Another account's, by this account's path.
    let path = format!(
        "{sessions}/{}",
        node.sessions("b").await[0]["session"].as_str().unwrap()
    );
    assert_eq!(operate(&node, "DELETE", &path, "").await.refusal().0, 404);

    let start = Instant::now();
    let answer = operate(&node, "DELETE", &format!("{sessions}?device=two"), "").await;
    assert_eq!(answer.json(), json!({"ended": 1}));
    is_told(&mut two, start).await;
    let answer = operate(&node, "DELETE", &format!("{sessions}?device=none"), "").await;
    assert_eq!(answer.json(), json!({"ended": 0}));
    assert_eq!(
        operate(&node, "DELETE", &format!("{sessions}?devise=two"), "")
            .await
            .refusal()
            .0,
        400
    );
    let answer = operate(&node, "DELETE", &format!("{sessions}?tenant=other"), "").await;
    assert_eq!(
        answer.json(),
        json!({"ended": 0}),
        "another tenant's account of the same name"
    );

    let start = Instant::now();
    assert_eq!(
        operate(&node, "DELETE", sessions, "").await.json(),
        json!({"ended": 2})
    );
    is_told(&mut three, start).await;
    is_told(&mut waiter, start).await;
    assert!(node.sessions("a").await.is_empty());
    assert_eq!(
        node.metric("usher_sessions_ended_total{code=\"ended_by_operator\"}")
            .await,
        4.0
    );
    bystander.say(json!({"type": "heartbeat"})).await;
    assert_eq!(node.sessions("b").await.len(), 1);
}

#[tokio::test]
async fn a_session_without_a_socket_can_be_ended_too() {
    let node = Node::start().await;
    let single = sign(&json!({"sub": "a", "exp": now() + 60, "streams": 1}));
    let mut lost = node.try_watch(&single, "content=m&device=lost").await.unwrap();
    let resume = lost.next_of("granted").await["resume"]
        .as_str()
        .unwrap()
        .to_owned();
    lost.cut();
    node.metric_becomes("usher_connections_open", 0.0).await;
    let mut waiter = node
        .try_watch(&single, "content=m&device=next&on_limit=wait")
        .await
        .unwrap();
    waiter.next_of("waiting").await;
    assert_eq!(node.sessions("a").await.len(), 1);
    let start = Instant::now();
    let answer = operate(&node, "DELETE", "/v1/admin/accounts/a/sessions", "").await;
    assert_eq!(answer.json(), json!({"ended": 1}));
    waiter.next_of("granted").await;
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    let mut late = node
        .try_watch(&single, &format!("content=m&device=lost&resume={resume}"))
        .await
        .unwrap();
    assert_eq!(
        late.next().await["type"],
        "denied",
        "what was ended is not resumed"
    );
    node.logs(&["session ended", "ended_by_operator"]).await;
}

#[tokio::test]
async fn the_command_line_ends_sessions_as_well() {
    let node = Node::start().await;
    let mut one = playing(&node, "a b/c", "one").await;
    let mut two = playing(&node, "a b/c", "two").await;
    let mut three = playing(&node, "a b/c", "three").await;
    let listed = node
        .command(&["sessions", "list", "--account", "a b/c", "--json"])
        .unwrap();
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let first = listed["items"][0]["session"].as_str().unwrap();
    let end = |more: &[&str]| node.command(&[&["sessions", "end", "--account", "a b/c"], more].concat());
    for (player, more, said) in [
        (&mut one, &["--session", first][..], "1 ended\n"),
        (&mut two, &["--device", "two", "--json"], "{\"ended\":1}\n"),
        (&mut three, &[], "1 ended\n"),
    ] {
        let answer = end(more).unwrap();
        assert_eq!(answer, said);
        is_told(player, Instant::now()).await;
    }
    assert_eq!(end(&[]).unwrap(), "0 ended\n");
    // Ids are opaque, and one in 64 session ids begins with a hyphen.
    let mut hyphens = playing(&node, "-a", "--device").await;
    for hyphen in ["-Wyz0123456789abcdefghi", "--json"] {
        let error = node
            .command(&["sessions", "end", "--account", "-a", "--session", hyphen])
            .unwrap_err();
        assert!(error.starts_with("exit status: 1"), "{error}");
    }
    assert_eq!(
        node.command(&["sessions", "list", "--account", "-a"])
            .unwrap()
            .lines()
            .count(),
        2
    );
    let ended = node
        .command(&["sessions", "end", "--account", "-a", "--device", "--device"])
        .unwrap();
    assert_eq!(ended, "1 ended\n");
    is_told(&mut hyphens, Instant::now()).await;
    let error = end(&["--session", first]).unwrap_err();
    assert!(
        error.starts_with("exit status: 1") && error.contains("no such session"),
        "{error}"
    );
}

#[tokio::test]
async fn the_log_level_changes_at_run_time() {
    let node = Place::with("[log]\nlevel = \"info\"")
        .serve(&[("USHER_AUTH__HMAC_SECRET", crate::harness::SECRET)], &[])
        .await;
    let rejected = async || {
        let answer = node.ask(&get("/v1/watch?content=m", &[])).await;
        answer.header("x-request-id").unwrap().to_owned()
    };
    let quiet = rejected().await;
    assert_eq!(
        operate(&node, "GET", "/v1/admin/log", "").await.json(),
        json!({"level": "info"})
    );
    let answer = operate(&node, "PUT", "/v1/admin/log", "{\"level\":\"debug\"}").await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()),
        (200, json!({"level": "debug"}))
    );
    assert_eq!(
        operate(&node, "GET", "/v1/admin/log", "").await.json(),
        json!({"level": "debug"})
    );
    let loud = rejected().await;
    node.logs(&["token rejected", &loud]).await;
    let log = node.log();
    assert!(
        !log.lines()
            .any(|line| line.contains(&quiet) && line.contains("token rejected"))
    );
    for body in [
        "",
        "{}",
        "{\"level\":1}",
        "{\"level\":\"loud\"}",
        "{\"level\":\"\"}",
        "[",
        "null",
    ] {
        let answer = operate(&node, "PUT", "/v1/admin/log", body).await;
        let expected = (400, "bad_request".to_owned(), Some("level".to_owned()));
        assert_eq!(answer.refusal(), expected, "{body}");
    }
    let bearer = format!("Bearer {}", operator());
    for kind in [
        &[][..],
        &[("Content-Type", "text/plain")],
        &[("Content-Type", "application/jsonx")],
    ] {
        let body = "{\"level\":\"warn\"}";
        let length = body.len().to_string();
        let headers = [&[("Authorization", &*bearer), ("Content-Length", &length)], kind].concat();
        let answer = plainly(&node, &(request("PUT", "/v1/admin/log", &headers) + body)).await;
        assert_eq!(
            answer.refusal(),
            (415, "unsupported_media_type".to_owned(), None),
            "{kind:?}"
        );
    }
    let charset = [
        ("Authorization", &*bearer),
        ("Content-Type", "application/json; charset=utf-8"),
        ("Content-Length", "16"),
    ];
    let answer = plainly(
        &node,
        &(request("PUT", "/v1/admin/log", &charset) + "{\"level\":\"warn\"}"),
    )
    .await;
    assert_eq!(answer.status, 200);
    let large = format!("{{\"level\":\"{}\"}}", "x".repeat(3 << 20));
    assert_eq!(
        operate(&node, "PUT", "/v1/admin/log", &large).await.refusal().0,
        413
    );
    assert_eq!(
        operate(&node, "GET", "/v1/admin/log", "").await.json(),
        json!({"level": "warn"})
    );
}

/// Prometheus' own linter finds nothing to say about the exposition.
#[tokio::test]
async fn promtool_has_no_complaint_about_the_metrics() {
    let node = Node::start().await;
    let mut player = node.watch("a", "content=m&device=d").await;
    player.next_of("granted").await;
    let (_, _, text) = node.admin_get("/metrics", None).await;
    let file = node.dir.join("metrics.txt");
    std::fs::write(&file, &text).unwrap();
    let output = std::process::Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(std::fs::File::open(&file).unwrap())
        .output()
        .expect("promtool runs (tests/run installs it)");
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}
