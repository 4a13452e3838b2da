//! The servers that are compared, as processes of this machine.
//!
//! Owns: starting, weighing and ending each of them, a Redis for those that need one, and their certificates.
//! Does not: load them. Called by: [`super::rows`]. Over 400 lines: each server is started in its own way.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::gauge::{Source, get};
use crate::stage::Against;
use crate::target::{Dialect, Target, Tokens, Trust, WatchUrl};

use super::certificate::{Key, certify};

/// Everything is ready by then; a peer may have to install its packages first.
const READY: Duration = Duration::from_secs(300);

/// A process that was asked to end has ended by then, or is killed.
const END: Duration = Duration::from_secs(10);

/// Sessions for which one source address is enough.
const SESSIONS_OF_SOURCE: u32 = 20_000;

/// Of the tokens; of this run only, and no secret beyond it.
const SECRET: &str = "loadtest-compare-secret-of-32-bytes-and-more";

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The gateway, with Redis
    Gateway,
    /// Bare TLS and WebSocket
    Floor,
    /// Node.js with ws and redis-semaphore: the gateway's job
    NodeWs,
    /// Bun: holds sockets
    Bun,
    /// nginx with nchan: holds sockets
    Nchan,
    /// nats-server: holds sockets
    Nats,
}

impl Kind {
    pub(crate) const ALL: [Self; 6] = [
        Self::Gateway,
        Self::Floor,
        Self::NodeWs,
        Self::Bun,
        Self::Nchan,
        Self::Nats,
    ];

    /// What the tables call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Floor => "floor",
            Self::NodeWs => "Node ws + redis-semaphore",
            Self::Bun => "Bun",
            Self::Nchan => "nginx + nchan",
            Self::Nats => "nats-server",
        }
    }

    fn script(self) -> Option<&'static str> {
        match self {
            Self::Gateway | Self::Floor => None,
            Self::NodeWs => Some("node-ws"),
            Self::Bun => Some("bun"),
            Self::Nchan => Some("nchan"),
            Self::Nats => Some("nats"),
        }
    }

    fn dialect(self) -> Dialect {
        match self {
            Self::Gateway | Self::NodeWs => Dialect::Usher,
            Self::Floor | Self::Bun | Self::Nchan => Dialect::Plain,
            Self::Nats => Dialect::Nats,
        }
    }
}

/// Where everything is started.
pub(crate) struct Yard {
    pub(crate) usher: PathBuf,
    peers: PathBuf,
    dir: PathBuf,
    redis: Child,
    redis_port: u16,
    /// What each peer said of its version.
    pub(crate) versions: Mutex<Vec<(Kind, String)>>,
}

/// A server that runs. Killed when dropped.
pub(crate) struct Served {
    child: Child,
    pub(crate) pid: u32,
    url: WatchUrl,
}

#[derive(Deserialize)]
struct Told {
    url: Option<String>,
    players: Option<String>,
    version: Option<String>,
    pid: u32,
}

