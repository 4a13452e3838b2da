//! Real handshakes with a rustls client over an in-memory pipe.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::{fs, io};

use rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::*;
use crate::net::certificate::tests::{copy_pair, fresh_pair};
use crate::net::certificate::{CertPaths, Reload};
use crate::net::scratch::Scratch;

type Ends = (client::TlsStream<DuplexStream>, server::TlsStream<DuplexStream>);

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

async fn connect(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>, name: &str) -> io::Result<Ends> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    tokio::try_join!(
        TlsConnector::from(Arc::clone(client)).connect(name, near),
        TlsAcceptor::from(Arc::clone(server)).accept(far),
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
