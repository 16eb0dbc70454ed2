//! What did history say about these keys at these times? The point-in-time join over the files of a source.
//!
//! Two passes. The first reads keys, times and the filter's columns of every row that could matter, and lets them
//! stream past the spine. The second reads the features' columns of just the rows that were found. Views over one
//! source, windows included, share the first: decoding the files is what it costs most.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::{interleave, take_record_batch};
use parking_lot::{Mutex, RwLock};
use quern_engine::asof::{Address, AsOf, Matches, TimeRule};
use quern_engine::key::Keys;
use quern_engine::{Found, RowState, ViewPlan};

use crate::error::{Error, Result};
use crate::store::history::Scan;
use crate::{Deployment, Quern, windows};

/// Keys and query times of one view, row by row.
pub struct Question<'a> {
    /// The view.
    pub view: &'a ViewPlan,
    /// The keys.
    pub keys: &'a Keys,
    /// The query times, µs.
    pub query_times_us: &'a [i64],
    /// The places of the features wanted among the view's.
    pub features: &'a [usize],
    /// Rows created after the query time are invisible.
    pub as_known: bool,
    /// Whether an expired row must be told from none. Without it, rows that are too old to count are not even read.
    pub expired: bool,
}

/// The answer to a [`Question`], row by row, kept as the rows of history that it needs.
pub struct Answer {
    /// For each feature the pieces that were read; the first piece is one null.
    pub(crate) pieces: Vec<Vec<ArrayRef>>,
    /// Piece and row of each answer; (0, 0) is null.
    pub(crate) places: Vec<(usize, usize)>,
    pub(crate) states: Vec<RowState>,
    /// Of rows; empty where the answers are aggregates of many.
    pub(crate) event_timestamps_us: Vec<i64>,
}

impl Answer {
    /// The answers to the questions in `rows`.
    pub fn found(&self, rows: Range<usize>) -> Result<Found> {
        let places = &self.places[rows.clone()];
        let columns = self.pieces.iter().map(|pieces| {
            let pieces: Vec<&dyn Array> = pieces.iter().map(AsRef::as_ref).collect();
            interleave(&pieces, places)
        });
        Ok(Found {
            columns: columns.collect::<std::result::Result<_, _>>()?,
            states: self.states[rows.clone()].to_vec(),
            event_timestamps: self.event_timestamps_us.get(rows).unwrap_or_default().to_vec(),
            absent: Vec::new(),
        })
    }
}

/// Asks history, and opens and reads each source once for all questions about it. Answers come in the order of the
/// questions. Reads files: call it where blocking is allowed.
pub fn ask(quern: &Quern, live: &Deployment, questions: &[Question]) -> Result<Vec<Answer>> {
    let mut by_source: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (place, question) in questions.iter().enumerate() {
        if u32::try_from(question.keys.len()).is_err() {
            return Err(Error::too_large("a spine holds at most 4,294,967,295 rows; send it in parts"));
        }
        by_source.entry(&question.view.source).or_default().push(place);
    }
    let mut answers = Vec::with_capacity(questions.len());
    for places in by_source.values() {
        let view = questions[places[0]].view;
        quern.refresh(&view.source)?;
        let scan = open(quern, live, view)?;
        let found = ask_source(&scan, places.iter().map(|place| &questions[*place]))?;
        answers.extend(places.iter().zip(found));
    }
    answers.sort_unstable_by_key(|(place, _)| **place);
    Ok(answers.into_iter().map(|(_, answer)| answer).collect())
}

/// The files of the view's source, and what was pushed as far as it is known here.
pub(crate) fn open(quern: &Quern, live: &Deployment, view: &ViewPlan) -> Result<Scan> {
    let source = &live.catalog.definitions.sources[&view.source];
    quern.history.open(source, &live.source_schemas[&view.source])
}

/// A question that history streams past.
enum Asked<'a> {
    Rows(Finding<'a>),
    Windows(windows::Asked<'a>),
}

impl<'a> Asked<'a> {
    fn rows(&self) -> Option<&Finding<'a>> {
        match self {
            Asked::Rows(finding) => Some(finding),
            Asked::Windows(_) => None,
        }
    }

    fn windows(&self) -> Option<&windows::Asked<'a>> {
        match self {
            Asked::Rows(_) => None,
            Asked::Windows(asked) => Some(asked),
        }
    }
}

