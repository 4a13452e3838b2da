//! TLS on a connection that is idle most of the time: rustls without its buffers.
//!
//! A buffered rustls connection keeps 4 KiB to read into for as long as it lives. Here records are read and decrypted in
//! a buffer that all connections of a thread share, and a connection keeps only what is left over: the beginning of a
//! record whose rest has not come, plain bytes that nobody has read yet, records that the kernel did not take.
//!
//! Owns: the way of bytes between the socket and rustls. Does not: choose versions or certificates, or know time-outs.
//! Called by: the listener, which shakes hands, and whoever reads and writes then.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Header of a record (RFC 8446 section 5.1), in bytes.
const HEADER: usize = 5;

/// Type of a record that shakes hands (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 22;

/// The longest record: 2^14 bytes, and 2,048 that TLS 1.2 allows ciphers to add (RFC 5246 section 6.2.3).
const LONGEST_RECORD: usize = HEADER + (1 << 14) + 2048;

/// Plain bytes of one record that is written. Small ones cost little memory while they wait.
const WRITTEN_AT_ONCE: usize = 1 << 14;

/// Records that wait for a peer that does not read, in bytes, before nothing more is taken.
const MOST_UNSENT: usize = 16 * 1024;

thread_local! {
    /// Where records are decrypted and encrypted. Nothing of it outlives a call.
    static SHARED: RefCell<Box<[u8]>> = RefCell::new(vec![0; LONGEST_RECORD + 256].into());
}

/// The server's side of a TLS connection.
pub struct TlsStream<S> {
    io: S,
    tls: UnbufferedServerConnection,
    /// The beginning of a record, or of a handshake message of several.
    partial: Vec<u8>,
    /// Decrypted, and read up to `read`.
    plain: Vec<u8>,
    read: usize,
    /// Encrypted, and taken by the kernel up to `sent`.
    unsent: Vec<u8>,
    sent: usize,
    /// The peer has said that it will send no more.
    ended: bool,
    closing: bool,
    /// What is written waits for the shutdown.
    corked: bool,
}

impl<S> TlsStream<S> {
    /// Begins on a connection of which nothing has been read.
    ///
    /// # Errors
    /// When the configuration cannot serve.
    pub fn new(io: S, config: Arc<ServerConfig>) -> io::Result<Self> {
        Ok(Self {
            io,
            tls: UnbufferedServerConnection::new(config).map_err(io::Error::other)?,
            partial: Vec::new(),
            plain: Vec::new(),
            read: 0,
            unsent: Vec::new(),
            sent: 0,
            ended: false,
            closing: false,
            corked: false,
        })
    }

    /// Lets the last words go out together with the shutdown, in one piece: from now on a flush sends nothing.
    pub fn cork(&mut self) {
        self.corked = true;
    }

    /// The connection below.
    pub fn get_ref(&self) -> &S {
        &self.io
    }

