//! A node's life: leaving without breaking plays, reloading without dropping any, and the log it leaves.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::harness::{Node, Player, SECRET, SOON, eventually, now, sign, token, trust};
use crate::stage::{Place, ask, get, handshake};

const HMAC: &[(&str, &str)] = &[("USHER_AUTH__HMAC_SECRET", SECRET)];

async fn playing(node: &Node, account: &str) -> Player {
    let mut player = node.watch(account, "content=m&device=d").await;
    player.next_of("granted").await;
    player
}

/// Whether the player's session is alive: it is answered.
async fn is_alive(player: &mut Player) {
    player.say(json!({"type": "nonsense", "id": "alive?"})).await;
    assert_eq!(player.next_of("error").await["id"], "alive?");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leaving_node_tells_its_players_and_closes_them_one_after_the_other() {
    const WINDOW: Duration = Duration::from_secs(2);
    let mut node = Node::with("[drain]\nwindow = \"2s\"").await;
    let mut players = Vec::new();
    for number in 0..4 {
        players.push(playing(&node, &format!("a{number}")).await);
    }
    // Somebody who lost the connection, somebody who waits, and somebody who reads nothing.
    playing(&node, "lost").await.cut();
    let single = sign(&json!({"sub": "single", "exp": now() + 60, "streams": 1}));
    let mut holder = node.try_watch(&single, "content=m&device=1").await.unwrap();
    holder.next_of("granted").await;
    let mut waiter = node
        .try_watch(&single, "content=m&device=2&on_limit=wait")
        .await
        .unwrap();
    waiter.next_of("waiting").await;
    players.extend([holder, waiter]);
    let deaf = playing(&node, "deaf").await;
    node.metric_becomes("usher_connections_open", 7.0).await;

    node.signal("-TERM");
    let start = Instant::now();
    node.logs(&["draining"]).await;
    let ready = ask(
        &mut TcpStream::connect(node.admin).await.unwrap(),
        &get("/readyz", &[]),
    )
    .await;
    assert_eq!(ready.refusal().1, "draining");
    assert_eq!(ready.status, 503);
    let alive = ask(
        &mut TcpStream::connect(node.admin).await.unwrap(),
        &get("/healthz", &[]),
    )
    .await;
    assert_eq!(alive.status, 200, "leaving is not being dead");
    let health = node.command(&["health"]).unwrap_err();
    assert!(
        health.starts_with("exit status: 1") && health.contains("not ready"),
        "{health}"
    );
    let bearer = format!("Bearer {}", token("late"));
    let late = node
        .ask(&handshake("/v1/watch?content=m", &[("Authorization", &bearer)]))
        .await;
    assert_eq!(late.refusal(), (503, "draining".to_owned(), None));
    assert!(late.header("retry-after").unwrap().parse::<u32>().unwrap() >= 1);

    let ends = join_all(players.iter_mut().map(|player| async move {
        let told = player.next_of("draining").await;
        assert_eq!(told["reconnect_within_ms"], 2_000);
        let (code, messages) = player.closed().await;
        let ended = messages
            .iter()
            .find(|message| message["type"] == "ended")
            .unwrap();
        assert_eq!((code, &ended["code"]), (4200, &json!("draining")));
        start.elapsed()
    }))
    .await;
    let (first, last) = (ends.iter().min().unwrap(), ends.iter().max().unwrap());
    assert!(*last - *first >= WINDOW / 2, "spread over the window: {ends:?}");
    assert!(*last <= WINDOW + Duration::from_secs(2), "{ends:?}");
    // The slots kept for a resume elsewhere do not keep the process.
    assert_eq!(node.exit_within(Duration::from_secs(8)).await, Some(0));
    let took = start.elapsed();
    assert!(took < WINDOW + Duration::from_secs(4), "{took:?}");
    drop(deaf);
    assert!(node.log().contains("drained"), "{}", node.log());
}

#[tokio::test]
async fn the_drains_deadline_holds_whoever_does_not_listen() {
    let mut node = Node::with("[drain]\nwindow = \"1s\"\ndeadline = \"2s\"").await;
    let _deaf = playing(&node, "deaf").await;
    // Two that have not even begun: no TLS, and TLS without a request.
    let _silent = TcpStream::connect(node.players).await.unwrap();
    let _mute = node.connect().await;
    let start = Instant::now();
    node.signal("-TERM");
    assert_eq!(node.exit_within(SOON).await, Some(0));
    let took = start.elapsed();
    assert!(took < Duration::from_millis(3_500), "{took:?}: {}", node.log());
}

#[tokio::test]
async fn a_second_signal_ends_at_once_and_an_idle_node_with_the_first() {
    let mut node = Node::with("[drain]\nwindow = \"60s\"\ndeadline = \"60s\"").await;
    let mut player = playing(&node, "a").await;
    node.signal("-TERM");
    player.next_of("draining").await;
    let start = Instant::now();
    node.signal("-TERM");
    assert_eq!(
        node.exit_within(Duration::from_secs(3)).await,
        Some(0),
        "{:?}",
        start.elapsed()
    );

    for signal in ["-TERM", "-INT"] {
        let mut idle = Node::start().await;
        // A connection that is kept open for more requests holds nobody up.
        let mut kept = idle.connect().await;
        assert_eq!(ask(&mut kept, &get("/", &[])).await.status, 200);
        idle.signal(signal);
        assert_eq!(idle.exit_within(Duration::from_secs(4)).await, Some(0));
    }
}

/// A self-signed certificate for `localhost` in `own.pem` and `own-key.pem`.
fn certify(dir: &std::path::Path) {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    // The key first: whoever looks in between finds a pair that does not match, and keeps the old one.
    fs::write(dir.join("own-key.pem"), pair.signing_key.serialize_pem()).unwrap();
    fs::write(dir.join("own.pem"), pair.cert.pem()).unwrap();
}

/// A connection of somebody new: who resumes a TLS session is shown no certificate.
async fn newcomer(node: &Node) -> std::io::Result<TlsStream<TcpStream>> {
    let mut config = (*node.tls).clone();
    config.resumption = rustls::client::Resumption::disabled();
    let stream = TcpStream::connect(node.players).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await
}

async fn certificate(node: &Node) -> CertificateDer<'static> {
    let stream = newcomer(node).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0]
        .clone()
        .into_owned()
}

