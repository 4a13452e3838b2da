//! What the ledger tells beside money, whose content is, sums of days, work under way, and leaving; on both engines.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::Row;
use tokio::io::AsyncWriteExt;
use usher::db::Db;

use crate::accounts::{Stage, bearer, sign_up};
use crate::catalogue::{call, create, editor, film, token_of, with};
use crate::harness::Node;
use crate::postgres::Postgres;
use crate::redis_servers::until;
use crate::stage::{answer, request};

const TOML: &str = "[catalogue]\ndemo = false\n[ledger]\nsums_every = \"1s\"\nreports = 3\n";
const ROYALTIES: &str = "/v1/reports/royalties?from=2019-03-01&to=2019-04-01&model=pro_rata";

fn clerk() -> String {
    token_of("main", "fin", &json!({"scope": "finance"}))
}

async fn get(node: &Node, path: &str) -> Value {
    let answer = call(node, "GET", path, &clerk(), &Value::Null).await;
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.json()
}

/// A play by hand.
async fn enter(node: &Node, id: &str, user: &str, content: &str, day: &str, seconds: u32) {
    let play = json!({"id": id, "user": user, "content": content, "started_at": format!("{day}T12:00:00Z"), "seconds": seconds});
    let answer = call(node, "POST", "/v1/plays", &clerk(), &play).await;
    assert_eq!(answer.status, 201, "{answer:?}");
}

