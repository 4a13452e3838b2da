//! Messages as they come: on open sockets, over several nodes, in rooms, and after everything that can go wrong between.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::{Node, Player, SOON, token};
use crate::messages::{Caller, OPEN};
use crate::postgres::Postgres;
use crate::redis_servers::{Cluster, Redis, until};

/// What no message should take, also when the word of it was lost.
const CAUGHT_UP: Duration = Duration::from_secs(20);

/// Nodes that share everything.
struct Fleet {
    nodes: Vec<Node>,
    redis: Redis,
    _postgres: Postgres,
}

impl Fleet {
    async fn start(count: usize, more: &str) -> Self {
        let (postgres, redis) = tokio::join!(Postgres::start(), Redis::start(&[]));
        let toml = format!(
            "{OPEN}{more}[database]\ntimeout = \"5s\"\nurl = \"{}\"\n[redis]\nurl = \"{}\"\n",
            postgres.url(),
            redis.url()
        );
        let nodes = join_all((0..count).map(|_| Node::with(&toml))).await;
        Self {
            nodes,
            redis,
            _postgres: postgres,
        }
    }
}

/// An inbox of an account.
async fn inbox(node: &Node, account: &str, since: Option<u64>) -> Player {
    let query = since.map(|since| format!("?since={since}")).unwrap_or_default();
    let stream = node.connect().await;
    let path = format!("/v1/inbox{query}");
    node.upgrade(stream, &path, Some(&token(account))).await.unwrap()
}

async fn granted(node: &Node, account: &str, query: &str) -> Player {
    let mut player = node.watch(account, query).await;
    player.next_of("granted").await;
    player
}

fn text(message: &Value) -> &str {
    message["content"]["text"].as_str().unwrap()
}

fn id(message: &Value) -> u64 {
    message["id"].as_u64().unwrap()
}

fn say(to: &str, text: &str, client_id: &str) -> Value {
    json!({"type": "message", "to": to, "content": {"type": "text", "text": text}, "client_id": client_id})
}

/// The texts of the next messages.
async fn hear(player: &mut Player, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    while all.len() < count {
        let message = player.next_within(CAUGHT_UP).await;
        if message["type"] == "message" {
            all.push(text(&message).to_owned());
        }
    }
    all
}

/// Nothing comes for a moment.
async fn silence(player: &mut Player) {
    let next = tokio::time::timeout(Duration::from_millis(400), player.receive()).await;
    assert!(next.is_err(), "{next:?}");
}

#[tokio::test]
async fn a_message_reaches_every_socket_of_its_recipient_on_any_node() {
    let fleet = Fleet::start(2, "").await;
    let [one, two] = &fleet.nodes[..] else { panic!() };
    let mut watching = granted(one, "bob", "content=m1&device=tv").await;
    let (mut here, mut there) = (inbox(one, "bob", None).await, inbox(two, "bob", None).await);
    let mut foreign = inbox(two, "cy", None).await;
    let mut ann = Caller::new(one, "ann").await;
    // The first one may find the sockets not yet known everywhere: it still comes.
    ann.say("bob", "first").await;
    for socket in [&mut watching, &mut here, &mut there] {
        assert_eq!(hear(socket, 1).await, ["first"]);
    }
    let begun = Instant::now();
    let sent = ann.say("bob", "second").await;
    for socket in [&mut watching, &mut here, &mut there] {
        let message = socket.next().await;
        assert_eq!(
            (&message["type"], id(&message), text(&message)),
            (&json!("message"), sent, "second")
        );
        assert_eq!((&message["from"], &message["to"]), (&json!("ann"), &json!("bob")));
    }
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "by word, not by a look: {:?}",
        begun.elapsed()
    );
    // From a socket, with its answer; the same again is the same.
    there.say(say("ann", "back", "c1")).await;
    let answer = there.next_of("sent").await;
    there.say(say("ann", "back", "c1")).await;
    let again = there.next_of("sent").await;
    assert_eq!(
        (&answer["client_id"], &answer["to"]),
        (&json!("c1"), &json!("ann"))
    );
    assert_eq!(answer["message"], again["message"]);
    let page = ann.read("with=bob").await;
    assert_eq!(page["items"].as_array().unwrap().len(), 3);
    // What was read, by the socket.
    here.say(json!({"type": "read", "with": "ann", "message": sent, "id": "r"}))
        .await;
    let read = here.next_of("read").await;
    assert_eq!((&read["unread"], &read["id"]), (&json!(0), &json!("r")));
    silence(&mut foreign).await;
    // An inbox takes no slot.
    assert_eq!(one.sessions("bob").await.len(), 1);
    here.say(json!({"type": "switch", "content": "m2"})).await;
    assert_eq!(here.next_of("error").await["code"], "bad_state");
    here.say(json!({"type": "stop"})).await;
    assert_eq!(here.closed().await.0, 4000);
}

