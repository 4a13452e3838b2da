//! Starts gateways as processes and plays players against them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, StatusCode};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

/// The shared secret of the nodes under test.
pub(crate) const SECRET: &str = "a secret for tests, 32 bytes long";

/// How long anything that should happen at once may take on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// A gateway process. Killed when dropped.
pub(crate) struct Node {
    pub(crate) child: Child,
    pub(crate) dir: PathBuf,
    pub(crate) players: std::net::SocketAddr,
    pub(crate) admin: std::net::SocketAddr,
    pub(crate) tls: Arc<rustls::ClientConfig>,
}

impl Node {
    pub(crate) async fn start() -> Self {
        Self::with("").await
    }

    /// Starts a gateway with this configuration beside the test's own.
    pub(crate) async fn with(toml: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("usher-test-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("usher.toml"), toml).unwrap();
        let log = fs::File::create(dir.join("log")).unwrap();
        let child = usher(&dir)
            .args([
                "serve",
                "--config",
                "usher.toml",
                "--listen",
                "127.0.0.1:0",
                "--admin-listen",
                "127.0.0.1:0",
            ])
            .env("USHER_AUTH__HMAC_SECRET", SECRET)
            .env("USHER_LOG__LEVEL", "debug")
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut node = Self {
            child,
            dir,
            players: ([0; 4], 0).into(),
            admin: ([0; 4], 0).into(),
            tls: trust(None),
        };
        node.wait_until_ready().await;
        node
    }

    pub(crate) async fn wait_until_ready(&mut self) {
        let file = self.dir.join("data/addresses.json");
        // A recovery of a new Redis takes 5 s, a strict one 17.5 s.
        let addresses = eventually_within(SOON * 3, "addresses.json", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the gateway ended with {status}: {}", self.log());
            }
            serde_json::from_slice::<Value>(&fs::read(&file).ok()?).ok()
        })
        .await;
        self.players = addresses["players"].as_str().unwrap().parse().unwrap();
        self.admin = addresses["admin"].as_str().unwrap().parse().unwrap();
        // A node with a certificate of its own makes none.
        let ca = self.dir.join("certs/ca.pem");
        self.tls = trust(ca.exists().then_some(&*ca));
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Runs a command of the same installation; stdout on success.
    pub(crate) fn command(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = usher(&self.dir);
        let output = command
            .env("USHER_AUTH__HMAC_SECRET", SECRET)
            .args(arguments)
            .output()
            .unwrap();
        if output.status.success() {
            return Ok(String::from_utf8(output.stdout).unwrap());
        }
        Err(format!(
            "{}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        ))
    }

    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let (_, _, text) = self.admin_get("/metrics", None).await;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}"))
            .parse()
            .unwrap()
    }

    /// Memory of the process that is resident, in bytes.
    pub(crate) fn rss(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB"));
        kib.unwrap().trim().parse::<u64>().unwrap() * 1024
    }

    pub(crate) async fn admin_get(&self, path: &str, token: Option<&str>) -> (StatusCode, HeaderMap, String) {
        self.admin_request("GET", path, token, "").await
    }

    pub(crate) async fn admin_request(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: &str,
    ) -> (StatusCode, HeaderMap, String) {
        let stream = TcpStream::connect(self.admin).await.unwrap();
        let token = token
            .map(|token| format!("Authorization: Bearer {token}\r\n"))
            .unwrap_or_default();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\n{token}Content-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            self.admin,
            body.len()
        );
        exchange(stream, head.as_bytes()).await
    }

    /// A TLS connection as a player opens it.
    pub(crate) async fn connect(&self) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.players).await.unwrap();
        self.secure(stream).await.unwrap()
    }

    pub(crate) async fn secure(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::clone(&self.tls))
            .connect(name, stream)
            .await
    }

    /// One HTTPS request, as written.
    pub(crate) async fn raw(&self, head: &str) -> (StatusCode, HeaderMap, String) {
        exchange(self.connect().await, head.as_bytes()).await
    }

    /// Opens the watch socket of an account's device.
    pub(crate) async fn watch(&self, account: &str, query: &str) -> Player {
        self.try_watch(&token(account), query).await.unwrap()
    }

    /// Opens the watch socket with a token, or tells how it was refused.
    pub(crate) async fn try_watch(&self, token: &str, query: &str) -> Result<Player, (StatusCode, Value)> {
        let stream = self.connect().await;
        self.upgrade(stream, &format!("/v1/watch?{query}"), Some(token))
            .await
    }

    pub(crate) async fn upgrade(
        &self,
        stream: TlsStream<TcpStream>,
        path: &str,
        token: Option<&str>,
    ) -> Result<Player, (StatusCode, Value)> {
        let mut request = format!("wss://localhost:{}{path}", self.players.port())
            .into_client_request()
            .unwrap();
        if let Some(token) = token {
            let value = HeaderValue::try_from(format!("Bearer {token}")).unwrap();
            request.headers_mut().insert("authorization", value);
        }
        match client_async(request, stream).await {
            Ok((socket, _)) => Ok(Player { socket }),
            Err(Error::Http(response)) => {
                let body = response.body().as_deref().unwrap_or_default();
                Err((
                    response.status(),
                    serde_json::from_slice(body).unwrap_or(Value::Null),
                ))
            }
            Err(error) => panic!("the handshake failed: {error}"),
        }
    }

    /// The account's sessions, as an operator sees them.
    pub(crate) async fn sessions(&self, account: &str) -> Vec<Value> {
        let token = sign(&json!({"sub": "op", "exp": now() + 60, "scope": "operator"}));
        let path = format!("/v1/admin/accounts/{account}/sessions");
        let (status, _, body) = self.admin_get(&path, Some(&token)).await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str::<Value>(&body).unwrap()["items"]
            .as_array()
            .unwrap()
            .clone()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("log of {}:\n{}", self.dir.display(), self.log());
        } else {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

fn usher(dir: &Path) -> Command {
    usher_at(Path::new(USHER), dir)
}

/// The gateway under test.
pub(crate) const USHER: &str = env!("CARGO_BIN_EXE_usher");

/// A command of another version, in a directory of its own.
pub(crate) fn usher_at(program: &Path, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(dir).stdin(Stdio::null());
    // The environment of whoever runs the tests must not reach the gateway.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("USHER_") {
            command.env_remove(name);
        }
    }
    command
}

