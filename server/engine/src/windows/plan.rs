//! What is kept for a view's aggregations, and what do they read?

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::{is_not_null, not, nullif};
use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use arrow::row::{RowConverter, SortField};
use feature_defs::At;

use super::aggregate::{Finish, InputShape, Kind, Params, State};
use super::value::{Cell, column, nothing, travelling};
use super::window::{DAY_US, Kept, Level, Window, floor};
use crate::expr::{Evaluated, Expression, Kept as Filtered};
use crate::schema::identity_name;
use crate::{EngineError, Failed};

/// The aggregations of a feature view, compiled.
#[derive(Debug, Clone)]
pub struct Windows {
    pub(super) view: String,
    /// Whether an event counts at the very time at which it becomes visible.
    pub(super) at: At,
    /// The features.
    pub(super) schema: SchemaRef,
    pub(super) features: Vec<Feature>,
    pub(super) accumulators: Vec<Accumulator>,
    pub(super) inputs: Vec<InputPlan>,
    pub(super) windows: Vec<Window>,
    pub(super) levels: Vec<Level>,
    pub(super) has_lifetime: bool,
    /// The columns of `event_id`, as indices among the columns read.
    pub(super) identity: Vec<usize>,
    /// Their names and types.
    pub(crate) event_id: Vec<FieldRef>,
    /// Whether anything asks for the order of events of one instant.
    pub(super) ordered: bool,
}

/// Which result of which accumulator over which window a feature is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Feature {
    pub(super) accumulator: usize,
    pub(super) window: usize,
    pub(super) finish: Finish,
    /// Whether what cannot be computed is an error.
    pub(super) strict: bool,
}

impl Feature {
    /// Whether it is a result of this accumulator over this window.
    pub(super) fn is_of(&self, accumulator: usize, window: usize) -> bool {
        self.accumulator == accumulator && self.window == window
    }
}

/// One intermediate result that is kept.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Accumulator {
    pub(super) kind: Kind,
    pub(super) bucketed: bool,
    pub(super) params: Params,
    pub(super) input: usize,
}

/// One set of columns that accumulators read.
#[derive(Debug, Clone)]
pub(super) struct InputPlan {
    /// Names the columns: two inputs of one text are one.
    pub(super) text: String,
    pub(super) value: Option<Expression>,
    pub(super) filter: Option<Expression>,
    pub(super) by: Option<Expression>,
    pub(super) bucket: Option<Expression>,
    pub(super) shape: InputShape,
}

impl Windows {
    /// What a head that is filled by this plan keeps.
    pub fn kept(&self) -> Kept {
        Kept { levels: self.levels.clone(), lifetime: self.has_lifetime }
    }

    /// Whether a window is over all time.
    pub fn has_lifetime(&self) -> bool {
        self.has_lifetime
    }

    /// Where a stretch of tiles may be cut so that no tile made of events is: the start of a day at or before `us`.
    pub fn cut_us(us: i64) -> i64 {
        floor(us, DAY_US)
    }

    /// How long before a query time its oldest event may have become visible, µs; none where a window is over all time.
    pub fn reach_us(&self, wanted: &[usize]) -> Option<i64> {
        let windows = wanted.iter().map(|feature| &self.windows[self.features[*feature].window]);
        windows
            .map(|window| window.length_us.map(|_| window.reach_us()))
            .try_fold(0, |longest: i64, us| Some(longest.max(us?)))
    }

    /// Whether a head that keeps `kept` answers the feature.
    pub fn is_kept(&self, feature: usize, kept: &Kept) -> bool {
        let window = &self.windows[self.features[feature].window];
        let enough =
            |level: &Level| level.span_us == window.least_us() && level.reach_us >= window.reach_us();
        kept.levels.iter().any(enough) && (kept.lifetime || window.length_us.is_some())
    }

