//! Bytes of files: ranges, who gets them, that they stop with the lease, and that it is all counted.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use crate::harness::{Node, sign, token};
use crate::library::{
    Lease, Reply, begin, drain, editor, get, head, lease, mp4, send, ticket, token_with, upload,
};
use crate::postgres::Postgres;
use crate::redis_servers::{Redis, until};

/// What the line may still hold when a response is stopped, and what a busy machine adds.
const SLACK: Duration = Duration::from_millis(500);

async fn film(node: &Node, size: usize, fields: &[(&str, &str)]) -> String {
    let file = upload(node, &editor(), fields, "video/mp4", &mp4(size)).await;
    file["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn ranges_and_conditions() {
    let node = Node::start().await;
    let bytes = mp4(1_000_000);
    let id = film(&node, bytes.len(), &[("content", "m1"), ("title", "Caf\u{e9}")]).await;
    let path = format!("/v1/media/{id}.mp4");
    let ticket = ticket(&node, "ann", "m1").await;
    let ask = async |headers: &[(&str, &str)]| get(&node, &path, &ticket, headers).await;
    let whole = ask(&[]).await;
    assert_eq!((whole.status, whole.body == bytes), (200, true));
    let etag = whole.header("etag").to_owned();
    for (name, value) in [
        ("content-type", "video/mp4"),
        ("accept-ranges", "bytes"),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "private, no-cache"),
        ("content-length", "1000000"),
    ] {
        assert_eq!(whole.header(name), value, "{name}");
    }
    assert!(
        whole
            .header("content-disposition")
            .contains("filename*=UTF-8''Caf%C3%A9.mp4")
    );
    for (range, start, end) in [
        ("bytes=0-0", 0, 1),
        ("bytes=-1", 999_999, 1_000_000),
        ("bytes=500000-", 500_000, 1_000_000),
        ("bytes=131071-131073", 131_071, 131_074),
        ("bytes=5-4000000", 5, 1_000_000),
    ] {
        let part = ask(&[("Range", range)]).await;
        assert_eq!(part.status, 206, "{range}");
        assert_eq!(
            part.header("content-range"),
            format!("bytes {start}-{}/1000000", end - 1)
        );
        assert!(part.body == bytes[start..end], "{range}");
    }
    let several = ask(&[("Range", "bytes=0-9,-5,100-199")]).await;
    assert_eq!(several.status, 206);
    let boundary = several
        .header("content-type")
        .strip_prefix("multipart/byteranges; boundary=")
        .unwrap();
    let mut expected = Vec::new();
    for (start, end) in [(0, 10), (999_995, 1_000_000), (100, 200)] {
        let head = format!(
            "\r\n--{boundary}\r\nContent-Type: video/mp4\r\nContent-Range: bytes {start}-{}/1000000\r\n\r\n",
            end - 1
        );
        expected.extend_from_slice(head.as_bytes());
        expected.extend_from_slice(&bytes[start..end]);
    }
    expected.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    assert!(several.body == expected, "{}", several.text());

    for range in ["bytes=1000000-", "bytes=-0", "bytes=0-0,2-2,4-4,6-6,8-8,10-10"] {
        let none = ask(&[("Range", range)]).await;
        assert_eq!(
            none.refusal(),
            (416, "range_not_satisfiable".to_owned()),
            "{range}"
        );
        assert_eq!(none.header("content-range"), "bytes */1000000");
    }
    let thousand: String = (0..1000).map(|at| format!("{at}-{at},")).collect();
    let bomb = ask(&[("Range", &format!("bytes={thousand}"))]).await;
    assert!(bomb.body.len() <= bytes.len(), "{}", bomb.body.len());
    let overlap = ask(&[("Range", "bytes=0-,0-,0-,0-,0-")]).await;
    assert_eq!((overlap.status, overlap.body.len()), (206, bytes.len()));

    assert_eq!(ask(&[("If-None-Match", &etag)]).await.status, 304);
    assert_eq!(ask(&[("If-Match", "\"other\"")]).await.refusal().0, 412);
    let stale = ask(&[("Range", "bytes=0-9"), ("If-Range", "\"other\"")]).await;
    assert_eq!((stale.status, stale.body.len()), (200, bytes.len()));
    let fresh = ask(&[("Range", "bytes=0-9"), ("If-Range", &etag)]).await;
    assert_eq!((fresh.status, fresh.body.len()), (206, 10));
    let bearer = format!("Bearer {ticket}");
    let headers = [("Authorization", &*bearer), ("Range", "bytes=0-9")];
    let only = send(&node, "HEAD", &path, &headers, b"").await;
    assert_eq!(
        (only.status, only.header("content-length"), only.header("etag")),
        (200, "1000000", &*etag)
    );
    let in_query = send(
        &node,
        "GET",
        &format!("{path}?ticket={ticket}"),
        &[("Range", "bytes=0-9")],
        b"",
    )
    .await;
    assert!(in_query.body == bytes[..10]);
    assert!(
        !node.log().contains(&ticket),
        "a ticket in the query is not logged"
    );
}

