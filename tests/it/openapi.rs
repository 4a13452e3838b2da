//! The document of the API: what it says of every route, and that what is served is what it says.

use std::collections::HashSet;

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::chromium::Chromium;
use crate::harness::{Node, now, sign};
use crate::stage::{Answer, answer, get, request};

/// Members of a path that are operations.
const METHODS: [&str; 6] = ["get", "put", "post", "delete", "patch", "head"];

/// The documents of both listeners.
async fn documents(node: &Node) -> [Value; 2] {
    let players = node.ask(&get("/v1/openapi.json", &[])).await;
    assert_eq!(players.status, 200);
    assert_eq!(players.header("content-type"), Some("application/json"));
    let (status, _, operators) = node.admin_get("/v1/openapi.json", None).await;
    assert_eq!(status, 200);
    [players.json(), serde_json::from_str(&operators).unwrap()]
}

/// Path, method and description of every operation.
fn operations(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    let paths = document["paths"].as_object().unwrap().iter();
    paths.flat_map(|(path, item)| {
        let members = item.as_object().unwrap().iter();
        let operations = members.filter(|(name, _)| METHODS.contains(&name.as_str()));
        operations.map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
    })
}

#[tokio::test]
async fn every_operation_is_described_once() {
    let node = Node::start().await;
    let [players, operators] = documents(&node).await;
    for (document, known) in [(&players, "/v1/watch"), (&operators, "/v1/admin/sessions")] {
        assert_eq!(document["openapi"], "3.1.0");
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        assert!(document["paths"][known].is_object(), "{document}");
        let mut ids = HashSet::new();
        for (path, method, operation) in operations(document) {
            let here = format!("{method} {path}: {operation}");
            let tags = operation["tags"].as_array().unwrap();
            assert_eq!(tags.len(), 1, "{here}");
            let all = document["tags"].as_array().unwrap();
            assert!(all.iter().any(|tag| tag["name"] == tags[0]), "{here}");
            assert!(ids.insert(&operation["operationId"]), "twice: {here}");
            assert!(!operation["summary"].as_str().unwrap().is_empty(), "{here}");
            let answers = operation["responses"].as_object().unwrap();
            assert!(answers.keys().any(|status| status.as_str() < "300"), "{here}");
            let is_secured = !operation["security"].is_null();
            // A refresh token is in the body.
            let proves = is_secured || path == "/v1/auth/refresh";
            assert_eq!(answers.contains_key("401"), proves, "{here}");
        }
        references(document, document);
    }
}

/// Every reference refers to something.
fn references(document: &Value, part: &Value) {
    match part {
        Value::Object(members) => {
            if let Some(reference) = members.get("$ref").and_then(Value::as_str) {
                let pointer = reference.strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "nothing is at {reference}");
            }
            members.values().for_each(|part| references(document, part));
        }
        Value::Array(items) => items.iter().for_each(|part| references(document, part)),
        _ => {}
    }
}

/// A token of every scope.
pub(crate) fn everybody() -> String {
    let scopes = "watch admin editor support finance introspect operator";
    sign(&json!({"sub": "everybody", "exp": now() + 3600, "scope": scopes, "streams": 1000}))
}

/// The path with its parameters filled in: what exists where the test made it, else what may or may not.
fn filled(path: &str, session: &str) -> String {
    let parts = path.split('/').map(|part| match part {
        "{session}" => session,
        part if part.starts_with('{') => "1",
        part => part,
    });
    parts.collect::<Vec<_>>().join("/")
}

