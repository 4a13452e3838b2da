//! Nodes, the database and Redis are killed at random while plays go by: every session that was granted is one row.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::Row;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, RwLock};
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;
use usher::db::Db;

use crate::harness::{Node, SECRET, token, usher_in};
use crate::postgres::Postgres;
use crate::redis_servers::Redis;
use crate::stage::request;

/// Accounts that start one session after another, each on a connection of its own.
const ACCOUNTS: usize = 12;

/// How long an answer may take before the asker goes elsewhere.
const PATIENCE: Duration = Duration::from_secs(3);

/// A repeatable choice (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % sides
    }
}

/// What the accounts know of their sessions.
#[derive(Default)]
struct Known {
    granted: BTreeSet<String>,
    /// Starts whose answer never came: there may be a session of each.
    unknown: usize,
}

/// One request on a connection that may break at any time: status and body.
async fn ask(stream: &mut TlsStream<TcpStream>, text: &str) -> Option<(u16, Value)> {
    let exchange = async {
        stream.write_all(text.as_bytes()).await.ok()?;
        stream.flush().await.ok()?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.ok()?);
        }
        let head = String::from_utf8(head).ok()?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let mut lengths = head.lines().filter_map(|line| line.split_once(": "));
        let length = lengths.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let mut body = vec![0; length.map_or(0, |(_, length)| length.trim().parse().unwrap())];
        stream.read_exact(&mut body).await.ok()?;
        Some((status, serde_json::from_slice(&body).unwrap_or_default()))
    };
    tokio::time::timeout(PATIENCE, exchange).await.ok()?
}

/// The world that things die in.
struct World {
    nodes: [RwLock<Node>; 2],
    known: Mutex<Known>,
    count: AtomicUsize,
    over: AtomicBool,
}

impl World {
    async fn connect(&self, node: usize) -> Option<TlsStream<TcpStream>> {
        // A node that is being started again holds its lock: it is not waited for.
        let node = self.nodes[node].try_read().ok()?;
        let stream = TcpStream::connect(node.players).await.ok()?;
        tokio::time::timeout(PATIENCE, node.secure(stream))
            .await
            .ok()?
            .ok()
    }

    /// Starts and ends sessions of an account until it is over.
    async fn live(&self, account: usize) {
        let bearer = format!("Bearer {}", token(&format!("account-{account}")));
        let (mut number, mut stream) = (account, None);
        while !self.over.load(Ordering::Relaxed) {
            let Some(open) = &mut stream else {
                number += 1;
                stream = self.connect(number % 2).await;
                if stream.is_none() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                continue;
            };
            if self.play(open, &bearer).await.is_none() {
                stream = None;
            }
        }
    }

    /// One session; none when the connection is of no more use.
    async fn play(&self, stream: &mut TlsStream<TcpStream>, bearer: &str) -> Option<()> {
        let body = json!({"content": "m1", "device": "d"}).to_string();
        let length = body.len().to_string();
        let headers = [
            ("Authorization", bearer),
            ("Content-Type", "application/json"),
            ("Content-Length", &length),
        ];
        let Some((status, started)) = ask(stream, &(request("POST", "/v1/sessions", &headers) + &body)).await
        else {
            self.known.lock().await.unknown += 1;
            return None;
        };
        if status != 201 {
            // Refused by a node without its Redis: nothing was started, or nobody knows.
            assert!(status == 503 || status == 429, "{status} {started}");
            self.known.lock().await.unknown += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
            return None;
        }
        let session = started["session"].as_str().unwrap();
        self.known.lock().await.granted.insert(session.to_owned());
        self.count.fetch_add(1, Ordering::Relaxed);
        let secret = started["resume"].as_str().unwrap();
        let headers = [("Authorization", bearer), ("Usher-Resume", secret)];
        // Without an answer it may go on: it lapses, or the device's next session replaces it.
        ask(
            stream,
            &request("DELETE", &format!("/v1/sessions/{session}"), &headers),
        )
        .await?;
        Some(())
    }

