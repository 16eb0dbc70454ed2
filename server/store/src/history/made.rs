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

/// What a scan reads, beside what was noted.
#[derive(Debug, Default)]
pub struct Compared {
    /// What it reads.
    pub now: MadeOf,
    /// How many files that were noted are gone or have changed.
    pub gone: u64,
    /// From which event time (µs) on there are rows that no noted file has; none where there are no such rows.
    pub since_us: Option<i64>,
}

impl Scan {
    /// Compares what it reads with what was `noted`. Files of text are read where they are not as they were noted.
    ///
    /// # Errors
    /// Where a file of text cannot be read, or has changed since the scan was opened.
    pub fn made_of(&self, noted: &MadeOf) -> Result<Compared> {
        let (mut now, mut left, mut is_new) = (Vec::new(), 0, vec![false; self.parts.len()]);
        // The files come first; what was pushed after them.
        for (place, part) in self.parts.iter().enumerate().take(self.state.count as usize) {
            let (file, is_text) = match part {
                Part::Typed(file, _) => (file.file(), false),
                Part::Csv(file, _) => (file.file(), true),
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
            let is_held = text.is_some() && before.iter().any(|made| made.text == text);
            is_new[place] = same.is_none() && !is_held;
            now.push(Made { name, state, text });
        }
        let news = self.units.iter().filter(|unit| unit.rows > 0 && is_new[unit.part]);
        let since_us = news.map(|unit| unit.times.map_or(i64::MIN, |(first, _)| first)).min();
        let since_us = if noted.lacks_some { Some(i64::MIN) } else { since_us };
        Ok(Compared { now: MadeOf::new(now), gone: noted.files().len() as u64 - left, since_us })
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
