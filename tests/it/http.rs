//! HTTP in front of the socket: refusals and their order, bounds of a head, protocols, and what is logged of it all.
//!
//! Long for its tables of requests, each row of which is one refusal.

use std::sync::Arc;

use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::harness::{Node, SOON, now, sign, token};
use crate::stage::{Answer, answer, ask, client, get, handshake, request};

/// `Authorization` of an account's token.
fn bearer(account: &str) -> String {
    format!("Bearer {}", token(account))
}

#[tokio::test]
async fn a_bad_parameter_is_400_and_named_after_the_token_was_checked() {
    let node = Node::start().await;
    let (authorization, mut stream) = (bearer("a"), node.connect().await);
    let long = |name: &str, length| format!("content=m&{name}={}", "x".repeat(length));
    let (device, name, class) = (
        long("device", 257),
        long("device_name", 257),
        long("device_class", 65),
    );
    let content = format!("content={}", "x".repeat(257));
    for (query, field) in [
        ("", "content"),
        ("device=d", "content"),
        ("content=", "content"),
        ("content=%FF", "content"),
        ("content=a&content=b", "content"),
        (&content, "content"),
        ("content=m&device=", "device"),
        ("content=m&device=%C3%28", "device"),
        ("content=m&device=a&device=a", "device"),
        (&device, "device"),
        ("content=m&device_name=", "device_name"),
        (&name, "device_name"),
        ("content=m&device_class=", "device_class"),
        (&class, "device_class"),
        ("content=m&on_limit=kill", "on_limit"),
        ("content=m&on_limit=", "on_limit"),
        ("content=m&on_limit=WAIT", "on_limit"),
        ("content=m&since=x", "since"),
        ("content=m&since=-1", "since"),
        ("content=m&since=1.5", "since"),
    ] {
        let target = format!("/v1/watch?{query}");
        let answer = ask(
            &mut stream,
            &handshake(&target, &[("Authorization", &authorization)]),
        )
        .await;
        let expected = (400, "bad_request".to_owned(), Some(field.to_owned()));
        assert_eq!(answer.refusal(), expected, "{query}");
        let answer = ask(&mut stream, &handshake(&target, &[("Authorization", "Bearer x")])).await;
        assert_eq!(
            answer.status, 401,
            "a stranger learns nothing of parameters: {query}"
        );
    }
    assert_eq!(node.metric("usher_sessions_active{tenant=\"main\"}").await, 0.0);
    // The largest that are allowed, unknown parameters, a broken resume secret: an ordinary start.
    let longest = "\u{e9}".repeat(128);
    let target = format!(
        "/v1/watch?content={0}&device={0}&device_name={0}&device_class={1}&since=9007199254740991&resume=%00&x=1",
        longest
            .bytes()
            .map(|byte| format!("%{byte:02X}"))
            .collect::<String>(),
        "c".repeat(64)
    );
    let answer = ask(
        &mut stream,
        &handshake(&target, &[("Authorization", &authorization)]),
    )
    .await;
    assert_eq!(answer.status, 101, "{answer:?}");
    // The handshake is answered before the slot is taken.
    node.metric_becomes("usher_sessions_active{tenant=\"main\"}", 1.0)
        .await;
    assert_eq!(node.sessions("a").await[0]["content"], longest);
}

#[tokio::test]
async fn a_token_is_held_to_its_device_and_contents() {
    let node = Node::start().await;
    let claims = json!({"sub": "a", "exp": now() + 60, "device": "tv-1", "contents": ["m1", "m2"]});
    let authorization = format!("Bearer {}", sign(&claims));
    for (query, status, code) in [
        ("content=m1&device=tv-2", 403, "device_forbidden"),
        ("content=m1&device=TV-1", 403, "device_forbidden"),
        ("content=m3&device=tv-1", 403, "content_forbidden"),
        ("content=M1", 403, "content_forbidden"),
        ("content=m1&device=tv-1", 101, ""),
        ("content=m2", 101, ""),
    ] {
        let request = handshake(
            &format!("/v1/watch?{query}"),
            &[("Authorization", &authorization)],
        );
        let answer = node.ask(&request).await;
        assert_eq!(answer.status, status, "{query}: {answer:?}");
        if status == 403 {
            assert_eq!(answer.refusal().1, code, "{query}");
        }
    }
    let nothing = sign(&json!({"sub": "b", "exp": now() + 60, "contents": []}));
    let refused = node
        .try_watch(&nothing, "content=m1")
        .await
        .map(|_| ())
        .unwrap_err();
    assert_eq!(refused.0, 403);
    assert!(node.sessions("b").await.is_empty());
}

