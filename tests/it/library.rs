//! Files against a gateway: forms, bytes, tickets, and answers that are no text.

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::harness::{Node, SOON, now, sign, token};

/// An answer whose body may be anything.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.text()))
    }

    /// Status and code of an error.
    pub(crate) fn refusal(&self) -> (u16, String) {
        let code = self.json()["error"]["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        (self.status, code)
    }
}

/// A token with this scope and these roles.
pub(crate) fn token_with(account: &str, tenant: &str, scope: &str, roles: &[&str]) -> String {
    sign(&json!({"sub": account, "tenant": tenant, "scope": scope, "roles": roles, "exp": now() + 3600}))
}

/// An editor of the tenant `main`.
pub(crate) fn editor() -> String {
    token_with("editor", "main", "editor watch", &[])
}

/// Reads a head: status and headers.
pub(crate) async fn head<S: AsyncRead + Unpin>(stream: &mut S) -> (u16, HeaderMap) {
    let read = async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(
                stream
                    .read_u8()
                    .await
                    .unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(&head))),
            );
        }
        head
    };
    let head = String::from_utf8(tokio::time::timeout(SOON, read).await.expect("an answer in time")).unwrap();
    let mut lines = head.lines().filter(|line| !line.is_empty());
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':').unwrap();
        headers.append(
            HeaderName::try_from(name).unwrap(),
            HeaderValue::try_from(value.trim()).unwrap(),
        );
    }
    (status, headers)
}

/// Sends the head of a request and some of its body on a connection of its own.
pub(crate) async fn begin(
    node: &Node,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> TlsStream<TcpStream> {
    let mut stream = node.connect().await;
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    stream.write_all(text.as_bytes()).await.unwrap();
    // A server that has heard enough may have closed already: its answer is read all the same.
    let _ = stream.write_all(body).await;
    let _ = stream.flush().await;
    stream
}

/// One request and its whole answer.
pub(crate) async fn send(
    node: &Node,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Reply {
    let length = body.len().to_string();
    let mut all = headers.to_vec();
    if !matches!(method, "GET" | "HEAD") {
        all.push(("Content-Length", &length));
    }
    let mut stream = begin(node, method, path, &all, body).await;
    let (status, headers) = head(&mut stream).await;
    let length = headers.get("content-length").filter(|_| method != "HEAD");
    let mut body = vec![0; length.map_or(0, |value| value.to_str().unwrap().parse().unwrap())];
    tokio::time::timeout(SOON * 3, stream.read_exact(&mut body))
        .await
        .unwrap()
        .unwrap();
    let _ = stream.shutdown().await;
    Reply {
        status,
        headers,
        body,
    }
}

/// As [`send`], with a bearer.
pub(crate) async fn call(
    node: &Node,
    method: &str,
    path: &str,
    token: &str,
    more: &[(&str, &str)],
    body: &[u8],
) -> Reply {
    let bearer = format!("Bearer {token}");
    let mut headers = vec![("Authorization", &*bearer)];
    headers.extend_from_slice(more);
    send(node, method, path, &headers, body).await
}

pub(crate) async fn get(node: &Node, path: &str, token: &str, more: &[(&str, &str)]) -> Reply {
    call(node, "GET", path, token, more, b"").await
}

pub(crate) const BOUNDARY: &str = "a-boundary-of-the-tests";

/// A form with fields and a file.
pub(crate) fn form(fields: &[(&str, &str)], name: &str, kind: &str, bytes: &[u8]) -> Vec<u8> {
    let mut form = Vec::new();
    for (field, value) in fields {
        let part =
            format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{field}\"\r\n\r\n{value}\r\n");
        form.extend_from_slice(part.as_bytes());
    }
    let head = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\nContent-Type: {kind}\r\n\r\n"
    );
    form.extend_from_slice(head.as_bytes());
    form.extend_from_slice(bytes);
    form.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
    form
}

/// Uploads a form.
pub(crate) async fn post_form(node: &Node, token: &str, form: &[u8]) -> Reply {
    let kind = format!("multipart/form-data; boundary={BOUNDARY}");
    call(node, "POST", "/v1/files", token, &[("Content-Type", &kind)], form).await
}

/// Uploads a file, which must be taken; how it is shown.
pub(crate) async fn upload(
    node: &Node,
    token: &str,
    fields: &[(&str, &str)],
    kind: &str,
    bytes: &[u8],
) -> Value {
    let reply = post_form(node, token, &form(fields, "film", kind, bytes)).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    reply.json()
}

/// Bytes that begin as an mp4 does, and are no others at any place.
pub(crate) fn mp4(size: usize) -> Vec<u8> {
    let mut bytes = b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41".to_vec();
    let mut state = 1_u32;
    while bytes.len() < size {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bytes.extend_from_slice(&state.to_be_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// A session without a socket: its id, its secret and its ticket.
pub(crate) struct Lease {
    pub(crate) session: String,
    pub(crate) secret: String,
    pub(crate) ticket: String,
    pub(crate) token: String,
}

/// Starts a session without a socket.
pub(crate) async fn lease(node: &Node, token: &str, content: &str) -> Lease {
    let body = json!({"content": content}).to_string();
    let more = [("Content-Type", "application/json")];
    let reply = call(node, "POST", "/v1/sessions", token, &more, body.as_bytes()).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    let body = reply.json();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    Lease {
        session: text(&body["session"]),
        secret: text(&body["resume"]),
        ticket: text(&body["ticket"]["token"]),
        token: token.to_owned(),
    }
}

impl Lease {
    /// Ends it.
    pub(crate) async fn end(&self, node: &Node) {
        let path = format!("/v1/sessions/{}", self.session);
        let reply = call(
            node,
            "DELETE",
            &path,
            &self.token,
            &[("Usher-Resume", &self.secret)],
            b"",
        )
        .await;
        assert_eq!(reply.status, 204, "{}", reply.text());
    }
}

/// The ticket of a lease of this account for this content.
pub(crate) async fn ticket(node: &Node, account: &str, content: &str) -> String {
    lease(node, &token(account), content).await.ticket
}

/// Reads until the end, or until it breaks; how many bytes came, and whether it ended well.
pub(crate) async fn drain<S: AsyncRead + Unpin>(stream: &mut S) -> (u64, bool) {
    let (mut count, mut chunk) = (0, vec![0; 64 * 1024]);
    loop {
        match stream.read(&mut chunk).await {
            Ok(0) => return (count, true),
            Ok(some) => count += some as u64,
            Err(_) => return (count, false),
        }
    }
}

/// Closes a connection without a word.
pub(crate) async fn cut<S: AsyncWrite + Unpin>(stream: S) {
    drop(stream);
}
