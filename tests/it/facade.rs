//! The facade for players that were written for Adobe Pass Concurrency Monitoring: a conversation, field by field, as its
//! public documentation describes the calls.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::harness::{Node, now, sign};
use crate::redis_servers::Redis;
use crate::stage::{Answer, request};

const FACADE: &str = "[facade]\nadobe = true\n[facade.applications.demo-app]\ntenant = \"main\"\nplan = \"two\"\n\
     [facade.applications.other-app]\ntenant = \"other\"\n[plans.two]\nlimit = 2\n";

/// One call, with this application id.
async fn call_as(
    node: &Node,
    id: &str,
    method: &str,
    path: &str,
    more: &[(&str, &str)],
    form: &str,
) -> Answer {
    let basic = format!("Basic {}", STANDARD.encode(format!("{id}:")));
    let length = form.len().to_string();
    let mut headers = vec![("Authorization", &*basic), ("Content-Length", &*length)];
    if !form.is_empty() {
        headers.push(("Content-Type", "application/x-www-form-urlencoded"));
    }
    headers.extend(more);
    node.ask(&(request(method, &format!("/v2{path}"), &headers) + form))
        .await
}

async fn call(node: &Node, method: &str, path: &str, form: &str) -> Answer {
    call_as(node, "demo-app", method, path, &[], form).await
}

/// `Expires` less `Date`.
fn interval(answer: &Answer) -> Duration {
    let time =
        |name: &str| -> SystemTime { httpdate::parse_http_date(answer.header(name).unwrap()).unwrap() };
    time("expires").duration_since(time("date")).unwrap()
}

/// 202: the session, where there is a new one.
fn accepted(answer: &Answer) -> String {
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(interval(answer), Duration::from_secs(60));
    assert_eq!(answer.json(), json!({"associatedAdvice": [], "obligations": []}));
    answer.header("location").unwrap_or_default().to_owned()
}

async fn start(node: &Node, form: &str) -> String {
    let session = accepted(&call(node, "POST", "/sessions/idp-1/sub-1", form).await);
    assert_eq!(session.len(), 22);
    session
}

async fn beat(node: &Node, session: &str) -> Answer {
    call(node, "POST", &format!("/sessions/idp-1/sub-1/{session}"), "").await
}

