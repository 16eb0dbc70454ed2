//! Which files of a source were read, each in which state, and which that were read before are gone or have changed?
//!
//! A file of text that holds what it held, and whole lines after that, has only grown: no row of it has changed. Any
//! other is another one as soon as its state is.

use std::io::{BufRead, BufReader, Read};

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::files::HistoryFile;
use super::{Part, Scan};
use crate::error::Result;
use crate::made_of::{Made, MadeOf, Text};

/// How much of a file is hashed at a time.
const CHUNK_BYTES: usize = 64 << 10;

impl Scan {
    /// What it reads; and how many files of `noted` are gone or have changed. Files of text are read where they are not
    /// as they were noted.
    ///
    /// # Errors
    /// Where a file of text cannot be read, or has changed since the scan was opened.
    pub fn made_of(&self, noted: &MadeOf) -> Result<(MadeOf, u64)> {
        let (mut now, mut left) = (Vec::new(), 0);
        // The files come first; what was pushed after them.
        for part in self.parts.iter().take(self.state.count as usize) {
            let (file, is_text) = match part {
                Part::Typed(file) => (file.file(), false),
                Part::Csv(file) => (file.file(), true),
                Part::Json(file) => (file.file(), true),
                Part::Tail(_) => continue,
            };
            let (name, state) = (xxh3_64(file.name.as_bytes()), file.state());
            let before = noted.of(name);
            let same = before.iter().find(|made| made.state == state);
            let is_as_noted = same.is_some() && before.len() == 1;
            let (text, still) = match is_text && !is_as_noted {
                true => read(file, before).map(|(text, still)| (Some(text), still))?,
                false => (same.and_then(|same| same.text), u64::from(same.is_some())),
            };
            left += still;
            now.push(Made { name, state, text });
        }
        Ok((MadeOf::new(now), noted.files().len() as u64 - left))
    }
}

/// What a file of text holds, and out of how many of the states `before` it has grown.
fn read(file: &HistoryFile, before: &[Made]) -> Result<(Text, u64)> {
    let unreadable = |why| file.unreadable(&why);
    let mut known: Vec<Text> = before.iter().filter_map(|made| made.text).collect();
    known.sort_unstable();
    let mut rest = BufReader::with_capacity(CHUNK_BYTES, file.open()?);
    let (mut hash, mut bytes, mut last, mut grown) = (Xxh3::new(), 0, b'\n', 0);
    for text in known {
        let mut some = rest.by_ref().take(text.bytes - bytes);
        loop {
            let chunk = some.fill_buf().map_err(unreadable)?;
            let Some(end) = chunk.last() else { break };
            (last, bytes) = (*end, bytes + chunk.len() as u64);
            hash.update(chunk);
            let read = chunk.len();
            some.consume(read);
        }
        let next = rest.fill_buf().map_err(unreadable)?.first().copied();
        let is_whole = last == b'\n' || next.is_none_or(|next| next == b'\n' || next == b'\r');
        grown += u64::from(bytes == text.bytes && hash.digest() == text.hash && is_whole);
    }
    loop {
        let chunk = rest.fill_buf().map_err(unreadable)?;
        let read = chunk.len();
        if read == 0 {
            return Ok((Text { bytes, hash: hash.digest() }, grown));
        }
        hash.update(chunk);
        bytes += read as u64;
        rest.consume(read);
    }
}
