//! HTTP on one connection, and the way out of it: a connection that is upgraded leaves hyper altogether.
//!
//! Owns: protocol limits, deadlines of idle and slow peers, and getting the raw stream back.
//! Does not: route or answer; that is the [`Handler`]'s.
//! Called by: `net::listener`.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::lane::{Bulk, Load, Loaded};
use super::stream::Handover;

/// hyper refuses a head beyond this, in bytes, with a bare 431; the handler refuses far earlier, with a body. It is
/// this high so that an absurd token is told to be a bad token (401).
const HEAD_BUFFER: u32 = 96 * 1024;

/// hyper refuses beyond this many headers with a bare 431; the handler refuses from 65 on, with a body. Every request
/// makes, and clears, room for this many.
const HEADERS: usize = 256;

/// A connection that has served a request may be idle, or slow with its next head, for this long.
const IDLE: Duration = Duration::from_secs(30);

/// A peer that still sends when its answer has been given is heard out for at most this long. To close at once would
/// reset the connection, which takes the answer from the peer's hands (RFC 9112, section 9.6).
const LINGER: Duration = Duration::from_secs(5);

/// Streams of one HTTP/2 connection.
const STREAMS: u32 = 100;

/// What comes after HTTP on an upgraded connection.
pub type Then = Box<dyn FnOnce(Handover) + Send>;

/// A handler's answer while it is worked out.
pub type Answer = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// Answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request, or takes the connection over.
    fn respond(&self, request: Request<Incoming>, peer: Peer) -> Answer;
}

/// An answer.
pub struct Reply {
    /// The response; 101 with its headers when the connection is taken over.
    pub response: Response<Body>,
    /// Takes the connection over.
    pub then: Option<Then>,
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Its address, after the PROXY protocol.
    pub address: SocketAddr,
    /// Whether the connection can be upgraded to a WebSocket (HTTP/1.1 over TLS).
    pub upgradable: bool,
    /// By when an upgrade must be done, authentication included.
    pub deadline: Instant,
}

impl Peer {
    /// Its IP address.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.address.ip()
    }
}

/// What a handler wants to do with its connection, once hyper lets go of it.
type Promise = Arc<Mutex<Option<Then>>>;

/// Serves HTTP/1.1 until the peer leaves, is too slow, or is upgraded: then the raw stream comes back. The first
/// request head must be there by `peer.deadline`. `stop` lets the request under way end and closes then. While many bytes
/// are on their way, the slow lane drives it.
pub async fn serve_http1<S>(
    io: S,
    peer: Peer,
    handler: Arc<dyn Handler>,
    load: Load,
    stop: watch::Receiver<bool>,
) -> Option<(S, Bytes, Then)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let own = load.clone();
    load.drive(drive_http1(io, peer, handler, own, stop)).await
}

async fn drive_http1<S>(
    io: S,
    peer: Peer,
    handler: Arc<dyn Handler>,
    load: Load,
    stop: watch::Receiver<bool>,
) -> Option<(S, Bytes, Then)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let promise = Promise::default();
    let activity = Activity::new(peer.deadline);
    let service = service_fn(|request| {
        // What comes in one piece with the end of a film is read where the film was sent.
        let away = load.is_away();
        Box::pin(answer(
            &handler,
            request,
            peer,
            &activity,
            &promise,
            (&load, away),
        ))
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(HEAD_BUFFER as usize)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(io), service);
    let served = loop {
        tokio::select! {
            served = poll_fn(|context| connection.poll_without_shutdown(context)) => break served,
            stopped = activity.idle_or_stopped(stop.clone()) => match stopped {
                Stop::Idle => return None,
                Stop::Asked => Pin::new(&mut connection).graceful_shutdown(),
            },
        }
    };
    let then = promise.lock().unwrap_or_else(PoisonError::into_inner).take();
    let parts = connection.into_parts();
    let io = parts.io.into_inner();
    match then {
        Some(then) if served.is_ok() => Some((io, parts.read_buf, then)),
        _ => {
            let stopping = *stop.borrow();
            close(io, !stopping).await;
            None
        }
    }
}

/// Says that no more comes, with TLS's `close_notify`, and may hear the peer out.
async fn close(mut io: impl AsyncRead + AsyncWrite + Unpin, linger: bool) {
    let closed = async {
        io.shutdown().await?;
        if linger {
            tokio::io::copy(&mut io, &mut tokio::io::sink()).await?;
        }
        std::io::Result::Ok(())
    };
    // Nobody is left to hear of a failure.
    let _ = timeout(LINGER, closed).await;
}

/// Serves HTTP/2, under the same rules.
pub async fn serve_http2<S>(
    io: S,
    peer: Peer,
    handler: Arc<dyn Handler>,
    load: Load,
    stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let own = load.clone();
    load.drive(drive_http2(io, peer, handler, own, stop)).await;
}

