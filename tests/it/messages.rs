//! Messages between viewers: conversations, rules and safety over HTTP, on both databases.

use http::StatusCode;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::accounts::{Stage, sign_in, sign_up};
use crate::harness::{Node, SOON, now, sign, token};
use crate::library::{get, mp4, upload};
use crate::postgres::Postgres;
use crate::redis_servers::until;
use crate::stage::{Answer, answer};

/// Accounts are another system's, and nobody is too fast.
pub(crate) const OPEN: &str = "[modules]\naccounts = false\n[limits]\nrequests_per_second_per_token = 0\n\
    starts_per_second = 0\nmessages_per_second = 0\n[messages]\nburst = 0\nslow_mode = \"0s\"\n";

/// A connection of one account that stays open.
pub(crate) struct Caller {
    pub(crate) token: String,
    stream: TlsStream<TcpStream>,
}

impl Caller {
    pub(crate) async fn new(node: &Node, account: &str) -> Self {
        Self::with(node, token(account)).await
    }

    pub(crate) async fn with(node: &Node, token: String) -> Self {
        let stream = node.connect().await;
        Self { token, stream }
    }

    pub(crate) async fn ask(&mut self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let body = body.map(Value::to_string).unwrap_or_default();
        let kind = if body.is_empty() {
            ""
        } else {
            "Content-Type: application/json\r\n"
        };
        let text = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n{kind}Content-Length: {}\r\n\r\n{body}",
            self.token,
            body.len()
        );
        self.stream.write_all(text.as_bytes()).await.unwrap();
        self.stream.flush().await.unwrap();
        answer(&mut self.stream).await
    }

    /// Sends a text; its id.
    pub(crate) async fn say(&mut self, to: &str, text: &str) -> u64 {
        let body = json!({"recipient": to, "content": {"type": "text", "text": text}});
        let told = self.ask("POST", "/v1/messages", Some(&body)).await;
        assert_eq!(told.status, StatusCode::CREATED, "{told:?}");
        told.json()["id"].as_u64().unwrap()
    }

    pub(crate) async fn read(&mut self, query: &str) -> Value {
        let told = self.ask("GET", &format!("/v1/messages?{query}"), None).await;
        assert_eq!(told.status, StatusCode::OK, "{told:?}");
        told.json()
    }
}

fn texts(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().unwrap().iter();
    items
        .map(|item| item["content"]["text"].as_str().unwrap().to_owned())
        .collect()
}

/// A node on this database.
async fn on(url: &str, more: &str) -> Node {
    Node::with(&format!(
        "{OPEN}{more}[database]\ntimeout = \"5s\"\nurl = \"{url}\"\n"
    ))
    .await
}

/// Runs a test on both databases.
macro_rules! on_both {
    ($($test:ident: $sqlite:ident, $postgres:ident;)+) => {$(
        #[tokio::test]
        async fn $sqlite() {
            $test(&on("", "").await).await;
        }

        #[tokio::test]
        async fn $postgres() {
            let server = Postgres::start().await;
            $test(&on(&server.url(), "").await).await;
        }
    )+};
}

on_both! {
    a_conversation_in_pages: a_conversation_on_sqlite, a_conversation_on_postgresql;
    every_refusal: refusals_on_sqlite, refusals_on_postgresql;
    read_and_unread: unread_on_sqlite, unread_on_postgresql;
    what_keeps_viewers_safe: safety_on_sqlite, safety_on_postgresql;
    at_once: concurrent_senders_on_sqlite, concurrent_senders_on_postgresql;
}

