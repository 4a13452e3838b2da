//! The tools themselves, on a real Redis without any gateway: each fault is what its name says.

use std::io::ErrorKind;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::cutter::Cutter;
use crate::resp::{Client, Reply, is_message};
use crate::servers::Redis;

fn text(text: &str) -> Reply {
    Reply::Text(text.to_owned())
}

/// One command on a connection of its own, away from the cutter's runtime.
async fn ask(port: u16, words: &'static [&'static str]) -> std::io::Result<Reply> {
    spawn_blocking(move || Client::connect(port)?.command(words))
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cutter_cuts_holds_and_heals() {
    let redis = Redis::start();
    let cutter = Cutter::to(redis.port);
    let port = cutter.port;
    assert_eq!(ask(port, &["SET", "k", "v"]).await.unwrap(), text("OK"));
    let mut open = spawn_blocking(move || Client::connect(port).unwrap())
        .await
        .unwrap();
    cutter.cut();
    assert!(ask(port, &["GET", "k"]).await.is_err());
    let broken = spawn_blocking(move || open.command(&["GET", "k"])).await.unwrap();
    assert!(broken.is_err(), "{broken:?}");
    cutter.heal();
    assert_eq!(ask(port, &["GET", "k"]).await.unwrap(), text("v"));
    // Held back, not lost.
    cutter.black_hole();
    let held = tokio::spawn(ask(port, &["INCR", "n"]));
    sleep(Duration::from_millis(300)).await;
    assert!(!held.is_finished());
    assert_eq!(redis.command(&["GET", "n"]), Reply::Nil);
    cutter.heal();
    assert_eq!(held.await.unwrap().unwrap(), Reply::Int(1));
    // And for longer than a client waits.
    cutter.black_hole();
    let late = ask(port, &["GET", "n"]).await.unwrap_err();
    assert!(
        matches!(late.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        "{late}"
    );
    cutter.heal();
    cutter.delay(Duration::from_millis(100));
    let start = std::time::Instant::now();
    ask(port, &["GET", "n"]).await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(200), "there and back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cutter_loses_messages_and_nothing_else() {
    let redis = Redis::start();
    let cutter = Cutter::to(redis.port);
    let port = cutter.port;
    let publish = |number: &str| redis.command(&["PUBLISH", "c", number]);
    let mut client = spawn_blocking(move || {
        let mut client = Client::connect(port).unwrap();
        client.command(&["HELLO", "3"]).unwrap();
        client.command(&["SUBSCRIBE", "c"]).unwrap();
        client
    })
    .await
    .unwrap();
    cutter.drop_messages(true);
    assert_eq!(publish("1"), Reply::Int(1));
    let big = "x".repeat(200_000);
    redis.command(&["SET", "big", &big]);
    // The answer comes, and not the message before it.
    let (mut client, answer) = spawn_blocking(move || {
        let answer = client.command(&["GET", "big"]);
        (client, answer)
    })
    .await
    .unwrap();
    assert_eq!(answer.unwrap(), Reply::Text(big));
    assert_eq!(cutter.dropped(), 1);
    cutter.drop_messages(false);
    assert_eq!(publish("2"), Reply::Int(1));
    let first = spawn_blocking(move || client.command(&["PING"]))
        .await
        .unwrap()
        .unwrap();
    assert!(is_message(&first), "{first:?}");
}

#[test]
fn a_server_forgets_or_remembers_as_it_is_told() {
    let mut redis = Redis::start();
    let life = |redis: &Redis| {
        let info = redis.info("replication");
        info.lines()
            .find(|line| line.starts_with("master_replid:"))
            .unwrap()
            .to_owned()
    };
    redis.command(&["SET", "old", "1"]);
    redis.save();
    redis.command(&["SET", "new", "1"]);
    let first = life(&redis);
    redis.start_again(false);
    assert_eq!(redis.keys("*"), ["old"]);
    assert_ne!(life(&redis), first, "a restart is another life");
    redis.start_again(true);
    assert_eq!(redis.keys("*"), [""; 0]);
    redis.command(&["SET", "k", "1"]);
    redis.flush();
    assert_eq!(redis.keys("*"), [""; 0]);
    let before = redis.calls();
    redis.command(&["EVAL", "return redis.call('GET', KEYS[1])", "1", "k"]);
    let after = redis.calls();
    assert_eq!(after["eval"] - before.get("eval").copied().unwrap_or(0), 1);
    assert_eq!(
        after["get"] - before.get("get").copied().unwrap_or(0),
        1,
        "commands in scripts count too"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_replica_lacks_what_its_link_held_back() {
    let mut primary = Redis::start();
    let link = Cutter::for_replica_of(primary.port);
    let port = link.port;
    let replica = spawn_blocking(move || Redis::replica_of(port)).await.unwrap();
    primary.command(&["SET", "old", "1"]);
    while replica.keys("*").is_empty() {
        sleep(Duration::from_millis(10)).await;
    }
    link.black_hole();
    primary.command(&["SET", "new", "1"]);
    primary.kill();
    link.cut();
    replica.promote();
    assert_eq!(replica.keys("*"), ["old"]);
    assert_eq!(replica.command(&["SET", "k", "1"]), text("OK"));
}
