//! New passwords, the commands, and a database that is away.

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{CHEAP, PASSWORD, Stage, basic, bearer, call, enter, sign_in, sign_up, staff};
use crate::harness::{Node, usher_in};
use crate::redis_servers::until;

const NONE: Value = Value::Null;
const NEXT: &str = "another horse battery";

#[tokio::test]
async fn new_passwords_on_sqlite() {
    new_passwords(&Stage::sqlite("reset_url = \"https://play.example.com/#{token}\"\n").await).await;
}

#[tokio::test]
async fn new_passwords_on_postgresql() {
    new_passwords(&Stage::postgres("reset_url = \"https://play.example.com/#{token}\"\n").await).await;
}

async fn new_passwords(stage: &Stage) {
    let node = &stage.node;
    let id = sign_up(node, "pw@example.com").await;
    let [kept, other] = [
        sign_in(node, "pw@example.com", &NONE).await,
        sign_in(node, "pw@example.com", &NONE).await,
    ];
    let stands = async |signed_in: &Value| {
        let token = bearer(signed_in["token"].as_str().unwrap());
        call(node, "GET", "/v1/users/me", &token, &NONE).await.status == 200
    };
    // By Basic alone, with the password before, and only of oneself.
    let path = format!("/v1/users/{id}/password");
    let body = json!({"password": NEXT, "refresh_token": kept["refresh_token"]});
    let token = bearer(kept["token"].as_str().unwrap());
    for auth in [token, basic("pw@example.com", NEXT), String::new()] {
        let answer = call(node, "PUT", &path, &auth, &body).await;
        assert_eq!(answer.refusal(), (401, "unauthorized".to_owned(), None));
    }
    let auth = basic("pw@example.com", PASSWORD);
    let nobodys = "/v1/users/AAAAAAAAAAAAAAAAAAAAAA/password";
    assert_eq!(call(node, "PUT", nobodys, &auth, &body).await.status, 401);
    assert_eq!(call(node, "PUT", &path, &auth, &body).await.status, 204);
    assert!(stands(&kept).await && !stands(&other).await);
    assert_eq!(call(node, "POST", "/v1/auth", &auth, &NONE).await.status, 401);

    // A one-time token, by staff; the one before is void, and each is good once.
    let path = format!("/v1/users/{id}/password-reset");
    let me = bearer(kept["token"].as_str().unwrap());
    assert_eq!(call(node, "POST", &path, &me, &NONE).await.status, 403);
    let void = call(node, "POST", &path, &staff("support"), &NONE).await.json();
    let answer = call(node, "POST", &path, &staff("support"), &NONE).await;
    assert_eq!(answer.status, 201);
    let made = answer.json();
    let link = made["link"].as_str().unwrap();
    assert_eq!(
        link,
        format!("https://play.example.com/#{}", made["token"].as_str().unwrap())
    );
    let reset = async |token: &Value, password: &str| {
        let body = json!({"token": token, "password": password});
        call(node, "POST", "/v1/auth/reset", "", &body).await
    };
    let wrong = (400, "bad_request".to_owned(), Some("token".to_owned()));
    assert_eq!(reset(&void["token"], PASSWORD).await.refusal(), wrong);
    assert_eq!(
        reset(&made["token"], "pw@example.com")
            .await
            .refusal()
            .2
            .as_deref(),
        Some("password")
    );
    assert_eq!(reset(&made["token"], PASSWORD).await.status, 204);
    assert_eq!(reset(&made["token"], NEXT).await.refusal(), wrong);
    assert!(!stands(&kept).await);
    sign_in(node, "pw@example.com", &NONE).await;
    // Support staff cannot take over somebody with power.
    let body = json!({"scope": "finance"});
    call(node, "PUT", &format!("/v1/users/{id}"), &staff("admin"), &body).await;
    assert_eq!(
        call(node, "POST", &path, &staff("support"), &NONE).await.status,
        403
    );
    assert_eq!(
        call(node, "POST", &path, &staff("admin"), &NONE).await.status,
        201
    );
    // Secrets are stored as hashes only.
    if let Some(server) = &stage.server {
        let stored = server.sql("usher", "SELECT password FROM users");
        assert!(stored.starts_with("$argon2id$v=19$m=8192,t=1,p=1$"), "{stored}");
        let rows = server.sql("usher", "SELECT * FROM sign_ins, password_resets");
        assert!(!rows.is_empty() && !rows.contains(made["token"].as_str().unwrap()));
    }
}