async fn a_conversation_in_pages(node: &Node) {
    let (mut ann, mut bob, mut cy) = (
        Caller::new(node, "ann").await,
        Caller::new(node, "bob").await,
        Caller::new(node, "cy").await,
    );
    for number in 0..250 {
        let (from, to) = if number % 3 == 0 {
            (&mut bob, "ann")
        } else {
            (&mut ann, "bob")
        };
        from.say(to, &number.to_string()).await;
        // Between them, what is none of their conversation.
        if number % 25 == 0 {
            cy.say("ann", "not here").await;
            ann.say("cy", "nor this").await;
        }
    }
    for (caller, with) in [(&mut ann, "with=bob"), (&mut bob, "recipient=ann")] {
        let (mut start, mut all, mut ids) = (1, Vec::new(), Vec::new());
        let mut counts = Vec::new();
        for _ in 0..4 {
            let page = caller.read(&format!("{with}&start={start}&limit=100")).await;
            let found = texts(&page);
            ids.extend(
                page["items"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|item| item["id"].as_u64().unwrap()),
            );
            counts.push(found.len());
            all.extend(found);
            start = page["next_start"].as_u64().unwrap();
        }
        assert_eq!(counts, [100, 100, 50, 0]);
        let expected: Vec<String> = (0..250).map(|number| number.to_string()).collect();
        assert_eq!(all, expected);
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
        assert!(ids.iter().all(|id| *id < 1 << 53));
        // A start that is not there is the next one that is.
        let gap = (ids[0]..ids[249]).find(|id| !ids.contains(id)).unwrap();
        let page = caller.read(&format!("{with}&start={gap}&limit=1")).await;
        assert_eq!(page["items"][0]["id"], *ids.iter().find(|id| **id > gap).unwrap());
        assert_eq!(texts(&caller.read(with).await).len(), 100, "the default is 100");
    }
    let page = bob.read("with=ann&limit=1").await;
    let first = &page["items"][0];
    assert_eq!((&first["from"], &first["to"]), (&json!("bob"), &json!("ann")));
    assert!(first["sent_at"].as_str().unwrap().ends_with('Z'), "{first}");
    // To oneself.
    let own = ann.say("ann", "a note").await;
    assert_eq!(texts(&ann.read("with=ann").await), ["a note"]);
    assert_eq!(
        ann.read("with=ann&sender=ann").await.get("items"),
        None.or(ann.read("with=ann").await.get("items"))
    );
    // The same client_id, also at once, is the same message.
    let body = json!({"recipient": "bob", "content": {"type": "text", "text": "once"}, "client_id": "c1"});
    let first = ann.ask("POST", "/v1/messages", Some(&body)).await;
    let again = ann.ask("POST", "/v1/messages", Some(&body)).await;
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (201, 201));
    assert_eq!(first.json(), again.json());
    assert!(first.json()["id"].as_u64().unwrap() > own);
    let other = bob
        .ask(
            "POST",
            "/v1/messages",
            Some(&json!({"recipient": "ann", "content": {"type": "text", "text": "x"}, "client_id": "c1"})),
        )
        .await;
    assert_ne!(
        other.json()["id"],
        first.json()["id"],
        "client ids are the account's own"
    );
}

