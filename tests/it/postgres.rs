//! A real PostgreSQL server for tests, in a directory of its own, on a free port of 127.0.0.1, killed when dropped.
//!
//! The programs are Debian's newest under `/usr/lib/postgresql`. PostgreSQL refuses to run as root, so that root runs it
//! as the user `postgres`, whom the package makes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use crate::redis_servers::{directory, free_port, until};

/// The owner of the databases; no password is asked for on loopback.
const USER: &str = "usher";

/// One server process and its children.
pub(crate) struct Postgres {
    pub(crate) port: u16,
    dir: PathBuf,
    child: Option<Child>,
}

impl Postgres {
    /// Starts a server with an empty database and waits until it answers.
    pub(crate) async fn start() -> Self {
        let dir = directory("postgres");
        let data = dir.join("data");
        let template = template();
        assert!(
            Command::new("cp")
                .arg("-r")
                .args([template, &data])
                .status()
                .unwrap()
                .success(),
            "{}",
            template.display()
        );
        give_away(&dir);
        let mut server = Self {
            port: free_port(),
            dir,
            child: None,
        };
        server.restart().await;
        server.sql("postgres", "CREATE DATABASE usher");
        server
    }

    /// `postgres://usher@127.0.0.1:<port>/usher`
    pub(crate) fn url(&self) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/usher", self.port)
    }

    /// Runs SQL in this database with psql; its unaligned output.
    pub(crate) fn sql(&self, database: &str, text: &str) -> String {
        let port = self.port.to_string();
        let arguments = [
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-U",
            USER,
        ];
        let output = Command::new("psql")
            .args(arguments)
            .args(["-d", database, "-c", text])
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}: {told}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// The database as `pg_dump --format=custom` writes it.
    pub(crate) fn dump(&self) -> Vec<u8> {
        let output = Command::new("pg_dump")
            .args([
                "--format=custom",
                "-h",
                "127.0.0.1",
                "-p",
                &self.port.to_string(),
                "-U",
                USER,
                "usher",
            ])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        output.stdout
    }

    /// Restores such a dump into the empty database.
    pub(crate) fn load(&self, dump: &[u8]) {
        let file = self.dir.join("dump");
        fs::write(&file, dump).unwrap();
        let restored = Command::new("pg_restore")
            .args([
                "--dbname=usher",
                "--clean",
                "--if-exists",
                "-h",
                "127.0.0.1",
                "-U",
                USER,
            ])
            .args(["-p", &self.port.to_string()])
            .arg(file)
            .status();
        assert!(restored.unwrap().success());
    }

    /// Ends the server at once, without a checkpoint, as a crash would (SIGQUIT ends the children too).
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            signal("-QUIT", &[child.id()]);
            child.wait().unwrap();
        }
    }

    /// Ends the server and all its children without notice (SIGKILL).
    pub(crate) fn destroy(&mut self) {
        let family = self.family();
        if let Some(mut child) = self.child.take() {
            signal("-KILL", &family);
            child.wait().unwrap();
        }
    }

    /// Lets the server and all its children stand still (SIGSTOP): connections stay open and nothing answers.
    pub(crate) fn stop(&self) {
        signal("-STOP", &self.family());
    }

    /// Lets them go on (SIGCONT).
    pub(crate) fn cont(&self) {
        signal("-CONT", &self.family());
    }

    /// Starts the server again on its port with its files, and waits until it answers. A running one is killed first.
    pub(crate) async fn restart(&mut self) {
        self.kill();
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.join("log"))
            .unwrap();
        let port = self.port.to_string();
        let child = as_postgres(&programs().join("postgres"))
            .arg("-D")
            .arg(self.dir.join("data"))
            .args(["-p", &port, "-h", "127.0.0.1", "-k", "", "-F"])
            .args(["-c", "max_connections=200", "-c", "shared_buffers=16MB"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let ready = || async {
            let asked = Command::new("pg_isready")
                .args(["-q", "-h", "127.0.0.1", "-p", &port])
                .status();
            asked.unwrap().success().then_some(())
        };
        until(&format!("answer of PostgreSQL at {port}"), ready).await;
    }

    /// The server's process and its children.
    fn family(&self) -> Vec<u32> {
        let server = self.child.as_ref().expect("the server runs").id();
        let children = Command::new("pgrep")
            .args(["-P", &server.to_string()])
            .output()
            .unwrap();
        let children = String::from_utf8(children.stdout).unwrap();
        let children = children.lines().map(|pid| pid.parse().unwrap());
        [server].into_iter().chain(children).collect()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.cont();
        }
        self.kill();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            let lines: Vec<_> = log.lines().rev().take(15).collect();
            eprintln!("last lines of PostgreSQL at {}:", self.port);
            lines.iter().rev().for_each(|line| eprintln!("  {line}"));
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The data directory of a server that never ran, made once: that takes seconds.
fn template() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let version = programs().parent().unwrap().file_name().unwrap().to_owned();
        let place = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let kept = place.join(format!("postgres-{}", version.display()));
        if kept.join("PG_VERSION").exists() {
            return kept;
        }
        // Somewhere that the other user can reach, and moved when it is complete.
        let dir = directory("initdb");
        give_away(&dir);
        let data = dir.join("data");
        let output = as_postgres(&programs().join("initdb"))
            .arg("-D")
            .arg(&data)
            .args(["-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N"])
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "initdb: {told}");
        let partial = place.join(format!("postgres-{}", std::process::id()));
        let copied = Command::new("cp")
            .arg("-r")
            .args([&data, &partial])
            .status()
            .unwrap();
        assert!(copied.success());
        // Another run may have been first.
        let _ = fs::rename(&partial, &kept);
        let _ = fs::remove_dir_all(&partial);
        let _ = fs::remove_dir_all(&dir);
        kept
    })
}

/// Where the newest server's programs are.
fn programs() -> PathBuf {
    let versions =
        fs::read_dir("/usr/lib/postgresql").expect("the package postgresql is installed: tests/run does it");
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions.map(|entry| entry.unwrap().path()).max_by_key(number);
    newest.expect("a version").join("bin")
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn as_postgres(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
    command.arg(program).current_dir("/");
    command
}

fn give_away(dir: &Path) {
    if is_root() {
        let given = Command::new("chown")
            .arg("-R")
            .arg("postgres:postgres")
            .arg(dir)
            .status();
        assert!(given.unwrap().success());
    }
}

fn signal(signal: &str, pids: &[u32]) {
    let pids = pids.iter().map(u32::to_string);
    // A child may have ended meanwhile.
    let _ = Command::new("kill")
        .arg(signal)
        .args(pids)
        .stderr(Stdio::null())
        .status();
}
