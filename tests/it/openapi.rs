//! The document of the API: what it says of every route, and that what is served is what it says.

use std::collections::HashSet;

use serde_json::Value;

use crate::harness::Node;
use crate::stage::get;

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
            assert_eq!(answers.contains_key("401"), is_secured, "{here}");
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
