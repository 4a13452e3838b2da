//! A TCP proxy between a browser and a gateway that breaks the way on purpose.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What happens to the bytes.
#[derive(Clone, Copy)]
struct Way {
    /// Connections of earlier lives are reset.
    life: u64,
    /// Open, and nothing moves.
    black: bool,
}

pub(crate) struct Cutter {
    pub(crate) address: SocketAddr,
    way: watch::Sender<Way>,
    task: JoinHandle<()>,
}

impl Cutter {
    pub(crate) async fn to(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (way, seen) = watch::channel(Way {
            life: 0,
            black: false,
        });
        let task = tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else {
                    continue;
                };
                tokio::spawn(carry(client, upstream, seen.clone()));
            }
        });
        Self { address, way, task }
    }

    /// Resets every connection that is open now.
    pub(crate) fn cut(&self) {
        self.way.send_modify(|way| way.life += 1);
    }

    /// Moves nothing any more, or everything again, what was held back first.
    pub(crate) fn black_hole(&self, black: bool) {
        self.way.send_modify(|way| way.black = black);
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(client: TcpStream, upstream: SocketAddr, seen: watch::Receiver<Way>) {
    let _ = client.set_zero_linger();
    let life = seen.borrow().life;
    let mut cut = seen.clone();
    let flow = async {
        let Ok(server) = TcpStream::connect(upstream).await else {
            return;
        };
        let _ = server.set_zero_linger();
        let (client_read, client_write) = client.into_split();
        let (server_read, server_write) = server.into_split();
        tokio::select! {
            () = pump(client_read, server_write, seen.clone()) => {}
            () = pump(server_read, client_write, seen) => {}
        }
    };
    // Dropping the sockets resets them.
    tokio::select! {
        _ = cut.wait_for(|way| way.life != life) => {}
        () = flow => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut seen: watch::Receiver<Way>) {
    let mut chunk = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut chunk).await {
        let _ = seen.wait_for(|way| !way.black).await;
        if to.write_all(&chunk[..count]).await.is_err() {
            return;
        }
    }
}
