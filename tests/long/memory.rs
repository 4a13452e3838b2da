//! What an idle session costs, measured from outside, and how exact its lease is on a full node.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::harness::Node;

/// Sessions at which memory is measured.
const MEASURED: u32 = 10_000;

/// Sessions at which lateness is measured.
const FULL: u32 = 15_000;

/// Players that fall silent on the full node.
const SILENT: u32 = 500;

/// KiB of resident memory a session may cost at 10,000.
const LIMIT_KIB: f64 = 9.0;

fn resident_kib(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_session_is_small_and_a_silent_one_is_ended_on_time() {
    let node = Arc::new(Node::with("[log]\naccess = false").await);
    let hush = watch::Sender::new(false);
    let mut players = JoinSet::new();
    let before = resident_kib(node.child.id());
    open(&node, 0..MEASURED, &hush, &mut players).await;
    let after = resident_kib(node.child.id());
    let each = (after - before) / f64::from(MEASURED);
    eprintln!("{MEASURED} idle TLS sessions: {before} -> {after} KiB resident, {each:.2} KiB each");

    open(&node, MEASURED..FULL, &hush, &mut players).await;
    hush.send_replace(true);
    tokio::time::sleep(Duration::from_secs(12)).await;
    let active = node.metric("usher_sessions_active{tenant=\"main\"}").await;
    let ended = node.metric("usher_release_lateness_seconds_count").await;
    let in_time = node
        .metric("usher_release_lateness_seconds_bucket{le=\"0.25\"}")
        .await;
    let sum = node.metric("usher_release_lateness_seconds_sum").await;
    eprintln!(
        "{FULL} sessions, {SILENT} silent: {ended} ended, {in_time} of them within 250 ms, mean {:.1} ms late",
        sum * 1_000.0 / ended
    );
    assert_eq!(
        (active, ended, in_time),
        (f64::from(FULL - SILENT), f64::from(SILENT), f64::from(SILENT))
    );
    assert!(each <= LIMIT_KIB, "{each:.2} KiB");
}

/// Opens players that answer pings; the first `SILENT` stop listening at `hush`, with their sockets open.
async fn open(
    node: &Arc<Node>,
    numbers: std::ops::Range<u32>,
    hush: &watch::Sender<bool>,
    players: &mut JoinSet<()>,
) {
    let handshakes = Arc::new(Semaphore::new(64));
    let end = numbers.end;
    for number in numbers {
        let permit = Arc::clone(&handshakes).acquire_owned().await.unwrap();
        let (node, mut hush) = (Arc::clone(node), hush.subscribe());
        players.spawn(async move {
            let mut player = node.watch(&format!("account-{number}"), "content=movie-1&device=tv-1").await;
            assert_eq!(player.next().await["type"], "granted");
            drop(permit);
            tokio::select! {
                () = async { while let Some(Ok(_)) = player.socket.next().await {} } => panic!("{number} ended"),
                _ = hush.wait_for(|hush| *hush), if number < SILENT => {}
            }
            std::future::pending::<()>().await;
        });
    }
    let _all = handshakes.acquire_many(64).await.unwrap();
    tokio::time::sleep(Duration::from_secs(12)).await;
    let held = node.metric("usher_sessions_active{tenant=\"main\"}").await;
    assert!((held - f64::from(end)).abs() < 0.5, "{held} sessions of {end}");
}
