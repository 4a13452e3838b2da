//! The demo page in a real browser: four tabs, three play, the fourth is told who is watching.

use crate::chromium::Chromium;
use crate::harness::{Node, token};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_tabs_three_play_and_the_fourth_may_take_one_over() {
    let node = Node::start().await;
    let browser = Chromium::start(&node.dir.join("browser")).await;
    let (node, token) = (&node, token("home"));
    let page = |device: &str| {
        format!(
            "https://{}/#token={token}&device={device}&content=film&on_limit=ask&play",
            node.players
        )
    };
    let mut tabs = Vec::new();
    for (used, device) in (1..).zip(["Kitchen", "Bedroom", "Garden"]) {
        let mut tab = browser.open(&page(device)).await;
        tab.shows(&format!("playing: {used} of 3 streams in use")).await;
        tabs.push(tab);
    }
    let mut fourth = browser.open(&page("Phone")).await;
    fourth.shows("refused: 3 of 3 streams in use").await;
    fourth.shows("Bedroom plays film since").await;
    fourth
        .evaluate("document.querySelectorAll('#holders button')[1].click()")
        .await;
    fourth.shows("playing: 3 of 3 streams in use").await;
    tabs[1].shows("closed: displaced").await;
    tabs[0].evaluate("document.getElementById('stop').click()").await;
    tabs[0].shows("closed: stopped").await;
    fourth.shows("playing: 2 of 3 streams in use").await;
    // The token of a browser travels as a subprotocol and is not logged.
    assert!(!node.log().contains(&token));
}
