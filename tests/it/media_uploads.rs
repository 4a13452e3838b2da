//! Resumable uploads (tus), the scanner, and files in an object store.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::harness::{Node, eventually, token};
use crate::library::{Reply, begin, call, cut, editor, get, head, mp4, ticket, token_with, upload};
use crate::postgres::Postgres;
use crate::redis_servers::{free_port, until};

const TUS: (&str, &str) = ("Tus-Resumable", "1.0.0");
const OCTETS: (&str, &str) = ("Content-Type", "application/offset+octet-stream");

fn metadata(kind: &str) -> String {
    let pair = |key: &str, value: &str| format!("{key} {}", STANDARD.encode(value));
    [
        pair("filetype", kind),
        pair("filename", "film.mp4"),
        pair("content", "m1"),
    ]
    .join(",")
}

async fn create(node: &Node, length: usize, kind: &str) -> Reply {
    let (length, metadata) = (length.to_string(), metadata(kind));
    let headers = [TUS, ("Upload-Length", &*length), ("Upload-Metadata", &*metadata)];
    call(node, "POST", "/v1/files/uploads", &editor(), &headers, b"").await
}

async fn announced(node: &Node, length: usize) -> String {
    let reply = create(node, length, "video/mp4").await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    assert_eq!(
        (reply.header("upload-offset"), reply.header("tus-resumable")),
        ("0", "1.0.0")
    );
    assert!(!reply.header("upload-expires").is_empty());
    reply.header("location").to_owned()
}

async fn patch(node: &Node, path: &str, offset: usize, more: &[(&str, &str)], bytes: &[u8]) -> Reply {
    let offset = offset.to_string();
    let headers = [&[TUS, OCTETS, ("Upload-Offset", &*offset)], more].concat();
    call(node, "PATCH", path, &editor(), &headers, bytes).await
}

async fn offset(node: &Node, path: &str) -> Reply {
    call(node, "HEAD", path, &editor(), &[TUS], b"").await
}

/// The steps of an upload that is resumed, on either database.
async fn resumes(node: &Node) {
    let bytes = mp4(20_000_000);
    let path = announced(node, bytes.len()).await;
    assert_eq!(
        patch(node, &path, 0, &[], &bytes[..1000])
            .await
            .header("upload-offset"),
        "1000"
    );
    assert_eq!(
        patch(node, &path, 0, &[], &bytes[..1000]).await.refusal(),
        (409, "offset_mismatch".to_owned())
    );
    // The connection breaks in the middle: what came is kept.
    let (bearer, length) = (format!("Bearer {}", editor()), (bytes.len() - 1000).to_string());
    let headers = [
        ("Authorization", &*bearer),
        TUS,
        OCTETS,
        ("Upload-Offset", "1000"),
        ("Content-Length", &*length),
    ];
    let stream = begin(node, "PATCH", &path, &headers, &bytes[1000..12_000_000]).await;
    until("a piece", || async {
        let at: usize = offset(node, &path).await.header("upload-offset").parse().unwrap();
        (at > 8_000_000).then_some(())
    })
    .await;
    assert_eq!(
        patch(node, &path, 1000, &[], b"x").await.status,
        423,
        "one at a time"
    );
    cut(stream).await;
    let at = until("what came is counted", || async {
        let reply = offset(node, &path).await;
        let at: usize = reply.header("upload-offset").parse().unwrap();
        (at > 11_000_000).then_some(at)
    })
    .await;
    assert_eq!(
        get(node, "/v1/files", &editor(), &[]).await.json()["total"],
        0,
        "nothing is seen before it is whole"
    );
    let rest = until("the upload is free", || async {
        let rest = patch(node, &path, at, &[], &bytes[at..]).await;
        (rest.status != 423).then_some(rest)
    })
    .await;
    assert_eq!(
        (rest.status, rest.header("upload-offset")),
        (204, "20000000"),
        "{}",
        rest.text()
    );
    let id = rest.header("usher-file").to_owned();
    assert_eq!(offset(node, &path).await.header("usher-file"), id);
    let file = get(node, &format!("/v1/files/{id}"), &editor(), &[]).await.json();
    assert_eq!(
        (file["title"].as_str(), file["content"].as_str()),
        (Some("film.mp4"), Some("m1"))
    );
    let played = get(
        node,
        &format!("/v1/media/{id}"),
        &ticket(node, "ann", "m1").await,
        &[],
    )
    .await;
    assert!(played.body == bytes);

    // Given up: gone, with all that came.
    let path = announced(node, 5000).await;
    patch(node, &path, 0, &[], &bytes[..100]).await;
    assert_eq!(
        call(node, "DELETE", &path, &editor(), &[TUS], b"").await.status,
        204
    );
    assert_eq!(offset(node, &path).await.status, 404);
    // What it turns out to be is judged at the end.
    let path = announced(node, 5000).await;
    let png = [b"\x89PNG\r\n\x1a\n".as_slice(), &[0; 4992]].concat();
    assert_eq!(
        patch(node, &path, 0, &[], &png).await.refusal(),
        (415, "type_mismatch".to_owned())
    );
    assert_eq!(offset(node, &path).await.status, 404);
    assert_eq!(get(node, "/v1/files", &editor(), &[]).await.json()["total"], 1);
}

