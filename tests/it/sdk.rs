//! The player SDK: the conformance kit in Node and in Chromium, and broken lines to a real gateway.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::time::sleep;

use crate::chromium::{Chromium, Tab};
use crate::cutter::Cutter;
use crate::harness::{Node, token};
use crate::stage::Place;

const CUTS: usize = 100;

/// How late a timer of a browser may be on a machine where all tests run at once, in ms.
const LATE: f64 = 3000.0;

fn script(path: &str) -> String {
    format!("{}/sdk/{path}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_sdk_passes_its_tests_and_the_conformance_kit_in_node() {
    let output = Command::new("node")
        .args(["--test", &script("js/test/")])
        .env("USHER_SLACK_MS", "4000")
        .output()
        .expect("node runs (tests/run installs it)");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}");
    let passed = told
        .lines()
        .find_map(|line| line.trim_start_matches(['#', 'ℹ', ' ']).strip_prefix("pass "));
    assert!(
        passed.is_some_and(|count| count.trim().parse::<u32>().is_ok_and(|count| count > 60)),
        "{told}"
    );
}

/// The scripted gateway. Killed when dropped.
struct Kit {
    child: Child,
    url: String,
}

impl Kit {
    fn start() -> Self {
        let mut child = Command::new("node")
            .args([
                &script("conformance/gateway.js"),
                "--port",
                "0",
                "--slack",
                "4000",
            ])
            .stdout(Stdio::piped())
            .spawn()
            .expect("node runs (tests/run installs it)");
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut url)
            .unwrap();
        Self {
            child,
            url: url.trim().to_owned(),
        }
    }
}

