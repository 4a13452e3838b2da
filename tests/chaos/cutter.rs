//! A TCP proxy that breaks the way to Redis on purpose.
//!
//! Owns: cutting (reset, and nobody gets through), black-holing (open, nothing moves), delay, and the loss of pub/sub
//! messages alone. Does not: know what flows, beyond where a frame of the server ends.
//! Called by: `fleet` (one for each gateway) and the scenarios (between primary and replica).

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::resp;

/// What happens to the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Open,
    Cut,
    BlackHole,
}

#[derive(Clone, Debug)]
struct State {
    upstream: SocketAddr,
    way: Way,
    /// How long each chunk waits, in each direction.
    delay: Duration,
    drop_messages: bool,
    /// Whether answers are taken apart, so that messages can be lost.
    frames: bool,
    /// Connections of earlier lives are broken.
    life: u64,
}

pub(crate) struct Cutter {
    pub(crate) port: u16,
    state: watch::Sender<State>,
    dropped: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Cutter {
    /// Starts forwarding to this port of the machine, for clients.
    pub(crate) fn to(port: u16) -> Self {
        Self::launch(port, true)
    }

    /// The same for a replica: its stream has no frames that could be told apart.
    pub(crate) fn for_replica_of(port: u16) -> Self {
        Self::launch(port, false)
    }

    fn launch(port: u16, frames: bool) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (state, seen) = watch::channel(State {
            upstream: ([127, 0, 0, 1], port).into(),
            way: Way::Open,
            delay: Duration::ZERO,
            drop_messages: false,
            frames,
            life: 0,
        });
        let dropped = Arc::new(AtomicU64::new(0));
        let task = threads().spawn(accept(listener, seen, Arc::clone(&dropped)));
        Self {
            port: address.port(),
            state,
            dropped,
            task,
        }
    }

    /// Resets every connection, and each new one.
    pub(crate) fn cut(&self) {
        self.set(|state| (state.way, state.life) = (Way::Cut, state.life + 1));
    }

    /// Keeps connections open and moves nothing.
    pub(crate) fn black_hole(&self) {
        self.set(|state| state.way = Way::BlackHole);
    }

    pub(crate) fn delay(&self, delay: Duration) {
        self.set(|state| state.delay = delay);
    }

    pub(crate) fn drop_messages(&self, drop: bool) {
        self.set(|state| state.drop_messages = drop);
    }

    /// Pub/sub messages dropped so far.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Everything flows again; what a black hole held back does, too.
    pub(crate) fn heal(&self) {
        self.set(|state| {
            (state.way, state.delay, state.drop_messages) = (Way::Open, Duration::ZERO, false);
        });
    }

    /// Breaks every connection; new ones lead elsewhere.
    pub(crate) fn lead_to(&self, port: u16) {
        self.set(|state| (state.upstream, state.life) = (([127, 0, 0, 1], port).into(), state.life + 1));
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        self.state.send_modify(change);
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A thread of their own: thousands of players on the test's threads must not make Redis look slow.
fn threads() -> &'static Runtime {
    static THREADS: OnceLock<Runtime> = OnceLock::new();
    THREADS.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).enable_all().build().unwrap()
    })
}

async fn accept(listener: std::net::TcpListener, seen: watch::Receiver<State>, dropped: Arc<AtomicU64>) {
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        tokio::spawn(carry(client, seen.clone(), Arc::clone(&dropped)));
    }
}

async fn carry(client: TcpStream, mut seen: watch::Receiver<State>, dropped: Arc<AtomicU64>) {
    let _ = client.set_zero_linger();
    let _ = client.set_nodelay(true);
    let (life, frames) = {
        let state = seen.borrow();
        (state.life, state.frames)
    };
    let broken = {
        let mut seen = seen.clone();
        async move {
            let _ = seen
                .wait_for(|state| state.way == Way::Cut || state.life != life)
                .await;
        }
    };
    let flow = async {
        opened(&mut seen).await;
        let upstream = seen.borrow().upstream;
        let Ok(server) = TcpStream::connect(upstream).await else {
            return;
        };
        let _ = server.set_nodelay(true);
        let (client_read, client_write) = client.into_split();
        let (server_read, server_write) = server.into_split();
        tokio::select! {
            () = pump(client_read, server_write, seen.clone(), None) => {}
            () = pump(server_read, client_write, seen.clone(), frames.then_some(&*dropped)) => {}
        }
    };
    // Dropping the sockets resets them.
    tokio::select! {
        () = broken => {}
        () = flow => {}
    }
}

/// Waits out a black hole. What it held back is lost when the way is cut.
async fn opened(seen: &mut watch::Receiver<State>) {
    let _ = seen.wait_for(|state| state.way == Way::Open).await;
}

/// Moves bytes; with `dropped`, frame by frame, without the messages that are to be lost.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut seen: watch::Receiver<State>,
    dropped: Option<&AtomicU64>,
) {
    let mut unread = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let Ok(count @ 1..) = from.read(&mut chunk).await else {
            return;
        };
        let delay = seen.borrow().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        opened(&mut seen).await;
        unread.extend_from_slice(&chunk[..count]);
        let Some(dropped) = dropped else {
            if to.write_all(&unread).await.is_err() {
                return;
            }
            unread.clear();
            continue;
        };
        let mut kept = Vec::new();
        let mut at = 0;
        let losing = seen.borrow().drop_messages;
        while let Some((reply, length)) = resp::parse(&unread[at..]) {
            if losing && resp::is_message(&reply) {
                dropped.fetch_add(1, Ordering::Relaxed);
            } else {
                kept.extend_from_slice(&unread[at..at + length]);
            }
            at += length;
        }
        unread.drain(..at);
        if to.write_all(&kept).await.is_err() {
            return;
        }
    }
}