/// A password that was hashed at another cost is hashed anew when it is shown.
#[tokio::test]
async fn a_hash_follows_the_configuration() {
    let stage = Stage::postgres("").await;
    let server = stage.server.as_ref().unwrap();
    sign_up(&stage.node, "old@example.com").await;
    let stored = || server.sql("usher", "SELECT password FROM users");
    let before = stored();
    let url = server.url();
    let toml = format!("[accounts]\nhash_memory_kib = 9000\nhash_passes = 2\n[database]\nurl = \"{url}\"\n");
    let later = Node::with(&toml).await;
    let auth = basic("old@example.com", "not the password");
    assert_eq!(call(&later, "POST", "/v1/auth", &auth, &NONE).await.status, 401);
    assert_eq!(stored(), before);
    sign_in(&later, "old@example.com", &NONE).await;
    assert!(
        stored().starts_with("$argon2id$v=19$m=9000,t=2,p=1$"),
        "{}",
        stored()
    );
    sign_in(&later, "old@example.com", &NONE).await;
}

/// Runs `usher accounts` with a password on standard input; stdout, or stderr and the exit code.
fn accounts(node: &Node, arguments: &[&str], input: &str) -> Result<String, (i32, String)> {
    let mut command = usher_in(&node.dir);
    command
        .args(["--config", "usher.toml", "accounts"])
        .args(arguments);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that reads nothing may be gone.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout).unwrap());
    }
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(!told.contains("panicked"), "{told}");
    Err((output.status.code().unwrap(), told))
}

#[tokio::test]
async fn commands_on_sqlite() {
    commands(&Stage::sqlite("").await).await;
}

#[tokio::test]
async fn commands_on_postgresql() {
    commands(&Stage::postgres("").await).await;
}

/// The first admin, the list, and new passwords, beside a running node.
async fn commands(stage: &Stage) {
    let node = &stage.node;
    let run = |arguments: &[&str], input: &str| accounts(node, arguments, input);
    let json_of = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let boss = [
        "add",
        "--email",
        "boss@example.com",
        "--admin",
        "--password-stdin",
        "--json",
    ];
    let made = json_of(&run(&boss, &format!("{PASSWORD}\n")).unwrap());
    assert_eq!(
        (&made["scope"], &made["password"]),
        (&json!("watch admin"), &NONE)
    );
    let admin = enter(node, "boss@example.com").await;
    assert_eq!(
        call(node, "GET", "/v1/users", &admin, &NONE).await.json()["total"],
        1
    );
    // Without standard input a password is made up, and works.
    let viewer = [
        "add",
        "--email",
        "v@example.com",
        "--user-name",
        "vee",
        "--plan",
        "gold",
        "--json",
    ];
    let made = json_of(&run(&viewer, "").unwrap());
    let auth = basic("vee", made["password"].as_str().unwrap());
    assert_eq!(call(node, "POST", "/v1/auth", &auth, &NONE).await.status, 201);
    let (code, told) = run(&boss, PASSWORD).unwrap_err();
    assert_eq!(code, 1);
    assert!(told.contains("e-mail"), "{told}");
    for (arguments, word) in [
        (&["add", "--email", "nobody"][..], "email"),
        (
            &["add", "--email", "x@example.com", "--scope", "operator"],
            "scope",
        ),
        (
            &["add", "--email", "x@example.com", "--password-stdin"],
            "password",
        ),
        (&["reset-password", "--account", "nobody"], "no such account"),
        (&["list", "--tenant", "a/b"], "tenant"),
    ] {
        let (_, told) = run(arguments, "short").unwrap_err();
        assert!(told.contains(word), "{arguments:?}: {told}");
    }
    let listed = json_of(&run(&["list", "--json"], "").unwrap());
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);
    let table = run(&["list", "--q", "BOSS"], "").unwrap();
    assert!(
        table.contains("boss@example.com") && !table.contains("vee"),
        "{table}"
    );
    assert!(run(&["list", "--tenant", "other"], "").unwrap().lines().count() == 1);

    let made = json_of(&run(&["reset-password", "--email", "v@example.com", "--json"], "").unwrap());
    let body = json!({"token": made["token"], "password": PASSWORD});
    assert_eq!(call(node, "POST", "/v1/auth/reset", "", &body).await.status, 204);
    let before = enter(node, "v@example.com").await;
    run(&["reset-password", "--account", "vee", "--password-stdin"], NEXT).unwrap();
    assert_eq!(
        call(node, "GET", "/v1/users/me", &before, &NONE).await.status,
        401
    );
    let auth = basic("vee", NEXT);
    assert_eq!(call(node, "POST", "/v1/auth", &auth, &NONE).await.status, 201);
}