    async fn kill_node(&self, which: usize) {
        let mut node = self.nodes[which].write().await;
        node.child.kill().unwrap();
        node.child.wait().unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        std::fs::remove_file(node.dir.join("data/addresses.json")).unwrap();
        let log = std::fs::OpenOptions::new()
            .append(true)
            .open(node.dir.join("log"));
        let log = log.unwrap();
        let mut command = usher_in(&node.dir);
        command.args(["serve", "--config", "usher.toml"]);
        command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
        command.env("USHER_AUTH__HMAC_SECRET", SECRET);
        node.child = command
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        node.wait_until_ready().await;
    }
}

async fn rows(db: &Db) -> Option<Vec<String>> {
    let sql = "SELECT id FROM plays WHERE tenant = 'main' AND kind = 'session'";
    let rows = db.fetch_all(sqlx::query(sql)).await.ok()?;
    Some(rows.iter().map(|row| row.get(0)).collect())
}

/// Lets so many sessions be granted while at least `strikes` processes are killed, one after another, each of the three
/// kinds at least once; then every granted session is one row, and there is no row of none. `settle` is how long the rest
/// may take.
pub(crate) async fn every_session_is_one_row(plays: usize, strikes: usize, seed: u64, settle: Duration) {
    // What Redis acknowledged is in its file when it is killed: the operations guide asks for that.
    let mut redis = Redis::start(&["--appendonly", "yes"]).await;
    let mut postgres = Postgres::start().await;
    let toml = format!(
        "[redis]\nurl = \"{}\"\n[database]\nurl = \"{}\"\ntimeout = \"2s\"\n[log]\naccess = false\n[limits]\nstarts_burst = 0\n",
        redis.url(),
        postgres.url()
    );
    let (a, b) = tokio::join!(Node::with(&toml), Node::with(&toml));
    let db = crate::ledger_rows::open(std::path::Path::new("."), &postgres.url()).await;
    let world = Arc::new(World {
        nodes: [RwLock::new(a), RwLock::new(b)],
        known: Mutex::default(),
        count: AtomicUsize::new(0),
        over: AtomicBool::new(false),
    });
    let mut accounts = JoinSet::new();
    for account in 0..ACCOUNTS {
        let world = Arc::clone(&world);
        accounts.spawn(async move { world.live(account).await });
    }
    let (mut dice, mut killed, start) = (Dice(seed), [0; 4], Instant::now());
    while world.count.load(Ordering::Relaxed) < plays || killed.iter().sum::<usize>() < strikes {
        tokio::time::sleep(Duration::from_millis(500 + dice.roll(1_500))).await;
        // Each kind in its turn, then as the dice say.
        let sum: usize = killed.iter().sum();
        let victim = if sum < 3 {
            [0, 2, 3][sum]
        } else {
            usize::try_from(dice.roll(4)).unwrap()
        };
        match victim {
            2 => {
                postgres.destroy();
                tokio::time::sleep(Duration::from_millis(dice.roll(1_500))).await;
                postgres.restart().await;
            }
            3 => {
                redis.kill();
                tokio::time::sleep(Duration::from_millis(dice.roll(1_500))).await;
                redis.restart().await;
            }
            node => world.kill_node(node).await,
        }
        killed[victim] += 1;
    }
    world.over.store(true, Ordering::Relaxed);
    while let Some(done) = accounts.join_next().await {
        done.unwrap();
    }
    let known = std::mem::take(&mut *world.known.lock().await);
    eprintln!(
        "{} sessions granted, {} starts without a grant, in {:.1} s; killed: nodes {} and {}, PostgreSQL {}, Redis {}",
        known.granted.len(),
        known.unknown,
        start.elapsed().as_secs_f64(),
        killed[0],
        killed[1],
        killed[2],
        killed[3]
    );
    let ended = Instant::now();
    let found = loop {
        let found = rows(&db).await.unwrap_or_default();
        let distinct: BTreeSet<_> = found.iter().cloned().collect();
        assert_eq!(distinct.len(), found.len(), "none twice");
        let missing = known.granted.difference(&distinct).count();
        if missing == 0 && distinct.len() == found.len() {
            break distinct;
        }
        let waited = ended.elapsed();
        assert!(
            waited < settle,
            "{missing} of {} sessions have no row",
            known.granted.len()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let more = found.difference(&known.granted).count();
    eprintln!(
        "all are rows {:.1} s later, and {more} rows of starts without an answer",
        ended.elapsed().as_secs_f64()
    );
    assert!(
        more <= known.unknown,
        "{more} rows of {} starts without an answer",
        known.unknown
    );
}
