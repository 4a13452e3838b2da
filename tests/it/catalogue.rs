//! The catalogue: contents, who sees them, the managed lists, and everything that is refused. On both engines.

use serde_json::{Value, json};

use crate::harness::{Node, now, sign};
use crate::library::upload;
use crate::postgres::Postgres;
use crate::stage::{Answer, request};

/// No demo contents in the way.
pub(crate) const PLAIN: &str = "[catalogue]\ndemo = false\n";

/// A node on a PostgreSQL of its own.
pub(crate) async fn on_postgres(toml: &str) -> (Node, Postgres) {
    let server = Postgres::start().await;
    let node = Node::with(&format!("{toml}\n[database]\nurl = \"{}\"\n", server.url())).await;
    (node, server)
}

/// A token of this tenant with these claims beside.
pub(crate) fn token_of(tenant: &str, account: &str, more: &Value) -> String {
    let mut claims = json!({"sub": account, "tenant": tenant, "exp": now() + 3600});
    let more = more.as_object().unwrap().clone();
    claims.as_object_mut().unwrap().extend(more);
    sign(&claims)
}

pub(crate) fn editor(tenant: &str) -> String {
    token_of(tenant, "ed", &json!({"scope": "editor"}))
}

pub(crate) fn viewer(tenant: &str) -> String {
    token_of(tenant, "vi", &json!({}))
}

/// One request with a JSON body; `null` is none.
pub(crate) async fn call(node: &Node, method: &str, path: &str, token: &str, body: &Value) -> Answer {
    if body.is_null() {
        return send(node, method, path, token, "", "").await;
    }
    send(node, method, path, token, "application/json", &body.to_string()).await
}

/// One request with a body of this media type; an empty one is none.
pub(crate) async fn send(
    node: &Node,
    method: &str,
    path: &str,
    token: &str,
    kind: &str,
    body: &str,
) -> Answer {
    let (bearer, length) = (format!("Bearer {token}"), body.len().to_string());
    let mut headers = vec![("Authorization", bearer.as_str()), ("Content-Length", &length)];
    if !kind.is_empty() {
        headers.push(("Content-Type", kind));
    }
    node.ask(&(request(method, path, &headers) + body)).await
}

/// A content with an id of its own and nothing more than it must have.
pub(crate) fn film(id: &str) -> Value {
    json!({"id": id, "name": format!("Film {id}"), "type": "vod", "source": "https://cdn.example/film.m3u8"})
}

/// The content with other members.
pub(crate) fn with(mut content: Value, more: &Value) -> Value {
    let more = more.as_object().unwrap().clone();
    content.as_object_mut().unwrap().extend(more);
    content
}

pub(crate) async fn create(node: &Node, tenant: &str, content: &Value) -> Value {
    let answer = call(node, "POST", "/v1/content", &editor(tenant), content).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()
}

async fn ids(node: &Node, token: &str, query: &str) -> Vec<String> {
    let answer = call(node, "GET", &format!("/v1/content{query}"), token, &Value::Null).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let items = answer.json()["items"].as_array().unwrap().clone();
    items
        .iter()
        .map(|item| item["id"].as_str().unwrap().to_owned())
        .collect()
}

