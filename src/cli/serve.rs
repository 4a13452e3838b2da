//! `usher serve`: the boot order of a node.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::{Node, addresses_file};
use crate::auth::Grant;
use crate::config::{Config, LogFormat};
use crate::telemetry;

use super::{Failure, Settings};

/// Life of the token in the paste-ready line.
const DEMO_TOKEN: Duration = Duration::from_secs(24 * 3600);

pub(super) fn run(settings: &Settings) -> Result<(), Failure> {
    let config = settings.load()?;
    raise_file_limit();
    let log =
        Arc::new(telemetry::init(&config.log).map_err(|error| Failure::Settings(format!("log: {error}")))?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::other)?;
    let result = runtime.block_on(async {
        let mut signals = Signals::new().map_err(Failure::other)?;
        let node = Node::start(config.clone(), Some(log)).await?;
        let addresses = announce(&node, &config)?;
        signals.wait_for_end(&node, settings).await;
        tokio::select! {
            () = node.drain() => {}
            () = signals.end() => tracing::warn!("asked twice: ending at once"),
        }
        forget(&config, &addresses);
        Ok(())
    });
    // Whatever still runs was given its time.
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

/// A connection is an open file. The soft limit of a usual shell, 1,024, is for programs that still use `select`.
fn raise_file_limit() {
    let limits = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limits.maximum,
        ..limits
    };
    // Where it is not allowed, the node takes fewer connections; the line `ready` says how many.
    let _ = setrlimit(Resource::Nofile, raised);
}

/// Tells people and programs where the node is.
fn announce(node: &Node, config: &Config) -> Result<String, Failure> {
    let file = addresses_file(&config.data.dir);
    let addresses = serde_json::json!({"players": node.players.to_string(), "admin": node.admin.to_string()});
    let addresses = format!("{addresses}\n");
    let partial = file.with_extension("json.part");
    let written = fs::write(&partial, &addresses).and_then(|()| fs::rename(&partial, &file));
    written.map_err(|error| Failure::Other(format!("{}: {error}", file.display())))?;
    tracing::info!(node = %node.id(), players = %node.players, admin = %node.admin, connections = node.capacity(), "ready");
    let mut banner = format!(
        "\nPlayer demo   https://{}/\nConsole       http://{}/console\nMetrics       http://{}/metrics\n",
        node.players, node.admin, node.admin
    );
    // Only a development node shows a token that opens it.
    if config.tls.cert.as_os_str().is_empty() {
        let token = node
            .verifier
            .issue(&Grant::new("demo", DEMO_TOKEN))
            .map_err(Failure::other)?;
        let url = format!("wss://{}/v1/watch?content=demo&device=tv-1", node.players);
        banner += &format!(
            "Try it        websocat -k -H \"Authorization: Bearer {}\" \"{url}\"\n",
            token.expose()
        );
        banner += "              (three screens play; the fourth device name is refused and told who is watching)\n";
    }
    if config.log.format == LogFormat::Json && config.log.file.as_os_str().is_empty() {
        // Whoever reads JSON lines from stdout reads nothing else there.
        eprintln!("{banner}");
    } else {
        println!("{banner}");
    }
    Ok(addresses)
}

/// A clean end leaves no addresses behind that nobody serves; those of a node that has taken over stay.
fn forget(config: &Config, addresses: &str) {
    let file = addresses_file(&config.data.dir);
    if fs::read_to_string(&file).is_ok_and(|written| written == addresses) {
        let _ = fs::remove_file(file);
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Reloads at each SIGHUP until SIGTERM or SIGINT.
    async fn wait_for_end(&mut self, node: &Node, settings: &Settings) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => reload(node, settings).await,
            }
        }
    }
}

async fn reload(node: &Node, settings: &Settings) {
    let result = match settings.load() {
        Ok(config) => node.reload(&config).await.map_err(|error| error.to_string()),
        Err(Failure::Settings(problem) | Failure::Other(problem)) => Err(problem),
    };
    match result {
        Ok(()) => tracing::info!("configuration and certificates reloaded"),
        Err(error) => tracing::error!(error, "not reloaded, the old settings stay"),
    }
}