impl Drop for Kit {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sdk_passes_the_conformance_kit_in_chromium() {
    let (kit, place) = (Kit::start(), Place::new());
    let browser = Chromium::start(&place.path().join("browser")).await;
    let mut tab = browser.open(&format!("{}/conformance/page.html", kit.url)).await;
    let start = Instant::now();
    loop {
        let said = tab
            .evaluate("document.getElementById('out')?.textContent ?? ''")
            .await;
        let said = said.as_str().unwrap_or_default();
        if said.starts_with("all ") {
            return;
        }
        assert!(!said.starts_with("failed"), "{said}");
        assert!(start.elapsed() < Duration::from_secs(400), "{said}");
        sleep(Duration::from_millis(200)).await;
    }
}

/// A session in a page of this origin that writes down what happens, with the milliseconds.
async fn play(browser: &Chromium, origin: &str, token: &str, timing: &str) -> Tab {
    let mut tab = browser
        .open(&format!("{origin}/#token={token}&device=unused"))
        .await;
    tab.shows("This screen").await;
    let text = format!(
        "window.events = [];
        const note = (type, detail) => events.push({{ ...detail, type, at: performance.now() }});
        class Socket extends WebSocket {{
          constructor(...all) {{
            note('try');
            super(...all);
            this.addEventListener('close', () => note('close'));
          }}
        }}
        import('/sdk/usher.js').then(({{ UsherSession }}) => {{
          window.player = new UsherSession({{ url: location.origin, content: 'film', device: 'one', WebSocket: Socket,
            timing: {timing}, getToken: () => '{token}' }});
          for (const type of ['granted', 'lost', 'ended', 'error']) player.addEventListener(type, (event) => note(type, event.detail));
          player.start();
        }}); 1"
    );
    assert_eq!(tab.evaluate(&text).await, 1);
    tab
}

async fn events(tab: &mut Tab) -> Vec<Value> {
    tab.evaluate("window.events")
        .await
        .as_array()
        .cloned()
        .unwrap_or_default()
}

fn granted(events: &[Value]) -> Vec<&Value> {
    events.iter().filter(|event| event["type"] == "granted").collect()
}

/// Waits for so many grants; never more than one session of the account meanwhile.
async fn granted_again(
    tab: &mut Tab,
    node: &Node,
    account: &str,
    count: usize,
    within: Duration,
) -> Vec<Value> {
    let start = Instant::now();
    loop {
        let sessions = node.sessions(account).await;
        assert!(sessions.len() <= 1, "{sessions:?}");
        let seen = events(tab).await;
        if granted(&seen).len() >= count {
            return seen;
        }
        assert!(
            start.elapsed() < within,
            "grant {count}: {:?}",
            seen.iter().rev().take(12).collect::<Vec<_>>()
        );
        sleep(Duration::from_millis(20)).await;
    }
}

/// The pauses from each end to the next try fit the rules: `first` after a grant, then jitter that grows.
fn judge_pauses(events: &[Value], first: f64, min: f64, max: f64) {
    let (mut failures, mut closed_at) = (0, None);
    for event in events {
        let at = event["at"].as_f64().unwrap();
        match event["type"].as_str().unwrap() {
            "granted" => failures = 0,
            "close" => closed_at = Some(at),
            "try" => {
                let Some(closed_at) = closed_at.take() else {
                    continue;
                };
                let pause: f64 = at - closed_at;
                let (least, most) = match failures {
                    0 => (0.0, first),
                    n => (min, (min + (min * f64::powi(2.0, n)).min(max)).min(max)),
                };
                // Clocks of a browser are coarse.
                assert!(
                    pause > least - 5.0 && pause < most + LATE,
                    "{pause} after {failures} failures"
                );
                failures += 1;
            }
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_cuts_leave_one_session_that_never_changes() {
    let node = Node::start().await;
    let cutter = Cutter::to(node.players).await;
    let browser = Chromium::start(&node.dir.join("browser")).await;
    let timing = "{ firstMs: 300, minMs: 150, maxMs: 3000 }";
    let origin = format!("https://{}", cutter.address);
    let mut tab = play(&browser, &origin, &token("cuts"), timing).await;
    let mut seen = granted_again(&mut tab, &node, "cuts", 1, Duration::from_secs(30)).await;
    for cut in 1..=CUTS {
        // At any moment: right after the grant, in the middle of a heartbeat, and in every third case in the handshake that follows.
        sleep(Duration::from_millis((cut as u64 * 37) % 120)).await;
        cutter.cut();
        if cut % 3 == 0 {
            sleep(Duration::from_millis((cut as u64 * 53) % 350)).await;
            cutter.cut();
        }
        let before = granted(&seen).len();
        seen = granted_again(&mut tab, &node, "cuts", before + 1, Duration::from_secs(30)).await;
    }
    let grants = granted(&seen);
    assert!(grants.len() > CUTS);
    assert!(
        grants
            .iter()
            .all(|grant| grant["session"] == grants[0]["session"]),
        "{grants:?}"
    );
    assert!(
        grants.iter().skip(1).all(|grant| grant["resumed"] == true),
        "{grants:?}"
    );
    assert!(
        seen.iter()
            .all(|event| event["type"] != "ended" && event["type"] != "lost"),
        "{seen:?}"
    );
    judge_pauses(&seen, 300.0, 150.0, 3000.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offline_for_5_s_keeps_the_session_and_for_30_s_starts_anew() {
    let node = Node::start().await;
    let cutter = Cutter::to(node.players).await;
    let browser = Chromium::start(&node.dir.join("browser")).await;
    let origin = format!("https://{}", cutter.address);
    let mut tab = play(&browser, &origin, &token("offline"), "{}").await;
    let wait = Duration::from_secs(40);
    let seen = granted_again(&mut tab, &node, "offline", 1, wait).await;
    let first = granted(&seen)[0]["session"].clone();
    // Gone for 5 s, then the connection breaks for good, as when a phone changes its network.
    cutter.black_hole(true);
    sleep(Duration::from_secs(5)).await;
    cutter.cut();
    cutter.black_hole(false);
    let seen = granted_again(&mut tab, &node, "offline", 2, wait).await;
    assert_eq!(
        (&granted(&seen)[1]["session"], &granted(&seen)[1]["resumed"]),
        (&first, &Value::Bool(true))
    );
    cutter.black_hole(true);
    sleep(Duration::from_secs(30)).await;
    // Nobody had to tell the player: it asked, heard nothing, and knows that its slot is gone.
    assert_eq!(tab.evaluate("player.holdsSlot").await, false);
    assert!(node.sessions("offline").await.is_empty());
    cutter.black_hole(false);
    let seen = granted_again(&mut tab, &node, "offline", 3, wait).await;
    assert_ne!(granted(&seen)[2]["session"], first);
    assert_eq!(granted(&seen)[2]["resumed"], false);
}
