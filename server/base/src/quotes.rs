//! Does a CSV file say what it looks like: is every quote closed, and is a number one?
//!
//! A reader of CSV takes all that follows an open quote for one cell, up to the next quote or to the end of the file:
//! rows vanish, and nothing looks wrong. So the bytes of a file go through [`Quoted`] on their way to the reader. The
//! rules are those of RFC 4180: a quote opens a cell only where the cell begins, within it a quote is written twice,
//! and a cell ends where its quote ends. Blanks after it are let pass.

use std::error::Error;
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
        /// What stands around a cell.
        quote: char,
    },
}

impl fmt::Display for Misquoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Misquoted::Open { line } => write!(f, "the quote that opens on line {line} is never closed"),
            Misquoted::Within { opened, line, quote } => write!(
                f,
                "the quote that opens on line {opened} is closed on line {line}, where the cell goes on; a quote within a \
                 cell is written twice ({quote}{quote})"
            ),
        }
    }
}

impl Error for Misquoted {}

const MARK: &[u8] = b"\xef\xbb\xbf";

#[derive(Debug, Clone, Copy)]
enum Place {
    /// A cell begins.
    Start,
    /// Within a cell without quotes.
    Bare,
    /// Within quotes, which opened on this line.
    Quoted(u64),
    /// After an escape within them: the next character is itself.
    Escaped(u64),
    /// After a quote within them: the end, or the first of two.
    Quote(u64),
    /// After the end and a blank.
    Ended(u64),
}

/// What stands around cells and between them.
#[derive(Debug, Clone, Copy)]
pub struct Marks {
    /// Around a cell.
    pub quote: u8,
    /// Between two.
    pub delimiter: u8,
    /// Within quotes before a character that is itself, besides a quote before a quote.
    pub escape: Option<u8>,
}

impl Marks {
    /// What ends a cell without quotes.
    fn is_end(self, byte: u8) -> bool {
        byte == self.delimiter || matches!(byte, b'\n' | b'\r')
    }
}

/// A CSV file that cannot be read beyond the first quote that is not in its place: then reading fails with what is
/// wrong.
#[derive(Debug)]
pub struct Quoted<R> {
    file: R,
    marks: Marks,
    place: Place,
    line: u64,
    is_first: bool,
    misquoted: Option<Misquoted>,
}

impl<R: Read> Quoted<R> {
    /// The bytes of `file`, from its beginning.
    pub fn new(file: R) -> Self {
        Quoted::of(file, Marks { quote: b'"', delimiter: b',', escape: None })
    }

    /// The same of a file with other marks.
    pub fn of(file: R, marks: Marks) -> Self {
        Quoted { file, marks, place: Place::Start, line: 1, is_first: true, misquoted: None }
    }

    /// The quote that reading ended at. A reader of CSV may wrap the error that names it in words of its own.
    pub fn misquoted(&self) -> Option<Misquoted> {
        self.misquoted
    }

    /// What the bytes come from.
    pub fn file_mut(&mut self) -> &mut R {
        &mut self.file
    }

    fn follow(&mut self, mut bytes: &[u8]) -> Result<(), Misquoted> {
        if bytes.is_empty() {
            return match self.place {
                Place::Quoted(line) | Place::Escaped(line) => Err(Misquoted::Open { line }),
                _ => Ok(()),
            };
        }
        if std::mem::take(&mut self.is_first) {
            bytes = bytes.strip_prefix(MARK).unwrap_or(bytes);
        }
        self.place = go_on(self.marks, self.place, &mut self.line, bytes)?;
        Ok(())
    }
}

impl<R: Read> Read for Quoted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        if count > 0 || !buffer.is_empty() {
            self.follow(&buffer[..count]).map_err(|misquoted| {
                self.misquoted = Some(misquoted);
                io::Error::other(misquoted)
            })?;
        }
        Ok(count)
    }
}

