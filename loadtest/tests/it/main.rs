//! The tool against a real gateway, small: whether it holds, contends, serves a floor, and tells what it saw.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod gateway;

use std::fs;
use std::process::Output;

use serde_json::Value;

use gateway::Gateway;

/// The report that a command wrote to stdout.
fn report(output: &Output) -> Value {
    let told = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {told}"))
}

fn figure(run: &Value, name: &str) -> f64 {
    let figures = run["figures"].as_array().unwrap();
    let found = figures.iter().find(|figure| figure["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {run}"))["value"]
        .as_f64()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holds_sessions_and_a_floor_beside_them() {
    let gateway = Gateway::start().await;
    let page = gateway.dir.join("report.html");
    let page_option = page.to_str().unwrap();
    let arguments = [
        "hold",
        "-n",
        "40",
        "--rate",
        "100",
        "--settle",
        "100ms",
        "--for",
        "2s",
        "--storms",
        "1",
        "--workers",
        "2",
        "--sources",
        "3",
        "--with-floor",
        "--json",
        "-",
        "--html",
        page_option,
    ];
    let output = gateway.loadtest(&arguments).await;
    assert!(output.status.success(), "{output:?}");
    let report = report(&output);
    let runs = report["runs"].as_array().unwrap();
    assert_eq!(
        (&runs[0]["against"], &runs[1]["against"]),
        (&"gateway".into(), &"floor".into())
    );
    for run in runs {
        assert!((figure(run, "sessions held") - 40.0).abs() < 0.5, "{run}");
        assert_eq!(run["failures"], serde_json::json!({}));
        // Once before the storm, once in it.
        assert_eq!(run["latencies"]["start"]["count"], 80);
        assert!(figure(run, "RSS") > 1.0 && !run["seconds"].as_array().unwrap().is_empty());
    }
    let ratios = report["ratios"].as_array().unwrap();
    assert!(ratios.iter().any(|ratio| ratio["name"] == "RSS"), "{ratios:?}");
    let page = fs::read_to_string(page).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.contains("gateway / floor"));
    assert!(!String::from_utf8_lossy(&output.stdout).contains(gateway::SECRET));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn judges_whether_the_limit_held() {
    let gateway = Gateway::start().await;
    let contend = async |limit: &str| {
        let arguments = [
            "contend",
            "-n",
            "4",
            "--players",
            "5",
            "--limit",
            limit,
            "--for",
            "3s",
            "--play",
            "200ms",
            "--cut",
            "0",
            "--json",
            "-",
        ];
        gateway.loadtest(&arguments).await
    };
    let output = contend("3").await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let verdict = &report(&output)["runs"][0]["verdict"];
    assert_eq!(
        (&verdict["broken"], &verdict["most"], &verdict["full"]),
        (&0.into(), &3.into(), &4.into())
    );
    // The gateway grants three; whoever promised two is told.
    let output = contend("2").await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let verdict = &report(&output)["runs"][0]["verdict"];
    assert!(verdict["broken"].as_u64() > Some(0), "{verdict}");
    assert!(
        verdict["told"][0].as_str().unwrap().contains("3 slots of 2"),
        "{verdict}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn takes_over_zaps_and_ramps() {
    let gateway = Gateway::start().await;
    let output = gateway
        .loadtest(&[
            "takeover", "-n", "5", "--rate", "20", "--for", "1s", "--json", "-",
        ])
        .await;
    let run = &report(&output)["runs"][0];
    assert!((figure(run, "take-overs") - 20.0).abs() < 1.5, "{run}");
    let output = gateway
        .loadtest(&[
            "zap",
            "--rate",
            "20",
            "--for",
            "1s",
            "--play",
            "100ms",
            "--replace",
            "--json",
            "-",
        ])
        .await;
    let run = &report(&output)["runs"][0];
    assert!((figure(run, "plays") - 40.0).abs() < 3.5, "{run}");
    let output = gateway
        .loadtest(&[
            "ramp",
            "--at",
            "50",
            "--step",
            "1s",
            "--until",
            "tls",
            "--resumption",
            "--json",
            "-",
        ])
        .await;
    let run = &report(&output)["runs"][0];
    let resumed = run["counts"]["TLS resumed"].as_u64().unwrap_or(0);
    assert!(resumed > 30, "{run}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tells_what_is_wrong() {
    let gateway = Gateway::start().await;
    let quick = ["--settle", "0s", "--for", "1s", "-n", "2"];
    let bad: [(&[&str], i32, &str); 4] = [
        (
            &["hold", "--url", "ws://127.0.0.1:1"],
            2,
            "must begin with wss://",
        ),
        (&["hold", "--ca", "/nowhere"], 2, "--ca /nowhere"),
        (&["contend", "--with-floor"], 2, "needs slots"),
        (
            &["hold", "--url", "wss://127.0.0.1:1", "--admin", "127.0.0.1:1"],
            1,
            "--admin",
        ),
    ];
    for (arguments, code, told) in bad {
        let mut all = arguments.to_vec();
        if arguments[0] == "hold" {
            all.extend(quick);
        }
        let output = gateway.loadtest_bare(&all).await;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{all:?}: {stderr}");
        assert!(stderr.contains(told), "{all:?}: {stderr}");
        assert!(output.stdout.is_empty());
    }
}
