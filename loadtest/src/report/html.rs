//! The report as a page: one file that needs nothing else, light or dark as the reader's machine.
//!
//! Owns: what is on the page. Does not: draw the plots ([`super::chart`]). Called by: [`super::write`].

use std::fmt::Write as _;

use crate::outcome::{Outcome, Report};
use crate::stage::Second;

use super::chart::{Line, escape, plot};
use super::table;

/// The page's look.
const STYLE: &str = include_str!("page.css");

/// What each scenario is, in a sentence.
fn about(scenario: &str) -> &'static str {
    match scenario {
        "hold" => "Sessions are opened and kept idle; memory and processor time are the server's own.",
        "ramp" => {
            "Sessions are started faster and faster and left at once, until the server no longer keeps up. \
                   Times count from when each start was meant, whatever became of the earlier ones."
        }
        "beat" => "Every open session asks again as soon as it has its answer (a closed loop).",
        "contend" => "More players than slots try all the time. The verdict is of the players' own log.",
        "zap" => "Short plays start and stop at a steady rate.",
        "takeover" => "Players of full accounts take a slot over; the time is from their word to their slot.",
        "storm" => "A node ends under its players, and they come back, with resume where there is one.",
        "soak" => "Sessions stay while short plays come and go, for long.",
        _ => "",
    }
}

/// The page.
#[must_use]
pub fn page(report: &Report) -> String {
    let first = report.runs.first();
    let scenario = first.map_or("", |run| run.scenario);
    let against: Vec<&str> = report.runs.iter().map(|run| run.against.as_str()).collect();
    let title = format!("{scenario}: {}", against.join(" and "));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width\">\n<title>{0}</title>\n<style>\n{STYLE}</style>\n<main>\n<h1>{0}</h1>\n\
         <p>{1}</p>\n",
        escape(&title),
        escape(about(scenario))
    );
    page += &facts(report);
    for run in &report.runs {
        page += &verdict(run);
    }
    page += "<h2>Figures</h2>\n";
    page += &rows(&table::figures(report));
    page += "<h2>Over time</h2>\n";
    page += &plots(report);
    let latencies = table::latencies(report);
    if latencies.len() > 1 {
        page += "<h2>Latencies</h2>\n";
        page += &rows(&latencies);
    }
    page += &failures(report);
    page + "</main>\n</html>\n"
}

fn facts(report: &Report) -> String {
    let mut list = String::from("<dl>\n");
    let mut fact = |name: &str, value: &str| {
        let _ = writeln!(list, "<dt>{}</dt><dd>{}</dd>", escape(name), escape(value));
    };
    fact("Command", &report.command);
    for run in &report.runs {
        let text = format!(
            "{}; began {}, took {:.0} s",
            run.urls.join(", "),
            run.began,
            run.took_s
        );
        fact(&capital(&run.against), &text);
    }
    fact("Tool", &format!("usher-loadtest {}", report.version));
    list + "</dl>\n"
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| {
        first.to_uppercase().chain(letters).collect()
    })
}

fn verdict(run: &Outcome) -> String {
    let Some(verdict) = &run.verdict else {
        return String::new();
    };
    let class = if verdict.holds() { "good" } else { "bad" };
    format!(
        "<pre class=\"verdict {class}\">{}</pre>\n",
        escape(table::verdict(run).trim_end())
    )
}

fn plots(report: &Report) -> String {
    let lines = |of: &dyn Fn(&Second) -> Option<f64>, name: &str| -> Vec<Line> {
        let line = |run: &Outcome| Line {
            name: format!("{}{name}", run.against),
            points: run
                .seconds
                .iter()
                .map(|second| (second.at_s, of(second)))
                .collect(),
        };
        report.runs.iter().map(line).collect()
    };
    let watched = report.runs.first().map_or("", |run| run.watched);
    let mut latency = lines(&|second| second.p99_ms, " p99");
    latency.extend(lines(&|second| second.p50_ms, " p50"));
    let mut page = plot(&format!("Latency of \"{watched}\""), "ms, each second", &latency);
    page += &plot(
        "Sessions",
        "open, as the players count",
        &lines(&|second| Some(crate::stage::to_f64(second.sessions)), ""),
    );
    page += &plot(
        "Rate",
        "per second",
        &lines(&|second| Some(second.per_second), ""),
    );
    page += &plot(
        "Server memory",
        "MiB resident",
        &lines(&|second| second.rss_mib, ""),
    );
    page += &plot(
        "Server CPU",
        "processors in use",
        &lines(&|second| second.cpu, ""),
    );
    let failed = report
        .runs
        .iter()
        .flat_map(|run| &run.seconds)
        .any(|second| second.failures > 0);
    if failed {
        let failures = lines(&|second| Some(crate::stage::to_f64(second.failures)), "");
        page += &plot("Failures", "in each second", &failures);
    }
    page
}

fn failures(report: &Report) -> String {
    let mut list = vec![["failures", "of", "count"].map(str::to_owned).to_vec()];
    for run in &report.runs {
        for (cause, count) in &run.failures {
            list.push(vec![cause.clone(), run.against.clone(), count.to_string()]);
        }
    }
    if list.len() == 1 {
        return "<p>Nothing failed.</p>\n".to_owned();
    }
    format!("<h2>Failures</h2>\n{}", rows(&list))
}

/// A table, its first row the head.
fn rows(rows: &[Vec<String>]) -> String {
    let mut text = String::from("<div class=\"wide\"><table>\n");
    for (number, row) in rows.iter().enumerate() {
        let tag = if number == 0 { "th" } else { "td" };
        text += "<tr>";
        for cell in row {
            let _ = write!(text, "<{tag}>{}</{tag}>", escape(cell));
        }
        text += "</tr>\n";
    }
    text + "</table></div>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_needs_nothing_else() {
        let run = Outcome {
            scenario: "hold",
            against: "gateway".to_owned(),
            seconds: vec![
                Second {
                    sessions: 3,
                    ..Second::default()
                };
                3
            ],
            ..Outcome::default()
        };
        let page = page(&Report::new(vec![run]));
        for foreign in ["http://", "https://", "<script", "<link", "url("] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        assert!(
            page.contains("<svg")
                && page.contains("Nothing failed.")
                && page.contains("prefers-color-scheme")
        );
    }
}
