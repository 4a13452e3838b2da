//! `RESULTS.md`: the table of the issue, and what else was measured beside it.
//!
//! Owns: which figure goes where, and the method in words. Does not: measure. Called by: [`super::write`].

use std::fmt::Write as _;

use crate::report::table::{number, with_unit};

use super::certificate::Key;
use super::rows::{SIZES, SPREAD, growth_run, scaled, tls_run};
use super::servers::{Kind, Yard};
use super::{Measured, Scale, machine};

const METHOD: &str = include_str!("method.md");

/// A row of the main table.
struct Row {
    name: &'static str,
    run: String,
    figure: &'static str,
    must: &'static str,
    aim: &'static str,
}

/// The document.
pub(super) fn text(yard: &Yard, kinds: &[Kind], scale: Scale, measured: &Measured) -> String {
    let mut text =
        String::from("# Results\n\nWritten by `usher-loadtest compare`; edit nothing here by hand.\n\n");
    text += &facts(yard, scale, measured);
    text += &main_table(scale, measured);
    text += &derived(scale, measured);
    text += &holding(kinds, measured);
    text += &growth(scale, measured);
    text += &failed(measured);
    let _ = write!(text, "\n{METHOD}");
    text
}

fn facts(yard: &Yard, scale: Scale, measured: &Measured) -> String {
    let mut text = String::new();
    let mut fact = |name: &str, value: &str| {
        let _ = writeln!(text, "* {name}: {value}");
    };
    fact("when", &machine::today());
    fact("machine", &machine::machine());
    fact("gateway", &machine::version(&yard.usher, "--version"));
    if let Some(commit) = machine::commit() {
        fact("commit", &commit);
    }
    let redis = machine::version(std::path::Path::new("redis-server"), "--version");
    fact(
        "Redis",
        redis.split_once(" sha=").map_or(&redis, |(version, _)| version),
    );
    if let Ok(versions) = yard.versions.lock() {
        for (kind, version) in versions.iter() {
            fact(kind.name(), version);
        }
    }
    let quick = if scale.quick {
        "; `--quick`: a tenth of the sessions, short measurements"
    } else {
        ""
    };
    fact(
        "rounds",
        &format!("{}, of which the median is shown{quick}", scale.rounds),
    );
    let fewer = measured.fewer(scale.rounds).into_iter();
    let fewer: Vec<String> = fewer
        .map(|(kind, run, rounds)| format!("{} {run} {rounds}", kind.name()))
        .collect();
    if !fewer.is_empty() {
        fact("fewer rounds", &fewer.join(", "));
    }
    text + "\n"
}

fn rows() -> Vec<Row> {
    let row = |name, run: &str, figure, must, aim| Row {
        name,
        run: run.to_owned(),
        figure,
        must,
        aim,
    };
    vec![
        row(
            "RSS per idle session at {n}",
            "hold",
            "RSS per session",
            "9 KiB",
            "6.0 KiB",
        ),
        row(
            "the same after a storm of {n}, twice",
            "hold",
            "RSS per session after storms",
            "",
            "",
        ),
        row(
            ".. over the first",
            "hold",
            "RSS after storms / before",
            "1.20",
            "1.10",
        ),
        row(
            "admissions per second",
            "ramp",
            "saturation",
            "0.75 of the floor",
            "0.9",
        ),
        row(
            "admissions per processor second of the server",
            "ramp",
            "per processor second",
            "",
            "",
        ),
        row(
            "admission p50 at half of saturation",
            "ramp",
            "p50 at half",
            "",
            "",
        ),
        row(".. p99", "ramp", "p99 at half", "", ""),
        row(".. p99 / p50", "ramp", "p99 / p50 at half", "5", "3"),
        row(
            ".. processor time that the host took meanwhile",
            "ramp",
            "taken by the host at half",
            "",
            "",
        ),
        row(
            "CPU of a full handshake, P-256",
            &tls_run(Key::P256, false),
            "CPU per admission",
            "",
            "",
        ),
        row(
            ".. resumed",
            &tls_run(Key::P256, true),
            "CPU per admission",
            "",
            "",
        ),
        row(
            "CPU of a full handshake, RSA-2048",
            &tls_run(Key::Rsa2048, false),
            "CPU per admission",
            "",
            "",
        ),
        row(
            ".. resumed",
            &tls_run(Key::Rsa2048, true),
            "CPU per admission",
            "",
            "",
        ),
        row("heartbeats per second", "beat", "heartbeats", "", ""),
        row(
            ".. per processor second",
            "beat",
            "heartbeats per processor second",
            "0.8 of the floor",
            "0.95",
        ),
        row(
            "CPU of {n} idle sessions",
            "hold",
            "CPU while idle",
            "1.3x the floor",
            "1.1x",
        ),
        row(
            "storm of {n}: all back after",
            "storm",
            "all back after",
            "1.3x the floor",
            "1.1x",
        ),
        row(
            "Redis round trips per session-hour at {n}",
            "hold",
            "Redis round trips per session-hour",
            "3 beside the fixed",
            "",
        ),
    ]
}