#[tokio::test]
async fn pages_of_foreign_origins_open_no_socket() {
    let own = Node::start().await;
    let listed = Node::with("[http]\norigins = [\"https://play.example.com\"]").await;
    let authorization = bearer("a");
    for (node, host, origin, status) in [
        (&own, "gateway.example:8443", None, 101),
        (
            &own,
            "gateway.example:8443",
            Some("https://gateway.example:8443"),
            101,
        ),
        (&own, "gateway.example", Some("https://gateway.example"), 101),
        (&own, "gateway.example:8443", Some("https://gateway.example"), 403),
        (&own, "gateway.example", Some("https://evil.example"), 403),
        (
            &own,
            "gateway.example",
            Some("https://gateway.example.evil.example"),
            403,
        ),
        (&own, "gateway.example", Some("null"), 403),
        (&own, "gateway.example", Some(""), 403),
        (&listed, "gateway.example", None, 101),
        (&listed, "gateway.example", Some("https://play.example.com"), 101),
        (&listed, "gateway.example", Some("https://gateway.example"), 403),
        (&listed, "gateway.example", Some("null"), 403),
    ] {
        let mut headers = vec![("Host", host), ("Authorization", &*authorization)];
        headers.extend(origin.map(|origin| ("Origin", origin)));
        let answer = node.ask(&handshake("/v1/watch?content=m", &headers)).await;
        assert_eq!(answer.status, status, "{host} {origin:?}: {answer:?}");
        if status == 403 {
            assert_eq!(answer.refusal().1, "origin_forbidden");
        }
    }
}

#[tokio::test]
async fn every_other_refusal_has_the_one_shape_too() {
    let node = Node::start().await;
    let (authorization, mut stream) = (bearer("a"), node.connect().await);
    let token = ("Authorization", &*authorization);
    let target = "/v1/watch?content=m";

    for path in [
        "/nothing",
        "/v1",
        "/v1/watch/",
        "/v1/watch/x",
        "/metrics",
        "/debug/echo",
        "//",
        "/%2e%2e/x",
    ] {
        let answer = ask(&mut stream, &get(path, &[])).await;
        assert_eq!(answer.refusal().0, 404, "{path}");
    }
    for (method, path) in [
        ("POST", "/v1/watch"),
        ("DELETE", "/"),
        ("PUT", "/demo.js"),
        ("BREW", "/v1/watch"),
    ] {
        let answer = ask(&mut stream, &request(method, path, &[token])).await;
        assert_eq!(
            answer.refusal(),
            (405, "method_not_allowed".to_owned(), None),
            "{method} {path}"
        );
        let allow = answer.header("allow").unwrap();
        assert!(allow.contains("GET") && !allow.contains(method), "{allow}");
    }

    // A HEAD that asks for an upgrade gets none.
    let head = handshake(target, &[token]).replacen("GET", "HEAD", 1);
    let mut other = node.connect().await;
    other.write_all(head.as_bytes()).await.unwrap();
    let mut line = [0; 12];
    other.read_exact(&mut line).await.unwrap();
    assert_eq!(&line, b"HTTP/1.1 405");

    let plain = ask(&mut stream, &get(target, &[token])).await;
    assert_eq!(plain.refusal(), (426, "upgrade_required".to_owned(), None));
    assert_eq!(plain.header("upgrade"), Some("websocket"));
    let plain = ask(&mut stream, &get(target, &[])).await;
    assert_eq!(plain.refusal().0, 401, "no token, no hint");
    let websocket = |version: &str, key: &str| {
        let mut headers = vec![
            ("Connection", "keep-alive, Upgrade"),
            ("Upgrade", "WebSocket"),
            token,
        ];
        headers.extend((!version.is_empty()).then_some(("Sec-WebSocket-Version", version)));
        headers.extend((!key.is_empty()).then_some(("Sec-WebSocket-Key", key)));
        get(target, &headers)
    };
    let good = "dGhlIHNhbXBsZSBub25jZQ==";
    for version in ["8", "12", "14", "13x", ""] {
        let answer = ask(&mut stream, &websocket(version, good)).await;
        assert_eq!(answer.refusal().0, 426, "version {version:?}");
        assert_eq!(answer.header("sec-websocket-version"), Some("13"));
    }
    for key in [
        "",
        "short",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZSE=",
        "!!!!!!!!!!!!!!!!!!!!!!!!",
    ] {
        let answer = ask(&mut stream, &websocket("13", key)).await;
        let expected = (
            400,
            "bad_request".to_owned(),
            Some("Sec-WebSocket-Key".to_owned()),
        );
        assert_eq!(answer.refusal(), expected, "key {key:?}");
    }
    assert!(node.sessions("a").await.is_empty());
    assert_eq!(
        ask(&mut stream, &websocket("13", good)).await.status,
        101,
        "still the same connection"
    );
}

