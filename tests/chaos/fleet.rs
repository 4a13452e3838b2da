//! Gateways as processes, one Redis behind them, and a swarm in front.
//!
//! Owns: starting, killing, stalling, draining, restarting; each node reaches Redis through a cutter of its own.
//! Called by: the scenarios.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rustix::process::{Pid, Signal, kill_process};
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::checker::{Report, Rules, check};
use crate::cutter::Cutter;
use crate::harness::{self, SECRET, USHER, exchange, usher_at, usher_in};
use crate::log::{Session, What};
use crate::servers::Redis;
use crate::swarm::{Door, Swarm, account_name};

/// How long a node may take to become ready: an empty Redis costs a recovery of 5 s first.
const READY: Duration = Duration::from_secs(40);

pub(crate) struct Fleet {
    name: &'static str,
    dir: PathBuf,
    pub(crate) nodes: Vec<Gateway>,
    /// The way of each node to Redis.
    pub(crate) cutters: Vec<Cutter>,
    pub(crate) redis: Option<Redis>,
    pub(crate) swarm: Arc<Swarm>,
    _place: SemaphorePermit<'static>,
}

/// What the nodes of a fleet share.
enum Shared {
    Nothing,
    /// A Redis of the fleet's own, each node behind a cutter.
    Own(Redis),
    /// Redis at this address.
    At(String),
}

pub(crate) struct Gateway {
    number: u32,
    child: Option<Child>,
    /// Which version it starts as.
    pub(crate) program: PathBuf,
    dir: PathBuf,
    /// Where it finds Redis.
    redis: Option<String>,
    pub(crate) players: SocketAddr,
    pub(crate) admin: SocketAddr,
    tls: Arc<ClientConfig>,
}

impl Fleet {
    /// Nodes that share nothing.
    pub(crate) async fn alone(name: &'static str, nodes: usize) -> Self {
        Self::launch(name, nodes, Shared::Nothing, "", Path::new(USHER)).await
    }

    /// Nodes that share an empty Redis.
    pub(crate) async fn sharing(name: &'static str, nodes: usize) -> Self {
        Self::with(name, nodes, "").await
    }

    /// The same with settings beside the suite's own.
    pub(crate) async fn with(name: &'static str, nodes: usize, toml: &str) -> Self {
        let redis = Shared::Own(Redis::start());
        Self::launch(name, nodes, redis, toml, Path::new(USHER)).await
    }

    /// Nodes of another version that share an empty Redis.
    pub(crate) async fn of_version(name: &'static str, nodes: usize, program: &Path) -> Self {
        Self::launch(name, nodes, Shared::Own(Redis::start()), "", program).await
    }

    /// Nodes that share what is at this address.
    pub(crate) async fn at(name: &'static str, nodes: usize, url: String) -> Self {
        Self::launch(name, nodes, Shared::At(url), "", Path::new(USHER)).await
    }

