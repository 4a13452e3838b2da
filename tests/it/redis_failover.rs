//! The link to Redis when another server takes over: Sentinel sets and clusters.

use std::time::{Duration, Instant};

use usher::lease::redis::{Failed, Script};

use crate::redis_link::{Ear, RULES, SLACK, TIMEOUT, timed};
use crate::redis_servers::{Cluster, Redis, Sentinels, free_port, until};

/// After which a silent primary is replaced.
const DOWN_AFTER: Duration = Duration::from_secs(2);
/// A channel and a key of one slot.
const CHANNEL: &str = "{usher:3}:node";
const KEY: &str = "{usher:3}:count";

/// Answers how many of its keys exist.
static EXIST: Script = Script::new("audit", "return tostring(redis.call('EXISTS', KEYS[1], KEYS[2]))");

/// Waits until a write has reached this server, which proves that the link uses it.
async fn writes_to(ear: &Ear, server: &Redis, key: &str) {
    until("write to the new primary", || async {
        let before = server.try_ask(&["GET", key]).await.ok()?;
        ear.count(key).await.ok()?;
        let after = server.try_ask(&["GET", key]).await.ok()?;
        (before != after).then_some(())
    })
    .await;
}

#[tokio::test]
async fn sentinels_name_the_next_master_after_a_death_and_an_order() {
    let mut set = Sentinels::start(DOWN_AFTER).await;
    let ear = Ear::open(&set.url());
    ear.link.listen(vec![CHANNEL.to_owned()]);
    let first = set.primary().await;
    writes_to(&ear, &set.servers[first], "a").await;
    ear.hears(&set.servers[first], CHANNEL, "first").await;

    set.servers[first].kill();
    ear.wait_for(false).await;
    let second = set.primary_other_than(first).await;
    writes_to(&ear, &set.servers[second], "a").await;
    ear.hears(&set.servers[second], CHANNEL, "second").await;
    ear.wait_for(true).await;

    // The dead one comes back, says for a moment that it is a master, and is made a replica.
    set.servers[first].restart().await;
    let old = &set.servers[first];
    until("demotion", || async {
        format!("{:?}", old.try_ask(&["ROLE"]).await)
            .contains("slave")
            .then_some(())
    })
    .await;
    writes_to(&ear, &set.servers[second], "a").await;

    // An orderly hand-over.
    let order = ["SENTINEL", "FAILOVER", "main"];
    until("hand-over", || async {
        set.sentinels[0].try_ask(&order).await.ok()
    })
    .await;
    let third = set.primary_other_than(second).await;
    writes_to(&ear, &set.servers[third], "a").await;
    ear.hears(&set.servers[third], CHANNEL, "third").await;

    // One sentinel of three, and that not the first of the list, suffices.
    set.sentinels[0].kill();
    set.sentinels[1].stop();
    let late = Ear::open(&set.url());
    assert!(late.counted("a").await > 0);
    set.sentinels[1].cont();
}

#[tokio::test]
async fn sentinels_replace_a_master_that_stands_still_and_it_is_not_used_when_it_goes_on() {
    let set = Sentinels::start(DOWN_AFTER).await;
    let ear = Ear::open(&set.url());
    ear.link.listen(vec![CHANNEL.to_owned()]);
    let first = set.primary().await;
    writes_to(&ear, &set.servers[first], "a").await;
    set.servers[first].stop();
    let (result, took) = timed(ear.count("a")).await;
    assert_eq!(result, Err(Failed::Unavailable));
    assert!(took < TIMEOUT + SLACK, "{took:?}");
    let second = set.primary_other_than(first).await;
    writes_to(&ear, &set.servers[second], "a").await;
    set.servers[first].cont();
    let old = &set.servers[first];
    until("demotion", || async {
        format!("{:?}", old.try_ask(&["ROLE"]).await)
            .contains("slave")
            .then_some(())
    })
    .await;
    writes_to(&ear, &set.servers[second], "a").await;
    ear.hears(&set.servers[second], CHANNEL, "word").await;
}

