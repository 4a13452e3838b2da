//! Who sees and changes what of whom, and what is left of somebody who leaves.

use serde_json::{Value, json};

use super::{PASSWORD, Stage, basic, bearer, call, enter, sign_in, sign_up, staff};
use crate::harness::{now, sign};

const NONE: Value = Value::Null;

#[tokio::test]
async fn people_on_sqlite() {
    people(&Stage::sqlite("[plans.gold]\nlimit = 5\n[plans.free]\nlimit = 1\n").await).await;
}

#[tokio::test]
async fn people_on_postgresql() {
    people(&Stage::postgres("[plans.gold]\nlimit = 5\n[plans.free]\nlimit = 1\n").await).await;
}

async fn people(stage: &Stage) {
    a_life(stage).await;
    tenants_are_apart(stage).await;
    staff_lists(stage).await;
}

/// From the sign-up to the end.
async fn a_life(stage: &Stage) {
    let node = &stage.node;
    let body = json!({
        "email": "Ann@Example.com", "password": PASSWORD, "user_name": "Ann.1", "plan": "gold",
        "picture": "https://img.example.com/a.png", "role": "admin", "scope": "admin operator", "x": [1],
    });
    let answer = call(node, "POST", "/v1/users", "", &body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let made = answer.json();
    let id = made["id"].as_str().unwrap();
    assert_eq!(id.len(), 22);
    assert_eq!(answer.header("location"), Some(&*format!("/v1/users/{id}")));
    for (field, value) in [
        ("email", "Ann@Example.com"),
        ("name", "Ann"),
        ("user_name", "Ann.1"),
        ("plan", "gold"),
        ("picture", "https://img.example.com/a.png"),
        ("scope", "watch"),
    ] {
        assert_eq!(made[field], value, "{field}");
    }
    assert!(made["created_at"].as_str().unwrap().ends_with('Z'));
    assert!(!answer.body.contains("argon2") && !answer.body.contains(PASSWORD));
    // The same names in another case are somebody's.
    for (field, body) in [
        ("email", json!({"email": "aNN@exAMPle.com", "password": PASSWORD})),
        (
            "user_name",
            json!({"email": "b@example.com", "password": PASSWORD, "user_name": "aNN.1"}),
        ),
    ] {
        let answer = call(node, "POST", "/v1/users", "", &body).await;
        assert_eq!(
            answer.refusal(),
            (409, "exists".to_owned(), Some(field.to_owned()))
        );
    }
    // Either name signs in, in any case.
    for name in ["ann@example.com", "ANN.1"] {
        let token = enter(node, name).await;
        let me = call(node, "GET", "/v1/users/me", &token, &NONE).await.json();
        assert_eq!(me, made, "{name}");
    }
    let token = enter(node, "ann@example.com").await;
    let plain = token.strip_prefix("Bearer ").unwrap();
    let mut player = node.try_watch(plain, "content=m&device=tv").await.unwrap();
    let granted = player.next_of("granted").await;
    assert_eq!(granted["slots"]["limit"], 5, "the plan's");

    // Others see little, staff sees all.
    sign_up(node, "bob@example.com").await;
    let other = enter(node, "bob@example.com").await;
    let path = format!("/v1/users/{id}");
    let seen = call(node, "GET", &path, &other, &NONE).await.json();
    let public = json!({"id": id, "name": "Ann", "picture": "https://img.example.com/a.png"});
    assert_eq!(seen, public);
    assert_eq!(
        call(node, "GET", &path, &staff("support"), &NONE).await.json(),
        made
    );
    assert_eq!(call(node, "GET", &path, "", &NONE).await.status, 401);
    let change = json!({"name": " Annie ", "picture": null, "email": "Ann@Example.com", "plan": "free", "scope": "admin"});
    assert_eq!(call(node, "PUT", &path, &other, &change).await.status, 403);
    let answer = call(node, "PUT", "/v1/users/me", &token, &change).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let changed = answer.json();
    assert_eq!((&changed["name"], &changed["picture"]), (&json!("Annie"), &NONE));
    assert_eq!(
        (&changed["plan"], &changed["scope"]),
        (&json!("free"), &json!("watch"))
    );
    let taken = json!({"user_name": "ann.1"});
    let bob = call(node, "PUT", "/v1/users/me", &other, &taken).await;
    assert_eq!(
        bob.refusal(),
        (409, "exists".to_owned(), Some("user_name".to_owned()))
    );
    let email = call(
        node,
        "PUT",
        "/v1/users/me",
        &other,
        &json!({"email": "x@example.com"}),
    )
    .await;
    assert_eq!(
        email.refusal(),
        (403, "email_forbidden".to_owned(), Some("email".to_owned()))
    );
    // Support staff helps viewers and makes nobody mighty; an admin may.
    let given = json!({"scope": "editor", "email": "ann@new.example.com"});
    let answer = call(node, "PUT", &path, &staff("support"), &json!({"scope": "editor"})).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["scope"]),
        (200, &json!("watch"))
    );
    let answer = call(node, "PUT", &path, &staff("admin"), &given).await;
    assert_eq!(answer.json()["scope"], "watch editor", "{answer:?}");
    let answer = call(node, "PUT", &path, &staff("support"), &json!({"name": "x"})).await;
    assert_eq!(answer.status, 403, "she has a scope now");
    // What she is given counts from her next token, what is taken from her at once.
    let mut chief = json!({"scope": "admin"});
    call(node, "PUT", &path, &staff("admin"), &chief).await;
    let mighty = enter(node, "ann.1").await;
    assert_eq!(call(node, "GET", "/v1/users", &mighty, &NONE).await.status, 200);
    assert_eq!(call(node, "GET", "/v1/users", &token, &NONE).await.status, 403);
    chief["scope"] = json!("editor");
    call(node, "PUT", &path, &staff("admin"), &chief).await;
    assert_eq!(call(node, "GET", "/v1/users", &mighty, &NONE).await.status, 403);
    let trail = std::fs::read_to_string(node.dir.join("data/audit.log")).unwrap();
    let line: Value = serde_json::from_str(trail.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&line["who"], &line["action"], &line["account"]),
        (&json!("staff"), &json!("user.change"), &made["id"]),
        "the last that staff did; what she did with her own is not there"
    );
    let operator = call(node, "PUT", &path, &staff("admin"), &json!({"scope": "operator"})).await;
    assert_eq!(operator.refusal().2.as_deref(), Some("scope"));

    let answer = call(node, "GET", "/v1/users/me/export", &token, &NONE).await;
    let export = answer.json();
    assert_eq!(export["account"]["email"], "ann@new.example.com");
    assert_eq!(export["sessions"][0]["content"], "m");
    assert_eq!(export["sign_ins"].as_array().unwrap().len(), 4);
    assert!(!answer.body.contains("argon2"));
    let others = format!("{path}/export");
    assert_eq!(call(node, "GET", &others, &other, &NONE).await.status, 403);

    // Only she and an admin may remove her; what plays ends, and her tokens are void.
    assert_eq!(call(node, "DELETE", &path, &other, &NONE).await.status, 403);
    assert_eq!(
        call(node, "DELETE", &path, &staff("support"), &NONE).await.status,
        403
    );
    assert_eq!(
        call(node, "DELETE", "/v1/users/me", &token, &NONE).await.status,
        204
    );
    assert_eq!(player.closed().await.0, 4003);
    assert_eq!(call(node, "GET", "/v1/users/me", &token, &NONE).await.status, 401);
    assert_eq!(call(node, "GET", &path, &staff("admin"), &NONE).await.status, 404);
    let again = basic("ann@new.example.com", PASSWORD);
    assert_eq!(call(node, "POST", "/v1/auth", &again, &NONE).await.status, 401);
    // Her names are free again.
    sign_up(node, "ann@example.com").await;
}

