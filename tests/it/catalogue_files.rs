//! Catalogues as files: what is exported comes back as it was, what is wrong is told line by line, and demo contents.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::catalogue::{PLAIN, call, create, editor, film, on_postgres, with};
use crate::harness::{Node, SOON};
use crate::stage::{Answer, Place, answer_within, request};

const CSV: &str = "text/csv; charset=utf-8";
/// What ten thousand lines may take on a busy machine.
const LONG: Duration = Duration::from_secs(60);

const LINES: &str = "application/x-ndjson";

/// Contents of every kind that a file must carry: 10,000 plain ones, and ugly ones.
fn catalogue() -> Vec<Value> {
    let texts = [
        "=1+1",
        "'=1+1",
        "''=x",
        "'",
        "+49",
        "-",
        "@SUM(A1)",
        "\ttab",
        "a\r\nb",
        "\"quoted\"",
        "comma, semicolon;",
        " spaces ",
        "null",
        "0",
        "日本語 🎬",
        "\u{FEFF}mark",
        "\\N",
        "x\n\n\ny",
        "\u{202E}reversed",
    ];
    let ugly = texts.iter().enumerate().map(|(at, text)| {
        let one_line: String = text.chars().filter(|one| !one.is_control()).collect();
        let name = if one_line.trim().is_empty() { "-".to_owned() } else { one_line.clone() };
        let words = one_line.replace(';', "");
        let tags: Vec<_> = [words.as_str(), "=tag"].into_iter().filter(|tag| !tag.is_empty()).collect();
        with(
            film(&format!("ugly {at} {one_line}")),
            &json!({
                "name": name, "description": text, "label": one_line, "tags": tags, "plans": tags, "duration_ms": at,
                "metadata": {"text": text, "n": [0, -1, 1.5, 1e300, 18_446_744_073_709_551_615_u64, true, null]},
            }),
        )
    });
    let plain = (0..10_000).map(|at| {
        with(
            film(&format!("id-{at:05}")),
            &json!({"label": format!("L{}", at % 7)}),
        )
    });
    let ids = ["-1", "=x", "'", "A", "a", "é", "%2F", "\"", ","]
        .into_iter()
        .map(film);
    plain.chain(ugly).chain(ids).collect()
}

async fn import(node: &Node, tenant: &str, kind: &str, body: &str) -> Answer {
    let (bearer, length) = (format!("Bearer {}", editor(tenant)), body.len().to_string());
    let headers = [
        ("Authorization", &*bearer),
        ("Content-Type", kind),
        ("Content-Length", &length),
    ];
    let asked = request("POST", "/v1/content/import", &headers) + body;
    let mut stream = node.connect().await;
    // Whoever refuses does not read on.
    let _ = stream.write_all(asked.as_bytes()).await;
    let _ = stream.flush().await;
    answer_within(LONG, &mut stream).await
}