async fn every_refusal(node: &Node) {
    let mut ann = Caller::new(node, "ann").await;
    let text = json!({"type": "text", "text": "hi"});
    for (query, field) in [
        ("", "with"),
        ("with=", "with"),
        ("with=b&recipient=b", "recipient"),
        ("with=b&limit=0", "limit"),
        ("with=b&limit=-1", "limit"),
        ("with=b&limit=101", "limit"),
        ("with=b&limit=x", "limit"),
        ("with=b&start=-1", "start"),
        ("with=b&start=x", "start"),
        ("with=b&start=1.5", "start"),
        ("with=b&start=9007199254740992", "start"),
        ("with=b&page=1", "query"),
        ("with=%00", "with"),
    ] {
        let told = ann.ask("GET", &format!("/v1/messages?{query}"), None).await;
        assert_eq!(
            told.refusal(),
            (400, "bad_request".into(), Some(field.into())),
            "{query}"
        );
    }
    for (body, field) in [
        (json!({"content": text}), "recipient"),
        (json!({"recipient": "b"}), "content"),
        (json!({"recipient": "b", "content": "hi"}), "content"),
        (
            json!({"recipient": "b", "content": {"type": "gif"}}),
            "content.type",
        ),
        (
            json!({"recipient": "b", "content": {"type": "text", "text": "x".repeat(2001)}}),
            "content.text",
        ),
        (json!({"recipient": "b\0", "content": text}), "recipient"),
        (json!({"recipient": "room:", "content": text}), "recipient"),
        (
            json!({"recipient": "b", "content": text, "client_id": ""}),
            "client_id",
        ),
        (json!({"recipient": 7, "content": text}), "recipient"),
    ] {
        let told = ann.ask("POST", "/v1/messages", Some(&body)).await;
        assert_eq!(
            told.refusal(),
            (400, "bad_request".into(), Some(field.into())),
            "{body}"
        );
    }
    let told = ann
        .ask(
            "POST",
            "/v1/messages",
            Some(&json!({"recipient": "b", "content": {"type": "gif"}})),
        )
        .await;
    assert!(told.body.contains("text, image, video"), "{told:?}");
    let posed = json!({"recipient": "b", "sender": "cy", "content": text});
    let told = ann.ask("POST", "/v1/messages", Some(&posed)).await;
    assert_eq!(told.refusal().1, "sender_forbidden");
    let own = json!({"recipient": "b", "sender": "ann", "content": text});
    assert_eq!(ann.ask("POST", "/v1/messages", Some(&own)).await.status, 201);
    let told = ann.ask("GET", "/v1/messages?sender=b&recipient=cy", None).await;
    assert_eq!(
        (told.status.as_u16(), told.refusal().1),
        (403, "third_party".into())
    );
    assert_eq!(texts(&ann.read("sender=b&recipient=ann").await), ["hi"]);
    let told = ann.ask("GET", "/v1/messages?with=room:m1", None).await;
    assert_eq!(told.refusal().1, "room_forbidden");
    let told = ann
        .ask(
            "POST",
            "/v1/messages",
            Some(&json!({"recipient": "room:m1", "content": text})),
        )
        .await;
    assert_eq!(told.refusal().1, "room_forbidden");
    let mut nobody = Caller::with(node, "x.y.z".to_owned()).await;
    assert_eq!(nobody.ask("GET", "/v1/messages?with=b", None).await.status, 401);
    let mut clerk = Caller::with(
        node,
        sign(&json!({"sub": "op", "exp": now() + 60, "scope": "finance"})),
    )
    .await;
    assert_eq!(clerk.ask("GET", "/v1/messages?with=b", None).await.status, 403);
    // Two tenants with equal names never meet.
    let elsewhere = |account: &str| sign(&json!({"sub": account, "exp": now() + 60, "tenant": "other"}));
    let mut other = Caller::with(node, elsewhere("ann")).await;
    assert!(texts(&other.read("with=b").await).is_empty());
    other.say("b", "of the other tenant").await;
    assert_eq!(texts(&ann.read("with=b").await), ["hi"]);
    // Kinds as they come back.
    let film = json!({"type": "video", "url": "https://v.example/1", "source": "vimeo", "duration_ms": 1, "metadata": {"k": [1, {"x": null}]}});
    let body = json!({"recipient": "kinds", "content": film});
    assert_eq!(ann.ask("POST", "/v1/messages", Some(&body)).await.status, 201);
    let strange = "<b>\u{0}\u{1f980}\"\\\u{2028}";
    let body = json!({"recipient": "kinds", "content": {"type": "string", "text": strange}});
    assert_eq!(ann.ask("POST", "/v1/messages", Some(&body)).await.status, 201);
    let page = ann.read("with=kinds").await;
    assert_eq!(page["items"][0]["content"], film);
    assert_eq!(
        page["items"][1]["content"],
        json!({"type": "text", "text": strange})
    );
}

async fn read_and_unread(node: &Node) {
    let (mut ann, mut bob) = (Caller::new(node, "ann").await, Caller::new(node, "bob").await);
    let mut ids = Vec::new();
    for number in 0..5 {
        ids.push(ann.say("bob", &number.to_string()).await);
    }
    Caller::new(node, "cy").await.say("bob", "later").await;
    let conversations = bob.ask("GET", "/v1/messages/conversations", None).await.json();
    let with = |index: usize| {
        (
            conversations["items"][index]["with"].clone(),
            conversations["items"][index]["unread"].clone(),
        )
    };
    assert_eq!(
        (with(0), with(1)),
        ((json!("cy"), json!(1)), (json!("ann"), json!(5)))
    );
    assert_eq!(conversations["total"], 2);
    let mark = |id: u64| json!({"with": "ann", "id": id});
    let read = bob
        .ask("PUT", "/v1/messages/read", Some(&mark(ids[2])))
        .await
        .json();
    assert_eq!((&read["read_id"], &read["unread"]), (&json!(ids[2]), &json!(2)));
    let back = bob.ask("PUT", "/v1/messages/read", Some(&mark(1))).await.json();
    assert_eq!(back, read, "never back");
    let beyond = bob
        .ask("PUT", "/v1/messages/read", Some(&mark((1 << 53) - 1)))
        .await
        .json();
    assert_eq!(
        (&beyond["read_id"], &beyond["unread"]),
        (&json!(ids[4]), &json!(0))
    );
    ann.say("bob", "new").await;
    bob.say("ann", "own").await;
    let now = bob
        .ask("GET", "/v1/messages/conversations?limit=1", None)
        .await
        .json();
    assert_eq!(
        (&now["items"][0]["with"], &now["items"][0]["unread"]),
        (&json!("ann"), &json!(1))
    );
    assert_eq!(now["items"].as_array().unwrap().len(), 1);
    let none = bob
        .ask("PUT", "/v1/messages/read", Some(&json!({"with": "zoe", "id": 1})))
        .await;
    assert_eq!(none.status, 404);
}

