//! People's accounts from outside: signing up, in and out, on SQLite and on PostgreSQL.

mod doors;
mod fields;
mod nodes;
mod passwords;
mod people;
mod storm;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::harness::Node;
use crate::postgres::Postgres;
use crate::stage::{Answer, request};

/// A password that nobody finds fault with.
pub(crate) const PASSWORD: &str = "correct horse battery";

/// Hashes that cost next to nothing, so that a busy machine has time for what is tested.
pub(crate) const CHEAP: &str = "[accounts]\nhash_memory_kib = 8192\nhash_passes = 1\n";

/// A node, and the database server that it may have.
pub(crate) struct Stage {
    pub(crate) node: Node,
    pub(crate) server: Option<Postgres>,
}

impl Stage {
    /// With a file of its own.
    pub(crate) async fn sqlite(toml: &str) -> Self {
        Self {
            node: Node::with(&format!("{CHEAP}{toml}")).await,
            server: None,
        }
    }

    /// With a PostgreSQL server.
    pub(crate) async fn postgres(toml: &str) -> Self {
        let server = Postgres::start().await;
        let toml = format!("{CHEAP}{toml}\n[database]\nurl = \"{}\"\n", server.url());
        Self {
            node: Node::with(&toml).await,
            server: Some(server),
        }
    }
}

/// `Authorization: Basic`
pub(crate) fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
}

/// `Authorization: Bearer`
pub(crate) fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// One request with a JSON body, or none.
pub(crate) async fn call(node: &Node, method: &str, path: &str, authorization: &str, body: &Value) -> Answer {
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let length = body.len().to_string();
    let mut headers = vec![("Content-Length", length.as_str())];
    if !authorization.is_empty() {
        headers.push(("Authorization", authorization));
    }
    if !body.is_empty() {
        headers.push(("Content-Type", "application/json"));
    }
    node.ask(&(request(method, path, &headers) + &body)).await
}

/// Signs somebody up, who must be let in; the id.
pub(crate) async fn sign_up(node: &Node, email: &str) -> String {
    let body = json!({"email": email, "password": PASSWORD});
    let answer = call(node, "POST", "/v1/users", "", &body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()["id"].as_str().unwrap().to_owned()
}

/// Signs in with the usual password; the whole answer.
pub(crate) async fn sign_in(node: &Node, email: &str, body: &Value) -> Value {
    let answer = call(node, "POST", "/v1/auth", &basic(email, PASSWORD), body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    answer.json()
}

/// The token of a fresh sign-in, as a header.
pub(crate) async fn enter(node: &Node, email: &str) -> String {
    bearer(
        sign_in(node, email, &Value::Null).await["token"]
            .as_str()
            .unwrap(),
    )
}

/// An admin's token that no row stands behind, as a command mints it.
pub(crate) fn staff(scope: &str) -> String {
    use crate::harness::{now, sign};
    bearer(&sign(
        &json!({"sub": "staff", "exp": now() + 600, "scope": scope}),
    ))
}
