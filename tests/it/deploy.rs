//! The files of `deploy/` are what the documents say: they parse, the programs accept them, and their times fit.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::balancer::{deployed, with_values};
use crate::harness::{Node, SECRET};
use crate::redis_servers::Redis;
use crate::stage::Place;

/// The documents of a YAML file, by Python's reader.
pub(crate) fn documents(text: &str) -> Vec<Value> {
    let place = Place::new();
    place.write("file.yaml", text);
    let read = "import json, sys, yaml; json.dump(list(yaml.safe_load_all(open(sys.argv[1]))), sys.stdout)";
    let output = Command::new("python3")
        .args(["-c", read])
        .arg(place.path().join("file.yaml"))
        .output()
        .expect("python3 is installed");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The effective configuration of a settings file.
pub(crate) fn effective(toml: &str) -> toml::Table {
    let place = Place::with(toml);
    let ran = place.run(
        &[
            ("USHER_AUTH__HMAC_SECRET", SECRET),
            ("USHER_REDIS__PASSWORD", "a-password"),
        ],
        &["check-config", "--config", "usher.toml"],
    );
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    ran.stdout
        .parse()
        .unwrap_or_else(|e| panic!("{e}: {}", ran.stdout))
}

pub(crate) fn seconds(text: &str) -> u64 {
    text.strip_suffix('s')
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("{text}"))
}

/// `drain.delay` plus `drain.deadline`, in seconds.
pub(crate) fn drain(settings: &toml::Table) -> u64 {
    let drain = &settings["drain"];
    ["delay", "deadline"]
        .iter()
        .map(|key| seconds(drain[key].as_str().unwrap()))
        .sum()
}

#[test]
fn the_gateways_settings_are_accepted() {
    let settings = effective(&deployed("usher.toml"));
    assert_eq!(settings["listen"]["proxy_protocol"].as_bool(), Some(true));
    // systemd waits for the drain.
    let unit = deployed("systemd/usher.service");
    let stop = unit
        .lines()
        .find_map(|line| line.strip_prefix("TimeoutStopSec="))
        .unwrap();
    assert!(seconds(stop) > drain(&settings), "{stop}");
}