impl Yard {
    /// Makes the certificates and starts Redis.
    pub(crate) async fn new(usher: Option<&Path>, peers: &Path) -> Result<Self, String> {
        let own = std::env::current_exe().map_err(|error| format!("this program: {error}"))?;
        let usher = usher.map_or_else(|| own.with_file_name("usher"), Path::to_owned);
        if !usher.is_file() {
            let text = "is missing: build it with cargo build --release --workspace, or name it with --usher";
            return Err(format!("{}: {text}", usher.display()));
        }
        let peers = peers
            .canonicalize()
            .map_err(|error| format!("--peers {}: {error}", peers.display()))?;
        let dir = std::env::temp_dir().join(format!("usher-compare-{}", std::process::id()));
        fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        for key in [Key::P256, Key::Rsa2048] {
            certify(&dir, key)?;
        }
        let redis_port = free_port()?;
        let redis = Command::new("redis-server")
            .args([
                "--port",
                &redis_port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
            ])
            .current_dir(&dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        let redis = redis.map_err(|error| format!("redis-server: {error}"))?;
        wait_for_port(redis_port).await?;
        Ok(Self {
            usher,
            peers,
            dir,
            redis,
            redis_port,
            versions: Mutex::default(),
        })
    }

    /// Knows the versions of peers that an earlier run started.
    pub(crate) fn remember(&self, known: Vec<(Kind, String)>) {
        if let Ok(mut versions) = self.versions.lock() {
            *versions = known;
        }
    }

    /// Where Redis is weighed: its process, and its round trips.
    pub(crate) fn redis_source(&self) -> Source {
        Source::Redis(format!("127.0.0.1:{}", self.redis_port))
    }

    /// Starts a server.
    pub(crate) async fn start(&self, kind: Kind, key: Key) -> Result<Served, String> {
        let served = match kind {
            Kind::Gateway => self.gateway(key).await,
            Kind::Floor => self.floor(key).await,
            _ => self.peer(kind, key).await,
        };
        served.map_err(|error| format!("{}: {error}", kind.name()))
    }

    async fn gateway(&self, key: Key) -> Result<Served, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let dir = self
            .dir
            .join(format!("node-{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
        let (cert, key) = key.files(&self.dir);
        // One socket beats faster than a player may, one account starts more often, and a line for each request is not
        // what is measured.
        let settings = format!(
            "[tls]\ncert = {cert:?}\nkey = {key:?}\n[log]\naccess = false\n[limits]\nmessages_per_second = 0\nstarts_per_second = 0\n\
             requests_per_second_per_token = 0\n"
        );
        let made = fs::create_dir_all(&dir).and_then(|()| fs::write(dir.join("usher.toml"), settings));
        made.map_err(|error| format!("{}: {error}", dir.display()))?;
        let log = fs::File::create(dir.join("log")).map_err(|error| error.to_string())?;
        let mut command = Command::new(&self.usher);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("USHER_") {
                command.env_remove(name);
            }
        }
        let redis = format!("redis://127.0.0.1:{}", self.redis_port);
        command
            .args([
                "serve",
                "--config",
                "usher.toml",
                "--listen",
                "127.0.0.1:0",
                "--admin-listen",
                "127.0.0.1:0",
            ])
            .args(["--redis", &redis])
            .env("USHER_AUTH__HMAC_SECRET", SECRET)
            .current_dir(&dir)
            .stdout(log.try_clone().map_err(|error| error.to_string())?)
            .stderr(log);
        let child = spawn(&mut command)?;
        let end = Instant::now() + READY;
        let addresses = dir.join("data/addresses.json");
        loop {
            let text = fs::read(&addresses).ok();
            let found = text.and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
            if let Some(found) = found {
                let text = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
                if get(&text("admin"), "/readyz").await.is_some() {
                    return Served::new(child, &format!("wss://{}", text("players")), None);
                }
            }
            if Instant::now() > end {
                let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
                return Err(format!("does not get ready: {log}"));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn floor(&self, key: Key) -> Result<Served, String> {
        let (cert, key) = key.files(&self.dir);
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(own);
        command
            .args([
                "floor",
                "--listen",
                "127.0.0.1:0",
                "--admin-listen",
                "127.0.0.1:0",
                "--cert",
            ])
            .arg(cert)
            .arg("--key")
            .arg(key)
            .stdout(Stdio::piped());
        let mut child = spawn(&mut command)?;
        let told = told(&mut child).await?;
        let url = format!("wss://{}/", told.players.unwrap_or_default());
        Served::new(child, &url, Some(told.pid))
    }

    async fn peer(&self, kind: Kind, key: Key) -> Result<Served, String> {
        let (cert, key) = key.files(&self.dir);
        let mut command = Command::new(self.peers.join(kind.script().unwrap_or_default()).join("start"));
        command
            .env("PEER_CERT", cert)
            .env("PEER_KEY", key)
            .env("PEER_SECRET", SECRET)
            .env("PEER_REDIS", format!("redis://127.0.0.1:{}", self.redis_port))
            .current_dir(&self.dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = spawn(&mut command)?;
        let told = told(&mut child).await?;
        if let (Ok(mut versions), Some(version)) = (self.versions.lock(), told.version)
            && !versions.iter().any(|(known, _)| *known == kind)
        {
            versions.push((kind, version));
        }
        let served = Served::new(child, &told.url.unwrap_or_default(), Some(told.pid))?;
        wait_for_port(served.url.port).await?;
        Ok(served)
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        let _ = self.redis.start_kill();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Served {
    fn new(child: Child, url: &str, pid: Option<u32>) -> Result<Self, String> {
        let pid = pid.or_else(|| child.id()).ok_or("ended at once")?;
        let url = url.parse().map_err(|error| format!("{url}: {error}"))?;
        Ok(Self { child, pid, url })
    }

    /// Ends it and waits until its memory and ports are free.
    pub(crate) async fn end(mut self) {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        }
        if timeout(END, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

/// The servers under load, called as one.
pub(crate) async fn against(
    kind: Kind,
    served: &[&Served],
    sessions: u32,
    redis: Option<Source>,
) -> Result<Against, String> {
    let mut nodes = Vec::new();
    for served in served {
        nodes.extend(served.url.resolve(kind.dialect()).await?);
    }
    let tokens = match kind.dialect() {
        Dialect::Usher => Tokens::Signed {
            secret: SECRET.to_owned(),
            tenant: None,
            streams: None,
            life_s: 24 * 3_600,
        },
        Dialect::Plain | Dialect::Nats => Tokens::None,
    };
    let target = Target {
        nodes,
        dialect: kind.dialect(),
        // The players' verification is no cost of the server's.
        trust: Trust {
            ca: None,
            insecure: true,
        },
        tokens,
        sources: if sessions > SESSIONS_OF_SOURCE {
            sessions.div_ceil(SESSIONS_OF_SOURCE / 2)
        } else {
            0
        },
        resumption: false,
        timeout_ms: 20_000,
    };
    let sources = served
        .iter()
        .map(|served| Source::Process(served.pid))
        .chain(redis);
    Ok(Against {
        label: kind.name().to_owned(),
        target,
        sources: sources.collect(),
        workers: 0,
    })
}

fn spawn(command: &mut Command) -> Result<Child, String> {
    let spawned = command.stdin(Stdio::null()).kill_on_drop(true).spawn();
    spawned.map_err(|error| format!("cannot be started: {error}"))
}

async fn told(child: &mut Child) -> Result<Told, String> {
    let stdout = child.stdout.take().ok_or("has no stdout")?;
    let mut lines = BufReader::new(stdout).lines();
    let line = timeout(READY, lines.next_line())
        .await
        .map_err(|_| "does not get ready")?;
    let line = line.ok().flatten().ok_or("ended at once")?;
    serde_json::from_str(&line).map_err(|error| format!("said {line:?}: {error}"))
}

fn free_port() -> Result<u16, String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    listener
        .local_addr()
        .map(|address| address.port())
        .map_err(|error| error.to_string())
}

async fn wait_for_port(port: u16) -> Result<(), String> {
    let end = Instant::now() + READY;
    while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        if Instant::now() > end {
            return Err(format!("nobody listens on port {port}"));
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