async fn what_keeps_viewers_safe(node: &Node) {
    let (mut ann, mut bob, mut cy) = (
        Caller::new(node, "ann").await,
        Caller::new(node, "bob").await,
        Caller::new(node, "cy").await,
    );
    let id = ann.say("bob", "rude").await;
    let stays = ann.say("bob", "stays").await;
    // Blocked: nothing more comes, the other way it does.
    assert_eq!(bob.ask("PUT", "/v1/messages/blocks/ann", None).await.status, 204);
    let body = json!({"recipient": "bob", "content": {"type": "text", "text": "again"}});
    assert_eq!(
        ann.ask("POST", "/v1/messages", Some(&body)).await.refusal().1,
        "blocked"
    );
    assert_eq!(
        bob.ask("GET", "/v1/messages/blocks", None).await.json()["items"],
        json!(["ann"])
    );
    bob.say("ann", "stop it").await;
    assert_eq!(
        bob.ask("DELETE", "/v1/messages/blocks/ann", None).await.status,
        204
    );
    assert_eq!(
        bob.ask("DELETE", "/v1/messages/blocks/ann", None).await.status,
        404
    );
    ann.say("bob", "again").await;
    // Reported: the words as they were, whatever becomes of them.
    let reason = json!({"reason": "rude"});
    let path = format!("/v1/messages/{id}/report?with=ann");
    let report = bob.ask("POST", &path, Some(&reason)).await;
    assert_eq!(report.status, 201, "{report:?}");
    assert_eq!(
        bob.ask("POST", &path, Some(&reason)).await.json(),
        report.json(),
        "once"
    );
    assert_eq!(
        cy.ask("POST", &path, Some(&reason)).await.status,
        404,
        "a third party"
    );
    // Taken back: by its sender alone.
    let own = format!("/v1/messages/{id}?with=bob");
    assert_eq!(
        bob.ask("DELETE", &format!("/v1/messages/{id}?with=ann"), None)
            .await
            .status,
        404
    );
    assert_eq!(cy.ask("DELETE", &own, None).await.status, 404);
    assert_eq!(ann.ask("DELETE", &own, None).await.status, 204);
    assert_eq!(ann.ask("DELETE", &own, None).await.status, 404);
    assert_eq!(texts(&bob.read("with=ann").await), ["stays", "stop it", "again"]);
    // Operators see the report, remove any message and close it; all of it is in the trail.
    let operator = sign(&json!({"sub": "op", "exp": now() + 60, "scope": "support"}));
    let (status, _, body) = node
        .admin_get("/v1/admin/messages/reports", Some(&operator))
        .await;
    assert_eq!(status, 200, "{body}");
    let reports: Value = serde_json::from_str(&body).unwrap();
    let shown = &reports["items"][0];
    assert_eq!(reports["total"], 1);
    assert_eq!(
        (
            &shown["reporter"],
            &shown["from"],
            &shown["content"]["text"],
            &shown["message"]
        ),
        (&json!("bob"), &json!("ann"), &json!("rude"), &json!(id))
    );
    let path = format!("/v1/admin/accounts/ann/messages/{stays}?with=bob");
    let (status, _, body) = node.admin_request("DELETE", &path, Some(&operator), "").await;
    assert_eq!(status, 204, "{body}");
    assert_eq!(texts(&bob.read("with=ann").await), ["stop it", "again"]);
    let path = format!(
        "/v1/admin/messages/reports/{}/close",
        report.json()["id"].as_str().unwrap()
    );
    let (status, _, body) = node.admin_request("POST", &path, Some(&operator), "").await;
    assert_eq!(status, 204, "{body}");
    let (_, _, body) = node
        .admin_get("/v1/admin/messages/reports", Some(&operator))
        .await;
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["total"], 0);
    let other = sign(&json!({"sub": "op", "exp": now() + 60, "scope": "support", "tenant": "other"}));
    let (_, _, body) = node
        .admin_get("/v1/admin/messages/reports?closed=true", Some(&other))
        .await;
    assert_eq!(
        serde_json::from_str::<Value>(&body).unwrap()["total"],
        0,
        "tenants are apart"
    );
    let trail = std::fs::read_to_string(node.dir.join("data/audit.log")).unwrap();
    for action in ["reports.list", "message.remove", "report.close"] {
        assert!(trail.contains(&format!("\"action\":\"{action}\"")), "{trail}");
    }
    assert!(node.metric("usher_messages_total{kind=\"text\"}").await >= 4.0);
}