/// A life of a content: made, shown, replaced, removed; and another tenant that never sees it.
async fn life(node: &Node) {
    let (ed, other) = (editor("t1"), editor("t2"));
    for (list, id) in [("categories", "sports"), ("languages", "en"), ("roles", "kids")] {
        let path = format!("/v1/content/{list}/{id}");
        let answer = call(node, "PUT", &path, &ed, &Value::Null).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()),
            (201, &json!({"id": id, "name": id}))
        );
        let named = call(node, "PUT", &path, &ed, &json!({"name": "A name"})).await;
        assert_eq!(
            (named.status.as_u16(), &named.json()["name"]),
            (200, &json!("A name"))
        );
    }
    let file = upload(node, &ed, &[], "text/plain", b"a text").await;
    let source = format!("file:{}", file["id"].as_str().unwrap());
    let full = json!({
        "id": "Match 1/é", "name": "Ärger im Spiel", "type": "livestream", "source": source,
        "description": "Two lines\nand a tab\t", "category": "sports", "language": "en", "tags": ["a b", "é", "a b"],
        "label": "L1", "metadata": {"season": 1, "more": {"x": [1.5, null]}}, "duration_ms": 90_000,
        "thumbnail": "https://cdn.example/t.png", "roles": ["kids"], "plans": ["gold"], "unknown": 1,
    });
    let answer = call(node, "POST", "/v1/content", &ed, &full).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let path = answer.header("location").unwrap().to_owned();
    assert_eq!(path, "/v1/content/Match%201%2F%C3%A9");
    let made = answer.json();
    let mut wanted = full.clone();
    wanted["tags"] = json!(["a b", "é"]);
    wanted.as_object_mut().unwrap().remove("unknown");
    wanted["created_at"] = made["created_at"].clone();
    wanted["changed_at"] = made["changed_at"].clone();
    assert_eq!(made, wanted);
    assert_eq!(call(node, "GET", &path, &ed, &Value::Null).await.json(), wanted);
    let again = call(node, "POST", "/v1/content", &ed, &full).await;
    assert_eq!(again.refusal(), (409, "exists".to_owned(), Some("id".to_owned())));

    // Another tenant has its own of the same id, and sees nothing of this one.
    let gone = (404, "content_unknown".to_owned(), None);
    for method in ["GET", "PUT", "DELETE"] {
        let body = if method == "PUT" {
            film("Match 1/é")
        } else {
            Value::Null
        };
        assert_eq!(
            call(node, method, &path, &other, &body).await.refusal(),
            gone,
            "{method}"
        );
    }
    create(node, "t2", &film("Match 1/é")).await;
    assert_eq!(ids(node, &other, "").await, ["Match 1/é"]);
    assert_eq!(ids(node, &other, "?q=spiel").await.len(), 0);
    let lists = call(node, "GET", "/v1/content/categories", &other, &Value::Null).await;
    assert_eq!(lists.json()["total"], 0);

    // A term that is named stays; one that is not goes.
    let term = "/v1/content/categories/sports";
    let used = call(node, "DELETE", term, &ed, &Value::Null).await;
    assert_eq!(used.refusal(), (409, "in_use".to_owned(), None));
    let used = call(node, "DELETE", "/v1/content/roles/kids", &ed, &Value::Null).await;
    assert_eq!(used.status, 409);
    let other_term = call(node, "DELETE", term, &other, &Value::Null).await;
    assert_eq!(other_term.status, 404);

    // A replacement is whole.
    let answer = call(
        node,
        "PUT",
        &path,
        &ed,
        &json!({"name": "New", "type": "vod", "source": "https://x/y"}),
    )
    .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let new = answer.json();
    for empty in [
        "description",
        "category",
        "language",
        "label",
        "metadata",
        "duration_ms",
        "thumbnail",
    ] {
        assert!(new[empty].is_null(), "{empty}: {new}");
    }
    assert_eq!(
        (&new["id"], &new["tags"], &new["plans"]),
        (&full["id"], &json!([]), &json!([]))
    );
    assert_eq!(new["created_at"], made["created_at"]);
    assert_eq!(call(node, "DELETE", term, &ed, &Value::Null).await.status, 204);
    let renamed = call(node, "PUT", &path, &ed, &film("another")).await;
    assert_eq!(
        renamed.refusal(),
        (400, "bad_request".to_owned(), Some("id".to_owned()))
    );

    assert_eq!(call(node, "DELETE", &path, &ed, &Value::Null).await.status, 204);
    assert_eq!(
        call(node, "DELETE", &path, &ed, &Value::Null).await.refusal(),
        gone
    );
    assert_eq!(call(node, "GET", &path, &ed, &Value::Null).await.refusal(), gone);
    assert_eq!(call(node, "GET", &path, &other, &Value::Null).await.status, 200);
    let random = create(
        node,
        "t1",
        &json!({"name": "n", "type": "vod", "source": "https://x/y"}),
    )
    .await;
    assert_eq!(random["id"].as_str().unwrap().len(), 22);
}

