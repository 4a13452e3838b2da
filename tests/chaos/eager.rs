//! A TCP stream that asks the kernel at every read.
//!
//! Tokio asks only when its reactor has seen an event, which on a busy machine is later than the bytes came. A reader
//! that must know what had arrived before something else (see `swarm`) cannot wait for that. Called by: `swarm`.

use std::io::{self, ErrorKind, Read};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

pub(crate) struct Eager(pub(crate) TcpStream);

impl Eager {
    /// Whoever drops it next resets the connection.
    pub(crate) fn reset_on_drop(&self) {
        let _ = self.0.set_zero_linger();
    }
}

impl AsyncRead for Eager {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = &self.0;
        loop {
            match receive(stream, buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                received => return Poll::Ready(received),
            }
            ready!(stream.poll_read_ready(cx))?;
            // The reactor's flag may be stale: this clears it when there is nothing.
            match stream.try_io(Interest::READABLE, || receive(stream, buffer)) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                received => return Poll::Ready(received),
            }
        }
    }
}

fn receive(stream: &TcpStream, buffer: &mut ReadBuf<'_>) -> io::Result<()> {
    let socket = SockRef::from(stream);
    let count = (&*socket).read(buffer.initialize_unfilled())?;
    buffer.advance(count);
    Ok(())
}

impl AsyncWrite for Eager {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
