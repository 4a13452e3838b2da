//! From an address to an open WebSocket, as a player gets there.
//!
//! Owns: source addresses, TLS and the upgrade. Does not: know what is spoken then ([`super::player`]).
//! Called by: every job.

use std::cell::Cell;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use rustls::client::Resumption;
use rustls::{ClientConfig, HandshakeKind};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use usher::config::Secret;

use crate::target::{Node, Target};
use crate::trust;

use super::book::Book;

/// An open socket.
pub(super) type Socket = WebSocketStream<Secured>;

/// TLS over TCP, boxed so that what is moved about is a pointer.
pub(super) type Secured = Box<TlsStream<TcpStream>>;

/// Frames are tiny; the library's own 128 KiB would be most of what a player weighs here.
const READ_BUFFER: usize = 512;

/// TLS sessions that are remembered for resumption.
const REMEMBERED: usize = 4_096;

/// The server has sent its session ticket by then.
const TICKET: Duration = Duration::from_millis(100);

/// Why something did not come about, in a few words that are the same for the same cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure(pub(super) String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Failure {
    pub(super) fn new(cause: impl Into<String>) -> Self {
        Self(cause.into())
    }
}

/// Calls servers.
pub(super) struct Dialer {
    pub(super) target: Target,
    pub(super) book: Rc<Book>,
    tls: Vec<TlsConnector>,
    names: Vec<ServerName<'static>>,
    /// Calls so far, so that source addresses take turns.
    calls: Cell<u32>,
    /// This worker's first source address and how many it has; none: the system chooses.
    sources: Option<(u32, u32)>,
}

impl Dialer {
    pub(super) fn new(target: Target, worker: u32, workers: u32, book: Rc<Book>) -> Result<Self, Failure> {
        let mut names = Vec::new();
        let mut tls = Vec::new();
        for node in &target.nodes {
            let name = ServerName::try_from(node.host.clone());
            names.push(name.map_err(|_| Failure(format!("{}: no name for TLS", node.host)))?);
            // A server's tickets are no good at another, so each has a memory of its own.
            let mut config: ClientConfig = trust::client_config(&target.trust).map_err(Failure)?;
            config.resumption = if target.resumption {
                Resumption::in_memory_sessions(REMEMBERED)
            } else {
                Resumption::disabled()
            };
            tls.push(TlsConnector::from(Arc::new(config)));
        }
        let sources = match crate::plan::share(target.sources, worker, workers) {
            _ if target.sources == 0 => None,
            // Fewer addresses than workers: they share.
            (first, 0) => Some((first.min(target.sources - 1), 1)),
            (first, count) => Some((first, count)),
        };
        Ok(Self {
            target,
            book,
            tls,
            names,
            calls: Cell::new(0),
            sources,
        })
    }

    pub(super) fn node(&self, node: usize) -> &Node {
        &self.target.nodes[node % self.target.nodes.len()]
    }

    /// TCP and TLS.
    pub(super) async fn secure(&self, node: usize) -> Result<Secured, Failure> {
        let node = node % self.target.nodes.len();
        within(self.target.timeout(), "TLS", async {
            let stream = self.connect(self.target.nodes[node].address).await?;
            let secured = Box::pin(self.tls[node].connect(self.names[node].clone(), stream)).await;
            let stream = secured.map_err(|error| Failure(tls_cause(&error)))?;
            let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
            self.book.count(if resumed { "TLS resumed" } else { "TLS full" });
            Ok(Box::new(stream))
        })
        .await
    }

    async fn connect(&self, address: SocketAddr) -> Result<TcpStream, Failure> {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        };
        let socket = socket.map_err(|error| Failure(format!("socket: {}", error.kind())))?;
        if let Some(source) = self.source() {
            // A port that waits for stragglers of a connection long over may be used again.
            let bound = socket
                .set_reuseaddr(true)
                .and_then(|()| socket.bind((source, 0).into()));
            bound.map_err(|error| Failure(format!("bind: {}", error.kind())))?;
        }
        let stream = socket.connect(address).await;
        let stream = stream.map_err(|error| Failure(format!("connect: {}", error.kind())))?;
        // Without it a pong waits for an acknowledgement that the other side delays.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    fn source(&self) -> Option<IpAddr> {
        let (first, count) = self.sources?;
        let call = self.calls.get();
        self.calls.set(call.wrapping_add(1));
        Some(source_address(first + call % count))
    }

    /// The upgrade on a secured stream.
    pub(super) async fn upgrade(
        &self,
        stream: Secured,
        node: usize,
        path: &str,
        token: Option<&Secret>,
        subprotocol: Option<&'static str>,
    ) -> Result<Socket, Failure> {
        let node = self.node(node);
        let url = format!("wss://{}{path}", authority(&node.host, node.address.port()));
        let mut request = url
            .into_client_request()
            .map_err(|_| Failure::new("the URL is no good"))?;
        if let Some(token) = token {
            let value = HeaderValue::try_from(format!("Bearer {}", token.expose()));
            let value = value.map_err(|_| Failure::new("the token is no header"))?;
            request.headers_mut().insert("authorization", value);
        }
        if let Some(name) = subprotocol {
            request
                .headers_mut()
                .insert("sec-websocket-protocol", HeaderValue::from_static(name));
        }
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0);
        within(self.target.timeout(), "upgrade", async {
            match client_async_with_config(request, stream, Some(config)).await {
                Ok((socket, _)) => Ok(socket),
                Err(Error::Http(response)) => Err(Failure(format!("HTTP {}", response.status().as_u16()))),
                Err(Error::Io(error)) => Err(Failure(format!("upgrade: {}", error.kind()))),
                Err(_) => Err(Failure::new("upgrade: broken")),
            }
        })
        .await
    }

    /// Ends a secured stream without a word, once the session ticket has come, which in TLS 1.3 follows the handshake;
    /// who resumes nothing stays as long, so that both cost the same beside the handshake.
    pub(super) async fn leave(&self, mut stream: Secured) -> Result<(), Failure> {
        let mut sink = [0; 512];
        // It is no data: reading it only ends with the time.
        let _ = timeout(TICKET, stream.read(&mut sink)).await;
        within(self.target.timeout(), "close", async {
            let _ = stream.shutdown().await;
            while stream.read(&mut sink).await.is_ok_and(|count| count > 0) {}
            Ok(())
        })
        .await
    }
}

/// The numbered source address: 127.0.0.1, 127.0.0.2, ...
fn source_address(number: u32) -> IpAddr {
    let [_, second, third, fourth] = (number % 250 + 1).to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(127, second, third, fourth))
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// Causes of rustls are told in full once ("no such issuer"), those of the system by kind.
fn tls_cause(error: &std::io::Error) -> String {
    match error.get_ref() {
        Some(cause) => format!("TLS: {cause}"),
        None => format!("TLS: {}", error.kind()),
    }
}

pub(super) async fn within<T>(
    limit: Duration,
    what: &str,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    timeout(limit, work)
        .await
        .unwrap_or_else(|_| Err(Failure(format!("{what}: timeout"))))
}