/// Filters, orders, pages; what roles and plans show.
async fn lists(node: &Node) {
    let ed = editor("t3");
    for role in ["kids", "Kids", "crew"] {
        call(
            node,
            "PUT",
            &format!("/v1/content/roles/{role}"),
            &ed,
            &Value::Null,
        )
        .await;
    }
    call(node, "PUT", "/v1/content/categories/sports", &ed, &Value::Null).await;
    let contents = [
        with(
            film("a"),
            &json!({"name": "banana 100%", "tags": ["x", "xy"], "label": "L1"}),
        ),
        with(
            film("b"),
            &json!({"name": "Apple", "type": "livestream", "category": "sports"}),
        ),
        with(
            film("c"),
            &json!({"name": "cherry", "tags": ["X"], "duration_ms": 7, "roles": ["kids", "crew"]}),
        ),
        with(
            film("d"),
            &json!({"name": "date", "plans": ["gold"], "duration_ms": 5, "description": "ÄPFEL 1_0"}),
        ),
        with(
            film("e"),
            &json!({"name": "elder", "roles": ["Kids"], "plans": ["basic", "silver"]}),
        ),
    ];
    for content in &contents {
        create(node, "t3", content).await;
    }
    for (query, found) in [
        ("", &["b", "a", "c", "d", "e"][..]),
        ("?sort=-id", &["e", "d", "c", "b", "a"]),
        ("?sort=created_at", &["a", "b", "c", "d", "e"]),
        ("?sort=-duration_ms&limit=2", &["c", "d"]),
        ("?limit=2&page=2", &["c", "d"]),
        ("?page=9", &[]),
        ("?page=1000000&limit=100", &[]),
        ("?q=APPLE", &["b"]),
        ("?q=%C3%A4pfel", &["d"]),
        ("?q=100%25", &["a"]),
        ("?q=1_0", &["d"]),
        ("?q=%27%20OR%201=1", &[]),
        ("?type=livestream", &["b"]),
        ("?category=sports", &["b"]),
        ("?label=L1", &["a"]),
        ("?tag=x", &["a"]),
        ("?tag=X", &["c"]),
        ("?tag=y", &[]),
        ("?tag=", &[]),
    ] {
        assert_eq!(ids(node, &ed, query).await, found, "{query}");
    }
    let page = call(
        node,
        "GET",
        "/v1/content?limit=2&fields=name,tags",
        &ed,
        &Value::Null,
    )
    .await;
    let page = page.json();
    assert_eq!(
        (&page["page"], &page["limit"], &page["total"]),
        (&json!(1), &json!(2), &json!(5))
    );
    assert_eq!(page["items"][0], json!({"id": "b", "name": "Apple", "tags": []}));

    for (claims, seen) in [
        (json!({}), &["a", "b"][..]),
        (json!({"roles": ["kids"]}), &["a", "b", "c"]),
        (json!({"roles": "Kids other"}), &["a", "b", "e"]),
        (json!({"roles": ["ki", "s", "kids\ncrew"]}), &["a", "b"]),
        (json!({"plan": "gold"}), &["a", "b", "d"]),
        (
            json!({"plan": "silver", "roles": ["crew"]}),
            &["a", "b", "c", "e"],
        ),
        (json!({"scope": "admin"}), &["a", "b", "c", "d", "e"]),
    ] {
        let token = token_of("t3", "ann", &claims);
        assert_eq!(ids(node, &token, "?sort=id").await, seen, "{claims}");
        for id in ["a", "b", "c", "d", "e"] {
            let one = call(node, "GET", &format!("/v1/content/{id}"), &token, &Value::Null).await;
            if seen.contains(&id) {
                let is_admin = claims["scope"] == "admin";
                assert_eq!(one.json()["source"].is_string(), is_admin, "{claims}: {one:?}");
            } else {
                assert_eq!(one.refusal().1, "content_forbidden", "{claims}: {id}");
            }
        }
    }
    let listed = call(
        node,
        "GET",
        "/v1/content?fields=source",
        &viewer("t3"),
        &Value::Null,
    )
    .await;
    assert_eq!(listed.json()["items"][0], json!({"id": "b"}));
}

