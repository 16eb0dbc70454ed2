//! What text does a file hold, however it is packed and its characters are written?

use std::io::{self, BufReader, Read};

use feature_defs::Encoding;
use flate2::bufread::MultiGzDecoder;

use super::files::HistoryFile;
use super::format::Packing;
use crate::error::Result;

/// How much of a file is decoded at a time.
const CHUNK_BYTES: usize = 64 << 10;
/// Where Windows has characters of its own: from this byte on.
const WINDOWS_FROM: u8 = 0x80;
/// Its characters there, as web browsers read them: five bytes stand for nothing, and stay what they are.
const WINDOWS: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}',
    '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

/// The bytes of a file's text, in UTF-8 as far as it is text.
pub(super) fn open(file: &HistoryFile, encoding: Encoding) -> Result<Box<dyn Read>> {
    let bytes = BufReader::with_capacity(CHUNK_BYTES, file.open()?);
    let unpacked: Box<dyn Read> = match Packing::of(&file.name) {
        None => Box::new(bytes),
        Some(Packing::Gzip) => Box::new(MultiGzDecoder::new(bytes)),
        Some(Packing::Zstd) => {
            Box::new(zstd::Decoder::with_buffer(bytes).map_err(|error| file.unreadable(&error))?)
        }
    };
    Ok(match encoding {
        Encoding::Utf8 => unpacked,
        _ => Box::new(Decoded::new(unpacked, encoding)),
    })
}

type Order = fn([u8; 2]) -> u16;

/// Text in another encoding, as UTF-8.
struct Decoded<R> {
    file: R,
    encoding: Encoding,
    /// Of UTF-16, which byte of two comes first.
    order: Option<Order>,
    /// What has been read and is no whole character yet.
    raw: Vec<u8>,
    text: String,
    /// How much of `text` has been handed on.
    given: usize,
}

impl<R: Read> Decoded<R> {
    fn new(file: R, encoding: Encoding) -> Self {
        Decoded { file, encoding, order: None, raw: Vec::new(), text: String::new(), given: 0 }
    }

    /// Reads on; false at the end of the file.
    fn read_on(&mut self) -> io::Result<bool> {
        let count = self.file.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut self.raw)?;
        self.text.clear();
        self.given = 0;
        let raw = &self.raw;
        let used = match self.encoding {
            Encoding::Utf16 => utf16(raw, &mut self.order, &mut self.text)?,
            encoding => {
                self.text.extend(raw.iter().map(|byte| character(encoding, *byte)));
                raw.len()
            }
        };
        self.raw.drain(..used);
        if count == 0 && !self.raw.is_empty() {
            return Err(io::Error::other("it ends within a character of UTF-16"));
        }
        Ok(count > 0)
    }
}

fn character(encoding: Encoding, byte: u8) -> char {
    let windows = (encoding == Encoding::Windows1252).then(|| byte.checked_sub(WINDOWS_FROM)).flatten();
    windows.and_then(|place| WINDOWS.get(usize::from(place)).copied()).unwrap_or(char::from(byte))
}

/// Decodes the whole characters of `raw`; says how many bytes they are.
fn utf16(raw: &[u8], order: &mut Option<Order>, text: &mut String) -> io::Result<usize> {
    let (order, start): (Order, usize) = match (*order, raw) {
        (Some(order), _) => (order, 0),
        (None, []) => return Ok(0),
        (None, [0xff, 0xfe, ..]) => (*order.insert(u16::from_le_bytes), 2),
        (None, [0xfe, 0xff, ..]) => (*order.insert(u16::from_be_bytes), 2),
        (None, _) => {
            return Err(io::Error::other("it does not begin with a byte order mark, as UTF-16 does"));
        }
    };
    let units: Vec<u16> = raw[start..].chunks_exact(2).map(|pair| order([pair[0], pair[1]])).collect();
    // The first half of a character waits for the second.
    let whole = units.len() - usize::from(matches!(units.last(), Some(0xd800..=0xdbff)));
    for character in char::decode_utf16(units[..whole].iter().copied()) {
        text.push(character.map_err(|_| io::Error::other("it is not UTF-16"))?);
    }
    Ok(start + 2 * whole)
}

impl<R: Read> Read for Decoded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.given == self.text.len() {
            if !self.read_on()? {
                return Ok(0);
            }
        }
        let left = &self.text.as_bytes()[self.given..];
        let count = left.len().min(buffer.len());
        buffer[..count].copy_from_slice(&left[..count]);
        self.given += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8], encoding: Encoding) -> String {
        let mut text = String::new();
        match Decoded::new(bytes, encoding).read_to_string(&mut text) {
            Ok(_) => text,
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn bytes_become_characters() {
        assert_eq!(decoded(b"Zo\xeb \x80", Encoding::Latin1), "Zoë \u{80}");
        assert_eq!(decoded(b"Zo\xeb \x80\x99\x81", Encoding::Windows1252), "Zoë €™\u{81}");
    }

    #[test]
    fn utf_16_is_read_in_either_order() {
        let text = "é😀".repeat(CHUNK_BYTES);
        let units = || std::iter::once(0xfeff).chain(text.encode_utf16());
        let little: Vec<u8> = units().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = units().flat_map(u16::to_be_bytes).collect();
        assert!(decoded(&little, Encoding::Utf16) == text && decoded(&big, Encoding::Utf16) == text);
        assert_eq!(decoded(b"", Encoding::Utf16), "");
        assert_eq!(
            decoded(b"a,b", Encoding::Utf16),
            "it does not begin with a byte order mark, as UTF-16 does"
        );
        for cut in [b"\xff\xfea".as_slice(), b"\xff\xfe\x3d\xd8"] {
            assert_eq!(decoded(cut, Encoding::Utf16), "it ends within a character of UTF-16");
        }
        assert_eq!(decoded(b"\xff\xfe\x00\xdca\0", Encoding::Utf16), "it is not UTF-16");
    }
}