#[tokio::test]
async fn an_upload_is_resumed_where_it_broke_on_sqlite() {
    resumes(&Node::start().await).await;
}

#[tokio::test]
async fn an_upload_is_resumed_where_it_broke_on_postgresql() {
    let server = Postgres::start().await;
    resumes(&Node::with(&format!("[database]\nurl = \"{}\"", server.url())).await).await;
}

#[tokio::test]
async fn the_protocol_is_spoken_as_it_is_written() {
    let node = Node::with("[media]\nmax_bytes = 10000\npartial_life = \"2s\"").await;
    let reply = call(&node, "OPTIONS", "/v1/files/uploads", &editor(), &[], b"").await;
    assert_eq!(
        (
            reply.status,
            reply.header("tus-version"),
            reply.header("tus-max-size")
        ),
        (204, "1.0.0", "10000")
    );
    assert_eq!(
        reply.header("tus-extension"),
        "creation,expiration,checksum,termination"
    );
    assert_eq!(create(&node, 10_001, "video/mp4").await.refusal().0, 413);
    assert_eq!(create(&node, 3, "video/mp4").await.refusal().0, 400);
    assert_eq!(create(&node, 1000, "text/html").await.refusal().0, 415);
    let old = call(
        &node,
        "POST",
        "/v1/files/uploads",
        &editor(),
        &[("Upload-Length", "10")],
        b"",
    )
    .await;
    assert_eq!((old.status, old.header("tus-version")), (412, "1.0.0"));

    let path = announced(&node, 1000).await;
    let bytes = mp4(1000);
    let plain = call(
        &node,
        "PATCH",
        &path,
        &editor(),
        &[TUS, ("Upload-Offset", "0"), ("Content-Type", "text/plain")],
        b"x",
    )
    .await;
    assert_eq!(plain.status, 415);
    let wrong = format!("sha1 {}", STANDARD.encode([0; 20]));
    let reply = patch(&node, &path, 0, &[("Upload-Checksum", &wrong)], &bytes[..500]).await;
    assert_eq!(reply.refusal(), (460, "checksum_mismatch".to_owned()));
    assert_eq!(
        offset(&node, &path).await.header("upload-offset"),
        "0",
        "nothing of it is kept"
    );
    let sum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes[..500]);
    let right = format!("sha256 {}", STANDARD.encode(sum.as_ref()));
    let unheard = patch(&node, &path, 0, &[("Upload-Checksum", "md5 AAAA")], &bytes[..500]).await;
    assert_eq!(unheard.status, 400);
    assert_eq!(
        patch(&node, &path, 0, &[("Upload-Checksum", &right)], &bytes[..500])
            .await
            .status,
        204
    );
    let much = patch(&node, &path, 500, &[], &mp4(501)).await;
    assert_eq!(much.refusal(), (413, "upload_too_long".to_owned()));
    // Somebody else's upload is nowhere.
    let other = token_with("other", "main", "editor", &[]);
    assert_eq!(call(&node, "HEAD", &path, &other, &[TUS], b"").await.status, 404);
    assert_eq!(
        call(&node, "HEAD", &path, &token("viewer"), &[TUS], b"")
            .await
            .status,
        403
    );
    let headers = [
        TUS,
        OCTETS,
        ("Upload-Offset", "500"),
        ("X-HTTP-Method-Override", "PATCH"),
    ];
    let last = call(&node, "POST", &path, &editor(), &headers, &bytes[500..]).await;
    assert_eq!(
        (last.status, last.header("upload-offset")),
        (204, "1000"),
        "{}",
        last.text()
    );

    // One that nobody goes on with is gone, with its bytes and what it counted.
    let path = announced(&node, 1000).await;
    patch(&node, &path, 0, &[], &bytes[..10]).await;
    let dir = node.dir.join("data/media");
    let objects = || -> usize {
        std::fs::read_dir(&dir)
            .unwrap()
            .map(|shelf| std::fs::read_dir(shelf.unwrap().path()).unwrap().count())
            .sum()
    };
    assert_eq!(objects(), 2);
    eventually("what is left of it is removed", || (objects() == 1).then_some(())).await;
    assert_eq!(offset(&node, &path).await.status, 404);
}