/// Every field that is wrong is named, on both ways in.
async fn bad_fields(node: &Node) {
    let ed = editor("t4");
    create(node, "t4", &film("there")).await;
    let long = |length: usize| Value::from("x".repeat(length));
    let many = |count: usize| Value::from((0..count).map(|n| n.to_string()).collect::<Vec<_>>());
    let rows = [
        ("name", Value::Null),
        ("name", json!("")),
        ("name", json!("  ")),
        ("name", json!(7)),
        ("name", json!("a\u{0}b")),
        ("name", json!("two\nlines")),
        ("name", long(257)),
        ("type", Value::Null),
        ("type", json!("radio")),
        ("type", json!(["vod"])),
        ("source", Value::Null),
        ("source", json!("http://plain.example/x")),
        ("source", json!("javascript:alert(1)")),
        ("source", json!("https://")),
        ("source", json!("https://user:secret@host/x")),
        ("source", json!("https://host/with space")),
        ("source", json!("file:")),
        ("source", json!(format!("https://h/{}", "x".repeat(1100)))),
        ("description", long(4001)),
        ("description", json!("bell\u{7}")),
        ("category", json!("no-such")),
        ("language", json!("xx")),
        ("roles", json!(["no-such"])),
        ("roles", json!("kids")),
        ("tags", json!("one")),
        ("tags", json!([1])),
        ("tags", json!([""])),
        ("tags", json!(["a;b"])),
        ("tags", json!(["a\nb"])),
        ("tags", json!([long(65)])),
        ("tags", many(21)),
        ("plans", many(21)),
        ("label", long(257)),
        ("metadata", json!([1])),
        ("metadata", json!({"x": long(4097)})),
        ("duration_ms", json!(-1)),
        ("duration_ms", json!(1.5)),
        ("duration_ms", json!("7")),
        ("duration_ms", json!(1e30)),
        ("duration_ms", json!(400_000_000_000_u64)),
        ("thumbnail", json!("ftp://x/y")),
        ("id", json!("")),
        ("id", long(257)),
        ("id", json!("a\u{1}")),
        ("id", json!("import")),
        ("id", json!("..")),
    ];
    for (field, value) in rows {
        let content = with(film("new"), &json!({field: value}));
        let answer = call(node, "POST", "/v1/content", &ed, &content).await;
        // An empty id is as if it were left out.
        if (field, &value) == ("id", &json!("")) {
            assert_eq!(answer.status, 201, "{answer:?}");
            continue;
        }
        let refusal = (400, "bad_request".to_owned(), Some(field.to_owned()));
        assert_eq!(answer.refusal(), refusal, "{field}: {value}");
        let content = with(film("there"), &json!({field: value}));
        let answer = call(node, "PUT", "/v1/content/there", &ed, &content).await;
        assert_eq!(answer.refusal(), refusal, "PUT {field}: {value}");
    }
    for body in ["[]", "7", "{", "", "null", "\u{0}"] {
        let answer = send(node, "POST", "/v1/content", &ed, "application/json", body).await;
        assert!(
            matches!(answer.status.as_u16(), 400 | 415),
            "{body:?}: {answer:?}"
        );
    }
    for (query, field) in [
        ("page=0", "page"),
        ("page=1000001", "page"),
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("page=x", "query"),
        ("more=1", "query"),
        ("sort=source", "sort"),
        ("sort=", "sort"),
        ("fields=id,secret", "fields"),
        ("type=radio", "type"),
        ("q=%00", "q"),
        ("tag=a%0Ab", "tag"),
        ("label=%01", "label"),
    ] {
        let answer = call(node, "GET", &format!("/v1/content?{query}"), &ed, &Value::Null).await;
        let refusal = (400, "bad_request".to_owned(), Some(field.to_owned()));
        assert_eq!(answer.refusal(), refusal, "{query}");
    }
}

