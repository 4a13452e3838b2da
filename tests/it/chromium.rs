//! A headless Chromium, driven through its `DevTools` socket.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::harness::{SOON, eventually, exchange};

/// axe-core, see tests/vendor.
const AXE: &str = include_str!("../vendor/axe-core/axe.min.js");

/// A browser with one profile. Killed when dropped.
pub(crate) struct Chromium {
    child: Child,
    port: u16,
}

/// One tab.
pub(crate) struct Tab {
    socket: WebSocketStream<TcpStream>,
    calls: u64,
    /// Addresses that the page asked for, as far as they were heard of.
    requests: Vec<String>,
}

impl Chromium {
    pub(crate) async fn start(profile: &Path) -> Self {
        Self::start_with(profile, &[]).await
    }

    /// The same, with more arguments.
    pub(crate) async fn start_with(profile: &Path, arguments: &[&str]) -> Self {
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
            .args(arguments)
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
        self.open_with(url, "").await
    }

    /// The same, with a script that runs before those of the page.
    pub(crate) async fn open_with(&self, url: &str, script: &str) -> Tab {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let head = "PUT /json/new?about:blank HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
        let (_, _, body) = exchange(stream, head.as_bytes()).await;
        let target: Value = serde_json::from_str(&body).unwrap();
        let address = target["webSocketDebuggerUrl"].as_str().unwrap();
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let (socket, _) = client_async(address, stream).await.unwrap();
        let mut tab = Tab {
            socket,
            calls: 0,
            requests: Vec::new(),
        };
        for domain in ["Network.enable", "Page.enable"] {
            tab.call(domain, json!({})).await;
        }
        let script = json!({"source": script});
        tab.call("Page.addScriptToEvaluateOnNewDocument", script).await;
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
            if answer["method"] == "Network.requestWillBeSent" {
                let address = answer["params"]["request"]["url"].as_str().unwrap();
                self.requests.push(address.to_owned());
            }
            if answer["id"] == self.calls {
                return answer["result"].clone();
            }
        }
    }

    /// The addresses that the page has asked for.
    pub(crate) fn requests(&self) -> &[String] {
        &self.requests
    }

    /// Presses a key, such as `Tab`, `Enter` or `Escape`.
    pub(crate) async fn press(&mut self, key: &str) {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            "Escape" => 27,
            _ => panic!("no code for {key}"),
        };
        // Enter activates what has the focus by its text.
        let text = if key == "Enter" { "\r" } else { "" };
        for kind in ["keyDown", "keyUp"] {
            let event =
                json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text});
            self.call("Input.dispatchKeyEvent", event).await;
        }
    }

    /// Types into what has the focus.
    pub(crate) async fn write(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text})).await;
    }

    /// Shows the page so many pixels wide, in this colour scheme (`light`, `dark`).
    pub(crate) async fn look_like(&mut self, width: u32, scheme: &str) {
        let size = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", size).await;
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features}))
            .await;
    }

    /// Shows this tab; those that it covers are in the background from then on.
    pub(crate) async fn bring_to_front(&mut self) {
        self.call("Page.bringToFront", json!({})).await;
    }

    /// A picture of the whole page, as PNG.
    pub(crate) async fn picture(&mut self) -> Vec<u8> {
        let answer = self
            .call("Page.captureScreenshot", json!({"captureBeyondViewport": true}))
            .await;
        STANDARD.decode(answer["data"].as_str().unwrap()).unwrap()
    }

    /// A picture under this name for whoever asks for pictures, by `USHER_PICTURES`, the folder.
    pub(crate) async fn keep_picture(&mut self, name: &str) {
        if let Ok(folder) = std::env::var("USHER_PICTURES") {
            fs::write(format!("{folder}/{name}.png"), self.picture().await).unwrap();
        }
    }

    /// On a wide and a narrow screen, light and dark: axe-core has no serious finding, and nothing is wider than the screen.
    pub(crate) async fn is_accessible(&mut self, view: &str) {
        let there = "typeof axe !== 'undefined'";
        if self.evaluate(there).await == json!(false) {
            self.evaluate(AXE).await;
        }
        for (width, scheme) in [(1280, "light"), (1280, "dark"), (360, "light"), (360, "dark")] {
            self.look_like(width, scheme).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            self.keep_picture(&format!("{view}-{width}-{scheme}")).await;
            let findings = "axe.run().then(({violations}) => violations.filter(({impact}) => ['serious', 'critical'].includes(impact))\
                            .map(({id, nodes}) => [id, ...nodes.map((node) => node.html)]))";
            assert_eq!(
                self.evaluate(findings).await,
                json!([]),
                "{view} at {width}, {scheme}"
            );
            let wide = self.evaluate("document.documentElement.scrollWidth").await;
            assert!(
                wide.as_u64().unwrap() <= u64::from(width),
                "{view} at {width}: {wide}"
            );
        }
    }

    /// The value of an expression in the page, or what it promises.
    pub(crate) async fn evaluate(&mut self, expression: &str) -> Value {
        let answer = self
            .call(
                "Runtime.evaluate",
                json!({"expression": expression, "returnByValue": true, "awaitPromise": true}),
            )
            .await;
        let failed = &answer["exceptionDetails"];
        assert!(failed.is_null(), "{expression}: {failed}");
        answer["result"]["value"].clone()
    }

    /// Waits until the page shows this text.
    pub(crate) async fn shows(&mut self, text: &str) {
        let start = Instant::now();
        loop {
            let page = self.evaluate("document.body?.innerText").await;
            if page.as_str().is_some_and(|page| page.contains(text)) {
                return;
            }
            assert!(start.elapsed() < SOON, "{text:?} is not on the page: {page}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