/// The same names in another tenant are other people (I7).
async fn tenants_are_apart(stage: &Stage) {
    let node = &stage.node;
    let other = bearer(&sign(
        &json!({"sub": "staff", "tenant": "other", "exp": now() + 600, "scope": "admin"}),
    ));
    let body = json!({"email": "bob@example.com", "password": PASSWORD, "scope": "support"});
    let answer = call(node, "POST", "/v1/users", &other, &body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(answer.json()["scope"], "watch support");
    let there = format!("/v1/users/{}", answer.json()["id"].as_str().unwrap());
    for (method, path, body) in [
        ("GET", there.clone(), NONE),
        ("PUT", there.clone(), json!({"name": "x"})),
        ("DELETE", there.clone(), NONE),
        ("GET", format!("{there}/export"), NONE),
        ("POST", format!("{there}/password-reset"), NONE),
    ] {
        let answer = call(node, method, &path, &staff("admin"), &body).await;
        assert_eq!(answer.status, 404, "{method} {path}");
    }
    assert_eq!(call(node, "GET", &there, &other, &NONE).await.status, 200);
    let listed = call(node, "GET", "/v1/users", &other, &NONE).await.json();
    assert_eq!(listed["total"], 1);
    // A sign-in names its tenant; a stranger cannot sign up there.
    let here = sign_in(node, "bob@example.com", &NONE).await;
    let theirs = sign_in(node, "bob@example.com", &json!({"tenant": "other"})).await;
    assert_ne!(here["user"]["id"], theirs["user"]["id"]);
    let body = json!({"email": "c@example.com", "password": PASSWORD, "tenant": "other"});
    let answer = call(node, "POST", "/v1/users", "", &body).await;
    assert_eq!(answer.refusal().2.as_deref(), Some("tenant"));
}

/// Page, limit, q, sort, fields, and the two filters.
async fn staff_lists(stage: &Stage) {
    let node = &stage.node;
    for (number, plan) in ["gold", "free", "gold", "free"].iter().enumerate() {
        let body = json!({
            "email": format!("list{number}@example.com"), "password": PASSWORD, "plan": plan,
            "name": format!("Näme 100%_{number}"),
        });
        let answer = call(node, "POST", "/v1/users", "", &body).await;
        assert_eq!(answer.status, 201, "{answer:?}");
    }
    let admin = staff("support");
    let list = async |query: &str| call(node, "GET", &format!("/v1/users?{query}"), &admin, &NONE).await;
    let emails = async |query: &str| {
        let answer = list(query).await;
        assert_eq!(answer.status, 200, "{query}: {answer:?}");
        let items = answer.json()["items"].as_array().unwrap().clone();
        let emails = items
            .iter()
            .map(|item| item["email"].as_str().unwrap().to_owned());
        emails.collect::<Vec<_>>()
    };
    let at = |number: u32| format!("list{number}@example.com");
    assert_eq!(emails("q=list&sort=email").await, [at(0), at(1), at(2), at(3)]);
    assert_eq!(emails("q=LIST&sort=-created_at&limit=2").await, [at(3), at(2)]);
    assert_eq!(emails("q=list&sort=email&page=2&limit=3").await, [at(3)]);
    assert_eq!(
        emails("q=100%25_2").await,
        [at(2)],
        "signs of patterns are letters"
    );
    assert_eq!(emails("q=list&plan=gold&sort=email").await, [at(0), at(2)]);
    let answer = list("q=list&fields=name&page=9").await.json();
    assert_eq!(answer, json!({"items": [], "page": 9, "limit": 30, "total": 4}));
    let answer = list("q=list1&fields=name,plan").await.json();
    let item = answer["items"][0].as_object().unwrap();
    assert_eq!(item.keys().collect::<Vec<_>>(), ["id", "name", "plan"]);
    for (query, field) in [
        ("page=0", "page"),
        ("limit=101", "limit"),
        ("sort=password", "sort"),
        ("fields=password", "fields"),
        ("watching=then", "watching"),
        ("colour=red", "query"),
        ("page=x", "query"),
    ] {
        let refusal = list(query).await.refusal();
        assert_eq!(
            refusal,
            (400, "bad_request".to_owned(), Some(field.to_owned())),
            "{query}"
        );
    }
    // Who watches now, beside somebody of another issuer.
    assert!(emails("watching=now").await.is_empty());
    let token = sign_in(node, &at(1), &NONE).await["token"].clone();
    let mut player = node
        .try_watch(token.as_str().unwrap(), "content=m")
        .await
        .unwrap();
    player.next_of("granted").await;
    let mut stranger = node.watch("a 'quoted\" account", "content=m").await;
    stranger.next_of("granted").await;
    assert_eq!(emails("watching=now").await, [at(1)]);
    assert!(emails("watching=now&plan=gold").await.is_empty());
    player.close(1000).await;
    assert!(emails("watching=now").await.is_empty());
    // Viewers see no list.
    let viewer = enter(node, &at(2)).await;
    assert_eq!(call(node, "GET", "/v1/users", &viewer, &NONE).await.status, 403);
}
