//! Is every quote of a CSV file closed?
//!
//! A reader of CSV takes all that follows an open quote for one cell, up to the next quote or to the end of the file:
//! rows vanish, and nothing looks wrong. So a file is gone through for its quotes alone before it is read. The rules
//! are those of RFC 4180: a quote opens a cell only where the cell begins, within it a quote is written twice, and a
//! cell ends where its quote ends. Blanks after it are let pass.

use std::fmt;
use std::io::{self, Read};

/// A quote that is not in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misquoted {
    /// It opens on this line and is never closed.
    Open {
        /// From 1.
        line: u64,
    },
    /// It closes a cell, which goes on.
    Within {
        /// Where the cell begins, from 1.
        opened: u64,
        /// Where the quote stands, from 1.
        line: u64,
    },
}

impl fmt::Display for Misquoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Misquoted::Open { line } => write!(f, "the quote that opens on line {line} is never closed"),
            Misquoted::Within { opened, line } => write!(
                f,
                "the quote that opens on line {opened} is closed on line {line}, where the cell goes on; a quote within a \
                 cell is written twice (\"\")"
            ),
        }
    }
}

const BUFFER_BYTES: usize = 64 << 10;
const MARK: &[u8] = b"\xef\xbb\xbf";

#[derive(Clone, Copy)]
enum Place {
    /// A cell begins.
    Start,
    /// Within a cell without quotes.
    Bare,
    /// Within quotes, which opened on this line.
    Quoted(u64),
    /// After a quote within them: the end, or the first of two.
    Quote(u64),
    /// After the end and a blank.
    Ended(u64),
}

/// Goes through all of `file` for the first quote that is not in its place.
pub fn check(mut file: impl Read) -> io::Result<Result<(), Misquoted>> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let (mut place, mut line, mut is_first) = (Place::Start, 1, true);
    loop {
        let count = match file.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let mut bytes = &buffer[..count];
        if count == 0 {
            return Ok(match place {
                Place::Quoted(line) => Err(Misquoted::Open { line }),
                _ => Ok(()),
            });
        }
        if std::mem::take(&mut is_first) {
            bytes = bytes.strip_prefix(MARK).unwrap_or(bytes);
        }
        match go_on(place, &mut line, bytes) {
            Ok(after) => place = after,
            Err(misquoted) => return Ok(Err(misquoted)),
        }
    }
}

fn go_on(mut place: Place, line: &mut u64, bytes: &[u8]) -> Result<Place, Misquoted> {
    // Most files have no quotes at all: what the processor can look for at once need not be walked.
    if let (Place::Start | Place::Bare, Some(last), false) = (place, bytes.last(), bytes.contains(&b'"')) {
        *line += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        return Ok(if is_end(*last) { Place::Start } else { Place::Bare });
    }
    for &byte in bytes {
        place = match (place, byte) {
            (Place::Start, b'"') => Place::Quoted(*line),
            (Place::Quoted(opened), b'"') => Place::Quote(opened),
            (Place::Quoted(opened), _) => Place::Quoted(opened),
            (Place::Quote(opened), b'"') => Place::Quoted(opened),
            (_, byte) if is_end(byte) => Place::Start,
            (Place::Start | Place::Bare, _) => Place::Bare,
            (Place::Quote(opened) | Place::Ended(opened), b' ' | b'\t') => Place::Ended(opened),
            (Place::Quote(opened) | Place::Ended(opened), _) => {
                return Err(Misquoted::Within { opened, line: *line });
            }
        };
        *line += u64::from(byte == b'\n');
    }
    Ok(place)
}

/// What ends a cell without quotes.
fn is_end(byte: u8) -> bool {
    matches!(byte, b',' | b'\n' | b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> String {
        // However the file comes in pieces.
        let whole = check(text.as_bytes()).expect("readable");
        for cut in 0..text.len() {
            let (first, second) = text.as_bytes().split_at(cut);
            assert_eq!(check(first.chain(second)).expect("readable"), whole, "{text:?} cut at {cut}");
        }
        whole.map_or_else(|misquoted| misquoted.to_string(), |()| "sound".to_owned())
    }

    #[test]
    fn what_is_quoted_as_it_should_be_is_sound() {
        for text in [
            "",
            "a,b\n1,2\n",
            "\u{feff}\"a\",b\n\"x, \"\"y\"\"\n z\",2\r\n",
            "a\r\"b\"\r",
            "5\" pipe,it\"s\n",
            "\"\",\"\"\"\"\n",
            "\"a\" \t,\"b\"\n",
            "a,\"b\"",
        ] {
            assert_eq!(found(text), "sound", "{text:?}");
        }
    }

    #[test]
    fn an_open_quote_is_named_with_its_line() {
        let open = "the quote that opens on line 3 is never closed";
        assert_eq!(found("a,b\n1,\"x\ny\",\"z\n2,3\n4,5\n"), open);
        assert_eq!(found("a\n\n\""), open);
        assert_eq!(found("a\n\n\"x\"\""), open);
        // The next quoted cell closes it, and goes on.
        let within = "the quote that opens on line 2 is closed on line 3, where the cell goes on; a quote within a cell is \
                      written twice (\"\")";
        assert_eq!(found("a,b\n1,\"x\n2,\"y\"\n"), within);
        assert!(found("a\n\"x\\\"y\"\n").starts_with("the quote that opens on line 2 is closed on line 2"));
        assert!(found("a\n\"x\" y\n").starts_with("the quote that opens on line 2 is closed on line 2"));
    }
}
