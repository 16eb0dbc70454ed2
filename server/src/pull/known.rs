//! Which rows does history have already?

use std::collections::{HashSet, VecDeque};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::{DataType, Int32Type, Int64Type, SchemaRef, TimestampMicrosecondType};
use feature_defs::Source;
use quern_engine::row::{RowCodec, RowTimes};
use quern_store::history::{History, PUSHED, Scan};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// Rows by their digests, as long as one that comes may be the same.
#[derive(Debug, Default)]
pub(super) struct Known {
    rows: HashSet<u128>,
    /// The same with their cursors, about in the order of these.
    in_order: VecDeque<(i64, u128)>,
}

impl Known {
    /// The rows of `source` from number `from` on of which the cursor is `lower` or more, and how many rows were pushed
    /// at all.
    pub(super) fn read(
        history: &History,
        (source, schema): (&Source, &SchemaRef),
        cursor: &str,
        (from, lower): (u64, i64),
    ) -> Result<(Known, u64)> {
        let scan = history.open(source, schema)?;
        let mut found = Vec::new();
        let units = scan.units.iter().enumerate().filter(|(_, unit)| unit.file == PUSHED);
        let mut end = 0;
        for (unit, of) in units {
            end = end.max(of.first_row + of.rows);
            if of.first_row + of.rows > from {
                read_unit(&scan, unit, (schema, cursor, lower), &mut found)?;
            }
        }
        found.sort_unstable();
        let rows = found.iter().map(|(_, digest)| *digest).collect();
        Ok((Known { rows, in_order: found.into() }, end))
    }

    /// Forgets rows of before: what comes from now on has a cursor of `from` or more.
    pub(super) fn forget_before(&mut self, from: i64) {
        while let Some((_, digest)) = self.in_order.pop_front_if(|(cursor, _)| *cursor < from) {
            self.rows.remove(&digest);
        }
    }

    /// Takes in rows with these cursors, and says which of them are new.
    pub(super) fn take(&mut self, rows: &RecordBatch, cursors: &[i64]) -> Result<BooleanArray> {
        let digests = digests(rows)?;
        let take = |(digest, cursor): (u128, &i64)| {
            let is_new = self.rows.insert(digest);
            if is_new {
                self.in_order.push_back((*cursor, digest));
            }
            Some(is_new)
        };
        Ok(digests.into_iter().zip(cursors).map(take).collect())
    }
}

fn read_unit(
    scan: &Scan,
    unit: usize,
    (schema, cursor, lower): (&SchemaRef, &str, i64),
    found: &mut Vec<(i64, u128)>,
) -> Result<()> {
    let mut wanted: Vec<u32> = Vec::new();
    let mut at: Vec<i64> = Vec::new();
    scan.read::<Error>(unit, &[cursor.to_owned()], None, &mut |offset, rows| {
        for (row, cursor) in cursors(rows.column(0))?.into_iter().enumerate() {
            if let Some(cursor) = cursor.filter(|cursor| *cursor >= lower) {
                wanted.push((offset + row) as u32);
                at.push(cursor);
            }
        }
        Ok(())
    })?;
    if wanted.is_empty() {
        return Ok(());
    }
    let columns: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    scan.read::<Error>(unit, &columns, Some(&wanted), &mut |offset, rows| {
        // Of other types by now, they are not what comes.
        if rows.schema_ref() == schema {
            found.extend(at[offset..].iter().copied().zip(digests(&rows)?));
        }
        Ok(())
    })
}

/// The cursors in a column: µs, or numbers.
pub(super) fn cursors(column: &ArrayRef) -> Result<Vec<Option<i64>>> {
    Ok(match column.data_type() {
        DataType::Timestamp(_, _) => column.as_primitive::<TimestampMicrosecondType>().iter().collect(),
        DataType::Int64 => column.as_primitive::<Int64Type>().iter().collect(),
        DataType::Int32 => column.as_primitive::<Int32Type>().iter().map(|it| it.map(i64::from)).collect(),
        // Rows from before, when the column was of another type.
        _ => vec![None; column.len()],
    })
}

/// What tells one row from another.
fn digests(rows: &RecordBatch) -> Result<Vec<u128>> {
    let encoder = RowCodec::new(rows.schema_ref())?.encoder(rows.columns());
    let mut bytes = Vec::new();
    let digest = |row| {
        bytes.clear();
        encoder.encode(RowTimes::default(), row, &mut bytes);
        let digest = Sha256::digest(&bytes);
        digest[..16].iter().fold(0, |number, byte| number << 8 | u128::from(*byte))
    };
    Ok((0..rows.num_rows()).map(digest).collect())
}
