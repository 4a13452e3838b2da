//! Real Redis servers, and what happens to them.
//!
//! Owns: starting, killing, stopping, emptying, saving, promoting. Called by: `fleet` and the scenarios.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::resp::{Client, Reply};

pub(crate) struct Redis {
    child: Option<Child>,
    dir: PathBuf,
    pub(crate) port: u16,
    arguments: Vec<String>,
}

impl Redis {
    /// A server that keeps nothing on disk unless told to save.
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// A server that follows the one at this port.
    pub(crate) fn replica_of(port: u16) -> Self {
        let redis = Self::with(&["--replicaof", "127.0.0.1", &port.to_string()]);
        let start = Instant::now();
        while !redis.info("replication").contains("master_link_status:up") {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "the replica does not follow"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        redis
    }

    fn with(arguments: &[&str]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("usher-chaos-redis-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        // Nobody else takes it in the moment between: the kernel hands out others first.
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let mut redis = Self {
            child: None,
            dir,
            port,
            arguments,
        };
        redis.launch();
        redis
    }

    fn launch(&mut self) {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.join("log"))
            .unwrap();
        let port = self.port.to_string();
        let child = Command::new("redis-server")
            .args([
                "--port",
                &port,
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
            ])
            .args([
                "--repl-diskless-sync-delay",
                "0",
                "--repl-backlog-ttl",
                "0",
                "--repl-timeout",
                "5",
            ])
            .args(["--maxmemory-policy", "noeviction"])
            .args(&self.arguments)
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("redis-server is installed (tests/run installs it)");
        self.child = Some(child);
        let start = Instant::now();
        while !self.answers() {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "redis-server does not answer: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn answers(&self) -> bool {
        let pong = Client::connect(self.port).and_then(|mut client| client.command(&["PING"]));
        pong.is_ok_and(|reply| reply == Reply::Text("PONG".to_owned()))
    }

    pub(crate) fn command(&self, words: &[&str]) -> Reply {
        let mut client = Client::connect(self.port).unwrap();
        client.command(words).unwrap()
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Stands still, its connections open.
    pub(crate) fn stall(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn wake(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("a running server");
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    /// Starts again at the same port with what [`Redis::save`] saved last, or empty.
    pub(crate) fn start_again(&mut self, empty: bool) {
        self.kill();
        if empty {
            let _ = fs::remove_file(self.dir.join("dump.rdb"));
        }
        self.launch();
    }

    /// Writes a snapshot to disk.
    pub(crate) fn save(&self) {
        assert_eq!(self.command(&["SAVE"]), Reply::Text("OK".to_owned()));
    }

    pub(crate) fn flush(&self) {
        assert_eq!(self.command(&["FLUSHALL"]), Reply::Text("OK".to_owned()));
    }

    pub(crate) fn promote(&self) {
        assert_eq!(
            self.command(&["REPLICAOF", "NO", "ONE"]),
            Reply::Text("OK".to_owned())
        );
    }

    pub(crate) fn info(&self, section: &str) -> String {
        self.command(&["INFO", section]).text()
    }

    /// Calls of each command since the server started; those inside scripts count too, as Redis counts them.
    pub(crate) fn calls(&self) -> BTreeMap<String, u64> {
        let info = self.info("commandstats");
        let calls = info.lines().filter_map(|line| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
        });
        calls.collect()
    }

    /// The keys that match.
    pub(crate) fn keys(&self, pattern: &str) -> Vec<String> {
        let mut client = Client::connect(self.port).unwrap();
        let (mut cursor, mut keys) = ("0".to_owned(), Vec::new());
        loop {
            let scan = client
                .command(&["SCAN", &cursor, "MATCH", pattern, "COUNT", "1000"])
                .unwrap();
            let mut answer = scan.array().into_iter();
            cursor = answer.next().unwrap().text();
            keys.extend(answer.next().unwrap().array().into_iter().map(Reply::text));
            if cursor == "0" {
                return keys;
            }
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("log of redis {}: {}", self.port, self.dir.join("log").display());
        } else {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}
