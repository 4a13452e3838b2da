//! From a listening socket to served connections.
//!
//! Owns: accepting, the limits before TLS, the PROXY header, TLS, and the one deadline over all of it.
//! Does not: answer requests.
//! Called by: `app`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntGauge;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::TaskTracker;

use crate::telemetry::{Handshake, Metrics, Refusal};

use super::address::Addressing;
use super::http::{Handler, Peer, serve_http1, serve_http2};
use super::lane::{Lane, Load};
use super::limits::{Admission, ConnectionGuard};
use super::proxy_protocol;
use super::stream::{Guards, Handover, PlayerStream};
use super::tls::stream::TlsStream;

/// Connections that may wait to be accepted; the kernel's own bound (`net.core.somaxconn`) may be lower. With the
/// library's 128 a rush overflows it, and whoever is dropped learns of it only by a timeout of its own.
const BACKLOG: u32 = 4096;

/// Pause after a failed accept (out of files): the connection waits in the backlog meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A peer that acknowledges nothing for this long is dead to the kernel: it ends writes that nobody reads.
const USER_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a handshake keeps one of the `limits.handshakes` places: its cost comes at once, and a peer that makes
/// it wait for the rest must not keep others out.
const HANDSHAKE_TURN: Duration = Duration::from_millis(250);

/// Longest wait for such a place: the players' own patience is over by then.
const LONGEST_QUEUE: Duration = Duration::from_secs(30);

/// What serves players.
pub struct Players {
    /// TLS with the current certificate.
    pub tls: Arc<ServerConfig>,
    /// Limits before TLS.
    pub admission: Arc<Admission>,
    /// Who is exempt or trusted.
    pub addressing: Arc<Addressing>,
    /// Whether connections begin with a PROXY header.
    pub proxy_protocol: bool,
    /// Over accept, TLS, headers, upgrade and authentication.
    pub handshake_timeout: Duration,
    /// Answers.
    pub handler: Arc<dyn Handler>,
    /// Drives those who are sent many bytes.
    pub lane: Arc<Lane>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Counts connection tasks.
    pub tasks: TaskTracker,
}

/// Listens on an address.
///
/// # Errors
/// When it is in use, or not this machine's.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    // A node that restarts must not wait for its old connections' TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts players until `stop` turns true. Connections under way end by themselves.
pub async fn serve_players(listener: TcpListener, players: Arc<Players>, mut stop: watch::Receiver<bool>) {
    while let Some((stream, address)) = accept(&listener, &mut stop).await {
        let deadline = Instant::now() + players.handshake_timeout;
        let Ok(guard) = players
            .admission
            .try_accept(address.ip(), Instant::now())
            .map_err(|r| players.refused(r))
        else {
            continue;
        };
        let (players, stop) = (Arc::clone(&players), stop.clone());
        players.tasks.clone().spawn(async move {
            Box::pin(players.serve(stream, address, guard, deadline, stop)).await;
        });
    }
}

/// Serves plain HTTP/1.1, for operators.
pub async fn serve_plain(
    listener: TcpListener,
    handler: Arc<dyn Handler>,
    lane: Arc<Lane>,
    head_timeout: Duration,
    tasks: TaskTracker,
    mut stop: watch::Receiver<bool>,
) {
    while let Some((stream, address)) = accept(&listener, &mut stop).await {
        let (handler, stop) = (Arc::clone(&handler), stop.clone());
        let peer = Peer {
            address,
            upgradable: false,
            deadline: Instant::now() + head_timeout,
        };
        let load = Load::none(&lane);
        tasks.spawn(async move { serve_http1(stream, peer, handler, load, stop).await });
    }
}