/// Senders of all sorts of pairs at once: nothing is lost, ids ascend and no id is given twice to one account.
async fn at_once(node: &Node) {
    let names = ["a", "b", "c", "d"];
    let senders = names
        .iter()
        .flat_map(|from| names.iter().map(move |to| (*from, *to)));
    let sending = senders.map(|(from, to)| async move {
        let mut caller = Caller::new(node, from).await;
        for number in 0..15 {
            caller.say(to, &format!("{from}{to}{number}")).await;
        }
    });
    futures_util::future::join_all(sending).await;
    for own in names {
        let mut caller = Caller::new(node, own).await;
        let mut ids = Vec::new();
        for with in names {
            let page = caller.read(&format!("with={with}")).await;
            let said = texts(&page);
            let from = |who: &str, to: &str| -> Vec<String> {
                let own: Vec<String> = said
                    .iter()
                    .filter(|text| text.starts_with(&format!("{who}{to}")))
                    .cloned()
                    .collect();
                own
            };
            for (who, to) in [(own, with), (with, own)] {
                let expected: Vec<String> = (0..15).map(|number| format!("{who}{to}{number}")).collect();
                assert_eq!(from(who, to), expected, "in the order of their sender");
            }
            ids.extend(
                page["items"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|item| item["id"].as_u64().unwrap()),
            );
        }
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count, "an id twice for {own}");
    }
}

/// With accounts of this installation an unknown recipient is told, and what was said to one who is gone stays.
#[tokio::test]
async fn an_unknown_recipient_is_404_where_accounts_are_known() {
    let server = Postgres::start().await;
    let node = Node::with(&format!("[database]\nurl = \"{}\"\n", server.url())).await;
    let mut ann = Caller::new(&node, "ann").await;
    let body = json!({"recipient": "nobody", "content": {"type": "text", "text": "hi"}});
    assert_eq!(
        ann.ask("POST", "/v1/messages", Some(&body)).await.refusal().1,
        "not_found"
    );
    assert_eq!(ann.ask("GET", "/v1/messages?with=nobody", None).await.status, 404);
    assert_eq!(
        ann.ask(
            "POST",
            "/v1/messages",
            Some(&json!({"recipient": "ann", "content": {"type": "text", "text": "hi"}}))
        )
        .await
        .status,
        201
    );
}