/// A command in a directory of its own.
pub(crate) fn usher_in(dir: &Path) -> Command {
    usher(dir)
}

pub(crate) fn trust(ca: Option<&Path>) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    if let Some(ca) = ca {
        roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

pub(crate) async fn exchange<S>(mut stream: S, head: &[u8]) -> (StatusCode, HeaderMap, String)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    stream.write_all(head).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(SOON, async {
        let mut chunk = [0; 4096];
        // A peer that resets after its answer has still answered.
        while let Ok(count @ 1..) = stream.read(&mut chunk).await {
            answer.extend_from_slice(&chunk[..count]);
            if is_complete(&answer) {
                return;
            }
        }
    });
    read.await.expect("an answer in time");
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no HTTP answer: {text:?}"));
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':').unwrap();
        headers.append(
            http::HeaderName::try_from(name).unwrap(),
            HeaderValue::try_from(value.trim()).unwrap(),
        );
    }
    (status, headers, body.to_owned())
}

/// Whether an answer with a Content-Length is all there.
fn is_complete(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.lines().filter_map(|line| line.split_once(':'));
    let mut length = length.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    length
        .next()
        .is_some_and(|(_, value)| value.trim().parse() == Ok(body.len()))
}

/// An open watch socket.
pub(crate) struct Player {
    pub(crate) socket: WebSocketStream<TlsStream<TcpStream>>,
}

impl Player {
    /// The next message.
    pub(crate) async fn next(&mut self) -> Value {
        self.next_within(SOON).await
    }

    pub(crate) async fn next_within(&mut self, limit: Duration) -> Value {
        match tokio::time::timeout(limit, self.receive())
            .await
            .expect("a message in time")
        {
            Ok(value) => value,
            Err(code) => panic!("closed with {code} instead of a message"),
        }
    }

    /// The next message of this type; others are skipped.
    pub(crate) async fn next_of(&mut self, kind: &str) -> Value {
        loop {
            let message = self.next().await;
            if message["type"] == kind {
                return message;
            }
        }
    }

    /// The close code, after at most `limit`; messages before it are returned too.
    pub(crate) async fn closed_within(&mut self, limit: Duration) -> (u16, Vec<Value>) {
        let mut messages = Vec::new();
        let end = async {
            loop {
                match self.receive().await {
                    Ok(message) => messages.push(message),
                    Err(code) => return code,
                }
            }
        };
        let code = tokio::time::timeout(limit, end).await.expect("a close in time");
        (code, messages)
    }

    pub(crate) async fn closed(&mut self) -> (u16, Vec<Value>) {
        self.closed_within(SOON).await
    }

    pub(crate) async fn receive(&mut self) -> Result<Value, u16> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(frame))) => return Err(frame.map_or(1005, |frame| frame.code.into())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(1006),
            }
        }
    }

    pub(crate) async fn say(&mut self, message: Value) {
        self.socket
            .send(Message::text(message.to_string()))
            .await
            .unwrap();
    }

    /// Breaks the connection without a close frame.
    pub(crate) fn cut(self) {
        drop(self);
    }

    /// Closes with a code and waits for the answer.
    pub(crate) async fn close(mut self, code: u16) {
        use tokio_tungstenite::tungstenite::protocol::CloseFrame;
        let frame = CloseFrame {
            code: code.into(),
            reason: "".into(),
        };
        self.socket.close(Some(frame)).await.unwrap();
        self.closed().await;
    }
}

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A token of this account, good for an hour.
pub(crate) fn token(account: &str) -> String {
    sign(&json!({"sub": account, "exp": now() + 3600}))
}

/// A token with these claims.
pub(crate) fn sign(claims: &Value) -> String {
    jsonwebtoken::encode(
        &Header::new(Algorithm::HS256),
        claims,
        &EncodingKey::from_secret(SECRET.as_bytes()),
    )
    .unwrap()
}

/// Waits for a condition, with a deadline.
pub(crate) async fn eventually<T>(what: &str, check: impl FnMut() -> Option<T>) -> T {
    eventually_within(SOON, what, check).await
}

pub(crate) async fn eventually_within<T>(
    limit: Duration,
    what: &str,
    mut check: impl FnMut() -> Option<T>,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(start.elapsed() < limit, "no {what} in time");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