#[tokio::test]
async fn sighup_takes_over_certificate_limits_and_log_level_and_drops_nobody() {
    let settings = |limit: u32, level: &str| {
        format!(
            "[tls]\ncert = \"own.pem\"\nkey = \"own-key.pem\"\nreload_interval = \"24h\"\n\
             [lease]\nlimit = {limit}\n[plans.duo]\nlimit = {limit}\n[log]\nlevel = \"{level}\""
        )
    };
    let place = Place::with(&settings(1, "info"));
    certify(place.path());
    let mut node = place.serve(HMAC, &[]).await;
    let (cert, toml) = (node.dir.join("own.pem"), node.dir.join("usher.toml"));
    node.tls = trust(Some(&cert));
    let old = certificate(&node).await;
    let mut player = playing(&node, "a").await;
    let duo = sign(&json!({"sub": "b", "exp": now() + 60, "plan": "duo"}));
    let mut first = node.try_watch(&duo, "content=m&device=1").await.unwrap();
    assert_eq!(
        first.next_of("granted").await["slots"],
        json!({"used": 1, "limit": 1})
    );
    let mut refused = node.try_watch(&duo, "content=m&device=2").await.unwrap();
    assert_eq!(refused.next().await["type"], "denied");

    certify(&node.dir);
    assert_eq!(
        certificate(&node).await,
        old,
        "only a signal or the interval makes it look"
    );
    fs::write(&toml, settings(2, "debug")).unwrap();
    node.signal("-HUP");
    node.logs(&["configuration and certificates reloaded"]).await;
    assert!(
        newcomer(&node).await.is_err(),
        "nobody is given the old one any more"
    );
    node.tls = trust(Some(&cert));
    assert_ne!(certificate(&node).await, old);
    let mut second = node.try_watch(&duo, "content=m&device=2").await.unwrap();
    assert_eq!(
        second.next_of("granted").await["slots"],
        json!({"used": 2, "limit": 2})
    );
    let operator = sign(&json!({"sub": "op", "exp": now() + 60, "scope": "operator"}));
    let (_, _, level) = node.admin_get("/v1/admin/log", Some(&operator)).await;
    assert_eq!(
        serde_json::from_str::<Value>(&level).unwrap(),
        json!({"level": "debug"})
    );
    is_alive(&mut player).await;
    is_alive(&mut first).await;

    // Whatever is wrong with it, a reload ends nothing.
    let current = certificate(&node).await;
    for (broken, said) in [
        ("[lease]\nlimits = 1".to_owned(), "lease.limits"),
        (settings(1, "loud"), "log.level"),
    ] {
        fs::write(&toml, broken).unwrap();
        node.signal("-HUP");
        node.logs(&["not reloaded", said]).await;
    }
    fs::write(&toml, settings(3, "debug")).unwrap();
    fs::write(&cert, "no certificate").unwrap();
    node.signal("-HUP");
    node.logs(&["not reloaded", "own.pem"]).await;
    assert_eq!(certificate(&node).await, current);
    let mut third = node.try_watch(&duo, "content=m&device=3").await.unwrap();
    assert_eq!(third.next().await["type"], "denied", "all of a reload or nothing");
    is_alive(&mut player).await;
}