/// The channels of a cluster lie on all of its primaries.
#[tokio::test]
async fn a_cluster_carries_words_to_every_account() {
    let (postgres, cluster) = tokio::join!(Postgres::start(), Cluster::start(Duration::from_secs(5)));
    let toml = format!(
        "{OPEN}poll = \"10m\"\n[database]\ntimeout = \"5s\"\nurl = \"{}\"\n[redis]\nurl = \"{}\"\n",
        postgres.url(),
        cluster.url()
    );
    let (one, two) = tokio::join!(Node::with(&toml), Node::with(&toml));
    let mut ann = Caller::new(&one, "ann").await;
    let names: Vec<String> = (0..12).map(|number| format!("account-{number}")).collect();
    for name in &names {
        let mut there = inbox(&two, name, None).await;
        // The first may come by the look that follows a new subscription.
        for text in ["first", "second", "third"] {
            ann.say(name, text).await;
            assert_eq!(hear(&mut there, 1).await, [text], "{name}");
        }
    }
}

/// Who was away hears what was missed once and in order, then what comes, on both sorts of sockets.
#[tokio::test]
async fn since_tells_what_was_missed_once_and_in_order() {
    let node = Node::with(OPEN).await;
    let mut ann = Caller::new(&node, "ann").await;
    let mut bob = inbox(&node, "bob", None).await;
    let mut ids = Vec::new();
    ids.push(ann.say("bob", "0").await);
    assert_eq!(hear(&mut bob, 1).await, ["0"]);
    bob.cut();
    for number in 1..250 {
        ids.push(ann.say("bob", &number.to_string()).await);
        if number % 50 == 0 {
            Caller::new(&node, "cy").await.say("dora", "no matter").await;
        }
    }
    // It says more while the old is told.
    let more = async {
        for number in 250..300 {
            ann.say("bob", &number.to_string()).await;
        }
    };
    let listening = async {
        let mut inbox = inbox(&node, "bob", Some(ids[0])).await;
        let mut watching = granted(&node, "bob", &format!("content=m1&since={}", ids[99])).await;
        let expected = |from: u32| (from..300).map(|number| number.to_string()).collect::<Vec<_>>();
        assert_eq!(hear(&mut inbox, 299).await, expected(1));
        assert_eq!(hear(&mut watching, 200).await, expected(100));
        silence(&mut inbox).await;
        silence(&mut watching).await;
    };
    tokio::join!(more, listening);
    // Nobody has heard what was never said: what comes next comes all the same.
    let mut ahead = inbox(&node, "bob", Some((1 << 53) - 1)).await;
    let mut fresh = inbox(&node, "bob", None).await;
    silence(&mut ahead).await;
    silence(&mut fresh).await;
    ann.say("bob", "next").await;
    assert_eq!(hear(&mut ahead, 1).await, ["next"]);
    assert_eq!(hear(&mut fresh, 1).await, ["next"]);
    // Removed is not heard.
    let gone = ann.say("bob", "gone").await;
    assert_eq!(
        ann.ask("DELETE", &format!("/v1/messages/{gone}?with=bob"), None)
            .await
            .status,
        204
    );
    let last = ann.say("bob", "last").await;
    let mut late = inbox(&node, "bob", Some(gone - 1)).await;
    assert_eq!(hear(&mut late, 1).await, ["last"]);
    silence(&mut late).await;
    let mut done = inbox(&node, "bob", Some(last)).await;
    silence(&mut done).await;
}

