//! Three players of one account watch for a minute; the node of one of them is killed in the middle. The ledger and the
//! statement know what each watched.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::Row;

use crate::harness::{Node, Player, now, sign};
use crate::ledger_rows;
use crate::postgres::Postgres;
use crate::redis_servers::{Redis, until};
use crate::stage::request;

/// How long the players watch, in seconds, and when the node dies.
const MINUTE: u64 = 60;
const DEATH: u64 = 30;

async fn plays(node: &Node, content: &str) -> Player {
    let mut player = node
        .watch("ann", &format!("content={content}&device=on-{content}"))
        .await;
    player.next_of("granted").await;
    player
}

/// As a member of the finance staff.
async fn ask(node: &Node, method: &str, target: &str, kind: &str, body: &str) -> Value {
    let token = sign(&json!({"sub": "fin", "scope": "finance", "exp": now() + 600}));
    let (token, length) = (format!("Bearer {token}"), body.len().to_string());
    let headers = [
        ("Authorization", &*token),
        ("Content-Type", kind),
        ("Content-Length", &length),
    ];
    let answer = node.ask(&(request(method, target, &headers) + body)).await;
    assert!(answer.status.is_success(), "{answer:?}");
    answer.json()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_players_and_a_death_are_paid_to_the_second() {
    let (redis, postgres) = (Redis::start(&[]).await, Postgres::start().await);
    let toml = format!(
        "[redis]\nurl = \"{}\"\n[database]\nurl = \"{}\"\n",
        redis.url(),
        postgres.url()
    );
    let (mut dies, lives) = tokio::join!(Node::with(&toml), Node::with(&toml));
    let tracks = "track id,track name,label\nm1,One,L1\nm2,Two,L2\nm3,Three,L3\n";
    ask(&lives, "POST", "/v1/plays/imports/tracks", "text/csv", tracks).await;
    let user = "user_id,product_type,fee,origin\nann,premium,9.99,web\n";
    ask(&lives, "POST", "/v1/plays/imports/users", "text/csv", user).await;
    let mut players = [
        plays(&lives, "m1").await,
        plays(&lives, "m2").await,
        plays(&dies, "m3").await,
    ];
    for second in 0..MINUTE {
        let alive = if second < DEATH { 3 } else { 2 };
        if second == DEATH {
            dies.child.kill().unwrap();
            dies.child.wait().unwrap();
        }
        for player in &mut players[..alive] {
            player.say(json!({"type": "heartbeat", "state": "playing"})).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    for player in &mut players[..2] {
        player.say(json!({"type": "stop"})).await;
        assert_eq!(player.closed().await.0, 4000);
    }
    let rows = ledger_rows::open(Path::new("."), &postgres.url()).await;
    let found = until("three rows", async || {
        let sql = "SELECT content, seconds, code FROM plays WHERE kind = 'session' ORDER BY content";
        let found = rows.fetch_all(sqlx::query(sql)).await.unwrap();
        let found = found.iter().map(|row| {
            (
                row.get::<String, _>(0),
                row.get::<i64, _>(1),
                row.get::<String, _>(2),
            )
        });
        let found: Vec<_> = found.collect();
        (found.len() == 3).then_some(found)
    })
    .await;
    eprintln!("{found:?}");
    // A loop of a minute takes a little longer than one.
    for (content, seconds, code) in &found[..2] {
        assert!(
            (60..=61).contains(seconds) && code == "stopped",
            "{content}: {seconds} s, {code}"
        );
    }
    assert!(
        (27..=33).contains(&found[2].1) && found[2].2 == "lease_lost",
        "{found:?}"
    );
    let day = |offset: i64| {
        let at = i64::try_from(now()).unwrap() + offset * 86_400;
        let time = std::time::UNIX_EPOCH + Duration::from_secs(at.unsigned_abs());
        humantime::format_rfc3339_seconds(time).to_string()[..10].to_owned()
    };
    for model in ["pro_rata", "user_centric"] {
        let period = json!({"from": day(-1), "to": day(2), "model": model}).to_string();
        let statement = ask(
            &lives,
            "POST",
            "/v1/reports/statements",
            "application/json",
            &period,
        )
        .await;
        let paid = statement["report"]["rows"].as_array().unwrap().iter();
        let paid: Vec<i64> = paid.map(|row| row["seconds"].as_i64().unwrap()).collect();
        assert_eq!(
            paid,
            found.iter().map(|row| row.1).collect::<Vec<_>>(),
            "{statement}"
        );
        let amounts = statement["report"]["rows"].as_array().unwrap().iter();
        eprintln!(
            "{model}: {:?}",
            amounts.map(|row| row["amount"].clone()).collect::<Vec<_>>()
        );
    }
}