#[tokio::test]
async fn bytes_are_for_live_leases_of_their_content_and_for_owners() {
    let node = Node::start().await;
    let id = film(&node, 5000, &[("content", "m1"), ("roles", "mentor")]).await;
    let path = format!("/v1/media/{id}");
    let told = async |token: &str| {
        let reply = get(&node, &path, token, &[]).await;
        if reply.status == 200 {
            (200, String::new())
        } else {
            reply.refusal()
        }
    };
    let code = |status, code: &str| (status, code.to_owned());
    let with_role = |account: &str, role: &str| token_with(account, "main", "watch", &[role]);
    let good = lease(&node, &with_role("ann", "mentor"), "m1").await;
    assert_eq!(told(&good.ticket).await, code(200, ""));
    let by_id = lease(&node, &with_role("ann", "mentor"), &id).await;
    assert_eq!(
        told(&by_id.ticket).await,
        code(200, ""),
        "a file is a content by its own id"
    );
    let other = lease(&node, &with_role("bo", "mentor"), "m2").await;
    assert_eq!(told(&other.ticket).await, code(403, "content_forbidden"));
    let mentee = lease(&node, &with_role("cy", "mentee"), "m1").await;
    assert_eq!(told(&mentee.ticket).await, code(403, "role_forbidden"));
    let nobody = lease(&node, &token("di"), "m1").await;
    assert_eq!(told(&nobody.ticket).await, code(403, "role_forbidden"));
    good.end(&node).await;
    assert_eq!(told(&good.ticket).await, code(403, "session_ended"));
    assert_eq!(told(&editor()).await, code(200, ""));
    assert_eq!(
        told(&token_with("boss", "main", "admin", &[])).await,
        code(200, "")
    );
    assert_eq!(
        told(&with_role("ann", "mentor")).await,
        code(403, "ticket_required")
    );
    assert_eq!(told(&token("ann")).await, code(404, "not_found"));
    assert_eq!(told("nonsense").await, code(401, "unauthorized"));
    assert_eq!(send(&node, "GET", &path, &[], b"").await.status, 401);
    let bad = send(&node, "GET", &format!("{path}?ticket=x"), &[], b"").await;
    assert_eq!(bad.refusal(), code(401, "unauthorized"));
    let forged = sign(
        &json!({"aud": "usher-ticket", "sub": "ann", "tenant": "main", "sid": good.session, "content": "m1", "exp": 99_999_999_999_u64}),
    );
    assert_eq!(told(&forged).await.0, 401);
}