/// One table over every path of both listeners: what a client does wrong is answered in the one shape of errors.
#[tokio::test]
async fn every_path_refuses_wrong_methods_types_sizes_and_strangers() {
    let node = Node::start().await;
    let token = everybody();
    let bearer = format!("Bearer {token}");
    let opened = post(
        &node,
        "/v1/sessions",
        &bearer,
        "",
        "application/json",
        r#"{"content":"m"}"#,
    )
    .await;
    assert_eq!(opened.status, 201, "{opened:?}");
    let opened = opened.json();
    let (session, secret) = (
        opened["session"].as_str().unwrap(),
        opened["resume"].as_str().unwrap(),
    );
    let (mut methods, mut bodies, mut secured) = (0, 0, 0);
    let [players, operators] = documents(&node).await;
    for (document, operates) in [(&players, false), (&operators, true)] {
        let call = Call {
            node: &node,
            operates,
            secret,
        };
        for (path, item) in document["paths"].as_object().unwrap() {
            let target = filled(path, session);
            let mut allowed: Vec<String> = METHODS
                .iter()
                .filter(|method| item[**method].is_object())
                .map(|method| method.to_uppercase())
                .collect();
            if allowed.iter().any(|method| method == "GET") && path != "/v1/watch" {
                allowed.push("HEAD".to_owned());
            }
            // tus asks with OPTIONS what a server can do.
            if path.starts_with("/v1/files/uploads") {
                allowed.push("OPTIONS".to_owned());
            }
            for method in [
                "GET", "PUT", "POST", "DELETE", "PATCH", "TRACE", "OPTIONS", "BREW",
            ] {
                if allowed.iter().any(|allowed| allowed == method) {
                    continue;
                }
                let answer = call
                    .ask(method, &target, Some(&bearer), "application/json", "")
                    .await;
                let refusal = (405, "method_not_allowed".to_owned(), None);
                assert_eq!(answer.refusal(), refusal, "{method} {path}: {answer:?}");
                let mut told: Vec<&str> = answer
                    .header("allow")
                    .unwrap()
                    .split(',')
                    .map(str::trim)
                    .collect();
                told.sort_unstable();
                let mut allowed: Vec<&str> = allowed.iter().map(String::as_str).collect();
                allowed.sort_unstable();
                assert_eq!(told, allowed, "{path}");
                methods += 1;
            }
        }
        for (path, method, operation) in operations(document) {
            let (method, target) = (method.to_uppercase(), filled(path, session));
            // An empty requirement: for everybody, though who is known may do more.
            let ways = operation["security"].as_array();
            let is_closed = ways.is_some_and(|ways| ways.iter().all(|way| *way != json!({})));
            // HEAD's answer has no body, which the client here would wait for.
            if is_closed && method != "HEAD" {
                let answer = call.ask(&method, &target, None, "application/json", "{}").await;
                assert_eq!(answer.status, 401, "{method} {path}: {answer:?}");
                assert_eq!(answer.error()["code"], "unauthorized");
                assert!(answer.header("www-authenticate").is_some(), "{method} {path}");
                secured += 1;
            }
            let Some(content) = operation["requestBody"]["content"].as_object() else {
                continue;
            };
            // What is not there may be refused before the body is looked at.
            let unknown = path.contains('{') && !path.contains("{session}") && !operates;
            let proof = if operation["security"][0]["basic"].is_array() {
                BASIC
            } else {
                &bearer
            };
            let check = |answer: &Answer, expected: u16| {
                let status = answer.status.as_u16();
                answer.error();
                assert!(
                    status == expected || (unknown && status == 404),
                    "{method} {path} instead of {expected}: {answer:?}"
                );
            };
            check(
                &call
                    .ask(&method, &target, Some(proof), "text/x-wrong", "{}")
                    .await,
                415,
            );
            if content.contains_key("application/json") {
                let large = format!(r#"{{"x":"{}"}}"#, "x".repeat(LARGE));
                let answer = call
                    .ask(&method, &target, Some(proof), "application/json", &large)
                    .await;
                check(&answer, 413);
            }
            bodies += 1;
        }
    }
    assert!(
        methods > 60 && bodies >= 5 && secured > 10,
        "{methods} {bodies} {secured}"
    );
}

/// Larger than any JSON that a route takes, in bytes.
const LARGE: usize = 1024 * 1024;

/// Somebody who does not exist.
const BASIC: &str = "Basic bm9ib2R5OndpdGhvdXQgYSBwYXNzd29yZA==";

/// Asks one listener.
struct Call<'a> {
    node: &'a Node,
    operates: bool,
    secret: &'a str,
}

impl Call<'_> {
    async fn ask(&self, method: &str, target: &str, proof: Option<&str>, kind: &str, body: &str) -> Answer {
        let length = body.len().to_string();
        let mut headers = vec![
            ("Usher-Resume", self.secret),
            ("Content-Type", kind),
            ("Content-Length", &length),
        ];
        headers.extend(proof.map(|proof| ("Authorization", proof)));
        let text = request(method, target, &headers) + body;
        if self.operates {
            let stream = TcpStream::connect(self.node.admin).await.unwrap();
            exchange_whole(stream, &text).await
        } else {
            exchange_whole(self.node.connect().await, &text).await
        }
    }
}

/// Sends while it reads: a body that is too large is answered before its end is sent.
async fn exchange_whole<S: AsyncRead + AsyncWrite + Unpin>(stream: S, text: &str) -> Answer {
    let (mut read, mut write) = tokio::io::split(stream);
    let send = async {
        let _ = write.write_all(text.as_bytes()).await;
        let _ = write.flush().await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = send => unreachable!(),
        answer = answer(&mut read) => answer,
    }
}

async fn post(node: &Node, target: &str, bearer: &str, secret: &str, kind: &str, body: &str) -> Answer {
    let call = Call {
        node,
        operates: false,
        secret,
    };
    call.ask("POST", target, Some(bearer), kind, body).await
}

/// The page works in a browser, under its policy, without any other host, and what is tried there is really sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_tries_a_route() {
    let node = Node::start().await;
    let browser = Chromium::start(&node.dir.join("browser")).await;
    let mut tab = browser.open(&format!("https://{}/docs", node.players)).await;
    tab.shows("/v1/tickets/check").await;
    tab.evaluate("document.querySelector('[id$=tickets_key_set] button.opblock-summary-control').click()")
        .await;
    tab.shows("Execute").await;
    tab.evaluate("document.querySelector('.execute').click()").await;
    tab.shows("Response headers").await;
    tab.shows("application/jwk-set+json").await;
    let hosts = "performance.getEntriesByType('resource').map(entry => new URL(entry.name).host)";
    let hosts = tab.evaluate(&format!("[...new Set({hosts})].join()")).await;
    assert_eq!(hosts, node.players.to_string());
}
