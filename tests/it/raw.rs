//! A WebSocket client that writes its bytes by hand, where a client library would not.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::harness::{Node, SOON, token};

pub(crate) const TEXT: u8 = 0x81;
pub(crate) const BINARY: u8 = 0x82;
pub(crate) const CLOSE: u8 = 0x88;
pub(crate) const PING: u8 = 0x89;
pub(crate) const PONG: u8 = 0x8a;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// An upgraded connection.
pub(crate) struct Raw {
    pub(crate) frames: Frames,
    pub(crate) writer: WriteHalf<TlsStream<TcpStream>>,
}

/// What comes in.
pub(crate) struct Frames {
    pub(crate) reader: ReadHalf<TlsStream<TcpStream>>,
    read: Vec<u8>,
}

/// A frame as it came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// FIN, reserved bits and opcode.
    pub(crate) first: u8,
    pub(crate) payload: Vec<u8>,
}

/// A masked frame.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(first, payload.len() as u64);
    bytes.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    bytes
}

/// The header of a masked frame that claims this length.
pub(crate) fn header(first: u8, length: u64) -> Vec<u8> {
    let mut bytes = vec![first];
    match length {
        0..126 => bytes.push(0x80 | length as u8),
        126..0x1_0000 => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes
}

/// A request head that asks for an upgrade.
pub(crate) fn upgrade(path: &str, token: Option<&str>) -> String {
    let token = token
        .map(|token| format!("Authorization: Bearer {token}\r\n"))
        .unwrap_or_default();
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{token}\r\n"
    )
}

impl Raw {
    /// A player's socket, not yet read from.
    pub(crate) async fn watch(node: &Node, account: &str) -> Self {
        Self::open(node, "/v1/watch?content=m&device=d", Some(&token(account)), b"").await
    }

    pub(crate) async fn echo(node: &Node) -> Self {
        Self::open(node, "/debug/echo", None, b"").await
    }

    /// Upgrades, with `behind` in the same write as the request.
    pub(crate) async fn open(node: &Node, path: &str, token: Option<&str>, behind: &[u8]) -> Self {
        Self::upgrade(node.connect().await, path, token, behind).await
    }

    pub(crate) async fn upgrade(
        mut stream: TlsStream<TcpStream>,
        path: &str,
        token: Option<&str>,
        behind: &[u8],
    ) -> Self {
        let request = [upgrade(path, token).as_bytes(), behind].concat();
        stream.write_all(&request).await.unwrap();
        let (reader, writer) = tokio::io::split(stream);
        let mut frames = Frames {
            reader,
            read: Vec::new(),
        };
        let head = loop {
            if let Some(end) = frames.read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break frames.read.drain(..end + 4).collect::<Vec<_>>();
            }
            assert!(frames.fill().await.unwrap(), "closed instead of upgraded");
        };
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        Self { frames, writer }
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.writer.write_all(bytes).await.unwrap();
    }

    pub(crate) async fn say(&mut self, text: &str) {
        self.write(&frame(TEXT, text.as_bytes())).await;
    }

    /// The next frame; see [`Frames::next`].
    pub(crate) async fn frame(&mut self) -> Option<Frame> {
        self.frames.next().await
    }

    /// The next text, as JSON.
    pub(crate) async fn message(&mut self) -> Value {
        let frame = self.frame().await.expect("a message");
        assert_eq!(frame.first, TEXT, "{frame:?}");
        serde_json::from_slice(&frame.payload).unwrap()
    }

    /// The texts until the close frame, and its code; answers it and waits for the end of the connection.
    pub(crate) async fn closed(&mut self) -> (Vec<Value>, u16) {
        let mut texts = Vec::new();
        loop {
            let frame = self.frame().await.expect("a close frame");
            match frame.first {
                TEXT => texts.push(serde_json::from_slice(&frame.payload).unwrap()),
                CLOSE => {
                    let code = frame
                        .payload
                        .first_chunk()
                        .map_or(1005, |code| u16::from_be_bytes(*code));
                    // The server may have closed its side already: its end is what counts.
                    let _ = self
                        .writer
                        .write_all(&self::frame(CLOSE, &code.to_be_bytes()))
                        .await;
                    assert_eq!(self.frame().await, None);
                    return (texts, code);
                }
                _ => {}
            }
        }
    }
}

impl Frames {
    /// The next frame; none when the connection ends as TLS wants it. Panics when it breaks.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, length)) = parse(&self.read) {
                self.read.drain(..length);
                return Some(frame);
            }
            if !self.fill().await.expect("an orderly end, not a reset") {
                assert!(self.read.is_empty(), "half a frame: {:?}", self.read);
                return None;
            }
        }
    }

    async fn fill(&mut self) -> std::io::Result<bool> {
        let read = self.reader.read_buf(&mut self.read);
        tokio::time::timeout(SOON * 2, read)
            .await
            .expect("bytes in time")
            .map(|count| count > 0)
    }
}

/// An unmasked frame at the start of these bytes, and how many it takes.
fn parse(bytes: &[u8]) -> Option<(Frame, usize)> {
    let [first, length, rest @ ..] = bytes else {
        return None;
    };
    assert_eq!(length & 0x80, 0, "a server masks nothing");
    let (length, rest) = match length {
        126 => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            (u16::from_be_bytes(*length).into(), rest)
        }
        127 => {
            let (length, rest) = rest.split_first_chunk::<8>()?;
            (usize::try_from(u64::from_be_bytes(*length)).unwrap(), rest)
        }
        length => (usize::from(*length), rest),
    };
    let payload = rest.get(..length)?.to_vec();
    let taken = bytes.len() - rest.len() + length;
    Some((
        Frame {
            first: *first,
            payload,
        },
        taken,
    ))
}