fn main_table(scale: Scale, measured: &Measured) -> String {
    let mut text = String::from(
        "| figure | gateway | floor | gateway / floor | Node ws + redis-semaphore | gateway / Node | must | aim |\n\
         |---|--:|--:|--:|--:|--:|---|---|\n",
    );
    for row in rows() {
        let value = |kind| measured.median(kind, &row.run, row.figure);
        let (gateway, floor, node) = (value(Kind::Gateway), value(Kind::Floor), value(Kind::NodeWs));
        let unit = unit(measured, &row.run, row.figure);
        let shown = |value: Option<f64>| value.map_or("-".to_owned(), |value| with_unit(value, unit));
        let ratio = |other| {
            let ratio = measured.ratio((Kind::Gateway, other), &row.run, row.figure);
            ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"))
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            row.name.replace("{n}", &number(f64::from(scale.sessions))),
            shown(gateway),
            shown(floor),
            ratio(Kind::Floor),
            shown(node),
            ratio(Kind::NodeWs),
            row.must,
            row.aim
        );
    }
    text + "\n"
}

fn unit<'m>(measured: &'m Measured, run: &str, figure: &str) -> &'m str {
    let found = measured
        .samples
        .iter()
        .find(|sample| sample.run == run && sample.figure == figure);
    found.map_or("", |sample| &sample.unit)
}

/// Ratios within one server.
fn derived(scale: Scale, measured: &Measured) -> String {
    let mut text = String::new();
    for (key, must) in [
        (Key::P256, "must 0.9"),
        (Key::Rsa2048, "told; 0.5 or better is expected"),
    ] {
        let cost = |resumed| measured.median(Kind::Gateway, &tls_run(key, resumed), "CPU per admission");
        if let Some((full, resumed)) = cost(false).zip(cost(true)) {
            let _ = writeln!(
                text,
                "* Server CPU of a resumed handshake over a full one, {key:?}: {:.2} ({must}).",
                resumed / full
            );
        }
    }
    let fixed = measured.median(Kind::Gateway, &growth_run(0), "Redis round trips per hour");
    let at = |size: u32| measured.median(Kind::Gateway, &growth_run(size), "Redis round trips per hour");
    if let Some((fixed, all)) = fixed.zip(at(SIZES[1])) {
        let sessions = f64::from(scaled(scale, SIZES[1]));
        let each = (all - fixed) / sessions;
        let _ = writeln!(
            text,
            "* Redis round trips per session-hour at {} sessions, beside the fixed {} an hour of a node: {}.",
            number(sessions),
            number(fixed),
            number(each.max(0.0))
        );
    }
    if text.is_empty() { text } else { text + "\n" }
}

/// What all servers need only to hold.
fn holding(kinds: &[Kind], measured: &Measured) -> String {
    let mut text = String::from(
        "## Holding idle TLS sockets\n\n| server | RSS per session | CPU while idle | CPU per start |\n|---|--:|--:|--:|\n",
    );
    for kind in kinds {
        let shown = |figure: &str| {
            let value = measured.median(*kind, "hold", figure);
            value.map_or("-".to_owned(), |value| {
                with_unit(value, unit(measured, "hold", figure))
            })
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} |",
            kind.name(),
            shown("RSS per session"),
            shown("CPU while idle"),
            shown("CPU per start")
        );
    }
    text + "\n"
}

/// How the gateway's cost grows.
fn growth(scale: Scale, measured: &Measured) -> String {
    let mut text = String::from(
        "## How cost grows\n\n| sessions | RSS | RSS per session | CPU while idle | CPU per start | Redis round trips per hour |\n\
         |--:|--:|--:|--:|--:|--:|\n",
    );
    for size in std::iter::once(0).chain(SIZES) {
        let run = growth_run(size);
        let shown = |figure: &str| {
            let value = measured.median(Kind::Gateway, &run, figure);
            value.map_or("-".to_owned(), |value| {
                with_unit(value, unit(measured, &run, figure))
            })
        };
        let several = if size > SIZES[2] {
            format!(" ({SPREAD} gateways)")
        } else {
            String::new()
        };
        let _ = writeln!(
            text,
            "| {}{several} | {} | {} | {} | {} | {} |",
            number(f64::from(scaled(scale, size))),
            shown("RSS"),
            shown("RSS per session"),
            shown("CPU while idle"),
            shown("CPU per start"),
            shown("Redis round trips per hour")
        );
    }
    text
}

fn failed(measured: &Measured) -> String {
    if measured.failed.is_empty() {
        return String::new();
    }
    let mut text = String::from("\n## What failed\n\n");
    for line in &measured.failed {
        let _ = writeln!(text, "* {line}");
    }
    text
}
