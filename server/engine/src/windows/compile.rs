//! Do a view's aggregations make sense over its source, and which intermediate results do they need?

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use feature_defs::{Aggregation, DefError, Expr, FeatureView, Function, Loc, Source, Type};

use super::aggregate::{Finish, InputShape, Kind, Params};
use super::plan::{Accumulator, Feature, InputPlan, Windows};
use super::value::{is_number, map_type};
use super::window::{Window, levels};
use crate::expr::{Expression, Mistake, Reads, Written};
use crate::schema::{quern_type, timestamp, type_name};

impl Windows {
    /// Compiles the aggregations of `view` over the columns of its source; gives the columns that they read as well.
    pub(crate) fn compile(
        view: &FeatureView,
        source: &Source,
        columns: &Schema,
    ) -> Result<(Windows, Reads), Vec<DefError>> {
        let (mut named, mut errors) = event_id(view, source, columns);
        let parse = |aggregation| (aggregation, Parts::of(aggregation).parse(columns));
        let written: Vec<_> = view.aggregations.iter().map(parse).collect();
        named.extend(written.iter().flat_map(|(_, parts)| parts.columns()));
        let reads = Reads::at_least_one(named, columns, &source.event_timestamp);
        let (mut windows, mut fields) = (Windows::empty(view, source, &reads.schema), Vec::new());
        for (aggregation, parts) in written {
            let reduced = parts.compile(&reads.schema).and_then(|parts| {
                let reduction = check(aggregation, &parts).map_err(|mistake| vec![mistake])?;
                Ok((parts, reduction))
            });
            match reduced {
                Ok((parts, reduction)) => fields.extend(windows.aggregate(aggregation, parts, &reduction)),
                Err(mistakes) => errors.extend(mistakes),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        windows.schema = Arc::new(Schema::new(fields));
        windows.levels = levels(&windows.windows);
        Ok((windows, reads))
    }

    /// Before any aggregation is added.
    fn empty(view: &FeatureView, source: &Source, columns: &Schema) -> Windows {
        let identity = source.event_id.iter().filter_map(|column| columns.index_of(column).ok());
        let identity: Vec<usize> = identity.collect();
        Windows {
            view: view.name.clone(),
            at: view.at,
            schema: Arc::new(Schema::empty()),
            features: Vec::new(),
            accumulators: Vec::new(),
            inputs: Vec::new(),
            windows: Vec::new(),
            levels: Vec::new(),
            has_lifetime: false,
            event_id: identity.iter().map(|column| Arc::clone(&columns.fields()[*column])).collect(),
            identity,
            ordered: false,
        }
    }

    /// Adds an aggregation: gives a field for each of its windows.
    fn aggregate(
        &mut self,
        aggregation: &Aggregation,
        parts: Parts<Expression>,
        Reduction { kind, finish, dtype }: &Reduction,
    ) -> Vec<Field> {
        let shape = InputShape { by: parts.by.is_some(), bucket: parts.bucket.is_some() };
        let float = parts.value.as_ref().is_some_and(|value| value.dtype().is_floating());
        let params = Params {
            float,
            n: match aggregation.function {
                Function::LastN { n } | Function::TopNBy { n, .. } => n as usize,
                _ => 0,
            },
            limit: if *kind == Kind::Distinct || shape.bucket { aggregation.limit as usize } else { 0 },
            percentile: match aggregation.function {
                Function::ApproxPercentile { percentile } => percentile,
                _ => 0.0,
            },
        };
        let text = Parts::of(aggregation).text();
        let input = self.inputs.iter().position(|known| known.text == text).unwrap_or_else(|| {
            let Parts { value, filter, by, bucket } = parts;
            self.inputs.push(InputPlan { text, value, filter, by, bucket, shape });
            self.inputs.len() - 1
        });
        let accumulator = Accumulator { kind: *kind, bucketed: shape.bucket, params, input };
        self.ordered |= matches!(kind, Kind::First | Kind::Last | Kind::Several);
        let accumulator = index_of(&mut self.accumulators, accumulator);
        let dtype = if shape.bucket { map_type(dtype) } else { dtype.clone() };
        let mut fields = Vec::new();
        for window in &aggregation.windows {
            fields.push(Field::new(aggregation.feature_name(window), dtype.clone(), true));
            let window = Window { length_us: window.length_us, hop_us: window.hop_us };
            self.has_lifetime |= window.length_us.is_none();
            let window = index_of(&mut self.windows, window);
            self.features.push(Feature { accumulator, window, finish: *finish, strict: aggregation.strict });
        }
        fields
    }
}

/// The columns of `event_id`, and what is wrong with them.
fn event_id(view: &FeatureView, source: &Source, columns: &Schema) -> (Vec<usize>, Vec<DefError>) {
    let (mut indices, mut errors) = (Vec::new(), Vec::new());
    for column in &source.event_id {
        match columns.index_of(column) {
            Ok(index) => indices.push(index),
            Err(_) => {
                let cause = format!("`event_id` names column `{column}`, which the source does not have");
                errors.push(DefError::new(&view.loc, cause));
            }
        }
    }
    (indices, errors)
}

/// The index of `item`, new or known.
fn index_of<T: PartialEq>(known: &mut Vec<T>, item: T) -> usize {
    known.iter().position(|other| *other == item).unwrap_or_else(|| {
        known.push(item);
        known.len() - 1
    })
}

/// The expressions of one aggregation.
struct Parts<T> {
    value: Option<T>,
    filter: Option<T>,
    by: Option<T>,
    bucket: Option<T>,
}

/// An expression that was parsed, and where it stands.
type Parsed<'a> = Result<(&'a Loc, Written<'a>), DefError>;

impl<'a> Parts<&'a Expr> {
    fn of(aggregation: &'a Aggregation) -> Self {
        let Aggregation { function, of, filter, buckets, .. } = aggregation;
        // A histogram is a count for each category.
        let (value, bucket) = match function {
            Function::Histogram => (None, of.as_ref()),
            _ => (of.as_ref(), buckets.as_ref()),
        };
        let by = if let Function::TopNBy { by, .. } = function { Some(by) } else { None };
        Parts { value, filter: filter.as_ref(), by, bucket }
    }

    /// Names the columns that the aggregation reads: two of one text read the same.
    fn text(&self) -> String {
        let sql = |part: Option<&'a Expr>| part.map(|expr| expr.sql.as_str());
        let (value, filter, by, bucket) = (sql(self.value), sql(self.filter), sql(self.by), sql(self.bucket));
        format!("{value:?} {filter:?} {by:?} {bucket:?}")
    }

    fn parse(self, columns: &Schema) -> Parts<Parsed<'a>> {
        let parse = |expr: &'a Expr| match Written::parse(&expr.sql, columns) {
            Ok(written) => Ok((&expr.loc, written)),
            Err(mistake) => Err(mistake.at(&expr.loc)),
        };
        Parts {
            value: self.value.map(parse),
            filter: self.filter.map(parse),
            by: self.by.map(parse),
            bucket: self.bucket.map(parse),
        }
    }
}

