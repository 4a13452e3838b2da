//! How fast an account may start, and an address or a token may ask: 429, told when to come back.

use std::time::Duration;

use http::StatusCode;
use serde_json::json;

use crate::harness::{Node, now, sign, token};
use crate::stage::{Answer, ask, get, handshake};

/// Nothing else is in the way of a rush.
const FREE: &str = "requests_per_second_per_token = 0\n";

fn start(authorization: &str, device: &str) -> String {
    handshake(
        &format!("/v1/watch?content=m&device={device}&on_limit=ask"),
        &[("Authorization", authorization)],
    )
}

/// Seconds after which to come back.
fn retry_after(answer: &Answer) -> u64 {
    assert_eq!(answer.refusal(), (429, "rate_limited".to_owned(), None));
    answer.header("retry-after").unwrap().parse().unwrap()
}

async fn limited(node: &Node, rule: &str) -> f64 {
    node.metric(&format!("usher_rate_limited_total{{rule=\"{rule}\"}}"))
        .await
}

#[tokio::test]
async fn an_account_that_starts_too_often_is_429_before_the_upgrade_and_served_when_it_comes_back() {
    let node = Node::with(&format!(
        "[limits]\nstarts_burst = 3\nstarts_per_second = 1\n{FREE}"
    ))
    .await;
    let bearer = |account: &str| format!("Bearer {}", token(account));
    let authorization = bearer("a");
    for _ in 0..3 {
        assert_eq!(node.ask(&start(&authorization, "d")).await.status, 101);
    }
    let wait = retry_after(&node.ask(&start(&authorization, "d")).await);
    assert!((1..=3).contains(&wait), "{wait}");
    // Another token of the account is no way round it, another account and the same name elsewhere are not meant.
    let fresh = sign(&json!({"sub": "a", "exp": now() + 77}));
    let answer = node.ask(&start(&format!("Bearer {fresh}"), "d")).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(node.ask(&start(&bearer("b"), "d")).await.status, 101);
    let elsewhere = sign(&json!({"sub": "a", "tenant": "other", "exp": now() + 60}));
    assert_eq!(
        node.ask(&start(&format!("Bearer {elsewhere}"), "d")).await.status,
        101
    );
    assert!(limited(&node, "account_starts").await >= 2.0);
    assert_eq!(limited(&node, "token_requests").await, 0.0);
    tokio::time::sleep(Duration::from_secs(wait)).await;
    assert_eq!(node.ask(&start(&authorization, "d")).await.status, 101);
}

#[tokio::test]
async fn a_choice_on_the_open_socket_is_no_start() {
    let node = Node::with(&format!(
        "[lease]\nlimit = 1\n[limits]\nstarts_burst = 2\nstarts_per_second = 1\n{FREE}"
    ))
    .await;
    let mut first = node.watch("a", "content=m&device=one").await;
    let holder = first.next_of("granted").await["session"].clone();
    let mut second = node.watch("a", "content=m&device=two&on_limit=ask").await;
    second.next_of("denied").await;
    // Five more questions to the account's slots, at once, with the burst used up.
    for _ in 0..4 {
        second
            .say(json!({"type": "takeover", "session": "AAAAAAAAAAAAAAAAAAAAAA"}))
            .await;
        second.next_of("denied").await;
    }
    second.say(json!({"type": "takeover", "session": holder})).await;
    second.next_of("granted").await;
    assert_eq!(limited(&node, "account_starts").await, 0.0);
}

#[tokio::test]
async fn a_token_has_a_rate_once_it_is_verified_and_services_have_none() {
    let node = Node::with("[limits]\nrequests_burst_per_token = 3\nrequests_per_second_per_token = 1").await;
    let mut stream = node.connect().await;
    let mut statuses = async |token: &str| {
        let mut statuses = Vec::new();
        for _ in 0..6 {
            let request = get(
                "/v1/watch?content=m",
                &[("Authorization", &format!("Bearer {token}"))],
            );
            statuses.push(ask(&mut stream, &request).await.status.as_u16());
        }
        statuses
    };
    let found = statuses(&token("a")).await;
    assert_eq!(found[..3], [426; 3]);
    assert!(found[3..].contains(&429), "{found:?}");
    // Not believed: not counted, so that a stranger neither fills the table nor is told apart.
    assert_eq!(statuses("x.y.z").await, [401; 6]);
    for scope in ["watch introspect", "watch operator"] {
        let service = sign(&json!({"sub": "a", "exp": now() + 60, "scope": scope}));
        assert_eq!(statuses(&service).await, [426; 6], "{scope}");
    }
    assert!(limited(&node, "token_requests").await >= 1.0);
}

#[tokio::test]
async fn an_address_has_a_rate_for_whatever_it_asks_and_the_admin_listener_none() {
    let toml = "[listen]\ntrusted_proxies = [\"127.0.0.0/8\"]\n[limits]\n\
                exempt_addresses = [\"203.0.113.0/24\"]\n\
                requests_burst_per_address = 4\nrequests_per_second_per_address = 1";
    let node = Node::with(toml).await;
    let mut stream = node.connect().await;
    let mut statuses = async |address: &str, path: &str| {
        let mut statuses = Vec::new();
        for _ in 0..8 {
            let answer = ask(&mut stream, &get(path, &[("X-Forwarded-For", address)])).await;
            if answer.status == 429 {
                assert!((1..=4).contains(&retry_after(&answer)));
            }
            statuses.push(answer.status.as_u16());
        }
        statuses
    };
    for (address, path, status) in [
        ("198.51.100.1", "/nothing", 404),
        ("198.51.100.2", "/", 200),
        ("198.51.100.3", "/v1/watch", 401),
    ] {
        let found = statuses(address, path).await;
        assert_eq!(found[..4], [status; 4], "{path}");
        assert!(found[4..].contains(&429), "{path}: {found:?}");
    }
    assert_eq!(statuses("203.0.113.7", "/").await, [200; 8], "exempt");
    assert!(limited(&node, "address_requests").await >= 3.0);
    for path in ["/metrics", "/healthz", "/readyz"] {
        for _ in 0..8 {
            assert_eq!(node.admin_get(path, None).await.0, 200, "{path}");
        }
    }
}
