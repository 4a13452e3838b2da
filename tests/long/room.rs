//! A room with 5,000 sockets on two nodes: who hears how late, and what it does to the leases.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::{Sink, SinkExt, StreamExt};
use serde_json::json;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::harness::{Node, Player};
use crate::postgres::Postgres;
use crate::redis_servers::Redis;

/// Sockets that hear; `USHER_ROOM_LISTENERS` for others.
fn listeners() -> usize {
    std::env::var("USHER_ROOM_LISTENERS").map_or(5_000, |listeners| listeners.parse().unwrap())
}

/// Players that fall silent in the calm, and as many again in the rush.
const SILENT: usize = 100;

/// Sockets that a second of the rush is told to: 20 messages of 5,000. It goes on for 15 s.
const RUSH: usize = 100_000;
const RUSH_SECONDS: usize = 15;

/// Longer than a silent player has.
const LEASE_AND_MORE: Duration = Duration::from_secs(13);

/// What is said when, and who heard it.
#[derive(Default)]
struct Heard {
    begun: Mutex<Vec<Instant>>,
    delays: Mutex<Vec<Vec<Duration>>>,
    count: AtomicUsize,
}

impl Heard {
    fn say(&self) -> usize {
        let mut begun = self.begun.lock().unwrap();
        begun.push(Instant::now());
        self.delays.lock().unwrap().push(Vec::new());
        begun.len() - 1
    }

