//! What does the head say about windows?

use std::sync::Arc;

use arrow::array::{ArrayRef, new_null_array};
use quern_engine::key::Keys;
use quern_engine::time::last_us;
use quern_engine::windows::{Excluded, Kept, Windows, latest_us};
use quern_engine::{Failed, Found, Lookup, RowState};

use crate::error::{Result, check_strict};

/// The tiles of some keys, as the head has them.
pub(crate) struct Tiles<'a> {
    /// What is kept of events, for certain, in all of them.
    pub(crate) kept: Option<Arc<Kept>>,
    pub(crate) stored: Vec<Option<&'a [u8]>>,
    pub(crate) keys: &'a Keys,
    /// Where events are left out: for each row the one that does not count.
    pub(crate) excluded: Option<&'a [Option<Excluded>]>,
}

/// What is kept in tiles that were read in between: materialize changes both, tiles and what is said of them.
pub(crate) fn kept_in_both(before: Option<Arc<Kept>>, after: Option<Arc<Kept>>) -> Option<Arc<Kept>> {
    let (before, after) = (before?, after?);
    if Arc::ptr_eq(&before, &after) || before == after {
        return Some(after);
    }
    Some(Arc::new(before.common(&after)))
}

/// What the head says about windows, and the rows that it cannot answer: those for which it holds later events, or that
/// leave an event out, which tiles do not keep apart.
pub(crate) fn from_head(
    lookup: &Lookup,
    windows: &Windows,
    Tiles { kept, stored: mut rows, keys, excluded }: Tiles<'_>,
    query_times_us: &[i64],
) -> Result<(Found, Vec<u32>)> {
    let n = rows.len();
    let null = |feature: &usize| new_null_array(lookup.view.features.field(*feature).data_type(), n);
    let Some(kept) = kept else {
        let columns = lookup.features.iter().map(null).collect();
        let found = Found {
            columns,
            states: vec![RowState::NotFound; n],
            event_timestamps: Vec::new(),
            absent: Vec::new(),
            failed: Failed::default(),
        };
        return Ok((found, Vec::new()));
    };
    let (mut states, mut past) = (vec![RowState::Present; n], Vec::new());
    for (row, q_us) in query_times_us.iter().enumerate() {
        match rows[row] {
            _ if keys.get(row).is_none() => states[row] = RowState::NotFound,
            // What was once stored of a key stays, however old its events are.
            None => states[row] = RowState::Unseen,
            Some(bytes) => {
                let is_excluded = excluded.is_some_and(|excluded| excluded[row].is_some());
                let is_later = latest_us(bytes)? > last_us(*q_us, lookup.view.at);
                if is_later {
                    // Whether it was seen by then, history says.
                    states[row] = RowState::Unseen;
                }
                if is_excluded || is_later {
                    past.push(row as u32);
                    rows[row] = None;
                }
            }
        }
    }
    let absent: Vec<bool> = lookup.features.iter().map(|feature| !windows.is_kept(*feature, &kept)).collect();
    let there: Vec<usize> = lookup.features.iter().copied().filter(|f| windows.is_kept(*f, &kept)).collect();
    let mut failed = Failed::default();
    let mut answers = windows.answer(&rows, query_times_us, &there, &kept, &mut failed)?.into_iter();
    let asked = lookup.features.iter().zip(&absent);
    let mut columns: Vec<ArrayRef> = asked
        .map(|(feature, absent)| {
            let answer = if *absent { None } else { answers.next() };
            answer.unwrap_or_else(|| null(feature))
        })
        .collect();
    // A row without a key is nobody's: not even its counts are zero.
    if states.contains(&RowState::NotFound) {
        let nobody: arrow::array::BooleanArray =
            states.iter().map(|s| Some(*s == RowState::NotFound)).collect();
        columns = columns.iter().map(|column| hidden(column, &nobody)).collect::<Result<_>>()?;
    }
    let view = format!("feature view `{}`", lookup.view.name);
    check_strict(&failed, &view, |row| format!("instance {row}"))?;
    let failed = lookup.named(&failed);
    Ok((Found { columns, states, event_timestamps: Vec::new(), absent, failed }, past))
}

/// The column with nulls where `mask` is true.
fn hidden(column: &ArrayRef, mask: &arrow::array::BooleanArray) -> Result<ArrayRef> {
    let null = new_null_array(column.data_type(), 1);
    let places: Vec<(usize, usize)> =
        (0..column.len()).map(|row| if mask.value(row) { (1, 0) } else { (0, row) }).collect();
    Ok(arrow::compute::interleave(&[column.as_ref(), null.as_ref()], &places)?)
}
