//! Plots over time, as inline SVG.
//!
//! Owns: one plot with its axes, lines and legend. Does not: know what it shows. Called by: [`super::html`].
//!
//! Lines take their colours from the page's style sheet (`.line-0` ..), so that they fit both themes.

use std::fmt::Write as _;

use super::table::number;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 28.0;

/// Lines of the grid, about.
const STEPS: f64 = 4.0;

/// One line; points are seconds and values, a gap is a missing value.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, Option<f64>)>,
}

/// A plot with its heading; nothing when there is nothing to show.
pub(super) fn plot(title: &str, unit: &str, lines: &[Line]) -> String {
    let values = || {
        lines
            .iter()
            .flat_map(|line| &line.points)
            .filter_map(|(_, value)| *value)
    };
    let highest = values().fold(0.0, f64::max);
    if highest <= 0.0 {
        return String::new();
    }
    let end = lines
        .iter()
        .flat_map(|line| &line.points)
        .map(|(at, _)| *at)
        .fold(1.0, f64::max);
    let step = nice(highest / STEPS);
    let top = (highest / step).ceil().max(1.0) * step;
    let x = |at: f64| LEFT + at / end * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| TOP + (1.0 - value / top) * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!(
        "<figure><figcaption><b>{}</b> {}{}</figcaption>\n<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
         aria-label=\"{}\">\n",
        escape(title),
        escape(unit),
        legend(lines),
        escape(title)
    );
    let mut value = 0.0;
    while value <= top + step / 2.0 {
        let at = y(value);
        let _ = writeln!(
            svg,
            "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{:.1}\"/><text class=\"y\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            at + 4.0,
            number(value)
        );
        value += step;
    }
    let step = nice_time(end / 6.0);
    let mut at = 0.0;
    while at <= end {
        let _ = writeln!(
            svg,
            "<text class=\"x\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            x(at),
            HEIGHT - 8.0,
            clock(at)
        );
        at += step;
    }
    for (number, line) in lines.iter().enumerate() {
        let mut path = String::new();
        let mut drawing = false;
        for (at, value) in &line.points {
            let Some(value) = value else {
                drawing = false;
                continue;
            };
            // A lonely point shows as a dot: the ends of lines are round.
            let (command, dot) = if drawing { ('L', "") } else { ('M', "h0") };
            let _ = write!(path, "{command}{:.1} {:.1}{dot}", x(*at), y(*value));
            drawing = true;
        }
        let _ = writeln!(svg, "<path class=\"line line-{number}\" d=\"{path}\"/>");
    }
    svg + "</svg></figure>\n"
}

fn legend(lines: &[Line]) -> String {
    if lines.len() < 2 {
        return String::new();
    }
    let entries = lines
        .iter()
        .enumerate()
        .map(|(number, line)| format!("<span class=\"key key-{number}\">{}</span>", escape(&line.name)));
    entries.collect()
}

/// The next of 1, 2, 5, 10, .. at or above.
fn nice(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let factor = [1.0, 2.0, 5.0]
        .into_iter()
        .find(|factor| factor * power >= value * 0.999);
    factor.unwrap_or(10.0) * power
}

/// A round time at or above, in seconds.
fn nice_time(value: f64) -> f64 {
    let round = [
        1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1_800.0, 3_600.0,
    ];
    let found = round.into_iter().find(|round| *round >= value);
    found.unwrap_or_else(|| (value / 3_600.0).ceil() * 3_600.0)
}

fn clock(seconds: f64) -> String {
    let minutes = (seconds / 60.0).floor();
    if seconds < 60.0 {
        format!("{seconds:.0} s")
    } else if minutes < 60.0 {
        format!("{minutes:.0}:{:02.0}", seconds - minutes * 60.0)
    } else {
        format!("{:.0}:{:02.0} h", (minutes / 60.0).floor(), minutes % 60.0)
    }
}

/// Text inside HTML.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round() {
        for (value, step) in [(0.0, 1.0), (0.03, 0.05), (1.0, 1.0), (3.0, 5.0), (700.0, 1_000.0)] {
            assert!((nice(value) - step).abs() < step * 1e-9, "{value}");
        }
        assert!((nice_time(4_000.0) - 7_200.0).abs() < 1.0);
        assert_eq!((clock(5.0).as_str(), clock(90.0).as_str()), ("5 s", "1:30"));
    }

    #[test]
    fn gaps_stay_gaps_and_names_are_text() {
        let line = Line {
            name: "<a>".to_owned(),
            points: vec![(0.0, Some(1.0)), (1.0, None), (2.0, Some(2.0))],
        };
        let other = Line {
            name: "b".to_owned(),
            points: vec![(0.0, None)],
        };
        let svg = plot("t", "ms", &[line, other]);
        assert_eq!(svg.matches("class=\"line").count(), 2);
        assert!(svg.contains("&lt;a&gt;") && !svg.contains("<a>"));
        assert!(plot("t", "ms", &[]).is_empty());
    }
}