/// The database goes away: 503, and nobody who plays notices.
#[tokio::test]
async fn sql_away_is_503_and_plays_go_on() {
    let server = Postgres::start().await;
    let node = on(&server.url(), "").await;
    let mut ann = Caller::new(&node, "ann").await;
    ann.say("bob", "before").await;
    let mut player = node.watch("ann", "content=m1&device=tv").await;
    assert_eq!(player.next().await["type"], "granted");
    server.stop();
    let body = json!({"recipient": "bob", "content": {"type": "text", "text": "hi"}});
    let told = ann.ask("POST", "/v1/messages", Some(&body)).await;
    assert_eq!(told.refusal().0, 503);
    assert!(told.header("retry-after").is_some());
    player
        .say(json!({"type": "message", "to": "bob", "content": {"type": "text", "text": "x"}, "id": 7}))
        .await;
    // The lease is kept by what comes, whatever the database does.
    for _ in 0..3 {
        player.say(json!({"type": "heartbeat"})).await;
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    let told = player.next_within(SOON * 2).await;
    assert_eq!(
        (&told["type"], &told["code"], &told["id"]),
        (&json!("error"), &json!("unavailable"), &json!(7))
    );
    assert_eq!(node.sessions("ann").await.len(), 1);
    server.cont();
    until("a message again", || async {
        Caller::new(&node, "ann")
            .await
            .ask("GET", "/v1/messages?with=bob", None)
            .await
            .status
            .is_success()
            .then_some(())
    })
    .await;
    ann.say("bob", "after").await;
}

/// Nodes that share Redis and no database say so.
#[tokio::test]
async fn redis_without_a_shared_database_needs_one() {
    let redis = crate::redis_servers::Redis::start(&[]).await;
    let node = Node::with(&format!("[redis]\nurl = \"{}\"\n", redis.url())).await;
    let mut ann = Caller::new(&node, "ann").await;
    let told = ann.ask("GET", "/v1/messages?with=bob", None).await;
    assert_eq!(
        (told.refusal().0, told.refusal().1),
        (503, "needs_database".into())
    );
    let mut player = node.watch("ann", "content=m1").await;
    player.next_of("granted").await;
    player
        .say(json!({"type": "message", "to": "bob", "content": {"type": "text", "text": "x"}}))
        .await;
    assert_eq!(player.next_of("error").await["code"], "bad_state");
}

/// A file that its owner sends may be fetched by who got it; and what a person said leaves with the person.
async fn what_is_sent_and_who_leaves(stage: &Stage) {
    let node = &stage.node;
    let mut ids = Vec::new();
    let mut callers = Vec::new();
    for name in ["ann", "bob", "cy"] {
        let email = format!("{name}@example.com");
        ids.push(sign_up(node, &email).await);
        let token = sign_in(node, &email, &Value::Null).await["token"].clone();
        callers.push(Caller::with(node, token.as_str().unwrap().to_owned()).await);
    }
    let [ann, bob, cy] = &mut callers[..] else {
        unreachable!()
    };
    let file = upload(node, &ann.token, &[], "video/mp4", &mp4(3000)).await;
    let url = format!("/v1/media/{}", file["id"].as_str().unwrap());
    let fetch = async |caller: &Caller| get(node, &url, &caller.token, &[]).await.status;
    assert_eq!((fetch(ann).await, fetch(bob).await), (200, 403));
    let film =
        |to: &str| json!({"recipient": to, "content": {"type": "video", "url": url, "source": "file"}});
    // Who is not the owner passes nothing on.
    let told = cy.ask("POST", "/v1/messages", Some(&film(&ids[1]))).await;
    assert_eq!((told.status, fetch(bob).await), (StatusCode::CREATED, 403));
    let told = ann.ask("POST", "/v1/messages", Some(&film(&ids[1]))).await;
    assert_eq!(told.status, StatusCode::CREATED, "{told:?}");
    assert_eq!((fetch(bob).await, fetch(cy).await), (200, 403));
    // A message that is taken back shows nothing any more.
    let path = format!("/v1/messages/{}?with={}", told.json()["id"], ids[1]);
    assert_eq!(
        ann.ask("DELETE", &path, None).await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(fetch(bob).await, 403);

    ann.say(&ids[1], "to bob").await;
    bob.say(&ids[0], "to ann").await;
    let block = format!("/v1/messages/blocks/{}", ids[2]);
    assert_eq!(bob.ask("PUT", &block, None).await.status, StatusCode::NO_CONTENT);
    let export = bob.ask("GET", "/v1/users/me/export", None).await.json();
    let kept = &export["messages"];
    let text = |side: &str, at: usize| kept[side][at]["content"]["text"].clone();
    assert_eq!(
        (text("sent", 0), text("received", 0)),
        (json!("to ann"), json!("to bob"))
    );
    assert_eq!(kept["blocked"], json!([ids[2]]));
    assert_eq!(
        ann.ask("DELETE", "/v1/users/me", None).await.status,
        StatusCode::NO_CONTENT
    );
    let export = bob.ask("GET", "/v1/users/me/export", None).await;
    assert!(
        export.body.contains("to ann") && !export.body.contains("to bob"),
        "{export:?}"
    );
    let listed = bob.ask("GET", "/v1/messages/conversations", None).await.json();
    assert!(!listed.to_string().contains(&ids[0]), "{listed}");
}

/// Viewers may upload.
const UPLOADS: &str = "[media]\nviewers_upload = true\n";

#[tokio::test]
async fn what_is_sent_and_who_leaves_on_sqlite() {
    what_is_sent_and_who_leaves(&Stage::sqlite(UPLOADS).await).await;
}

#[tokio::test]
async fn what_is_sent_and_who_leaves_on_postgresql() {
    what_is_sent_and_who_leaves(&Stage::postgres(UPLOADS).await).await;
}