/// The client that people use, from npm: cut at half, it resumes.
#[tokio::test]
async fn tus_js_client_resumes() {
    let place = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/npm-tus");
    if !place.join("node_modules/tus-js-client").exists() {
        std::fs::create_dir_all(&place).unwrap();
        let installed = Command::new("npm")
            .args(["install", "--no-audit", "--no-fund", "--silent", "--prefix"])
            .arg(&place)
            .arg("tus-js-client@4")
            .status();
        assert!(installed.unwrap().success(), "npm installs tus-js-client");
    }
    let node = Node::start().await;
    let output = tokio::process::Command::new("node")
        .arg(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tus.mjs"))
        .arg(place.join("node_modules/tus-js-client"))
        .arg(format!(
            "https://localhost:{}/v1/files/uploads",
            node.players.port()
        ))
        .env("USHER_TOKEN", editor())
        .env("NODE_EXTRA_CA_CERTS", node.dir.join("certs/ca.pem"))
        .output()
        .await
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{told}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let [cut_at, resumed_at, sha256] = told.split_whitespace().collect::<Vec<_>>()[..] else {
        panic!("{told}");
    };
    assert!(
        cut_at.parse::<u64>().unwrap() > 0 && resumed_at.parse::<u64>().unwrap() > 0,
        "{told}"
    );
    let file = get(&node, "/v1/files", &editor(), &[]).await.json()["items"][0].clone();
    assert_eq!(
        (file["sha256"].as_str(), file["title"].as_str()),
        (Some(sha256), Some("film.mp4"))
    );
}

/// Speaks clamd's INSTREAM: the EICAR test file is infected, everything else is clean.
struct Clamd {
    port: u16,
    away: Arc<AtomicBool>,
}

impl Clamd {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let away = Arc::new(AtomicBool::new(false));
        let gone = Arc::clone(&away);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                if gone.load(Ordering::Relaxed) {
                    continue;
                }
                tokio::spawn(async move {
                    let mut command = [0; 10];
                    stream.read_exact(&mut command).await.unwrap();
                    assert_eq!(&command, b"zINSTREAM\0");
                    let mut bytes = Vec::new();
                    loop {
                        let length = stream.read_u32().await.unwrap() as usize;
                        if length == 0 {
                            break;
                        }
                        let at = bytes.len();
                        bytes.resize(at + length, 0);
                        stream.read_exact(&mut bytes[at..]).await.unwrap();
                    }
                    let infected = bytes.windows(20).any(|window| window == b"EICAR-STANDARD-ANTIV");
                    let answer: &[u8] = if infected {
                        b"stream: Eicar-Test FOUND\0"
                    } else {
                        b"stream: OK\0"
                    };
                    stream.write_all(answer).await.unwrap();
                });
            }
        });
        Self { port, away }
    }
}

