//! One WebSocket in its steady state: frames in, frames out, nothing of HTTP left.
//!
//! Owns: the codec with its bounds and the mapping of its errors. Does not: know what the texts mean.
//! Called by: `gateway::line` (players) and `api::echo`.

mod meter;

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::{FutureExt, Sink, Stream};
use tokio::io::AsyncReadExt;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use crate::net::stream::{Handover, PlayerStream};
use crate::protocol::MAX_MESSAGE_BYTES;

use meter::{Meter, is_exhausted};

/// The peer gets this long to answer a close frame, then the connection is dropped.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// A refusal that names a thousand holders with the longest ids, in bytes.
const LARGEST_ANSWER: usize = 8 * 1024 * 1024;

/// Header of the longest frame that a server sends (RFC 6455 section 5.2), in bytes.
const FRAME_OVERHEAD: usize = 10;

/// A WebSocket.
pub struct Socket {
    codec: WebSocketStream<Meter<PlayerStream>>,
    /// Bytes that have not reached the kernel yet, about; 0 when all have.
    unsent: usize,
    /// Unsent bytes at which the peer is too slow for one more message.
    patience: usize,
    /// Whether somebody waits for the unsent bytes to reach the kernel.
    watched: bool,
}

/// Bounds of a codec. The library's own defaults (128 KiB read buffer, 64 MiB messages, endless write buffer) would
/// let a stranger choose this node's memory.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Largest message, in bytes.
    pub message: usize,
    /// Read buffer, allocated at once, in bytes.
    pub read_buffer: usize,
    /// Unsent bytes at which the peer is too slow for one more message.
    pub write_buffer: usize,
}

impl Bounds {
    /// Of a player's codec: its messages are at most 4 KiB, most of them under 100 bytes.
    pub const PLAYER: Self = Self {
        message: MAX_MESSAGE_BYTES,
        read_buffer: 256,
        write_buffer: 16 * 1024,
    };

    /// The codec's settings under these bounds; the load tool's floor server has the same.
    #[must_use]
    pub fn codec(self) -> WebSocketConfig {
        WebSocketConfig::default()
            .read_buffer_size(self.read_buffer)
            .write_buffer_size(0)
            .max_write_buffer_size(self.write_buffer.saturating_add(LARGEST_ANSWER))
            .max_message_size(Some(self.message))
            .max_frame_size(Some(self.message))
            .accept_unmasked_frames(false)
    }
}

/// What came in.
#[derive(Debug)]
pub enum Inbound {
    /// A text message.
    Text(Utf8Bytes),
    /// A binary message.
    Binary(bytes::Bytes),
    /// A ping (answered by the codec) or a pong.
    Control,
    /// Nothing: what was sent has reached the kernel, and [`Socket::tell_when_empty`] asked for word of it.
    Empty,
    /// The peer's close frame with its code.
    Close(Option<u16>),
    /// The connection is gone without a close frame.
    Lost,
    /// The peer broke the protocol.
    Fault(Fault),
}

/// A breach of RFC 6455 or of the bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Above the size limit.
    TooLarge,
    /// A text that is not UTF-8.
    Utf8,
    /// Anything else that RFC 6455 forbids.
    Protocol,
    /// Frames without end and no message: the codec swallows fragments, so that no limit on messages sees them.
    Scattered,
}

/// The peer does not read: too much waits for it already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotSent;

impl Socket {
    /// The socket of an upgraded connection. `handover.leftover` is what the peer sent right behind its upgrade.
    #[must_use]
    pub fn new(handover: Handover, bounds: Bounds) -> Self {
        let Handover { stream, leftover } = handover;
        // A copy: hyper's buffer behind the leftover is 8 KiB, and the codec would keep it.
        let leftover = leftover.to_vec();
        let stream = Meter::new(stream, bounds.message);
        let codec =
            WebSocketStream::from_partially_read(stream, leftover, Role::Server, Some(bounds.codec()));
        // Asynchronous in its signature only.
        let codec = codec
            .now_or_never()
            .expect("a codec without a handshake is there at once");
        Self {
            codec,
            unsent: 0,
            patience: bounds.write_buffer,
            watched: false,
        }
    }

