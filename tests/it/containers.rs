//! Containers: the compose file, the image, and what Kubernetes gets beside the manifest that `deploy` looks at. None of it
//! can be run here, for want of a container engine; what it names is there, and the schemas accept it.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::balancer::deployed;
use crate::deploy::{documents, drain, seconds};
use crate::harness::{Node, SECRET};
use crate::stage::Place;

/// A file of this project.
fn own(path: &str) -> String {
    let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The texts of a YAML list.
fn texts(list: &Value) -> Vec<&str> {
    list.as_array()
        .map(|list| list.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default()
}

/// By the schemas of Kubernetes itself, of the oldest version that has all of it and of the newest that is known.
#[test]
fn the_schemas_of_kubernetes_accept_the_manifests() {
    let program = format!(
        "{}/target/schemas/bin/kubernetes-validate",
        env!("CARGO_MANIFEST_DIR")
    );
    let validate = |version: &str, files: &[String]| {
        Command::new(&program)
            .args(["--strict", "-k", version])
            .args(files)
            .output()
            .expect("kubernetes-validate is installed (tests/run does it)")
    };
    let files = ["usher.yaml", "autoscaler.yaml"]
        .map(|name| format!("{}/deploy/kubernetes/{name}", env!("CARGO_MANIFEST_DIR")));
    for version in ["1.30.0", "1.37.0"] {
        let output = validate(version, &files);
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains("WARN"), "{said}");
        assert_eq!(said.matches(" passed for resource ").count(), 8, "{said}");
    }
    // It does find what is wrong.
    let place = Place::new();
    place.write(
        "wrong.yaml",
        &deployed("kubernetes/usher.yaml").replace("maxUnavailable: 1", "maxUnavailble: 1"),
    );
    let wrong = validate("1.37.0", &[place.path().join("wrong.yaml").display().to_string()]);
    assert!(!wrong.status.success());
}

/// By the operator's own definition, as a package has it.
#[test]
fn the_schema_of_the_prometheus_operator_accepts_the_monitor() {
    let program = format!(
        "import {{ ServiceMonitor }} from 'file://{}/target/npm-schemas/node_modules/@kubernetes-models/prometheus-operator\
         /monitoring.coreos.com/v1/ServiceMonitor.js'; new ServiceMonitor(JSON.parse(process.argv[1])).validate();",
        env!("CARGO_MANIFEST_DIR")
    );
    let validate = |monitor: &Value| {
        Command::new("node")
            .args(["--input-type=module", "-e", &program, &monitor.to_string()])
            .output()
            .expect("node is installed (tests/run does it)")
    };
    let mut monitor = documents(&deployed("kubernetes/servicemonitor.yaml")).remove(0);
    let right = validate(&monitor);
    assert!(
        right.status.success(),
        "{}",
        String::from_utf8_lossy(&right.stderr)
    );
    // It does find what is wrong.
    monitor["spec"]["endpoints"][0]["port"] = 9600.into();
    let wrong = validate(&monitor);
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("port must be string"));
}

#[tokio::test]
async fn the_autoscaler_and_the_monitor_name_what_there_is() {
    let all = documents(&deployed("kubernetes/usher.yaml"));
    let find = |kind: &str, name: &str| {
        all.iter()
            .find(|one| one["kind"] == kind && one["metadata"]["name"] == name)
            .unwrap_or_else(|| panic!("no {kind} {name}"))
    };
    let scaler = &documents(&deployed("kubernetes/autoscaler.yaml"))[0];
    let target = &scaler["spec"]["scaleTargetRef"];
    find(target["kind"].as_str().unwrap(), target["name"].as_str().unwrap());
    let metric = scaler["spec"]["metrics"][0]["pods"]["metric"]["name"]
        .as_str()
        .unwrap();
    // Exported under this name, and the adapter is told of it.
    let node = Node::start().await;
    assert!(node.metric(metric).await >= 0.0);
    assert!(deployed("README.md").contains(&format!("'{metric}{{")));
    assert!(own("grafana/rules/usher.yml").contains("horizontalpodautoscaler=~\\\"usher.*"));

    let monitor = &documents(&deployed("kubernetes/servicemonitor.yaml"))[0];
    let wanted = monitor["spec"]["selector"]["matchLabels"].as_object().unwrap();
    let selected: Vec<&Value> = all
        .iter()
        .filter(|one| one["kind"] == "Service")
        .filter(|one| {
            wanted
                .iter()
                .all(|(name, value)| one["metadata"]["labels"].get(name) == Some(value))
        })
        .collect();
    assert_eq!(selected.len(), 1, "{selected:?}");
    let endpoint = &monitor["spec"]["endpoints"][0];
    assert_eq!(selected[0]["spec"]["ports"][0]["name"], endpoint["port"]);
    assert_eq!(endpoint["path"], "/metrics");
}

