//! As much of the Redis protocol (RESP2 and 3) as the tests need: where a frame ends, what a push is, and a client.
//!
//! Called by: `cutter` (frames) and `servers` (commands).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reply {
    Text(String),
    Error(String),
    Int(i64),
    Nil,
    Array(Vec<Reply>),
}

impl Reply {
    pub(crate) fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            other => panic!("no text: {other:?}"),
        }
    }

    pub(crate) fn array(self) -> Vec<Self> {
        match self {
            Self::Array(items) => items,
            other => panic!("no array: {other:?}"),
        }
    }
}

/// Reads one frame from the front: it and its length; `None`: not all there yet.
pub(crate) fn parse(bytes: &[u8]) -> Option<(Reply, usize)> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    let (kind, line) = (bytes[0], std::str::from_utf8(&bytes[1..end]).unwrap_or_default());
    let mut at = end + 2;
    let number = || line.parse::<i64>().unwrap_or(0);
    let reply = match kind {
        b'$' | b'=' | b'!' => match usize::try_from(number()) {
            Err(_) => Reply::Nil,
            Ok(length) => {
                let text = bytes.get(at..at + length + 2)?;
                at += length + 2;
                let text = String::from_utf8_lossy(&text[..length]).into_owned();
                if kind == b'!' {
                    Reply::Error(text)
                } else {
                    Reply::Text(text)
                }
            }
        },
        b'*' | b'~' | b'>' | b'%' | b'|' => match usize::try_from(number()) {
            Err(_) => Reply::Nil,
            Ok(count) => {
                let count = if matches!(kind, b'%' | b'|') {
                    count * 2
                } else {
                    count
                };
                let mut items = Vec::new();
                for _ in 0..count {
                    let (item, length) = parse(&bytes[at..])?;
                    items.push(item);
                    at += length;
                }
                Reply::Array(items)
            }
        },
        b'-' => Reply::Error(line.to_owned()),
        b':' => Reply::Int(number()),
        b'_' => Reply::Nil,
        _ => Reply::Text(line.to_owned()),
    };
    Some((reply, at))
}

/// Whether a frame is a message of pub/sub, not the answer to a command.
pub(crate) fn is_message(reply: &Reply) -> bool {
    let Reply::Array(items) = reply else { return false };
    matches!(items.first(), Some(Reply::Text(kind)) if ["message", "smessage", "pmessage"].contains(&&**kind))
}

/// A client that waits for each answer.
pub(crate) struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(port: u16) -> std::io::Result<Self> {
        let address = ([127, 0, 0, 1], port).into();
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            unread: Vec::new(),
        })
    }

    pub(crate) fn command(&mut self, words: &[&str]) -> std::io::Result<Reply> {
        let mut frame = format!("*{}\r\n", words.len());
        for word in words {
            frame += &format!("${}\r\n{word}\r\n", word.len());
        }
        self.stream.write_all(frame.as_bytes())?;
        let mut chunk = [0; 16 * 1024];
        loop {
            if let Some((reply, length)) = parse(&self.unread) {
                self.unread.drain(..length);
                return Ok(reply);
            }
            match self.stream.read(&mut chunk)? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                count => self.unread.extend_from_slice(&chunk[..count]),
            }
        }
    }
}

#[test]
fn frames_end_where_they_end() {
    for frame in [
        "+OK\r\n",
        "-ERR no\r\n",
        ":12\r\n",
        "$-1\r\n",
        "$4\r\na\r\nb\r\n",
        "*-1\r\n",
        "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$0\r\n\r\n",
        ">3\r\n$8\r\nsmessage\r\n$1\r\nc\r\n$1\r\nx\r\n",
        "%1\r\n+a\r\n*2\r\n:1\r\n_\r\n",
    ] {
        for end in 0..frame.len() {
            assert_eq!(parse(&frame.as_bytes()[..end]), None, "{frame:?} to {end}");
        }
        let (reply, length) = parse(format!("{frame}+more\r\n").as_bytes()).unwrap();
        assert_eq!(length, frame.len());
        assert_eq!(is_message(&reply), frame.contains("message"), "{frame:?}");
    }
}
