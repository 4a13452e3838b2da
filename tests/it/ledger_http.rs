//! The ledger by HTTP: imports, reports, frozen statements, plays by hand, positions; who may see what; on both engines.

use serde_json::{Value, json};

use crate::harness::{Node, now, sign};
use crate::postgres::Postgres;
use crate::redis_servers::until;
use crate::stage::{Answer, request};

const USERS: &str = "user_id;product_type;fee;origin\nA;premium;7,99;app_store\nB;platinum;14,99;web\nC;premium;7,99;web\n\
    D;platinum;14,99;app_store\nE;premium;7,99;web\nbroken;premium;x;web\n";
const TRACKS: &str = "track id,track name,label\nt1,One,L1\nt2,Two,L2\nt3,Three,=L3\n";
const PLAYS: &str = "date,user_id,region,track id,seconds\n01/03/2019,A,NL,t1,1000\n02/03/2019,B,NL,t2,8000\n\
    03/03/2019,B,BE,t3,2000\n04/03/2019,C,NL,t1,3000\n05/03/2019,C,NL,t2,1000\n06/03/2019,D,NL,t3,5000\n";
const MARCH: &str = "from=2019-03-01&to=2019-04-01";

/// Somebody with a token.
pub(crate) struct Clerk<'a> {
    node: &'a Node,
    token: String,
}

impl<'a> Clerk<'a> {
    pub(crate) fn new(node: &'a Node, account: &str, tenant: &str, scope: &str) -> Self {
        let claims = json!({"sub": account, "tenant": tenant, "scope": scope, "exp": now() + 600});
        Self {
            node,
            token: format!("Bearer {}", sign(&claims)),
        }
    }

    pub(crate) async fn send(&self, method: &str, target: &str, kind: &str, body: &str) -> Answer {
        let length = body.len().to_string();
        let headers = [
            ("Authorization", &*self.token),
            ("Content-Type", kind),
            ("Content-Length", &length),
        ];
        let text = request(method, target, &headers) + body;
        self.node.ask(&text).await
    }

    pub(crate) async fn get(&self, target: &str) -> Value {
        let answer = self.send("GET", target, "text/plain", "").await;
        assert_eq!(answer.status, 200, "{target}: {answer:?}");
        answer.json()
    }

    async fn json(&self, method: &str, target: &str, body: &Value) -> Answer {
        self.send(method, target, "application/json", &body.to_string())
            .await
    }