/// Methods, sizes, media types, scopes, and ids that are none.
async fn refusals(node: &Node) {
    let (ed, vi) = (editor("t5"), viewer("t5"));
    for (method, path) in [
        ("PATCH", "/v1/content"),
        ("DELETE", "/v1/content"),
        ("POST", "/v1/content/x"),
        ("GET", "/v1/content/import"),
        ("PUT", "/v1/content/export"),
        ("POST", "/v1/content/categories"),
        ("GET", "/v1/content/roles/kids"),
        ("DELETE", "/v1/content/x/play"),
        ("PUT", "/v1/accounts/a/streams"),
    ] {
        let answer = call(node, method, path, &ed, &Value::Null).await;
        assert_eq!(answer.status, 405, "{method} {path}: {answer:?}");
    }
    // An answer to HEAD has no body: it is read by hand.
    let head = format!(
        "HEAD /v1/content/x/play HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {vi}\r\nConnection: close\r\n\r\n"
    );
    assert_eq!(node.raw(&head).await.0, 405);
    let large = with(film("large"), &json!({"more": "x".repeat(20_000)}));
    let answer = call(node, "POST", "/v1/content", &ed, &large).await;
    assert_eq!(answer.refusal().0, 413);
    let answer = call(node, "PUT", "/v1/content/large", &ed, &large).await;
    assert_eq!(answer.refusal().0, 413);
    for (method, path) in [
        ("POST", "/v1/content"),
        ("POST", "/v1/content/import"),
        ("PUT", "/v1/content/roles/kids"),
        ("POST", "/v1/accounts/ed/streams"),
    ] {
        let token = token_of("t5", "ed", &json!({"scope": "editor watch"}));
        let answer = send(node, method, path, &token, "text/plain", "x").await;
        assert_eq!(answer.refusal().0, 415, "{method} {path}");
    }
    for (method, path) in [
        ("POST", "/v1/content"),
        ("PUT", "/v1/content/x"),
        ("DELETE", "/v1/content/x"),
        ("POST", "/v1/content/import"),
        ("GET", "/v1/content/export"),
        ("PUT", "/v1/content/roles/kids"),
        ("DELETE", "/v1/content/roles/kids"),
    ] {
        let answer = call(node, method, path, &vi, &Value::Null).await;
        assert_eq!(answer.refusal().1, "scope_forbidden", "{method} {path}");
        let answer = node.ask(&request(method, path, &[("Content-Length", "0")])).await;
        assert_eq!(answer.refusal().0, 401, "{method} {path}");
    }
    let finance = token_of("t5", "fin", &json!({"scope": "finance"}));
    assert_eq!(
        call(node, "GET", "/v1/content", &finance, &Value::Null)
            .await
            .refusal()
            .1,
        "scope_forbidden"
    );
    let long = "x".repeat(300);
    for id in [
        "nope",
        "%00",
        "%FF",
        "%20",
        "..%2f..",
        "%EF%BF%BD",
        long.as_str(),
        "'",
        "a%0Ab",
        "%25",
    ] {
        for (method, path) in [
            ("GET", format!("/v1/content/{id}")),
            ("DELETE", format!("/v1/content/{id}")),
            ("GET", format!("/v1/content/{id}/play")),
            ("POST", format!("/v1/content/{id}/play")),
        ] {
            let token = token_of("t5", "ed", &json!({"scope": "editor watch"}));
            let answer = call(node, method, &path, &token, &Value::Null).await;
            assert_eq!(answer.refusal().0, 404, "{method} {path}: {answer:?}");
        }
    }
    assert!(node.sessions("ed").await.is_empty());
}

async fn everything(node: &Node) {
    life(node).await;
    lists(node).await;
    bad_fields(node).await;
    refusals(node).await;
}

#[tokio::test]
async fn contents_on_sqlite() {
    everything(&Node::with(PLAIN).await).await;
}

#[tokio::test]
async fn contents_on_postgresql() {
    let (node, _server) = on_postgres(PLAIN).await;
    everything(&node).await;
}

/// Redis and no database that the nodes share: rows of one would be missing on the other.
#[tokio::test]
async fn nodes_without_a_shared_database_say_so() {
    let redis = crate::redis_servers::Redis::start(&[]).await;
    let toml = format!("[redis]\nurl = \"{}\"\n", redis.url());
    let node = Node::with(&toml).await;
    for (method, path) in [
        ("GET", "/v1/content"),
        ("GET", "/v1/content/x"),
        ("GET", "/v1/content/x/play"),
        ("GET", "/v1/content/export"),
        ("GET", "/v1/content/roles"),
    ] {
        let token = token_of("main", "ed", &json!({"scope": "editor watch"}));
        let answer = call(&node, method, path, &token, &Value::Null).await;
        assert_eq!(answer.refusal().1, "needs_database", "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn a_switched_off_catalogue_is_not_there() {
    let node = Node::with("[modules]\ncatalogue = false\n").await;
    let answer = call(&node, "GET", "/v1/content", &editor("main"), &Value::Null).await;
    assert_eq!(answer.refusal(), (404, "not_found".to_owned(), None));
}