impl Parts<Parsed<'_>> {
    fn columns(&self) -> impl Iterator<Item = usize> {
        let parts = [&self.value, &self.filter, &self.by, &self.bucket].into_iter().flatten().flatten();
        parts.flat_map(|(_, written)| written.columns()).copied()
    }

    /// Compiles all of them, or gives all that is wrong.
    fn compile(self, schema: &Schema) -> Result<Parts<Expression>, Vec<DefError>> {
        let mut errors = Vec::new();
        let mut each = |part: Option<Parsed>, compile: &dyn Fn(Written) -> Result<Expression, Mistake>| {
            let compiled = part?.and_then(|(loc, written)| compile(written).map_err(|m| m.at(loc)));
            compiled.map_err(|mistake| errors.push(mistake)).ok()
        };
        let parts = Parts {
            value: each(self.value, &|written| written.compile(schema, None)),
            bucket: each(self.bucket, &|written| written.compile_text(schema)),
            by: each(self.by, &|written| written.compile(schema, None)),
            filter: each(self.filter, &|written| written.compile_filter(schema)),
        };
        if errors.is_empty() { Ok(parts) } else { Err(errors) }
    }
}

/// How an aggregation reduces values.
struct Reduction {
    /// What is kept of them.
    kind: Kind,
    /// What is asked of it.
    finish: Finish,
    /// The type of what comes out.
    dtype: DataType,
}

/// How `aggregation` reduces what its parts give, if their types let it.
fn check(aggregation: &Aggregation, parts: &Parts<Expression>) -> Result<Reduction, DefError> {
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
    let items = || match quern_type(&of) {
        Some(Type::Scalar(item)) if item.is_item() => Ok(()),
        _ => Err(refuse("numbers, text or true and false")),
    };
    let scalar = || if of.is_nested() { Err(refuse("single values, not lists")) } else { Ok(()) };
    let sum = if of.is_floating() { DataType::Float64 } else { DataType::Int64 };
    let float = DataType::Float64;
    let list = || DataType::List(Arc::new(Field::new("item", of.clone(), true)));
    let (kind, finish, dtype) = match &aggregation.function {
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
        Function::LastN { .. } => items().map(|()| (Kind::Several, Finish::Itself, list()))?,
        Function::TopNBy { by, .. } => {
            let rank = parts.by.as_ref().map_or(DataType::Null, |by| by.dtype().clone());
            if rank.is_nested() || !is_number(&rank) {
                let cause = format!("`by` must be a number or a time, but it is {}", type_name(&rank));
                return Err(DefError::new(&by.loc, cause).with_help("cast it within `by`"));
            }
            items().map(|()| (Kind::Several, Finish::Itself, list()))?
        }
        Function::ApproxDistinct => scalar().map(|()| (Kind::Hll, Finish::Itself, DataType::Int64))?,
        Function::CountDistinct => scalar().map(|()| (Kind::Distinct, Finish::Itself, DataType::Int64))?,
        Function::ApproxPercentile { .. } => numbers().map(|()| (Kind::Percentile, Finish::Itself, float))?,
        Function::Any if is_bool => (Kind::Truths, Finish::Any, DataType::Boolean),
        Function::Every if is_bool => (Kind::Truths, Finish::Every, DataType::Boolean),
        Function::Any | Function::Every => return Err(refuse("true or false")),
    };
    Ok(Reduction { kind, finish, dtype })
}
