//! The whole path of a service: people, content, screens, on both engines; and its backup.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::harness::Node;
use crate::postgres::Postgres;
use crate::stage::{Answer, Place, USUAL, request};

/// Passes every rule for passwords.
const PASSWORD: &str = "a horse eats seven staples";

async fn call(node: &Node, method: &str, path: &str, authorization: &str, body: &Value) -> Answer {
    let text = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let length = text.len().to_string();
    let mut headers = vec![("Content-Length", &*length)];
    if !authorization.is_empty() {
        headers.push(("Authorization", authorization));
    }
    if !body.is_null() {
        headers.push(("Content-Type", "application/json"));
    }
    node.ask(&(request(method, path, &headers) + &text)).await
}

fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
}

async fn sign_up(node: &Node, email: &str) -> Value {
    let body = json!({"email": email, "password": PASSWORD, "role": "admin", "scope": "admin"});
    let answer = call(node, "POST", "/v1/users", "", &body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let user = answer.json();
    assert_eq!((&user["email"], &user["name"]), (&json!(email), &json!("ann")));
    user
}

async fn sign_in(node: &Node, name: &str, password: &str) -> (String, Value) {
    let answer = call(node, "POST", "/v1/auth", &basic(name, password), &Value::Null).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let body = answer.json();
    (format!("Bearer {}", body["token"].as_str().unwrap()), body)
}

async fn whole_path(node: &Node) {
    let ann = sign_up(node, "ann@example.com").await;
    // Nobody makes himself an editor.
    let (own, body) = sign_in(node, "Ann@Example.com", PASSWORD).await;
    assert_eq!(body["user"]["id"], ann["id"]);
    let film =
        json!({"id": "film", "name": "A film", "type": "vod", "source": "https://cdn.example.com/film.m3u8"});
    assert_eq!(call(node, "POST", "/v1/content", &own, &film).await.status, 403);

    // The first admin comes from the command line.
    let mut add = crate::harness::usher_in(&node.dir);
    add.args([
        "accounts",
        "add",
        "--config",
        "usher.toml",
        "--email",
        "root@example.com",
        "--admin",
        "--password-stdin",
    ]);
    add.stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped());
    let mut child = add.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), PASSWORD.as_bytes()).unwrap();
    assert!(child.wait_with_output().unwrap().status.success());
    let (admin, _) = sign_in(node, "root@example.com", PASSWORD).await;
    assert_eq!(call(node, "POST", "/v1/content", &admin, &film).await.status, 201);
    let seen = call(node, "GET", "/v1/content/film", &own, &Value::Null).await;
    assert_eq!(seen.status, 200);
    assert!(
        seen.json().get("source").is_none_or(Value::is_null),
        "viewers do not see the source"
    );

    // Four devices sign in, three play.
    let mut screens = Vec::new();
    for number in 1..=4 {
        let (token, _) = sign_in(node, "ann@example.com", PASSWORD).await;
        screens.push((token, format!("tv-{number}")));
    }
    let mut plays = Vec::new();
    for (number, (token, device)) in screens.iter().enumerate() {
        let path = format!("/v1/content/film/play?device={device}&device_name=Screen%20{number}");
        let answer = call(node, "GET", &path, token, &Value::Null).await;
        if number < 3 {
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(answer.header("cache-control"), Some("no-store"));
            let play = answer.json();
            assert_eq!(play["source"], film["source"]);
            assert_eq!(play["slots"]["used"], number + 1);
            plays.push(play);
        } else {
            assert_eq!(answer.status, 403, "{answer:?}");
            let refusal = answer.json();
            assert_eq!(refusal["error"]["code"], "stream_limit_reached");
            let holders = refusal["holders"].as_array().unwrap();
            let devices: Vec<_> = holders
                .iter()
                .map(|holder| holder["device"].as_str().unwrap())
                .collect();
            assert_eq!(holders.len(), 3);
            assert!(
                ["tv-1", "tv-2", "tv-3"]
                    .iter()
                    .all(|device| devices.contains(device)),
                "{devices:?}"
            );
        }
    }
    // An unknown content takes no slot.
    let (token, _) = &screens[0];
    let none = call(
        node,
        "GET",
        "/v1/content/none/play?device=tv-9",
        token,
        &Value::Null,
    )
    .await;
    assert_eq!(none.status, 404);

    // The socket takes the first play over: the same session, no other slot.
    let bare = screens[0].0.trim_start_matches("Bearer ");
    let resume = plays[0]["resume"].as_str().unwrap();
    let query = format!("content=film&device=tv-1&resume={resume}");
    let mut socket = node.try_watch(bare, &query).await.unwrap();
    let granted = socket.next().await;
    assert_eq!(granted["type"], "granted", "{granted}");
    assert_eq!(
        (&granted["session"], &granted["resumed"]),
        (&plays[0]["session"], &json!(true))
    );
    assert_eq!(granted["slots"], json!({"used": 3, "limit": 3}));
    let streams = format!("/v1/accounts/{}/streams", ann["id"].as_str().unwrap());
    let streams = call(node, "GET", &streams, &own, &Value::Null).await.json();
    assert_eq!((&streams["count"], &streams["limit"]), (&json!(3), &json!(3)));

    // It stops; the fourth plays.
    socket.say(json!({"type": "stop"})).await;
    assert_eq!(socket.closed().await.0, 4000);
    let (token, _) = &screens[3];
    let fourth = call(
        node,
        "POST",
        "/v1/content/film/play?device=tv-4",
        token,
        &Value::Null,
    )
    .await;
    assert_eq!(fourth.status, 200, "{fourth:?}");
}

