//! How does an answer look, to a person and to a program?

use std::fmt::Display;
use std::io::{ErrorKind, Write};

use quern_wire::TableNotes;
use serde::Serialize;

/// Writes a line to stdout. A reader who has gone away, as in `| head`, is no error.
pub(super) fn print(line: impl Display) {
    if let Err(error) = writeln!(std::io::stdout(), "{line}") {
        match error.kind() {
            ErrorKind::BrokenPipe => std::process::exit(0),
            _ => eprintln!("error: stdout: {error}"),
        }
    }
}

/// Writes JSON to stdout.
pub(super) fn print_json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => print(text),
        Err(error) => eprintln!("error: {error}"),
    }
}

/// Says on stderr what is odd about a table.
pub(super) fn warn(notes: &TableNotes) {
    notes.warnings().iter().for_each(|warning| eprintln!("warning: {warning}"));
}

/// Where a column's cells stand.
#[derive(Debug, Clone, Copy)]
pub(super) enum Align {
    Left,
    Right,
}

/// Aligned columns under a head line.
pub(super) fn table(head: &[(&str, Align)], rows: &[Vec<String>]) -> String {
    let width = |text: &str| text.chars().count();
    let widths: Vec<usize> = head
        .iter()
        .enumerate()
        .map(|(column, (name, _))| rows.iter().map(|row| width(&row[column])).fold(width(name), usize::max))
        .collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for ((cell, (_, align)), width) in cells.zip(head).zip(&widths) {
            text += &match align {
                Align::Left => format!("{cell:<width$}  "),
                Align::Right => format!("{cell:>width$}  "),
            };
        }
        text.trim_end().to_owned()
    };
    let mut lines = vec![line(&mut head.iter().map(|(name, _)| *name))];
    lines.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}

/// A whole number with its thousands apart: `336,776`.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// So many of something: `1 row`, `1,234 rows`.
pub(super) fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", thousands(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_no_plural() {
        assert_eq!([0, 1, 2_000].map(|count| counted(count, "row")), ["0 rows", "1 row", "2,000 rows"]);
    }

    #[test]
    fn columns_align() {
        let rows = [vec!["a".to_owned(), thousands(1_234_567)], vec!["long".to_owned(), thousands(12)]];
        let text = table(&[("view", Align::Left), ("rows", Align::Right)], &rows);
        assert_eq!(text, "view       rows\na     1,234,567\nlong         12");
    }
}
