//! Real Redis servers for tests: one, with TLS, a Sentinel set, a cluster. Each in a directory of its own, on free ports
//! of 127.0.0.1, killed when dropped.
//!
//! The program is `redis-server`, or what the variable `USHER_TEST_REDIS` names (`tests/newest-redis` finds another).

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use redis::{AsyncConnectionConfig, Value};

/// How long a server, a failover or a new subscription may take on a busy machine.
pub(crate) const SERVERS: Duration = Duration::from_secs(60);

/// One server process.
pub(crate) struct Redis {
    pub(crate) port: u16,
    pub(crate) dir: PathBuf,
    /// Password of the user `default`, for [`Redis::ask`].
    pub(crate) password: Option<String>,
    arguments: Vec<String>,
    /// Port of the cluster bus.
    bus: String,
    child: Option<Child>,
}

impl Redis {
    /// Starts a server with these arguments beside its own, such as `&["--requirepass", "x"]`, and waits until it answers.
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        let port = free_port();
        let mut server = Self::prepare(port);
        let own = [
            ("--port", port.to_string()),
            ("--bind", "127.0.0.1".to_owned()),
            ("--dir", server.dir.display().to_string()),
            ("--save", String::new()),
            ("--repl-diskless-sync-delay", "0".to_owned()),
        ];
        let own = own.into_iter().flat_map(|(key, value)| [key.to_owned(), value]);
        server.arguments = own
            .chain(arguments.iter().map(|text| (*text).to_owned()))
            .collect();
        let password = arguments.windows(2).find(|pair| pair[0] == "--requirepass");
        server.password = password.map(|pair| pair[1].to_owned());
        server.restart().await;
        server
    }

    /// Starts a server that speaks TLS on [`TlsRedis::tls_port`] and plain TCP on `port`, for [`Redis::ask`].
    pub(crate) async fn start_tls(arguments: &[&str]) -> TlsRedis {
        let tls_port = free_port();
        let files = TlsFiles::make();
        let text = |path: PathBuf| path.display().to_string();
        let own = [
            ("--tls-port", tls_port.to_string()),
            ("--tls-cert-file", text(files.file("server.pem"))),
            ("--tls-key-file", text(files.file("server.key"))),
            ("--tls-ca-cert-file", text(files.file("ca.pem"))),
            ("--tls-auth-clients", "no".to_owned()),
        ];
        let own = own.iter().flat_map(|(key, value)| [*key, value.as_str()]);
        let all: Vec<&str> = own.chain(arguments.iter().copied()).collect();
        let server = Self::start(&all).await;
        TlsRedis {
            server,
            tls_port,
            files,
        }
    }

    /// Starts a sentinel with these lines of configuration beside its own.
    pub(crate) async fn start_sentinel(lines: &str) -> Self {
        let mut sentinel = Self::prepare(free_port());
        let (file, port, dir) = (
            sentinel.dir.join("sentinel.conf"),
            sentinel.port,
            sentinel.dir.display(),
        );
        let text = format!("port {port}\nbind 127.0.0.1\ndir {dir}\n{lines}");
        fs::write(&file, text).unwrap();
        let password = lines.lines().find_map(|line| line.strip_prefix("requirepass "));
        sentinel.password = password.map(str::to_owned);
        sentinel.arguments = vec![file.display().to_string(), "--sentinel".to_owned()];
        sentinel.restart().await;
        sentinel
    }

    fn prepare(port: u16) -> Self {
        Self {
            port,
            dir: directory("redis"),
            password: None,
            arguments: Vec::new(),
            bus: String::new(),
            child: None,
        }
    }

    /// `redis://127.0.0.1:<port>`
    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.place())
    }

    /// `127.0.0.1:<port>`
    pub(crate) fn place(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Asks a command on a connection of its own; panics when it fails.
    pub(crate) async fn ask(&self, words: &[&str]) -> Value {
        match self.try_ask(words).await {
            Ok(value) => value,
            Err(problem) => panic!("{words:?} at {}: {problem}\n{}", self.port, self.log()),
        }
    }

    /// Asks a command on a connection of its own; answers after at most a second or so.
    pub(crate) async fn try_ask(&self, words: &[&str]) -> Result<Value, String> {
        let user = self.password.as_ref().map(|password| format!(":{password}@"));
        let url = format!("redis://{}{}", user.unwrap_or_default(), self.place());
        let client = redis::Client::open(url).map_err(|e| e.to_string())?;
        let limit = Some(Duration::from_secs(2));
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(limit)
            .set_response_timeout(limit);
        let connection = client.get_multiplexed_async_connection_with_config(&config).await;
        let mut connection = connection.map_err(|e| e.to_string())?;
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        let answer = command.query_async::<Value>(&mut connection).await;
        answer.map_err(|e| e.to_string())
    }

    /// The answer as one text.
    pub(crate) async fn text(&self, words: &[&str]) -> String {
        redis::from_redis_value(self.ask(words).await).unwrap()
    }

    /// Ends the process without notice (SIGKILL) and waits for its end.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Whether the process was started and not killed.
    pub(crate) fn running(&self) -> bool {
        self.child.is_some()
    }

    /// Lets the process stand still (SIGSTOP): its connections stay open and nothing answers.
    pub(crate) fn stop(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on (SIGCONT).
    pub(crate) fn cont(&self) {
        self.signal("-CONT");
    }

    /// Starts the process again on its port, with its arguments and files, and waits until it answers. A running one is
    /// killed first.
    pub(crate) async fn restart(&mut self) {
        self.launch();
        let ready = || async { self.try_ask(&["PING"]).await.ok() };
        until(&format!("answer of the server at {}", self.port), ready).await;
    }

    fn launch(&mut self) {
        self.kill();
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.join("log"))
            .unwrap();
        let program = std::env::var("USHER_TEST_REDIS").unwrap_or_else(|_| "redis-server".to_owned());
        let child = Command::new(&program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|e| panic!("{program}: {e}"));
        self.child = Some(child);
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().expect("the server runs").id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().rev().take(15).collect();
            eprintln!("last lines of the server at {}:", self.port);
            lines.iter().rev().for_each(|line| eprintln!("  {line}"));
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A server with TLS.
pub(crate) struct TlsRedis {
    pub(crate) server: Redis,
    pub(crate) tls_port: u16,
    pub(crate) files: TlsFiles,
}

impl TlsRedis {
    /// `rediss://localhost:<port>`; its certificate is good for `localhost` and 127.0.0.1.
    pub(crate) fn url(&self) -> String {
        format!("rediss://localhost:{}", self.tls_port)
    }
}

/// A CA, a certificate of a server (`server.pem`, `server.key`) and one of a client (`client.pem`, `client.key`) by it, and
/// another CA (`other.pem`).
pub(crate) struct TlsFiles {
    dir: PathBuf,
}

impl TlsFiles {
    pub(crate) fn make() -> Self {
        use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
        let dir = directory("tls");
        let write = |name: &str, text: String| fs::write(dir.join(name), text).unwrap();
        let authority = |name: &str| {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, name);
            let key = KeyPair::generate().unwrap();
            (params.self_signed(&key).unwrap().pem(), Issuer::new(params, key))
        };
        let (pem, issuer) = authority("usher test");
        write("ca.pem", pem);
        write("other.pem", authority("another").0);
        for name in ["server", "client"] {
            let params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
            let key = KeyPair::generate().unwrap();
            write(&format!("{name}.key"), key.serialize_pem());
            write(
                &format!("{name}.pem"),
                params.signed_by(&key, &issuer).unwrap().pem(),
            );
        }
        Self { dir }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

impl Drop for TlsFiles {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// One primary, two replicas and three sentinels that watch them under the name `main`.
pub(crate) struct Sentinels {
    /// The first began as the primary.
    pub(crate) servers: Vec<Redis>,
    pub(crate) sentinels: Vec<Redis>,
}

impl Sentinels {
    /// Starts them and waits until every sentinel knows everybody. A primary that is silent for `down_after` is replaced.
    pub(crate) async fn start(down_after: Duration) -> Self {
        let mut servers = vec![Redis::start(&["--repl-backlog-ttl", "0"]).await];
        let primary = servers[0].port.to_string();
        for _ in 0..2 {
            servers.push(Redis::start(&["--replicaof", "127.0.0.1", &primary]).await);
        }
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            let lines = format!(
                "sentinel monitor main 127.0.0.1 {primary} 2\nsentinel failover-timeout main 5000\n\
                 sentinel down-after-milliseconds main {}\n",
                down_after.as_millis()
            );
            sentinels.push(Redis::start_sentinel(&lines).await);
        }
        let all = Self { servers, sentinels };
        until("sentinels that know each other", || async {
            for sentinel in &all.sentinels {
                let info = sentinel.text(&["INFO", "sentinel"]).await;
                if !info.contains("slaves=2,sentinels=3") || !info.contains("status=ok") {
                    return None;
                }
            }
            Some(())
        })
        .await;
        all
    }

    /// `redis+sentinel://..`
    pub(crate) fn url(&self) -> String {
        let places: Vec<_> = self.sentinels.iter().map(Redis::place).collect();
        format!("redis+sentinel://{}/main", places.join(","))
    }

    /// Index among `servers` of the primary, as most sentinels name it.
    pub(crate) async fn primary(&self) -> usize {
        until("primary", || async {
            let mut named = Vec::new();
            for sentinel in &self.sentinels {
                let question = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"];
                let answer = sentinel.try_ask(&question).await.ok()?;
                let (_, port): (String, u16) = redis::from_redis_value(answer).ok()?;
                named.push(port);
            }
            named.sort_unstable();
            self.servers.iter().position(|server| server.port == named[1])
        })
        .await
    }

    /// Waits until another server than this is the primary, and answers its index.
    pub(crate) async fn primary_other_than(&self, old: usize) -> usize {
        until("another primary", || async {
            let new = self.primary().await;
            (new != old).then_some(new)
        })
        .await
    }
}

/// A cluster of three primaries and three replicas.
pub(crate) struct Cluster {
    /// The first three began as primaries of a third of the slots each; the server at `i + 3` as the replica of that at `i`.
    pub(crate) servers: Vec<Redis>,
}

impl Cluster {
    /// Starts it and waits until every server calls it healthy. A primary that is silent for `node_timeout` is replaced.
    pub(crate) async fn start(node_timeout: Duration) -> Self {
        let mut servers = Vec::new();
        for _ in 0..6 {
            let (bus, timeout) = (free_port().to_string(), node_timeout.as_millis().to_string());
            let arguments = [
                ("--cluster-enabled", "yes"),
                ("--cluster-port", &bus),
                ("--cluster-node-timeout", &timeout),
                ("--cluster-replica-validity-factor", "0"),
            ];
            let arguments: Vec<_> = arguments.iter().flat_map(|(key, value)| [*key, *value]).collect();
            let mut server = Redis::start(&arguments).await;
            server.bus = bus;
            servers.push(server);
        }
        let all = Self { servers };
        let thirds = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];
        for (index, (from, to)) in thirds.iter().enumerate() {
            let epoch = (index + 1).to_string();
            all.servers[index]
                .ask(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch])
                .await;
            all.servers[index]
                .ask(&["CLUSTER", "ADDSLOTSRANGE", from, to])
                .await;
        }
        for server in &all.servers[1..] {
            let port = server.port.to_string();
            all.servers[0]
                .ask(&["CLUSTER", "MEET", "127.0.0.1", &port, &server.bus])
                .await;
        }
        all.each("acquaintance", |info| info.contains("cluster_known_nodes:6"))
            .await;
        for index in 0..3 {
            let id = all.id(index).await;
            let replica = &all.servers[index + 3];
            until("replica", || async {
                replica.try_ask(&["CLUSTER", "REPLICATE", &id]).await.ok()
            })
            .await;
        }
        all.each("health", |info| info.contains("cluster_state:ok")).await;
        for replica in &all.servers[3..] {
            until("replication", || async {
                let info = replica.text(&["INFO", "replication"]).await;
                info.contains("master_link_status:up").then_some(())
            })
            .await;
        }
        all
    }

    /// `redis+cluster://` with two of the servers.
    pub(crate) fn url(&self) -> String {
        format!(
            "redis+cluster://{},{}",
            self.servers[0].place(),
            self.servers[4].place()
        )
    }

    /// Index of the server that owns the slot of a key: the one that takes a write to it.
    pub(crate) async fn owner(&self, key: &str) -> usize {
        let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
        let tagged = format!("{{{}}}no-such-set", tag.map_or(key, |(tag, _)| tag));
        until("owner of the slot", || async {
            for (index, server) in self.servers.iter().enumerate() {
                if server.running() && server.try_ask(&["SREM", &tagged, "x"]).await.is_ok() {
                    return Some(index);
                }
            }
            None
        })
        .await
    }

    /// Moves the slot of a key, with its keys, to another primary, as `redis-cli --cluster reshard` does.
    pub(crate) async fn move_slot(&self, key: &str, to: usize) {
        let begun = self.begin_move(key, to).await;
        begun.finish(self).await;
    }

    /// Begins to move the slot of a key: its keys stay until [`Move::finish`].
    pub(crate) async fn begin_move(&self, key: &str, to: usize) -> Move {
        let slot: u16 =
            redis::from_redis_value(self.servers[to].ask(&["CLUSTER", "KEYSLOT", key]).await).unwrap();
        let slot = slot.to_string();
        let from = self.owner(key).await;
        let (source, target) = (self.id(from).await, self.id(to).await);
        self.servers[to]
            .ask(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source])
            .await;
        self.servers[from]
            .ask(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target])
            .await;
        Move {
            slot,
            from,
            to,
            target,
        }
    }

    async fn id(&self, index: usize) -> String {
        self.servers[index].text(&["CLUSTER", "MYID"]).await
    }

    async fn each(&self, what: &str, holds: impl Fn(&str) -> bool) {
        for server in &self.servers {
            until(what, || async {
                let info = server.text(&["CLUSTER", "INFO"]).await;
                holds(&info).then_some(())
            })
            .await;
        }
    }
}

