//! The examples that check tickets, run with the real programs against a real gateway.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::net::TcpStream;

use crate::harness::{Node, Player, eventually, now, sign, token};
use crate::redis_servers::free_port;
use crate::stage::{Answer, Place, ask, get};

/// What is served.
const SEGMENT: &str = "bytes of a film";

/// A ticket's life in these tests.
const LIFE: Duration = Duration::from_secs(10);

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples/tickets")
        .join(name)
}

/// Debian's nginx, with the example's configuration. Killed when dropped.
struct Nginx {
    child: Child,
    address: String,
    place: Place,
}

impl Nginx {
    async fn start(node: &Node) -> Self {
        let (place, port) = (Place::new(), free_port());
        let address = format!("127.0.0.1:{port}");
        for content in ["media/m1", "media/m2", "offline/m1"] {
            let directory = place.path().join("root").join(content);
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("1.ts"), SEGMENT).unwrap();
        }
        let at = |path: &Path| path.display().to_string();
        let words = [
            ("USHER_ADDRESS", node.players.to_string()),
            ("USHER_NAME", "localhost".to_owned()),
            ("USHER_CA", at(&node.dir.join("certs/ca.pem"))),
            ("MEDIA_ROOT", at(&place.path().join("root"))),
            ("LISTEN_ADDRESS", address.clone()),
            ("PLACE", at(place.path())),
        ];
        for name in ["nginx.conf", "usher.inc"] {
            let text = fs::read_to_string(example(name)).unwrap();
            let filled = words
                .iter()
                .fold(text, |text, (word, value)| text.replace(word, value));
            place.write(name, &filled);
        }
        // Debian keeps it where only root's PATH looks.
        let program = ["/usr/sbin/nginx", "nginx"]
            .into_iter()
            .find(|at| Path::new(at).exists());
        let child = Command::new(program.unwrap_or("nginx"))
            .args(["-p", &at(place.path()), "-c", "nginx.conf"])
            .stdin(Stdio::null())
            .stderr(fs::File::create(place.path().join("log")).unwrap())
            .spawn()
            .expect("nginx, from Debian's package");
        let nginx = Self {
            child,
            address,
            place,
        };
        eventually("nginx", || std::net::TcpStream::connect(&nginx.address).ok()).await;
        nginx
    }

    async fn get(&self, target: &str, headers: &[(&str, &str)]) -> Answer {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        ask(&mut stream, &get(target, headers)).await
    }

    async fn status(&self, target: &str) -> u16 {
        self.get(target, &[]).await.status.as_u16()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.place.path().join("log"));
            eprintln!("nginx: {}", log.unwrap_or_default());
        }
    }
}

async fn gateway() -> Node {
    Node::with("[tickets]\nlifetime = \"10s\"\nrenew_before = \"1s\"").await
}

async fn playing(node: &Node) -> (Player, String) {
    let mut player = node.watch("ann", "content=m1&device=d1").await;
    let granted = player.next_of("granted").await;
    let ticket = granted["ticket"]["token"].as_str().unwrap().to_owned();
    (player, ticket)
}

#[tokio::test]
async fn nginx_serves_while_the_lease_lives() {
    let node = gateway().await;
    let nginx = Nginx::start(&node).await;
    let (mut player, ticket) = playing(&node).await;
    let (online, offline) = (
        format!("/media/m1/1.ts?ticket={ticket}"),
        format!("/offline/m1/1.ts?ticket={ticket}"),
    );
    for target in [&online, &offline] {
        let answer = nginx.get(target, &[]).await;
        assert_eq!(
            (answer.status.as_u16(), &*answer.body),
            (200, SEGMENT),
            "{target}"
        );
    }
    let bearer = format!("Bearer {ticket}");
    let answer = nginx.get("/media/m1/1.ts", &[("Authorization", &bearer)]).await;
    assert_eq!(answer.status, 200);
    // Another content, no ticket, a bad one, and an access token.
    assert_eq!(
        nginx.status(&format!("/media/m2/1.ts?ticket={ticket}")).await,
        403
    );
    assert_eq!(nginx.status("/media/m1/1.ts").await, 401);
    assert_eq!(
        nginx.status(&format!("/media/m1/1.ts?ticket={ticket}A")).await,
        401
    );
    assert_eq!(
        nginx
            .status(&format!("/offline/m1/1.ts?ticket={}", token("ann")))
            .await,
        401
    );
    assert_eq!(
        nginx
            .status(&format!("/media/m1&lease=false/1.ts?ticket={ticket}"))
            .await,
        404
    );

    // An operator ends the session.
    let operator = sign(&json!({"sub": "op", "exp": now() + 60, "scope": "operator"}));
    let path = "/v1/admin/accounts/ann/sessions";
    assert_eq!(
        node.admin_request("DELETE", path, Some(&operator), "").await.0,
        200
    );
    let ended = Instant::now();
    assert_eq!(
        nginx.status(&online).await,
        403,
        "at once where the lease is asked about"
    );
    assert_eq!(player.closed().await.0, 4003);
    let mut served = 0;
    while nginx.status(&offline).await == 200 {
        served += 1;
        assert!(ended.elapsed() <= LIFE, "longer than a ticket lives");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(nginx.status(&offline).await, 401);
    assert!(served > 0, "the ticket was good by itself for a while");
    let log = fs::read_to_string(nginx.place.path().join("access.log")).unwrap();
    assert!(log.contains("/media/m1/1.ts") && !log.contains(&ticket), "{log}");
}

#[tokio::test]
async fn the_offline_example_judges_by_the_key_set_alone() {
    let node = gateway().await;
    let (_player, ticket) = playing(&node).await;
    let place = Place::new();
    let keys = node.ask(&get("/.well-known/jwks.json", &[])).await.body;
    place.write("keys.json", &keys);
    let run = |ticket: &str, content: &str| {
        let output = Command::new(example("offline.py"))
            .args([
                &place.path().join("keys.json").display().to_string(),
                ticket,
                content,
            ])
            .output()
            .unwrap();
        let (out, err) = (output.stdout, output.stderr);
        (
            output.status.success(),
            String::from_utf8(out).unwrap(),
            String::from_utf8(err).unwrap(),
        )
    };
    let (good, out, err) = run(&ticket, "m1");
    assert!(good, "{err}");
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&out).unwrap()["sub"],
        "ann"
    );
    let (message, _) = ticket.rsplit_once('.').unwrap();
    let unsigned = format!("{message}.{}", "A".repeat(86));
    for (bad, content, said) in [
        (&*ticket, "m2", "another content"),
        (&unsigned, "m1", "wrong signature"),
        (&token("ann"), "m1", "not a ticket"),
        ("x", "m1", "not a token"),
    ] {
        let (good, _, err) = run(bad, content);
        assert!(!good && err.contains(said), "{err}");
    }
    tokio::time::sleep(LIFE).await;
    assert!(run(&ticket, "m1").2.contains("expired"));
}
