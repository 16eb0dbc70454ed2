//! Do a view's aggregations make sense over its source, and which intermediate results do they need?

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::{is_not_null, is_null, not, nullif, or_kleene};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::row::{RowConverter, SortField};
use feature_defs::{Aggregation, DefError, Expr, FeatureView, Function};

use super::aggregate::{Finish, InputShape, Params};
use super::value::{is_number, map_type, nothing, travelling};
use super::{
    Accumulator, DAY_US, Feature, InputPlan, Kind, LIFETIME_TAIL_US, Level, SPANS_US, Window, Windows,
};
use crate::EngineError;
use crate::expr::Expression;
use crate::schema::{timestamp, type_name};
use crate::view::at;

impl Windows {
    /// Compiles the aggregations of `view` over the columns of its source; gives the columns that they read as well.
    pub(crate) fn compile(
        view: &FeatureView,
        event_id: &[String],
        source: &Schema,
        fallback: &str,
    ) -> Result<(Windows, Vec<String>), Vec<DefError>> {
        let mut errors = Vec::new();
        let mut used: Vec<usize> = Vec::new();
        for aggregation in &view.aggregations {
            match Parts::compile(aggregation, source) {
                Ok(parts) => {
                    used.extend(parts.all().flat_map(Expression::columns));
                    errors.extend(check(aggregation, &parts).err());
                }
                Err(mistakes) => errors.extend(mistakes),
            }
        }
        for column in event_id {
            match source.index_of(column) {
                Ok(place) => used.push(place),
                Err(_) => {
                    let cause = format!("`event_id` names column `{column}`, which the source does not have");
                    errors.push(DefError::new(&view.loc, cause));
                }
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        used.extend(used.is_empty().then(|| source.index_of(fallback).unwrap_or(0)));
        used.sort_unstable();
        used.dedup();
        let narrow = source.project(&used).expect("the places come from the schema");

        let mut windows = Windows {
            view: view.name.clone(),
            schema: Arc::new(Schema::empty()),
            features: Vec::new(),
            accumulators: Vec::new(),
            inputs: Vec::new(),
            windows: Vec::new(),
            levels: Vec::new(),
            has_lifetime: false,
            identity: event_id.iter().filter_map(|column| narrow.index_of(column).ok()).collect(),
            ordered: false,
        };
        let mut fields = Vec::new();
        for aggregation in &view.aggregations {
            let parts = Parts::compile(aggregation, &narrow)?;
            let (kind, finish, result) = check(aggregation, &parts).map_err(|e| vec![e])?;
            let text = parts.text(aggregation);
            let shape = InputShape { by: parts.by.is_some(), bucket: parts.bucket.is_some() };
            let float = parts.value.as_ref().is_some_and(|value| value.dtype().is_floating());
            let input = windows.inputs.iter().position(|known| known.text == text).unwrap_or_else(|| {
                windows.inputs.push(InputPlan {
                    text,
                    value: parts.value,
                    filter: parts.filter,
                    by: parts.by,
                    bucket: parts.bucket,
                    shape,
                });
                windows.inputs.len() - 1
            });
            let params = Params {
                float,
                n: match aggregation.function {
                    Function::LastN { n } | Function::TopNBy { n, .. } => n as usize,
                    _ => 0,
                },
                limit: if kind == Kind::Distinct || shape.bucket { aggregation.limit as usize } else { 0 },
                percentile: match aggregation.function {
                    Function::ApproxPercentile { percentile } => percentile,
                    _ => 0.0,
                },
            };
            let accumulator = Accumulator { kind, bucketed: shape.bucket, params, input };
            windows.ordered |= matches!(kind, Kind::First | Kind::Last | Kind::Several);
            let accumulator = place(&mut windows.accumulators, accumulator);
            let result = if shape.bucket { map_type(&result) } else { result };
            for window in &aggregation.windows {
                fields.push(Field::new(aggregation.feature_name(window), result.clone(), true));
                let window = Window { length_us: window.length_us, hop_us: window.hop_us };
                windows.has_lifetime |= window.length_us.is_none();
                let window = place(&mut windows.windows, window);
                windows.features.push(Feature { accumulator, window, finish });
            }
        }
        windows.schema = Arc::new(Schema::new(fields));
        windows.levels = levels(&windows.windows);
        let names = narrow.fields().iter().map(|field| field.name().clone()).collect();
        Ok((windows, names))
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

    /// Whether events need their created timestamp and arrival.
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

    /// What makes each row the same event as another of its key and time; empty where events have no identity.
    pub fn identities(&self, rows: &RecordBatch) -> Result<Vec<u128>, EngineError> {
        if self.identity.is_empty() {
            return Ok(Vec::new());
        }
        let columns: Vec<ArrayRef> =
            self.identity.iter().map(|place| Arc::clone(rows.column(*place))).collect();
        let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
        let converter = RowConverter::new(fields)?;
        let encoded = converter.convert_columns(&columns)?;
        let hash = |seed: u64, bytes: &[u8]| {
            use std::hash::{BuildHasher, Hasher};
            let mut hasher = foldhash::quality::FixedState::with_seed(seed).build_hasher();
            hasher.write(bytes);
            u128::from(hasher.finish())
        };
        Ok(encoded.iter().map(|row| hash(1, row.as_ref()) << 64 | hash(2, row.as_ref())).collect())
    }
}

/// The tiles that the windows need: for each size the farthest reach of the windows that use it.
fn levels(windows: &[Window]) -> Vec<Level> {
    let level = |span_us: &i64| {
        let boundless = Level { span_us: *span_us, reach_us: i64::MAX };
        let users = windows.iter().filter(|window| window.uses(&boundless));
        users.map(Window::reach_us).max().map(|reach_us| Level { span_us: *span_us, reach_us })
    };
    SPANS_US.iter().filter_map(level).collect()
}

fn place<T: PartialEq>(known: &mut Vec<T>, item: T) -> usize {
    known.iter().position(|other| *other == item).unwrap_or_else(|| {
        known.push(item);
        known.len() - 1
    })
}

/// The expressions of one aggregation.
struct Parts {
    value: Option<Expression>,
    filter: Option<Expression>,
    by: Option<Expression>,
    bucket: Option<Expression>,
}

impl Parts {
    fn compile(aggregation: &Aggregation, schema: &Schema) -> Result<Parts, Vec<DefError>> {
        let mut errors = Vec::new();
        let mut compile = |expr: &Expr, wanted: Option<&DataType>| {
            Expression::compile(&expr.sql, schema, wanted).map_err(|m| errors.push(at(m, &expr.loc))).ok()
        };
        let is_histogram = matches!(aggregation.function, Function::Histogram);
        let text = Some(&DataType::Utf8);
        // A histogram is a count for each category.
        let value = aggregation.of.as_ref().filter(|_| !is_histogram).and_then(|of| compile(of, None));
        let bucket = if is_histogram { &aggregation.of } else { &aggregation.buckets };
        let bucket = bucket.as_ref().and_then(|bucket| compile(bucket, text));
        let by = match &aggregation.function {
            Function::TopNBy { by, .. } => compile(by, None),
            _ => None,
        };
        let filter = aggregation.filter.as_ref().and_then(|filter| {
            let compiled = Expression::compile_filter(&filter.sql, schema);
            compiled.map_err(|m| errors.push(at(m, &filter.loc))).ok()
        });
        if errors.is_empty() { Ok(Parts { value, filter, by, bucket }) } else { Err(errors) }
    }

    fn all(&self) -> impl Iterator<Item = &Expression> {
        [&self.value, &self.filter, &self.by, &self.bucket].into_iter().flatten()
    }

    /// Names the columns that the aggregation reads: two of one text read the same.
    fn text(&self, aggregation: &Aggregation) -> String {
        let sql =
            |there: bool, expr: &Option<Expr>| expr.as_ref().filter(|_| there).map(|expr| expr.sql.clone());
        let is_histogram = matches!(aggregation.function, Function::Histogram);
        let bucket = if is_histogram { &aggregation.of } else { &aggregation.buckets };
        let by = if let Function::TopNBy { by, .. } = &aggregation.function { Some(&by.sql) } else { None };
        let of = sql(self.value.is_some(), &aggregation.of);
        format!("{of:?} {:?} {by:?} {:?}", sql(true, &aggregation.filter), sql(true, bucket))
    }
}

/// What is kept for the aggregation, what is asked of it, and the type of what comes out.
fn check(aggregation: &Aggregation, parts: &Parts) -> Result<(Kind, Finish, DataType), DefError> {
    let of = parts.value.as_ref().map_or(DataType::Int64, |value| value.dtype().clone());
    let (is_time, is_text) = (of == timestamp() || of == DataType::Date32, matches!(of, DataType::Utf8));
    let is_bool = of == DataType::Boolean;
    let refuse = |needs: &str| {
        let loc = aggregation.of.as_ref().map_or(&aggregation.loc, |of| &of.loc);
        let cause =
            format!("`{}` needs {needs}, but `of` is {}", aggregation.function.name(), type_name(&of));
        DefError::new(loc, cause).with_help("cast it within `of`, or take another function")
    };
    let numbers = || if of.is_numeric() { Ok(()) } else { Err(refuse("numbers")) };
    let scalar = || if of.is_nested() { Err(refuse("single values, not lists")) } else { Ok(()) };
    let sum = if of.is_floating() { DataType::Float64 } else { DataType::Int64 };
    let float = DataType::Float64;
    let list = || DataType::List(Arc::new(Field::new("item", of.clone(), true)));
    Ok(match &aggregation.function {
        Function::Count | Function::Histogram => (Kind::Count, Finish::Itself, DataType::Int64),
        Function::Sum => numbers().map(|()| (Kind::Sum, Finish::Sum, sum))?,
        Function::Avg => numbers().map(|()| (Kind::Sum, Finish::Avg, float))?,
        Function::Stddev => numbers().map(|()| (Kind::Moments, Finish::Stddev, float))?,
        Function::Variance => numbers().map(|()| (Kind::Moments, Finish::Variance, float))?,
        Function::Min | Function::Max if !(of.is_numeric() || is_time || is_text) => {
            return Err(refuse("numbers, text or times"));
        }
        Function::Min => (Kind::Least, Finish::Itself, of),
        Function::Max => (Kind::Greatest, Finish::Itself, of),
        Function::First => scalar().map(|()| (Kind::First, Finish::Itself, of.clone()))?,
        Function::Last => scalar().map(|()| (Kind::Last, Finish::Itself, of.clone()))?,
        Function::LastN { .. } => numbers().map(|()| (Kind::Several, Finish::Itself, list()))?,
        Function::TopNBy { by, .. } => {
            let rank = parts.by.as_ref().map_or(DataType::Null, |by| by.dtype().clone());
            if rank.is_nested() || !is_number(&rank) {
                let cause = format!("`by` must be a number or a time, but it is {}", type_name(&rank));
                return Err(DefError::new(&by.loc, cause).with_help("cast it within `by`"));
            }
            numbers().map(|()| (Kind::Several, Finish::Itself, list()))?
        }
        Function::ApproxDistinct => scalar().map(|()| (Kind::Hll, Finish::Itself, DataType::Int64))?,
        Function::CountDistinct => scalar().map(|()| (Kind::Distinct, Finish::Itself, DataType::Int64))?,
        Function::ApproxPercentile { .. } => numbers().map(|()| (Kind::Percentile, Finish::Itself, float))?,
        Function::Any if is_bool => (Kind::Truths, Finish::Any, DataType::Boolean),
        Function::Every if is_bool => (Kind::Truths, Finish::Every, DataType::Boolean),
        Function::Any | Function::Every => return Err(refuse("true or false")),
    })
}

const _: () = assert!(LIFETIME_TAIL_US % DAY_US == 0);