fn go_on(marks: Marks, mut place: Place, line: &mut u64, bytes: &[u8]) -> Result<Place, Misquoted> {
    let Marks { quote, escape, .. } = marks;
    // Most files have no quotes at all: what the processor can look for at once need not be walked.
    if let (Place::Start | Place::Bare, Some(last), false) = (place, bytes.last(), bytes.contains(&quote)) {
        *line += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        return Ok(if marks.is_end(*last) { Place::Start } else { Place::Bare });
    }
    for &byte in bytes {
        place = match place {
            Place::Start if byte == quote => Place::Quoted(*line),
            Place::Quoted(opened) if byte == quote => Place::Quote(opened),
            Place::Quoted(opened) if escape == Some(byte) => Place::Escaped(opened),
            Place::Quoted(opened) | Place::Escaped(opened) => Place::Quoted(opened),
            Place::Quote(opened) if byte == quote => Place::Quoted(opened),
            _ if marks.is_end(byte) => Place::Start,
            Place::Start | Place::Bare => Place::Bare,
            Place::Quote(opened) | Place::Ended(opened) if matches!(byte, b' ' | b'\t') => {
                Place::Ended(opened)
            }
            Place::Quote(opened) | Place::Ended(opened) => {
                return Err(Misquoted::Within { opened, line: *line, quote: quote.into() });
            }
        };
        *line += u64::from(byte == b'\n');
    }
    Ok(place)
}

/// That something else than `delimiter` stands between the columns, where the only name in a header looks like several:
/// what does, and the header in words.
pub fn separator(only: &str, delimiter: u8) -> Option<(char, String)> {
    let (found, named) = [(';', "semicolons"), ('\t', "tabs"), ('|', "bars"), (',', "commas")]
        .into_iter()
        .find(|(other, _)| only.contains(*other) && *other != char::from(delimiter))?;
    let example: String = only.chars().take(40).map(|c| if c == '\t' { ' ' } else { c }).collect();
    Some((found, format!("its header `{example}` has {named} between the columns")))
}

/// The same where a CSV file has commas, with the way out.
pub fn no_commas(only: &str) -> Option<String> {
    let (found, header) = separator(only, b',')?;
    let pandas = found.escape_default();
    Some(format!(
        "{header}, and a CSV file has commas; rewrite it, with pandas as in read_csv(path, sep=\"{pandas}\").to_csv(path, \
         index=False)"
    ))
}

/// Whether a cell of digits is rather a name, such as a postcode or an account: read as a number, it loses the zero or
/// the plus that it begins with.
pub fn is_code(cell: &[u8]) -> bool {
    let cell = cell.trim_ascii();
    let digits = cell.strip_prefix(b"-").unwrap_or(cell);
    matches!(digits, [b'0' | b'+', b'0'..=b'9', ..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> String {
        let read = |bytes: &mut dyn Read| match io::read_to_string(Quoted::new(bytes)) {
            Ok(read) if read == text => "sound".to_owned(),
            Ok(read) => read,
            Err(error) => error.to_string(),
        };
        // However the file comes in pieces.
        let whole = read(&mut text.as_bytes());
        for cut in 0..text.len() {
            let (first, second) = text.as_bytes().split_at(cut);
            assert_eq!(read(&mut first.chain(second)), whole, "{text:?} cut at {cut}");
        }
        whole
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
    fn other_quotes_and_delimiters_are_followed() {
        let marks = Marks { quote: b'\'', delimiter: b'\t', escape: Some(b'\\') };
        let read = |text: &str| match io::read_to_string(Quoted::of(text.as_bytes(), marks)) {
            Ok(_) => "sound".to_owned(),
            Err(error) => error.to_string(),
        };
        assert_eq!(read("a\n'x\\'\ty\\\\'\tz\\\n"), "sound");
        assert!(read("a\n'x\\'\n").starts_with("the quote that opens on line 2 is never closed"));
        assert_eq!(read("a\tb\n'x\ty'\t\"z\n'it''s'\t''\n"), "sound");
        assert!(read("a\n'x\t").starts_with("the quote that opens on line 2 is never closed"));
        assert!(read("a\n'x'y\n").ends_with("a quote within a cell is written twice ('')"));
    }

    #[test]
    fn what_stands_between_columns_is_told() {
        assert_eq!(separator("k", b','), None);
        assert_eq!(separator("k;at", b';'), None);
        assert_eq!(separator("k,at", b';').expect("one").0, ',');
        let of_semicolons = no_commas("k;at").expect("one");
        assert!(of_semicolons.starts_with("its header `k;at` has semicolons between the columns"));
        assert!(no_commas("k\tat").expect("one").contains(r#"sep="\t")"#));
    }

    #[test]
    fn a_code_is_no_number() {
        for code in ["0123", "00", "-01", " 07 ", "+4912345", "00.5"] {
            assert!(is_code(code.as_bytes()), "{code}");
        }
        for number in ["", "0", "-0", "0.5", "-0.5", "10", "0x1", "1e05", "+", "a0"] {
            assert!(!is_code(number.as_bytes()), "{number}");
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