#[tokio::test]
async fn too_many_or_too_large_headers_are_431_with_a_body() {
    let node = Node::start().await;
    let authorization = bearer("a");
    let crowd = |count: usize| -> Vec<(String, String)> {
        (0..count)
            .map(|number| (format!("x-{number}"), "1".to_owned()))
            .collect()
    };
    let one = |bytes: usize| vec![("x-long".to_owned(), "y".repeat(bytes))];
    // The handshake has 4 headers, Host and Authorization.
    for (name, headers, status) in [
        ("64 headers", crowd(58), 101),
        ("65 headers", crowd(59), 431),
        ("100 headers", crowd(94), 431),
        ("250 headers", crowd(244), 431),
        ("15 KiB", one(15 * 1024), 101),
        ("17 KiB", one(17 * 1024), 431),
        ("80 KiB", one(80 * 1024), 431),
    ] {
        let mut all = vec![("Authorization", &*authorization)];
        all.extend(headers.iter().map(|(name, value)| (&**name, &**value)));
        let answer = node.ask(&handshake("/v1/watch?content=m", &all)).await;
        assert_eq!(answer.status, status, "{name}");
        if status == 431 {
            assert_eq!(
                answer.refusal(),
                (431, "headers_too_large".to_owned(), None),
                "{name}"
            );
        }
    }
    let target = format!("/v1/watch?content=m&x={}", "y".repeat(20_000));
    let answer = node
        .ask(&handshake(&target, &[("Authorization", &authorization)]))
        .await;
    assert_eq!(answer.refusal().0, 431, "a long target counts");
    // Without end: refused before it is all read, and by now the client may still be writing.
    let mut stream = node.connect().await;
    let endless = async {
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nx: ")
            .await?;
        loop {
            stream.write_all(&[b'y'; 8192]).await?;
            stream.flush().await?;
        }
    };
    let ended: std::io::Result<()> = tokio::time::timeout(SOON, endless).await.expect("an end");
    assert!(ended.is_err());
}

async fn connect(node: &Node, config: &Arc<rustls::ClientConfig>) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(node.players).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::clone(config))
        .connect(name, stream)
        .await
        .unwrap()
}

#[tokio::test]
async fn http2_serves_pages_and_sends_sockets_to_http1() {
    let node = Node::start().await;
    let config = client(&node, &[&TLS13, &TLS12], &["h2", "http/1.1"]);
    let stream = connect(&node, &config).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let authorization = bearer("a");
    let mut send = async |path: &str, headers: &[(&str, &str)]| -> Answer {
        let mut request = Request::get(format!("https://localhost:{}{path}", node.players.port()));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
        let response = tokio::time::timeout(SOON, sender.send_request(request))
            .await
            .unwrap()
            .unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    };
    let page = send("/", &[]).await;
    assert_eq!(
        (page.status, page.header("content-type")),
        (StatusCode::OK, Some("text/html; charset=utf-8"))
    );
    assert!(page.header("x-request-id").is_some());
    assert_eq!(send("/nothing", &[]).await.refusal().0, 404);
    assert_eq!(send("/v1/watch?content=m", &[]).await.refusal().0, 401);
    assert_eq!(
        send("/v1/watch", &[("authorization", &authorization)])
            .await
            .refusal()
            .0,
        400
    );
    let watch = send("/v1/watch?content=m", &[("authorization", &authorization)]).await;
    assert_eq!(watch.refusal(), (426, "upgrade_required".to_owned(), None));
    // The same page's Origin, judged by `:authority`.
    let origin = format!("https://localhost:{}", node.players.port());
    let own = [("authorization", &*authorization), ("origin", &origin)];
    assert_eq!(send("/v1/watch?content=m", &own).await.status, 426);
    let foreign = [
        ("authorization", &*authorization),
        ("origin", "https://evil.example"),
    ];
    assert_eq!(send("/v1/watch?content=m", &foreign).await.refusal().0, 403);
    let many: Vec<(String, String)> = (0..70)
        .map(|number| (format!("x-{number}"), "1".to_owned()))
        .collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(send("/", &many).await.refusal().0, 431);
    let long = "y".repeat(17 * 1024);
    assert_eq!(send("/", &[("x-long", &long)]).await.refusal().0, 431);
    let absurd = format!("Bearer {}", "A".repeat(64 * 1024));
    assert_eq!(
        send("/v1/watch", &[("authorization", &absurd)]).await.refusal().0,
        401
    );
    assert_eq!(
        send("/demo.js", &[]).await.status,
        200,
        "the connection has survived all that"
    );
}

