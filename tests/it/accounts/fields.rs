//! Bad values: each is 400, and names its field.

use serde_json::{Value, json};

use super::{PASSWORD, Stage, basic, bearer, call, enter, sign_in, sign_up, staff};
use crate::stage::{Answer, request};

const NONE: Value = Value::Null;

/// (field, bad value, field named in the error), in a sign-up that is good otherwise.
fn sign_ups() -> Vec<(&'static str, Value, &'static str)> {
    let long = |length: usize| json!("x".repeat(length));
    vec![
        ("email", NONE, "email"),
        ("email", json!(""), "email"),
        ("email", json!(7), "email"),
        ("email", json!(["a@example.com"]), "email"),
        ("email", json!("nobody"), "email"),
        ("email", json!("@example.com"), "email"),
        ("email", json!("a@"), "email"),
        ("email", json!("a@b"), "email"),
        ("email", json!("a b@example.com"), "email"),
        ("email", json!("a@b@example.com"), "email"),
        ("email", json!("a\u{0}@example.com"), "email"),
        ("email", json!(format!("{}@example.com", "x".repeat(65))), "email"),
        ("password", NONE, "password"),
        ("password", json!(123_456_789_012_u64), "password"),
        ("password", json!("short-enough"[..11]), "password"),
        ("password", long(129), "password"),
        ("password", json!("Password1234"), "password"),
        ("password", json!("123456789012"), "password"),
        ("password", json!("aaaaaaaaaaaaaa"), "password"),
        ("password", json!("NEW@example.com"), "password"),
        ("user_name", json!(""), "user_name"),
        ("user_name", json!("a b"), "user_name"),
        ("user_name", json!("a@b"), "user_name"),
        ("user_name", json!("a:b"), "user_name"),
        ("user_name", json!("\u{0}"), "user_name"),
        ("user_name", long(65), "user_name"),
        ("user_name", json!({}), "user_name"),
        ("name", json!(" "), "name"),
        ("name", long(101), "name"),
        ("name", json!("a\u{7}b"), "name"),
        ("name", json!(false), "name"),
        ("picture", json!("http://img.example.com/a.png"), "picture"),
        ("picture", json!("javascript:alert(1)"), "picture"),
        ("picture", json!("https://"), "picture"),
        ("picture", json!("https://a:b@img.example.com/"), "picture"),
        (
            "picture",
            json!(format!("https://img.example.com/{}", "x".repeat(2048))),
            "picture",
        ),
        ("plan", json!(""), "plan"),
        ("plan", json!("platinum"), "plan"),
        ("plan", json!("gold"), "plan"),
        ("plan", json!(1), "plan"),
        ("tenant", json!("other"), "tenant"),
        ("tenant", json!("a/b"), "tenant"),
    ]
}

#[tokio::test]
async fn a_bad_field_is_named_on_sqlite() {
    fields(&Stage::sqlite(PLANS).await).await;
}

#[tokio::test]
async fn a_bad_field_is_named_on_postgresql() {
    fields(&Stage::postgres(PLANS).await).await;
}

/// One plan that people may choose, and one that costs.
const PLANS: &str = "open_plans = [\"free\"]\n[plans.free]\nlimit = 1\n[plans.gold]\nlimit = 5\n";

async fn fields(stage: &Stage) {
    let node = &stage.node;
    let refused = |answer: &Answer, field: &str, what: &str| {
        let expected = (400, "bad_request".to_owned(), Some(field.to_owned()));
        assert_eq!(answer.refusal(), expected, "{what}");
    };
    for (field, value, named) in sign_ups() {
        let mut body = json!({"email": "new@example.com", "password": PASSWORD});
        body[field] = value;
        let answer = call(node, "POST", "/v1/users", "", &body).await;
        refused(&answer, named, &format!("{field} {body}"));
    }
    // None of them left anything behind.
    let count = call(node, "GET", "/v1/users", &staff("admin"), &NONE).await;
    assert_eq!(count.json()["total"], 0);
    sign_up(node, "new@example.com").await;
    let me = enter(node, "new@example.com").await;
    for (field, value) in [
        ("name", json!("")),
        ("name", json!(1)),
        ("picture", json!("ftp://img.example.com")),
        ("user_name", json!("a b")),
        ("plan", json!("gold")),
        ("plan", json!("platinum")),
        ("email", json!("nobody")),
        ("email", json!(1)),
    ] {
        let answer = call(node, "PUT", "/v1/users/me", &me, &json!({field: value})).await;
        refused(&answer, field, field);
    }
    // What only staff may set is still held against the rules.
    let body = json!({"email": "b@example.com", "password": PASSWORD, "plan": "gold", "scope": "root"});
    let answer = call(node, "POST", "/v1/users", &staff("admin"), &body).await;
    refused(&answer, "scope", "scope");
    let auth = basic("new@example.com", PASSWORD);
    for (field, value) in [
        ("device", json!("")),
        ("device", json!("x".repeat(257))),
        ("device", json!(7)),
        ("device_name", json!("a\u{0}")),
        ("tenant", json!("a/b")),
    ] {
        let answer = call(node, "POST", "/v1/auth", &auth, &json!({field: value})).await;
        refused(&answer, field, field);
    }
    for (path, body, field) in [
        ("/v1/auth/refresh", json!({}), "refresh_token"),
        ("/v1/auth/refresh", json!({"refresh_token": 1}), "refresh_token"),
        ("/v1/auth/reset", json!({"password": PASSWORD}), "token"),
        ("/v1/auth/reset", json!({"token": "x"}), "password"),
        (
            "/v1/auth/reset",
            json!({"token": "x", "password": "short"}),
            "password",
        ),
        (
            "/v1/auth/reset",
            json!({"token": "x", "password": PASSWORD}),
            "token",
        ),
        ("/v1/auth/refresh", json!([]), "body"),
        ("/v1/users", json!("text"), "body"),
    ] {
        let answer = call(node, "POST", path, "", &body).await;
        refused(&answer, field, path);
    }
    let body = json!({"password": "short"});
    let answer = call(node, "PUT", "/v1/users/me/password", &auth, &body).await;
    refused(&answer, "password", "change of password");
}

