//! 500 viewers read ranges of a film as fast as they can: what everybody else notices.
//!
//! The viewers read in a process of their own at the lowest priority (nice 19), so that on a machine of two cores what is
//! measured is the gateway, and not how the readers' own work pushes it aside. Their sessions are kept here. Rounds
//! without and with readers take turns, so that what else happens on the machine falls on both.

use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{Node, token, trust};
use crate::library::{editor, mp4, upload};

/// Viewers that read.
const VIEWERS: usize = 500;

/// Bytes of the film, and of one range of it.
const FILM: usize = 64 * 1024 * 1024;
const RANGE: usize = 4 * 1024 * 1024;

/// Sessions that only answer pings: how late their pings are.
const IDLE: usize = 100;

/// Rounds of each kind, and how long one lasts.
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(12);

/// From one start to the next, whether or not it was answered.
const PACE: Duration = Duration::from_millis(40);

/// How often the node pings a silent session: half a lease.
const PING: Duration = Duration::from_secs(5);

/// What 99 of 100 must stay within beside the readers, as a multiple of what it is without.
const MULTIPLE: u32 = 2;

/// Less than this is not told apart from what else the machine does.
const GRAIN: Duration = Duration::from_millis(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_viewers_are_not_noticed_by_others() {
    let settings = "[log]\naccess = false\nlevel = \"info\"\n[tickets]\nlifetime = \"1h\"\nrenew_before = \"1m\"\n\
                    [media.quota]\nrequests_burst = 0\n";
    let node = Arc::new(Node::with(settings).await);
    let film = upload(&node, &editor(), &[("content", "m1")], "video/mp4", &mp4(FILM)).await;
    let path = format!("/v1/media/{}", film["id"].as_str().unwrap());
    let mut crowd = JoinSet::new();
    let mut tickets = Vec::new();
    for number in 0..VIEWERS {
        let mut viewer = node.watch(&format!("viewer-{number}"), "content=m1").await;
        let granted = viewer.next().await;
        tickets.push(granted["ticket"]["token"].as_str().unwrap().to_owned());
        crowd.spawn(async move { while let Some(Ok(_)) = viewer.socket.next().await {} });
    }
    let late = Late::default();
    for number in 0..IDLE {
        crowd.spawn(answer_pings(Arc::clone(&node), number, Arc::clone(&late)));
    }
    let (mut quiet, mut loaded) = (Vec::new(), Vec::new());
    for number in 0..ROUNDS {
        quiet.push(measure(&node, &late, &format!("round {number}, no readers")).await);
        let readers = Readers::start(&node, &path, &tickets);
        all_read(&node).await;
        loaded.push(measure(&node, &late, &format!("round {number}, {VIEWERS} readers")).await);
        drop(readers);
    }
    for (name, times) in [
        ("admissions", Figures::admissions as fn(&Figures) -> _),
        ("pings late", Figures::pings),
    ] {
        let [quiet, loaded] = [&quiet, &loaded].map(|rounds| median(rounds.iter().map(times).collect()));
        eprintln!("{name}: the median p99 is {quiet:.1?} without readers, {loaded:.1?} beside them");
        assert!(
            loaded <= quiet.max(GRAIN) * MULTIPLE,
            "{name}: {loaded:?} beside {quiet:?}"
        );
    }
    let missed = node
        .metric("usher_sessions_ended_total{code=\"heartbeat_missed\"}")
        .await;
    assert!(missed < 0.5, "{missed} sessions were taken for silent");
}

/// What others noticed in one round.
async fn measure(node: &Arc<Node>, late: &Late, name: &str) -> Figures {
    // How late a ping is begins with the answer to the one before: that must be after the readers' handshakes.
    tokio::time::sleep(PING + Duration::from_secs(1)).await;
    late.lock().unwrap().clear();
    let (begun, before) = (Instant::now(), node.metric(SENT).await);
    let admissions = admit(node, name).await;
    let mib = (node.metric(SENT).await - before) / 1_048_576.0 / begun.elapsed().as_secs_f64();
    let open = node.metric(OPEN).await;
    let pings = std::mem::take(&mut *late.lock().unwrap());
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    eprintln!(
        "{name}: admissions {}, pings late {}, {open} responses of {mib:.0} MiB/s together, {} MiB resident, load {}",
        told(&admissions),
        told(&pings),
        node.rss() / 1_048_576,
        load.split(' ').next().unwrap()
    );
    Figures { admissions, pings }
}

/// Waits until the viewers are at it; some are always between two ranges.
async fn all_read(node: &Node) {
    let begun = Instant::now();
    while node.metric(OPEN).await < 0.95 * VIEWERS as f64 {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "the viewers do not read"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

const SENT: &str = "usher_media_bytes_sent_total";
const OPEN: &str = "usher_media_responses_open";

/// How late pings were.
type Late = Arc<Mutex<Vec<Duration>>>;

/// What others noticed in one round.
struct Figures {
    admissions: Vec<Duration>,
    pings: Vec<Duration>,
}

impl Figures {
    fn admissions(&self) -> Duration {
        p(&self.admissions, 99)
    }

    fn pings(&self) -> Duration {
        p(&self.pings, 99)
    }
}

/// What others do on the machine spoils a round now and then, and not most of them.
fn median(times: Vec<Duration>) -> Duration {
    p(&times, 50)
}

fn p(times: &[Duration], percent: usize) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[(times.len() * percent / 100).min(times.len() - 1)]
}

fn told(times: &[Duration]) -> String {
    let [p50, p99, most] = [50, 99, 100].map(|percent| p(times, percent).as_secs_f64() * 1000.0);
    format!("n={} p50={p50:.1} p99={p99:.1} max={most:.1} ms", times.len())
}

/// Starts at an even pace for a round: from the request on an open connection to `granted`.
async fn admit(node: &Arc<Node>, round: &str) -> Vec<Duration> {
    let begun = Instant::now();
    let (mut starts, mut number) = (JoinSet::new(), 0_u32);
    while begun.elapsed() < ROUND {
        let (node, account) = (Arc::clone(node), format!("{round}, start {number}"));
        starts.spawn(async move {
            let (stream, token) = (node.connect().await, token(&account));
            let asked = Instant::now();
            let mut player = node
                .upgrade(stream, "/v1/watch?content=m2", Some(&token))
                .await
                .unwrap();
            assert_eq!(player.next().await["type"], "granted");
            let took = asked.elapsed();
            player.close(1000).await;
            took
        });
        number += 1;
        tokio::time::sleep_until((begun + PACE * number).into()).await;
    }
    starts.join_all().await
}

/// A session that only answers pings; how much later than due each came.
async fn answer_pings(node: Arc<Node>, number: usize, late: Late) {
    // Not all at the same moment.
    tokio::time::sleep(PING * u32::try_from(number).unwrap() / u32::try_from(IDLE).unwrap()).await;
    let mut player = node.watch(&format!("idle-{number}"), "content=m3").await;
    assert_eq!(player.next().await["type"], "granted");
    let mut heard = Instant::now();
    while let Some(Ok(message)) = player.socket.next().await {
        if let Message::Ping(_) = message {
            late.lock().unwrap().push(heard.elapsed().saturating_sub(PING));
            // The library answers with the next read.
            let _ = futures_util::SinkExt::flush(&mut player.socket).await;
            heard = Instant::now();
        }
    }
    panic!("session {number} ended");
}

/// The process that reads. Ended when dropped.
struct Readers(Child);

impl Readers {
    fn start(node: &Node, path: &str, tickets: &[String]) -> Self {
        let mut child = Command::new("nice")
            .args(["-n", "19"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "crowd::reads", "--ignored", "--nocapture"])
            .env(
                "CROWD",
                format!(
                    "{} {path} {}",
                    node.players,
                    node.dir.join("certs/ca.pem").display()
                ),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut tell = child.stdin.take().unwrap();
        for ticket in tickets {
            writeln!(tell, "{ticket}").unwrap();
        }
        Self(child)
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the readers' own process, which the test above starts"]
async fn reads() {
    let told = std::env::var("CROWD").unwrap();
    let [address, path, ca] = told.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{told}");
    };
    let address: SocketAddr = address.parse().unwrap();
    let tls = TlsConnector::from(trust(Some(std::path::Path::new(ca))));
    let mut viewers = JoinSet::new();
    for (number, ticket) in std::io::stdin().lock().lines().enumerate() {
        let (tls, path, ticket) = (tls.clone(), path.to_owned(), ticket.unwrap());
        viewers.spawn(async move {
            loop {
                // One that is cut off comes again, as a player does.
                let _ = watch(&tls, address, &path, &ticket, number).await;
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        });
    }
    viewers.join_all().await;
}

/// Reads one range after the other on one connection.
async fn watch(
    tls: &TlsConnector,
    address: SocketAddr,
    path: &str,
    ticket: &str,
    number: usize,
) -> std::io::Result<()> {
    let stream = TcpStream::connect(address).await?;
    let stream = tls
        .connect(ServerName::try_from("localhost").unwrap(), stream)
        .await?;
    let mut stream = BufReader::with_capacity(64 * 1024, stream);
    let mut chunk = vec![0; 64 * 1024];
    for turn in number.. {
        let start = turn * RANGE % FILM;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ticket}\r\nRange: bytes={start}-{}\r\n\r\n",
            start + RANGE - 1
        );
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        if !head.starts_with(b"HTTP/1.1 206") {
            return Ok(());
        }
        let mut left = RANGE;
        while left > 0 {
            let most = left.min(chunk.len());
            match stream.read(&mut chunk[..most]).await? {
                0 => return Ok(()),
                count => left -= count,
            }
        }
    }
    Ok(())
}
