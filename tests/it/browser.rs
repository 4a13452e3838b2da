//! The demo page in a real browser: four tabs, three play, the fourth is told who is watching.

use std::time::Instant;

use serde_json::{Value, json};

use crate::chromium::{Chromium, Tab};
use crate::harness::{Node, SECRET, SOON, now, token};
use crate::stage::{Place, USUAL, get, request};

async fn press(tab: &mut Tab, label: &str) {
    let label = json!(label);
    let text = format!(
        "[...document.querySelectorAll('button')].find((one) => (one.ariaLabel ?? one.textContent) === {label}).click()"
    );
    let there = format!(
        "[...document.querySelectorAll('button')].some((one) => (one.ariaLabel ?? one.textContent) === {label})"
    );
    let start = Instant::now();
    while tab.evaluate(&there).await != json!(true) {
        assert!(start.elapsed() < SOON, "there is no button {label}");
    }
    tab.evaluate(&text).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_tabs_three_play_and_the_fourth_may_take_one_over_or_wait() {
    let node = Node::start().await;
    let browser = Chromium::start(&node.dir.join("browser")).await;
    let page = |device: &str| format!("https://{}/#device={device}", node.players);
    let mut tabs = Vec::new();
    for (used, device) in (1..).zip(["Kitchen", "Bedroom", "Garden"]) {
        let mut tab = browser.open(&page(device)).await;
        tab.shows(&format!("{used} of 3: playing on {device}.")).await;
        tabs.push(tab);
    }
    let mut fourth = browser.open(&page("Phone")).await;
    fourth.shows("All 3 streams are in use").await;
    fourth.shows("Bedroom\nwatching the demo film since").await;
    assert_eq!(
        fourth.evaluate("document.getElementById('video').paused").await,
        true
    );
    // The film of the one that will be stopped goes on, in front, until then.
    plays(&mut tabs[1]).await;
    press(&mut fourth, "Stop that one: Bedroom").await;
    fourth.shows("3 of 3: playing on Phone.").await;
    tabs[1].shows("Phone took over").await;
    assert!(!moves(&mut tabs[1]).await);
    assert_eq!(
        tabs[1].evaluate("document.getElementById('video').paused").await,
        true
    );

    press(&mut tabs[0], "Stop watching").await;
    tabs[0].shows("The stream is free for another screen.").await;
    fourth.shows("2 of 3: playing on Phone.").await;
    press(&mut tabs[1], "Watch here again").await;
    tabs[1].shows("3 of 3: playing on Bedroom.").await;

    press(&mut tabs[0], "Play").await;
    tabs[0].shows("All 3 streams are in use").await;
    press(&mut tabs[0], "Wait for a free place").await;
    tabs[0].shows("Waiting for a free stream").await;
    press(&mut fourth, "Stop watching").await;
    tabs[0].shows("3 of 3: playing on Kitchen.").await;
    // The account's screens are told to each of them.
    tabs[2].shows("Kitchen\nwatching").await;

    let elsewhere = "performance.getEntriesByType('resource').filter((one) => !one.name.startsWith(location.origin)).length";
    assert_eq!(fourth.evaluate(elsewhere).await, 0);
}

/// A page of this account on a device of this name, which plays.
async fn watching(browser: &Chromium, node: &Node, account: &str, device: &str) -> Tab {
    let token = token(account);
    let url = format!(
        "https://{}/#token={token}&device={device}&content=film&play",
        node.players
    );
    let mut tab = browser.open(&url).await;
    tab.shows(&format!("playing on {device}.")).await;
    tab
}

/// Whether the film of the page really goes on, or stands still.
async fn moves(tab: &mut Tab) -> bool {
    let text = "(async () => {
        const video = document.getElementById('video');
        const before = video.currentTime;
        await new Promise((resolve) => setTimeout(resolve, 600));
        return video.currentTime !== before;
    })()";
    tab.evaluate(text).await == json!(true)
}