#[tokio::test]
async fn a_certificate_renewed_on_disk_is_picked_up_by_itself() {
    let node = Place::with("[tls]\nreload_interval = \"1s\"").start().await;
    let old = certificate(&node).await;
    let mut player = playing(&node, "a").await;
    // Renewed by the same CA.
    for file in ["server.pem", "server-key.pem"] {
        fs::remove_file(node.dir.join("certs").join(file)).unwrap();
    }
    node.command(&["certs"]).unwrap();
    node.logs(&["certificate reloaded"]).await;
    assert_ne!(certificate(&node).await, old);
    is_alive(&mut player).await;
    let mut next = node.watch("a", "content=m&device=next").await;
    assert_eq!(next.next().await["type"], "granted");
}

#[tokio::test]
async fn a_rotated_json_log_tells_in_one_line_why_a_player_was_cut_off() {
    let node =
        Place::with("[log]\nformat = \"json\"\nfile = \"logs/usher.log\"\nmax_bytes = 4096\nfiles = 3")
            .serve(HMAC, &[])
            .await;
    let mut stream = node.connect().await;
    for number in 0..80 {
        let answer = ask(&mut stream, &get(&format!("/page-{number}"), &[])).await;
        assert_eq!(answer.status, 404);
    }
    let mut player = node.watch("account-1", "content=m1&device=tv-1").await;
    let granted = player.next_of("granted").await;
    player
        .say(json!({"type": "heartbeat", "position_ms": 83_500}))
        .await;
    is_alive(&mut player).await;
    node.command(&["sessions", "end", "--account", "account-1"])
        .unwrap();
    assert_eq!(player.closed().await.0, 4003);

    let lines = || -> Vec<Value> {
        ["usher.log.2", "usher.log.1", "usher.log"]
            .iter()
            .filter_map(|name| fs::read_to_string(node.dir.join("logs").join(name)).ok())
            .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
            // The last line may be under way.
            .filter_map(|line| serde_json::from_str(&line).ok())
            .collect()
    };
    let ended = eventually("line of the end", || {
        lines()
            .into_iter()
            .find(|line| line["message"] == "session ended")
    })
    .await;
    for (key, value) in [
        ("level", json!("INFO")),
        ("session", granted["session"].clone()),
        ("account", json!("account-1")),
        ("tenant", json!("main")),
        ("device", json!("tv-1")),
        ("content", json!("m1")),
        ("address", json!("127.0.0.1")),
        ("code", json!(4003)),
        ("reason", json!("ended_by_operator")),
        ("position_ms", json!(83_500)),
    ] {
        assert_eq!(ended[key], value, "{key} of {ended}");
    }
    assert!(ended["duration_ms"].is_u64(), "{ended}");
    assert_eq!(ended["request_id"].as_str().unwrap().len(), 16, "{ended}");
    assert!(ended["timestamp"].as_str().unwrap().ends_with('Z'), "{ended}");
    // The access log stays whole lines, the oldest are gone, and the files keep to their size.
    let mut sizes: Vec<(String, u64)> = fs::read_dir(node.dir.join("logs"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            (
                entry.file_name().into_string().unwrap(),
                entry.metadata().unwrap().len(),
            )
        })
        .collect();
    sizes.sort();
    let names: Vec<&str> = sizes.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["usher.log", "usher.log.1", "usher.log.2"]);
    assert!(sizes.iter().all(|(_, bytes)| *bytes <= 4096), "{sizes:?}");
    let paths: Vec<String> = lines()
        .iter()
        .filter_map(|line| line["path"].as_str().map(str::to_owned))
        .collect();
    assert!(
        paths.contains(&"/page-79".to_owned()) && !paths.contains(&"/page-0".to_owned()),
        "{paths:?}"
    );
    assert!(
        !lines()
            .iter()
            .any(|line| line.to_string().contains(granted["resume"].as_str().unwrap()))
    );
}

#[tokio::test]
async fn a_reload_takes_over_the_times_to_choose_and_names_what_waits_for_a_restart() {
    let node = Node::with("[plans.solo]\nlimit = 1").await;
    let solo = sign(&json!({"sub": "a", "exp": now() + 60, "plan": "solo"}));
    let mut first = node.try_watch(&solo, "content=m&device=1").await.unwrap();
    first.next_of("granted").await;
    let changed = "[plans.solo]\nlimit = 1\n[takeover]\nask_for = \"1s\"\n[limits]\nmessages_burst = 7";
    fs::write(node.dir.join("usher.toml"), changed).unwrap();
    node.signal("-HUP");
    let line = node.logs(&["wait for a restart"]).await;
    assert!(
        line.contains("limits.messages_burst") && !line.contains("ask_for"),
        "{line}"
    );
    let mut second = node
        .try_watch(&solo, "content=m&device=2&on_limit=ask")
        .await
        .unwrap();
    second.next_of("denied").await;
    let (code, _) = second.closed_within(Duration::from_secs(5)).await;
    assert_eq!(code, 4001, "one second to choose, no longer thirty");
}
