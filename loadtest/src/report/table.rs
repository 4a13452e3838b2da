//! The table at the end of a run.
//!
//! Owns: its layout, and how numbers are written for people. Called by: [`super::write`] and the HTML report.

use std::fmt::Write as _;

use crate::outcome::{Outcome, Report};

/// Failures that are shown; the JSON has all.
const FAILURES: usize = 12;

/// The report as text.
#[must_use]
pub fn text(report: &Report) -> String {
    let mut text = String::new();
    for run in &report.runs {
        let _ = writeln!(
            text,
            "{} against {} ({}), {:.0} s",
            run.scenario,
            run.against,
            run.urls.join(" "),
            run.took_s
        );
    }
    text.push('\n');
    text += &aligned(&figures(report));
    text.push('\n');
    let rows = latencies(report);
    if rows.len() > 1 {
        text += &aligned(&rows);
        text.push('\n');
    }
    for run in &report.runs {
        text += &failures(run);
        text += &verdict(run);
    }
    text
}

/// Figures, a column for each run, and the ratio.
pub(super) fn figures(report: &Report) -> Vec<Vec<String>> {
    let mut head = vec!["figure".to_owned()];
    head.extend(report.runs.iter().map(|run| run.against.clone()));
    if let [first, second, ..] = report.runs.as_slice() {
        head.push(format!("{} / {}", first.against, second.against));
    }
    let mut rows = vec![head];
    let mut names: Vec<&str> = Vec::new();
    for figure in report.runs.iter().flat_map(|run| &run.figures) {
        if !names.contains(&figure.name.as_str()) {
            names.push(&figure.name);
        }
    }
    for name in names {
        let mut row = vec![name.to_owned()];
        for run in &report.runs {
            let figure = run.figures.iter().find(|figure| figure.name == name);
            row.push(figure.map_or("-".to_owned(), |figure| with_unit(figure.value, figure.unit)));
        }
        if report.runs.len() > 1 {
            let ratio = report.ratios.iter().find(|ratio| ratio.name == name);
            row.push(ratio.map_or(String::new(), |ratio| format!("{:.2}", ratio.value)));
        }
        rows.push(row);
    }
    rows
}

/// Latencies, a row for each run and name.
pub(super) fn latencies(report: &Report) -> Vec<Vec<String>> {
    let head = [
        "latency, ms",
        "of",
        "count",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "longest",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for run in &report.runs {
        for (name, q) in &run.latencies {
            let mut row = vec![name.clone(), run.against.clone(), q.count.to_string()];
            row.extend([q.p50_ms, q.p90_ms, q.p99_ms, q.p999_ms, q.max_ms].map(number));
            rows.push(row);
        }
    }
    rows
}

/// What failed, the most frequent first.
fn failures(run: &Outcome) -> String {
    let mut text = String::new();
    let mut causes: Vec<(&String, &u64)> = run.failures.iter().collect();
    causes.sort_by(|a, b| b.1.cmp(a.1));
    for (cause, count) in causes.iter().take(FAILURES) {
        let _ = writeln!(text, "{}: {count} x {cause}", run.against);
    }
    if causes.len() > FAILURES {
        let _ = writeln!(
            text,
            "{}: {} more causes, in the JSON",
            run.against,
            causes.len() - FAILURES
        );
    }
    text
}

/// The verdict in words.
pub(super) fn verdict(run: &Outcome) -> String {
    let Some(verdict) = &run.verdict else {
        return String::new();
    };
    let mut text = if verdict.holds() {
        format!(
            "{}: the limit held: never more than {} at once, in {} grants; {} of {} accounts were full\n",
            run.against, verdict.most, verdict.grants, verdict.full, verdict.accounts
        )
    } else {
        format!(
            "{}: THE LIMIT WAS BROKEN {} times:\n",
            run.against, verdict.broken
        )
    };
    for line in &verdict.told {
        let _ = writeln!(text, "  {line}");
    }
    text
}

pub(crate) fn with_unit(value: f64, unit: &str) -> String {
    match unit {
        "" => number(value),
        "/s" => format!("{}/s", number(value)),
        unit => format!("{} {unit}", number(value)),
    }
}

/// Three digits, or all before the point, with thousands apart.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 100.0 || value == value.trunc() {
        return grouped(value);
    }
    let digits = if size >= 10.0 { 1 } else { 2 };
    let text = format!("{value:.digits$}");
    if size < 1.0 { format!("{value:.3}") } else { text }
}

fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 && digits != "0" {
        format!("-{text}")
    } else {
        text
    }
}

/// Columns of one width; the first is flush left, the others right.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            if line.is_empty() {
                let _ = write!(line, "{cell:<width$}");
            } else {
                let _ = write!(line, "  {cell:>width$}");
            }
        }
        let _ = writeln!(text, "{}", line.trim_end());
        if number == 0 {
            let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
            let _ = writeln!(text, "{}", rule.join("  "));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        for (value, text) in [
            (0.0, "0"),
            (1_234_567.8, "1,234,568"),
            (12.34, "12.3"),
            (1.234, "1.23"),
            (0.1234, "0.123"),
            (-1_500.0, "-1,500"),
            (999.0, "999"),
        ] {
            assert_eq!(number(value), text);
        }
        assert_eq!(with_unit(812.0, "/s"), "812/s");
    }

    #[test]
    fn two_runs_show_their_ratio() {
        let run = |against: &str, value: f64| {
            let mut run = Outcome {
                scenario: "hold",
                against: against.to_owned(),
                ..Outcome::default()
            };
            run.figure("RSS per session", value, "KiB");
            run
        };
        let report = Report::new(vec![run("gateway", 12.0), run("floor", 8.0)]);
        let text = text(&report);
        assert!(text.contains("gateway / floor"), "{text}");
        assert!(
            text.contains("RSS per session   12 KiB  8 KiB             1.50"),
            "{text}"
        );
    }
}
