//! The demo page in a real browser: four tabs, three play, the fourth is told who is watching.

use serde_json::{Value, json};

use crate::chromium::{Chromium, Tab};
use crate::harness::{Node, SECRET, now, token};
use crate::stage::{Place, USUAL, get, request};

async fn press(tab: &mut Tab, label: &str) {
    let label = json!(label);
    let text = format!(
        "[...document.querySelectorAll('button')].find((one) => (one.ariaLabel ?? one.textContent) === {label}).click()"
    );
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
    press(&mut fourth, "Stop Bedroom").await;
    fourth.shows("3 of 3: playing on Phone.").await;
    tabs[1].shows("Phone took over").await;
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
