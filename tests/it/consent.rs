//! Consent over several nodes: the victim is asked where its socket is, and its answer, or its silence, reaches the
//! newcomer on another node.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Node, Player, now, sign};
use crate::redis_servers::Redis;

/// Two gateways that ask the victim, which may think for this long.
async fn pair(redis: &Redis, within: &str) -> (Node, Node) {
    let toml = format!(
        "[redis]\nurl = \"{}\"\n[takeover]\nmode = \"consent\"\nanswer_within = \"{within}\"\n",
        redis.url()
    );
    tokio::join!(Node::with(&toml), Node::with(&toml))
}

/// A victim that plays on one node, and a newcomer on the other that asks for its slot.
async fn asked(a: &Node, b: &Node) -> (Player, Player, Value) {
    let token = sign(&json!({"sub": "ann", "exp": now() + 600, "streams": 1}));
    let mut victim = a.try_watch(&token, "content=m1&device=tv").await.unwrap();
    let granted = victim.next_of("granted").await;
    let query = "content=m2&device=phone&device_name=Phone&on_limit=ask";
    let mut newcomer = b.try_watch(&token, query).await.unwrap();
    assert_eq!(
        newcomer.next_of("denied").await["holders"][0]["session"],
        granted["session"]
    );
    newcomer
        .say(json!({"type": "takeover", "session": granted["session"], "id": 1}))
        .await;
    let waiting = newcomer.next_of("waiting").await;
    assert_eq!(waiting["id"], 1);
    let request = victim.next_of("takeover_request").await;
    assert_eq!(request["by"], json!({"device": "phone", "device_name": "Phone"}));
    (victim, newcomer, request)
}

#[tokio::test]
async fn a_yes_gives_the_slot_to_another_node() {
    let redis = Redis::start(&[]).await;
    let (a, b) = pair(&redis, "30s").await;
    let (mut victim, mut newcomer, request) = asked(&a, &b).await;
    assert_eq!(request["answer_within_ms"], 30_000);
    victim
        .say(json!({"type": "takeover_answer", "allow": true, "id": 2}))
        .await;
    assert_eq!(
        newcomer.next_of("granted").await["slots"],
        json!({"used": 1, "limit": 1})
    );
    let (code, messages) = victim.closed().await;
    assert_eq!(code, 4002);
    assert_eq!(messages.last().unwrap()["by"]["device"], "phone");
}

#[tokio::test]
async fn a_no_is_told_on_another_node_and_may_be_asked_again() {
    let redis = Redis::start(&[]).await;
    let (a, b) = pair(&redis, "30s").await;
    let (mut victim, mut newcomer, _) = asked(&a, &b).await;
    victim
        .say(json!({"type": "takeover_answer", "allow": false}))
        .await;
    let denied = newcomer.next_of("denied").await;
    assert_eq!(denied["code"], "takeover_refused");
    // It plays on, and is asked anew by whoever asks anew.
    let session = denied["holders"][0]["session"].clone();
    newcomer
        .say(json!({"type": "takeover", "session": session}))
        .await;
    victim.next_of("takeover_request").await;
    victim.say(json!({"type": "stop"})).await;
    newcomer.next_of("granted").await;
}

#[tokio::test]
async fn silence_means_yes_on_another_node() {
    let redis = Redis::start(&[]).await;
    let (a, b) = pair(&redis, "1s").await;
    let begin = Instant::now();
    let (mut victim, mut newcomer, _) = asked(&a, &b).await;
    newcomer.next_of("granted").await;
    assert!(begin.elapsed() >= Duration::from_secs(1), "it was asked first");
    assert_eq!(victim.closed().await.0, 4002);
}

#[tokio::test]
async fn a_newcomer_that_leaves_withdraws_its_question_on_the_other_node() {
    let redis = Redis::start(&[]).await;
    let (a, b) = pair(&redis, "2s").await;
    let (mut victim, newcomer, _) = asked(&a, &b).await;
    newcomer.close(1000).await;
    // The question is withdrawn without word: silence is no answer any more.
    tokio::time::sleep(Duration::from_secs(3)).await;
    victim
        .say(json!({"type": "takeover_answer", "allow": true}))
        .await;
    assert_eq!(victim.next_of("error").await["code"], "bad_state");
    assert_eq!(a.sessions("ann").await.len(), 1);
}
