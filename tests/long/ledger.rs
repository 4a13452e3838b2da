//! Ten million plays: import and both reports, beside SQLite alone adding up the same file; and 50,000 plays while nodes, the
//! database and Redis are killed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::usher_in;
use crate::ledger_deaths::every_session_is_one_row;
use crate::redis_servers::directory;

const USERS: u64 = 100_000;
const LABELS: u64 = 2_000;
const TRACKS: u64 = 20_000;

/// Rounds of both models and of SQLite alone.
const ROUNDS: usize = 3;

/// The most that a process may take of memory, in MiB.
const LIMIT_MIB: f64 = 300.0;

/// How many times as long as SQLite alone the pro-rata report may take.
const LIMIT_TIMES: f64 = 2.0;

/// What SQLite does alone: seconds by label of the period, told as JSON with the time that it took.
const BARE: &str = r#"
import json, sqlite3, sys, time
rows = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
start = time.monotonic()
sums = rows.execute("""SELECT coalesce(t.label, ''), sum(p.seconds) FROM plays p
    LEFT JOIN tracks t ON t.tenant = p.tenant AND t.id = p.content
    WHERE p.tenant = 'main' AND p.started_at >= 1551398400000 AND p.started_at < 1554076800000 GROUP BY 1""").fetchall()
print(json.dumps({"took": time.monotonic() - start, "sums": dict(sums)}))
"#;

/// Forgets the sums of days, as if no node had made them yet.
const FORGET: &str = r#"
import sqlite3, sys
rows = sqlite3.connect(sys.argv[1])
rows.execute("INSERT INTO stale_days (tenant, day, version) SELECT DISTINCT tenant, day, 0 FROM play_days")
rows.commit()
"#;

/// How many plays; `USHER_LEDGER_PLAYS` for fewer.
fn plays() -> u64 {
    std::env::var("USHER_LEDGER_PLAYS").map_or(10_000_000, |plays| plays.parse().unwrap())
}

/// A number that looks random, the same in every run (splitmix64).
fn mixed(number: u64) -> u64 {
    let number = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

fn write(dir: &Path, name: &str, header: &str, rows: u64, row: impl Fn(u64) -> String) {
    let mut file = BufWriter::new(File::create(dir.join(name)).unwrap());
    writeln!(file, "{header}").unwrap();
    for number in 0..rows {
        writeln!(file, "{}", row(number)).unwrap();
    }
    file.flush().unwrap();
}

fn files(dir: &Path) {
    write(
        dir,
        "users.csv",
        "user_id;product_type;fee;origin",
        USERS,
        |user| {
            let fee = ["7,99", "14,99"][usize::from(user % 3 == 0)];
            format!(
                "u{user};premium;{fee};{}",
                ["web", "app_store"][usize::from(user % 2 == 0)]
            )
        },
    );
    write(dir, "tracks.csv", "track id;track name;label", TRACKS, |track| {
        let label = if track % 100 == 0 {
            String::new()
        } else {
            format!("label-{:04}", track % LABELS)
        };
        format!("t{track};Track {track};{label}")
    });
    write(
        dir,
        "plays.csv",
        "date;user_id;region;track id;seconds",
        plays(),
        |play| {
            let (one, two) = (mixed(play), mixed(play ^ 0xFFFF_0000_0000_0000));
            // Some tracks are played far more than others.
            let track = (two % TRACKS) * (two / TRACKS % TRACKS) / TRACKS;
            format!(
                "{:02}/03/2019;u{};{};t{track};{}",
                one % 31 + 1,
                one / 31 % USERS,
                ["NL", "be"][usize::from(one & (1 << 60) == 0)],
                two / TRACKS / TRACKS % 7_000 + 30
            )
        },
    );
}

/// What a command took.
struct Took {
    stdout: Vec<u8>,
    seconds: f64,
    /// The most memory that was resident, in MiB.
    mib: f64,
}

/// Runs a command, and watches its memory.
fn run(dir: &Path, arguments: &[&str]) -> Took {
    let start = Instant::now();
    let output = File::create(dir.join("stdout")).unwrap();
    let mut command = usher_in(dir);
    let mut child = command
        .args(arguments)
        .stdout(output)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut kib, file) = (0.0_f64, format!("/proc/{}/status", child.id()));
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let peak = text
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix(" kB"));
        kib = peak.map_or(kib, |peak| peak.trim().parse::<f64>().unwrap().max(kib));
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(status.success(), "{arguments:?}: {status}");
    Took {
        stdout: std::fs::read(dir.join("stdout")).unwrap(),
        seconds: start.elapsed().as_secs_f64(),
        mib: kib / 1024.0,
    }
}

