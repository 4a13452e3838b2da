//! What a peer may send before a message of it is whole.
//!
//! The codec puts fragments together by itself and tells nobody: a flood of empty ones would pass every limit on
//! messages and, as long as it lasts, keep the task from its timer. Owns: counting. Called by: `gateway::socket`.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A fragment of one byte takes seven on the wire: two of header, four of mask (RFC 6455 section 5.2).
const OVERHEAD: usize = 8;

/// For empty fragments, and for what is read ahead of the next message, in bytes.
const SLACK: usize = 16 * 1024;

/// A stream that is read no further once it has given too many bytes for one message.
pub(super) struct Meter<S> {
    stream: S,
    allowance: usize,
    left: usize,
}

/// Marks the error of a meter that has run out.
#[derive(Debug, thiserror::Error)]
#[error("too many bytes for one message")]
struct Exhausted;

/// Whether this error is a meter's that has run out.
pub(super) fn is_exhausted(error: &io::Error) -> bool {
    error
        .get_ref()
        .is_some_and(<dyn std::error::Error + Send + Sync>::is::<Exhausted>)
}

impl<S> Meter<S> {
    /// For messages of at most this many bytes.
    pub(super) fn new(stream: S, message: usize) -> Self {
        let allowance = message.saturating_mul(OVERHEAD).saturating_add(SLACK);
        Self {
            stream,
            allowance,
            left: allowance,
        }
    }

    /// A message is whole.
    pub(super) fn reset(&mut self) {
        self.left = self.allowance;
    }

    pub(super) fn get_ref(&self) -> &S {
        &self.stream
    }

    pub(super) fn get_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    pub(super) fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Meter<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            return Poll::Ready(Err(io::Error::other(Exhausted)));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        let count = buffer.filled().len() - before;
        self.left = self.left.saturating_sub(count);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Meter<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
