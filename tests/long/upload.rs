//! Two GiB, as a form and with the tus client that people use, cut at half: what they cost the node in memory, that
//! nothing is seen before it is whole, and that every byte arrives.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::harness::Node;
use crate::library::{BOUNDARY, begin, call, editor, form, get, head, mp4, post_form};

/// Bytes of the file.
const SIZE: usize = 2 * 1024 * 1024 * 1024;

/// Bytes written at once.
const CHUNK: usize = 1024 * 1024;

/// What memory may grow by, in MiB.
const LIMIT_MIB: f64 = 32.0;

/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// The longest time for one way of uploading it.
const PATIENCE: Duration = Duration::from_secs(900);

/// Writes the file, no chunk of it like another; its SHA-256.
fn write(path: &Path) -> String {
    let mut file = std::fs::File::create(path).unwrap();
    let mut hash = digest::Context::new(&digest::SHA256);
    let mut chunk = mp4(CHUNK);
    for number in 0..SIZE / CHUNK {
        // Past the head, which says what it is.
        chunk[64..72].copy_from_slice(&number.to_le_bytes());
        hash.update(&chunk);
        file.write_all(&chunk).unwrap();
    }
    let hash = hash.finish();
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Looks at the memory of a node all the time.
struct Gauge {
    before: u64,
    most: Arc<AtomicU64>,
    looking: tokio::task::JoinHandle<()>,
}

impl Gauge {
    fn start(node: &Node) -> Self {
        let (pid, most) = (node.child.id(), Arc::new(AtomicU64::new(0)));
        let seen = Arc::clone(&most);
        Self {
            before: node.rss(),
            most,
            looking: tokio::spawn(async move {
                loop {
                    seen.fetch_max(resident(pid), Ordering::Relaxed);
                    tokio::time::sleep(LOOK).await;
                }
            }),
        }
    }

    /// By how many MiB it grew at most.
    #[allow(clippy::cast_precision_loss, reason = "bytes of memory")]
    fn grown(&self) -> f64 {
        (self.most.load(Ordering::Relaxed) as f64 - self.before as f64) / (1024.0 * 1024.0)
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gib_cost_no_memory_and_are_resumed_at_half() {
    let node = Node::with("[log]\naccess = false").await;
    // What the first upload of a process needs is no growth.
    let small = form(&[], "a", "video/mp4", &mp4(20_000_000));
    let reply = post_form(&node, &editor(), &small).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    let small = reply.header("location").to_owned();
    let path = node.dir.join("two.mp4");
    let sha256 = write(&path);
    let gauge = Gauge::start(&node);

    let begun = Instant::now();
    let made = by_form(&node, &path).await;
    assert_eq!(get(&node, &made, &editor(), &[]).await.json()["sha256"], *sha256);
    let form = gauge.grown();
    eprintln!(
        "2 GiB as a form: {:.1} s, memory grew by {form:.1} MiB",
        begun.elapsed().as_secs_f64()
    );
    for path in [&made, &small] {
        assert_eq!(call(&node, "DELETE", path, &editor(), &[], b"").await.status, 204);
    }

    let begun = Instant::now();
    let (cut, went_on) = by_tus(&node, &path, &sha256).await;
    let file = get(&node, "/v1/files", &editor(), &[]).await.json()["items"][0].clone();
    assert_eq!(
        (file["sha256"].as_str(), file["size"].as_u64()),
        (Some(&*sha256), Some(SIZE as u64))
    );
    let both = gauge.grown();
    eprintln!(
        "2 GiB with tus-js-client, cut at {cut}, gone on with at {went_on}: {:.1} s, memory grew by {both:.1} MiB in all",
        begun.elapsed().as_secs_f64()
    );
    assert!(
        form < LIMIT_MIB && both < LIMIT_MIB,
        "{form:.1} and {both:.1} MiB"
    );
}

/// The whole file as one form; where it is.
async fn by_form(node: &Node, path: &Path) -> String {
    let front = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\nContent-Type: video/mp4\r\n\r\n"
    );
    let back = format!("\r\n--{BOUNDARY}--\r\n");
    let (bearer, kind) = (
        format!("Bearer {}", editor()),
        format!("multipart/form-data; boundary={BOUNDARY}"),
    );
    let length = (front.len() + SIZE + back.len()).to_string();
    let headers = [
        ("Authorization", &*bearer),
        ("Content-Type", &*kind),
        ("Content-Length", &*length),
    ];
    let mut stream = begin(node, "POST", "/v1/files", &headers, front.as_bytes()).await;
    let (mut file, mut chunk) = (tokio::fs::File::open(path).await.unwrap(), vec![0; CHUNK]);
    let sending = async {
        for _ in 0..SIZE / CHUNK {
            file.read_exact(&mut chunk).await.unwrap();
            stream.write_all(&chunk).await.unwrap();
        }
        stream.write_all(back.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
    };
    tokio::time::timeout(PATIENCE, sending)
        .await
        .expect("the form is sent in time");
    let (status, headers) = head(&mut stream).await;
    assert_eq!(status, 201);
    headers["location"].to_str().unwrap().to_owned()
}

/// The whole file with the client from npm, in one request that breaks at half; where it broke, and where it went on.
async fn by_tus(node: &Node, path: &Path, sha256: &str) -> (usize, usize) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let client: PathBuf = root.join("target/npm-tus/node_modules/tus-js-client");
    assert!(client.exists(), "tests/run installs tus-js-client");
    let mut child = tokio::process::Command::new("node")
        .arg(root.join("tests/tus.mjs"))
        .arg(client)
        .arg(format!(
            "https://localhost:{}/v1/files/uploads",
            node.players.port()
        ))
        .arg(path)
        .env("USHER_TOKEN", editor())
        .env("NODE_EXTRA_CA_CERTS", node.dir.join("certs/ca.pem"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = async || {
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await;
        line.expect("the client in time")
            .unwrap()
            .expect("a line of the client")
    };
    let cut: usize = next().await.strip_prefix("cut ").unwrap().parse().unwrap();
    assert!(cut >= SIZE / 2 && cut < SIZE / 4 * 3, "{cut}");
    let list = get(node, "/v1/files", &editor(), &[]).await.json();
    assert_eq!(list["total"], 0, "nothing is seen before it is whole");
    child.stdin.take().unwrap().write_all(b"\n").await.unwrap();
    let told = next().await;
    let [_, went_on, sent] = told.split_whitespace().collect::<Vec<_>>()[..] else {
        panic!("{told}");
    };
    let went_on: usize = went_on.parse().unwrap();
    // What was on the line when it broke is sent again, and no more.
    assert!(went_on > SIZE / 2 - 64 * CHUNK && went_on <= cut, "{went_on}");
    assert_eq!(sent, sha256);
    (cut, went_on)
}