    async fn import(&self, target: &str, text: &str) -> Value {
        let answer = self
            .send("POST", &format!("/v1/plays/imports/{target}"), "text/csv", text)
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    async fn refusal(&self, method: &str, target: &str, body: &Value) -> (u16, String) {
        let (status, code, _) = self.json(method, target, body).await.refusal();
        (status, code)
    }
}

async fn imports_and_reports(node: &Node) {
    let clerk = Clerk::new(node, "fin", "main", "finance");
    let done = clerk.import("users?separator=;&decimal_comma=true", USERS).await;
    assert_eq!(
        (&done["read"], &done["taken"], &done["rejected"]),
        (&json!(6), &json!(5), &json!(1))
    );
    assert_eq!(
        done["rejects"],
        json!([{"line": 7, "reason": "fee is no amount"}])
    );
    let tracks = r#"[{"t1":"t2","One":"Two","L1":"L2"},{"t1":"t3","One":"Three","L1":"=L3"}]"#;
    let target = "/v1/plays/imports/tracks?columns=track%20id,track%20name,label";
    let done = clerk.send("POST", target, "application/json", tracks).await;
    assert_eq!(
        (done.status.as_u16(), &done.json()["taken"]),
        (200, &json!(3)),
        "{done:?}"
    );
    let done = clerk.import("tracks", TRACKS).await;
    assert_eq!((&done["taken"], &done["already_there"]), (&json!(0), &json!(3)));
    let missing = clerk.import("plays", PLAYS).await;
    assert_eq!(
        (&missing["taken"], &missing["missing_option"]),
        (&json!(0), &json!("date_format"))
    );
    for taken in [6, 0] {
        let done = clerk.import("plays?date_format=%25d/%25m/%25Y", PLAYS).await;
        assert_eq!(
            (&done["taken"], &done["already_there"]),
            (&json!(taken), &json!(6 - taken))
        );
    }
    let report = clerk
        .get(&format!("/v1/reports/royalties?{MARCH}&model=user_centric"))
        .await;
    let expected = json!({"model": "user_centric", "from": "2019-03-01", "to": "2019-04-01", "currency": "EUR",
        "pool": "43.95", "incomplete": false, "unlabelled": {"seconds": 0, "amount": "0.00"},
        "unallocated": {"users": 1, "amount": "7.19"},
        "rows": [{"label": "=L3", "seconds": 7000, "amount": "13.19"}, {"label": "L1", "seconds": 4000, "amount": "10.98"},
            {"label": "L2", "seconds": 9000, "amount": "12.59"}]});
    assert_eq!(report, expected);
    let csv = format!("/v1/reports/royalties?{MARCH}&model=pro_rata&format=csv");
    let csv = clerk.send("GET", &csv, "text/plain", "").await;
    assert_eq!(csv.header("content-type"), Some("text/csv; charset=utf-8"));
    assert!(
        csv.body.contains("label,'=L3,7000,15.38,EUR\n"),
        "no formula: {}",
        csv.body
    );
    // Nothing is kept that is no longer so.
    clerk
        .import(
            "users?separator=;&decimal_comma=true",
            "user_id;product_type;fee;origin\nE;premium;17,99;web\n",
        )
        .await;
    let report = clerk
        .get(&format!("/v1/reports/royalties?{MARCH}&model=user_centric"))
        .await;
    assert_eq!(report["unallocated"], json!({"users": 1, "amount": "16.19"}));

    for (query, field) in [
        ("from=2019-03-01&to=2019-03-01&model=pro_rata", "to"),
        ("from=2019-02-30&to=2019-03-01&model=pro_rata", "from"),
        ("from=2019-03-01&to=2019-04-01&model=fair", "model"),
        (
            "from=2019-03-01&to=2019-04-01&model=pro_rata&currency=euro",
            "currency",
        ),
        ("from=2019-03-01&to=2019-04-01&model=pro_rata&more=1", "query"),
        ("from=2019-03-01&to=2019-04-01", "query"),
    ] {
        let answer = clerk
            .send("GET", &format!("/v1/reports/royalties?{query}"), "text/plain", "")
            .await;
        let expected = (400, "bad_request".to_owned(), Some(field.to_owned()));
        assert_eq!(answer.refusal(), expected, "{query}");
    }
    let user = clerk.get("/v1/reports/users/B").await;
    assert_eq!((&user["seconds"], &user["plays"]), (&json!(10_000), &json!(2)));
    assert_eq!(user["labels"][0], json!({"name": "L2", "seconds": 8000}));
    assert_eq!(clerk.get("/v1/reports/users/E").await["seconds"], 0);
    assert_eq!(
        clerk
            .refusal("GET", "/v1/reports/users/nobody", &json!(null))
            .await
            .0,
        404
    );
    let audience = clerk.get("/v1/reports/audience?by=region").await;
    let row = |name: &str, plays: u32, users: u32, seconds: u32| json!({"name": name, "plays": plays, "users": users, "seconds": seconds, "measured": 0, "finished": 0, "completion": null});
    let expected = json!([row("NL", 5, 4, 18_000), row("BE", 1, 1, 2000)]);
    assert_eq!((&audience["items"], &audience["total"]), (&expected, &json!(2)));
    for by in ["content", "label", "device_class", "hour"] {
        let audience = clerk.get(&format!("/v1/reports/audience?by={by}&{MARCH}")).await;
        let items = audience["items"].as_array().unwrap();
        assert_eq!(
            items
                .iter()
                .map(|item| item["seconds"].as_i64().unwrap())
                .sum::<i64>(),
            20_000,
            "{by}"
        );
    }
    let future = clerk
        .send(
            "GET",
            "/v1/reports/usage?from=2999-01-01T00:00:00Z",
            "text/plain",
            "",
        )
        .await;
    assert_eq!(future.refusal().2.as_deref(), Some("from"));
    assert_eq!(
        clerk.get("/v1/reports/usage?from=2019-01-01T00:00:00Z").await["seconds"],
        20_000
    );
}

async fn statements_are_frozen(node: &Node) {
    let clerk = Clerk::new(node, "fin", "main", "admin");
    let ask = json!({"from": "2019-03-01", "to": "2019-04-01", "model": "pro_rata"});
    let first = clerk.json("POST", "/v1/reports/statements", &ask).await;
    assert_eq!(first.status, 201, "{first:?}");
    let first = first.json();
    assert_eq!((&first["revision"], first.get("difference")), (&json!(0), None));
    assert_eq!(first["inputs"].as_str().unwrap().len(), 64);
    let again = clerk.json("POST", "/v1/reports/statements", &ask).await;
    assert_eq!((again.status.as_u16(), again.json()), (200, first.clone()));

    let late = json!({"id": "late-1", "user": "D", "content": "t1", "started_at": "2019-03-31T23:59:59Z", "seconds": 5000,
        "region": "nl"});
    let added = clerk.json("POST", "/v1/plays", &late).await;
    assert_eq!(added.status, 201, "{added:?}");
    assert_eq!(
        (&added.json()["region"], &added.json()["recorded_by"]),
        (&json!("NL"), &json!("fin"))
    );
    assert_eq!(
        clerk.refusal("POST", "/v1/plays", &late).await,
        (409, "exists".to_owned())
    );
    let second = clerk.json("POST", "/v1/reports/statements", &ask).await;
    assert_eq!(second.status, 201, "{second:?}");
    let second = second.json();
    assert_eq!(second["revision"], 1);
    let cents = |text: &Value| text.as_str().unwrap().replace('.', "").parse::<i64>().unwrap();
    let difference = second["difference"].as_object().unwrap();
    assert!(
        cents(&difference["L1"]) > 0 && cents(&difference["L2"]) < 0,
        "{difference:?}"
    );
    assert_eq!(
        difference.values().map(cents).sum::<i64>(),
        0,
        "the pool is the same: {difference:?}"
    );
    let kept = clerk
        .get(&format!(
            "/v1/reports/statements/{}",
            first["id"].as_str().unwrap()
        ))
        .await;
    assert_eq!(kept, first, "frozen");
    assert_eq!(clerk.get("/v1/reports/statements").await["total"], 2);

    // A correction, a reversal: rows of their own.
    let fixed = clerk
        .json("PUT", "/v1/plays/late-1", &json!({"seconds": 1000}))
        .await
        .json();
    assert_eq!(
        (&fixed["seconds"], &fixed["counted"]),
        (&json!(5000), &json!(1000))
    );
    let gone = clerk.json("DELETE", "/v1/plays/late-1", &json!(null)).await;
    assert_eq!(gone.status, 204);
    let corrections = clerk
        .get("/v1/plays?corrects=late-1&sort=-seconds&fields=kind,seconds")
        .await;
    let kinds: Vec<_> = corrections["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["seconds"].clone())
        .collect();
    assert_eq!(kinds, [json!(-1000), json!(-4000)]);
    let correction = corrections["items"][0]["id"].as_str().unwrap();
    let path = format!("/v1/plays/{correction}");
    assert_eq!(
        clerk.refusal("PUT", &path, &json!({"seconds": 1})).await,
        (409, "is_correction".to_owned())
    );
    assert_eq!(clerk.get("/v1/plays/late-1").await["counted"], 0);
    // Everything is as before, but for the row that is known to be nothing.
    let report = clerk
        .get(&format!("/v1/reports/royalties?{MARCH}&model=pro_rata"))
        .await;
    assert_eq!(report["rows"], first["report"]["rows"]);

    for (body, field) in [
        (
            json!({"user": "a", "content": "c", "started_at": "2019-03-01T00:00:00Z"}),
            "seconds",
        ),
        (
            json!({"user": "a", "content": "c", "started_at": "yesterday", "seconds": 1}),
            "started_at",
        ),
        (
            json!({"user": "", "content": "c", "started_at": "2019-03-01T00:00:00Z", "seconds": 1}),
            "user",
        ),
        (
            json!({"user": "a", "content": "c", "started_at": "2019-03-01T00:00:00Z", "seconds": -1}),
            "seconds",
        ),
        (
            json!({"user": "a", "content": "c", "started_at": "2019-03-01T00:00:00Z", "seconds": 1.5}),
            "seconds",
        ),
    ] {
        let answer = clerk.json("POST", "/v1/plays", &body).await;
        assert_eq!(answer.refusal().2.as_deref(), Some(field), "{body}");
    }
    let day = json!({"id": "long", "user": "a", "content": "c", "started_at": "2019-05-01T00:00:00Z", "seconds": 300_000});
    assert_eq!(clerk.json("POST", "/v1/plays", &day).await.status, 201);
    let anomalies = clerk.get("/v1/reports/anomalies").await;
    let kinds: Vec<_> = anomalies["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| &item["kind"])
        .collect();
    assert_eq!(kinds.len(), 2, "{anomalies}");
    assert!(
        anomalies["items"].to_string().contains("2019-05-01"),
        "{anomalies}"
    );
    let (_, _, csv) = node
        .raw(&request(
            "GET",
            &format!("/v1/plays/export?{MARCH}"),
            &[("Authorization", &clerk.token), ("Connection", "close")],
        ))
        .await;
    assert_eq!(
        csv.lines().filter(|line| line.contains(",import,")).count(),
        6,
        "{csv}"
    );
    assert!(
        csv.contains("reversal,late-1,D,t1,NL,2019-03-31T23:59:59.000Z,,-1000,"),
        "{csv}"
    );
}

/// Nobody sees or changes what is another tenant's, or without the scope for it.
async fn doors_are_shut(node: &Node) {
    let other = Clerk::new(node, "fin", "other", "finance");
    assert_eq!(other.get("/v1/plays").await["total"], 0);
    assert_eq!(other.get("/v1/reports/statements").await["total"], 0);
    assert_eq!(
        other
            .get(&format!("/v1/reports/royalties?{MARCH}&model=pro_rata"))
            .await["pool"],
        "0.00"
    );
    assert_eq!(other.get("/v1/reports/audience?by=content").await["total"], 0);
    for (method, path) in [
        ("GET", "/v1/plays/late-1"),
        ("PUT", "/v1/plays/late-1"),
        ("DELETE", "/v1/plays/late-1"),
        ("GET", "/v1/reports/users/A"),
    ] {
        let refusal = other.refusal(method, path, &json!({"seconds": 1})).await;
        assert_eq!(refusal, (404, "not_found".to_owned()), "{method} {path}");
    }
    assert_eq!(
        other.refusal("GET", "/v1/plays?tenant=main", &json!(null)).await,
        (403, "tenant_forbidden".to_owned())
    );
    let operator = Clerk::new(node, "op", "other", "operator");
    assert!(
        operator.get("/v1/plays?tenant=main").await["total"]
            .as_i64()
            .unwrap()
            > 6
    );
    for scope in ["watch", "support", "editor"] {
        let clerk = Clerk::new(node, "A", "main", scope);
        for path in [
            "/v1/plays",
            "/v1/plays/late-1",
            "/v1/reports/users/A",
            "/v1/reports/statements",
            "/v1/reports/anomalies",
        ] {
            let refusal = clerk.refusal("GET", path, &json!(null)).await;
            assert_eq!(refusal, (403, "scope_forbidden".to_owned()), "{scope} {path}");
        }
    }
    let nobody = node.ask(&request("GET", "/v1/plays", &[])).await;
    assert_eq!(nobody.refusal().0, 401);
    let clerk = Clerk::new(node, "fin", "main", "finance");
    for query in [
        "page=0",
        "limit=101",
        "sort=color",
        "fields=color",
        "color=red",
        "from=monday",
    ] {
        assert_eq!(
            clerk
                .refusal("GET", &format!("/v1/plays?{query}"), &json!(null))
                .await
                .0,
            400,
            "{query}"
        );
    }
    for (kind, body, expected) in [
        ("text/plain", PLAYS, (415, None)),
        ("application/json", "null", (400, Some("body"))),
        ("application/json", "[{\"date\":1}]", (400, Some("body"))),
    ] {
        let answer = clerk.send("POST", "/v1/plays/imports/plays", kind, body).await;
        let (status, _, field) = answer.refusal();
        assert_eq!((status, field.as_deref()), expected, "{kind} {body}");
    }
    let twice = clerk
        .send("POST", "/v1/plays/imports/plays?columns=a,A", "text/csv", PLAYS)
        .await;
    assert_eq!(twice.refusal().2.as_deref(), Some("columns"));
    assert_eq!(
        clerk
            .refusal("POST", "/v1/plays/imports/songs", &json!(null))
            .await
            .0,
        404
    );
    let wrong = clerk
        .send("POST", "/v1/plays/imports/plays?separator=;", "text/csv", PLAYS)
        .await;
    assert_eq!(wrong.refusal().2.as_deref(), Some("body"));
    for hostile in [
        "/v1/plays?user=%00",
        "/v1/plays/%00",
        "/v1/plays/%ff",
        "/v1/reports/users/%00",
    ] {
        let answer = clerk.send("GET", hostile, "text/plain", "").await;
        assert!(answer.status.as_u16() < 500, "{hostile}: {answer:?}");
    }
}

async fn positions_are_the_accounts_own(node: &Node) {
    for (content, position) in [("m1", 1000), ("m2", 2000), ("m1", 3000)] {
        let mut player = node.watch("ann", &format!("content={content}&device=tv")).await;
        player.next_of("granted").await;
        player
            .say(json!({"type": "heartbeat", "position_ms": position, "state": "playing"}))
            .await;
        player.say(json!({"type": "stop"})).await;
        player.closed().await;
    }
    let ann = Clerk::new(node, "ann", "main", "watch");
    until("positions", async || {
        let found = ann.get("/v1/plays/positions").await;
        let found: Vec<_> = found["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| (item["content"].clone(), item["position_ms"].clone()))
            .collect();
        (found == [(json!("m1"), json!(3000)), (json!("m2"), json!(2000))]).then_some(())
    })
    .await;
    assert_eq!(ann.get("/v1/plays/positions?content=m2").await["total"], 1);
    let bob = Clerk::new(node, "bob", "main", "watch");
    assert_eq!(bob.get("/v1/plays/positions").await["total"], 0);
    let namesake = Clerk::new(node, "ann", "other", "watch");
    assert_eq!(namesake.get("/v1/plays/positions").await["total"], 0);
}

async fn everything(node: &Node) {
    imports_and_reports(node).await;
    statements_are_frozen(node).await;
    doors_are_shut(node).await;
    positions_are_the_accounts_own(node).await;
}

#[tokio::test]
async fn the_ledger_on_sqlite() {
    everything(&Node::start().await).await;
}

#[tokio::test]
async fn the_ledger_on_postgresql() {
    let postgres = Postgres::start().await;
    everything(&Node::with(&format!("[database]\nurl = \"{}\"", postgres.url())).await).await;
}

/// The table divided as docs/ledger.md says: all the same.
#[tokio::test]
async fn the_ledger_on_postgresql_by_month() {
    let postgres = Postgres::start().await;
    let toml = format!("[database]\nurl = \"{}\"", postgres.url());
    drop(Node::with(&toml).await);
    let manual = include_str!("../../docs/ledger.md");
    let (_, text) = manual.split_once("```sql\n").unwrap();
    let (text, _) = text.split_once("```").unwrap();
    postgres.sql("usher", text);
    let march =
        "CREATE TABLE plays_2019_03 PARTITION OF plays FOR VALUES FROM (1551398400000) TO (1554076800000)";
    postgres.sql("usher", march);
    everything(&Node::with(&toml).await).await;
    assert_ne!(
        postgres.sql("usher", "SELECT count(*) FROM plays_2019_03").trim(),
        "0"
    );
    assert_ne!(
        postgres.sql("usher", "SELECT count(*) FROM plays_before").trim(),
        "0"
    );
}

#[tokio::test]
async fn without_the_module_there_is_no_ledger() {
    let node = Node::with("[modules]\nledger = false").await;
    let clerk = Clerk::new(&node, "fin", "main", "finance");
    assert_eq!(clerk.refusal("GET", "/v1/plays", &json!(null)).await.0, 404);
}