/// The subscription dies, words are lost, a node is killed: each message is heard once and in order.
#[tokio::test]
async fn lost_words_and_dead_nodes_lose_no_message() {
    let mut fleet = Fleet::start(2, "poll = \"2s\"\n").await;
    let mut bob = inbox(&fleet.nodes[1], "bob", None).await;
    let mut ann = Caller::new(&fleet.nodes[0], "ann").await;
    ann.say("bob", "0").await;
    assert_eq!(hear(&mut bob, 1).await, ["0"]);
    let mut expected = Vec::new();
    for round in 0..4 {
        fleet.redis.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        for number in 0..5 {
            let text = format!("{round}.{number}");
            ann.say("bob", &text).await;
            expected.push(text);
        }
    }
    assert_eq!(hear(&mut bob, expected.len()).await, expected);
    silence(&mut bob).await;
    // Redis itself away: the database tells.
    fleet.redis.kill();
    let last = ann.say("bob", "without Redis").await;
    assert_eq!(hear(&mut bob, 1).await, ["without Redis"]);
    fleet.redis.restart().await;
    // The node dies with the socket.
    fleet.nodes[1].signal("-KILL");
    assert!(bob.next_is_lost().await);
    ann.say("bob", "to nobody").await;
    let mut again = inbox(&fleet.nodes[0], "bob", Some(last)).await;
    assert_eq!(hear(&mut again, 1).await, ["to nobody"]);
    silence(&mut again).await;
}

impl Player {
    /// Whether the connection breaks.
    async fn next_is_lost(&mut self) -> bool {
        tokio::time::timeout(SOON, self.receive())
            .await
            .expect("an end")
            .is_err()
    }
}

