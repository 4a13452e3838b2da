//! Deadlines of a connection, with the clock paused: nobody may hold one open by being slow.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;
use tokio::time::{advance, timeout};

use super::*;
use crate::net::lane::Lane;

/// What is left of the handshake for the first head.
const FIRST_HEAD: Duration = Duration::from_secs(5);

/// Answers everything with an empty 200.
struct Anything;

impl Handler for Anything {
    fn respond(&self, _: Request<Incoming>, _: Peer) -> Answer {
        Box::pin(async {
            Reply {
                response: Response::new(Body::empty()),
                then: None,
            }
        })
    }
}

struct Client {
    stream: DuplexStream,
    served: JoinHandle<bool>,
    stop: watch::Sender<bool>,
}

fn connect() -> Client {
    let (stream, io) = tokio::io::duplex(64 * 1024);
    let stop = watch::Sender::new(false);
    let peer = Peer {
        address: (Ipv4Addr::LOCALHOST, 1).into(),
        upgradable: true,
        deadline: Instant::now() + FIRST_HEAD,
    };
    let (asked, load) = (stop.subscribe(), Load::none(&Lane::new()));
    let served = tokio::spawn(async move {
        serve_http1(io, peer, Arc::new(Anything), load, asked)
            .await
            .is_some()
    });
    Client { stream, served, stop }
}

impl Client {
    async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    async fn ask(&mut self) {
        self.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(self.stream.read_u8().await.unwrap());
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"));
    }

    /// Drips header lines, one a second, until the connection is closed; for how long that went on.
    async fn drip(&mut self) -> Duration {
        let start = Instant::now();
        while !self.served.is_finished() {
            assert!(start.elapsed() < Duration::from_secs(3600), "never closed");
            // The far end may be gone already.
            let _ = self.stream.write_all(b"x: 1\r\n").await;
            advance(Duration::from_secs(1)).await;
            tokio::task::yield_now().await;
        }
        start.elapsed()
    }
}

fn assert_about(found: Duration, expected: Duration) {
    let late = found.checked_sub(expected).unwrap_or(Duration::MAX);
    assert!(
        late <= Duration::from_secs(3),
        "{found:?} instead of {expected:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_slow_first_head_has_until_the_deadline() {
    let mut client = connect();
    client.send("GET / HTTP/1.1\r\n").await;
    assert_about(client.drip().await, FIRST_HEAD);
}

#[tokio::test(start_paused = true)]
async fn a_slow_second_head_on_a_kept_connection_is_bounded_too() {
    let mut client = connect();
    client.ask().await;
    client.ask().await;
    client.send("GET / HTTP/1.1\r\n").await;
    assert_about(client.drip().await, IDLE);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_and_each_request_gives_it_time_again() {
    let mut client = connect();
    let start = Instant::now();
    for _ in 0..5 {
        client.ask().await;
        tokio::time::sleep(IDLE - Duration::from_secs(1)).await;
    }
    client.ask().await;
    assert_eq!(
        timeout(IDLE * 2, client.stream.read(&mut [0; 8]))
            .await
            .unwrap()
            .unwrap(),
        0
    );
    assert_about(start.elapsed(), 5 * (IDLE - Duration::from_secs(1)) + IDLE);
}

#[tokio::test(start_paused = true)]
async fn a_stop_closes_a_kept_connection_at_once() {
    let mut client = connect();
    client.ask().await;
    client.stop.send_replace(true);
    let ended = timeout(Duration::from_secs(1), client.stream.read(&mut [0; 8])).await;
    assert_eq!(ended.unwrap().unwrap(), 0);
    assert!(!client.served.await.unwrap());
}