/// The exported file.
async fn export(node: &Node, tenant: &str, format: &str) -> String {
    let bearer = format!("Bearer {}", editor(tenant));
    let headers = [("Authorization", &*bearer), ("Connection", "close")];
    let asked = request("GET", &format!("/v1/content/export?format={format}"), &headers);
    let mut stream = node.connect().await;
    stream.write_all(asked.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    tokio::time::timeout(LONG, read)
        .await
        .expect("an export in time")
        .unwrap();
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let (head, body) = (
        String::from_utf8_lossy(&answer[..head]).to_lowercase(),
        &answer[head + 4..],
    );
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(head.contains(&format!("filename=\"content.{format}\"")), "{head}");
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    String::from_utf8(dechunked(body)).unwrap()
}

/// A chunked body that is whole: its last chunk is there.
fn dechunked(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let end = body.windows(2).position(|two| two == b"\r\n").expect("a chunk");
        let size = usize::from_str_radix(str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        body = &body[end + 2..];
        if size == 0 {
            return whole;
        }
        whole.extend_from_slice(&body[..size]);
        body = &body[size + 2..];
    }
}

fn counts(answer: &Answer) -> (u64, u64, u64) {
    assert_eq!(answer.status, 200, "{answer:?}");
    let report = answer.json();
    let count = |name: &str| report[name].as_u64().unwrap();
    (count("read"), count("taken"), count("rejected"))
}

/// Out and in again, as CSV and as JSON lines, is the same to the byte; twice is as once.
async fn round_trip(node: &Node) {
    let contents = catalogue();
    let total = contents.len() as u64;
    let lines: String = contents.iter().map(|content| format!("{content}\n")).collect();
    let taken = import(node, "a", LINES, &lines).await;
    assert_eq!(counts(&taken), (total, total, 0), "{}", taken.body);
    let (csv, jsonl) = (export(node, "a", "csv").await, export(node, "a", "jsonl").await);
    assert_eq!(jsonl.lines().count() as u64, total);
    let mut exported: Vec<Value> = jsonl
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let mut wanted = contents.clone();
    let id = |content: &Value| content["id"].as_str().unwrap().to_owned();
    exported.sort_by_key(id);
    wanted.sort_by_key(id);
    for (found, wanted) in exported.iter().zip(&wanted) {
        for (name, value) in wanted.as_object().unwrap() {
            assert_eq!(&found[name], value, "{name} of {wanted}");
        }
    }
    for formula in csv.lines().skip(1).flat_map(|line| line.split(',')) {
        assert!(!formula.starts_with(['=', '+', '@']), "{formula}");
    }
    for _ in 0..2 {
        assert_eq!(counts(&import(node, "b", CSV, &csv).await), (total, total, 0));
    }
    assert_eq!(export(node, "b", "jsonl").await, jsonl);
    assert_eq!(counts(&import(node, "c", LINES, &jsonl).await), (total, total, 0));
    assert_eq!(export(node, "c", "csv").await, csv);
    assert_eq!(counts(&import(node, "a", LINES, &jsonl).await), (total, total, 0));
    assert_eq!(export(node, "a", "csv").await, csv);
    let listed = call(node, "GET", "/v1/content?limit=1", &editor("a"), &Value::Null).await;
    assert_eq!(listed.json()["total"], total);
}

/// What is wrong with a line is told, with its number, and the others are taken.
async fn rejects(node: &Node) {
    create(node, "d", &with(film("there"), &json!({"label": "old"}))).await;
    let file = "id,extra,name,type,source,tags,duration_ms,metadata\n\
                ok,x,\"two\nlines\",vod,https://x/y,a;b,7,\"{\"\"a\"\":1}\"\n\
                there,x,New,livestream,https://x/y,,,\n\
                ,x,no id,vod,https://x/y,,,\n\
                short,x\n\
                bad,x,n,radio,https://x/y,,,\n\
                late,x,n,vod,https://x/y,,soon,\n\
                meta,x,n,vod,https://x/y,,,[1\n\
                twice,x,first,vod,https://x/y,,,\r\n\
                twice,x,second,vod,https://x/y,,,\r\n\
                \"open,x,n,vod,https://x/y,,,\n";
    let answer = import(node, "d", CSV, file).await;
    assert_eq!(counts(&answer), (10, 3, 7), "{}", answer.body);
    let rejects = answer.json()["rejects"].clone();
    let told: Vec<_> = rejects
        .as_array()
        .unwrap()
        .iter()
        .map(|reject| {
            (
                reject["line"].as_u64().unwrap(),
                reject["field"].as_str().unwrap(),
            )
        })
        .collect();
    // The name of `ok` has a line feed.
    let wanted = [
        (2, "name"),
        (5, "id"),
        (6, "line"),
        (7, "type"),
        (8, "duration_ms"),
        (9, "metadata"),
        (12, "line"),
    ];
    assert_eq!(told, wanted, "{rejects}");
    let get = async |id: &str| {
        call(
            node,
            "GET",
            &format!("/v1/content/{id}"),
            &editor("d"),
            &Value::Null,
        )
        .await
        .json()
    };
    let there = get("there").await;
    assert_eq!((&there["name"], &there["label"]), (&json!("New"), &Value::Null));
    assert_eq!(get("twice").await["name"], "second");

    let lines = "{\"id\":\"a\"}\n\nnot json\n{\"id\":\"b\",\"name\":\"n\",\"type\":\"vod\",\"source\":\"https://x/y\"}\n";
    let answer = import(node, "d", LINES, &format!("{lines}{}\n", "x".repeat(100_000))).await;
    assert_eq!(counts(&answer), (4, 1, 3), "{}", answer.body);
    let mut many = String::from("id,name\n");
    for at in 0..1500 {
        writeln!(many, "{at},").unwrap();
    }
    let answer = import(node, "d", CSV, &many).await;
    assert_eq!(counts(&answer), (1500, 0, 1500));
    assert_eq!(answer.json()["rejects"].as_array().unwrap().len(), 1000);

    for (kind, body, status, field) in [
        (CSV, "", 400, Some("header")),
        (CSV, "name,type\n", 400, Some("header")),
        (CSV, "id,id\n", 400, Some("header")),
        ("application/json", "{}", 415, None),
    ] {
        let (found, _, named) = import(node, "d", kind, body).await.refusal();
        assert_eq!((found, named.as_deref()), (status, field), "{kind} {body:?}");
    }
    assert_eq!(counts(&import(node, "d", LINES, " ").await), (0, 0, 0));
}

#[tokio::test]
async fn files_on_sqlite() {
    let node = Node::with(PLAIN).await;
    round_trip(&node).await;
    rejects(&node).await;
}

#[tokio::test]
async fn files_on_postgresql() {
    let (node, _server) = on_postgres(PLAIN).await;
    round_trip(&node).await;
    rejects(&node).await;
}

/// Too large by its length, and too large as it comes: what was taken until then stays, and is told.
#[tokio::test]
async fn an_import_is_bounded() {
    let node = Node::with(&format!("{PLAIN}import_max_bytes = 50000\ntransfers = 1\n")).await;
    let lines: String = (0..1000)
        .map(|at| format!("{}\n", film(&format!("{at}"))))
        .collect();
    assert!(lines.len() > 50_000);
    let answer = import(&node, "a", LINES, &lines).await;
    assert_eq!(answer.refusal(), (413, "body_too_large".to_owned(), None));
    assert_eq!(answer.json()["read"], Value::Null);
    let bearer = format!("Bearer {}", editor("a"));
    let headers = [
        ("Authorization", &*bearer),
        ("Content-Type", LINES),
        ("Transfer-Encoding", "chunked"),
    ];
    let pieces = lines.as_bytes().chunks(4000);
    let pieces: String = pieces
        .map(|piece| format!("{:x}\r\n{}\r\n", piece.len(), str::from_utf8(piece).unwrap()))
        .collect();
    let answer = node
        .ask(&(request("POST", "/v1/content/import", &headers) + &pieces + "0\r\n\r\n"))
        .await;
    assert_eq!(answer.status, 413, "{answer:?}");
    let taken = answer.json()["taken"].as_u64().unwrap();
    assert!(taken >= 100, "{answer:?}");
    let listed = call(&node, "GET", "/v1/content", &editor("a"), &Value::Null).await;
    assert_eq!(listed.json()["total"], taken);
    assert_eq!(
        counts(&import(&node, "a", LINES, "").await),
        (0, 0, 0),
        "its turn is over"
    );
}

/// Demo contents are made once: neither a restart nor a second node brings back what was taken out.
#[tokio::test]
async fn demo_contents_do_not_come_back() {
    let place = Place::new();
    let dir = place.path().to_owned();
    let mut node = place.start().await;
    let all = async |node: &Node| {
        let answer = call(node, "GET", "/v1/content", &editor("main"), &Value::Null).await;
        answer.json()["total"].as_u64().unwrap()
    };
    node.logs(&["demo contents", "made=3"]).await;
    assert_eq!(all(&node).await, 3);
    assert_eq!(
        call(
            &node,
            "DELETE",
            "/v1/content/demo-film",
            &editor("main"),
            &Value::Null
        )
        .await
        .status,
        204
    );
    let kept = with(film("demo"), &json!({"name": "Mine"}));
    assert_eq!(
        call(&node, "PUT", "/v1/content/demo", &editor("main"), &kept)
            .await
            .status,
        200
    );
    assert_eq!(
        node.command(&["content", "demo", "remove"]).unwrap(),
        "1 removed\n"
    );
    assert_eq!(all(&node).await, 1, "an editor's own stays");
    let terms = call(
        &node,
        "GET",
        "/v1/content/categories",
        &editor("main"),
        &Value::Null,
    )
    .await;
    assert_eq!(terms.json()["total"], 0);
    node.signal("-TERM");
    node.exit_within(SOON).await;
    let again = usher_again(&dir).await;
    assert_eq!(all(&again).await, 1);
    assert_eq!(again.command(&["content", "demo", "add"]).unwrap(), "2 added\n");
    assert_eq!(all(&again).await, 3);
    assert_eq!(
        again.command(&["content", "demo", "remove"]).unwrap(),
        "2 removed\n"
    );
    drop(again);
    drop(node);
}

/// Another gateway in the directory of one that ended.
async fn usher_again(dir: &std::path::Path) -> Node {
    let place = Place::new();
    for entry in ["data", "certs"] {
        let copied = std::process::Command::new("cp")
            .arg("-r")
            .args([dir.join(entry), place.path().join(entry)])
            .status();
        assert!(copied.unwrap().success());
    }
    place.start().await
}