async fn import(node: &Node, kind: &str, text: &str) {
    let path = format!("/v1/plays/imports/{kind}");
    let answer = crate::catalogue::send(node, "POST", &path, &clerk(), "text/csv", text).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// Of a report: label and amount of every row.
fn paid(report: &Value) -> Vec<(String, String)> {
    let rows = report["rows"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    rows.map(|row| (text(&row["label"]), text(&row["amount"])))
        .collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let pairs = expected.iter();
    pairs
        .map(|(label, amount)| ((*label).to_owned(), (*amount).to_owned()))
        .collect()
}

async fn count(db: &Db, sql: &'static str) -> i64 {
    db.fetch_one(sqlx::query(sql)).await.unwrap().get(0)
}

/// The sums of days change no report, and follow every change; the label is the track's, else the catalogue's.
async fn days_and_labels(node: &Node, db: &Db) {
    import(
        node,
        "users",
        "user_id,product_type,fee,origin\nann,premium,10.00,web\n",
    )
    .await;
    for (id, content, day, seconds) in [
        ("p1", "film", "2019-03-01", 600),
        ("p2", "song", "2019-03-02", 300),
        ("p3", "film", "2019-03-31", 100),
        ("p4", "film", "2019-04-01", 9_000),
    ] {
        enter(node, id, "ann", content, day, seconds).await;
    }
    let before = get(node, ROYALTIES).await;
    assert_eq!(
        (&before["incomplete"], &before["unlabelled"]["amount"]),
        (&json!(true), &json!("9.00"))
    );
    import(node, "tracks", "track id,track name,label\nsong,A song,L2\n").await;
    create(node, "main", &with(film("film"), &json!({"label": "Studio"}))).await;
    let expected = pairs(&[("L2", "2.70"), ("Studio", "6.30")]);
    let report = get(node, ROYALTIES).await;
    assert_eq!(
        (paid(&report), &report["incomplete"]),
        (expected.clone(), &json!(false))
    );

    until("sums of every day", async || {
        (count(db, "SELECT CAST(count(*) AS BIGINT) FROM stale_days").await == 0).then_some(())
    })
    .await;
    assert_eq!(
        count(db, "SELECT CAST(sum(seconds) AS BIGINT) FROM play_days").await,
        10_000
    );
    // Another subscriber, who pays nothing: the report is worked out again, now from the sums.
    import(
        node,
        "users",
        "user_id,product_type,fee,origin\nbob,premium,0.00,web\n",
    )
    .await;
    assert_eq!(get(node, ROYALTIES).await, report, "to the byte");
    // They are what counts, where nothing changed since.
    db.execute(sqlx::query(
        "UPDATE play_days SET seconds = 1200 WHERE content = 'song'",
    ))
    .await
    .unwrap();
    import(
        node,
        "users",
        "user_id,product_type,fee,origin\nbob,premium,0.00,app_store\n",
    )
    .await;
    assert_eq!(
        paid(&get(node, ROYALTIES).await),
        pairs(&[("L2", "5.68"), ("Studio", "3.32")])
    );

    // A correction marks its play's day, at once.
    let fixed = call(node, "PUT", "/v1/plays/p2", &clerk(), &json!({"seconds": 700})).await;
    assert_eq!(fixed.status, 200);
    let expected = pairs(&[("L2", "4.50"), ("Studio", "4.50")]);
    assert_eq!(paid(&get(node, ROYALTIES).await), expected);
    until("the sum of that day", async || {
        (count(db, "SELECT seconds FROM play_days WHERE content = 'song'").await == 700).then_some(())
    })
    .await;
    assert_eq!(paid(&get(node, ROYALTIES).await), expected);

    // The catalogue's label is as good as any, and a change of it counts at once; a track stands above it.
    let renamed = with(film("film"), &json!({"label": "Other"}));
    let path = "/v1/content/film";
    assert_eq!(
        call(node, "PUT", path, &editor("main"), &renamed).await.status,
        200
    );
    assert_eq!(
        paid(&get(node, ROYALTIES).await),
        pairs(&[("L2", "4.50"), ("Other", "4.50")])
    );
    let frozen = json!({"from": "2019-03-01", "to": "2019-04-01", "model": "user_centric"});
    let frozen = call(node, "POST", "/v1/reports/statements", &clerk(), &frozen).await;
    assert_eq!(
        paid(&frozen.json()["report"]),
        pairs(&[("L2", "4.50"), ("Other", "4.50")])
    );
    import(node, "tracks", "track id,track name,label\nfilm,A film,L1\n").await;
    assert_eq!(
        paid(&get(node, ROYALTIES).await),
        pairs(&[("L1", "4.50"), ("L2", "4.50")])
    );
}

/// How much of a content is watched, by category.
async fn audience(node: &Node) {
    let put = call(
        node,
        "PUT",
        "/v1/content/categories/drama",
        &editor("main"),
        &Value::Null,
    )
    .await;
    assert_eq!(put.status, 201);
    create(
        node,
        "main",
        &with(
            film("long"),
            &json!({"category": "drama", "duration_ms": 100_000}),
        ),
    )
    .await;
    for position in [95_000, 10_000, 90_000] {
        let mut player = node.watch("viewer", "content=long&device=tv").await;
        player.next_of("granted").await;
        player
            .say(json!({"type": "heartbeat", "position_ms": position, "state": "playing"}))
            .await;
        player.say(json!({"type": "stop"})).await;
        player.closed().await;
    }
    let drama = until("three plays", async || {
        let audience = get(node, "/v1/reports/audience?by=category").await;
        let items = audience["items"].as_array().unwrap().clone();
        items
            .into_iter()
            .find(|item| item["name"] == "drama" && item["plays"] == 3)
    })
    .await;
    assert_eq!(
        (
            &drama["measured"],
            &drama["finished"],
            &drama["completion"],
            &drama["users"]
        ),
        (&json!(3), &json!(2), &json!(0.6666), &json!(1))
    );
    let by_content = get(node, "/v1/reports/audience?by=content").await;
    let items = by_content["items"].as_array().unwrap();
    let song = items.iter().find(|item| item["name"] == "song").unwrap();
    assert_eq!(
        (&song["completion"], &song["measured"]),
        (&Value::Null, &json!(0))
    );
}

/// Two slots of a plan, and a third that is refused, on a socket and by HTTP.
async fn concurrency(node: &Node) {
    let token = token_of("main", "kim", &json!({"plan": "duo", "streams": 2}));
    let mut players = Vec::new();
    for device in ["a", "b"] {
        let mut player = node
            .try_watch(&token, &format!("content=m1&device={device}"))
            .await
            .unwrap();
        player.next_of("granted").await;
        players.push(player);
    }
    let mut refused = node.try_watch(&token, "content=m1&device=c").await.unwrap();
    assert_eq!(refused.next().await["type"], "denied");
    let lone = call(
        node,
        "POST",
        "/v1/sessions",
        &token,
        &json!({"content": "m1", "device": "d"}),
    )
    .await;
    assert_eq!(lone.status, 403);
    let duo = until("what was asked for", async || {
        let report = get(node, "/v1/reports/concurrency").await;
        let plans = report["plans"].as_array().unwrap().clone();
        plans
            .into_iter()
            .find(|plan| plan["plan"] == "duo" && plan["refused"] == 2)
    })
    .await;
    let expected = json!({"plan": "duo", "granted": 2, "refused": 2, "what_if": [{"limit": 3, "saved": 2}],
        "levels": [{"slot": 1, "used": 1, "asked": 1}, {"slot": 2, "used": 1, "asked": 1}, {"slot": 3, "used": 0, "asked": 2}]});
    assert_eq!(duo, expected);
    let past = get(node, "/v1/reports/concurrency?to=2020-01-01").await;
    assert_eq!(past, json!({"levels": [], "plans": []}));
    let other = token_of("other", "fin", &json!({"scope": "finance"}));
    let other = call(node, "GET", "/v1/reports/concurrency", &other, &Value::Null).await;
    assert_eq!(other.json(), past, "I7");
}

async fn running(node: &Node, kind: &str) -> Option<Value> {
    let list = get(node, "/v1/reports/running").await;
    let items = list["items"].as_array().unwrap().clone();
    items.into_iter().find(|item| item["kind"] == kind)
}

/// A file that never comes to its end is seen, and cancelled; not by another tenant.
async fn an_import_is_cancelled(node: &Node) {
    let (bearer, mut stream) = (format!("Bearer {}", clerk()), node.connect().await);
    let headers = [
        ("Authorization", &*bearer),
        ("Content-Type", "text/csv"),
        ("Content-Length", "1000"),
    ];
    let head = request("POST", "/v1/plays/imports/plays", &headers) + "date,user";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let task = until("the import", async || running(node, "import").await).await;
    assert_eq!(task["account"], "fin");
    let path = format!("/v1/reports/running/{}", task["id"].as_str().unwrap());
    let other = token_of("other", "fin", &json!({"scope": "finance"}));
    assert_eq!(
        call(node, "DELETE", &path, &other, &Value::Null).await.status,
        404
    );
    let list = call(node, "GET", "/v1/reports/running", &other, &Value::Null).await;
    assert_eq!(list.json()["total"], 0, "I7");
    assert_eq!(
        call(node, "DELETE", &path, &clerk(), &Value::Null).await.status,
        204
    );
    let refusal = answer(&mut stream).await.refusal();
    assert_eq!((refusal.0, &*refusal.1), (409, "cancelled"));
    assert!(running(node, "import").await.is_none());
    assert_eq!(
        call(node, "DELETE", &path, &clerk(), &Value::Null).await.status,
        404
    );
}

async fn everything(node: &Node, db: &Db) {
    days_and_labels(node, db).await;
    audience(node).await;
    concurrency(node).await;
    an_import_is_cancelled(node).await;
}

#[tokio::test]
async fn insight_on_sqlite() {
    let node = Node::with(TOML).await;
    let db = crate::ledger_rows::open(&node.dir.join("data"), "").await;
    everything(&node, &db).await;
}

#[tokio::test]
async fn insight_on_postgresql() {
    let postgres = Postgres::start().await;
    let node = Node::with(&format!("{TOML}[database]\nurl = \"{}\"", postgres.url())).await;
    let db = crate::ledger_rows::open(Path::new("."), &postgres.url()).await;
    everything(&node, &db).await;
}

/// Reports that a lock of the database holds up: each is seen; one is cancelled, one loses its reader; then there is room
/// again.
#[tokio::test]
async fn reports_end_when_nobody_waits_for_them() {
    let postgres = Postgres::start().await;
    let toml = format!(
        "[ledger]\nreports = 1\nreport_timeout = \"20s\"\n[database]\nurl = \"{}\"",
        postgres.url()
    );
    let node = Node::with(&toml).await;
    enter(&node, "p", "ann", "film", "2019-03-01", 60).await;
    let db = crate::ledger_rows::open(Path::new("."), &postgres.url()).await;
    let mut lock = db.begin_for(Duration::from_secs(60)).await.unwrap();
    lock.execute(sqlx::query("LOCK TABLE plays IN ACCESS EXCLUSIVE MODE"))
        .await
        .unwrap();

    let bearer = format!("Bearer {}", clerk());
    let ask = request("GET", ROYALTIES, &[("Authorization", &bearer)]);
    let (mut first, mut second) = (node.connect().await, node.connect().await);
    first.write_all(ask.as_bytes()).await.unwrap();
    first.flush().await.unwrap();
    let task = until("the report", async || running(&node, "royalties").await).await;
    let busy = call(
        &node,
        "GET",
        "/v1/reports/audience?by=hour",
        &clerk(),
        &Value::Null,
    )
    .await;
    assert_eq!((busy.status.as_u16(), busy.refusal().1.as_str()), (503, "busy"));
    let path = format!("/v1/reports/running/{}", task["id"].as_str().unwrap());
    assert_eq!(
        call(&node, "DELETE", &path, &clerk(), &Value::Null).await.status,
        204
    );
    assert_eq!(answer(&mut first).await.refusal().1, "cancelled");

    second.write_all(ask.as_bytes()).await.unwrap();
    second.flush().await.unwrap();
    until("another report", async || running(&node, "royalties").await).await;
    drop(second);
    until("no report", async || {
        running(&node, "royalties").await.is_none().then_some(())
    })
    .await;

    lock.commit().await.unwrap();
    assert_eq!(get(&node, ROYALTIES).await["unlabelled"]["seconds"], 60);
}

/// Who leaves takes nothing out of the sums, and leaves nothing that names them.
async fn leaving(stage: &Stage, db: &Db) {
    let node = &stage.node;
    let id = sign_up(node, "ann@example.com").await;
    import(
        node,
        "users",
        &format!("user_id,product_type,fee,origin\n{id},premium,10.00,web\nbob,premium,10.00,web\n"),
    )
    .await;
    import(
        node,
        "tracks",
        "track id,track name,label\nsong,A song,L1\nfilm,A film,L2\n",
    )
    .await;
    enter(node, "p1", &id, "song", "2019-03-01", 600).await;
    enter(node, "p2", "bob", "film", "2019-03-02", 300).await;
    let mut player = node
        .watch(&id, "content=song&device=secret-tv&device_name=Anns")
        .await;
    player.next_of("granted").await;
    player.say(json!({"type": "stop"})).await;
    player.closed().await;
    until("the play of a session", async || {
        (get(node, &format!("/v1/plays?user={id}")).await["total"] == 2).then_some(())
    })
    .await;
    let centric = ROYALTIES.replace("pro_rata", "user_centric");
    let before = (get(node, ROYALTIES).await, get(node, &centric).await);

    let own = crate::accounts::enter(node, "ann@example.com").await;
    let export = crate::accounts::call(node, "GET", "/v1/users/me/export", &own, &Value::Null).await;
    let export = export.json()["ledger"].clone();
    assert_eq!(export["subscription"]["fee_minor"], 1000, "{export}");
    assert_eq!(export["plays"].as_array().unwrap().len(), 2, "{export}");
    assert!(!export.to_string().contains("bob"), "{export}");

    let admin = bearer(&token_of("main", "staff", &json!({"scope": "admin"})));
    let gone = crate::accounts::call(node, "DELETE", &format!("/v1/users/{id}"), &admin, &Value::Null).await;
    assert_eq!(gone.status, 204, "{gone:?}");
    until("no play of that name", async || {
        (get(node, &format!("/v1/plays?user={id}")).await["total"] == 0).then_some(())
    })
    .await;
    assert_eq!(
        (get(node, ROYALTIES).await, get(node, &centric).await),
        before,
        "to the cent"
    );
    let unknown = call(
        node,
        "GET",
        &format!("/v1/reports/users/{id}"),
        &clerk(),
        &Value::Null,
    )
    .await;
    assert_eq!(unknown.status, 404);
    let rows = db
        .fetch_all(sqlx::query("SELECT user_id, device, device_name FROM plays"))
        .await
        .unwrap();
    assert_eq!(rows.len(), 3);
    for row in rows {
        let user: String = row.get(0);
        assert!(user == "bob" || user.starts_with("forgotten-"), "{user}");
        let device = [1, 2].map(|column| row.get::<Option<String>, _>(column));
        assert_eq!(device, [None, None]);
    }
}

#[tokio::test]
async fn leaving_on_sqlite() {
    let stage = Stage::sqlite("").await;
    let db = crate::ledger_rows::open(&stage.node.dir.join("data"), "").await;
    leaving(&stage, &db).await;
}

#[tokio::test]
async fn leaving_on_postgresql() {
    let stage = Stage::postgres("").await;
    let url = stage.server.as_ref().unwrap().url();
    let db = crate::ledger_rows::open(Path::new("."), &url).await;
    leaving(&stage, &db).await;
}
