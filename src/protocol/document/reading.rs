//! `PROTOCOL.md` as text: its fences, sections and tables.

/// The document.
pub(super) const DOCUMENT: &str = include_str!("../PROTOCOL.md");

/// The document's fences: what stands behind the backticks, and the lines inside.
pub(super) fn fences() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut fences = Vec::new();
    let mut open: Option<(&str, Vec<&str>)> = None;
    for line in DOCUMENT.lines() {
        match (line.strip_prefix("```"), open.as_mut()) {
            (Some(info), None) => open = Some((info, Vec::new())),
            (Some(_), Some(_)) => fences.extend(open.take()),
            (None, Some((_, lines))) => lines.push(line),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a fence stays open");
    fences
}

/// The text of the section under this heading, its subsections included.
pub(super) fn section(heading: &str) -> &'static str {
    let level = heading.split(' ').next().unwrap();
    let start = DOCUMENT
        .find(&format!("\n{heading}\n"))
        .unwrap_or_else(|| panic!("no section {heading}"));
    let body = &DOCUMENT[start + heading.len() + 2..];
    let end = (1..=level.len())
        .filter_map(|n| body.find(&format!("\n{} ", "#".repeat(n))))
        .min();
    &body[..end.unwrap_or(body.len())]
}

/// The rows of a section's tables, less the heads; the cells without their backticks.
pub(super) fn rows(heading: &str) -> Vec<Vec<&'static str>> {
    let lines: Vec<&str> = section(heading).lines().collect();
    let is_head = |index: usize| lines.get(index + 1).is_some_and(|next| next.starts_with("|---"));
    let cells = |line: &'static str| {
        line.trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().trim_matches('`'))
            .collect()
    };
    let rows = lines.iter().enumerate();
    rows.filter(|(index, line)| line.starts_with('|') && !line.starts_with("|---") && !is_head(*index))
        .map(|(_, line)| cells(line))
        .collect()
}
