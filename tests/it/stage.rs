//! Gateways with files, environments and arguments of their own, their commands, and requests written by hand.
//!
//! `harness` starts the usual gateway and plays on it; this is for tests of what surrounds a play.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::harness::{Node, SECRET, SOON, trust, usher_in};

/// The environment of the usual gateway: the shared secret, and a log that tells more.
pub(crate) const USUAL: &[(&str, &str)] =
    &[("USHER_AUTH__HMAC_SECRET", SECRET), ("USHER_LOG__LEVEL", "debug")];

/// A directory of one test, with what is put into it. Removed when dropped, or with the gateway that runs in it.
pub(crate) struct Place {
    dir: PathBuf,
    kept: bool,
}

/// What a command came to.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Place {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("usher-place-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self { dir, kept: false }
    }

    /// With this `usher.toml`.
    pub(crate) fn with(toml: &str) -> Self {
        let place = Self::new();
        place.write("usher.toml", toml);
        place
    }

    pub(crate) fn path(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        fs::write(self.dir.join(name), content).unwrap();
    }

    /// Runs a command here to its end.
    pub(crate) fn run(&self, environment: &[(&str, &str)], arguments: &[&str]) -> Ran {
        run_in(&self.dir, environment, arguments)
    }

    /// Starts a gateway here, on free ports unless the arguments say otherwise.
    pub(crate) async fn serve(mut self, environment: &[(&str, &str)], arguments: &[&str]) -> Node {
        let log = fs::File::create(self.dir.join("log")).unwrap();
        let mut command = usher_in(&self.dir);
        command.arg("serve");
        if self.dir.join("usher.toml").exists() {
            command.args(["--config", "usher.toml"]);
        }
        for flag in ["--listen", "--admin-listen"] {
            if !arguments.contains(&flag) {
                command.args([flag, "127.0.0.1:0"]);
            }
        }
        let child = command
            .args(arguments)
            .envs(environment.iter().copied())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.kept = true;
        let mut node = Node {
            child,
            dir: self.dir.clone(),
            players: ([0; 4], 0).into(),
            admin: ([0; 4], 0).into(),
            tls: trust(None),
        };
        node.wait_until_ready().await;
        node
    }

    /// Starts the usual gateway here.
    pub(crate) async fn start(self) -> Node {
        self.serve(USUAL, &[]).await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// Runs a command in a directory, with no more of `USHER_` in its environment than is given.
pub(crate) fn run_in(dir: &Path, environment: &[(&str, &str)], arguments: &[&str]) -> Ran {
    let output = usher_in(dir)
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Node {
    /// Waits for the end of the process; its exit code.
    pub(crate) async fn exit_within(&mut self, limit: Duration) -> Option<i32> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(start.elapsed() < limit, "still running: {}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// One HTTPS request on a connection of its own.
    pub(crate) async fn ask(&self, request: &str) -> Answer {
        ask(&mut self.connect().await, request).await
    }

    /// Waits until a metric has this value.
    pub(crate) async fn metric_becomes(&self, name: &str, value: f64) {
        let start = Instant::now();
        loop {
            let found = self.metric(name).await;
            // Counts are whole numbers, exact as floats.
            if (found - value).abs() < 0.5 {
                return;
            }
            assert!(start.elapsed() < SOON, "{name} is {found} instead of {value}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the log has a line with all of these; the line.
    pub(crate) async fn logs(&self, parts: &[&str]) -> String {
        crate::harness::eventually(&format!("line with {parts:?} in the log"), || {
            let log = self.log();
            let has_all = |line: &&str| parts.iter().all(|part| line.contains(part));
            log.lines().find(has_all).map(str::to_owned)
        })
        .await
    }
}

/// An HTTP answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The `error` object, in the one shape that every error has.
    pub(crate) fn error(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        let error = self.json()["error"].clone();
        let object = error.as_object().unwrap_or_else(|| panic!("no error: {self:?}"));
        let keys: Vec<&String> = object.keys().collect();
        assert_eq!(keys, ["code", "field", "message", "request_id"], "{self:?}");
        assert!(!error["message"].as_str().unwrap().is_empty(), "{self:?}");
        assert_eq!(
            error["request_id"].as_str(),
            self.header("x-request-id"),
            "{self:?}"
        );
        error
    }

    /// Status, code and field of an error.
    pub(crate) fn refusal(&self) -> (u16, String, Option<String>) {
        let error = self.error();
        let text = |key: &str| error[key].as_str().map(str::to_owned);
        (self.status.as_u16(), text("code").unwrap(), text("field"))
    }
}

/// A GET request with these headers.
pub(crate) fn get(target: &str, headers: &[(&str, &str)]) -> String {
    request("GET", target, headers)
}

pub(crate) fn request(method: &str, target: &str, headers: &[(&str, &str)]) -> String {
    let mut text = format!("{method} {target} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        text.push_str("Host: localhost\r\n");
    }
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text + "\r\n"
}

/// The opening handshake of a WebSocket, with these headers besides.
pub(crate) fn handshake(target: &str, headers: &[(&str, &str)]) -> String {
    let all = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    get(target, &[&all, headers].concat())
}

/// Sends one request and reads its answer; the connection may go on.
pub(crate) async fn ask<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, request: &str) -> Answer {
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    answer(stream).await
}

/// Reads one answer, and not a byte more.
pub(crate) async fn answer<S: AsyncRead + Unpin>(stream: &mut S) -> Answer {
    answer_within(SOON, stream).await
}

/// The same for what takes its time.
pub(crate) async fn answer_within<S: AsyncRead + Unpin>(limit: Duration, stream: &mut S) -> Answer {
    tokio::time::timeout(limit, async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let byte = stream.read_u8().await;
            head.push(byte.unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(&head))));
        }
        let head = String::from_utf8(head).unwrap();
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
        let length = headers
            .get("content-length")
            .map_or(0, |value| value.to_str().unwrap().parse().unwrap());
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        Answer {
            status,
            headers,
            body: String::from_utf8(body).unwrap(),
        }
    })
    .await
    .expect("an answer in time")
}

/// Client settings that trust the gateway's development CA, changed by the caller.
pub(crate) fn client(
    node: &Node,
    versions: &[&'static rustls::SupportedProtocolVersion],
    alpn: &[&str],
) -> Arc<rustls::ClientConfig> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(node.dir.join("certs/ca.pem")).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}
