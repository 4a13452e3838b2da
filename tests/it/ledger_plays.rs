//! Plays from sessions to rows: every session is one row, whatever dies in between.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use sqlx::Row;
use usher::db::Db;

use crate::harness::{Node, Player, SOON, now, sign, token, usher_in};
use crate::ledger_http::Clerk;
use crate::library::lease;
use crate::postgres::Postgres;
use crate::receiver::{Mood, Receiver};
use crate::redis_servers::{Redis, until};
use crate::stage::{Place, USUAL};

/// A node's lease, a purge and a turn that another node takes over.
const AFTER_A_DEATH: Duration = Duration::from_secs(60);

/// The rows of an installation.
pub(crate) struct Rows(Db);

/// A row.
#[derive(Clone, Debug)]
struct Written {
    id: String,
    user: String,
    seconds: i64,
    code: String,
    position: i64,
    class: Option<String>,
    plan: Option<String>,
}

impl Rows {
    /// Of the SQLite file in this data directory, or of the server at `url`.
    pub(crate) async fn of(data: &Path, url: &str) -> Self {
        Self(crate::ledger_rows::open(data, url).await)
    }

    async fn all(&self) -> Vec<Written> {
        let sql = "SELECT id, user_id, seconds, code, position_ms, device_class, plan FROM plays WHERE tenant = 'main' \
                   AND kind = 'session' ORDER BY user_id, started_at";
        let rows = self.0.fetch_all(sqlx::query(sql)).await.unwrap_or_default();
        let rows = rows.iter().map(|row| Written {
            id: row.get(0),
            user: row.get(1),
            seconds: row.get(2),
            code: row.get(3),
            position: row.get(4),
            class: row.get(5),
            plan: row.get(6),
        });
        rows.collect()
    }