#[test]
fn haproxy_accepts_its_file_and_cuts_nobody() {
    let text = deployed("haproxy/haproxy.cfg");
    let file = format!("{}/deploy/haproxy/haproxy.cfg", env!("CARGO_MANIFEST_DIR"));
    let output = Command::new("haproxy")
        .args(["-c", "-f", &file])
        .output()
        .expect("haproxy is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("WARNING"), "{said}");
    assert!(!text.contains("on-marked-down"));
    // A leaving node is noticed before it stops to take players.
    let delay = effective(&deployed("usher.toml"))["drain"]["delay"]
        .as_str()
        .map(seconds)
        .unwrap();
    assert!(text.contains("inter 1s") && text.contains("fall 2") && text.contains("timeout check 1s"));
    assert!(delay > 2 * (1 + 1));
}

#[test]
fn the_kubernetes_manifest_fits_the_drain() {
    let all = documents(&deployed("kubernetes/usher.yaml"));
    let kind = |kind: &str| all.iter().filter(|one| one["kind"] == kind).collect::<Vec<_>>();
    for (name, count) in [
        ("ConfigMap", 1),
        ("Secret", 2),
        ("Deployment", 1),
        ("Service", 2),
        ("PodDisruptionBudget", 1),
    ] {
        assert_eq!(kind(name).len(), count, "{name}");
    }
    let settings = effective(kind("ConfigMap")[0]["data"]["usher.toml"].as_str().unwrap());
    let deployment = kind("Deployment")[0];
    let pod = &deployment["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let sleep = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        .as_u64()
        .unwrap();
    let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    assert!(grace >= sleep + drain(&settings) + 3, "{grace}");
    assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/readyz");
    assert_eq!(container["startupProbe"]["httpGet"]["path"], "/readyz");
    assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/healthz");
    assert_eq!(
        deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"],
        0
    );
    let window = seconds(settings["drain"]["window"].as_str().unwrap());
    assert!(deployment["spec"]["minReadySeconds"].as_u64().unwrap() >= window);
    // What selects pods selects these.
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    assert_eq!(deployment["spec"]["selector"]["matchLabels"], *labels);
    assert!(
        kind("Service")
            .iter()
            .all(|service| service["spec"]["selector"] == *labels)
    );
    assert_eq!(
        kind("PodDisruptionBudget")[0]["spec"]["selector"]["matchLabels"],
        *labels
    );
    // Every file that is named comes out of a volume.
    let secrets = kind("Secret")[0]["stringData"].as_object().unwrap();
    for file in ["hmac", "redis-password", "signing-key.pem"] {
        assert!(secrets.contains_key(file), "{file}");
    }
}

/// The ACL of `users.acl` and of the operations guide is all that a gateway needs, and no more.
#[tokio::test]
async fn the_documented_acl_and_redis_settings_are_enough() {
    let acl = deployed("redis/users.acl");
    let rule = acl.lines().find(|line| line.starts_with("user usher ")).unwrap();
    let guide = fs::read_to_string(format!("{}/docs/operations.md", env!("CARGO_MANIFEST_DIR"))).unwrap();
    assert!(
        guide.contains(rule),
        "the guide tells another rule than users.acl"
    );

    let place = Place::new();
    place.write(
        "users.acl",
        &acl.replace("CHANGE-ME", "a-password")
            .replace("user default off", "user default on nopass ~* &* +@all"),
    );
    let file = place.path().join("users.acl").display().to_string();
    place.write(
        "redis.conf",
        &with_values(&deployed("redis/redis.conf"), &[("/etc/redis/users.acl", file)]),
    );
    let config = place.path().join("redis.conf").display().to_string();
    let redis = Redis::start(&["--include", &config]).await;
    let settings = format!(
        "[redis]\nurl = \"{}\"\nusername = \"usher\"\npassword = \"a-password\"\n[drain]\nwindow = \"1s\"",
        redis.url()
    );
    let (mut a, b) = tokio::join!(Node::with(&settings), Node::with(&settings));
    // Everything that the scripts do: start, waiting, word across nodes, resume, lists, an operator's end, a drain.
    let mut first = a.watch("ann", "content=m&device=d1").await;
    let grant = first.next_of("granted").await;
    let mut others = Vec::new();
    for device in ["d2", "d3"] {
        let mut other = b.watch("ann", &format!("content=m&device={device}")).await;
        other.next_of("granted").await;
        others.push(other);
    }
    let mut waiter = b.watch("ann", "content=m&device=d4&on_limit=wait").await;
    waiter.next_of("waiting").await;
    let query = format!("content=m&device=d1&resume={}", grant["resume"].as_str().unwrap());
    let mut resumed = b.watch("ann", &query).await;
    assert_eq!(resumed.next().await["resumed"], true);
    assert_eq!(first.closed().await.0, 4006);
    let list = a.command(&["sessions", "list"]).unwrap();
    assert!(list.contains("d2"), "{list}");
    a.command(&["sessions", "end", "--account", "ann", "--device", "d2"])
        .unwrap();
    assert_eq!(others[0].closed().await.0, 4003);
    waiter.next_of("granted").await;
    a.signal("-TERM");
    assert_eq!(a.exit_within(crate::harness::SOON).await, Some(0));
    assert_eq!(
        b.metric("usher_redis_errors_total{kind=\"refused\"}").await,
        0.0,
        "{}",
        b.log()
    );

    let denied: Vec<redis::Value> = redis::from_redis_value(redis.ask(&["ACL", "LOG"]).await).unwrap();
    assert!(denied.is_empty(), "{denied:?}");

    // And no more: other keys, channels and commands are refused.
    for words in [
        &["HGET", "other", "f"][..],
        &["SSUBSCRIBE", "other"],
        &["KEYS", "*"],
        &["FLUSHALL"],
        &["CONFIG", "GET", "*"],
        &["DEL", "{usher:1}:v1:accounts"],
    ] {
        let answer = redis.text(&[&["ACL", "DRYRUN", "usher"], words].concat()).await;
        assert_ne!(answer, "OK", "{words:?}");
    }
}

/// The commands of the rule are those of the scripts, and those by which a gateway speaks to Redis.
#[test]
fn the_acl_names_every_command_of_the_scripts_and_no_other() {
    let acl = deployed("redis/users.acl");
    let rule = acl.lines().find(|line| line.starts_with("user usher ")).unwrap();
    let allowed: BTreeSet<&str> = rule
        .split(' ')
        .filter_map(|word| word.strip_prefix('+'))
        .collect();
    let mut needed: BTreeSet<String> = ["hello", "ping", "role", "info", "eval", "evalsha", "ssubscribe"]
        .map(str::to_owned)
        .into();
    for file in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/lease/redis/lua")).unwrap() {
        let script = fs::read_to_string(file.unwrap().path()).unwrap();
        let calls = script.split("call('").skip(1);
        needed.extend(calls.filter_map(|rest| Some(rest.split_once('\'')?.0.to_ascii_lowercase())));
    }
    assert_eq!(allowed, needed.iter().map(String::as_str).collect());
}