/// Answers questions about one source. It is read once for all of them, unless windows take turns.
fn ask_source<'a>(scan: &'a Scan, questions: impl Iterator<Item = &'a Question<'a>>) -> Result<Vec<Answer>> {
    let asked = questions.map(|question| match &question.view.windows {
        Some(windows) => Asked::Windows(windows::Asked::new(scan, windows, question)),
        None => Asked::Rows(Finding::new(scan, question)),
    });
    let asked: Vec<Asked> = asked.collect();
    let mut of_rows: Vec<Reader> = asked.iter().filter_map(Asked::rows).map(Finding::reader).collect();
    for together in windows::in_groups(asked.iter().filter_map(Asked::windows)) {
        let turns = windows::turns(together.iter().map(|asked| asked.bytes()).sum());
        for now in 0..turns {
            let of_windows = together.iter().map(|asked| asked.reader(now, turns));
            read_once(scan, &of_rows.drain(..).chain(of_windows).collect::<Vec<_>>())?;
            together.iter().try_for_each(|asked| asked.sweep(now, turns))?;
        }
    }
    drop(of_rows);
    let answers = asked.into_iter().map(|asked| match asked {
        Asked::Rows(finding) => fetch(scan, finding.question, finding.spine.into_inner().finish()),
        Asked::Windows(asked) => Ok(asked.answer()),
    });
    answers.collect()
}

/// The first pass of a question about rows.
struct Finding<'a> {
    question: &'a Question<'a>,
    units: Vec<usize>,
    spine: RwLock<AsOf>,
}

impl<'a> Finding<'a> {
    fn new(scan: &Scan, question: &'a Question<'a>) -> Finding<'a> {
        let view = question.view;
        let rule = TimeRule { lag_us: view.lag_us, ttl_us: view.ttl_us, as_known: question.as_known };
        let spine = AsOf::new(question.keys, question.query_times_us, rule);
        let first_us = if question.expired { None } else { spine.first_counting_us() };
        let units = spine.last_visible_us().map_or(Vec::new(), |last_us| {
            let first_us = first_us.unwrap_or(i64::MIN);
            (0..scan.units.len()).filter(|unit| scan.units[*unit].may_hold(first_us, last_us)).collect()
        });
        Finding { question, units, spine: RwLock::new(spine) }
    }

    fn reader(&self) -> Reader<'_> {
        let view = self.question.view;
        let visit = move |rows: &RecordBatch, first: Address| -> Result<()> {
            let stamps = view.stamps(rows)?;
            let candidates = self.spine.read().candidates(&stamps, |row| first.plus(row));
            self.spine.write().offer(&candidates);
            Ok(())
        };
        Reader { columns: view.stamp_columns(), units: &self.units, visit: Box::new(visit) }
    }
}

/// Takes rows in, of which the first lies there.
pub(crate) type Visit<'a> = dyn Fn(&RecordBatch, Address) -> Result<()> + Sync + 'a;

/// Who reads a source: which columns of which units (ascending), and what is done with each batch of rows, given the
/// address of its first.
pub(crate) struct Reader<'a> {
    pub(crate) columns: &'a [String],
    pub(crate) units: &'a [usize],
    pub(crate) visit: Box<Visit<'a>>,
}

/// Reads each unit once for all its readers, by as many threads as there are cores.
pub(crate) fn read_once(scan: &Scan, readers: &[Reader]) -> Result<()> {
    let mut units: Vec<usize> = readers.iter().flat_map(|reader| reader.units).copied().collect();
    units.sort_unstable();
    units.dedup();
    for_each(&units, |unit| {
        let readers = readers.iter().filter(|reader| reader.units.binary_search(&unit).is_ok());
        let mut columns = Vec::new();
        let shares: Vec<(&Reader, Vec<usize>)> =
            readers.map(|reader| (reader, places(&mut columns, reader.columns))).collect();
        let first = Address::new(scan.units[unit].file, scan.units[unit].first_row);
        scan.read(unit, &columns, None, &mut |offset, rows| {
            shares
                .iter()
                .try_for_each(|(reader, share)| (reader.visit)(&rows.project(share)?, first.plus(offset)))
        })
    })
}

/// The places of `names` among `columns`, which grow by those that are missing.
pub(crate) fn places(columns: &mut Vec<String>, names: &[String]) -> Vec<usize> {
    let place = |name: &String| {
        columns.iter().position(|known| known == name).unwrap_or_else(|| {
            columns.push(name.clone());
            columns.len() - 1
        })
    };
    names.iter().map(place).collect()
}

/// Rows of one unit that are wanted, ascending, relative to the unit.
pub(crate) struct Selection {
    pub(crate) unit: usize,
    pub(crate) rows: Vec<u32>,
    /// How many rows were selected from the units before.
    pub(crate) before: usize,
}