#[tokio::test]
async fn what_is_not_judged_or_infected_is_not_played() {
    let clamd = Clamd::start().await;
    clamd.away.store(true, Ordering::Relaxed);
    let node = Node::with(&format!(
        "[media.scan]\nclamd = \"127.0.0.1:{}\"\nretry = \"200ms\"",
        clamd.port
    ))
    .await;
    let clean = upload(&node, &editor(), &[("content", "m1")], "video/mp4", &mp4(500_000)).await;
    // Put together here, so that no scanner finds it in the source.
    let eicar = [
        "X5O!P%@AP[4\\PZX54(P^)7CC)7}$",
        "EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*",
    ]
    .concat();
    let infected = upload(
        &node,
        &editor(),
        &[("content", "m1")],
        "text/plain",
        eicar.as_bytes(),
    )
    .await;
    let ticket = ticket(&node, "ann", "m1").await;
    let id = |file: &serde_json::Value| file["id"].as_str().unwrap().to_owned();
    let told = async |file: &serde_json::Value, token: &str| {
        let reply = get(&node, &format!("/v1/media/{}", id(file)), token, &[]).await;
        if reply.status == 200 {
            "played".to_owned()
        } else {
            reply.refusal().1
        }
    };
    let state = async |file: &serde_json::Value| {
        get(&node, &format!("/v1/files/{}", id(file)), &editor(), &[])
            .await
            .json()["state"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(
        (clean["state"].as_str(), infected["state"].as_str()),
        (Some("scanning"), Some("scanning"))
    );
    tokio::time::sleep(Duration::from_millis(500)).await;
    for file in [&clean, &infected] {
        assert_eq!(told(file, &ticket).await, "file_scanning", "the scanner is away");
        assert_eq!(told(file, &editor()).await, "file_scanning");
    }
    clamd.away.store(false, Ordering::Relaxed);
    until("verdicts", || async {
        (state(&clean).await == "ready" && state(&infected).await == "quarantined").then_some(())
    })
    .await;
    assert_eq!(told(&clean, &ticket).await, "played");
    assert_eq!(told(&infected, &ticket).await, "file_quarantined");
    assert_eq!(told(&infected, &editor()).await, "file_quarantined");
    node.logs(&["infected", "Eicar-Test"]).await;
    assert!(node.metric("usher_media_scans_total{verdict=\"infected\"}").await > 0.5);
}

/// The package `moto`, which speaks S3. Killed when dropped.
struct Moto {
    child: Child,
    port: u16,
}

impl Moto {
    async fn start() -> Self {
        let venv = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/moto");
        let program = venv.join("bin/moto_server");
        if !program.exists() {
            let made = Command::new("python3").args(["-m", "venv"]).arg(&venv).status();
            assert!(
                made.unwrap().success(),
                "python3-venv is installed: tests/run does it"
            );
            let installed = Command::new(venv.join("bin/pip"))
                .args(["install", "-q", "moto[server]==5.*"])
                .status();
            assert!(installed.unwrap().success());
        }
        let port = free_port();
        let child = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let moto = Self { child, port };
        until("bucket", || async {
            (moto.ask("PUT", "/films").await? == 200).then_some(())
        })
        .await;
        moto
    }

    /// The status of a request without a signature.
    async fn ask(&self, method: &str, path: &str) -> Option<u16> {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", self.port))
            .await
            .ok()?;
        let text = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            self.port
        );
        stream.write_all(text.as_bytes()).await.ok()?;
        Some(head(&mut stream).await.0)
    }

    fn settings(&self, more: &str) -> String {
        format!(
            "[media.s3]\nbucket = \"films\"\nendpoint = \"http://127.0.0.1:{}\"\naccess_key = \"key\"\nsecret_key = \"secret\"\nprefix = \"usher/\"\n{more}",
            self.port
        )
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn files_are_in_an_object_store() {
    let moto = Moto::start().await;
    let node = Node::with(&moto.settings("")).await;
    let bytes = mp4(20_000_000);
    let file = upload(&node, &editor(), &[("content", "m1")], "video/mp4", &bytes).await;
    let id = file["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/media/{id}");
    let mut ticket = ticket(&node, "ann", "m1").await;
    let part = get(&node, &path, &ticket, &[("Range", "bytes=9000000-9999999")]).await;
    assert!(part.status == 206 && part.body == bytes[9_000_000..10_000_000]);
    assert!(get(&node, &path, &ticket, &[]).await.body == bytes);
    // A resumable one, in two pieces.
    let upload = announced(&node, bytes.len()).await;
    patch(&node, &upload, 0, &[], &bytes[..12_000_000]).await;
    let last = patch(&node, &upload, 12_000_000, &[], &bytes[12_000_000..]).await;
    assert_eq!(last.status, 204, "{}", last.text());
    // The store may have been slower than a lease without heartbeats lives.
    ticket = crate::library::ticket(&node, "bo", "m1").await;
    let joined = get(
        &node,
        &format!("/v1/media/{}", last.header("usher-file")),
        &ticket,
        &[],
    )
    .await;
    assert!(joined.body == bytes);
    assert!(!node.dir.join("data/media").exists());
    assert_eq!(
        call(&node, "DELETE", &format!("/v1/files/{id}"), &editor(), &[], b"")
            .await
            .status,
        204
    );
    assert_eq!(get(&node, &path, &ticket, &[]).await.status, 404);
    drop(node);

    let node = Node::with(&moto.settings("redirect = true")).await;
    let file = crate::library::upload(
        &node,
        &editor(),
        &[("content", "m1")],
        "video/mp4",
        &bytes[..50_000],
    )
    .await;
    let path = format!("/v1/media/{}", file["id"].as_str().unwrap());
    ticket = crate::library::ticket(&node, "ann", "m1").await;
    let there = get(&node, &path, &ticket, &[]).await;
    assert_eq!((there.status, there.header("cache-control")), (307, "no-store"));
    let url = there.header("location").to_owned();
    assert!(
        url.contains("X-Amz-Signature=") && url.contains("X-Amz-Expires=60"),
        "{url}"
    );
    let (_, target) = url.split_once(&format!("127.0.0.1:{}", moto.port)).unwrap();
    assert_eq!(moto.ask("GET", target).await, Some(200));
    assert_eq!(
        get(&node, &path, "bad", &[]).await.status,
        401,
        "no URL for those who may not"
    );
}