    fn hear(&self, number: usize) {
        let delay = self.begun.lock().unwrap()[number].elapsed();
        self.delays.lock().unwrap()[number].push(delay);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until nobody has heard anything for two seconds; how often messages from this one on were heard.
    async fn settle(&self, from: usize) -> usize {
        let mut before = usize::MAX;
        loop {
            let count = self.count.load(Ordering::Relaxed);
            if count == before {
                break;
            }
            before = count;
            sleep(Duration::from_secs(2)).await;
        }
        self.delays.lock().unwrap()[from..].iter().map(Vec::len).sum()
    }

    /// Median, 99th percentile and the longest from this message on, in milliseconds.
    fn figures(&self, from: usize) -> [f64; 3] {
        let mut all: Vec<Duration> = self.delays.lock().unwrap()[from..].concat();
        all.sort_unstable();
        let at = |part: usize| all[(all.len() * part / 100).min(all.len() - 1)].as_secs_f64() * 1000.0;
        [at(50), at(99), at(100)]
    }
}

async fn total(nodes: &[Node], metric: &str) -> f64 {
    let mut sum = 0.0;
    for node in nodes {
        sum += node.metric(metric).await;
    }
    sum
}

/// Silent sessions that were ended, those within 250 ms of their time, and all their lateness in seconds.
async fn lateness(nodes: &[Node]) -> [f64; 3] {
    let of = "usher_release_lateness_seconds";
    [
        total(nodes, &format!("{of}_count")).await,
        total(nodes, &format!("{of}_bucket{{le=\"0.25\"}}")).await,
        total(nodes, &format!("{of}_sum")).await,
    ]
}

fn tell(what: &str, from: [f64; 3], to: [f64; 3]) {
    let ended = to[0] - from[0];
    eprintln!(
        "{what}: {ended} silent players ended, {} of them within 250 ms, mean {:.1} ms late",
        to[1] - from[1],
        (to[2] - from[2]) * 1000.0 / ended
    );
    assert!((ended - SILENT as f64).abs() < 0.5, "{ended} ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_of_five_thousand_hears_and_nobody_loses_a_slot() {
    let (postgres, redis) = tokio::join!(Postgres::start(), Redis::start(&[]));
    let toml = format!(
        "[modules]\naccounts = false\n[limits]\nmessages_per_second = 0\nstarts_per_second = 0\n\
         [messages]\nburst = 0\nslow_mode = \"0s\"\n[log]\naccess = false\n[database]\nurl = \"{}\"\n[redis]\nurl = \"{}\"\n",
        postgres.url(),
        redis.url()
    );
    let nodes = [Node::with(&toml).await, Node::with(&toml).await];
    let nodes = Arc::new(nodes);
    let (heard, hush) = (Arc::new(Heard::default()), watch::Sender::new(0));
    let mut players = JoinSet::new();
    let handshakes = Arc::new(Semaphore::new(32));
    let listeners = listeners();
    let a_second = RUSH / listeners;
    for number in 0..listeners + 2 * SILENT {
        let permit = Arc::clone(&handshakes).acquire_owned().await.unwrap();
        let (nodes, heard, mut hush) = (Arc::clone(&nodes), Arc::clone(&heard), hush.subscribe());
        // Of which phase it is the silence.
        let phase = number / SILENT + 1;
        players.spawn(async move {
            let mut player = enter(&nodes[number % 2], &format!("account-{number}")).await;
            drop(permit);
            tokio::select! {
                code = listen(&mut player, &heard) => panic!("{number} ended with {code}"),
                _ = hush.wait_for(|reached| *reached >= phase), if phase <= 2 => {}
            }
            std::future::pending::<()>().await;
        });
    }
    let (mut speaker, mut ear) = enter(&nodes[0], "speaker").await.socket.split();
    // Whoever does not read does not answer pings.
    let ear = tokio::spawn(async move { while let Some(Ok(_)) = ear.next().await {} });
    let _all = handshakes.acquire_many(32).await.unwrap();
    let everybody = listeners + 2 * SILENT;

    say(&mut speaker, heard.say()).await;
    let count = heard.settle(0).await;
    let [middle, late, last] = heard.figures(0);
    eprintln!(
        "one message: heard by {count} of {everybody}, p50 {middle:.1}, p99 {late:.1}, last {last:.1} ms"
    );
    assert_eq!(count, everybody);

    let begin = lateness(&*nodes).await;
    hush.send_replace(1);
    sleep(LEASE_AND_MORE).await;
    let calm = lateness(&*nodes).await;
    tell("nobody speaks", begin, calm);

    hush.send_replace(2);
    let mut beat = interval(Duration::from_secs(1) / u32::try_from(a_second).unwrap());
    let messages = a_second * RUSH_SECONDS;
    for _ in 0..messages {
        beat.tick().await;
        say(&mut speaker, heard.say()).await;
    }
    let count = heard.settle(1).await;
    let [middle, late, last] = heard.figures(1);
    let [slow, queue] = [
        total(&*nodes, "usher_messages_lost_total{where=\"room_listener\"}").await,
        total(&*nodes, "usher_messages_lost_total{where=\"room_queue\"}").await,
    ];
    eprintln!(
        "{messages} messages, {a_second} a second: heard {count} of {} times, p50 {middle:.1}, p99 {late:.1}, last {last:.1} ms; \
         lost by listeners {slow}, by nodes {queue}",
        messages * listeners
    );
    let rush = lateness(&*nodes).await;
    tell(&format!("{a_second} messages a second"), calm, rush);
    let held = total(&*nodes, "usher_sessions_active{tenant=\"main\"}").await;
    assert!((held - (listeners + 1) as f64).abs() < 0.5, "{held} play");
    assert!(
        players.try_join_next().is_none() && !ear.is_finished(),
        "somebody ended"
    );
}

async fn enter(node: &Node, account: &str) -> Player {
    let mut player = node.watch(account, "content=match&device=tv").await;
    player.next_of("granted").await;
    player
}

async fn say(speaker: &mut (impl Sink<Message, Error = Error> + Unpin), number: usize) {
    let text = number.to_string();
    let content = json!({"type": "text", "text": text});
    let said = json!({"type": "message", "to": "room:match", "content": content});
    speaker.send(Message::text(said.to_string())).await.unwrap();
}

/// Hears what is said until the socket ends; its code.
async fn listen(player: &mut Player, heard: &Heard) -> u16 {
    loop {
        match player.receive().await {
            Ok(message) if message["type"] == "message" => {
                let text = message["content"]["text"].as_str().unwrap();
                heard.hear(text.parse().unwrap());
            }
            Ok(_) => {}
            Err(code) => return code,
        }
    }
}
