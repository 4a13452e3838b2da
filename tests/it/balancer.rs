//! The real balancer before real gateways: `HAProxy` with the configuration of `deploy/`, which moves players while the
//! gateways are restarted one after the other, and when one dies.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::HeaderValue;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::harness::{Node, Player, SECRET, now, sign, token, trust, usher_in};
use crate::redis_servers::{Redis, TlsFiles, free_port, until};

/// A file of `deploy/`.
pub(crate) fn deployed(name: &str) -> String {
    let path = format!("{}/deploy/{name}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Puts the test's own values in; each must be there to be replaced.
pub(crate) fn with_values(text: &str, values: &[(&str, String)]) -> String {
    values.iter().fold(text.to_owned(), |text, (theirs, ours)| {
        assert!(text.contains(theirs), "no {theirs:?} in\n{text}");
        text.replace(theirs, ours)
    })
}

/// A random whole number below `most`.
fn random_below(most: u32) -> u32 {
    use std::hash::{BuildHasher, Hasher};
    let number = std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish();
    u32::try_from(number % u64::from(most)).unwrap()
}

/// Redis, gateways, and `HAProxy` before them.
struct Stage {
    redis: Redis,
    gateways: Vec<Node>,
    haproxy: Child,
    door: Arc<Door>,
    dir: std::path::PathBuf,
    _files: TlsFiles,
}

/// Where players come in.
struct Door {
    address: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
}

impl Stage {
    async fn set(count: usize) -> Self {
        let redis = Redis::start(&[]).await;
        let files = TlsFiles::make();
        let text = |name: &str| files.file(name).display().to_string();
        let tls = trust(Some(&files.file("ca.pem")));
        let dir = std::env::temp_dir().join(format!("usher-balancer-{}-{}", std::process::id(), free_port()));
        fs::create_dir_all(&dir).unwrap();
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        fs::write(dir.join("signing-key.pem"), key).unwrap();
        let mut gateways = Vec::new();
        for number in 0..count {
            let place = dir.join(format!("gateway{number}"));
            fs::create_dir_all(&place).unwrap();
            let (players, admin) = (free_port(), free_port());
            let settings = with_values(
                &deployed("usher.toml"),
                &[
                    ("/var/lib/usher", place.join("data").display().to_string()),
                    ("0.0.0.0:8443", format!("127.0.0.1:{players}")),
                    ("0.0.0.0:9600", format!("127.0.0.1:{admin}")),
                    ("10.0.1.0/24", "127.0.0.1/32".to_owned()),
                    ("/etc/usher/tls/tls.crt", text("server.pem")),
                    ("/etc/usher/tls/tls.key", text("server.key")),
                    (
                        "/etc/usher/signing-key.pem",
                        dir.join("signing-key.pem").display().to_string(),
                    ),
                    ("\"redis://10.0.1.21:6379\"", format!("\"{}\"", redis.url())),
                    ("username = \"usher\"", String::new()),
                    ("window = \"10s\"", "window = \"3s\"".to_owned()),
                ],
            );
            fs::write(place.join("usher.toml"), settings).unwrap();
            gateways.push(Node {
                child: serve(&place),
                dir: place,
                players: ([127, 0, 0, 1], players).into(),
                admin: ([127, 0, 0, 1], admin).into(),
                tls: Arc::clone(&tls),
            });
        }
        join_all(gateways.iter_mut().map(Node::wait_until_ready)).await;
        for gateway in &mut gateways {
            gateway.tls = Arc::clone(&tls);
        }
        let (port, figures) = (free_port(), free_port());
        let mut values = vec![
            ("maxconn 100000", "maxconn 2000".to_owned()),
            ("bind :443", format!("bind 127.0.0.1:{port}")),
            ("127.0.0.1:8404", format!("127.0.0.1:{figures}")),
            ("check port 9600", "check".to_owned()),
        ];
        let servers = ["10.0.1.11:8443", "10.0.1.12:8443", "10.0.1.13:8443"];
        for (server, gateway) in servers.into_iter().zip(&gateways) {
            values.push((
                server,
                format!("{} port {}", gateway.players, gateway.admin.port()),
            ));
        }
        let mut settings = with_values(&deployed("haproxy/haproxy.cfg"), &values);
        let all: Vec<&str> = settings
            .lines()
            .filter(|line| !servers.iter().any(|s| line.contains(s)))
            .collect();
        settings = all.join("\n") + "\n";
        fs::write(dir.join("haproxy.cfg"), settings).unwrap();
        let log = fs::File::create(dir.join("haproxy.log")).unwrap();
        let haproxy = Command::new("haproxy")
            .args(["-db", "-f"])
            .arg(dir.join("haproxy.cfg"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("haproxy is installed (tests/run does)");
        let door = Arc::new(Door {
            address: ([127, 0, 0, 1], port).into(),
            tls,
        });
        let stage = Self {
            redis,
            gateways,
            haproxy,
            door,
            dir,
            _files: files,
        };
        until("HAProxy", async || {
            TcpStream::connect(stage.door.address).await.ok()
        })
        .await;
        stage
    }

    /// A node that has no part in what is asked.
    async fn sessions(&self, account: &str) -> Vec<Value> {
        self.gateways[0].sessions(account).await
    }

    /// What `HAProxy` thinks of the servers of a backend: its lines of state.
    fn balancer_log(&self) -> String {
        fs::read_to_string(self.dir.join("haproxy.log")).unwrap_or_default()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.haproxy.kill();
        let _ = self.haproxy.wait();
        if std::thread::panicking() {
            eprintln!("log of HAProxy:\n{}", self.balancer_log());
        }
        self.gateways.clear();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Starts the gateway of a directory.
fn serve(place: &std::path::Path) -> Child {
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(place.join("log"))
        .unwrap();
    usher_in(place)
        .args(["serve", "--config", "usher.toml"])
        .env("USHER_AUTH__HMAC_SECRET", SECRET)
        .env("USHER_LOG__LEVEL", "info")
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

impl Door {
    /// A watch socket from an address of this machine; how it failed otherwise.
    async fn open(&self, from: IpAddr, token: &str, query: &str) -> Result<Player, String> {
        let opening = async {
            let socket = TcpSocket::new_v4().map_err(|e| e.to_string())?;
            socket.bind(SocketAddr::new(from, 0)).map_err(|e| e.to_string())?;
            let stream = socket
                .connect(self.address)
                .await
                .map_err(|e| format!("TCP: {e}"))?;
            let name = ServerName::try_from("localhost").unwrap();
            let tls = TlsConnector::from(Arc::clone(&self.tls))
                .connect(name, stream)
                .await;
            let tls = tls.map_err(|e| format!("TLS: {e}"))?;
            let mut request = format!("wss://localhost/v1/watch?{query}")
                .into_client_request()
                .unwrap();
            let bearer = HeaderValue::try_from(format!("Bearer {token}")).unwrap();
            request.headers_mut().insert("authorization", bearer);
            let opened = client_async(request, tls).await;
            opened
                .map(|(socket, _)| Player { socket })
                .map_err(|e| format!("upgrade: {e}"))
        };
        let limit = tokio::time::timeout(Duration::from_secs(12), opening);
        limit.await.unwrap_or_else(|_| Err("nothing in time".to_owned()))
    }
}

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// What a player went through.
#[derive(Debug, Default)]
struct Seen {
    session: String,
    grants: u32,
    /// The longest time without a granted socket.
    longest_gap: Duration,
    /// Tries that came to nothing.
    failures: Vec<String>,
    /// What should not have been.
    wrong: Vec<String>,
}

/// A player as PROTOCOL.md asks for: it moves at a random moment after `draining`, comes back with `resume` after any
/// other close that allows it, and stops when the test is over.
async fn play(door: Arc<Door>, account: String, device: String, over: Arc<AtomicBool>) -> Seen {
    let token = token(&account);
    let mut seen = Seen::default();
    let mut resume: Option<String> = None;
    let mut old: Option<Player> = None;
    let mut without = Instant::now();
    loop {
        let mut query = format!("content=m&device={device}");
        if let Some(secret) = &resume {
            query += &format!("&resume={secret}");
        }
        let mut player = match door.open(HERE, &token, &query).await {
            Ok(player) => player,
            Err(problem) => {
                seen.failures.push(problem);
                assert!(seen.failures.len() < 60, "{account}/{device}: {seen:?}");
                tokio::time::sleep(Duration::from_millis(100 + u64::from(random_below(900)))).await;
                continue;
            }
        };
        let Ok(grant) = player.receive().await else {
            seen.failures.push("closed before the first frame".to_owned());
            continue;
        };
        if grant["type"] == "ended" {
            seen.failures.push(grant.to_string());
            tokio::time::sleep(Duration::from_millis(u64::from(random_below(500)))).await;
            continue;
        }
        // A session that moved before it closed was never without a socket.
        let gap = if old.is_some() {
            Duration::ZERO
        } else {
            without.elapsed()
        };
        if seen.grants > 0 {
            seen.longest_gap = seen.longest_gap.max(gap);
        }
        drop(old.take());
        let session = grant["session"].as_str().unwrap_or_default().to_owned();
        let resumed = (&grant["resumed"], &session) == (&json!(true), &seen.session);
        if grant["type"] != "granted" || grant["provisional"] == true || (seen.grants > 0 && !resumed) {
            seen.wrong.push(grant.to_string());
        }
        seen.grants += 1;
        seen.session = session;
        resume = grant["resume"].as_str().map(str::to_owned);
        let mut move_at = None;
        loop {
            if over.load(Ordering::Relaxed) {
                player.say(json!({"type": "stop"})).await;
                let (code, _) = player.closed().await;
                if code != 4000 {
                    seen.wrong.push(format!("stop: {code}"));
                }
                return seen;
            }
            if move_at.is_some_and(|at| Instant::now() >= at) {
                old = Some(player);
                break;
            }
            // Reading answers the node's pings.
            match tokio::time::timeout(Duration::from_millis(50), player.receive()).await {
                Ok(Ok(message)) if message["type"] == "draining" => {
                    let within = message["reconnect_within_ms"].as_u64().unwrap();
                    let pause = random_below(u32::try_from(within).unwrap());
                    move_at = Some(Instant::now() + Duration::from_millis(pause.into()));
                }
                Err(_) | Ok(Ok(_)) => {}
                Ok(Err(code)) => {
                    if !(code == 1006 || (4200..4300).contains(&code)) {
                        seen.wrong.push(format!("closed with {code}"));
                    }
                    without = Instant::now();
                    // The first try after a break comes within a second.
                    tokio::time::sleep(Duration::from_millis(u64::from(random_below(1_000)))).await;
                    break;
                }
            }
        }
    }
}

/// Players of many accounts, each account full.
struct Audience {
    accounts: usize,
    over: Arc<AtomicBool>,
    players: Vec<tokio::task::JoinHandle<Seen>>,
}

const LIMIT: usize = 3;

impl Audience {
    async fn seat(stage: &Stage, accounts: usize) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let mut players = Vec::new();
        for number in 0..accounts {
            for device in 0..LIMIT {
                let (door, over) = (Arc::clone(&stage.door), Arc::clone(&over));
                players.push(tokio::spawn(play(
                    door,
                    format!("a{number}"),
                    format!("d{device}"),
                    over,
                )));
            }
        }
        for number in 0..accounts {
            until("everybody plays", async || {
                (stage.sessions(&format!("a{number}")).await.len() == LIMIT).then_some(())
            })
            .await;
        }
        Self {
            accounts,
            over,
            players,
        }
    }

    /// Lets everybody stop, and tells what they saw.
    async fn leave(self) -> Vec<Seen> {
        self.over.store(true, Ordering::Relaxed);
        join_all(self.players)
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect()
    }
}

/// Every player's log: the same session all the time, granted again by resuming it.
fn check(seen: &[Seen], what: &str) -> u32 {
    for one in seen {
        assert!(one.wrong.is_empty(), "{what}: {one:?}");
    }
    let moved = seen.iter().map(|one| one.grants - 1).sum();
    let failures: usize = seen.iter().map(|one| one.failures.len()).sum();
    let mut gaps: Vec<Duration> = seen.iter().map(|one| one.longest_gap).collect();
    gaps.sort();
    eprintln!(
        "{what}: {} players, {moved} resumed, {failures} tries failed, without a socket at most {:?}, median {:?}",
        seen.len(),
        gaps.last().unwrap(),
        gaps[gaps.len() / 2],
    );
    moved
}

impl Node {
    async fn again(&mut self, limit: Duration) {
        self.exit_within(limit).await;
        let _ = fs::remove_file(self.dir.join("data/addresses.json"));
        self.child = serve(&self.dir);
        let tls = Arc::clone(&self.tls);
        self.wait_until_ready().await;
        self.tls = tls;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_behind_haproxy_moves_everybody_and_refuses_nobody() {
    let mut stage = Stage::set(3).await;
    let audience = Audience::seat(&stage, 15).await;
    let (door, over) = (Arc::clone(&stage.door), Arc::new(AtomicBool::new(false)));
    let started = Arc::new(AtomicU32::new(0));
    // Somebody new all the time, who must get in at the first try; and somebody too many, who must never.
    let newcomers = {
        let (door, over, started) = (Arc::clone(&door), Arc::clone(&over), Arc::clone(&started));
        tokio::spawn(async move {
            while !over.load(Ordering::Relaxed) {
                let number = started.fetch_add(1, Ordering::Relaxed);
                let opened = door
                    .open(HERE, &token(&format!("new{number}")), "content=m&device=d")
                    .await;
                let mut player = opened.unwrap_or_else(|problem| panic!("start {number}: {problem}"));
                let first = player.next().await;
                assert_eq!(first["type"], "granted", "start {number}: {first}");
                player.say(json!({"type": "stop"})).await;
                assert_eq!(player.closed().await.0, 4000);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
    };
    let surplus = {
        let (door, over) = (Arc::clone(&door), Arc::clone(&over));
        let accounts = u32::try_from(audience.accounts).unwrap();
        tokio::spawn(async move {
            let mut tried = 0;
            while !over.load(Ordering::Relaxed) {
                let account = format!("a{}", random_below(accounts));
                let opened = door
                    .open(HERE, &token(&account), "content=m&device=one-more")
                    .await;
                let mut player = opened.unwrap_or_else(|problem| panic!("refusal {tried}: {problem}"));
                let first = player.next().await;
                assert_eq!(
                    (&first["type"], &first["slots"]["used"]),
                    (&json!("denied"), &json!(LIMIT)),
                    "{first}"
                );
                tried += 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            tried
        })
    };
    for number in 0..stage.gateways.len() {
        let gateway = &mut stage.gateways[number];
        gateway.signal("-TERM");
        gateway.again(Duration::from_secs(30)).await;
        let state = format!("Server gateways/gateway{} is UP", number + 1);
        until("HAProxy has it back", async || {
            stage.balancer_log().contains(&state).then_some(())
        })
        .await;
        for account in 0..audience.accounts {
            let sessions = stage.sessions(&format!("a{account}")).await;
            assert_eq!(sessions.len(), LIMIT, "after restart {number}: {sessions:?}");
        }
    }
    over.store(true, Ordering::Relaxed);
    newcomers.await.unwrap();
    let refused = surplus.await.unwrap();
    let accounts = audience.accounts;
    let seen = audience.leave().await;
    let moved = check(&seen, "rolling restart");
    eprintln!(
        "{} starts granted, {refused} beyond the limit refused",
        started.load(Ordering::Relaxed)
    );
    // Each of the three restarts moved about a third of them, at least.
    assert!(usize::try_from(moved).unwrap() >= seen.len(), "{moved} moves");
    for account in 0..accounts {
        assert!(stage.sessions(&format!("a{account}")).await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_killed_behind_haproxy_loses_no_session() {
    let mut stage = Stage::set(2).await;
    // Who the player is comes through the balancer.
    let far = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));
    let mut player = stage
        .door
        .open(far, &token("far"), "content=m&device=d")
        .await
        .unwrap();
    player.next_of("granted").await;
    player.say(json!({"type": "stop"})).await;
    player.closed().await;
    until("the player's own address in the log", async || {
        let logs = stage.gateways.iter().map(Node::log);
        logs.into_iter()
            .any(|log| log.contains("\"account\":\"far\"") && log.contains("\"address\":\"127.0.0.9\""))
            .then_some(())
    })
    .await;

    let audience = Audience::seat(&stage, 15).await;
    let victim = stage.gateways.pop().unwrap();
    drop(victim);
    let seen_all = tokio::time::sleep(Duration::from_secs(16));
    // What the dead node held has been purged by now, had it not been resumed.
    seen_all.await;
    for account in 0..audience.accounts {
        let sessions = stage.sessions(&format!("a{account}")).await;
        assert_eq!(sessions.len(), LIMIT, "{sessions:?}");
    }
    let seen = audience.leave().await;
    let moved = check(&seen, "gateway killed");
    assert!(usize::try_from(moved).unwrap() >= seen.len() / 3, "{moved} moves");
}

/// Redis away from every node: none is ready, and the balancer still lets players in, provisionally.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_haproxy_still_has_a_gateway() {
    let stage = Stage::set(2).await;
    stage.redis.stop();
    until("HAProxy sees no node ready", async || {
        let log = stage.balancer_log();
        log.contains("backend gateways has no server available")
            .then_some(())
    })
    .await;
    let streams = sign(&json!({"sub": "ann", "exp": now() + 600, "streams": 1}));
    let mut player = stage
        .door
        .open(HERE, &streams, "content=m&device=d")
        .await
        .unwrap();
    let grant = player.next().await;
    assert_eq!(
        (&grant["type"], &grant["provisional"]),
        (&json!("granted"), &json!(true)),
        "{grant}"
    );
    stage.redis.cont();
    let ready = "Server gateways/gateway1 is UP";
    until("HAProxy has them back", async || {
        stage.balancer_log().contains(ready).then_some(())
    })
    .await;
    player.say(json!({"type": "stop"})).await;
    assert_eq!(player.closed().await.0, 4000);
}