#[tokio::test]
async fn sign_up_to_the_fourth_screen_on_sqlite() {
    whole_path(&Node::start().await).await;
}

#[tokio::test]
async fn sign_up_to_the_fourth_screen_on_postgresql() {
    let server = Postgres::start().await;
    whole_path(&Node::with(&format!("[database]\nurl = \"{}\"\n", server.url())).await).await;
}

/// What docs/operations.md says about SQLite: the file and the key are enough for everybody to stay signed in.
#[tokio::test]
async fn a_backup_of_sqlite_and_the_key_is_the_installation() {
    let before = Node::start().await;
    let user = sign_up(&before, "ann@example.com").await;
    let (token, _) = sign_in(&before, "ann@example.com", PASSWORD).await;
    let place = Place::with("");
    let data = place.path().join("data");
    std::fs::create_dir(&data).unwrap();
    before
        .command(&["database", "backup", data.join("usher.db").to_str().unwrap()])
        .unwrap();
    std::fs::copy(
        before.dir.join("data/signing-key.pem"),
        data.join("signing-key.pem"),
    )
    .unwrap();
    drop(before);
    let after = place.serve(USUAL, &[]).await;
    let me = call(&after, "GET", "/v1/users/me", &token, &Value::Null).await;
    assert_eq!(
        (me.status, &me.json()["id"]),
        (http::StatusCode::OK, &user["id"]),
        "the old token is good"
    );
    sign_in(&after, "ann@example.com", PASSWORD).await;
}

#[tokio::test]
async fn a_dump_of_postgresql_is_restored() {
    let server = Postgres::start().await;
    let node = Node::with(&format!("[database]\nurl = \"{}\"\n", server.url())).await;
    let user = sign_up(&node, "ann@example.com").await;
    drop(node);
    let other = Postgres::start().await;
    let dump = server.dump();
    other.load(&dump);
    let node = Node::with(&format!("[database]\nurl = \"{}\"\n", other.url())).await;
    let (_, body) = sign_in(&node, "ann@example.com", PASSWORD).await;
    assert_eq!(body["user"]["id"], user["id"]);
}
