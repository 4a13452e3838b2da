//! Real handshakes with a rustls client over an in-memory pipe.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::{fs, io};

use rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio_rustls::{TlsConnector, client};

use super::stream::TlsStream;
use super::*;
use crate::net::certificate::tests::{copy_pair, fresh_pair};
use crate::net::certificate::{CertPaths, Reload};
use crate::net::scratch::Scratch;

type Ends = (client::TlsStream<DuplexStream>, TlsStream<Narrow>);

fn server_of(paths: &CertPaths) -> (Arc<Certificates>, Arc<ServerConfig>) {
    let certificates = Arc::new(Certificates::load(paths.clone(), provider()).unwrap());
    let config = server_config(Arc::clone(&certificates)).unwrap();
    (certificates, config)
}

fn client_of(
    paths: &CertPaths,
    version: &'static SupportedProtocolVersion,
    alpn: &[&str],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let ca = fs::read(paths.ca.as_ref().unwrap()).unwrap();
    roots.add(CertificateDer::from_pem_slice(&ca).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// A pipe of which so many bytes are read or written at once.
struct Narrow(DuplexStream, usize);

impl AsyncRead for Narrow {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let most = self.1.min(buffer.remaining());
        let mut part = buffer.take(most);
        ready!(Pin::new(&mut self.0).poll_read(context, &mut part))?;
        let count = part.filled().len();
        // Initialised by the read just done.
        buffer.initialize_unfilled_to(count);
        buffer.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Narrow {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let most = self.1.min(bytes.len());
        Pin::new(&mut self.0).poll_write(context, &bytes[..most])
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

async fn accept(server: &Arc<ServerConfig>, far: Narrow) -> io::Result<TlsStream<Narrow>> {
    let mut stream = TlsStream::new(far, Arc::clone(server))?;
    stream.hello().await?;
    stream.handshake().await?;
    Ok(stream)
}

async fn connect(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>, name: &str) -> io::Result<Ends> {
    connect_over(64 * 1024, usize::MAX, server, client, name).await
}

/// Over a pipe that holds so many bytes, of which the server's side takes so many at once.
async fn connect_over(
    room: usize,
    at_once: usize,
    server: &Arc<ServerConfig>,
    client: &Arc<ClientConfig>,
    name: &str,
) -> io::Result<Ends> {
    let (near, far) = tokio::io::duplex(room);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    tokio::try_join!(
        TlsConnector::from(Arc::clone(client)).connect(name, near),
        accept(server, Narrow(far, at_once)),
    )
}

/// A byte each way; the client has read the server's ticket after it.
async fn exchange((client, server): &mut Ends) {
    client.write_all(b"?").await.unwrap();
    assert_eq!(server.read_u8().await.unwrap(), b'?');
    server.write_all(b"!").await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'!');
}

#[tokio::test]
async fn both_versions_and_their_resumption() {
    let scratch = Scratch::new();
    let paths = fresh_pair(&scratch, "a");
    let (_, server) = server_of(&paths);
    for version in [&TLS12, &TLS13] {
        let client = client_of(&paths, version, &["h2", "http/1.1"]);
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut ends = connect(&server, &client, "localhost").await.unwrap();
            let session = ends.0.get_ref().1;
            assert_eq!(session.protocol_version(), Some(version.version));
            assert_eq!(session.alpn_protocol(), Some(&b"h2"[..]));
            assert_eq!(session.handshake_kind(), Some(kind));
            exchange(&mut ends).await;
        }
    }
}

#[tokio::test]
async fn http_1_1_alone_and_strangers() {
    let scratch = Scratch::new();
    let paths = fresh_pair(&scratch, "a");
    let (_, server) = server_of(&paths);
    let ends = connect(&server, &client_of(&paths, &TLS13, &["http/1.1"]), "localhost")
        .await
        .unwrap();
    assert_eq!(ends.0.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let ends = connect(&server, &client_of(&paths, &TLS13, &[]), "localhost")
        .await
        .unwrap();
    assert_eq!(ends.0.get_ref().1.alpn_protocol(), None);
    assert!(
        connect(&server, &client_of(&paths, &TLS13, &["mqtt"]), "localhost")
            .await
            .is_err()
    );
    assert!(
        connect(&server, &client_of(&paths, &TLS13, &[]), "example.com")
            .await
            .is_err()
    );
}

#[tokio::test]
async fn the_development_certificate_serves_every_local_name() {
    let scratch = Scratch::new();
    let paths = fresh_pair(&scratch, "a");
    let (_, server) = server_of(&paths);
    for name in ["localhost", "127.0.0.1", "::1"] {
        exchange(
            &mut connect(&server, &client_of(&paths, &TLS13, &[]), name)
                .await
                .unwrap(),
        )
        .await;
    }
}

#[tokio::test]
async fn reload_is_for_new_connections_only() {
    let scratch = Scratch::new();
    let (paths, new) = (fresh_pair(&scratch, "a"), fresh_pair(&scratch, "b"));
    let (old_client, new_client) = (client_of(&paths, &TLS13, &[]), client_of(&new, &TLS13, &[]));
    let (certificates, server) = server_of(&paths);
    let mut open = connect(&server, &old_client, "localhost").await.unwrap();

    fs::write(&paths.key, "no key").unwrap();
    certificates.reload().unwrap_err();
    exchange(&mut connect(&server, &old_client, "localhost").await.unwrap()).await;

    copy_pair(&new, &paths);
    assert_eq!(certificates.reload().unwrap(), Reload::Changed);
    exchange(&mut connect(&server, &new_client, "localhost").await.unwrap()).await;
    exchange(&mut open).await;
    // One that trusts only the old CA and has no ticket is now refused.
    let stranger = client_of(&paths, &TLS13, &[]);
    assert!(connect(&server, &stranger, "localhost").await.is_err());
}

/// Records in pieces, pieces of pieces, and more than the pipe takes: all of it arrives, in both directions at once.
#[tokio::test]
async fn every_byte_arrives_however_narrow_the_pipe() {
    let scratch = Scratch::new();
    let paths = fresh_pair(&scratch, "a");
    let (_, server) = server_of(&paths);
    let data: Vec<u8> = (0..200_000_u32)
        .map(|number| number.to_le_bytes()[number as usize % 3])
        .collect();
    for version in [&TLS12, &TLS13] {
        for (room, at_once) in [(4_096, 1), (4_096, 7), (4_096, 5_000), (20_000, 20_000)] {
            let client = client_of(&paths, version, &[]);
            let data = &data[..if at_once < 10 { 20_000 } else { data.len() }];
            let ends = connect_over(room, at_once, &server, &client, "localhost").await;
            let (near, far) = ends.unwrap();
            let (mut near_in, mut near_out) = tokio::io::split(near);
            let (mut far_in, mut far_out) = tokio::io::split(far);
            let there = async {
                for piece in data.chunks(1_013) {
                    near_out.write_all(piece).await.unwrap();
                }
                near_out.shutdown().await.unwrap();
            };
            let back = async {
                far_out.write_all(data).await.unwrap();
                far_out.shutdown().await.unwrap();
            };
            let (mut heard, mut answered) = (Vec::new(), Vec::new());
            let (heard_all, answered_all, (), ()) = tokio::join!(
                far_in.read_to_end(&mut heard),
                near_in.read_to_end(&mut answered),
                there,
                back
            );
            heard_all.unwrap();
            answered_all.unwrap();
            assert!(
                heard == data && answered == data,
                "over {room} bytes, {at_once} at once"
            );
        }
    }
}

#[tokio::test]
async fn keys_may_change_at_any_time() {
    let scratch = Scratch::new();
    let paths = fresh_pair(&scratch, "a");
    let (_, server) = server_of(&paths);
    let mut ends = connect(&server, &client_of(&paths, &TLS13, &[]), "localhost")
        .await
        .unwrap();
    for _ in 0..5 {
        ends.0.get_mut().1.refresh_traffic_keys().unwrap();
        exchange(&mut ends).await;
    }
}

/// A peer that reads nothing holds the writer up; what it does not read is not kept without bound.
#[tokio::test]
async fn a_peer_that_does_not_read_stops_the_writer() {
    let scratch = Scratch::new();
    let paths = fresh_pair(&scratch, "a");
    let (_, server) = server_of(&paths);
    let (client, mut server) =
        connect_over(4_096, 100, &server, &client_of(&paths, &TLS13, &[]), "localhost")
            .await
            .unwrap();
    let mut written = 0;
    let write = async {
        loop {
            written += server.write(&[0; 1_000]).await.unwrap();
        }
    };
    tokio::time::timeout(std::time::Duration::from_millis(50), write)
        .await
        .unwrap_err();
    assert!(written < 24_000, "{written}");
    drop(client);
}

#[tokio::test]
async fn an_end_is_told_from_a_cut() {
    let scratch = Scratch::new();
    let paths = fresh_pair(&scratch, "a");
    let (_, server) = server_of(&paths);
    let client = client_of(&paths, &TLS13, &[]);
    let (mut near, mut far) = connect(&server, &client, "localhost").await.unwrap();
    near.shutdown().await.unwrap();
    assert_eq!(far.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(far.read(&mut [0; 8]).await.unwrap(), 0, "for ever");
    let (near, mut far) = connect(&server, &client, "localhost").await.unwrap();
    drop(near);
    let cut = far.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn who_speaks_no_tls_hears_an_alert_at_once() {
    let scratch = Scratch::new();
    let paths = fresh_pair(&scratch, "a");
    let (_, server) = server_of(&paths);
    // The second is a record of 2^14 + 2,049 bytes that is never completed; the third a handshake that is none.
    let longest = [&[22, 3, 1, 0x48, 0x01][..], &[0; 19_000]].concat();
    for nonsense in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &longest,
        &[22, 3, 1, 0, 4, 99, 0, 0, 0],
    ] {
        let (mut near, far) = tokio::io::duplex(64 * 1024);
        near.write_all(nonsense).await.unwrap();
        assert!(accept(&server, Narrow(far, usize::MAX)).await.is_err());
        let mut heard = Vec::new();
        near.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard.first(), Some(&21), "an alert: {heard:?}");
    }
}