/// What is wrong with a request as such.
#[tokio::test]
async fn methods_sizes_and_media_types() {
    let stage = Stage::sqlite("").await;
    let node = &stage.node;
    for (method, path, allow) in [
        ("PATCH", "/v1/users", "POST"),
        ("DELETE", "/v1/users", "GET"),
        ("POST", "/v1/users/me", "PUT"),
        ("GET", "/v1/auth", "POST"),
        ("GET", "/v1/auth/refresh", "POST"),
        ("POST", "/v1/auth/devices", "GET"),
        ("GET", "/v1/users/me/password", "PUT"),
    ] {
        let answer = call(node, method, path, "", &NONE).await;
        assert_eq!(
            answer.refusal(),
            (405, "method_not_allowed".to_owned(), None),
            "{method} {path}"
        );
        let allowed = answer.header("allow").unwrap();
        assert!(allowed.contains(allow), "{method} {path}: {allowed}");
    }
    let large = json!({"email": "x".repeat(20_000)});
    for path in ["/v1/users", "/v1/auth/refresh", "/v1/auth/reset"] {
        let answer = call(node, "POST", path, "", &large).await;
        assert_eq!(answer.refusal().0, 413, "{path}");
        let text = request(
            "POST",
            path,
            &[("Content-Type", "text/plain"), ("Content-Length", "2")],
        ) + "{}";
        let answer = node.ask(&text).await;
        assert_eq!(
            answer.refusal(),
            (415, "unsupported_media_type".to_owned(), None),
            "{path}"
        );
        let text = request(
            "POST",
            path,
            &[("Content-Type", "application/json"), ("Content-Length", "1")],
        ) + "{";
        assert_eq!(node.ask(&text).await.refusal().0, 400, "{path}");
    }
    // Ids of any form are nobody's.
    for id in ["x", "%00", "%ff", "..%2f..", "a%20b", &"x".repeat(1000)] {
        let path = format!("/v1/users/{id}");
        let answer = call(node, "GET", &path, &staff("admin"), &NONE).await;
        assert_eq!(answer.refusal().0, 404, "{id}");
        let path = format!("/v1/auth/devices/{id}");
        sign_up(node, &format!("u{}@example.com", id.len())).await;
        let me = enter(node, &format!("u{}@example.com", id.len())).await;
        let answer = call(node, "DELETE", &path, &me, &NONE).await;
        assert_eq!(answer.refusal().0, 404, "{id}");
        let path = format!("/v1/users?fields=id&watching=now&plan={id}");
        let answer = call(node, "GET", &path, &staff("admin"), &NONE).await;
        assert!(answer.status.as_u16() < 500, "{id}: {answer:?}");
        call(node, "DELETE", "/v1/users/me", &me, &NONE).await;
    }
    // A token of another issuer has no row: `me` is nobody.
    let me = bearer(&crate::harness::token("stranger"));
    assert_eq!(call(node, "GET", "/v1/users/me", &me, &NONE).await.status, 404);
    // Switched off, there is nothing there; without a shared database it says what it needs.
    let off = Stage::sqlite("[modules]\naccounts = false\n").await;
    let answer = call(&off.node, "POST", "/v1/auth", &basic("a", "b"), &NONE).await;
    assert_eq!(answer.status, 404);
    let closed = Stage::sqlite("sign_up = false\n").await;
    let body = json!({"email": "a@example.com", "password": PASSWORD});
    let answer = call(&closed.node, "POST", "/v1/users", "", &body).await;
    assert_eq!(answer.status, 403);
    let answer = call(&closed.node, "POST", "/v1/users", &staff("admin"), &body).await;
    assert_eq!(answer.status, 201);
    sign_in(&closed.node, "a@example.com", &NONE).await;
}
