//! The documents of both listeners, held by schemathesis against what a node answers: schemas, statuses, headers and media
//! types; that what the document allows is taken and what it does not allow is refused; no 500 for anything.

use std::path::{Path, PathBuf};
use std::time::Instant;

use tokio::process::Command;

use crate::harness::Node;
use crate::openapi::everybody;

/// The tests come from one account, and share a busy machine with others.
const UNLIMITED: &str = "[limits]\nstarts_burst = 0\nhandshake_timeout = \"60s\"\n[debug]\necho = true\n";

/// The program in its own environment of Python, beside what cargo builds.
fn program() -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let program = place.join("schemathesis/bin/schemathesis");
    assert!(program.exists(), "{} (tests/run installs it)", program.display());
    program
}

/// Goes over one document; fails with what was found.
async fn hold(node: &Node, document: &str, report: &str) {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemathesis.toml");
    let start = Instant::now();
    let output = Command::new(program())
        .args(["--config-file".as_ref(), config.as_os_str()])
        .args(["run", document, "--no-color"])
        .args(["--tls-verify".as_ref(), node.dir.join("certs/ca.pem").as_os_str()])
        .args(["--header", &format!("Authorization: Bearer {}", everybody())])
        .current_dir(&node.dir)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{report}: {}\n{said}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        said.contains("No issues found") || said.contains("passed"),
        "{said}"
    );
    let counted = said
        .lines()
        .find(|line| line.contains("generated"))
        .unwrap_or_default();
    eprintln!("{report}: {} in {:.0?}", counted.trim(), start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn players_document() {
    let node = Node::with(UNLIMITED).await;
    let document = format!("https://localhost:{}/v1/openapi.json", node.players.port());
    hold(&node, &document, "players").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_document() {
    let node = Node::with(UNLIMITED).await;
    let document = format!("http://localhost:{}/v1/openapi.json", node.admin.port());
    hold(&node, &document, "operators").await;
}