#[tokio::test]
async fn a_slot_of_a_cluster_moves_under_the_link() {
    let cluster = Cluster::start(DOWN_AFTER).await;
    let ear = Ear::open(&cluster.url());
    let channels: Vec<String> = (0..8).map(|bucket| format!("{{usher:{bucket}}}:node")).collect();
    ear.link.listen(channels.clone());
    for bucket in 0..8 {
        assert_eq!(ear.counted(&format!("{{usher:{bucket}}}:count")).await, 1);
    }
    let from = cluster.owner(KEY).await;
    ear.hears(&cluster.servers[from], CHANNEL, "before").await;
    let to = (from + 1) % 3;

    let moving = cluster.begin_move(KEY, to).await;
    assert_eq!(ear.count(KEY).await, Ok(2), "the key is still here");
    assert_eq!(
        ear.count("{usher:3}:new").await,
        Ok(1),
        "a key that is not is asked for there"
    );
    let server = &cluster.servers[to];
    assert_eq!(server.text(&["SCRIPT", "FLUSH"]).await, "OK");
    assert_eq!(
        ear.count("{usher:3}:new").await,
        Ok(2),
        "the new owner forgot the script"
    );
    let both = [KEY.to_owned(), "{usher:3}:new".to_owned()];
    let began = Instant::now();
    let split = ear.link.run(&EXIST, &both, &[]).await;
    assert_eq!(
        split,
        Err(Failed::Unavailable),
        "one key is here, the other there"
    );
    assert!(began.elapsed() < TIMEOUT + SLACK);
    moving.finish(&cluster).await;

    let both = || async { ear.link.run(&EXIST, &both, &[]).await.ok() };
    assert_eq!(until("both keys at one place", both).await, "2");
    assert_eq!(ear.count(KEY).await, Ok(3));
    ear.hears(&cluster.servers[to], CHANNEL, "after").await;
    for (bucket, channel) in channels.iter().enumerate() {
        let owner = cluster.owner(channel).await;
        ear.hears(&cluster.servers[owner], channel, &format!("word {bucket}"))
            .await;
    }
    cluster.move_slot(KEY, from).await;
    assert_eq!(ear.counted(KEY).await, 4);
    ear.hears(&cluster.servers[from], CHANNEL, "back").await;
}

/// Keys of each third of the slots.
async fn key_of_each(cluster: &Cluster) -> [String; 3] {
    let mut keys = [const { String::new() }; 3];
    for number in 0.. {
        let key = format!("{{usher:{number}}}:count");
        let owner = cluster.owner(&key).await;
        keys[owner] = key;
        if keys.iter().all(|key| !key.is_empty()) {
            break;
        }
    }
    keys
}

