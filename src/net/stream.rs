//! The byte stream of a player once HTTP is done with it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::limits::{ClientGuard, ConnectionGuard};
use super::listener::Open;
use super::tls::stream::TlsStream;

/// Kernel buffers of an upgraded socket, in bytes, each way. Its messages are tiny; without this the kernel would
/// keep up to megabytes for a peer that does not read.
const SOCKET_BUFFER: usize = 16 * 1024;

/// TLS over TCP, boxed so that what is moved about is a pointer.
pub struct PlayerStream {
    tls: Box<TlsStream<TcpStream>>,
    /// Given back when the connection ends.
    _guards: Guards,
}

/// What a connection holds while it is open, besides itself.
pub(super) struct Guards {
    pub(super) _connection: ConnectionGuard,
    pub(super) _open: Open,
    /// A client behind a proxy, by the PROXY header.
    pub(super) _proxied: Option<ClientGuard>,
    /// A client behind a proxy, by `X-Forwarded-For`.
    pub(super) forwarded: Option<ClientGuard>,
}

/// A connection taken out of hyper.
pub struct Handover {
    /// The stream.
    pub stream: PlayerStream,
    /// Bytes that hyper had read beyond the request.
    pub leftover: Bytes,
}

impl Handover {
    /// Lets the stream hold the place of a client behind a proxy too.
    #[must_use]
    pub fn with(mut self, client: Option<ClientGuard>) -> Self {
        self.stream._guards.forwarded = client;
        self
    }
}

impl PlayerStream {
    pub(super) fn new(stream: TlsStream<TcpStream>, guards: Guards) -> Self {
        slim(&stream);
        Self {
            tls: Box::new(stream),
            _guards: guards,
        }
    }

    /// Lets the last words go out together with the shutdown: from now on a flush sends nothing.
    pub fn cork(&mut self) {
        self.tls.cork();
    }

    /// Bytes that wait in the kernel (0 when it cannot tell).
    #[must_use]
    pub fn unread_bytes(&self) -> u64 {
        rustix::io::ioctl_fionread(self.tls.get_ref()).unwrap_or(0)
    }
}

/// Gives an upgraded connection the small buffers of a player's; the load tool's floor server has the same.
pub fn slim(stream: &TlsStream<TcpStream>) {
    let socket = socket2::SockRef::from(stream.get_ref());
    // Smaller buffers are a matter of memory only: the connection works without.
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
}

impl AsyncRead for PlayerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.tls).poll_read(context, buffer)
    }
}

impl AsyncWrite for PlayerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.tls).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.tls).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.tls).poll_shutdown(context)
    }
}
