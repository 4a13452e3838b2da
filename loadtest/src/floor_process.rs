//! A floor server as a process of its own, so that its weight is its own too.
//!
//! Owns: the process and where it listens. Does not: serve ([`crate::floor`] does).
//! Called by: [`crate::setup`] for `--with-floor`, and [`crate::compare`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::gauge::Source;
use crate::target::Node;

/// A floor is there by then, also on a machine that is busy making its certificate.
const READY: Duration = Duration::from_secs(30);

/// A floor server; killed when dropped.
pub struct FloorProcess {
    _child: Child,
    /// Its process.
    pub pid: u32,
    players: SocketAddr,
    admin: SocketAddr,
    /// The CA of its certificate, when it made one.
    pub ca: Option<PathBuf>,
    /// Where it made it; removed with it.
    dir: PathBuf,
}

#[derive(Deserialize)]
struct Told {
    players: SocketAddr,
    admin: SocketAddr,
    ca: Option<PathBuf>,
    pid: u32,
}

impl FloorProcess {
    /// Starts one on free ports with these arguments beside.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start(arguments: &[&str]) -> Result<Self, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("usher-floor-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let program = std::env::current_exe().map_err(|error| format!("this program: {error}"))?;
        let mut child = Command::new(program)
            .args([
                "floor",
                "--listen",
                "127.0.0.1:0",
                "--admin-listen",
                "127.0.0.1:0",
            ])
            .args(arguments)
            .current_dir(&dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("a floor: {error}"))?;
        let stdout = child.stdout.take().ok_or("a floor without stdout")?;
        let mut lines = BufReader::new(stdout).lines();
        let line = tokio::time::timeout(READY, lines.next_line()).await;
        let line = line.map_err(|_| "the floor does not come up")?;
        let line = line.ok().flatten().ok_or("the floor ended at once")?;
        let told: Told = serde_json::from_str(&line).map_err(|error| format!("the floor: {error}"))?;
        Ok(Self {
            _child: child,
            pid: told.pid,
            players: told.players,
            admin: told.admin,
            ca: told.ca,
            dir,
        })
    }

    /// Where it is called.
    #[must_use]
    pub fn node(&self) -> Node {
        Node {
            host: self.players.ip().to_string(),
            address: self.players,
            path: "/".to_owned(),
        }
    }

    /// Where it is weighed.
    #[must_use]
    pub fn source(&self) -> Source {
        Source::Metrics {
            authority: self.admin.to_string(),
            path: "/metrics".to_owned(),
        }
    }
}

impl Drop for FloorProcess {
    fn drop(&mut self) {
        // What stays behind is a certificate for tests.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