#[tokio::test]
async fn a_primary_of_a_cluster_dies_and_its_replica_follows() {
    let mut cluster = Cluster::start(DOWN_AFTER).await;
    let keys = key_of_each(&cluster).await;
    let channel = keys[0].replace("count", "node");
    let ear = Ear::open(&cluster.url());
    ear.link.listen(vec![channel.clone()]);
    for key in &keys {
        ear.counted(key).await;
    }
    ear.hears(&cluster.servers[0], &channel, "before").await;
    cluster.servers[0].kill();
    until("loss of the shard", || async {
        (ear.count(&keys[0]).await == Err(Failed::Unavailable)).then_some(())
    })
    .await;
    let began = Instant::now();
    while began.elapsed() < DOWN_AFTER / 2 {
        for key in &keys[1..] {
            assert!(ear.count(key).await.is_ok(), "another shard goes on");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ear.counted(&keys[0]).await;
    ear.hears(&cluster.servers[3], &channel, "after").await;
    ear.wait_for(true).await;
    // A node whose configuration still names the dead one first.
    let late = Ear::open(&cluster.url());
    late.counted(&keys[0]).await;
    cluster.servers[0].restart().await;
    for key in &keys {
        ear.counted(key).await;
    }
    ear.hears(&cluster.servers[3], &channel, "still").await;
}

#[tokio::test]
async fn a_primary_of_a_cluster_stands_still() {
    let cluster = Cluster::start(DOWN_AFTER).await;
    let keys = key_of_each(&cluster).await;
    let ear = Ear::open(&cluster.url());
    for key in &keys {
        ear.counted(key).await;
    }
    cluster.servers[1].stop();
    let timed = |key: String| {
        let ear = &ear;
        timed(async move { ear.count(&key).await })
    };
    let began = Instant::now();
    while began.elapsed() < DOWN_AFTER {
        let calls = (0..30).map(|number| timed(keys[number % 3].clone()));
        for (number, (result, took)) in futures_util::future::join_all(calls)
            .await
            .into_iter()
            .enumerate()
        {
            assert!(took < TIMEOUT + SLACK, "{result:?} after {took:?}");
            let stands = number % 3 == 1;
            assert!(
                stands || result.is_ok() && took < SLACK,
                "another shard: {result:?} after {took:?}"
            );
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ear.counted(&keys[1]).await;
    cluster.servers[1].cont();
    until("demotion", || async {
        let role = cluster.servers[1].try_ask(&["ROLE"]).await;
        format!("{role:?}").contains("slave").then_some(())
    })
    .await;
    ear.counted(&keys[1]).await;
}

#[tokio::test]
async fn a_url_of_the_wrong_kind_is_unavailable() {
    let server = Redis::start(&[]).await;
    let ear = Ear::open(&format!("redis+cluster://{}", server.place()));
    assert_eq!(ear.count("a").await, Err(Failed::Unavailable));
    let ear = Ear::open(&format!("redis+sentinel://{}/main", server.place()));
    assert_eq!(ear.count("a").await, Err(Failed::Unavailable));
    let bus = free_port().to_string();
    let node = Redis::start(&["--cluster-enabled", "yes", "--cluster-port", &bus]).await;
    let ear = Ear::open(&node.url());
    assert_eq!(ear.count("a").await, Err(Failed::Unavailable));
}

#[tokio::test]
async fn sentinels_and_their_master_may_ask_for_different_passwords() {
    let server = Redis::start(&["--requirepass", "one"]).await;
    let lines = format!(
        "requirepass two\nsentinel monitor main 127.0.0.1 {} 1\nsentinel auth-pass main one\n",
        server.port
    );
    let sentinel = Redis::start_sentinel(&lines).await;
    let url = format!("redis+sentinel://:one@{}/main?db=3", sentinel.place());
    let with = |password: &str| {
        let password = password.to_owned();
        Ear::with(&url, |settings| settings.sentinel_password = password.into())
    };
    assert_eq!(with("two").counted("a").await, 1);
    assert_eq!(with("").count("a").await, Err(Failed::Unavailable));
    assert_eq!(with("one").count("a").await, Err(Failed::Unavailable));
    assert_eq!(
        server.ask(&["EXISTS", "a"]).await,
        redis::Value::Int(0),
        "it is in database 3"
    );
}

#[tokio::test]
async fn a_cluster_over_tls_with_a_user_of_few_rights() {
    // Its own choice of a bus port is among those that the system gives to whoever connects.
    let bus = free_port().to_string();
    let cluster = [
        "--cluster-enabled",
        "yes",
        "--tls-cluster",
        "yes",
        "--cluster-port",
        &bus,
    ];
    let tls = Redis::start_tls(&cluster).await;
    tls.server.ask(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).await;
    let rules = format!("reset on >secret {RULES} +cluster|slots +cluster|info +asking +incrby");
    let user: Vec<&str> = ["ACL", "SETUSER", "usher"]
        .into_iter()
        .chain(rules.split(' '))
        .collect();
    tls.server.ask(&user).await;
    let url = format!("rediss+cluster://usher:secret@localhost:{}", tls.tls_port);
    let ca = tls.files.file("ca.pem");
    let ear = Ear::with(&url, |settings| settings.ca = ca);
    ear.link.listen(vec![CHANNEL.to_owned()]);
    assert_eq!(ear.counted(KEY).await, 1);
    ear.hears(&tls.server, CHANNEL, "word").await;
    ear.wait_for(true).await;
    let log = format!("{:?}", tls.server.ask(&["ACL", "LOG"]).await);
    assert!(!log.contains("command"), "no command was denied: {log}");
}