    async fn launch(name: &'static str, count: usize, shared: Shared, toml: &str, program: &Path) -> Self {
        // More at once would measure how they slow each other down.
        static FLEETS: Semaphore = Semaphore::const_new(4);
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let place = FLEETS.acquire().await.unwrap();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("usher-chaos-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let certs = usher_in(&dir).arg("certs").output().unwrap();
        assert!(certs.status.success(), "usher certs: {certs:?}");
        let printed = String::from_utf8(certs.stdout).unwrap();
        let mut paths = printed.lines().map(|line| dir.join(line));
        let (cert, key) = (paths.next().unwrap(), paths.next().unwrap());
        let (mut cutters, mut nodes) = (Vec::new(), Vec::new());
        for number in 0..count {
            let redis = match &shared {
                Shared::Nothing => None,
                Shared::Own(redis) => {
                    cutters.push(Cutter::to(redis.port));
                    cutters
                        .last()
                        .map(|cutter| format!("redis://127.0.0.1:{}", cutter.port))
                }
                Shared::At(url) => Some(url.clone()),
            };
            let node = dir.join(format!("node-{number}"));
            fs::create_dir_all(&node).unwrap();
            let tls = format!("[tls]\ncert = {cert:?}\nkey = {key:?}\n[log]\naccess = false\n{toml}");
            fs::write(node.join("usher.toml"), tls).unwrap();
            nodes.push(Gateway {
                number: u32::try_from(number).unwrap(),
                child: None,
                program: program.to_owned(),
                dir: node,
                redis,
                players: ([127, 0, 0, 1], 0).into(),
                admin: ([127, 0, 0, 1], 0).into(),
                tls: trust(&cert.with_file_name("ca.pem")),
            });
        }
        join_all(nodes.iter_mut().map(Gateway::start)).await;
        let swarm = Swarm::new();
        for node in &nodes {
            swarm.log.node(node.number, What::NodeReady);
        }
        Self {
            name,
            dir,
            nodes,
            cutters,
            redis: match shared {
                Shared::Own(redis) => Some(redis),
                Shared::Nothing | Shared::At(_) => None,
            },
            swarm,
            _place: place,
        }
    }

    pub(crate) fn redis(&mut self) -> &mut Redis {
        self.redis.as_mut().expect("a fleet with Redis")
    }

    pub(crate) fn door(&self, node: usize) -> Door {
        self.nodes[node].door()
    }

    pub(crate) fn doors(&self) -> Vec<Door> {
        self.nodes.iter().map(Gateway::door).collect()
    }

    pub(crate) fn kill(&mut self, node: usize) -> Duration {
        let at = self.swarm.log.node(self.nodes[node].number, What::NodeKilled);
        self.nodes[node].kill();
        at
    }

    pub(crate) fn stall(&self, node: usize) -> Duration {
        let at = self.swarm.log.node(self.nodes[node].number, What::NodeStalled);
        self.nodes[node].signal(Signal::STOP);
        at
    }

    pub(crate) fn wake(&self, node: usize) -> Duration {
        let at = self.swarm.log.node(self.nodes[node].number, What::NodeWoken);
        self.nodes[node].signal(Signal::CONT);
        at
    }

    /// Tells the node to leave; [`Gateway::left`] waits for it.
    pub(crate) fn drain(&self, node: usize) {
        self.swarm.log.node(self.nodes[node].number, What::NodeLeaving);
        self.nodes[node].signal(Signal::TERM);
    }

    /// Starts a node again that was killed or has left, under its ports.
    pub(crate) async fn restart(&mut self, node: usize) {
        self.nodes[node].start().await;
        self.swarm.log.node(self.nodes[node].number, What::NodeReady);
    }

    /// Judges the log; on violations saves it, says what it found and panics.
    pub(crate) fn verdict(&self, rules: &Rules) -> Report {
        let report = check(&self.swarm.log.entries(), rules);
        if !report.violations.is_empty() {
            let first: Vec<String> = report
                .violations
                .iter()
                .take(10)
                .map(ToString::to_string)
                .collect();
            panic!(
                "{}: {} violations:\n{}",
                self.name,
                report.violations.len(),
                first.join("\n")
            );
        }
        report
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        if failed {
            let seed = crate::dice::seed();
            eprintln!(
                "{}: seed {seed}, the players' log: {}",
                self.name,
                self.swarm.log.save(self.name).display()
            );
        }
        for node in &mut self.nodes {
            if failed {
                eprintln!(
                    "{}: log of node {}: {}",
                    self.name,
                    node.number,
                    node.dir.join("log").display()
                );
            }
            node.kill();
        }
        if !failed {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

impl Gateway {
    async fn start(&mut self) {
        let addresses = self.dir.join("data/addresses.json");
        let _ = fs::remove_file(&addresses);
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.join("log"))
            .unwrap();
        let (players, admin) = (self.players.to_string(), self.admin.to_string());
        let mut command: Command = usher_at(&self.program, &self.dir);
        command.args([
            "serve",
            "--config",
            "usher.toml",
            "--listen",
            &players,
            "--admin-listen",
            &admin,
        ]);
        if let Some(url) = &self.redis {
            command.args(["--redis", url]);
        }
        // One account starts far more often here than a household does; an earlier version knows no such limit.
        if self.program == Path::new(USHER) {
            command
                .env("USHER_LIMITS__STARTS_PER_SECOND", "0")
                .env("USHER_LIMITS__REQUESTS_PER_SECOND_PER_TOKEN", "0");
        }
        let child = command
            .env("USHER_AUTH__HMAC_SECRET", SECRET)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let start = Instant::now();
        let found = loop {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                panic!("the gateway ended with {status}: {}", self.log());
            }
            let text = fs::read(&addresses).ok();
            if let Some(found) = text.and_then(|text| serde_json::from_slice::<Value>(&text).ok()) {
                break found;
            }
            assert!(
                start.elapsed() < READY,
                "the gateway does not get ready: {}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        self.players = found["players"].as_str().unwrap().parse().unwrap();
        self.admin = found["admin"].as_str().unwrap().parse().unwrap();
        while !self.is_ready().await {
            assert!(
                start.elapsed() < READY,
                "the gateway does not get ready: {}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn is_ready(&self) -> bool {
        self.get("/readyz").await.is_some_and(|(status, _)| status == 200)
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("a running gateway");
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    /// Waits until the process has ended by itself.
    pub(crate) async fn left(&mut self, within: Duration) {
        let start = Instant::now();
        let child = self.child.as_mut().expect("a running gateway");
        while child.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < within, "the gateway does not leave");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.child = None;
    }

    pub(crate) fn door(&self) -> Door {
        Door {
            node: self.number,
            address: self.players,
            tls: Arc::clone(&self.tls),
        }
    }

    /// One request to the admin listener as an operator; `None`: no answer.
    pub(crate) async fn get(&self, path: &str) -> Option<(u16, String)> {
        self.request("GET", path).await
    }

    pub(crate) async fn request(&self, method: &str, path: &str) -> Option<(u16, String)> {
        let stream = TcpStream::connect(self.admin).await.ok()?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Length: 0\r\n\
             Connection: close\r\n\r\n",
            self.admin,
            operator()
        );
        let (status, _, body) = exchange(stream, head.as_bytes()).await;
        Some((status.as_u16(), body))
    }

    /// The account's sessions as this node lists them to an operator; `None`: it cannot tell.
    pub(crate) async fn sessions(&self, account: u32) -> Option<Vec<Session>> {
        let path = format!("/v1/admin/accounts/{}/sessions", account_name(account));
        let (status, body) = self.get(&path).await?;
        if status != 200 {
            return None;
        }
        let list: Value = serde_json::from_str(&body).unwrap();
        let items = list["items"].as_array().unwrap().iter();
        Some(
            items
                .map(|item| Session::parse(item["session"].as_str().unwrap()).unwrap())
                .collect(),
        )
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

/// An operator's token, signed once.
fn operator() -> &'static str {
    static TOKEN: OnceLock<String> = OnceLock::new();
    TOKEN.get_or_init(|| {
        harness::sign(&json!({"sub": "op", "exp": harness::now() + 6 * 3_600, "scope": "operator"}))
    })
}

/// Trusts this CA, with a memory of its own for TLS resumption: tickets of one node are no good at another.
fn trust(ca: &Path) -> Arc<ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    // One machine plays all players: the cheapest exchange that the gateway takes.
    provider.kx_groups = vec![rustls::crypto::aws_lc_rs::kx_group::X25519];
    let builder = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}