/// A slot on its way from one primary to another.
pub(crate) struct Move {
    slot: String,
    from: usize,
    to: usize,
    target: String,
}

impl Move {
    /// Moves the keys, then the slot.
    pub(crate) async fn finish(self, cluster: &Cluster) {
        let (from, to) = (&cluster.servers[self.from], &cluster.servers[self.to]);
        let port = to.port.to_string();
        loop {
            let keys = from.ask(&["CLUSTER", "GETKEYSINSLOT", &self.slot, "100"]).await;
            let keys: Vec<String> = redis::from_redis_value(keys).unwrap();
            if keys.is_empty() {
                break;
            }
            let mut migrate = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            migrate.extend(keys.iter().map(String::as_str));
            from.ask(&migrate).await;
        }
        for server in [to, from] {
            server
                .ask(&["CLUSTER", "SETSLOT", &self.slot, "NODE", &self.target])
                .await;
        }
    }
}

/// Waits until a condition yields something, for at most [`SERVERS`].
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(what: &str, check: impl Fn() -> F) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(start.elapsed() < SERVERS, "no {what} in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A port below those that the kernel gives to outgoing connections, so that none takes it before the server does.
pub(crate) fn free_port() -> u16 {
    const LOWEST: u16 = 12_000;
    const PORTS: u16 = 18_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test processes that run side by side begin at different places.
    let begin = u16::try_from(std::process::id() % 180).unwrap() * 100;
    for _ in 0..PORTS {
        let port = LOWEST + begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % PORTS;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}

pub(crate) fn directory(kind: &str) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("usher-test-{kind}-{}-{number}", std::process::id());
    let dir: PathBuf = Path::new(&std::env::temp_dir()).join(name);
    fs::create_dir_all(&dir).unwrap();
    dir
}