    /// The features, in order.
    pub(crate) fn schema(&self) -> &arrow::datatypes::SchemaRef {
        &self.schema
    }

    /// What shapes the stored tiles: everything but the windows.
    pub(crate) fn identity_text(&self, event_id: &[String]) -> String {
        let mut text = format!("tiles v1\nevent id {event_id:?}\n");
        for accumulator in &self.accumulators {
            let input = &self.inputs[accumulator.input];
            let dtype = input.value.as_ref().map(|value| identity_name(value.dtype()));
            text += &format!(
                "keep {:?} {:?} of {} {dtype:?}\n",
                accumulator.kind, accumulator.params, input.text
            );
        }
        text
    }

    /// Whether the bits of what is kept hang on what [`functions_fingerprint`](crate::expr::functions_fingerprint)
    /// says.
    pub(crate) fn calls_real(&self) -> bool {
        let of_input = |input: &InputPlan| {
            let parts = [&input.value, &input.filter, &input.by, &input.bucket];
            parts.into_iter().flatten().any(Expression::calls_real)
        };
        self.inputs.iter().any(of_input) || self.accumulators.iter().any(|it| it.kind == Kind::Percentile)
    }

    /// What `state` says of the feature.
    pub(super) fn cell<S: State>(&self, feature: usize, state: &S) -> Cell {
        let Feature { accumulator, finish, .. } = self.features[feature];
        let cell = state.finish(finish, &self.accumulators[accumulator].params);
        cell.unwrap_or(Cell::Failed)
    }

    /// The cells of a feature as its column; `failed` hears of those beyond its type.
    pub(super) fn column(
        &self,
        feature: usize,
        cells: Vec<Cell>,
        failed: &mut Failed,
    ) -> Result<ArrayRef, EngineError> {
        let field = self.schema.field(feature);
        let rows = cells.iter().enumerate().filter(|(_, cell)| matches!(cell, Cell::Failed));
        let rows: Vec<u32> = rows.map(|(row, _)| row as u32).collect();
        failed.note_rows(field.name(), &rows, self.features[feature].strict);
        column(cells, field.data_type())
    }

    /// Whether events need an [`Order`](super::Order).
    pub fn needs_order(&self, as_known: bool) -> bool {
        self.ordered || as_known || !self.identity.is_empty()
    }

    /// The inputs that the features `wanted` read.
    pub fn inputs_of(&self, wanted: &[usize]) -> Vec<bool> {
        let mut needed = vec![false; self.inputs.len()];
        for feature in wanted {
            needed[self.accumulators[self.features[*feature].accumulator].input] = true;
        }
        needed
    }

    /// The columns of each needed input, of `rows` whose columns are those that [`Windows::compile`] named. Where one
    /// cannot be computed the event is left out, and `failed` hears so for each feature that reads it.
    pub fn prepare(
        &self,
        rows: &RecordBatch,
        needed: &[bool],
        failed: &mut Failed,
    ) -> Result<Vec<Vec<ArrayRef>>, EngineError> {
        let mut prepared = Vec::with_capacity(self.inputs.len());
        for (index, (input, needed)) in self.inputs.iter().zip(needed).enumerate() {
            if !needed {
                prepared.push(vec![nothing(&DataType::Int64, rows.num_rows())]);
                continue;
            }
            let Prepared { columns, failed: lost } = input.prepare(rows, &self.view)?;
            prepared.push(columns);
            let reads = |feature: &Feature| self.accumulators[feature.accumulator].input == index;
            for (feature, field) in self.features.iter().zip(self.schema.fields()) {
                if reads(feature) {
                    failed.note_rows(field.name(), &lost, feature.strict);
                }
            }
        }
        Ok(prepared)
    }

    /// What makes each row the same event as another of its key and time, if the source has an `event_id`.
    pub fn identities(&self, rows: &RecordBatch) -> Result<Option<Vec<u128>>, EngineError> {
        if self.identity.is_empty() {
            return Ok(None);
        }
        let columns: Vec<ArrayRef> =
            self.identity.iter().map(|column| Arc::clone(rows.column(*column))).collect();
        Ok(Some(identities(&columns)?))
    }
}

