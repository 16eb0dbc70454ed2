//! What does a group of the log look like as bytes? As `local.rs` says at its head.

use super::super::logged::{Logged, from_bytes};
use super::damaged;
use crate::error::Result;
use crate::position::Position;

pub(super) fn start(source: &str) -> Vec<u8> {
    [source.as_bytes(), &[0]].concat()
}

/// The source, the number of the commit and that of the row after it.
pub(super) fn of_key(key: &[u8]) -> Result<(&str, i64, u64)> {
    let (rest, end) = key.split_last_chunk::<8>().ok_or_else(damaged)?;
    let (source, number) = rest.split_last_chunk::<8>().ok_or_else(damaged)?;
    let source = source.strip_suffix(&[0]).and_then(|name| std::str::from_utf8(name).ok());
    Ok((source.ok_or_else(damaged)?, i64::from_be_bytes(*number), u64::from_be_bytes(*end)))
}

/// The name of the commit, and of the one before.
pub(super) fn names(value: &[u8]) -> Result<(i64, i64)> {
    let (token, rest) = value.split_first_chunk().ok_or_else(damaged)?;
    let previous = rest.first_chunk().ok_or_else(damaged)?;
    Ok((i64::from_be_bytes(*token), i64::from_be_bytes(*previous)))
}

pub(super) fn group(key: &[u8], value: &[u8]) -> Result<Logged> {
    let (source, number, _) = of_key(key)?;
    let (token, _) = names(value)?;
    let (heads, streams) = value[16..].split_first_chunk::<24>().ok_or_else(damaged)?;
    let of = |place: usize| heads[8 * place..].first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    let (history, online) = streams.split_at_checked(of(2) as usize).ok_or_else(damaged)?;
    Ok(Logged {
        position: Position { number, token },
        source: source.to_owned(),
        first: of(0),
        history: from_bytes(history)?,
        in_head: of(1) as usize,
        online: if online.is_empty() { None } else { Some(from_bytes(online)?) },
    })
}
