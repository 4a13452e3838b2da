//! Two nodes, one Redis and one PostgreSQL: what is done on one counts on the other.

use serde_json::{Value, json};

use super::{CHEAP, bearer, call, sign_in, sign_up, staff};
use crate::harness::Node;
use crate::postgres::Postgres;
use crate::redis_servers::{Redis, until};

const NONE: Value = Value::Null;

#[tokio::test]
async fn what_is_done_on_one_node_counts_on_the_other() {
    let (redis, server) = (Redis::start(&[]).await, Postgres::start().await);
    let toml = format!(
        "{CHEAP}[redis]\nurl = \"{}\"\n[database]\nurl = \"{}\"\n",
        redis.url(),
        server.url()
    );
    let (one, two) = tokio::join!(Node::with(&toml), Node::with(&toml));
    sign_up(&one, "far@example.com").await;
    let away = sign_in(&two, "far@example.com", &json!({"device": "tv"})).await;
    let mut player = two
        .try_watch(away["token"].as_str().unwrap(), "content=m&device=tv")
        .await
        .unwrap();
    player.next_of("granted").await;
    let seen = call(&one, "GET", "/v1/users?watching=now", &staff("support"), &NONE).await;
    assert_eq!(seen.json()["items"][0]["email"], "far@example.com", "{seen:?}");
    // Refreshed where it was not made.
    let body = json!({"refresh_token": away["refresh_token"]});
    let next = call(&one, "POST", "/v1/auth/refresh", "", &body).await.json();
    let here = sign_in(&one, "far@example.com", &NONE).await;
    let token = bearer(here["token"].as_str().unwrap());
    assert_eq!(
        call(&one, "DELETE", "/v1/auth/all", &token, &NONE).await.status,
        204
    );
    assert_eq!(player.closed().await.0, 4003);
    let token = bearer(next["token"].as_str().unwrap());
    assert_eq!(call(&two, "GET", "/v1/users/me", &token, &NONE).await.status, 401);
    until("nobody who watches", || async {
        let seen = call(&two, "GET", "/v1/users?watching=now", &staff("support"), &NONE).await;
        (seen.json()["total"] == 0).then_some(())
    })
    .await;
}