    /// What was agreed on.
    pub fn session(&self) -> &rustls::CommonState {
        &self.tls
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream<S> {
    /// Waits for the first record of the peer, or for what is none. It costs no cryptography. Safe to cancel.
    ///
    /// # Errors
    /// The connection ended.
    pub async fn hello(&mut self) -> io::Result<()> {
        let whole = |bytes: &[u8]| match bytes {
            [HANDSHAKE, _, _, high, low, ..] => {
                let length = HEADER + usize::from(u16::from_be_bytes([*high, *low]));
                bytes.len() >= length.min(LONGEST_RECORD)
            }
            [HANDSHAKE, ..] | [] => false,
            // No TLS: the handshake says so.
            _ => true,
        };
        poll_fn(|context| {
            while !whole(&self.partial) {
                ready!(self.poll_fill(context, |_, _| Ok(0)))?;
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Shakes hands. Safe to cancel, and to go on with.
    ///
    /// # Errors
    /// The connection ended, or the peer is none that can be talked to; it has been told, as far as it reads.
    pub async fn handshake(&mut self) -> io::Result<()> {
        poll_fn(|context| {
            let mut first = std::mem::take(&mut self.partial);
            let taken = self.advance(&mut first)?;
            first.drain(..taken);
            self.partial = first;
            loop {
                let done = !self.tls.is_handshaking();
                // The ticket goes out with the answer to a request that is here already.
                if !(done && self.is_readable()) {
                    ready!(self.poll_send(context))?;
                }
                if done {
                    return Poll::Ready(Ok(()));
                }
                ready!(self.poll_fill(context, Self::advance))?;
            }
        })
        .await
    }

    /// Reads once behind what is left over, and lets `take` have it all; what it does not take is left over.
    fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        take: impl FnOnce(&mut Self, &mut [u8]) -> io::Result<usize>,
    ) -> Poll<io::Result<()>> {
        SHARED.with_borrow_mut(|shared| {
            let kept = self.partial.len();
            if kept >= shared.len() {
                let message = "a handshake message is too long";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, message)));
            }
            shared[..kept].copy_from_slice(&self.partial);
            let mut buffer = ReadBuf::new(&mut shared[kept..]);
            ready!(Pin::new(&mut self.io).poll_read(context, &mut buffer))?;
            let filled = kept + buffer.filled().len();
            if filled == kept {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            let taken = take(self, &mut shared[..filled])?;
            self.partial.clear();
            self.partial.extend_from_slice(&shared[taken..filled]);
            if self.partial.is_empty() {
                self.partial = Vec::new();
            }
            Poll::Ready(Ok(()))
        })
    }

    /// Lets rustls take what it can of what came in, keeps what it wants to say, and answers how much it took.
    fn advance(&mut self, incoming: &mut [u8]) -> io::Result<usize> {
        let mut taken = 0;
        loop {
            let UnbufferedStatus { mut discard, state } =
                self.tls.process_tls_records(&mut incoming[taken..]);
            let mut waits = false;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(refused)?;
                        discard += record.discard;
                        self.plain.extend_from_slice(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(said)) => encode(said, &mut self.unsent)?,
                Ok(ConnectionState::TransmitTlsData(said)) => said.done(),
                Ok(ConnectionState::PeerClosed) => self.ended = true,
                Ok(ConnectionState::Closed) => {
                    self.ended = true;
                    waits = true;
                }
                Ok(_) => waits = true,
                Err(error) => {
                    self.tell_alert();
                    return Err(refused(error));
                }
            }
            taken += discard;
            if waits {
                return Ok(taken);
            }
        }
    }

    /// What rustls says of an error goes out if the kernel takes it at once.
    fn tell_alert(&mut self) {
        while let Ok(ConnectionState::EncodeTlsData(said)) = self.tls.process_tls_records(&mut []).state {
            if encode(said, &mut self.unsent).is_err() {
                return;
            }
        }
        let mut now = Context::from_waker(std::task::Waker::noop());
        let _ = self.poll_send(&mut now);
    }

    /// Brings what is unsent to the kernel.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.unsent.len() {
            let count = ready!(Pin::new(&mut self.io).poll_write(context, &self.unsent[self.sent..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += count;
        }
        (self.unsent, self.sent) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }

    fn is_readable(&self) -> bool {
        self.read < self.plain.len()
    }

    /// Hands plain bytes to the reader; true when there were any.
    fn give(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let rest = &self.plain[self.read..];
        let count = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..count]);
        self.read += count;
        if self.read == self.plain.len() {
            (self.plain, self.read) = (Vec::new(), 0);
        }
        count > 0
    }

    /// Encrypts with what rustls offers for writing now, and sends what the kernel takes.
    fn write_with<T>(
        &mut self,
        context: &mut Context<'_>,
        encrypt: impl Fn(&mut Traffic<'_, '_>, &mut [u8]) -> Result<(usize, T), EncryptError>,
    ) -> io::Result<T> {
        let mut partial = std::mem::take(&mut self.partial);
        let taken = self.advance(&mut partial);
        let written = taken.and_then(|taken| {
            partial.drain(..taken);
            let ConnectionState::WriteTraffic(mut traffic) = self
                .tls
                .process_tls_records(&mut partial)
                .state
                .map_err(refused)?
            else {
                return Err(io::ErrorKind::BrokenPipe.into());
            };
            SHARED.with_borrow_mut(|shared| {
                let (count, answer) = encrypt(&mut traffic, shared).map_err(io::Error::other)?;
                self.unsent.extend_from_slice(&shared[..count]);
                Ok(answer)
            })
        });
        self.partial = partial;
        let written = written?;
        // What does not go now goes with the next flush, read or write.
        if !self.corked || self.closing {
            let _ = self.poll_send(context)?;
        }
        Ok(written)
    }
}

type Traffic<'c, 'i> = rustls::unbuffered::WriteTraffic<'c, rustls::server::ServerConnectionData>;

fn refused(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Adds what rustls says of itself to what is unsent.
fn encode<Data>(mut said: EncodeTlsData<'_, Data>, unsent: &mut Vec<u8>) -> io::Result<()> {
    let at = unsent.len();
    if let Err(EncodeError::InsufficientSize(size)) = said.encode(&mut []) {
        unsent.resize(at + size.required_size, 0);
        said.encode(&mut unsent[at..]).map_err(io::Error::other)?;
    }
    Ok(())
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        loop {
            if buffer.remaining() == 0 || stream.give(buffer) || stream.ended {
                return Poll::Ready(Ok(()));
            }
            // A ticket, or the answer to a key update: it goes out without being waited for.
            let _ = stream.poll_send(context)?;
            ready!(stream.poll_fill(context, Self::advance))?;
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let stream = self.get_mut();
        if stream.unsent.len() - stream.sent >= MOST_UNSENT {
            ready!(stream.poll_send(context))?;
        }
        let count = bytes.len().min(WRITTEN_AT_ONCE);
        let encrypt = |traffic: &mut Traffic<'_, '_>, out: &mut [u8]| {
            traffic
                .encrypt(&bytes[..count], out)
                .map(|written| (written, count))
        };
        Poll::Ready(stream.write_with(context, encrypt))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        if stream.corked && !stream.closing {
            return Poll::Ready(Ok(()));
        }
        ready!(stream.poll_send(context))?;
        Pin::new(&mut stream.io).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        if !stream.closing {
            stream.closing = true;
            let close = |traffic: &mut Traffic<'_, '_>, out: &mut [u8]| {
                traffic.queue_close_notify(out).map(|written| (written, ()))
            };
            // Who was never talked to is told nothing.
            let _ = stream.write_with(context, close);
        }
        ready!(stream.poll_send(context))?;
        Pin::new(&mut stream.io).poll_shutdown(context)
    }
}
