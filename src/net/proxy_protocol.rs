//! The PROXY protocol, version 2 (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>, section 2.2).
//!
//! Owns: the header that a load balancer puts before the first byte of a connection.
//! Does not: decide whose header is believed ([`super::address`]), nor set a deadline.
//! Called by: the listener, before TLS, when `listen.proxy_protocol` is on.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt};

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const PREFIX_BYTES: usize = 16;
/// The longest header that is read: TCP6 addresses and 500 bytes of TLVs, the 536 bytes that the specification
/// recommends to stay under, after the prefix.
const MAX_HEADER_BYTES: usize = PREFIX_BYTES + 536;

/// What the first bytes of a connection say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The header needs at least this many bytes in all, and that many may be read without touching what follows.
    Partial {
        /// Bytes from the start of the connection.
        needed: usize,
    },
    /// The whole header.
    Complete {
        /// Bytes that the header takes.
        length: usize,
        /// The client; none when the peer's own address counts: a balancer's health check (`LOCAL`), or a family
        /// other than TCP.
        source: Option<SocketAddr>,
    },
}

/// Why a connection's start is no PROXY v2 header. The connection is to be closed.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// Something else, such as TLS straight away.
    #[error("no PROXY protocol v2 header; does the balancer send one (`listen.proxy_protocol` is on)?")]
    NotProxy,
    /// The text header of version 1.
    #[error("PROXY protocol v1 (text); the balancer must send version 2")]
    Version1,
    /// A version, command or family that the specification does not know.
    #[error("PROXY header with an unknown {0}")]
    Unknown(&'static str),
    /// Longer than any balancer's.
    #[error("PROXY header of {0} bytes; at most {MAX_HEADER_BYTES} are read")]
    TooLong(usize),
    /// Too short for the addresses of its family.
    #[error("PROXY header too short for its addresses")]
    TooShort,
    /// The peer went away, or closed in mid-header.
    #[error("reading the PROXY header: {0}")]
    Io(#[from] io::Error),
}

/// Reads what `bytes`, the start of a connection, hold of a header.
///
/// # Errors
/// As soon as the bytes so far cannot begin a header; see [`ProxyError`].
pub fn parse(bytes: &[u8]) -> Result<Parsed, ProxyError> {
    let common = bytes.len().min(SIGNATURE.len());
    if bytes[..common] != SIGNATURE[..common] {
        return Err(if bytes.starts_with(b"PROXY") {
            ProxyError::Version1
        } else {
            ProxyError::NotProxy
        });
    }
    let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX_BYTES>() else {
        return Ok(Parsed::Partial { needed: PREFIX_BYTES });
    };
    let [.., command, family, high, low] = *prefix;
    let is_proxied = match command {
        0x20 => false,
        0x21 => true,
        _ => return Err(ProxyError::Unknown("version or command")),
    };
    let body_length = usize::from(u16::from_be_bytes([high, low]));
    let length = PREFIX_BYTES + body_length;
    if length > MAX_HEADER_BYTES {
        return Err(ProxyError::TooLong(length));
    }
    let Some(body) = rest.get(..body_length) else {
        return Ok(Parsed::Partial { needed: length });
    };
    let source = if is_proxied { source(family, body)? } else { None };
    Ok(Parsed::Complete { length, source })
}

/// Reads the header and not one byte more; the answer is [`Parsed::Complete`]'s `source`. Sets no deadline.
///
/// # Errors
/// When the connection starts with anything else or ends; see [`ProxyError`].
pub async fn read<R: AsyncRead + Unpin>(stream: &mut R) -> Result<Option<SocketAddr>, ProxyError> {
    // On the heap, so that the task of a socket does not carry it for life.
    let mut bytes = vec![0; PREFIX_BYTES];
    let mut filled = 0;
    loop {
        match parse(&bytes[..filled])? {
            Parsed::Complete { source, .. } => return Ok(source),
            Parsed::Partial { needed } => bytes.resize(needed, 0),
        }
        match stream.read(&mut bytes[filled..]).await? {
            0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            count => filled += count,
        }
    }
}

/// The source address that starts the body of a TCP header; TLVs after the addresses are skipped.
fn source(family: u8, body: &[u8]) -> Result<Option<SocketAddr>, ProxyError> {
    let address = match family {
        // TCP4: source, destination, source port, destination port.
        0x11 => {
            let addresses: &[u8; 12] = body.first_chunk().ok_or(ProxyError::TooShort)?;
            let [a, b, c, d, _, _, _, _, high, low, ..] = *addresses;
            SocketAddr::from((Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low])))
        }
        // TCP6, in the same order.
        0x21 => {
            let addresses: &[u8; 36] = body.first_chunk().ok_or(ProxyError::TooShort)?;
            let (source, rest) = addresses.split_first_chunk::<16>().ok_or(ProxyError::TooShort)?;
            let [.., high, low, _, _] = *rest else {
                return Err(ProxyError::TooShort);
            };
            SocketAddr::from((
                Ipv6Addr::from(*source).to_canonical(),
                u16::from_be_bytes([high, low]),
            ))
        }
        // UNSPEC, UDP and UNIX name no TCP client.
        0x00..=0x02 | 0x10 | 0x12 | 0x20 | 0x22 | 0x30..=0x32 => return Ok(None),
        _ => return Err(ProxyError::Unknown("family")),
    };
    Ok(Some(address))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    use super::*;

    fn header(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [SIGNATURE, [command, family].as_slice(), &length, body].concat()
    }

    fn tcp4() -> Vec<u8> {
        header(0x21, 0x11, &[192, 0, 2, 1, 10, 0, 0, 1, 0x12, 0x67, 0x01, 0xbb])
    }

    fn tcp6(source: &str, tlvs: &[u8]) -> Vec<u8> {
        let source: Ipv6Addr = source.parse().unwrap();
        header(
            0x21,
            0x21,
            &[
                &source.octets(),
                [0; 16].as_slice(),
                &[0x12, 0x67, 0x01, 0xbb],
                tlvs,
            ]
            .concat(),
        )
    }

    fn complete(bytes: &[u8]) -> Option<SocketAddr> {
        match parse(bytes).unwrap() {
            Parsed::Complete { length, source } => {
                assert_eq!(length, bytes.len());
                source
            }
            partial @ Parsed::Partial { .. } => unreachable!("{partial:?}"),
        }
    }

    #[test]
    fn the_source_comes_from_the_header() {
        assert_eq!(complete(&tcp4()), Some("192.0.2.1:4711".parse().unwrap()));
        assert_eq!(
            complete(&tcp6("2001:db8::1", &[])),
            Some("[2001:db8::1]:4711".parse().unwrap())
        );
        assert_eq!(
            complete(&tcp6("::ffff:192.0.2.1", &[])),
            Some("192.0.2.1:4711".parse().unwrap())
        );
        assert_eq!(
            complete(&tcp6("2001:db8::1", &[3, 0, 4, 1, 2, 3, 4])),
            Some("[2001:db8::1]:4711".parse().unwrap())
        );
    }

    #[test]
    fn the_peer_counts_for_local_and_other_families() {
        assert_eq!(complete(&header(0x20, 0x00, &[])), None);
        assert_eq!(complete(&header(0x20, 0x11, &[1; 12])), None);
        assert_eq!(complete(&header(0x21, 0x00, &[1, 2, 3])), None);
        assert_eq!(complete(&header(0x21, 0x12, &[1; 12])), None);
        assert_eq!(complete(&header(0x21, 0x31, &[1; 216])), None);
    }

    #[test]
    fn anything_else_is_refused_early() {
        assert!(matches!(
            parse(b"PROXY TCP4 192.0.2.1"),
            Err(ProxyError::Version1)
        ));
        assert!(matches!(parse(b"PROXY"), Err(ProxyError::Version1)));
        assert!(matches!(parse(&[0x16]), Err(ProxyError::NotProxy)));
        assert!(matches!(parse(b"GET / HTTP/1.1\r\n"), Err(ProxyError::NotProxy)));
        assert!(matches!(
            parse(&header(0x11, 0x11, &[0; 12])),
            Err(ProxyError::Unknown(_))
        ));
        assert!(matches!(
            parse(&header(0x22, 0x11, &[0; 12])),
            Err(ProxyError::Unknown(_))
        ));
        assert!(matches!(
            parse(&header(0x21, 0x41, &[0; 12])),
            Err(ProxyError::Unknown(_))
        ));
        assert!(matches!(
            parse(&header(0x21, 0x11, &[0; 11])),
            Err(ProxyError::TooShort)
        ));
        assert!(matches!(
            parse(&header(0x21, 0x21, &[0; 35])),
            Err(ProxyError::TooShort)
        ));
        assert!(matches!(
            parse(&header(0x21, 0x11, &[0; 537])),
            Err(ProxyError::TooLong(553))
        ));
        assert_eq!(complete(&header(0x21, 0x00, &[0; 536])), None);
    }

    #[tokio::test]
    async fn reading_stops_where_the_header_ends() {
        let (mut near, mut far) = tokio::io::duplex(4096);
        near.write_all(&[tcp6("2001:db8::1", &[0; 40]), b"TLS".to_vec()].concat())
            .await
            .unwrap();
        assert_eq!(
            read(&mut far).await.unwrap(),
            Some("[2001:db8::1]:4711".parse().unwrap())
        );
        let mut rest = [0; 3];
        far.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"TLS");
    }

    #[tokio::test]
    async fn reading_bytewise_and_an_early_end() {
        let (mut near, mut far) = tokio::io::duplex(1);
        let whole = tcp4();
        let writer = tokio::spawn(async move { near.write_all(&whole).await });
        assert_eq!(
            read(&mut far).await.unwrap(),
            Some("192.0.2.1:4711".parse().unwrap())
        );
        writer.await.unwrap().unwrap();

        let mut short = &tcp4()[..20];
        assert!(matches!(read(&mut short).await, Err(ProxyError::Io(_))));
        // No wait for 16 bytes when the first one already tells.
        let (mut near, mut far) = tokio::io::duplex(16);
        near.write_all(&[0x16]).await.unwrap();
        assert!(matches!(read(&mut far).await, Err(ProxyError::NotProxy)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..700)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn no_body_makes_it_panic(
            command in 0x1eu8..0x24, family: u8, length: u16, body in prop::collection::vec(any::<u8>(), 0..700)
        ) {
            let mut bytes = header(command, family, &body);
            bytes[14..16].copy_from_slice(&length.to_be_bytes());
            match parse(&bytes) {
                Ok(Parsed::Partial { needed }) => prop_assert!(needed > bytes.len() && needed <= MAX_HEADER_BYTES),
                Ok(Parsed::Complete { length, .. }) => prop_assert!(length <= bytes.len()),
                Err(_) => {}
            }
        }
    }
}
