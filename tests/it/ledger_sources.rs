//! Sources of the ledger: JSON, files without names, servers that fail at first, and one reading by whichever node.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::Row;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use usher::db::Db;

use crate::harness::{Node, SOON};
use crate::ledger_http::Clerk;
use crate::ledger_rows;
use crate::postgres::Postgres;
use crate::redis_servers::{Redis, until};
use crate::stage::Place;

/// Tracks without names, as a converter makes them of a file: the first one's fields are the keys.
const SWALLOWED: &str = r#"[{"t1":"t2","One":"Two","L1":"L2"},{"t1":"t3","One":"Three","L1":""}]"#;

/// What a server says that says nothing.
const HANGS: &str = "";

/// A server of a source: says these things, and the last one again and again.
struct Server {
    port: u16,
    says: Arc<Mutex<VecDeque<String>>>,
    heard: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(says: &[String]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let says = Arc::new(Mutex::new(says.iter().cloned().collect::<VecDeque<_>>()));
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (words, heads) = (Arc::clone(&says), Arc::clone(&heard));
        let task = tokio::spawn(async move {
            let mut hanging = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else { break };
                    head.push(byte);
                }
                heads.lock().unwrap().push(String::from_utf8(head).unwrap());
                let word = {
                    let mut words = words.lock().unwrap();
                    if words.len() > 1 {
                        words.pop_front().unwrap()
                    } else {
                        words[0].clone()
                    }
                };
                if word == HANGS {
                    hanging.push(stream);
                    continue;
                }
                let _ = stream.write_all(word.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        Self {
            port,
            says,
            heard,
            task,
        }
    }

    fn says(&self, word: &str) {
        *self.says.lock().unwrap() = VecDeque::from([word.to_owned()]);
    }

    fn asked(&self) -> usize {
        self.heard.lock().unwrap().len()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn status(line: &str) -> String {
    format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n")
}

async fn tracks(rows: &Db) -> Vec<[String; 3]> {
    let sql = "SELECT id, name, label FROM tracks WHERE tenant = 'main' ORDER BY id";
    let rows = rows.fetch_all(sqlx::query(sql)).await.unwrap();
    rows.iter().map(|row| [0, 1, 2].map(|at| row.get(at))).collect()
}

/// A server that is not ready at first is asked again; what it says later changes what it said; what it said once stays when
/// it is gone. Two nodes read it once.
async fn is_read_again_and_again(nodes: &[&Node], server: &Server, rows: &Db) {
    let clerk = Clerk::new(nodes[0], "fin", "main", "finance");
    let three =
        [["t1", "One", "L1"], ["t2", "Two", "L2"], ["t3", "Three", ""]].map(|row| row.map(str::to_owned));
    until("tracks", async || (tracks(rows).await == three).then_some(())).await;
    assert!(server.asked() >= 3, "503 twice, then tracks");
    for head in &*server.heard.lock().unwrap() {
        assert!(
            head.to_lowercase().contains("authorization: bearer hunter\r\n"),
            "{head}"
        );
    }
    let source = until("what came of it", async || {
        let list = clerk.get("/v1/plays/sources").await;
        let source = list["items"][0].clone();
        (!source["read_at"].is_null()).then_some(source)
    })
    .await;
    assert_eq!(
        [
            &source["name"],
            &source["kind"],
            &source["read"],
            &source["rejected"],
            &source["failed"]
        ],
        [
            &json!("names"),
            &json!("tracks"),
            &json!(3),
            &json!(0),
            &Value::Null
        ]
    );
    server.says(&ok(r#"[{"t2":"t3","Two":"Three","L2":"L9"},{"t2":7}]"#));
    until("a new label", async || {
        (tracks(rows).await[2][2] == "L9").then_some(())
    })
    .await;
    let rejected = until("a reject", async || {
        let list = clerk.get("/v1/plays/sources").await;
        (list["items"][0]["rejected"] == 1).then_some(list)
    })
    .await;
    assert_eq!(rejected["total"], 1);
    let file = "data/source-names.rejects.csv";
    assert!(nodes.iter().any(|node| node.dir.join(file).exists()), "{file}");
    server.says(&status("404 Not Found"));
    let failed = until("a failure", async || {
        let list = clerk.get("/v1/plays/sources").await;
        list["items"][0]["failed"].as_str().map(str::to_owned)
    })
    .await;
    assert_eq!(failed, "status 404 Not Found (try 1)", "nothing to try again for");
    assert_eq!(tracks(rows).await.len(), 3, "what it had stays");
    assert!(nodes.iter().all(|node| !node.log().contains("hunter")));
    // One node at a time: a reading every two seconds, however many nodes there are.
    let (begun, before) = (std::time::Instant::now(), server.asked());
    tokio::time::sleep(Duration::from_secs(6)).await;
    let most = usize::try_from(begun.elapsed().as_secs()).unwrap() / 2 + 2;
    let asked = server.asked() - before;
    assert!((1..=most).contains(&asked), "{asked} of {most}");
    // Another tenant's staff see nothing of it.
    let other = Clerk::new(nodes[0], "fin", "other", "finance");
    assert_eq!(other.get("/v1/plays/sources").await["total"], 0);
}

fn settings(server: &Server) -> String {
    format!(
        "[ledger.sources.names]\nkind = \"tracks\"\nfrom = \"http://127.0.0.1:{}/tracks\"\nform = \"json\"\nevery = \"2s\"\n\
         columns = [\"track id\", \"track name\", \"label\"]\nauthorization = \"Bearer hunter\"\n",
        server.port
    )
}

fn unready() -> [String; 3] {
    let later = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n";
    [status("503 Service Unavailable"), later.to_owned(), ok(SWALLOWED)]
}

#[tokio::test]
async fn a_source_is_read_again_and_again_on_sqlite() {
    let server = Server::start(&unready()).await;
    let node = Node::with(&settings(&server)).await;
    let rows = ledger_rows::open(&node.dir.join("data"), "").await;
    is_read_again_and_again(&[&node], &server, &rows).await;
}

#[tokio::test]
async fn a_source_is_read_again_and_again_by_one_of_two_nodes_on_postgresql() {
    let (server, postgres, redis) = (
        Server::start(&unready()).await,
        Postgres::start().await,
        Redis::start(&[]).await,
    );
    let toml = format!(
        "[redis]\nurl = \"{}\"\n[database]\nurl = \"{}\"\n{}",
        redis.url(),
        postgres.url(),
        settings(&server)
    );
    let (one, two) = tokio::join!(Node::with(&toml), Node::with(&toml));
    let rows = ledger_rows::open(Path::new("."), &postgres.url()).await;
    is_read_again_and_again(&[&one, &two], &server, &rows).await;
}

/// A node that leaves hands on what it has not read to its end, whenever it would be due again.
#[tokio::test]
async fn a_source_is_handed_on_by_a_node_that_leaves() {
    let (server, postgres, redis) = (
        Server::start(&[HANGS.to_owned()]).await,
        Postgres::start().await,
        Redis::start(&[]).await,
    );
    let toml = format!(
        "[redis]\nurl = \"{}\"\n[database]\nurl = \"{}\"\n{}",
        redis.url(),
        postgres.url(),
        settings(&server).replace("\"2s\"", "\"1h\"")
    );
    let mut leaves = Node::with(&toml).await;
    until("a question", async || (server.asked() == 1).then_some(())).await;
    let _stays = Node::with(&toml).await;
    server.says(&ok(SWALLOWED));
    leaves.signal("-TERM");
    assert_eq!(leaves.exit_within(SOON * 3).await, Some(0));
    let rows = ledger_rows::open(Path::new("."), &postgres.url()).await;
    until("tracks", async || (tracks(&rows).await.len() == 3).then_some(())).await;
}

/// A file with plays grows, and is read again.
#[tokio::test]
async fn a_file_of_plays_is_kept_in_step_with() {
    let place = Place::new();
    let file = place.path().join("plays.csv");
    place.write(
        "usher.toml",
        &format!(
            "[ledger.sources.plays]\nkind = \"plays\"\nfrom = \"{}\"\nevery = \"1s\"\nseparator = \";\"\ndate_format = \"%d/%m/%Y\"\n",
            file.display()
        ),
    );
    place.write(
        "plays.csv",
        "date;user_id;region;track id;seconds\n01/03/2019;A;NL;t1;60\n",
    );
    let node = place.start().await;
    let rows = ledger_rows::open(&node.dir.join("data"), "").await;
    let sum = async || {
        let row = rows.fetch_one(sqlx::query(
            "SELECT CAST(coalesce(sum(seconds), 0) AS BIGINT) FROM plays",
        ));
        row.await.unwrap().get::<i64, _>(0)
    };
    until("a play", async || (sum().await == 60).then_some(())).await;
    std::fs::write(
        &file,
        "date;user_id;region;track id;seconds\n01/03/2019;B;be;t2;7\n01/03/2019;A;NL;t1;60\n",
    )
    .unwrap();
    until("another play", async || (sum().await == 67).then_some(())).await;
}

#[test]
fn a_wrong_source_is_named_by_its_setting() {
    let tracks = "kind = \"tracks\"\nfrom = \"/tmp/tracks.csv\"\n";
    for (text, problem) in [
        ("kind = \"tracks\"\n", "ledger.sources.s"),
        ("kind = \"songs\"\nfrom = \"/x\"\n", "ledger.sources.s.kind"),
        (
            "kind = \"tracks\"\nfrom = \"tracks.csv\"\n",
            "ledger.sources.s.from",
        ),
        (
            "kind = \"tracks\"\nfrom = \"http://example.com/x\"\n",
            "ledger.sources.s.from",
        ),
        (
            "kind = \"tracks\"\nfrom = \"https://10.0.0.1/x\"\n",
            "ledger.sources.s.from",
        ),
        (
            &format!("{tracks}separator = \"ab\"\n"),
            "ledger.sources.s.separator",
        ),
        (
            &format!("{tracks}date_format = \"%Y\"\n"),
            "ledger.sources.s.date_format",
        ),
        (
            &format!("{tracks}columns = [\"a\", \"A\"]\n"),
            "ledger.sources.s.columns",
        ),
        (&format!("{tracks}tenant = \"a b\"\n"), "ledger.sources.s.tenant"),
        (&format!("{tracks}every = \"0s\"\n"), "ledger.sources.s.every"),
        (&format!("{tracks}evry = \"1s\"\n"), "ledger.sources.s.evry"),
        (
            "kind = \"tracks\"\nfrom = \"https://example.com/\"\nauthorization = \"a\\nb\"\n",
            "ledger.sources.s.authorization",
        ),
        (
            "kind = \"tracks\"\nfrom = \"https://example.com/\"\nca = \"/none.pem\"\n",
            "ledger.sources.s.ca",
        ),
    ] {
        let place = Place::with(&format!("[ledger.sources.s]\n{text}"));
        let ran = place.run(
            &[],
            &["serve", "--config", "usher.toml", "--listen", "127.0.0.1:0"],
        );
        assert_eq!(ran.code, 2, "{text}: {}", ran.stderr);
        assert!(ran.stderr.contains(problem), "{text}: {}", ran.stderr);
    }
}

/// The command takes the same forms, and an address.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_without_names_json_and_addresses() {
    let place = Place::new();
    let import = |arguments: &[&str]| place.run(&[], &[&["import"], arguments].concat());
    let columns = ["--columns", "track id,track name,label"];
    place.write("tracks.csv", "t1,One,L1\nt2,Two,L2\n");
    let ran = import(&[&["tracks", "tracks.csv"], &columns[..]].concat());
    assert_eq!(
        (ran.code, &*ran.stdout),
        (0, "read 2\ntaken 2\nalready there 0\nrejected 0\n"),
        "{}",
        ran.stderr
    );
    place.write("tracks.json", SWALLOWED);
    let without = import(&["tracks", "tracks.json", "--form", "json"]);
    assert_eq!(without.code, 2);
    assert!(
        without.stderr.contains("no track_id, but t1, One, L1"),
        "{}",
        without.stderr
    );
    let ran = import(&[&["tracks", "tracks.json", "--form", "json"], &columns[..]].concat());
    assert_eq!(
        (ran.code, &*ran.stdout),
        (0, "read 3\ntaken 1\nalready there 2\nrejected 0\n"),
        "{}",
        ran.stderr
    );
    place.write(
        "users.json",
        r#"[{"user_id":"A","product_type":"premium","fee":7.99,"origin":"web"},{"user_id":"B","fee":true}]"#,
    );
    let ran = import(&["users", "users.json", "--form", "json"]);
    assert_eq!(
        (ran.code, &*ran.stdout),
        (0, "read 2\ntaken 1\nalready there 0\nrejected 1\n"),
        "{}",
        ran.stderr
    );
    for wrong in ["{", "{}", "[1]", "[[1],"] {
        place.write("wrong.json", wrong);
        assert_eq!(
            import(&["users", "wrong.json", "--form", "json"]).code,
            2,
            "{wrong}"
        );
    }
    let twice = import(&["tracks", "tracks.csv", "--columns", "a,,b"]);
    assert!(
        twice.code == 2 && twice.stderr.contains("empty name"),
        "{}",
        twice.stderr
    );
    let server = Server::start(&[status("502 Bad Gateway"), ok(SWALLOWED)]).await;
    let url = format!("http://127.0.0.1:{}/t", server.port);
    let ran = import(&[&["tracks", &url, "--form", "json"], &columns[..]].concat());
    assert_eq!(
        (ran.code, &*ran.stdout),
        (0, "read 3\ntaken 0\nalready there 3\nrejected 0\n"),
        "{}",
        ran.stderr
    );
    server.says(&status("401 Unauthorized"));
    let ran = import(&["tracks", &url]);
    assert!(
        ran.code == 1 && ran.stderr.contains("status 401"),
        "{}: {}",
        ran.code,
        ran.stderr
    );
    assert_eq!(
        import(&["tracks", "http://example.com/t"]).code,
        2,
        "not in the open"
    );
    let left: Vec<_> = std::fs::read_dir(place.path().join("data"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("upload-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