async fn drive_http2<S>(io: S, peer: Peer, handler: Arc<dyn Handler>, load: Load, stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let peer = Peer {
        upgradable: false,
        ..peer
    };
    let activity = Arc::new(Activity::new(peer.deadline));
    let (shared, own) = (Arc::clone(&activity), load.clone());
    let service = service_fn(move |request| {
        let (handler, activity, load) = (Arc::clone(&handler), Arc::clone(&shared), own.clone());
        // Streams move with their connection; what is asked on one of them stays.
        async move {
            answer(
                &handler,
                request,
                peer,
                &activity,
                &Promise::default(),
                (&load, true),
            )
            .await
        }
    });
    let connection = http2::Builder::new(Streams(load))
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEAD_BUFFER)
        .serve_connection(TokioIo::new(io), service);
    let mut connection = pin!(connection);
    loop {
        tokio::select! {
            _ = &mut connection => return,
            stopped = activity.idle_or_stopped(stop.clone()) => match stopped {
                Stop::Idle => return,
                Stop::Asked => connection.as_mut().graceful_shutdown(),
            },
        }
    }
}

/// Runs the streams of an HTTP/2 connection, which end with it.
#[derive(Clone)]
struct Streams(Load);

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let load = self.0.clone();
        self.0.spawn_at_home(async move { load.drive(stream).await });
    }
}

/// `away`: whether the answer must be worked out elsewhere, since this may be the slow lane.
async fn answer(
    handler: &Arc<dyn Handler>,
    request: Request<Incoming>,
    peer: Peer,
    activity: &Activity,
    promise: &Promise,
    (load, away): (&Load, bool),
) -> Result<Response<Counted>, Infallible> {
    let busy = activity.begin();
    let peer = Peer {
        deadline: activity.head_deadline(),
        ..peer
    };
    let reply = handler.respond(request, peer);
    let Reply { mut response, then } = if away {
        load.at_home(reply).await
    } else {
        reply.await
    };
    let bulk = response.extensions_mut().remove::<Bulk>();
    *promise.lock().unwrap_or_else(PoisonError::into_inner) = then;
    Ok(response.map(|body| Counted {
        body,
        // hyper asks for the body's first frame when the peer lets it.
        idle: busy.pause(),
        busy: None,
        _bulk: bulk.map(|Bulk| load.begin()),
    }))
}

/// How busy a connection is: one that serves nothing, or whose peer takes nothing of what is served, is closed at
/// its deadline.
struct Activity {
    state: Arc<ActivityState>,
}

struct ActivityState {
    under_way: AtomicU32,
    deadline: Mutex<Instant>,
}

enum Stop {
    Idle,
    Asked,
}

impl Activity {
    fn new(deadline: Instant) -> Self {
        Self {
            state: Arc::new(ActivityState {
                under_way: AtomicU32::new(0),
                deadline: Mutex::new(deadline),
            }),
        }
    }

    /// Ends the time of a request whose head has just come: the connection's first one has what is left of the
    /// handshake's, a later one at most as long as the connection may idle.
    fn head_deadline(&self) -> Instant {
        *self.state.deadline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) -> Busy {
        self.state.under_way.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(&self.state))
    }

    fn deadline(&self) -> Instant {
        if self.state.under_way.load(Ordering::Relaxed) > 0 {
            return Instant::now() + IDLE;
        }
        *self.state.deadline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn idle_or_stopped(&self, mut stop: watch::Receiver<bool>) -> Stop {
        let already = *stop.borrow_and_update();
        loop {
            let deadline = self.deadline();
            if deadline <= Instant::now() {
                return Stop::Idle;
            }
            tokio::select! {
                () = sleep_until(deadline) => {}
                changed = stop.changed(), if !already => match changed {
                    Ok(()) => return Stop::Asked,
                    // The owner of the signal is gone: nothing will ask any more, the deadline still holds.
                    Err(_) => sleep_until(deadline).await,
                },
            }
        }
    }
}

/// This node works for the connection, on an answer or on the next piece of its body.
struct Busy(Arc<ActivityState>);

/// It is the peer's turn, to ask or to read, for at most [`IDLE`].
struct Idle(Arc<ActivityState>);

impl Busy {
    fn pause(self) -> Idle {
        Idle(Arc::clone(&self.0))
    }
}

impl Idle {
    fn resume(&self) -> Busy {
        self.0.under_way.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(&self.0))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        *self.0.deadline.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() + IDLE;
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A response body that keeps its connection busy while it works out its next piece, and not while the peer does
/// not take it: an HTTP/2 peer that grants no window would else hold its connection for ever.
pub struct Counted {
    body: Body,
    idle: Idle,
    busy: Option<Busy>,
    _bulk: Option<Loaded>,
}

impl hyper::body::Body for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, axum::Error>>> {
        if self.busy.is_none() {
            self.busy = Some(self.idle.resume());
        }
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if polled.is_ready() {
            self.busy = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