/// No container engine runs here: what can be known without one is that every file, port, volume and variable is there.
#[test]
fn the_compose_file_names_what_there_is() {
    let text = own("compose.yml");
    let file = &documents(&text)[0];
    let services = file["services"].as_object().unwrap();
    let names: Vec<&str> = services.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "balancer",
            "gateway-1",
            "gateway-2",
            "grafana",
            "postgres",
            "prometheus",
            "redis"
        ]
    );
    let volumes = file["volumes"].as_object().unwrap();
    for (name, service) in services {
        for volume in texts(&service["volumes"]) {
            let from = volume.split(':').next().unwrap();
            match from.strip_prefix("./") {
                Some(path) => assert!(
                    fs::exists(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap(),
                    "{name}: {path}"
                ),
                None => assert!(volumes.contains_key(from), "{name}: {from}"),
            }
        }
        let needed: Vec<&str> = match &service["depends_on"] {
            Value::Object(map) => map.keys().map(String::as_str).collect(),
            list => texts(list),
        };
        assert!(
            needed.iter().all(|one| services.contains_key(*one)),
            "{name}: {needed:?}"
        );
        // Only the balancer's port may be open to others.
        for port in texts(&service["ports"]) {
            assert!(
                port.starts_with("127.0.0.1:") || port == "${PLAYERS_ADDRESS:-127.0.0.1}:8443:8443",
                "{name}: {port}"
            );
        }
    }
    // Every variable is in the example, and no other.
    let used: BTreeSet<&str> = text
        .split("${")
        .skip(1)
        .map(|rest| rest.split([':', '}']).next().unwrap())
        .collect();
    let example = own(".env.example");
    let offered: BTreeSet<&str> = example
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| Some(line.split_once('=')?.0))
        .collect();
    assert_eq!(used, offered);

    // The gateways take their settings, with the variables of the file, and believe the balancer's network.
    let place = Place::with(&deployed("compose/usher.toml"));
    let gateway = &services["gateway-1"];
    let environment: Vec<(&str, &str)> = gateway["environment"]
        .as_object()
        .unwrap()
        .keys()
        .map(|name| (name.as_str(), SECRET))
        .collect();
    let ran = place.run(&environment, &["check-config", "--config", "usher.toml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let settings: toml::Table = ran.stdout.parse().unwrap();
    assert_eq!(settings["listen"]["proxy_protocol"].as_bool(), Some(true));
    let subnet = file["networks"]["default"]["ipam"]["config"][0]["subnet"]
        .as_str()
        .unwrap();
    assert_eq!(settings["listen"]["trusted_proxies"][0].as_str(), Some(subnet));
    let grace = seconds(gateway["stop_grace_period"].as_str().unwrap());
    assert!(grace > drain(&settings) + 3, "{grace}");
    for (key, service, port) in [("redis", "redis", "6379"), ("database", "postgres", "5432")] {
        let url = settings[key]["url"].as_str().unwrap();
        assert!(url.contains(&format!("{service}:{port}")), "{url}");
        assert!(services.contains_key(service));
    }
    let key = settings["auth"]["signing_key"].as_str().unwrap();
    let secret = key.strip_prefix("/run/secrets/").unwrap();
    assert!(texts(&gateway["secrets"]).contains(&secret) && file["secrets"].get(secret).is_some());
    assert_eq!(own(".gitignore").matches(&format!("\n/{secret}\n")).count(), 1);

    // Prometheus asks by names that the gateways answer to.
    let prometheus = &documents(&deployed("compose/prometheus.yml"))[0];
    let targets = texts(&prometheus["scrape_configs"][0]["static_configs"][0]["targets"]);
    let hosts: Vec<&str> = settings["listen"]["admin_hosts"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(toml::Value::as_str)
        .collect();
    assert_eq!(targets.len(), 2);
    for target in targets {
        let (host, port) = target.split_once(':').unwrap();
        assert!(
            hosts.contains(&host) && services.contains_key(host) && port == "9600",
            "{target}"
        );
    }
    assert!(own("grafana/provisioning/datasources/usher.yml").contains("${PROMETHEUS_URL}"));
    assert!(services["grafana"]["environment"]["PROMETHEUS_URL"].is_string());
}

/// The balancer of compose.yml is the documented one but for its servers, and the program takes it.
#[test]
fn the_balancer_of_the_compose_file_is_the_documented_one() {
    let file = format!("{}/deploy/compose/haproxy.cfg", env!("CARGO_MANIFEST_DIR"));
    let output = Command::new("haproxy")
        .args(["-c", "-f", &file])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let lines = |text: &str| -> BTreeSet<String> {
        text.lines()
            .map(str::trim)
            .filter(|line| {
                [
                    "http-check",
                    "default-server check",
                    "balance",
                    "timeout",
                    "option",
                ]
                .iter()
                .any(|start| line.starts_with(start))
            })
            .map(str::to_owned)
            .collect()
    };
    let here = lines(&deployed("compose/haproxy.cfg"));
    let missing: Vec<String> = lines(&deployed("haproxy/haproxy.cfg"))
        .difference(&here)
        .filter(|line| *line != "timeout client 5s")
        .cloned()
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_image_is_small_runs_as_nobody_and_has_all_that_the_build_needs() {
    let text = deployed("container/Containerfile");
    let stages: Vec<&str> = text.lines().filter(|line| line.starts_with("FROM ")).collect();
    assert_eq!(stages.len(), 2, "built in one, run in another: {stages:?}");
    let last = text.split(stages[1]).nth(1).unwrap();
    let user = last.lines().find_map(|line| line.strip_prefix("USER ")).unwrap();
    assert!(
        user.split(':').all(|id| id.parse::<u32>().is_ok_and(|id| id > 0)),
        "{user}"
    );
    assert!(last.contains(&format!("--chown={user}")) && !last.contains("\nRUN "));
    // The same one as in Kubernetes, whose own setting wins.
    let all = documents(&deployed("kubernetes/usher.yaml"));
    let pod = all.iter().find(|one| one["kind"] == "Deployment").unwrap();
    let runs = pod["spec"]["template"]["spec"]["securityContext"]["runAsUser"].to_string();
    assert_eq!(user.split(':').next(), Some(&*runs));
    // The compiler is the one that Cargo.toml asks for.
    let cargo: toml::Table = own("Cargo.toml").parse().unwrap();
    let version = cargo["workspace"]["package"]["rust-version"].as_str().unwrap();
    assert!(stages[0].contains(&format!("rust:{version}-")), "{}", stages[0]);
    // What is left out is not needed: every file that the source includes is under a folder that is let in.
    let kept = deployed("container/Containerfile.dockerignore");
    for needed in [
        "Cargo.toml",
        "Cargo.lock",
        ".cargo",
        "src",
        "sdk",
        "loadtest",
        "tests",
    ] {
        assert!(kept.lines().any(|line| line == format!("!{needed}")), "{needed}");
    }
}