/// Reads slowly enough that the end comes in the middle, ends the lease there, and says how long bytes still came.
async fn stops(node: &Node, id: &str, ticket: &str, size: u64, end: impl AsyncFnOnce()) {
    let bearer = format!("Bearer {ticket}");
    let mut stream = begin(
        node,
        "GET",
        &format!("/v1/media/{id}"),
        &[("Authorization", &bearer)],
        b"",
    )
    .await;
    let (status, _) = head(&mut stream).await;
    assert_eq!(status, 200);
    let mut chunk = vec![0; 256 * 1024];
    let (started, mut count) = (Instant::now(), 0);
    // Longer than the lease is asked about: it goes on as long as it lives.
    while started.elapsed() < Duration::from_millis(1600) {
        count += stream.read(&mut chunk).await.unwrap() as u64;
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    assert!(count > 1_000_000 && count < size / 2, "{count}");
    end().await;
    let ended = Instant::now();
    let mut last = ended;
    loop {
        match tokio::time::timeout(Duration::from_secs(5), stream.read(&mut chunk))
            .await
            .expect("an end")
        {
            Ok(0) | Err(_) => break,
            Ok(some) => {
                count += some as u64;
                last = Instant::now();
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(count < size, "the bytes stopped in the middle: {count}");
    let took = last - ended;
    eprintln!("bytes came for {took:?} after the end");
    assert!(took < Duration::from_secs(1) + SLACK, "bytes came for {took:?}");
    let after = get(node, &format!("/v1/media/{id}"), ticket, &[]).await;
    assert_eq!(after.refusal(), (403, "session_ended".to_owned()));
}

const LARGE: usize = 64 * 1024 * 1024;

#[tokio::test]
async fn bytes_stop_in_the_middle_when_an_http_lease_ends() {
    let node = Node::start().await;
    let id = film(&node, LARGE, &[("content", "m1")]).await;
    let lease = lease(&node, &token("ann"), "m1").await;
    stops(&node, &id, &lease.ticket, LARGE as u64, async || {
        lease.end(&node).await;
    })
    .await;
    node.metric_becomes("usher_media_responses_stopped_total", 1.0)
        .await;
    node.metric_becomes("usher_media_responses_open", 0.0).await;
}

#[tokio::test]
async fn bytes_stop_in_the_middle_when_a_socket_ends() {
    let node = Node::start().await;
    let id = film(&node, LARGE, &[("content", "m1")]).await;
    let mut player = node.watch("ann", "content=m1").await;
    let granted = player.next().await;
    let ticket = granted["ticket"]["token"].as_str().unwrap().to_owned();
    stops(&node, &id, &ticket, LARGE as u64, async || {
        player.close(1000).await;
    })
    .await;
}

/// An operator ends the session; and with Redis, bytes that another node sends stop as well.
#[tokio::test]
async fn bytes_of_another_node_stop_too() {
    let redis = Redis::start(&[]).await;
    let server = Postgres::start().await;
    let shared = tempfile();
    let key = shared.join("signing.pem");
    std::fs::write(&key, signing_key()).unwrap();
    let settings = format!(
        "[redis]\nurl = \"{}\"\n[database]\nurl = \"{}\"\n[media]\ndir = \"{}\"\n[auth]\nsigning_key = \"{}\"",
        redis.url(),
        server.url(),
        shared.join("files").display(),
        key.display()
    );
    let (a, b) = tokio::join!(Node::with(&settings), Node::with(&settings));
    let id = film(&a, LARGE, &[("content", "m1")]).await;
    let mut player = a.watch("ann", "content=m1").await;
    let granted = player.next().await;
    let ticket = granted["ticket"]["token"].as_str().unwrap().to_owned();
    let operator = token_with("op", "main", "operator", &[]);
    let path = format!(
        "/v1/admin/accounts/ann/sessions/{}",
        granted["session"].as_str().unwrap()
    );
    stops(&b, &id, &ticket, LARGE as u64, async || {
        let (status, _, body) = a.admin_request("DELETE", &path, Some(&operator), "").await;
        assert!(status.is_success(), "{body}");
    })
    .await;
    std::fs::remove_dir_all(shared).unwrap();
}

fn tempfile() -> std::path::PathBuf {
    crate::redis_servers::directory("media")
}

/// A fresh Ed25519 key.
fn signing_key() -> String {
    let output = std::process::Command::new("openssl")
        .args(["genpkey", "-algorithm", "ed25519"])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

async fn fetch(node: &Node, id: &str, lease: &Lease, nation: &str, range: &str) -> Reply {
    get(
        node,
        &format!("/v1/media/{id}"),
        &lease.ticket,
        &[("X-Nation", nation), ("Range", range)],
    )
    .await
}

async fn stats(node: &Node, query: &str) -> Value {
    let reply = get(node, &format!("/v1/files/stats?{query}"), &editor(), &[]).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

/// Rows of a dimension as text.
fn rows(stats: &Value, by: &str) -> Vec<String> {
    let rows = stats["rows"].as_array().unwrap().iter();
    let mut rows: Vec<_> = rows
        .map(|row| format!("{} {}", row[by].as_str().unwrap(), row["accesses"]))
        .collect();
    rows.sort();
    rows
}

/// Ten accesses: 4 IT/mentor, 3 FR/mentee, 3 IT/mentee.
async fn counts(node: &Node) {
    let id = film(
        node,
        200_000,
        &[
            ("content", "m1"),
            ("language", "it"),
            ("category", "drama"),
            ("provider", "acme"),
        ],
    )
    .await;
    let viewers = [("IT", "mentor", 4), ("FR", "mentee", 3), ("IT", "mentee", 3)];
    let mut number = 0;
    for (nation, role, count) in viewers {
        for _ in 0..count {
            number += 1;
            let token = token_with(&format!("viewer-{number}"), "main", "watch", &[role]);
            let lease = lease(node, &token, "m1").await;
            // Several requests are one access.
            for range in ["bytes=0-99999", "bytes=100000-149999"] {
                assert_eq!(fetch(node, &id, &lease, nation, range).await.status, 206);
            }
            if role == "mentor" {
                assert_eq!(
                    fetch(node, &id, &lease, nation, "bytes=150000-").await.status,
                    206
                );
            }
            if number == 1 {
                until("an open access", || async {
                    (stats(node, "").await["open"] == 1).then_some(())
                })
                .await;
                assert_eq!(stats(node, "").await["total"]["accesses"], 0);
            }
            lease.end(node).await;
        }
    }
    let all = until("ten closed accesses", || async {
        let stats = stats(node, "by=nation,role").await;
        (stats["total"]["accesses"] == 10).then_some(stats)
    })
    .await;
    assert_eq!((&all["open"], &all["total"]["unique"]), (&json!(0), &json!(10)));
    assert_eq!(
        (&all["total"]["completed"], &all["completion_rate"]),
        (&json!(4), &json!(0.4))
    );
    assert_eq!(all["total"]["bytes"], 4 * 200_000 + 6 * 150_000);
    assert_eq!(rows(&stats(node, "by=nation").await, "nation"), ["FR 3", "IT 7"]);
    assert_eq!(
        rows(&stats(node, "by=role").await, "role"),
        ["mentee 6", "mentor 4"]
    );
    let dimensions = [
        "nation", "company", "language", "role", "category", "month", "kind",
    ];
    for one in dimensions {
        for other in dimensions {
            // One alone, or two.
            let by = if one == other {
                one.to_owned()
            } else {
                format!("{one},{other}")
            };
            let stats = stats(node, &format!("by={by}")).await;
            let sum: u64 = stats["rows"]
                .as_array()
                .unwrap()
                .iter()
                .map(|row| row["accesses"].as_u64().unwrap())
                .sum();
            assert_eq!(sum, 10, "{by}");
        }
    }
    let used = &all["most_used"][0];
    assert_eq!(
        (&used["file"], &used["accesses"], &used["title"]),
        (&json!(id), &json!(10), &json!("film"))
    );
    let month = &all["months"][0];
    assert_eq!((&month["uploads"], &month["accesses"]), (&json!(1), &json!(10)));
    assert_eq!(all["files"], json!({"count": 1, "bytes": 200_000}));
    let listed = get(node, "/v1/files/accesses?limit=100", &editor(), &[])
        .await
        .json();
    assert_eq!(listed["total"], 10);
    let access = &listed["items"][0];
    assert_eq!(
        (&access["provider"], &access["kind"], &access["file"]),
        (&json!("acme"), &json!("play"), &json!(id))
    );
    assert!(access["closed_at"].as_str().unwrap() >= access["opened_at"].as_str().unwrap());
    // A download by its owner is one more, of its own kind.
    get(node, &format!("/v1/files/{id}/download"), &editor(), &[]).await;
    until("a download", || async {
        (rows(&stats(node, "by=kind").await, "kind") == ["download 1", "play 10"]).then_some(())
    })
    .await;
    for bad in [
        "by=account",
        "by=nation,role,month",
        "by=role,role",
        "from=2026",
        "x=1",
    ] {
        assert_eq!(
            get(node, &format!("/v1/files/stats?{bad}"), &editor(), &[])
                .await
                .status,
            400,
            "{bad}"
        );
    }
    assert_eq!(
        get(node, "/v1/files/stats", &token("viewer"), &[]).await.status,
        403
    );
    assert_eq!(
        stats(node, "from=1999-01&to=1999-12").await["total"]["accesses"],
        0
    );
}

const NATION: &str = "[media.statistics]\nnation_header = \"X-Nation\"\n";

#[tokio::test]
async fn accesses_are_counted_and_add_up_on_sqlite() {
    counts(&Node::with(NATION).await).await;
}

#[tokio::test]
async fn accesses_are_counted_and_add_up_on_postgresql() {
    let server = Postgres::start().await;
    counts(&Node::with(&format!("{NATION}[database]\nurl = \"{}\"", server.url())).await).await;
}

/// With a floor nobody is told apart who would be known by it.
#[tokio::test]
async fn small_groups_are_not_told_apart() {
    let node = Node::with(&format!("{NATION}floor = 2")).await;
    let id = film(&node, 5000, &[("content", "m1")]).await;
    for (account, nation) in [("a", "IT"), ("b", "IT"), ("c", "FR"), ("d", "ES"), ("e", "ES")] {
        let lease = lease(&node, &token(account), "m1").await;
        fetch(&node, &id, &lease, nation, "bytes=0-").await;
        lease.end(&node).await;
    }
    let all = until("five accesses", || async {
        let stats = stats(&node, "by=nation").await;
        (stats["total"]["accesses"] == 5).then_some(stats)
    })
    .await;
    let rows = rows(&all, "nation");
    assert!(
        rows == ["IT 2", "other 3"] || rows == ["ES 2", "other 3"],
        "{rows:?}"
    );
    let support = token_with("s", "main", "support", &[]);
    assert_eq!(get(&node, "/v1/files/accesses", &support, &[]).await.status, 403);
}

/// A viewer that reads nothing holds no more than its own connection, which ends; nobody waits for it.
#[tokio::test]
async fn a_viewer_that_reads_nothing_is_let_go_with_its_lease() {
    let node = Node::start().await;
    let id = film(&node, LARGE, &[("content", "m1")]).await;
    let lease = lease(&node, &token("ann"), "m1").await;
    let bearer = format!("Bearer {}", lease.ticket);
    let mut stream = begin(
        &node,
        "GET",
        &format!("/v1/media/{id}"),
        &[("Authorization", &bearer)],
        b"",
    )
    .await;
    node.metric_becomes("usher_media_responses_open", 1.0).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    lease.end(&node).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (count, _) = drain(&mut stream).await;
    assert!(count < LARGE as u64, "{count}");
    node.metric_becomes("usher_media_responses_open", 0.0).await;
    assert!(Path::new(&node.dir).exists());
}