/// Which units hold `addresses` (ascending, distinct), and at which rows.
pub(crate) fn select(scan: &Scan, addresses: impl Iterator<Item = Address>) -> Vec<Selection> {
    let mut selections: Vec<Selection> = Vec::new();
    let mut unit = 0;
    for (before, address) in addresses.enumerate() {
        let covers = |unit: usize| {
            let u = &scan.units[unit];
            u.file == address.file() && address.row() < u.first_row + u.rows
        };
        while !covers(unit) {
            unit += 1;
        }
        let row = (address.row() - scan.units[unit].first_row) as u32;
        match selections.last_mut() {
            Some(selection) if selection.unit == unit => selection.rows.push(row),
            _ => selections.push(Selection { unit, rows: vec![row], before }),
        }
    }
    selections
}

/// Reads the selected rows; `visit` gets the number of selected rows before each batch. Where most of a unit is
/// wanted, skipping costs more than reading, and the rest is dropped after.
pub(crate) fn read_selected(
    scan: &Scan,
    selection: &Selection,
    columns: &[String],
    visit: &mut dyn FnMut(usize, RecordBatch) -> Result<()>,
) -> Result<()> {
    let Selection { unit, rows, before } = selection;
    if rows.len() as u64 * 16 < scan.units[*unit].rows {
        return scan.read(*unit, columns, Some(rows), &mut |offset, batch| visit(before + offset, batch));
    }
    let mut done = 0;
    scan.read(*unit, columns, None, &mut |offset, batch| {
        let end = (offset + batch.num_rows()) as u32;
        let count = rows[done..].partition_point(|row| *row < end);
        if count == 0 {
            return Ok(());
        }
        let start = done;
        done += count;
        if count == batch.num_rows() {
            return visit(before + start, batch);
        }
        let picked = UInt32Array::from_iter_values(rows[start..done].iter().map(|row| row - offset as u32));
        visit(before + start, take_record_batch(&batch, &picked)?)
    })
}

fn fetch(scan: &Scan, question: &Question, matches: Matches) -> Result<Answer> {
    let view = question.view;
    let event_timestamps_us = matches.stamps.iter().map(|stamp| stamp.ts_us).collect();
    let mut wanted: Vec<(Address, u32)> = matches
        .stamps
        .iter()
        .zip(&matches.states)
        .enumerate()
        .filter(|(_, (_, state))| **state == RowState::Present)
        .filter_map(|(row, (stamp, _))| Some((stamp.address()?, row as u32)))
        .collect();
    drop(matches.stamps);
    wanted.sort_unstable();
    let mut addresses: Vec<Address> = wanted.iter().map(|(address, _)| *address).collect();
    addresses.dedup();

    let pieces = Mutex::new(Vec::<(usize, Vec<ArrayRef>)>::new());
    let selections = select(scan, addresses.iter().copied());
    let order: Vec<usize> = (0..selections.len()).collect();
    for_each(&order, |i| {
        read_selected(scan, &selections[i], view.row_columns(), &mut |before, rows| {
            let columns = view.features(&rows, question.features)?;
            pieces.lock().push((before, columns));
            Ok(())
        })
    })?;
    let mut pieces = pieces.into_inner();
    pieces.sort_unstable_by_key(|(before, _)| *before);

    let mut places = vec![(0, 0); question.keys.len()];
    let (mut piece, mut index) = (0, 0);
    for (i, (address, row)) in wanted.iter().enumerate() {
        if i > 0 && *address != wanted[i - 1].0 {
            index += 1;
        }
        while pieces.get(piece + 1).is_some_and(|(before, _)| *before <= index) {
            piece += 1;
        }
        places[*row as usize] = (piece + 1, index - pieces[piece].0);
    }
    let columns = question.features.iter().enumerate().map(|(i, feature)| {
        let null = new_null_array(view.features.field(*feature).data_type(), 1);
        std::iter::once(null).chain(pieces.iter().map(|(_, columns)| columns[i].clone())).collect()
    });
    Ok(Answer { pieces: columns.collect(), places, states: matches.states, event_timestamps_us })
}

/// Does `work` for each of `items` on as many threads as there are cores; the first error stops the rest.
pub(crate) fn for_each(items: &[usize], work: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(items.len());
    if threads <= 1 {
        return items.iter().try_for_each(|item| work(*item));
    }
    let (next, failed, error) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !failed.load(Ordering::Relaxed) {
                    let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
                    if let Err(e) = work(*item) {
                        failed.store(true, Ordering::Relaxed);
                        error.lock().get_or_insert(e);
                    }
                }
            });
        }
    });
    error.into_inner().map_or(Ok(()), Err)
}