#[tokio::test]
async fn requests_share_a_connection_and_are_found_in_the_log_by_their_id() {
    let node = Node::start().await;
    let mut stream = node.connect().await;
    let mut ids = Vec::new();
    for (target, status) in [
        ("/", 200),
        ("/nothing?secret=hunter2", 404),
        ("/v1/watch?content=hunter3", 401),
    ] {
        let answer = ask(&mut stream, &get(target, &[("User-Agent", "hunter4")])).await;
        assert_eq!(answer.status, status);
        let id = answer.header("x-request-id").unwrap().to_owned();
        let path = target.split('?').next().unwrap();
        node.logs(&[
            "request",
            &id,
            &format!("path={path}"),
            &format!("status={status}"),
            "client=127.0.0.1",
        ])
        .await;
        ids.push(id);
    }
    let authorization = bearer("a");
    let target = "/v1/watch?content=m&device=d&token=hunter5";
    let answer = ask(
        &mut stream,
        &handshake(target, &[("Authorization", &authorization)]),
    )
    .await;
    assert_eq!(answer.status, 101);
    let id = answer.header("x-request-id").unwrap().to_owned();
    assert!(!ids.contains(&id));
    drop(stream);
    // The session's own line has the id of the request that opened it.
    node.logs(&["socket ended", &id]).await;
    assert!(!node.log().contains("hunter"), "{}", node.log());
    assert_eq!(
        node.metric("usher_tls_handshakes_total{outcome=\"full\"}").await,
        1.0
    );
    let requests = "usher_http_requests_total{method=\"GET\",route=\"/v1/watch\",status=\"101\"}";
    assert_eq!(node.metric(requests).await, 1.0);
    assert_eq!(
        node.metric("usher_http_requests_total{method=\"GET\",route=\"unmatched\",status=\"404\"}")
            .await,
        1.0
    );
}

/// Ids are opaque: whatever they hold, the log keeps one line an event.
#[tokio::test]
async fn a_player_cannot_write_lines_of_its_own_into_the_log() {
    let node = Node::start().await;
    let query = "content=m%0Aforged%20content&device=d%0D%0Aforged%20device%1B%5B31m";
    let claims = json!({"sub": "a\nforged account", "exp": now() + 60});
    let mut player = node.try_watch(&sign(&claims), query).await.unwrap();
    player.next_of("granted").await;
    player.close(1000).await;
    let line = node.logs(&["session ended", "reason="]).await;
    for forged in ["forged content", "forged device", "forged account"] {
        assert!(line.contains(forged), "{line}");
    }
    assert!(
        node.log().lines().all(|line| !line.starts_with("forged")),
        "{}",
        node.log()
    );
    assert!(!node.log().contains('\u{1b}'));
}

