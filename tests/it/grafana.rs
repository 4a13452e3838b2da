//! Dashboards and rules, against a real Prometheus that scrapes two gateways with players on them.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::harness::{Node, exchange};
use crate::redis_servers::{Redis, free_port};
use crate::stage::{Place, get, request};

const NAMES: [&str; 7] = [
    "overview",
    "sessions",
    "nodes",
    "redis-and-ledger",
    "business",
    "files",
    "messages",
];

fn file(path: &str) -> PathBuf {
    PathBuf::from(format!("{}/grafana/{path}", env!("CARGO_MANIFEST_DIR")))
}

fn read(path: &str) -> String {
    fs::read_to_string(file(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn dashboard(name: &str) -> Value {
    serde_json::from_str(&read(&format!("dashboards/{name}.json"))).unwrap()
}

/// The panels of a dashboard, those in folded rows too, without the rows.
fn panels(dashboard: &Value) -> Vec<Value> {
    let all = dashboard["panels"].as_array().unwrap();
    let folded = all
        .iter()
        .filter_map(|panel| panel["panels"].as_array())
        .flatten();
    let shown = all.iter().filter(|panel| panel["type"] != "row");
    shown.chain(folded).cloned().collect()
}

/// Dashboard, panel and query of each, with values in place of the variables.
fn queries() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for name in NAMES {
        for panel in panels(&dashboard(name)) {
            for target in panel["targets"].as_array().unwrap() {
                let query = target["expr"].as_str().unwrap();
                let query = query.replace("$__rate_interval", "15s").replace("$__range", "1m");
                let query = query.replace("$instance", ".*").replace("$tenant", ".*");
                found.push((format!("{name}, {}", panel["title"]), query));
            }
        }
    }
    found
}

/// The metrics of ours and of the process that a text names, without the endings of histograms.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c: char| !is_part(c))
        .filter(|word| (word.starts_with("usher_") || word.starts_with("process_")) && !word.ends_with('_'))
        .map(|word| {
            let ending = ["_bucket", "_count", "_sum"]
                .into_iter()
                .find_map(|ending| word.strip_suffix(ending));
            ending.unwrap_or(word).to_owned()
        })
        .collect()
}

#[test]
fn every_panel_tells_what_to_do_and_only_the_first_row_is_open() {
    let mut uids = BTreeSet::new();
    for name in NAMES {
        let dashboard = dashboard(name);
        assert!(
            uids.insert(dashboard["uid"].as_str().unwrap().to_owned()),
            "{name}"
        );
        let variables: Vec<&str> = dashboard["templating"]["list"]
            .as_array()
            .unwrap()
            .iter()
            .map(|variable| variable["name"].as_str().unwrap())
            .collect();
        assert_eq!(variables, ["datasource", "tenant", "instance"], "{name}");
        let rows: Vec<bool> = dashboard["panels"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|panel| panel["type"] == "row")
            .map(|row| row["collapsed"].as_bool().unwrap())
            .collect();
        assert!(
            rows.iter().skip(1).all(|folded| *folded) && !rows[0],
            "{name}: {rows:?}"
        );
        let mut ids = BTreeSet::new();
        for panel in panels(&dashboard) {
            let words = panel["description"]
                .as_str()
                .unwrap_or_default()
                .split(' ')
                .count();
            assert!(words >= 6, "{name}: {}", panel["title"]);
            assert!(
                ids.insert(panel["id"].as_u64().unwrap()),
                "{name}: {}",
                panel["title"]
            );
            assert_eq!(
                panel["datasource"]["uid"], "${datasource}",
                "{name}: {}",
                panel["title"]
            );
            let place = &panel["gridPos"];
            assert!(
                place["x"].as_u64().unwrap() + place["w"].as_u64().unwrap() <= 24,
                "{name}: {place}"
            );
        }
    }
    let files = fs::read_dir(file("dashboards")).unwrap().count();
    assert_eq!(files, NAMES.len());
}

/// The schema that Grafana publishes as its Foundation SDK.
#[test]
fn the_dashboards_are_in_grafanas_schema() {
    let judge = |files: &[PathBuf]| {
        let output = Command::new(file("../target/schemas/bin/python"))
            .arg(file("../tests/dashboards.py"))
            .args(files)
            .output()
            .expect("the schemas are installed (tests/run does it)");
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let files = NAMES.map(|name| file(&format!("dashboards/{name}.json")));
    let (accepted, said) = judge(&files);
    assert!(accepted, "{said}");
    // It does find a field that is wrong.
    let place = Place::new();
    place.write(
        "wrong.json",
        &read("dashboards/overview.json").replace("\"gridPos\"", "\"gridPlace\""),
    );
    let (accepted, said) = judge(&[place.path().join("wrong.json")]);
    assert!(
        !accepted && said.contains("gridPlace is not in the schema"),
        "{said}"
    );
}

#[test]
fn promtool_accepts_the_rules_and_each_alert_has_a_case_that_fires_and_one_that_is_quiet() {
    for arguments in [
        ["check", "rules", "rules/usher.yml"],
        ["test", "rules", "rules/tests/usher.yml"],
    ] {
        let output = Command::new("promtool")
            .args(arguments)
            .current_dir(file(""))
            .output()
            .expect("promtool runs (tests/run installs it)");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
    let (rules, tests) = (read("rules/usher.yml"), read("rules/tests/usher.yml"));
    let alerts: Vec<&str> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert!(alerts.len() >= 10);
    for alert in &alerts {
        for kind in ["fires", "stays quiet"] {
            assert!(
                tests.contains(&format!("- name: {alert} {kind}\n")),
                "{alert} {kind}"
            );
        }
    }
    assert_eq!(rules.matches("runbook: ").count(), alerts.len());
}

#[tokio::test]
async fn what_is_exported_is_shown_and_what_is_named_exists() {
    let node = Node::start().await;
    let (_, _, text) = node.admin_get("/metrics", None).await;
    let exported: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .map(str::to_owned)
        .collect();
    let dashboards: String = queries().into_iter().map(|(_, query)| query + "\n").collect();
    let shown = metrics_in(&dashboards);
    let hidden = metrics_in(read("README.md").split("## Not shown on purpose").nth(1).unwrap());
    let rules = metrics_in(&read("rules/usher.yml"));
    for named in shown.iter().chain(&hidden).chain(&rules) {
        // Metrics with labels that have not been counted yet have no line of their own.
        let later = [
            "usher_http_requests_total",
            "usher_http_request_duration_seconds",
            "usher_tokens_rejected_total",
        ];
        assert!(
            exported.contains(named) || later.contains(&named.as_str()),
            "{named} does not exist"
        );
    }
    for metric in &exported {
        assert!(
            shown.contains(metric) || hidden.contains(metric),
            "{metric} is neither shown nor listed as not shown"
        );
        assert!(
            !(shown.contains(metric) && hidden.contains(metric)),
            "{metric} is both"
        );
    }
}

/// Prometheus with these gateways and our rules. Killed when dropped.
struct Prometheus {
    child: Child,
    port: u16,
    _place: Place,
}

impl Prometheus {
    fn start(nodes: &[&Node]) -> Self {
        let (place, port) = (Place::new(), free_port());
        let targets: Vec<String> = nodes.iter().map(|node| node.admin.to_string()).collect();
        let rules = file("rules/usher.yml");
        let rules = rules.display();
        place.write(
            "prometheus.yml",
            &format!(
                "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{rules}']\n\
                 scrape_configs:\n- {{job_name: usher, static_configs: [{{targets: {targets:?}}}]}}\n"
            ),
        );
        let at = |name: &str| place.path().join(name).display().to_string();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", at("prometheus.yml")))
            .arg(format!("--storage.tsdb.path={}", at("data")))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus runs (tests/run installs it)");
        Self {
            child,
            port,
            _place: place,
        }
    }

    /// How many series a query has that are numbers; the error of one that it cannot read.
    async fn ask(&self, query: &str) -> Result<usize, String> {
        let Ok(stream) = TcpStream::connect(("127.0.0.1", self.port)).await else {
            return Ok(0);
        };
        let query: String = form_urlencoded::byte_serialize(query.as_bytes()).collect();
        let request = get(
            &format!("/api/v1/query?query={query}"),
            &[("Connection", "close")],
        );
        let (status, _, body) = exchange(stream, request.as_bytes()).await;
        // Until it has read its own log it answers 503.
        if status == 503 {
            return Ok(0);
        }
        let answer: Value = serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?;
        let series = answer["data"]["result"].as_array().ok_or(body)?;
        Ok(series.iter().filter(|one| one["value"][1] != "NaN").count())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A little of everything that is counted.
async fn load(nodes: [&Node; 3], round: usize) {
    let account = format!("load-{round}");
    let [here, there, alone] = nodes;
    let mut first = here.watch(&account, "content=film&device=a").await;
    let granted = first.next().await;
    first.cut();
    let resume = granted["resume"].as_str().unwrap();
    let mut back = there
        .watch(&account, &format!("content=film&device=a&resume={resume}"))
        .await;
    back.next_of("granted").await;
    let mut others = Vec::new();
    for (node, device) in [(here, "b"), (there, "c")] {
        let mut player = node
            .watch(&account, &format!("content=film&device={device}"))
            .await;
        player.next_of("granted").await;
        others.push(player);
    }
    let mut refused = here.watch(&account, "content=film&device=d").await;
    refused.next_of("denied").await;
    let mut over = here
        .watch(&account, "content=film&device=e&on_limit=oldest")
        .await;
    over.next_of("granted").await;
    over.close(1000).await;
    // These fall silent: their slots are freed when the lease is over.
    for player in others {
        player.cut();
    }
    let _ = here.try_watch("no.such.token", "content=film").await;
    here.raw(&get("/v1/sessions", &[("Connection", "close")])).await;
    // Nobody of this name: its password is hashed all the same.
    let nobody = [
        ("Authorization", "Basic bm9ib2R5OmEgcGFzc3dvcmQ="),
        ("Content-Length", "0"),
        ("Connection", "close"),
    ];
    alone.raw(&request("POST", "/v1/auth", &nobody)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_returns_data_from_gateways_under_load() {
    let redis = Redis::start(&[]).await;
    let settings = format!("[lease]\nperiod = \"2s\"\n[redis]\nurl = \"{}\"\n", redis.url());
    // The third has no Redis and so a database of its own.
    let (a, b, c) = tokio::join!(Node::with(&settings), Node::with(&settings), Node::start());
    let prometheus = Prometheus::start(&[&a, &b, &c]);
    let mut wanted = queries();
    let rules = read("rules/usher.yml");
    let recorded = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- record: "));
    wanted.extend(recorded.map(|name| ("a recorded rule".to_owned(), name.to_owned())));
    assert!(wanted.len() > 80);
    let start = Instant::now();
    for round in 0.. {
        Box::pin(load([&a, &b, &c], round)).await;
        let mut missing = Vec::new();
        for (place, query) in wanted {
            if prometheus
                .ask(&query)
                .await
                .unwrap_or_else(|error| panic!("{place}: {error}"))
                == 0
            {
                missing.push((place, query));
            }
        }
        if missing.is_empty() {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(90), "no data: {missing:#?}");
        wanted = missing;
        sleep(Duration::from_millis(300)).await;
    }
}
