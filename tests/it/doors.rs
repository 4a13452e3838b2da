//! Who is let in before a request is read: PROXY headers, forwarded addresses, and the limits of addresses and node.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::harness::{Node, SOON, token};
use crate::stage::{ask, get, handshake};

/// `Authorization` of an account's token.
fn bearer(account: &str) -> String {
    format!("Bearer {}", token(account))
}

/// A PROXY protocol v2 header for TCP over IPv4; without a source, that of a balancer's own check.
fn proxy_header(source: Option<[u8; 4]>) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    match source {
        Some([a, b, c, d]) => {
            header.extend([0x21, 0x11, 0, 12, a, b, c, d, 10, 0, 0, 1, 0x12, 0x67, 0x01, 0xbb]);
        }
        None => header.extend([0x20, 0x00, 0, 0]),
    }
    header
}

async fn proxied(node: &Node, header: &[u8]) -> std::io::Result<TlsStream<TcpStream>> {
    let mut stream = TcpStream::connect(node.players).await.unwrap();
    stream.write_all(header).await?;
    tokio::time::timeout(SOON, node.secure(stream))
        .await
        .expect("an end in time")
}

#[tokio::test]
async fn a_proxy_header_names_the_client() {
    let node = Node::with(
        "[listen]\nproxy_protocol = true\ntrusted_proxies = [\"127.0.0.0/8\"]\n\
         [limits]\nconnections_per_address = 1",
    )
    .await;
    let refused = |reason: &str| format!("usher_connections_refused_total{{reason=\"{reason}\"}}");
    let mut first = proxied(&node, &proxy_header(Some([192, 0, 2, 7]))).await.unwrap();
    let request = handshake("/v1/watch?content=m&device=d", &[("Authorization", &bearer("a"))]);
    assert_eq!(ask(&mut first, &request).await.status, 101);
    node.logs(&["request", "path=/v1/watch", "client=192.0.2.7"])
        .await;
    // The limit of addresses counts the client's, before TLS.
    assert!(proxied(&node, &proxy_header(Some([192, 0, 2, 7]))).await.is_err());
    assert_eq!(node.metric(&refused("address_limit")).await, 1.0);
    let mut other = proxied(&node, &proxy_header(Some([192, 0, 2, 8]))).await.unwrap();
    assert_eq!(ask(&mut other, &get("/", &[])).await.status, 200);
    let mut check = proxied(&node, &proxy_header(None)).await.unwrap();
    assert_eq!(ask(&mut check, &get("/checked", &[])).await.status, 404);
    node.logs(&["path=/checked", "client=127.0.0.1"]).await;
    assert_eq!(node.metric(&refused("proxy_header")).await, 0.0);
    // TLS straight away, and the text header of version 1.
    assert!(proxied(&node, b"").await.is_err());
    assert!(
        proxied(&node, b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 443\r\n")
            .await
            .is_err()
    );
    node.metric_becomes(&refused("proxy_header"), 2.0).await;
    // The player's place is free again when it has gone.
    drop(first);
    node.metric_becomes("usher_connections_open", 2.0).await;
    assert!(proxied(&node, &proxy_header(Some([192, 0, 2, 7]))).await.is_ok());
}

#[tokio::test]
async fn a_proxy_header_of_a_stranger_is_refused() {
    let node = Node::with("[listen]\nproxy_protocol = true\ntrusted_proxies = [\"10.0.0.0/8\"]").await;
    assert!(proxied(&node, &proxy_header(Some([192, 0, 2, 7]))).await.is_err());
    node.metric_becomes("usher_connections_refused_total{reason=\"proxy_header\"}", 1.0)
        .await;
    assert_eq!(node.metric("usher_connections_open").await, 0.0);
    assert!(!node.log().contains("192.0.2.7"));
}

#[tokio::test]
async fn clients_behind_a_trusted_proxy_are_limited_by_their_own_address() {
    let node = Node::with(
        "[listen]\ntrusted_proxies = [\"127.0.0.0/8\"]\n\
         [limits]\nexempt_addresses = []\nconnections_per_address = 2\nhandshakes_per_second_per_address = 1",
    )
    .await;
    let authorization = bearer("a");
    let start = |address: &str, device: &str| {
        let headers = [("Authorization", &*authorization), ("X-Forwarded-For", address)];
        handshake(&format!("/v1/watch?content=m&device={device}"), &headers)
    };
    let mut open = Vec::new();
    for device in ["one", "two"] {
        let mut stream = node.connect().await;
        assert_eq!(ask(&mut stream, &start("203.0.113.9", device)).await.status, 101);
        open.push(stream);
    }
    node.logs(&["request", "client=203.0.113.9"]).await;
    // What the client itself wrote further left is not believed.
    let answer = node.ask(&start("198.51.100.1, 203.0.113.9", "three")).await;
    assert_eq!(answer.refusal().0, 429);
    assert!(answer.header("retry-after").unwrap().parse::<u32>().unwrap() >= 1);
    let limited = "usher_connections_refused_total{reason=\"address_limit\"}";
    assert_eq!(node.metric(limited).await, 1.0);
    assert_eq!(node.ask(&start("203.0.113.10", "three")).await.status, 101);
    drop(open.pop());
    let mut freed = node.connect().await;
    node.metric_becomes("usher_connections_open", 2.0).await;
    assert_eq!(ask(&mut freed, &start("203.0.113.9", "two")).await.status, 101);
    // Attempts count too: ten at once, then one a second, good or bad.
    let mut stream = node.connect().await;
    let bad = [("Authorization", "Bearer x"), ("X-Forwarded-For", "203.0.113.11")];
    let mut statuses = Vec::new();
    for _ in 0..14 {
        statuses.push(
            ask(&mut stream, &handshake("/v1/watch?content=m", &bad))
                .await
                .status
                .as_u16(),
        );
    }
    assert_eq!(statuses[..10], [401; 10]);
    assert!(statuses[10..].contains(&429), "{statuses:?}");
    assert!(
        node.metric("usher_connections_refused_total{reason=\"address_rate\"}")
            .await
            >= 1.0
    );
}

#[tokio::test]
async fn a_forwarded_address_of_a_stranger_is_not_believed() {
    let node = Node::start().await;
    node.ask(&get("/forged", &[("X-Forwarded-For", "203.0.113.9")]))
        .await;
    node.logs(&["path=/forged", "client=127.0.0.1"]).await;
}

#[tokio::test]
async fn an_address_over_its_limit_is_refused_before_tls() {
    let node = Node::with("[limits]\nexempt_addresses = []\nconnections_per_address = 2").await;
    let (first, _second) = (node.connect().await, node.connect().await);
    let refused = async || {
        let stream = TcpStream::connect(node.players).await.unwrap();
        tokio::time::timeout(SOON, node.secure(stream))
            .await
            .expect("an end in time")
            .is_err()
    };
    assert!(refused().await);
    assert_eq!(
        node.metric("usher_connections_refused_total{reason=\"address_limit\"}")
            .await,
        1.0
    );
    assert_eq!(
        node.metric("usher_tls_handshakes_total{outcome=\"failed\"}")
            .await,
        0.0
    );
    drop(first);
    node.metric_becomes("usher_connections_open", 1.0).await;
    let mut third = node.connect().await;
    assert_eq!(ask(&mut third, &get("/", &[])).await.status, 200);
}

#[tokio::test]
async fn a_full_node_refuses_before_tls_and_tells_operators_all_the_same() {
    let node = Node::with("[limits]\nconnections = 3").await;
    let mut players = Vec::new();
    for device in ["a", "b", "c"] {
        let mut player = node.watch("a", &format!("content=m&device={device}")).await;
        player.next_of("granted").await;
        players.push(player);
    }
    let stream = TcpStream::connect(node.players).await.unwrap();
    let refused = tokio::time::timeout(SOON, node.secure(stream))
        .await
        .expect("an end in time");
    assert!(refused.is_err());
    assert_eq!(
        node.metric("usher_connections_refused_total{reason=\"node_limit\"}")
            .await,
        1.0
    );
    assert_eq!(node.metric("usher_connections_open").await, 3.0);
    players.pop().unwrap().close(1000).await;
    node.metric_becomes("usher_connections_open", 2.0).await;
    let mut next = node.watch("a", "content=m&device=d").await;
    assert_eq!(next.next().await["type"], "granted");
}
