//! The README's own player, word for word, from another origin than the gateway's, in a real browser.

use std::fs;
use std::time::Instant;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::balancer::with_values;
use crate::chromium::{Chromium, Tab};
use crate::harness::{Node, SOON};

fn read(path: &str) -> String {
    fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// A web server with these files, by path; it answers each connection once.
async fn serve(listener: TcpListener, files: Vec<(&'static str, &'static str, Vec<u8>)>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut asked = [0; 4096];
        let count = stream.read(&mut asked).await.unwrap_or(0);
        let head = String::from_utf8_lossy(&asked[..count]).into_owned();
        let path = head.split(' ').nth(1).unwrap_or_default();
        let found = files.iter().find(|(name, _, _)| *name == path);
        let (status, kind, body) = found
            .map_or(("404 Not Found", "text/plain", &[][..]), |(_, kind, body)| {
                ("200 OK", *kind, body)
            });
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        let _ = stream.write_all(head.as_bytes()).await;
        let _ = stream.write_all(body).await;
    }
}

async fn becomes(tab: &mut Tab, expression: &str) {
    let start = Instant::now();
    while tab.evaluate(expression).await != json!(true) {
        let page = tab.evaluate("document.body?.innerText").await;
        assert!(start.elapsed() < SOON, "not in time: {expression}: {page}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_player_of_the_readme_limits_streams() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://localhost:{}", listener.local_addr().unwrap().port());
    let node = Node::with(&format!("[http]\norigins = ['{origin}']")).await;
    let readme = read("README.md");
    let page = readme
        .split("```html\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let page = with_values(page, &[("127.0.0.1:8443", node.players.to_string())]);
    let token = node
        .command(&["token", "--account", "alice", "--ttl", "8h"])
        .unwrap();
    let film = fs::read(format!("{}/src/web/demo.webm", env!("CARGO_MANIFEST_DIR"))).unwrap();
    tokio::spawn(serve(
        listener,
        vec![
            ("/", "text/html", page.into_bytes()),
            ("/token.txt", "text/plain", token.into_bytes()),
            ("/film.webm", "video/webm", film),
        ],
    ));
    let browser = Chromium::start(&node.dir.join("browser")).await;
    let mut tabs = Vec::new();
    for used in 1..=4 {
        let mut tab = browser.open(&format!("{origin}/")).await;
        tab.shows("Press play.").await;
        // The listeners are there as soon as the module has run.
        becomes(&mut tab, "document.readyState === 'complete'").await;
        tab.evaluate("document.querySelector('video').play().catch(() => {}); 1")
            .await;
        if used <= 3 {
            tab.shows(&format!("Playing: {used} of 3 streams.")).await;
        } else {
            tab.shows("All 3 streams are in use.").await;
            becomes(&mut tab, "document.querySelector('video').paused").await;
        }
        tabs.push(tab);
    }
    assert_eq!(
        tabs[3]
            .evaluate("document.querySelectorAll('button').length")
            .await,
        3
    );
    tabs[3].evaluate("document.querySelector('button').click()").await;
    tabs[3].shows("Playing: 3 of 3 streams.").await;
    tabs[0].shows("plays now.").await;
    becomes(&mut tabs[0], "document.querySelector('video').paused").await;
    assert_eq!(node.sessions("alice").await.len(), 3);
}
