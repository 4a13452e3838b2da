//! A tab in the background, whose timers the browser lets run once a minute, keeps its slot.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::chromium::{Chromium, Tab};
use crate::harness::{Node, SOON};

/// How long it is in the background.
const LENGTH: Duration = Duration::from_secs(120);

/// Chromium throttles to one wake-up a minute when a page was hidden for 5 minutes; here after 10 s.
const THROTTLING: &str = "--enable-features=IntensiveWakeUpThrottling:grace_period_seconds/10";

async fn until(tab: &mut Tab, expression: &str) {
    let start = Instant::now();
    while tab.evaluate(expression).await != json!(true) {
        assert!(start.elapsed() < SOON, "not in time: {expression}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_throttled_tab_keeps_its_slot_for_two_minutes() {
    let node = Node::start().await;
    let browser = Chromium::start_with(&node.dir.join("browser"), &[THROTTLING]).await;
    let origin = format!("https://{}/", node.players);
    let mut tab = browser.open(&format!("{origin}#device=Den")).await;
    tab.shows("1 of 3: playing on Den.").await;
    let session = node.sessions("demo").await[0]["session"].clone();
    // A paused film: one that plays keeps its tab awake.
    let ticks = "window.ticks = []; setInterval(() => ticks.push(performance.now()), 1000);
                 document.getElementById('video').pause(); 1";
    tab.evaluate(ticks).await;
    let mut front = browser.open("about:blank").await;
    front.bring_to_front().await;
    until(&mut tab, "document.hidden").await;
    let start = Instant::now();
    while start.elapsed() < LENGTH {
        let sessions = node.sessions("demo").await;
        assert_eq!(sessions.len(), 1, "after {:?}", start.elapsed());
        assert_eq!(sessions[0]["session"], session);
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    // It was throttled indeed: of 120 ticks a few came, with a minute between them.
    let longest = "Math.max(...ticks.slice(1).map((at, index) => at - ticks[index]))";
    let longest = tab.evaluate(longest).await.as_f64().unwrap();
    eprintln!("longest pause of a timer of one second: {longest:.0} ms");
    assert!(longest > 30_000.0, "{longest}");
    tab.bring_to_front().await;
    tab.shows("1 of 3: playing on Den.").await;
    let log = tab.evaluate("document.getElementById('log').textContent").await;
    let log = log.as_str().unwrap();
    assert_eq!(log.matches("granted ").count(), 1, "{log}");
    assert!(!log.contains("lost ") && !log.contains("ended "), "{log}");
    assert_eq!(node.sessions("demo").await[0]["session"], session);
}