#[tokio::test]
async fn tls_1_2_works_and_both_versions_resume() {
    let node = Node::start().await;
    let (full, resumed) = (
        "usher_tls_handshakes_total{outcome=\"full\"}",
        "usher_tls_handshakes_total{outcome=\"resumed\"}",
    );
    for (number, version) in (1_u8..).zip([&TLS12, &TLS13]) {
        let config = client(&node, &[version], &[]);
        let mut first = connect(&node, &config).await;
        assert_eq!(first.get_ref().1.protocol_version(), Some(version.version));
        // A ticket of TLS 1.3 comes behind the handshake.
        assert_eq!(ask(&mut first, &get("/", &[])).await.status, 200);
        drop(first);
        let mut second = connect(&node, &config).await;
        assert_eq!(
            second.get_ref().1.handshake_kind(),
            Some(rustls::HandshakeKind::Resumed),
            "{version:?}"
        );
        let request = handshake("/v1/watch?content=m", &[("Authorization", &bearer("a"))]);
        assert_eq!(ask(&mut second, &request).await.status, 101);
        assert_eq!(node.metric(full).await, f64::from(number));
        assert_eq!(node.metric(resumed).await, f64::from(number));
    }
    assert_eq!(
        node.metric("usher_tls_handshake_duration_seconds_count").await,
        4.0
    );
    // Something else than TLS is counted as a failed handshake.
    let mut plain = TcpStream::connect(node.players).await.unwrap();
    plain
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    let _ = plain.read(&mut [0; 64]).await;
    node.metric_becomes("usher_tls_handshakes_total{outcome=\"failed\"}", 1.0)
        .await;
}

/// A first request that comes in pieces has until the handshake's deadline and not longer.
#[tokio::test]
async fn a_slow_head_is_cut_off_at_the_deadline() {
    let node = Node::with("[limits]\nhandshake_timeout = \"1s\"").await;
    let mut stream = node.connect().await;
    let start = std::time::Instant::now();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        .await
        .unwrap();
    stream.flush().await.unwrap();
    let drip = async {
        let mut byte = [0];
        loop {
            tokio::select! {
                read = stream.read(&mut byte) => return read,
                () = tokio::time::sleep(std::time::Duration::from_millis(100)) => {}
            }
            // A write to a connection that has ended fails; the read tells.
            let _ = stream.write_all(b"x: 1\r\n").await;
            let _ = stream.flush().await;
        }
    };
    let read = tokio::time::timeout(SOON, drip).await.expect("an end in time");
    assert!(!matches!(read, Ok(1..)), "{read:?}");
    assert!(
        start.elapsed() >= std::time::Duration::from_millis(800),
        "{:?}",
        start.elapsed()
    );
    node.metric_becomes("usher_connections_open", 0.0).await;
}

/// Requests sent ahead are answered in their order.
#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let node = Node::start().await;
    let mut stream = node.connect().await;
    let both = format!("{}{}", get("/demo.js", &[]), get("/nothing", &[]));
    let first = ask(&mut stream, &both).await;
    assert_eq!(
        (first.status, first.header("content-type")),
        (StatusCode::OK, Some("text/javascript; charset=utf-8"))
    );
    assert_eq!(answer(&mut stream).await.refusal().0, 404);
    // Who asks for the end of the connection gets it, behind the answer.
    let (status, headers, body) = node.raw(&get("/demo.css", &[("Connection", "close")])).await;
    assert_eq!(
        (status, headers["connection"].to_str().unwrap()),
        (StatusCode::OK, "close")
    );
    assert_eq!(
        headers["content-length"].to_str().unwrap(),
        body.len().to_string()
    );
}

/// Whoever is refused before the body is read gets to read why, and is heard out for a while only.
#[tokio::test]
async fn a_refusal_reaches_who_is_still_sending() {
    let node = Node::start().await;
    let mut stream = node.connect().await;
    let length = (16 << 20).to_string();
    let text = request(
        "POST",
        "/v1/files",
        &[
            ("Content-Length", &length),
            ("Content-Type", "multipart/form-data; boundary=x"),
        ],
    );
    stream.write_all(text.as_bytes()).await.unwrap();
    // The answer is on its way before the rest is sent.
    let refused = async {
        let chunk = vec![0; 1 << 20];
        for _ in 0..16 {
            stream.write_all(&chunk).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        answer(&mut stream).await.refusal()
    };
    let refused = tokio::time::timeout(SOON, refused).await.unwrap();
    assert_eq!(
        refused,
        (StatusCode::UNAUTHORIZED.as_u16(), "unauthorized".to_owned(), None)
    );
    // The node hears nothing more after that, and keeps nothing.
    node.metric_becomes("usher_connections_open", 1.0).await;
    node.metric_becomes("usher_connections_open", 0.0).await;
}