    /// Waits for so many rows, and that there are no more.
    async fn become_many(&self, count: usize, limit: Duration) -> Vec<Written> {
        let start = Instant::now();
        loop {
            let rows = self.all().await;
            assert!(rows.len() <= count, "{rows:?}");
            assert!(
                rows.iter().all(|row| row.plan.as_deref() == Some("gold")),
                "{rows:?}"
            );
            if rows.len() == count {
                tokio::time::sleep(Duration::from_secs(2)).await;
                assert_eq!(self.all().await.len(), count);
                return rows;
            }
            assert!(start.elapsed() < limit, "{} of {count}: {rows:?}", rows.len());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

async fn start(node: &Node, account: &str, device: &str) -> (Player, String) {
    let query = format!("content=m1&device={device}&device_class=tv");
    let token = sign(&json!({"sub": account, "exp": now() + 3600, "plan": "gold"}));
    let mut player = node.try_watch(&token, &query).await.unwrap();
    let granted = player.next_of("granted").await;
    (player, granted["session"].as_str().unwrap().to_owned())
}

/// Plays on for so long.
async fn play(players: &mut [&mut Player], seconds: u64) {
    for _ in 0..seconds {
        for player in &mut *players {
            player.say(json!({"type": "heartbeat", "state": "playing"})).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn stop(mut player: Player) {
    player.say(json!({"type": "stop"})).await;
    assert_eq!(player.closed().await.0, 4000);
}

/// Starts the gateway again in its directory, after it was killed.
async fn again(node: &mut Node) {
    std::fs::remove_file(node.dir.join("data/addresses.json")).unwrap();
    let log = std::fs::OpenOptions::new()
        .append(true)
        .open(node.dir.join("log"))
        .unwrap();
    node.child = usher_in(&node.dir)
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--admin-listen",
            "127.0.0.1:0",
        ])
        .envs(USUAL.iter().copied())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    node.wait_until_ready().await;
}

fn kill(node: &mut Node) {
    node.child.kill().unwrap();
    node.child.wait().unwrap();
}

#[tokio::test]
async fn sessions_of_a_single_node_become_rows() {
    let node = Place::new().start().await;
    let (mut watched, first) = start(&node, "ann", "tv").await;
    let (mut paused, _) = start(&node, "bob", "tv").await;
    paused
        .say(json!({"type": "heartbeat", "position_ms": 7000, "state": "paused"}))
        .await;
    watched
        .say(json!({"type": "heartbeat", "position_ms": 4200, "state": "playing"}))
        .await;
    tokio::time::sleep(Duration::from_millis(3200)).await;
    tokio::join!(stop(watched), stop(paused));
    let rows = Rows::of(&node.dir.join("data"), "").await;
    let rows = rows.become_many(2, SOON).await;
    let [ann, bob] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!(
        (&*ann.user, &ann.id, &*ann.code, ann.position),
        ("ann", &first, "stopped", 4200)
    );
    assert!((3..=5).contains(&ann.seconds), "{ann:?}");
    assert_eq!((ann.class.as_deref(), bob.position), (Some("tv"), 7000));
    assert!(bob.seconds <= 1, "paused time is not watched: {bob:?}");
    assert!(node.metric("usher_ledger_lag_seconds").await < 5.0);
    assert_eq!(
        node.metric("usher_ledger_plays_total{outcome=\"written\"}").await,
        2.0
    );
}

/// The live view counts what still plays, and not what is paused, on a socket or without one.
#[tokio::test]
async fn what_plays_is_seen_before_it_ends() {
    // Whose lease is longer than the pause between two looks, on a busy machine too.
    let node = Node::with("[lease]\nperiod = \"30s\"").await;
    let clerk = Clerk::new(&node, "fin", "main", "finance");
    let tracks = "track id,track name,label\nm1,One,L1\n";
    clerk
        .send("POST", "/v1/plays/imports/tracks", "text/csv", tracks)
        .await;
    let before = humantime::format_rfc3339_seconds(std::time::SystemTime::now() - Duration::from_secs(600))
        .to_string();
    let (mut player, _) = start(&node, "ann", "tv").await;
    let mut paused = node.watch("bob", "content=m2").await;
    paused.next_of("granted").await;
    let _lone = lease(&node, &token("cy"), "m3").await;
    let begun = Instant::now();
    let usage = loop {
        paused.say(json!({"type": "heartbeat", "state": "paused"})).await;
        play(&mut [&mut player], 1).await;
        let usage = clerk.get(&format!("/v1/reports/usage?from={before}")).await;
        if usage["seconds"].as_i64().unwrap() > 0 {
            break usage;
        }
        assert!(begun.elapsed() < SOON * 2, "{usage}");
    };
    assert!(
        begun.elapsed() < Duration::from_secs(16),
        "at most 15 s behind: {:?}",
        begun.elapsed()
    );
    let seconds = |name: &str| {
        let labels = usage["labels"].as_array().unwrap().iter();
        let found = labels.filter(|label| label["name"] == name);
        found.map(|label| label["seconds"].as_i64().unwrap()).sum::<i64>()
    };
    assert!((1..=30).contains(&seconds("L1")), "{usage}");
    assert!((1..=30).contains(&seconds("")), "m3, and not m2: {usage}");
    assert_eq!(seconds("L1"), seconds(""), "{usage}");
    assert_eq!(clerk.get("/v1/plays").await["total"], 0, "no play has ended");
}

/// What plays when the process is killed is closed at the next start, with what it had watched by then; what ended is
/// there once.
#[tokio::test]
async fn a_killed_single_node_loses_no_play() {
    let place = Place::with("[ledger]\ncheckpoint = \"1s\"\n");
    let mut node = place.start().await;
    let (_open, session) = start(&node, "ann", "tv").await;
    let (early, _) = start(&node, "bob", "tv").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    stop(early).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (late, _) = start(&node, "cy", "tv").await;
    stop(late).await;
    kill(&mut node);
    tokio::time::sleep(Duration::from_secs(3)).await;
    again(&mut node).await;
    let rows = Rows::of(&node.dir.join("data"), "").await;
    let found = rows.become_many(3, SOON).await;
    assert_eq!((&found[0].id, &*found[0].code), (&session, "lease_lost"));
    assert!(
        (4..=7).contains(&found[0].seconds),
        "not the time after the crash: {found:?}"
    );
    assert_eq!((&*found[1].user, &*found[2].user), ("bob", "cy"));
    // And over: another crash adds nothing.
    kill(&mut node);
    again(&mut node).await;
    rows.become_many(3, SOON).await;
}

/// Entries that the buckets' journals hold.
async fn held(redis: &Redis) -> usize {
    let mut sum = 0;
    for bucket in 0..32 {
        let text = redis
            .ask(&["XLEN", &format!("{{usher:{bucket}}}:v1:events")])
            .await;
        sum += redis::from_redis_value::<usize>(text).unwrap();
    }
    sum
}

/// Three players, one of whose nodes is killed while the database is away: three rows, and nothing is left behind.
#[tokio::test]
async fn nodes_die_and_the_database_is_away_and_every_session_is_one_row() {
    let (redis, mut postgres) = (Redis::start(&[]).await, Postgres::start().await);
    let toml = format!(
        "[redis]\nurl = \"{}\"\n[database]\nurl = \"{}\"\n[ledger]\nregion = \"nl\"",
        redis.url(),
        postgres.url()
    );
    let (mut a, b) = tokio::join!(Node::with(&toml), Node::with(&toml));
    let rows = Rows::of(Path::new("."), &postgres.url()).await;
    let (mut first, _) = start(&b, "ann", "d1").await;
    let (mut second, _) = start(&b, "ann", "d2").await;
    let (mut third, lost) = start(&a, "ann", "d3").await;
    let begun = Instant::now();
    play(&mut [&mut first, &mut second, &mut third], 4).await;
    postgres.kill();
    play(&mut [&mut first, &mut second, &mut third], 4).await;
    kill(&mut a);
    let died = begun.elapsed().as_secs();
    play(&mut [&mut first, &mut second], 6).await;
    let watched = begun.elapsed().as_secs();
    tokio::join!(stop(first), stop(second));
    until("a lag", async || {
        (b.metric("usher_ledger_lag_seconds").await > 1.0).then_some(())
    })
    .await;
    postgres.restart().await;
    let found = rows.become_many(3, AFTER_A_DEATH).await;
    for row in &found {
        let (least, most) = if row.id == lost {
            (died - 4, died + 1)
        } else {
            (watched, watched + 2)
        };
        let seconds = u64::try_from(row.seconds).unwrap();
        assert!((least..=most).contains(&seconds), "{row:?}: {least} to {most}");
    }
    assert_eq!(postgres.sql("usher", "SELECT DISTINCT region FROM plays"), "NL");
    // What is done with is forgotten, but for the last entry of a bucket.
    until("short journals", async || (held(&redis).await <= 2).then_some(())).await;
}

/// The ledger forgets nothing that a receiver of webhooks has not been told.
#[tokio::test]
async fn what_a_receiver_waits_for_is_kept() {
    let (redis, receiver) = (Redis::start(&[]).await, Receiver::start().await);
    let postgres = Postgres::start().await;
    let toml = format!(
        "{}[redis]\nurl = \"{}\"\n[database]\nurl = \"{}\"",
        receiver.impatient(),
        redis.url(),
        postgres.url()
    );
    let node = Node::with(&toml).await;
    receiver.is(Mood::Hang);
    for _ in 0..5 {
        let (player, _) = start(&node, "ann", "tv").await;
        stop(player).await;
    }
    let rows = Rows::of(Path::new("."), &postgres.url()).await;
    rows.become_many(5, SOON).await;
    assert_eq!(held(&redis).await, 10, "started and ended, five times");
    receiver.is(Mood::Status(204, ""));
    receiver.takes(10, AFTER_A_DEATH).await;
    let operator = sign(&json!({"sub": "op", "exp": now() + 60, "scope": "operator"}));
    // The ledger forgets with its next play.
    until("a short journal", async || {
        let (player, _) = start(&node, "ann", "tv").await;
        stop(player).await;
        (held(&redis).await < 10).then_some(())
    })
    .await;
    let (_, _, body) = node.admin_get("/v1/admin/webhooks", Some(&operator)).await;
    assert!(!body.contains("missed"), "{body}");
    assert_eq!(
        node.metric("usher_webhook_deliveries_total{outcome=\"missed\"}")
            .await,
        0.0
    );
}

/// A node, the database and Redis are each killed while plays go by; `tests/long` does the same for longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_session_is_one_row_whoever_is_killed() {
    crate::ledger_deaths::every_session_is_one_row(300, 3, 7, AFTER_A_DEATH * 2).await;
}
