//! What is kept for a view's aggregations, and what do they read?

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::{is_not_null, is_null, not, nullif, or_kleene};
use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use arrow::row::{RowConverter, SortField};
use feature_defs::At;

use super::aggregate::{Finish, InputShape, Kind, Params, State};
use super::value::{Cell, nothing, travelling};
use super::window::{DAY_US, Kept, Level, Window, floor};
use crate::EngineError;
use crate::expr::Expression;
use crate::schema::type_name;

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

    /// Whether a head that keeps `kept` answers all features.
    pub fn are_kept(&self, kept: &Kept) -> bool {
        (0..self.features.len()).all(|feature| self.is_kept(feature, kept))
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
            let dtype = input.value.as_ref().map(|value| type_name(value.dtype()));
            text += &format!(
                "keep {:?} {:?} of {} {dtype:?}\n",
                accumulator.kind, accumulator.params, input.text
            );
        }
        text
    }

    /// What `state` says of the feature.
    pub(super) fn cell<S: State>(&self, feature: usize, state: &S) -> Result<Cell, EngineError> {
        let Feature { accumulator, finish, .. } = self.features[feature];
        let cell = state.finish(finish, &self.accumulators[accumulator].params);
        cell.map_err(|overflow| EngineError::Evaluate {
            what: format!("feature view `{}`, feature `{}`", self.view, self.schema.field(feature).name()),
            cause: format!("{}; aggregate smaller numbers, or cast them to float64", overflow.0),
        })
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

    /// The columns of each needed input, of `rows` whose columns are those that [`Windows::compile`] named.
    pub fn prepare(&self, rows: &RecordBatch, needed: &[bool]) -> Result<Vec<Vec<ArrayRef>>, EngineError> {
        let what = || format!("feature view `{}`, aggregations", self.view);
        let mut prepared = Vec::with_capacity(self.inputs.len());
        for (input, needed) in self.inputs.iter().zip(needed) {
            if !needed {
                prepared.push(vec![nothing(&DataType::Int64, rows.num_rows())]);
                continue;
            }
            let mut hidden: Option<BooleanArray> = None;
            let mut hide = |mask: BooleanArray| -> Result<(), EngineError> {
                hidden = Some(match hidden.take() {
                    None => mask,
                    Some(known) => or_kleene(&known, &mask)?,
                });
                Ok(())
            };
            if let Some(filter) = &input.filter {
                hide(not(&filter.keeps(rows, &what)?)?)?;
            }
            let mut columns = Vec::new();
            for part in [&input.by, &input.bucket].into_iter().flatten() {
                let column = part.evaluate(rows, &what)?;
                if column.null_count() > 0 {
                    hide(is_null(&column)?)?;
                }
                columns.push(travelling(&column)?);
            }
            let mut value: ArrayRef = match &input.value {
                None => Arc::new(Int64Array::from(vec![0; rows.num_rows()])),
                Some(value) => {
                    let value = value.evaluate(rows, &what)?;
                    if value.data_type().is_nested() {
                        let there = is_not_null(&value)?;
                        Arc::new(Int64Array::from_iter(
                            there.iter().map(|there| there.filter(|t| *t).map(|_| 0)),
                        ))
                    } else {
                        travelling(&value)?
                    }
                }
            };
            if let Some(hidden) = hidden {
                value = nullif(&value, &hidden)?;
            }
            columns.insert(0, value);
            prepared.push(columns);
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