async fn converse(a: &Node, b: &Node) {
    // Which metadata.
    let metadata = call(a, "GET", "/metadata", "").await;
    assert_eq!(metadata.status, 200);
    assert_eq!(
        metadata.json(),
        json!(["assetId", "channel", "deviceId", "deviceName", "deviceType"])
    );
    let missing = call(a, "POST", "/sessions/idp-1/sub-1", "deviceId=tv-1").await;
    assert_eq!(
        missing.refusal(),
        (400, "bad_request".to_owned(), Some("channel".to_owned()))
    );

    // Init, heartbeat.
    let first = start(
        a,
        "channel=News&deviceId=tv-1&deviceName=Living+room&deviceType=tv&package=gold",
    )
    .await;
    let second = start(b, "channel=Sports&deviceId=phone-1").await;
    assert!(accepted(&beat(b, &first).await).is_empty());

    // Conflict.
    let start_third = "channel=Film&deviceId=web-1&deviceName=Desk";
    let conflict = call(a, "POST", "/sessions/idp-1/sub-1", start_third).await;
    assert_eq!(conflict.status, 409, "{conflict:?}");
    let body = conflict.json();
    assert_eq!(body["obligations"], json!([]));
    let [advice] = &body["associatedAdvice"].as_array().unwrap()[..] else {
        panic!("one advice: {body}");
    };
    let mut plain = advice.clone();
    let conflicts = plain.as_object_mut().unwrap().remove("conflicts").unwrap();
    assert_eq!(
        plain,
        json!({
            "type": "rule-violation", "policyName": "usher", "ruleName": "account", "scope": {},
            "attribute": "streams", "threshold": 2, "message": "2 of 2 are in use",
        })
    );
    let codes: Vec<String> = conflicts
        .as_array()
        .unwrap()
        .iter()
        .map(|conflict| conflict["terminationCode"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(codes.len(), 2);
    let started = conflicts[0]["startedAt"].as_str().unwrap();
    assert!(humantime::parse_rfc3339(started).unwrap() <= SystemTime::now());
    assert_eq!(
        conflicts[0],
        json!({
            "startedAt": started, "deviceId": "tv-1", "deviceName": "Living room", "deviceType": "tv", "channel": "News",
            "terminationCode": codes[0],
        })
    );
    // A code ends a session; it does not speak for one.
    assert!(!codes.contains(&first) && !codes.contains(&second));
    assert_eq!(beat(a, &codes[0]).await.status, 410);

    // The same device again is no conflict.
    let second = start(a, "channel=Sports+2&deviceId=phone-1").await;

    // Terminate.
    let path = "/sessions/idp-1/sub-1";
    let header = [("X-Terminate", &*codes[0])];
    let third = accepted(&call_as(b, "demo-app", "POST", path, &header, start_third).await);
    for node in [a, b] {
        let gone = beat(node, &first).await;
        assert_eq!(gone.status, 410);
        assert_eq!(
            gone.json(),
            json!({
                "associatedAdvice": [{
                    "type": "remote-termination", "terminationCode": codes[0],
                    "message": "another device of the account ended this session",
                    "deviceId": "web-1", "deviceName": "Desk", "deviceType": null,
                }],
                "obligations": [],
            })
        );
    }

    // Who streams; and another application's tenant sees none of them.
    let running = call(b, "GET", "/runningStreams/idp-1/sub-1", "").await;
    assert_eq!(running.status, 200);
    let streams = running.json();
    let channels: Vec<&str> = streams
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["channel"].as_str().unwrap())
        .collect();
    assert_eq!(channels, ["Sports 2", "Film"]);
    assert!(running.header("expires").is_some());
    let foreign = call_as(a, "other-app", "GET", "/runningStreams/idp-1/sub-1", &[], "").await;
    assert_eq!(foreign.json(), json!([]));
    let foreign = call_as(a, "other-app", "POST", &format!("{path}/{third}"), &[], "").await;
    assert_eq!((foreign.status.as_u16(), &*foreign.body), (410, ""));

    // A socket of the account competes for the same slots.
    let token = sign(&json!({"sub": "idp-1/sub-1", "exp": now() + 600, "streams": 2}));
    let mut player = a.try_watch(&token, "content=m&device=d").await.unwrap();
    assert_eq!(player.next().await["type"], "denied");

    // Two codes: both end, with one start.
    let all: Vec<String> = streams
        .as_array()
        .unwrap()
        .iter()
        .map(|stream| stream["terminationCode"].as_str().unwrap().to_owned())
        .collect();
    let both = all.join(", ");
    let last = accepted(
        &call_as(
            a,
            "demo-app",
            "POST",
            path,
            &[("X-Terminate", &both)],
            "assetId=x&deviceId=d9",
        )
        .await,
    );
    for ended in [&second, &third] {
        let gone = beat(b, ended).await;
        assert_eq!(
            (gone.status.as_u16(), &gone.json()["associatedAdvice"][0]["type"]),
            (410, &json!("remote-termination"))
        );
    }

    // Stop, and gone: without a body, start again silently.
    accepted(&call(b, "DELETE", &format!("{path}/{last}"), "").await);
    for method in ["POST", "DELETE"] {
        let gone = call(a, method, &format!("{path}/{last}"), "").await;
        assert_eq!((gone.status.as_u16(), &*gone.body), (410, ""));
    }
    assert_eq!(
        call(a, "GET", "/runningStreams/idp-1/sub-1", "").await.json(),
        json!([])
    );
}

#[tokio::test]
async fn a_conversation_field_by_field() {
    let node = Node::with(FACADE).await;
    converse(&node, &node).await;
}

#[tokio::test]
async fn a_conversation_over_two_nodes() {
    let redis = Redis::start(&[]).await;
    let settings = format!("{FACADE}[redis]\nurl = \"{}\"\n", redis.url());
    let (a, b) = tokio::join!(Node::with(&settings), Node::with(&settings));
    converse(&a, &b).await;
}

#[tokio::test]
async fn only_known_applications_call_it_and_only_where_it_is_on() {
    let node = Node::with(FACADE).await;
    for id in ["", "stranger", "demo-app:secret"] {
        let answer = call_as(&node, id, "GET", "/metadata", &[], "").await;
        assert_eq!(answer.refusal(), (401, "unauthorized".to_owned(), None), "{id}");
        assert_eq!(
            answer.header("www-authenticate"),
            Some("Basic realm=\"sessions\"")
        );
    }
    let bare = node.ask(&request("GET", "/v2/metadata", &[])).await;
    assert_eq!(bare.status, 401);
    let long = "x".repeat(256);
    let answer = call(&node, "POST", &format!("/sessions/idp/{long}"), "channel=a").await;
    assert_eq!(answer.refusal().0, 400);
    let json = [("Content-Type", "application/json"), ("Content-Length", "2")];
    let basic = format!("Basic {}", STANDARD.encode("demo-app:"));
    let head = request(
        "POST",
        "/v2/sessions/i/s",
        &[&json[..], &[("Authorization", &*basic)]].concat(),
    );
    assert_eq!(node.ask(&(head + "{}")).await.status, 415);
    assert_eq!(
        call(&node, "POST", "/sessions/i/s/not-a-session", "").await.body,
        ""
    );
    let off = Node::start().await;
    assert_eq!(call(&off, "GET", "/metadata", "").await.status, 404);
}