async fn accept(listener: &TcpListener, stop: &mut watch::Receiver<bool>) -> Option<(TcpStream, SocketAddr)> {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return None,
        };
        match accepted {
            Ok((stream, address)) => {
                if let Err(error) = tune(&stream) {
                    tracing::debug!(%error, "a new connection ended at once");
                    continue;
                }
                return Some((stream, address));
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Settings of an accepted connection; the load tool's floor server has the same.
///
/// # Errors
/// When the connection has ended already.
pub fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    socket2::SockRef::from(stream).set_tcp_user_timeout(Some(USER_TIMEOUT))
}

impl Players {
    fn refused(&self, refused: Refusal) {
        self.metrics.connections_refused_total.inc(refused);
    }

    async fn serve(
        &self,
        mut stream: TcpStream,
        mut address: SocketAddr,
        mut guard: ConnectionGuard,
        deadline: Instant,
        stop: watch::Receiver<bool>,
    ) {
        let mut client = None;
        if self.proxy_protocol {
            if !self.addressing.is_trusted(address.ip()) {
                return self.metrics.connections_refused_total.inc(Refusal::ProxyHeader);
            }
            match timeout_at(deadline, proxy_protocol::read(&mut stream)).await {
                Ok(Ok(Some(source))) => {
                    address = source;
                    match self.admission.check_client(address.ip(), Instant::now()) {
                        Ok(guard) => client = guard,
                        Err(refused) => return self.refused(refused),
                    }
                }
                Ok(Ok(None)) => {}
                Ok(Err(_)) | Err(_) => {
                    return self.metrics.connections_refused_total.inc(Refusal::ProxyHeader);
                }
            }
        }
        let open = Open::begin(self.metrics.connections_open.clone());
        let Some((tls, deadline)) = self.handshake(stream, &mut guard, deadline).await else {
            return;
        };
        // The head of the first request is bounded by the same deadline and costs no cryptography.
        guard.release_handshake();
        let http2 = tls.session().alpn_protocol() == Some(b"h2");
        let handler = Arc::clone(&self.handler);
        let peer = Peer {
            address,
            upgradable: !http2,
            deadline,
        };
        let load = Load::none(&self.lane);
        if http2 {
            return serve_http2(tls, peer, handler, load, stop).await;
        }
        if let Some((stream, leftover, then)) = serve_http1(tls, peer, handler, load, stop).await {
            let stream = PlayerStream::new(
                stream,
                Guards {
                    _connection: guard,
                    _open: open,
                    _proxied: client,
                    forwarded: None,
                },
            );
            then(Handover { stream, leftover });
        }
    }

    /// Shakes hands; the deadline that it leaves to the request comes with it.
    async fn handshake(
        &self,
        stream: TcpStream,
        guard: &mut ConnectionGuard,
        deadline: Instant,
    ) -> Option<(TlsStream<TcpStream>, Instant)> {
        let start = Instant::now();
        let handshake = async {
            let mut tls = TlsStream::new(stream, Arc::clone(&self.tls))?;
            // Reading the hello costs nothing yet: a silent peer takes no place.
            timeout_at(deadline, tls.hello()).await??;
            let queued = Instant::now();
            timeout(LONGEST_QUEUE, guard.begin_handshake()).await?;
            // In a rush this node is what is slow: cutting those off who waited for it would cost it their next try too.
            let deadline = deadline + queued.elapsed();
            let shaken = async {
                match timeout(HANDSHAKE_TURN, tls.handshake()).await {
                    Ok(done) => done,
                    Err(_) => {
                        guard.release_handshake();
                        tls.handshake().await
                    }
                }
            };
            timeout_at(deadline, shaken).await??;
            Ok::<_, io::Error>((tls, deadline))
        };
        let Ok((tls, deadline)) = handshake.await else {
            self.metrics.tls_handshakes_total.inc(Handshake::Failed);
            return None;
        };
        let resumed = matches!(
            tls.session().handshake_kind(),
            Some(rustls::HandshakeKind::Resumed)
        );
        self.metrics.tls_handshakes_total.inc(if resumed {
            Handshake::Resumed
        } else {
            Handshake::Full
        });
        self.metrics
            .tls_handshake_duration_seconds
            .observe(start.elapsed().as_secs_f64());
        Some((tls, deadline))
    }
}

/// An open connection, counted until it is dropped.
pub(super) struct Open(IntGauge);

impl Open {
    fn begin(open: IntGauge) -> Self {
        open.inc();
        Self(open)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