/// What accumulators read of some rows.
struct Prepared {
    /// The value, null where the row does not count; then `by` and the bucket, where there are.
    columns: Vec<ArrayRef>,
    /// The rows that do not count because something could not be computed, ascending.
    failed: Vec<u32>,
}

impl InputPlan {
    fn prepare(&self, rows: &RecordBatch, view: &str) -> Result<Prepared, EngineError> {
        let what = || format!("feature view `{view}`, aggregations");
        let mut counts = vec![true; rows.num_rows()];
        let mut failed = BTreeSet::new();
        if let Some(filter) = &self.filter {
            let Filtered { mask, failed: lost } = filter.keeps(rows, &what)?;
            counts.iter_mut().zip(&mask).for_each(|(counts, keeps)| *counts = keeps == Some(true));
            failed.extend(lost);
        }
        // What the filter leaves out has not failed, whatever would come of it.
        let mut part = |part: &Expression| -> Result<ArrayRef, EngineError> {
            let Evaluated { values, failed: lost } = part.evaluate(rows, &what)?;
            failed.extend(lost.into_iter().filter(|row| counts[*row as usize]));
            Ok(values)
        };
        let value: ArrayRef = match &self.value {
            None => Arc::new(Int64Array::from(vec![0; rows.num_rows()])),
            Some(value) => part(value)?,
        };
        let others =
            [&self.by, &self.bucket].into_iter().flatten().map(part).collect::<Result<Vec<_>, _>>()?;
        for other in others.iter().filter(|other| other.null_count() > 0) {
            counts.iter_mut().enumerate().for_each(|(row, counts)| *counts &= other.is_valid(row));
        }
        let value: ArrayRef = if value.data_type().is_nested() {
            let there = is_not_null(&value)?;
            Arc::new(Int64Array::from_iter(there.iter().map(|there| there.filter(|t| *t).map(|_| 0))))
        } else {
            travelling(&value)?
        };
        let value = match counts.contains(&false) {
            true => nullif(&value, &not(&BooleanArray::from(counts))?)?,
            false => value,
        };
        let mut columns = vec![value];
        for other in &others {
            columns.push(travelling(other)?);
        }
        Ok(Prepared { columns, failed: failed.into_iter().collect() })
    }
}

/// What the columns of `event_id` say, row by row.
fn identities(columns: &[ArrayRef]) -> Result<Vec<u128>, EngineError> {
    let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let converter = RowConverter::new(fields)?;
    let encoded = converter.convert_columns(columns)?;
    let hash = |seed: u64, bytes: &[u8]| {
        use std::hash::{BuildHasher, Hasher};
        let mut hasher = foldhash::quality::FixedState::with_seed(seed).build_hasher();
        hasher.write(bytes);
        u128::from(hasher.finish())
    };
    Ok(encoded.iter().map(|row| hash(1, row.as_ref()) << 64 | hash(2, row.as_ref())).collect())
}

/// Which event does not count, row by row of what is asked: these columns hold its `event_id`. Where one is null, all
/// events do.
pub fn excluded(columns: &[ArrayRef]) -> Result<Vec<Option<Excluded>>, EngineError> {
    let identities = identities(columns)?.into_iter().enumerate();
    let is_known = |row: usize| columns.iter().all(|column| column.is_valid(row));
    Ok(identities.map(|(row, identity)| is_known(row).then_some(Excluded(identity))).collect())
}

/// An event that does not count, by what makes it the same as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Excluded(pub(super) u128);

impl Excluded {
    /// Whether it is the event of this identity, as [`Windows::identities`] has it.
    pub fn is(self, identity: u128) -> bool {
        self.0 == identity
    }
}
