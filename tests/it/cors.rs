//! Web pages of other hosts: which may ask, and read what they are answered.

use crate::harness::{Node, token};
use crate::stage::{Answer, get, request};

/// A page that the configuration names.
const PLAYER: &str = "https://play.example.com";

async fn listed() -> Node {
    Node::with(&format!("[http]\norigins = [\"{PLAYER}\"]")).await
}

/// What a browser asks before it lets a page send a request.
async fn preflight(node: &Node, target: &str, origin: &str, method: &str) -> Answer {
    let headers = [
        ("Origin", origin),
        ("Access-Control-Request-Method", method),
        (
            "Access-Control-Request-Headers",
            "authorization,content-type,usher-resume",
        ),
    ];
    node.ask(&request("OPTIONS", target, &headers)).await
}

fn words(answer: &Answer, name: &str) -> Vec<String> {
    let value = answer
        .header(name)
        .unwrap_or_else(|| panic!("no {name}: {answer:?}"));
    let words = value.split(',').map(|word| word.trim().to_ascii_lowercase());
    words.collect()
}

#[tokio::test]
async fn a_preflight_lets_a_page_ask() {
    let node = listed().await;
    for (target, method) in [
        ("/v1/sessions", "POST"),
        ("/v1/sessions/x", "DELETE"),
        ("/v1/sessions/x/heartbeat", "POST"),
        ("/v1/openapi.json", "GET"),
    ] {
        let answer = preflight(&node, target, PLAYER, method).await;
        assert_eq!(
            (answer.status.as_u16(), &*answer.body),
            (204, ""),
            "{target}: {answer:?}"
        );
        assert_eq!(
            answer.header("access-control-allow-origin"),
            Some(PLAYER),
            "{target}"
        );
        let methods = words(&answer, "access-control-allow-methods");
        assert!(
            methods.contains(&method.to_ascii_lowercase()),
            "{target}: {methods:?}"
        );
        let headers = words(&answer, "access-control-allow-headers");
        for header in ["authorization", "content-type", "usher-resume"] {
            assert!(headers.iter().any(|told| told == header), "{target}: {headers:?}");
        }
        assert!(words(&answer, "vary").contains(&"origin".to_owned()), "{target}");
        assert!(answer.header("access-control-max-age").is_some(), "{target}");
        assert_eq!(
            answer.header("access-control-allow-credentials"),
            None,
            "{target}"
        );
    }
    // Without a method to ask for it is no preflight.
    let plain = node
        .ask(&request("OPTIONS", "/v1/sessions", &[("Origin", PLAYER)]))
        .await;
    assert_eq!(plain.refusal().0, 405);
    assert_eq!(words(&plain, "allow").len(), 3);
    let nowhere = preflight(&node, "/v1/nothing", PLAYER, "GET").await;
    assert_eq!(nowhere.refusal().0, 404);
}

#[tokio::test]
async fn a_page_that_is_allowed_reads_answers_and_refusals() {
    let node = listed().await;
    let bearer = format!("Bearer {}", token("a"));
    for (target, authorization, status) in [
        ("/v1/sessions", Some(&bearer), 200),
        ("/v1/sessions", None, 401),
        ("/v1/sessions?page=0", Some(&bearer), 400),
        ("/v1/nothing", None, 404),
    ] {
        let mut headers = vec![("Origin", PLAYER)];
        headers.extend(authorization.map(|bearer| ("Authorization", &**bearer)));
        let answer = node.ask(&get(target, &headers)).await;
        assert_eq!(answer.status, status, "{target}: {answer:?}");
        assert_eq!(
            answer.header("access-control-allow-origin"),
            Some(PLAYER),
            "{answer:?}"
        );
        let exposed = words(&answer, "access-control-expose-headers");
        for header in ["retry-after", "x-request-id", "location"] {
            assert!(exposed.iter().any(|told| told == header), "{exposed:?}");
        }
        assert!(
            words(&answer, "vary").contains(&"origin".to_owned()),
            "{answer:?}"
        );
        assert_eq!(
            answer.header("access-control-allow-credentials"),
            None,
            "{answer:?}"
        );
        if status >= 400 {
            answer.error();
        }
    }
    // Who sends none learns nothing of pages, but that the answer depends on it.
    let answer = node
        .ask(&get("/v1/sessions", &[("Authorization", &bearer)]))
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), None);
    assert!(
        words(&answer, "vary").contains(&"origin".to_owned()),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_page_of_a_foreign_host_is_refused() {
    let (own, listed) = (Node::start().await, listed().await);
    let bearer = format!("Bearer {}", token("a"));
    let here = ["https://localhost", "http://localhost"];
    for (node, origin, is_allowed) in [
        (&own, here[0], true),
        (&own, here[1], true),
        (&own, "https://evil.example", false),
        (&own, PLAYER, false),
        (&own, "null", false),
        (&listed, PLAYER, true),
        (&listed, here[0], false),
        (&listed, "null", false),
        (&listed, "https://play.example.com.evil.example", false),
    ] {
        for target in ["/v1/sessions", "/v1/openapi.json", "/v1/nothing"] {
            let asked = get(target, &[("Origin", origin), ("Authorization", &bearer)]);
            for answer in [
                node.ask(&asked).await,
                preflight(node, target, origin, "GET").await,
            ] {
                let told = answer.header("access-control-allow-origin");
                assert_eq!(
                    told,
                    is_allowed.then_some(origin),
                    "{target} {origin}: {answer:?}"
                );
                let is_refused = answer.status == 403;
                assert_eq!(is_refused, !is_allowed, "{target} {origin}: {answer:?}");
                if is_refused {
                    assert_eq!(answer.refusal().1, "origin_forbidden", "{target} {origin}");
                }
            }
        }
    }
    // A proxy passes on the header of the page that it serves.
    let checked = own
        .ask(&get("/v1/tickets/check", &[("Origin", "https://evil.example")]))
        .await;
    assert_eq!(checked.refusal().0, 401);
    assert_eq!(checked.header("access-control-allow-origin"), None);
}
