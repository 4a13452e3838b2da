//! The floor: what a connection costs when there is nothing behind it.
//!
//! Owns: a server of TLS and WebSocket with the gateway's own settings for both, its pings and its patience, and
//! neither lease, token, HTTP stack nor limits. Does not: answer anything but pings.
//! Called by: `main`, for the subcommand `floor`; scenarios start it as a process of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use prometheus::{Registry, TextEncoder};
use rustls::ServerConfig;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_tungstenite::{WebSocketStream, accept_async_with_config};
use usher::gateway::socket::Bounds;
use usher::lease::silence::{Due, Silence};
use usher::net::certificate::{CertPaths, Certificates};
use usher::net::tls::stream::TlsStream;
use usher::net::{devcert, listener, stream, tls};
use usher::telemetry::Process;

use crate::output;

/// Over TLS, headers and upgrade, as `limits.handshake_timeout`.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Pause after a failed accept (out of files).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How the peer is let go.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// Largest request for metrics that is read, in bytes.
const METRICS_REQUEST: u64 = 8 * 1024;

/// What to serve.
#[derive(Clone, Debug, clap::Args)]
pub struct FloorArgs {
    /// Where players connect
    #[arg(long, default_value = "127.0.0.1:8444")]
    pub listen: SocketAddr,
    /// Where /metrics is served, in plain HTTP
    #[arg(long, default_value = "127.0.0.1:9601")]
    pub admin_listen: SocketAddr,
    /// PEM certificate chain; without, a development certificate is made in certs/, as the gateway does
    #[arg(long, requires = "key", value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// PEM private key of it
    #[arg(long, requires = "cert", value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Silence that ends a connection; half of it is pinged
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub period: Duration,
}

/// Serves until the process is ended.
///
/// # Errors
/// What keeps it from serving.
pub async fn run(args: FloorArgs) -> Result<(), String> {
    let made = args.cert.is_none();
    let paths = match (args.cert, args.key) {
        (Some(cert), Some(key)) => CertPaths { cert, key, ca: None },
        _ => {
            let here = std::env::current_dir().map_err(|error| error.to_string())?;
            devcert::ensure(&here, &here, args.listen.ip()).map_err(|error| error.to_string())?
        }
    };
    let ca = paths.ca.clone();
    let certificates = Certificates::load(paths, tls::provider()).map_err(|error| error.to_string())?;
    let config = tls::server_config(Arc::new(certificates)).map_err(|error| error.to_string())?;
    let bind = |address| listener::bind(address).map_err(|error| format!("{address}: {error}"));
    let (players, admin) = (bind(args.listen)?, bind(args.admin_listen)?);
    let address = |listener: &TcpListener| listener.local_addr().map_err(|error| error.to_string());
    let told = json!({
        "players": address(&players)?.to_string(),
        "admin": address(&admin)?.to_string(),
        "ca": ca.filter(|_| made),
        "pid": std::process::id(),
    });
    output::result(&told.to_string());
    tokio::select! {
        () = serve_metrics(admin) => {}
        () = serve_players(players, config, args.period) => {}
        _ = tokio::signal::ctrl_c() => {}
        () = terminated() => {}
    }
    Ok(())
}

async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut signal) => drop(signal.recv().await),
        Err(_) => std::future::pending().await,
    }
}

async fn serve_players(listener: TcpListener, config: Arc<ServerConfig>, period: Duration) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let config = Arc::clone(&config);
        tokio::spawn(async move {
            if listener::tune(&stream).is_err() {
                return;
            }
            let opening = Box::pin(open(config, stream));
            // The session's own task: nothing of the handshake stays in memory.
            if let Ok(Some(socket)) = timeout(HANDSHAKE, opening).await {
                tokio::spawn(serve(socket, period));
            }
        });
    }
}

type Stream = Box<TlsStream<TcpStream>>;

async fn open(config: Arc<ServerConfig>, stream: TcpStream) -> Option<WebSocketStream<Stream>> {
    let mut tls = TlsStream::new(stream, config).ok()?;
    tls.handshake().await.ok()?;
    let codec = Bounds::PLAYER.codec();
    let accepted = accept_async_with_config(Box::new(tls), Some(codec)).await.ok()?;
    let tls = accepted.into_inner();
    stream::slim(&tls);
    // The codec of the handshake keeps the handshake's buffer: the session gets one of its own. A player says
    // nothing before it has read the answer, so that nothing is lost.
    Some(WebSocketStream::from_raw_socket(tls, Role::Server, Some(codec)).await)
}

/// Pings silence and ends it, as the gateway does.
async fn serve(mut socket: WebSocketStream<Stream>, period: Duration) {
    let mut silence = Silence::new(Instant::now());
    let mut timer = Box::pin(sleep_until(Instant::now() + period / 2));
    loop {
        tokio::select! {
            biased;
            item = socket.next() => match item {
                Some(Ok(Message::Close(_))) => return finish(socket).await,
                Some(Ok(_)) => silence.heard(Instant::now()),
                Some(Err(_)) | None => return,
            },
            () = &mut timer => {
                let now = Instant::now();
                let next = match silence.due(now, period) {
                    Due::Wait(until) => until,
                    Due::Expired(_) => return,
                    Due::Ping => {
                        if socket.send(Message::Ping(Bytes::new())).await.is_err() {
                            return;
                        }
                        silence.pinged(now);
                        now + period / 2
                    }
                };
                timer.as_mut().reset(next);
            }
        }
    }
}

/// Answers the close frame and lets the connection end.
async fn finish(mut socket: WebSocketStream<Stream>) {
    let end = async {
        socket.flush().await.ok()?;
        let mut stream = socket.into_inner();
        stream.shutdown().await.ok()?;
        let mut sink = [0; 512];
        while stream.read(&mut sink).await.ok()? > 0 {}
        Some(())
    };
    // Nobody is left to hear of a failure.
    let _ = timeout(CLOSE_WAIT, end).await;
}

/// The weight of the process, to whatever is asked.
async fn serve_metrics(listener: TcpListener) {
    let registry = Registry::new();
    // It fails for a collector of the same name only.
    let _ = registry.register(Box::new(Process::default()));
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let text = TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap_or_default();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{text}",
            text.len()
        );
        let exchange = async {
            let (reader, mut writer) = stream.split();
            let mut head = Vec::new();
            let mut reader = tokio::io::BufReader::new(reader.take(METRICS_REQUEST));
            while !head.ends_with(b"\r\n\r\n") {
                if tokio::io::AsyncBufReadExt::read_until(&mut reader, b'\n', &mut head).await? == 0 {
                    break;
                }
            }
            writer.write_all(answer.as_bytes()).await?;
            writer.shutdown().await
        };
        // One scraper at a time, each with little time.
        let _ = timeout(CLOSE_WAIT, exchange).await;
    }
}