/// Waits until the film of the page goes on. A browser pauses it in a tab that is covered.
async fn plays(tab: &mut Tab) {
    tab.bring_to_front().await;
    let start = Instant::now();
    while !moves(tab).await {
        assert!(start.elapsed() < SOON, "the film does not play");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_film_stops_with_the_lease_whoever_ends_it() {
    let node = Node::start().await;
    let browser = Chromium::start(&node.dir.join("browser")).await;
    let mut tab = watching(&browser, &node, "ann", "Den").await;
    for (command, told) in [
        (
            vec!["sessions", "end", "--account", "ann"],
            "The operator ended this stream.",
        ),
        (
            vec!["accounts", "block", "--account", "ann"],
            "This account is blocked.",
        ),
    ] {
        plays(&mut tab).await;
        node.command(&command).unwrap();
        tab.shows(told).await;
        assert_eq!(
            tab.evaluate("document.getElementById('video').paused").await,
            true
        );
        assert!(!moves(&mut tab).await);
        if told.starts_with("The operator") {
            press(&mut tab, "Try again").await;
            tab.shows("playing on Den.").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewers_talk_beside_the_player_and_what_they_say_is_text() {
    const EVIL: &str = "<img src=x onerror=\"document.title='evil'\"><b>bold</b>";
    let node = Node::start().await;
    let browser = Chromium::start(&node.dir.join("browser")).await;
    let mut ann = watching(&browser, &node, "ann", "Den").await;
    say(&mut ann, "Who is here?").await;
    ann.shows("This account ").await;
    let mut bob = watching(&browser, &node, "bob", "Attic").await;
    // What was said before is there, with who said it.
    bob.shows("Who is here?").await;
    say(&mut bob, EVIL).await;
    for tab in [&mut ann, &mut bob] {
        tab.shows(EVIL).await;
        let inside = "[document.querySelectorAll('#lines img, #lines b').length, document.title].join()";
        assert_eq!(tab.evaluate(inside).await, "0,Usher: player demo");
        // Each line once, in order.
        let said = "[...document.querySelectorAll('#lines p')].map((line) => line.lastChild.textContent)";
        assert_eq!(tab.evaluate(said).await, json!(["Who is here?", EVIL]));
    }
    bob.shows("ann ").await;
    // Two at once are too fast: the second comes back to its writer.
    say(&mut ann, "one").await;
    say(&mut ann, "two").await;
    ann.shows("Too fast: one line a second.").await;
    assert_eq!(
        ann.evaluate("document.getElementById('words').value").await,
        "two"
    );
    // Who does not watch does not talk.
    press(&mut ann, "Stop watching").await;
    ann.shows("The stream is free for another screen.").await;
    assert_eq!(
        ann.evaluate("document.getElementById('send').disabled").await,
        true
    );
}

/// Says something by the form beside the player.
async fn say(tab: &mut Tab, text: &str) {
    let words = json!(text);
    let start = Instant::now();
    let ready = "!document.getElementById('chat').hidden && !document.getElementById('send').disabled";
    while tab.evaluate(ready).await != json!(true) {
        assert!(start.elapsed() < SOON, "there is no chat");
    }
    let fill = format!(
        "document.getElementById('words').value = {words}; document.getElementById('say').requestSubmit(); 1"
    );
    tab.evaluate(&fill).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_messages_there_is_no_chat() {
    let node = Node::with("[modules]\nmessages = false\n").await;
    let browser = Chromium::start(&node.dir.join("browser")).await;
    let mut tab = watching(&browser, &node, "ann", "Den").await;
    plays(&mut tab).await;
    assert_eq!(tab.evaluate("document.getElementById('chat').hidden").await, true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_consent_the_other_screen_is_asked_and_may_say_no() {
    let node =
        Node::with("[takeover]\nmode = \"consent\"\nanswer_within = \"60s\"\n[lease]\nlimit = 1\n").await;
    let browser = Chromium::start(&node.dir.join("browser")).await;
    let mut den = watching(&browser, &node, "ann", "Den").await;
    let url = format!(
        "https://{}/#token={}&device=Attic&content=film&play",
        node.players,
        token("ann")
    );
    let mut attic = browser.open(&url).await;
    attic.shows("Stop that one").await;
    press(&mut attic, "Stop that one: Den").await;
    den.shows("Attic wants to watch.").await;
    den.is_accessible("demo-asked").await;
    press(&mut den, "Keep watching").await;
    attic.shows("They want to keep watching").await;
    plays(&mut den).await;
    press(&mut attic, "Stop that one: Den").await;
    den.shows("Attic wants to watch.").await;
    press(&mut den, "Let them watch").await;
    attic.shows("1 of 1: playing on Attic.").await;
    den.shows("Attic took over").await;
    assert_eq!(
        den.evaluate("document.getElementById('video').paused").await,
        true
    );
    assert_eq!(
        den.evaluate("document.getElementById('request').hidden").await,
        true
    );
}

/// The states of the page, for eyes, screen readers and small screens.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_state_of_the_demo_is_accessible_on_any_screen() {
    // One account says more than one line a second here.
    let node = Node::with("[messages]\nslow_mode = \"0s\"\n").await;
    let browser = Chromium::start(&node.dir.join("browser")).await;
    let page = |device: &str| format!("https://{}/#device={device}", node.players);
    let mut tabs = Vec::new();
    for device in ["Living%20room", "Kitchen", "Bedroom"] {
        let mut tab = browser.open(&page(device)).await;
        tab.shows("playing on").await;
        tabs.push(tab);
    }
    say(&mut tabs[0], "Popcorn is ready").await;
    tabs[1].shows("Popcorn is ready").await;
    say(&mut tabs[1], "Coming!").await;
    tabs[0].shows("Coming!").await;
    tabs[0].is_accessible("demo-playing").await;
    let mut fourth = browser.open(&page("Phone")).await;
    fourth.shows("All 3 streams are in use").await;
    fourth.is_accessible("demo-refused").await;
    press(&mut fourth, "Wait for a free place").await;
    fourth.shows("Waiting for a free stream").await;
    fourth.is_accessible("demo-waiting").await;
    press(&mut fourth, "Stop waiting").await;
    press(&mut fourth, "Play").await;
    press(&mut fourth, "Stop that one: Kitchen").await;
    tabs[1].shows("Phone took over").await;
    tabs[1].is_accessible("demo-displaced").await;
    press(&mut fourth, "Sign in instead").await;
    fourth.shows("E-mail or user name").await;
    fourth.is_accessible("demo-sign-in").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_with_a_token_plays_with_it_and_keeps_it_to_itself() {
    let node = Node::start().await;
    let browser = Chromium::start(&node.dir.join("browser")).await;
    let token = token("home");
    let url = format!(
        "https://{}/#token={token}&device=Den&content=film&play",
        node.players
    );
    let mut tab = browser.open(&url).await;
    tab.shows("1 of 3: playing on Den.").await;
    assert_eq!(node.sessions("home").await[0]["content"], "film");
    // The token of a browser travels as a subprotocol and is not logged, nor shown, nor left in the address.
    assert!(!node.log().contains(&token));
    assert_eq!(
        tab.evaluate("location.href").await,
        json!(format!("https://{}/", node.players))
    );
    assert_eq!(
        tab.evaluate(&format!("document.body.textContent.includes('{token}')"))
            .await,
        false
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_signs_in_and_watches_on_an_account_of_his_own() {
    let node = Node::start().await;
    let body =
        json!({"email": "zoe@example.com", "password": "seven lanterns at sea", "name": "Zoe"}).to_string();
    let length = body.len().to_string();
    let headers = [("Content-Type", "application/json"), ("Content-Length", &*length)];
    let signed_up = node.ask(&(request("POST", "/v1/users", &headers) + &body)).await;
    assert_eq!(signed_up.status, 201, "{signed_up:?}");
    let browser = Chromium::start(&node.dir.join("browser")).await;
    let mut tab = browser
        .open(&format!("https://{}/#device=Den", node.players))
        .await;
    tab.shows("1 of 3: playing on Den.").await;
    press(&mut tab, "Sign in instead").await;
    for (password, shown) in [
        ("a wrong password", "The name or the password is wrong."),
        ("seven lanterns at sea", "Watching as Zoe"),
    ] {
        let fill = format!(
            "document.getElementById('name').value = 'zoe@example.com';
            document.getElementById('password').value = '{password}';
            document.getElementById('passwordform').requestSubmit(); 1"
        );
        assert_eq!(tab.evaluate(&fill).await, 1);
        tab.shows(shown).await;
    }
    tab.shows("1 of 3: playing on Den.").await;
    let account = signed_up.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(node.sessions(&account).await.len(), 1);
    assert!(node.sessions("demo").await.is_empty());
}

#[tokio::test]
async fn the_demo_account_opens_the_demo_and_nothing_else() {
    let node = Node::start().await;
    let host = node.players.to_string();
    let answer = node.ask(&get("/demo/token", &[("Host", &host)])).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("cache-control")),
        (200, Some("no-store"))
    );
    let said = answer.json();
    let token = said["token"].as_str().unwrap();
    let refused = node.try_watch(token, "content=film").await.err().unwrap();
    assert_eq!(
        (refused.0.as_u16(), &refused.1["error"]["code"]),
        (403, &Value::from("content_forbidden"))
    );
    assert!(node.try_watch(token, "content=demo").await.is_ok());
    let claims = jsonwebtoken::decode::<Value>(
        token,
        &jsonwebtoken::DecodingKey::from_secret(SECRET.as_bytes()),
        &jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::HS256),
    );
    let claims = claims.unwrap().claims;
    assert_eq!(claims["sub"], "demo");
    assert!(claims["exp"].as_u64().unwrap() <= now() + 3601);
    let foreign = node
        .ask(&get(
            "/demo/token",
            &[("Host", &host), ("Origin", "https://elsewhere.example")],
        ))
        .await;
    assert_eq!(foreign.refusal().1, "origin_forbidden");
}

#[tokio::test]
async fn a_node_with_a_certificate_of_its_own_has_no_demo_account() {
    let place = Place::with("[tls]\ncert = \"certs/server.pem\"\nkey = \"certs/server-key.pem\"\n");
    assert_eq!(place.run(&[], &["certs"]).code, 0);
    let node = place.serve(USUAL, &[]).await;
    let answer = node.ask(&get("/demo/token", &[])).await;
    assert_eq!(answer.refusal(), (404, "not_found".to_owned(), None));
    assert_eq!(node.ask(&get("/", &[])).await.status, 200);
}

#[tokio::test]
async fn the_clip_comes_whole_and_in_parts() {
    let node = Node::start().await;
    let (status, headers, _) = node.raw(&get("/demo.webm", &[("Connection", "close")])).await;
    assert_eq!(
        (
            status.as_u16(),
            &headers["accept-ranges"],
            &headers["content-type"]
        ),
        (200, &"bytes".parse().unwrap(), &"video/webm".parse().unwrap())
    );
    let length = headers["content-length"].to_str().unwrap();
    let (status, headers, _) = node
        .raw(&get(
            "/demo.webm",
            &[("Range", "bytes=100-"), ("Connection", "close")],
        ))
        .await;
    let last: u64 = length.parse::<u64>().unwrap() - 1;
    assert_eq!(
        (status.as_u16(), headers["content-range"].to_str().unwrap()),
        (206, &*format!("bytes 100-{last}/{length}"))
    );
    assert_eq!(
        headers["content-length"].to_str().unwrap(),
        (last - 99).to_string()
    );
}
