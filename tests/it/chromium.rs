//! A headless Chromium, driven through its `DevTools` socket.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::harness::{SOON, eventually, exchange};

/// A browser with one profile. Killed when dropped.
pub(crate) struct Chromium {
    child: Child,
    port: u16,
}

/// One tab.
pub(crate) struct Tab {
    socket: WebSocketStream<TcpStream>,
    calls: u64,
}

impl Chromium {
    pub(crate) async fn start(profile: &Path) -> Self {
        let child = Command::new("chromium")
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
            ])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ])
            .args(["--ignore-certificate-errors", "--remote-debugging-port=0"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromium runs (tests/run installs it)");
        let file = profile.join("DevToolsActivePort");
        let port = eventually("DevTools port", || {
            fs::read_to_string(&file).ok()?.lines().next()?.parse().ok()
        })
        .await;
        Self { child, port }
    }

    /// Opens a page in a new tab.
    pub(crate) async fn open(&self, url: &str) -> Tab {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let head = "PUT /json/new?about:blank HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
        let (_, _, body) = exchange(stream, head.as_bytes()).await;
        let target: Value = serde_json::from_str(&body).unwrap();
        let address = target["webSocketDebuggerUrl"].as_str().unwrap();
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let (socket, _) = client_async(address, stream).await.unwrap();
        let mut tab = Tab { socket, calls: 0 };
        tab.call("Page.navigate", json!({"url": url})).await;
        tab
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Tab {
    async fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.calls += 1;
        let call = json!({"id": self.calls, "method": method, "params": parameters});
        self.socket.send(Message::text(call.to_string())).await.unwrap();
        loop {
            let Message::Text(text) = self.socket.next().await.unwrap().unwrap() else {
                continue;
            };
            let answer: Value = serde_json::from_str(&text).unwrap();
            if answer["id"] == self.calls {
                return answer["result"].clone();
            }
        }
    }

    /// The value of an expression in the page.
    pub(crate) async fn evaluate(&mut self, expression: &str) -> Value {
        let answer = self
            .call(
                "Runtime.evaluate",
                json!({"expression": expression, "returnByValue": true}),
            )
            .await;
        answer["result"]["value"].clone()
    }

    /// Waits until the page shows this text.
    pub(crate) async fn shows(&mut self, text: &str) {
        let start = Instant::now();
        loop {
            let page = self.evaluate("document.body.innerText").await;
            if page.as_str().is_some_and(|page| page.contains(text)) {
                return;
            }
            assert!(start.elapsed() < SOON, "{text:?} is not on the page: {page}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
}