/// Every route says 503 within a second; whoever plays notices nothing, and the node needs no restart.
#[tokio::test]
async fn the_database_goes_away_and_comes_back() {
    let mut stage = Stage::postgres("").await;
    let id = sign_up(&stage.node, "away@example.com").await;
    let signed_in = sign_in(&stage.node, "away@example.com", &NONE).await;
    let token = bearer(signed_in["token"].as_str().unwrap());
    let mut player = stage
        .node
        .try_watch(signed_in["token"].as_str().unwrap(), "content=m")
        .await
        .unwrap();
    player.next_of("granted").await;
    stage.server.as_mut().unwrap().kill();
    let auth = basic("away@example.com", PASSWORD);
    let new = json!({"email": "new@example.com", "password": PASSWORD});
    let body = json!({"refresh_token": signed_in["refresh_token"]});
    let reset = json!({"token": "x", "password": PASSWORD});
    let user = format!("/v1/users/{id}");
    for (method, path, auth, body) in [
        ("POST", "/v1/users", "", &new),
        ("GET", "/v1/users", &staff("admin"), &NONE),
        ("GET", "/v1/users/me", &token, &NONE),
        ("GET", &*user, &token, &NONE),
        ("PUT", "/v1/users/me", &token, &json!({"name": "x"})),
        ("DELETE", "/v1/users/me", &token, &NONE),
        ("GET", "/v1/users/me/export", &token, &NONE),
        ("PUT", "/v1/users/me/password", &auth, &json!({"password": NEXT})),
        ("POST", &*format!("{user}/password-reset"), &staff("admin"), &NONE),
        ("POST", "/v1/auth", &auth, &NONE),
        ("POST", "/v1/auth/refresh", "", &body),
        ("POST", "/v1/auth/reset", "", &reset),
        ("DELETE", "/v1/auth", &token, &NONE),
        ("DELETE", "/v1/auth/all", &token, &NONE),
        ("GET", "/v1/auth/devices", &token, &NONE),
        ("DELETE", "/v1/auth/devices/x", &token, &NONE),
    ] {
        let begun = Instant::now();
        let answer = call(&stage.node, method, path, auth, body).await;
        let took = begun.elapsed();
        assert_eq!(
            answer.refusal(),
            (503, "database_away".to_owned(), None),
            "{method} {path}"
        );
        assert!(answer.header("retry-after").is_some());
        assert!(took < Duration::from_millis(1500), "{method} {path}: {took:?}");
        player.say(json!({"type": "heartbeat", "state": "playing"})).await;
    }
    // A new player with its token, and the one that plays.
    let again = signed_in["token"].as_str().unwrap();
    let mut second = stage
        .node
        .try_watch(again, "content=m2&device=two")
        .await
        .unwrap();
    second.next_of("granted").await;
    player.say(json!({"type": "heartbeat", "state": "playing"})).await;
    stage.server.as_mut().unwrap().restart().await;
    let node = &stage.node;
    until("people again", || async {
        let answer = call(node, "GET", "/v1/users/me", &token, &NONE).await;
        (answer.status == 200).then_some(())
    })
    .await;
    // Nothing was done half: the refresh token is still good.
    let answer = call(node, "POST", "/v1/auth/refresh", "", &body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    player.close(1000).await;
}

/// Nodes that share Redis and no database say so.
#[tokio::test]
async fn without_a_shared_database_it_says_what_it_needs() {
    let redis = crate::redis_servers::Redis::start(&[]).await;
    let node = Node::with(&format!("{CHEAP}[redis]\nurl = \"{}\"\n", redis.url())).await;
    let body = json!({"email": "a@example.com", "password": PASSWORD});
    let answer = call(&node, "POST", "/v1/users", "", &body).await;
    assert_eq!(answer.refusal(), (503, "needs_database".to_owned(), None));
    let answer = call(&node, "POST", "/v1/auth", &basic("a", "b"), &NONE).await;
    assert_eq!(answer.refusal(), (503, "needs_database".to_owned(), None));
}
