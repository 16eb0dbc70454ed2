//! How is a row, a push or a place in a stream known when it comes again?
//!
//! By a key and a value in what was seen (`store/log`). The first byte of a key says of what it is: 0 an event, by its
//! `event_id` and time; 1 a push, by its idempotency key, where nobody is asked who they are; 2 since when events are
//! noted; 3 a part of a stream, or of what is pulled; 4 a push, by who pushed and its idempotency key.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Schema, TimestampMicrosecondType};
use feature_defs::Source;
use quern_access::{Principal, Proof};
use quern_engine::row::{RowCodec, RowEncoder, RowTimes};
use quern_engine::schema::quern_type;
use sha2::{Digest, Sha256};

use super::PushedBatch;
use crate::error::Result;
use quern_store::log::{Log, SeenKey};

/// A push, by its idempotency key, which each who pushes has for themselves.
pub(super) fn push_key(source: &str, who: &Principal, key: &str) -> SeenKey {
    match who.proof() {
        Proof::Open => SeenKey::new(source, &[&[1], key.as_bytes()].concat()),
        _ => {
            let name = who.name().as_bytes();
            let length = (name.len() as u64).to_be_bytes();
            SeenKey::new(source, &[&[4], &length[..], name, key.as_bytes()].concat())
        }
    }
}

/// Since when every event of the source is noted.
pub(super) fn all_known_key(source: &str) -> SeenKey {
    SeenKey::new(source, &[2])
}

/// A part of the source's stream.
pub(super) fn position_key(source: &str, part: &str) -> SeenKey {
    SeenKey::new(source, &[&[3], part.as_bytes()].concat())
}

/// How far parts of a source's stream are read, as of one moment.
pub(super) fn positions(log: &Log, source: &str, parts: &[&str]) -> Result<Vec<Option<Vec<u8>>>> {
    let keys: Vec<SeenKey> = parts.iter().map(|part| position_key(source, part)).collect();
    let seen = log.seen(&keys, i64::MIN)?;
    Ok(seen.into_iter().map(|seen| seen.map(|seen| seen.value)).collect())
}

/// A row as an event: what names it, and what it says.
pub(super) struct Event {
    pub(super) key: SeenKey,
    pub(super) content: Vec<u8>,
    pub(super) ts_us: i64,
}

/// The rows as events.
pub(super) fn events(source: &Source, rows: &RecordBatch) -> Result<Vec<Event>> {
    let is_name = |name: &String| source.event_id.contains(name) || *name == source.event_timestamp;
    let (names, all) = (RowBytes::new(rows, is_name)?, RowBytes::new(rows, |_| true)?);
    let times = rows.column_by_name(&source.event_timestamp);
    let times = times.and_then(|times| times.as_primitive_opt::<TimestampMicrosecondType>());
    let event = |row| {
        let mut key = vec![0];
        names.write(row, &mut key);
        let mut content = Vec::new();
        all.write(row, &mut content);
        Event {
            key: SeenKey::new(&source.name, &key),
            content: Sha256::digest(&content)[..16].to_vec(),
            ts_us: times.map_or(0, |times| times.value(row)),
        }
    };
    Ok((0..rows.num_rows()).map(event).collect())
}

/// Names the rows of a push and where they go.
pub(super) fn digest(push: &PushedBatch) -> Vec<u8> {
    let mut digest = Sha256::new();
    digest.update([push.to as u8]);
    if let Ok(all) = RowBytes::new(&push.rows, |_| true) {
        let mut bytes = Vec::new();
        (0..push.rows.num_rows()).for_each(|row| all.write(row, &mut bytes));
        digest.update(&bytes);
    }
    digest.finalize()[..16].to_vec()
}

/// Rows as bytes: the columns of the language's types, as they are stored.
struct RowBytes(RowEncoder);

impl RowBytes {
    fn new(rows: &RecordBatch, wanted: impl Fn(&String) -> bool) -> Result<RowBytes> {
        let fields = rows.schema_ref().fields().iter().zip(rows.columns());
        let (fields, columns): (Vec<_>, Vec<_>) = fields
            .filter(|(field, _)| wanted(field.name()) && quern_type(field.data_type()).is_some())
            .map(|(field, column)| (Arc::clone(field), Arc::clone(column)))
            .unzip();
        Ok(RowBytes(RowCodec::new(&Arc::new(Schema::new(fields)))?.encoder(&columns)))
    }

    fn write(&self, row: usize, out: &mut Vec<u8>) {
        self.0.encode(RowTimes::default(), row, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_who_push_have_one_key() {
        let key = |name: &str, key: &str| push_key("s", &Principal::new(Proof::Key(name.to_owned())), key);
        let keys = [key("a", "k"), key("b", "k"), key("a", "l"), key("ak", ""), key("", "ak"), key("a", "")];
        let open = push_key("s", &Principal::new(Proof::Open), "k");
        for (place, one) in keys.iter().enumerate() {
            assert!(*one != open && keys[..place].iter().all(|other| other != one), "{place}");
        }
        assert_eq!(key("a", "k"), keys[0]);
    }
}