/// A room is those who watch: they alone speak and hear, and leave it with their slot.
#[tokio::test]
async fn a_room_is_those_who_watch() {
    let fleet = Fleet::start(2, "").await;
    let [one, two] = &fleet.nodes[..] else { panic!() };
    let mut ann = granted(one, "ann", "content=m1&device=a").await;
    let mut bob = granted(two, "bob", "content=m1&device=b").await;
    let mut cy = granted(two, "cy", "content=m2&device=c").await;
    ann.say(say("room:m1", "hello", "1")).await;
    // Its own message may be heard before the answer.
    let told = [ann.next().await, ann.next().await];
    let of = |kind: &str| told.iter().find(|message| message["type"] == kind).unwrap();
    let sent = of("sent")["message"].clone();
    for message in [of("message"), &bob.next_of("message").await] {
        assert_eq!((text(message), &message["to"]), ("hello", &json!("room:m1")));
        assert_eq!(message["id"], sent);
    }
    cy.say(say("room:m1", "from outside", "1")).await;
    assert_eq!(cy.next_of("error").await["code"], "room_forbidden");
    // Another room after a switch.
    cy.say(json!({"type": "switch", "content": "m1"})).await;
    cy.say(say("room:m1", "came", "2")).await;
    for socket in [&mut ann, &mut bob, &mut cy] {
        assert_eq!(text(&socket.next_of("message").await), "came");
    }
    bob.say(json!({"type": "room", "id": 1})).await;
    let room = bob.next_of("room").await;
    assert_eq!(
        (&room["present"], &room["room"], &room["id"]),
        (&json!(3), &json!("room:m1"), &json!(1))
    );
    let said: Vec<&str> = room["messages"].as_array().unwrap().iter().map(text).collect();
    assert_eq!(said, ["hello", "came"]);
    // Without its slot nobody hears, nor is there.
    bob.close(1000).await;
    ann.say(say("room:m1", "who is here", "3")).await;
    assert_eq!(text(&ann.next_of("message").await), "who is here");
    let left = || async {
        let mut caller = Caller::new(two, "bob").await;
        let told = caller.ask("GET", "/v1/messages?with=room:m1", None).await;
        (told.status == 403).then_some(())
    };
    until("bob to be out of the room", left).await;
    let mut by_http = Caller::new(two, "cy").await;
    assert_eq!(
        by_http.read("with=room:m1").await["items"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
    by_http.say("room:m1", "by HTTP").await;
    assert_eq!(text(&ann.next_of("message").await), "by HTTP");
    // Who enters with `since` hears what was said last; without it nothing old.
    let mut dora = granted(one, "dora", "content=m1&device=d&since=0").await;
    assert_eq!(
        hear(&mut dora, 4).await,
        ["hello", "came", "who is here", "by HTTP"]
    );
    let mut eve = granted(one, "eve", "content=m1&device=e").await;
    silence(&mut eve).await;
    dora.say(json!({"type": "room"})).await;
    assert_eq!(dora.next_of("room").await["present"], 4);
}

/// One account is slowed down in a room; what it asks beyond its rate is answered, and its play goes on.
#[tokio::test]
async fn slow_mode_and_rates() {
    let node = Node::with(
        "[modules]\naccounts = false\n[messages]\nburst = 5\nper_second = 1\nslow_mode = \"1m\"\nsockets_per_account = 2\n",
    )
    .await;
    let mut ann = granted(&node, "ann", "content=m1&device=a").await;
    ann.say(say("room:m1", "one", "1")).await;
    ann.next_of("sent").await;
    ann.say(say("room:m1", "two", "2")).await;
    assert_eq!(ann.next_of("error").await["code"], "rate_limited");
    for number in 0..3 {
        ann.say(say("bob", "x", &format!("b{number}"))).await;
        ann.next_of("sent").await;
    }
    let mut caller = Caller::new(&node, "ann").await;
    let body = json!({"recipient": "bob", "content": {"type": "text", "text": "x"}});
    let told = caller.ask("POST", "/v1/messages", Some(&body)).await;
    assert_eq!(told.refusal(), (429, "rate_limited".into(), None));
    assert_eq!(told.header("retry-after"), Some("1"));
    let _two = (inbox(&node, "bob", None).await, inbox(&node, "bob", None).await);
    let stream = node.connect().await;
    let refused = node.upgrade(stream, "/v1/inbox", Some(&token("bob"))).await;
    let (status, body) = refused.err().expect("a third is refused");
    assert_eq!(
        (status.as_u16(), &body["error"]["code"]),
        (429, &json!("too_many_sockets"))
    );
    for bad in ["/v1/inbox?since=x", "/v1/inbox?since=1&since=2"] {
        let stream = node.connect().await;
        let refused = node.upgrade(stream, bad, Some(&token("cy"))).await.err();
        assert_eq!(refused.expect(bad).0, 400);
    }
}

/// Who does not read keeps its slot, loses room messages first and no other.
#[tokio::test]
async fn who_does_not_read_loses_room_messages_and_no_other() {
    let node = Node::with(OPEN).await;
    let mut ann = granted(&node, "ann", "content=m1&device=a").await;
    let mut slow = granted(&node, "bob", "content=m1&device=b").await;
    let long = "x".repeat(1_900);
    let lost = async || {
        node.metric("usher_messages_lost_total{where=\"room_listener\"}")
            .await
    };
    let mut number = 0;
    // Until the socket's buffers are full: nobody reads it meanwhile.
    while lost().await < 100.0 {
        for _ in 0..100 {
            ann.say(say("room:m1", &format!("{number} {long}"), &number.to_string()))
                .await;
            number += 1;
            ann.next_of("message").await;
            slow.say(json!({"type": "heartbeat"})).await;
        }
        assert!(number < 20_000, "nothing is lost");
    }
    let mut caller = Caller::new(&node, "cy").await;
    for direct in 0..200 {
        caller.say("bob", &format!("direct {direct}")).await;
    }
    assert_eq!(node.sessions("bob").await.len(), 1, "it keeps its slot");
    let mut heard = Vec::new();
    while heard.len() < 200 {
        let message = slow.next_within(CAUGHT_UP).await;
        if message["to"] == "bob" {
            heard.push(text(&message).to_owned());
        }
    }
    let expected: Vec<String> = (0..200).map(|direct| format!("direct {direct}")).collect();
    assert_eq!(heard, expected);
}

/// Messages of the storm, and its accounts.
const STORM: usize = 10_000;
const ACCOUNTS: usize = 50;

/// 50 accounts write 10,000 messages over three nodes, one of which is killed: what is stored is what was acknowledged, and
/// each account hears its own once and in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_messages_survive_the_death_of_a_node() {
    let fleet = Fleet::start(3, "").await;
    let begun = Instant::now();
    let name = |number: usize| format!("a{number}");
    let listening = (0..ACCOUNTS).map(|number| {
        let fleet = &fleet;
        async move {
            let mut at = number % 3;
            let mut socket = inbox(&fleet.nodes[at], &name(number), Some(0)).await;
            let (mut heard, mut last): (Vec<(u64, String)>, u64) = (Vec::new(), 0);
            loop {
                let next = tokio::time::timeout(CAUGHT_UP * 3, socket.receive())
                    .await
                    .expect("a message");
                match next {
                    Ok(message) if message["type"] == "message" && text(&message) == "the end" => {
                        return heard;
                    }
                    Ok(message) if message["type"] == "message" => {
                        last = id(&message);
                        heard.push((last, text(&message).to_owned()));
                    }
                    Ok(_) => {}
                    Err(_) => {
                        at = (at + 1) % 2;
                        socket = inbox(&fleet.nodes[at], &name(number), Some(last)).await;
                    }
                }
            }
        }
    });
    let sending = (0..ACCOUNTS).map(|number| {
        let fleet = &fleet;
        async move {
            let mut at = (number + 1) % 3;
            let mut socket = granted(&fleet.nodes[at], &name(number), "content=m1&device=d").await;
            let mut acknowledged = Vec::new();
            for count in 0..STORM / ACCOUNTS {
                let to = (number * 7 + count * 3) % ACCOUNTS;
                let said = format!("{number}:{count}");
                let frame = say(&name(to), &said, &said);
                socket.say_or_not(&frame).await;
                // Sent again until somebody acknowledges it.
                loop {
                    match tokio::time::timeout(SOON, socket.receive()).await {
                        Ok(Ok(answer)) if answer["type"] == "sent" && answer["client_id"] == said => {
                            acknowledged.push((to, answer["message"].as_u64().unwrap(), said));
                            break;
                        }
                        Ok(Ok(answer)) if answer["type"] == "error" => {
                            tokio::time::sleep(Duration::from_millis(50)).await;
                            socket.say_or_not(&frame).await;
                        }
                        Ok(Ok(_)) => {}
                        Ok(Err(_)) | Err(_) => {
                            at = (at + 1) % 2;
                            socket = granted(&fleet.nodes[at], &name(number), "content=m1&device=d").await;
                            socket.say_or_not(&frame).await;
                        }
                    }
                }
                if number == 0 && count == STORM / ACCOUNTS / 2 {
                    fleet.nodes[2].signal("-KILL");
                }
            }
            acknowledged
        }
    });
    let all = async {
        let acknowledged = join_all(sending).await;
        let sent = begun.elapsed();
        for number in 0..ACCOUNTS {
            Caller::new(&fleet.nodes[0], "judge")
                .await
                .say(&name(number), "the end")
                .await;
        }
        (acknowledged, sent)
    };
    let ((acknowledged, sent), heard) = tokio::join!(all, join_all(listening));
    let rate = STORM as f64 / sent.as_secs_f64();
    eprintln!(
        "{STORM} messages in {sent:?}: {rate:.0} a second; heard by all after {:?}",
        begun.elapsed()
    );
    let mut expected: BTreeMap<usize, BTreeSet<(u64, String)>> = BTreeMap::new();
    for (to, id, said) in acknowledged.into_iter().flatten() {
        assert!(
            expected.entry(to).or_default().insert((id, said)),
            "acknowledged twice"
        );
    }
    for (number, heard) in heard.into_iter().enumerate() {
        assert!(
            heard.windows(2).all(|pair| pair[0].0 < pair[1].0),
            "out of order: {heard:?}"
        );
        let wanted = expected.remove(&number).unwrap_or_default();
        assert_eq!(
            heard.into_iter().collect::<BTreeSet<_>>(),
            wanted,
            "account {number}"
        );
    }
}

impl Player {
    /// Says something, if the connection is still there.
    async fn say_or_not(&mut self, message: &Value) {
        use futures_util::SinkExt;
        use tokio_tungstenite::tungstenite::Message;
        let _ = self.socket.send(Message::text(message.to_string())).await;
    }
}
