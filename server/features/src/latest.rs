//! Which row of history was the latest one then? The point-in-time join over the rows of a source.
//!
//! Two passes. The first reads keys, times and the filter's columns of every row that could matter, and lets them
//! stream past the spine. The second reads the features' columns of just the rows that were found.

use arrow::array::{ArrayRef, RecordBatch};
use parking_lot::{Mutex, RwLock};
use quern_engine::asof::{Address, AsOf, Matches, Stamp, TimeRule};
use quern_engine::size::column_bytes;
use quern_engine::time::visible_from;
use quern_engine::{Failed, RowState};
use quern_store::history::Scan;

use crate::error::{Result, check_strict};
use crate::question::{Answer, Cursor, Place, Question};
use crate::read::{Visitor, for_each, place_of, read_selected, select, stamps};
use crate::units::Units;

/// The first pass of a question about rows.
pub(crate) struct Finding<'a> {
    question: &'a Question<'a>,
    units: Vec<usize>,
    spine: RwLock<AsOf>,
}

impl<'a> Finding<'a> {
    pub(crate) fn new(scan: &Scan, question: &'a Question<'a>) -> Result<Finding<'a>> {
        let view = question.view;
        let rule =
            TimeRule { lag_us: view.lag_us, ttl_us: view.ttl_us, at: view.at, as_known: question.as_known };
        let spine = AsOf::new(question.keys, question.query_times_us, rule);
        let first_us = if question.expired { None } else { spine.first_counting_us() };
        let units = match spine.last_visible_us() {
            Some(last_us) => Units::within(scan, view, first_us.unwrap_or(i64::MIN)..=last_us)?.matter,
            None => Vec::new(),
        };
        Ok(Finding { question, units, spine: RwLock::new(spine) })
    }

    pub(crate) fn visitor<'r>(&'r self, scan: &'r Scan) -> Visitor<'r> {
        let view = self.question.view;
        let visit = move |rows: &RecordBatch, first: Address| -> Result<()> {
            let stamps = stamps(scan, view, rows, first)?;
            let candidates = self.spine.read().candidates(&stamps, |row| first.plus(row));
            self.spine.write().offer(&candidates);
            Ok(())
        };
        Visitor { columns: view.stamp_columns(), units: &self.units, visit: Box::new(visit) }
    }
}

impl Finding<'_> {
    /// The second pass: the features of the rows that were found.
    pub(crate) fn fetch(self, scan: &Scan) -> Result<Answer> {
        let (question, view) = (self.question, self.question.view);
        let Matches { stamps, states } = self.spine.into_inner().finish();
        let is_own = |(stamp, q_us): &(&Stamp, &i64)| {
            stamp.address().is_some() && visible_from(stamp.ts_us, view.lag_us) == **q_us
        };
        let coinciding = stamps.iter().zip(question.query_times_us).filter(is_own).count() as u64;
        let event_timestamps_us = stamps.iter().map(|stamp| stamp.ts_us).collect();
        let present =
            stamps.iter().zip(&states).enumerate().filter(|(_, (_, state))| **state == RowState::Present);
        let mut wanted: Vec<(Address, u32)> =
            present.filter_map(|(row, (stamp, _))| Some((stamp.address()?, row as u32))).collect();
        drop(stamps);
        wanted.sort_unstable();

        // Several questions may have found one row, which is read once.
        let mut addresses: Vec<Address> = wanted.iter().map(|(address, _)| *address).collect();
        addresses.dedup();
        let selections = select(scan, addresses.iter().copied());
        let order: Vec<usize> = (0..selections.len()).collect();
        let mut unasked = view.every();
        unasked.retain(|feature| view.strict[*feature] && !question.features.contains(feature));
        let held = question.room.map(|room| room.part(0)).transpose()?;
        let pieces = Mutex::new(Vec::<(usize, Vec<ArrayRef>)>::new());
        // By the indices of the addresses.
        let failed = Mutex::new(Failed::default());
        for_each(scan.readers(), &order, |i| {
            read_selected(scan, &selections[i], view.row_columns(), &mut |before, rows| {
                let mut lost = Failed::default();
                let columns = view.features(&rows, question.features, &mut lost)?;
                held.as_ref().map_or(Ok(()), |held| held.grow(columns.iter().map(column_bytes).sum()))?;
                // A row that one feature refuses is in no head, whichever features are asked for.
                let mut refused = Failed::default();
                view.features(&rows, &unasked, &mut refused)?;
                for lost in [&lost, &refused] {
                    check_strict(lost, &format!("feature view `{}`", view.name), |row| {
                        place_of(scan, addresses[before + row])
                    })?;
                }
                pieces.lock().push((before, columns));
                failed.lock().join(&lost.placed(|row| [before as u32 + row]));
                Ok(())
            })
        })?;
        let mut pieces = pieces.into_inner();
        pieces.sort_unstable_by_key(|(before, _)| *before);
        let (before, pieces): (Vec<usize>, Vec<_>) = pieces.into_iter().unzip();

        let mut rows = vec![Place::Null; question.keys.len()];
        let mut cursor = Cursor::new(&before);
        let found = || wanted.chunk_by(|(a, _), (b, _)| a == b);
        for (index, same) in found().enumerate() {
            let place = cursor.place(index);
            same.iter().for_each(|(_, row)| rows[*row as usize] = place);
        }
        let mut failed = failed.into_inner();
        if !failed.is_empty() {
            let found: Vec<&[(Address, u32)]> = found().collect();
            failed = failed.placed(|index| found[index as usize].iter().map(|(_, row)| *row));
        }
        let mut answer = Answer::new(question, pieces, rows, states, Some(event_timestamps_us));
        (answer.failed, answer.coinciding, answer.held) = (failed, coinciding, held);
        Ok(answer)
    }
}
