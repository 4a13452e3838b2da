//! A storm of sign-ins: bounded memory, and players are let in as before.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;

use super::{PASSWORD, basic, sign_up};
use crate::harness::{Node, SOON, token};
use crate::stage::{answer_within, request};

/// Sign-ins side by side.
const STORM: usize = 200;
/// Admissions measured before, and then while it lasts.
const PLAYERS: usize = 60;

/// Time from the request to `granted`, of players one after the other: median and 99th percentile.
async fn admissions(node: &Node, name: &str, ongoing: impl Fn() -> bool) -> ([Duration; 2], usize) {
    let mut times = Vec::new();
    while times.len() < PLAYERS || ongoing() && times.len() < 10 * PLAYERS {
        let number = times.len();
        let stream = node.connect().await;
        let begun = Instant::now();
        let token = token(&format!("{name}{number}"));
        let mut player = node
            .upgrade(stream, "/v1/watch?content=m", Some(&token))
            .await
            .unwrap();
        player.next_of("granted").await;
        times.push(begun.elapsed());
        player.cut();
        if !ongoing() && number >= PLAYERS {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    times.sort_unstable();
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)];
    ([at(50), at(99)], times.len())
}

#[tokio::test]
async fn a_storm_of_sign_ins_is_bounded_and_players_come_in() {
    // At the full cost of a hash.
    let node = Node::with("").await;
    sign_up(&node, "storm@example.com").await;
    let (calm, _) = admissions(&node, "calm", || false).await;
    let before = node.rss();
    let auth = basic("storm@example.com", PASSWORD);
    let text = request(
        "POST",
        "/v1/auth",
        &[("Authorization", &auth), ("Content-Length", "0")],
    );
    let done = std::cell::Cell::new(0);
    let highest = std::cell::Cell::new(0);
    let begun = Instant::now();
    let all = futures_util::future::join_all((0..STORM).map(|_| async {
        // Connected only now: whoever is silent for too long is cut off.
        let answer = patient(&mut node.connect().await, &text).await;
        done.set(done.get() + 1);
        highest.set(highest.get().max(node.rss()));
        answer
    }));
    let (statuses, (stormy, measured)) =
        tokio::join!(all, admissions(&node, "stormy", || done.get() < STORM));
    let took = begun.elapsed();
    let granted = statuses.iter().filter(|status| **status == 201).count();
    let busy = statuses.iter().filter(|status| **status == 503).count();
    let grown = highest.get().saturating_sub(before) / 1024 / 1024;
    eprintln!(
        "{STORM} sign-ins in {took:?}: {granted} granted, {busy} busy; memory +{grown} MiB; median and p99 of \
         admissions {calm:?} before, {stormy:?} meanwhile ({measured})"
    );
    assert_eq!(granted + busy, STORM, "{statuses:?}");
    assert!(granted > 0);
    // One hash at a time is 19 MiB; two hundred would be 3.8 GiB.
    assert!(grown < 160, "{grown} MiB");
    // Generous, and the median: this machine does other things too. Hashes on the threads of players would each be waited for.
    let bound = calm[0].max(Duration::from_millis(20)) * 6;
    assert!(stormy[0] < bound, "{stormy:?} beside {calm:?}");
    node.metric_becomes("usher_password_queue", 0.0).await;
}

/// One answer's status, however long it takes.
async fn patient<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(stream: &mut S, text: &str) -> u16 {
    use tokio::io::AsyncReadExt;
    stream.write_all(text.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut head = [0; 12];
    let read = tokio::time::timeout(SOON * 24, stream.read_exact(&mut head)).await;
    read.expect("an answer in time").unwrap();
    std::str::from_utf8(&head[9..]).unwrap().parse().unwrap()
}

/// A queue that is full turns away, says when to come back, and is counted.
#[tokio::test]
async fn a_full_queue_is_busy() {
    let node = Node::with("[accounts]\nhash_queue = 1\nhash_threads = 1\nhash_passes = 20\n").await;
    // A hash takes half a second on an idle machine, and here others work too.
    let ask = async |text: String| {
        let mut stream = node.connect().await;
        stream.write_all(text.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        answer_within(SOON * 24, &mut stream).await
    };
    let body = serde_json::json!({"email": "a@example.com", "password": PASSWORD}).to_string();
    let length = body.len().to_string();
    let headers = [
        ("Content-Type", "application/json"),
        ("Content-Length", length.as_str()),
    ];
    let made = ask(request("POST", "/v1/users", &headers) + &body).await;
    assert_eq!(made.status, 201);
    let auth = basic("a@example.com", PASSWORD);
    let headers = [("Authorization", auth.as_str()), ("Content-Length", "0")];
    let asked = (0..8).map(|_| ask(request("POST", "/v1/auth", &headers)));
    let answers = futures_util::future::join_all(asked).await;
    let busy: Vec<_> = answers.iter().filter(|answer| answer.status == 503).collect();
    assert!(!busy.is_empty() && busy.len() < answers.len(), "{answers:?}");
    for answer in &busy {
        assert_eq!(answer.refusal(), (503, "busy".to_owned(), None));
        assert!(answer.header("retry-after").is_some());
    }
    let counted = node.metric("usher_sign_ins_total{outcome=\"busy\"}").await;
    assert!((counted - busy.len() as f64).abs() < 0.5, "{counted}");
}
