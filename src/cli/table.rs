//! Tables for people, on stdout.

/// Prints rows under their titles, each column as wide as its widest cell.
pub(super) fn print<const COLUMNS: usize>(titles: [&str; COLUMNS], rows: &[[String; COLUMNS]]) {
    let line = |cells: [&str; COLUMNS]| {
        let padded = cells.iter().enumerate().map(|(column, cell)| {
            let widths = rows.iter().map(|row| row[column].chars().count());
            let width = widths.max().unwrap_or(0).max(titles[column].len());
            format!("{cell:<width$}")
        });
        println!("{}", padded.collect::<Vec<_>>().join("  ").trim_end());
    };
    line(titles);
    for row in rows {
        line(row.each_ref().map(String::as_str));
    }
}

/// A stranger chose this text: what could steer a terminal is not printed.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{FFFD}' } else { c })
        .collect()
}