    /// The next thing that comes in, while what was sent goes out. Safe to cancel.
    pub async fn receive(&mut self) -> Inbound {
        poll_fn(|context| {
            // Where writing fails, reading tells how the connection ended: a close frame may wait there.
            if self.unsent > 0 && Pin::new(&mut self.codec).poll_flush(context).is_ready() {
                self.unsent = 0;
            }
            if self.unsent == 0 && std::mem::take(&mut self.watched) {
                return Poll::Ready(Inbound::Empty);
            }
            let item = Pin::new(&mut self.codec).poll_next(context);
            if item.is_ready() {
                self.codec.get_mut().reset();
            }
            item.map(inbound)
        })
        .await
    }

    /// Queues a message; it goes out with the next [`receive`](Self::receive) or [`flush`](Self::flush).
    ///
    /// # Errors
    /// [`NotSent`] when the peer has left too much unread. It is judged by what waits before this message, so that a
    /// large one reaches whoever reads. A broken connection is no error here: the next read tells.
    pub fn send(&mut self, message: Message) -> Result<(), NotSent> {
        if self.unsent >= self.patience {
            return Err(NotSent);
        }
        self.unsent += message.len() + FRAME_OVERHEAD;
        let _ = Pin::new(&mut self.codec).start_send(message);
        Ok(())
    }

    /// Whether the peer keeps up so well that what can wait need not: half of the bound is for what cannot.
    pub fn has_room(&self) -> bool {
        self.unsent < self.patience / 2
    }

    /// [`receive`](Self::receive) says [`Inbound::Empty`] once all that was sent has reached the kernel.
    pub fn tell_when_empty(&mut self) {
        self.watched = true;
    }

    /// Brings what was sent to the kernel, for at most `limit`; whether all of it got there.
    pub async fn flush(&mut self, limit: Duration) -> bool {
        let flush = poll_fn(|context| Pin::new(&mut self.codec).poll_flush(context));
        let flushed = matches!(tokio::time::timeout(limit, flush).await, Ok(Ok(())));
        if flushed {
            self.unsent = 0;
        }
        flushed
    }

    /// Whether unread bytes wait in the kernel.
    pub fn has_unread(&self) -> bool {
        self.codec.get_ref().get_ref().unread_bytes() > 0
    }

    /// Closes with a code, then lets the peer close first: a reset would destroy what it has not read yet. A peer
    /// that does not read what was said before gets no close frame.
    pub async fn close(mut self, code: u16, reason: &'static str) {
        let frame = CloseFrame {
            code: CloseCode::from(code),
            reason: Utf8Bytes::from_static(reason),
        };
        if self.flush(CLOSE_WAIT).await {
            self.cork();
            if self.send(Message::Close(Some(frame))).is_ok() {
                self.finish().await;
            }
        }
    }

    /// The close frame goes out in one piece with the end of the connection.
    fn cork(&mut self) {
        self.codec.get_mut().get_mut().cork();
    }

    /// Answers the peer's close frame and lets the connection end.
    pub async fn finish(mut self) {
        self.cork();
        self.flush(CLOSE_WAIT).await;
        let mut stream = self.codec.into_inner().into_inner();
        let end = async {
            tokio::io::AsyncWriteExt::shutdown(&mut stream).await?;
            let mut sink = [0; 512];
            while stream.read(&mut sink).await? > 0 {}
            Ok::<_, std::io::Error>(())
        };
        // Nobody is left to hear of a failure.
        let _ = tokio::time::timeout(CLOSE_WAIT, end).await;
    }
}

fn inbound(item: Option<Result<Message, Error>>) -> Inbound {
    match item {
        Some(Ok(Message::Text(text))) => Inbound::Text(text),
        Some(Ok(Message::Binary(bytes))) => Inbound::Binary(bytes),
        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Inbound::Control,
        Some(Ok(Message::Close(frame))) => Inbound::Close(frame.map(|frame| frame.code.into())),
        Some(Err(Error::Capacity(CapacityError::MessageTooLong { .. }))) => Inbound::Fault(Fault::TooLarge),
        Some(Err(Error::Utf8(_))) => Inbound::Fault(Fault::Utf8),
        Some(Err(Error::Protocol(
            tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
        ))) => Inbound::Lost,
        Some(Err(Error::Protocol(_) | Error::Capacity(_))) => Inbound::Fault(Fault::Protocol),
        Some(Err(Error::Io(error))) if is_exhausted(&error) => Inbound::Fault(Fault::Scattered),
        Some(Err(_)) | None => Inbound::Lost,
    }
}