fn report(dir: &Path, model: &str) -> Took {
    let period = ["--from", "2019-03-01", "--to", "2019-04-01", "--format", "json"];
    let took = run(
        dir,
        &[&["report", "royalties", "--model", model], &period[..]].concat(),
    );
    eprintln!("  {model}: {:.2} s, {:.0} MiB", took.seconds, took.mib);
    assert!(took.mib < LIMIT_MIB, "{:.0} MiB", took.mib);
    took
}

fn python(program: &str, database: &Path) -> Vec<u8> {
    let done = Command::new("python3")
        .args(["-c", program])
        .arg(database)
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    done.stdout
}

/// What SQLite takes alone, in seconds, and what it finds.
fn bare(database: &Path) -> (f64, BTreeMap<String, i64>) {
    let answer: Value = serde_json::from_slice(&python(BARE, database)).unwrap();
    let took = answer["took"].as_f64().unwrap();
    eprintln!("  SQLite alone: {took:.2} s");
    (took, serde_json::from_value(answer["sums"].clone()).unwrap())
}

/// The report says of every label what SQLite says.
fn agree(report: &[u8], mut sums: BTreeMap<String, i64>) {
    let report: Value = serde_json::from_slice(report).unwrap();
    assert_eq!(
        report["unlabelled"]["seconds"],
        sums.remove("").unwrap_or_default()
    );
    let rows = report["rows"].as_array().unwrap().iter();
    let found: BTreeMap<String, i64> = rows
        .map(|row| {
            (
                row["label"].as_str().unwrap().to_owned(),
                row["seconds"].as_i64().unwrap(),
            )
        })
        .collect();
    assert_eq!(found, sums);
}

/// A directory that goes with the test.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn ten_million_plays_are_imported_and_paid() {
    let scratch = Scratch(directory("ledger"));
    let dir = &*scratch.0;
    files(dir);
    for kind in ["users", "tracks", "plays"] {
        let file = format!("{kind}.csv");
        let options = ["--separator", ";", "--decimal-comma", "--date-format", "%d/%m/%Y"];
        let took = run(dir, &[&["import", kind, &file], &options[..]].concat());
        let lines = String::from_utf8_lossy(&took.stdout).replace('\n', ", ");
        eprintln!("import {kind}: {lines}{:.1} s, {:.0} MiB", took.seconds, took.mib);
        assert!(took.mib < LIMIT_MIB, "{:.0} MiB", took.mib);
    }
    let database = dir.join("data/usher.db");
    let mut kept: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    for (sums, what) in [(true, "with the sums of days"), (false, "play by play")] {
        if !sums {
            python(FORGET, &database);
        }
        let (mut alone, mut ours) = (f64::MAX, f64::MAX);
        for round in 1..=ROUNDS {
            eprintln!("round {round}, {what}");
            let (took, found) = bare(&database);
            alone = alone.min(took);
            for model in ["pro_rata", "user_centric"] {
                // Money of every user is the same work with the sums and without.
                if model == "user_centric" && !sums {
                    continue;
                }
                let took = report(dir, model);
                if model == "pro_rata" {
                    ours = ours.min(took.seconds);
                    agree(&took.stdout, found.clone());
                }
                let first = kept.entry(model).or_insert_with(|| took.stdout.clone());
                assert_eq!(*first, took.stdout, "{model}, round {round}");
            }
        }
        eprintln!("pro rata {what}: {:.2} times SQLite alone", ours / alone);
        assert!(
            ours <= LIMIT_TIMES * alone,
            "{ours:.2} s, SQLite alone {alone:.2} s"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_thousand_plays_whoever_is_killed() {
    every_session_is_one_row(50_000, 20, 11, Duration::from_secs(300)).await;
}
