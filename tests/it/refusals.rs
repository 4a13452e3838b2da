//! What `PROTOCOL.md` says of refusals before the upgrade: each of them, in its order.

use serde_json::{Value, json};

use crate::harness::{Node, now, sign};

/// Rows that need a proxy, a rush (`rates`), a leaving node or an identity provider that does not answer.
const ELSEWHERE: [(&str, &str); 5] = [
    ("404", "content_unknown"),
    ("503", "catalogue_away"),
    ("429", "rate_limited"),
    ("503", "draining"),
    ("503", "unavailable"),
];

/// Status and code of each row of the document's table.
fn documented() -> Vec<(String, String)> {
    let document = include_str!("../../src/protocol/PROTOCOL.md");
    let (_, section) = document.split_once("### Refusals before the upgrade\n").unwrap();
    let section = section.split("\n#").next().unwrap();
    let rows = section
        .lines()
        .filter(|line| line.starts_with("| ") && line.contains('`'));
    let cells = rows.map(|row| {
        row.split('|')
            .map(|cell| cell.trim().trim_matches('`'))
            .collect::<Vec<_>>()
    });
    cells
        .filter(|cells| cells[1] != "status" && !ELSEWHERE.contains(&(cells[1], cells[2])))
        .map(|cells| (cells[1].to_owned(), cells[2].to_owned()))
        .collect()
}

/// A request in which everything is wrong; one thing after the other is mended, and the next one is refused.
#[tokio::test]
async fn refusals_come_in_the_documented_order() {
    let node = Node::start().await;
    let bearer = |claims: Value| format!("Authorization: Bearer {}\r\n", sign(&claims));
    let editor = bearer(json!({"sub": "a", "exp": now() + 60, "scope": "editor"}));
    let bound = bearer(json!({"sub": "a", "exp": now() + 60, "device": "d1", "contents": ["m1"]}));
    let operator = sign(&json!({"sub": "op", "exp": now() + 60, "scope": "operator"}));
    let path = "/v1/admin/accounts/a/block";
    assert_eq!(node.admin_request("POST", path, Some(&operator), "").await.0, 200);
    let free = bearer(json!({"sub": "b", "exp": now() + 60}));
    let foreign = "Origin: https://elsewhere.example\r\n";
    let absurd = format!("{foreign}{}", "X-More: 1\r\n".repeat(70));
    let upgrade = format!(
        "{free}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: short\r\n"
    );
    let steps = [
        ("POST", "", absurd.as_str(), Value::Null),
        ("POST", "", foreign, Value::Null),
        ("POST", "", "", Value::Null),
        ("GET", "", "", Value::Null),
        ("GET", "", &editor, Value::Null),
        ("GET", "", &bound, json!("content")),
        ("GET", "?content=m2&device=d2", &bound, Value::Null),
        ("GET", "?content=m1&device=d2", &bound, Value::Null),
        ("GET", "?content=m1", &bound, Value::Null),
        ("GET", "?content=m1", &free, Value::Null),
        ("GET", "?content=m1", &upgrade, json!("Sec-WebSocket-Key")),
    ];
    let mut refusals = Vec::new();
    for (method, query, headers, field) in steps {
        let head = format!(
            "{method} /v1/watch{query} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n"
        );
        let (status, answers, body) = node.raw(&head).await;
        let error = serde_json::from_str::<Value>(&body).unwrap()["error"].clone();
        assert_eq!(error["field"], field, "{error}");
        assert_eq!(error["request_id"], answers["x-request-id"].to_str().unwrap());
        refusals.push((
            status.as_str().to_owned(),
            error["code"].as_str().unwrap().to_owned(),
        ));
    }
    assert_eq!(refusals, documented());
}
