//! Which vector does a model get? Training and serving both ask here, and nowhere else.
//!
//! A [`ServicePlan`] knows its inputs (join keys and request columns), the look-ups that bring features, and the
//! derived expressions. Whoever did the look-ups, [`ServicePlan::finish`] makes the vector.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, RecordBatchOptions, StringArray,
    UInt32Array,
};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use feature_defs::{DefError, Expr, Feature, FeatureService, Literal, Projection, suggest};

use crate::expr::{Expression, Reads, Written, wish};
use crate::key::Keys;
use crate::schema::{EVENT_TIMESTAMP, arrow_type, timestamp};
use crate::time::RowState;
use crate::view::ViewPlan;
use crate::{Catalog, EngineError};

/// A feature service, compiled.
#[derive(Debug, Clone)]
pub struct ServicePlan {
    /// The service's name.
    pub name: String,
    /// What an instance or a spine row brings besides `event_timestamp`: join-key columns, then request columns.
    pub inputs: SchemaRef,
    /// How many of `inputs` are join-key columns.
    pub key_count: usize,
    /// The views joined.
    pub lookups: Vec<Lookup>,
    /// The vector: columns of the training set, inputs of a model.
    pub outputs: SchemaRef,
    /// Where each output comes from.
    pub origins: Vec<Origin>,
    /// The declared default of each output.
    pub defaults: Vec<Option<Literal>>,
    derived: Derived,
    /// For each output its place among all columns: inputs, event timestamp, features, derived.
    picks: Vec<usize>,
}

/// One view, as a service joins it.
#[derive(Debug, Clone)]
pub struct Lookup {
    /// The view.
    pub view: Arc<ViewPlan>,
    /// The places of its key columns among the service's inputs, in key order.
    pub keys: Vec<usize>,
    /// The places of the features taken among the view's.
    pub features: Vec<usize>,
    /// The names they leave under.
    pub names: Vec<String>,
}

impl Lookup {
    /// What stands in for an answer of the online store where there is none: the declared default of each feature. None
    /// where a feature has no default.
    pub fn fall_back(&self, keys: &Keys) -> Result<Option<Found>, EngineError> {
        let default = |feature: &usize| self.view.defaults[*feature].as_ref();
        let Some(defaults) = self.features.iter().map(default).collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        // A row without a key is nobody's, which is known without asking.
        let rows = (0..keys.len()).map(|row| keys.get(row));
        let first = UInt32Array::from_iter(rows.clone().map(|key| key.map(|_| 0)));
        let columns = self.features.iter().zip(defaults).map(|(feature, default)| {
            let default = cast(&constant(default), self.view.features.field(*feature).data_type())?;
            take(&default, &first, None)
        });
        let state = |key: Option<&[u8]>| key.map_or(RowState::NotFound, |_| RowState::Unavailable);
        Ok(Some(Found {
            columns: columns.collect::<Result<_, _>>()?,
            states: rows.map(state).collect(),
            event_timestamps: vec![0; keys.len()],
            absent: Vec::new(),
        }))
    }
}

/// A literal as a column of one row.
fn constant(literal: &Literal) -> ArrayRef {
    match literal {
        Literal::Bool(value) => Arc::new(BooleanArray::from(vec![*value])),
        Literal::Int(value) => Arc::new(Int64Array::from(vec![*value])),
        Literal::Float(value) => Arc::new(Float64Array::from(vec![*value])),
        Literal::String(value) => Arc::new(StringArray::from(vec![value.as_str()])),
    }
}

/// Where an output comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// From the request, the spine or a join key: a place among the inputs.
    Input(usize),
    /// From a view.
    Feature {
        /// The place of the look-up.
        lookup: usize,
        /// The place among the features that the look-up takes.
        feature: usize,
    },
    /// Computed by the service.
    Derived,
}

/// What one look-up brought, row by row of the inputs.
#[derive(Debug, Clone)]
pub struct Found {
    /// The features taken, in the look-up's order; null where the state is not `Present`.
    pub columns: Vec<ArrayRef>,
    /// How each row's look-up ended.
    pub states: Vec<RowState>,
    /// Event timestamp of the row found, µs; meaningless where none was. Windows have none: they are of many rows.
    pub event_timestamps: Vec<i64>,
    /// Which of the features are not materialized yet; empty where all are.
    pub absent: Vec<bool>,
}

impl Found {
    /// Some of the rows.
    pub fn pick(&self, rows: &UInt32Array) -> Result<Found, EngineError> {
        let columns = self.columns.iter().map(|column| take(column, rows, None)).collect::<Result<_, _>>()?;
        let places = || rows.values().iter().map(|row| *row as usize);
        Ok(Found {
            columns,
            states: places().map(|row| self.states[row]).collect(),
            // Windows have none.
            event_timestamps: places().filter_map(|row| self.event_timestamps.get(row).copied()).collect(),
            absent: self.absent.clone(),
        })
    }
}

/// Derived expressions in an order in which each finds what it reads: all of one level see the columns before it.
#[derive(Debug, Clone, Default)]
struct Derived {
    levels: Vec<Level>,
}

#[derive(Debug, Clone)]
struct Level {
    /// Out of all columns so far.
    reads: Reads,
    expressions: Vec<(String, Expression)>,
}

impl ServicePlan {
    /// The vectors of `inputs` (columns as in [`ServicePlan::inputs`]), given what each look-up found.
    pub fn finish(
        &self,
        inputs: &RecordBatch,
        event_timestamps: &ArrayRef,
        found: &[Found],
    ) -> Result<RecordBatch, EngineError> {
        let rows = inputs.num_rows();
        let features = found.iter().flat_map(|found| &found.columns);
        let given: Vec<&ArrayRef> =
            inputs.columns().iter().chain([event_timestamps]).chain(features).collect();
        let mut derived: Vec<ArrayRef> = Vec::new();
        let pick = |derived: &[ArrayRef], places: &[usize]| {
            let column = |place: &usize| match given.get(*place) {
                Some(column) => Arc::clone(column),
                None => Arc::clone(&derived[*place - given.len()]),
            };
            places.iter().map(column).collect::<Vec<_>>()
        };
        for level in &self.derived.levels {
            let batch = batch_of(&level.reads.schema, pick(&derived, &level.reads.columns), rows)?;
            for (name, expression) in &level.expressions {
                let what = || format!("feature service `{}`, derived `{name}`", self.name);
                derived.push(expression.evaluate(&batch, &what)?);
            }
        }
        batch_of(&self.outputs, pick(&derived, &self.picks), rows)
    }

    /// The place of the output called `name`.
    pub fn output(&self, name: &str) -> Option<usize> {
        self.outputs.index_of(name).ok()
    }

    /// A service without a name: the features that a request lists.
    pub fn adhoc(
        catalog: &Catalog,
        features: &[(String, String)],
        full_names: bool,
    ) -> Result<ServicePlan, EngineError> {
        let mut projections: Vec<Projection> = Vec::new();
        for (view_name, feature) in features {
            let view = catalog.views.get(view_name).ok_or_else(|| {
                let help = suggest(view_name, catalog.views.keys().map(String::as_str));
                EngineError::Unknown(format!("unknown feature view `{view_name}`; {help}"))
            })?;
            if view.feature(feature).is_none() {
                let known = view.features.fields().iter().map(|f| f.name().as_str());
                let help = suggest(feature, known);
                return Err(EngineError::Unknown(format!(
                    "feature view `{view_name}` has no feature `{feature}`; {help}"
                )));
            }
            match projections.iter_mut().find(|p| p.view == *view_name) {
                Some(projection) => projection.features.push(feature.clone()),
                None => projections.push(Projection {
                    view: view_name.clone(),
                    alias: full_names.then(|| view_name.clone()),
                    keys: BTreeMap::new(),
                    features: vec![feature.clone()],
                    loc: catalog.definitions.views[view_name].loc.clone(),
                }),
            }
        }
        let mut plan = Building::new(catalog, &projections, &[]);
        // Outputs leave in the order asked for, which need not be grouped by view.
        let names: Vec<String> = features
            .iter()
            .map(|(view, feature)| if full_names { format!("{view}__{feature}") } else { feature.clone() })
            .collect();
        if let Some(twice) = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
            return Err(EngineError::Unknown(format!(
                "two features are called `{}`; ask with `full_feature_names: true`",
                twice.1
            )));
        }
        plan.picks = names.iter().filter_map(|name| plan.place(name)).collect();
        Ok(plan.done(""))
    }

    pub(crate) fn compile(service: &FeatureService, catalog: &Catalog) -> Result<ServicePlan, Vec<DefError>> {
        let request: Vec<_> = service
            .request
            .iter()
            .map(|c| (c.name.clone(), arrow_type(c.dtype), c.default.clone()))
            .collect();
        let mut plan = Building::new(catalog, &service.projections, &request);
        let listed: Vec<usize> = (plan.first_feature()..plan.columns.len()).collect();
        let before_derived = plan.columns.len();
        plan.derive(service)?;
        plan.picks = match &service.outputs {
            None => {
                let derived = service.derived.iter().filter_map(|feature| plan.place(&feature.name));
                listed.into_iter().chain(derived).collect()
            }
            Some(outputs) => plan.pick(outputs)?,
        };
        debug_assert!(plan.columns.len() == before_derived + service.derived.len());
        Ok(plan.done(&service.name))
    }
}

fn batch_of(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, EngineError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

/// A service while it is compiled: all its columns so far.
struct Building {
    columns: Vec<(String, DataType, Origin, Option<Literal>)>,
    input_count: usize,
    key_count: usize,
    lookups: Vec<Lookup>,
    derived: Derived,
    picks: Vec<usize>,
}

impl Building {
    fn new(
        catalog: &Catalog,
        projections: &[Projection],
        request: &[(String, DataType, Option<Literal>)],
    ) -> Building {
        let mut columns: Vec<(String, DataType, Origin, Option<Literal>)> = Vec::new();
        let mut lookups = Vec::new();
        for projection in projections {
            let view = &catalog.views[&projection.view];
            let keys = view.keys.fields().iter().map(|key| {
                let name = projection.keys.get(key.name()).unwrap_or(key.name());
                columns.iter().position(|(known, ..)| known == name).unwrap_or_else(|| {
                    let place = columns.len();
                    columns.push((name.clone(), key.data_type().clone(), Origin::Input(place), None));
                    place
                })
            });
            lookups.push(Lookup {
                keys: keys.collect(),
                features: projection.features.iter().filter_map(|name| view.feature(name)).collect(),
                names: projection.features.iter().map(|name| projection.output_name(name)).collect(),
                view: Arc::clone(view),
            });
        }
        let key_count = columns.len();
        for (name, dtype, default) in request {
            columns.push((name.clone(), dtype.clone(), Origin::Input(columns.len()), default.clone()));
        }
        let input_count = columns.len();
        columns.push((EVENT_TIMESTAMP.to_owned(), timestamp(), Origin::Derived, None));
        for (lookup, l) in lookups.iter().enumerate() {
            for (feature, (place, name)) in l.features.iter().zip(&l.names).enumerate() {
                let dtype = l.view.features.field(*place).data_type().clone();
                let default = l.view.defaults[*place].clone();
                columns.push((name.clone(), dtype, Origin::Feature { lookup, feature }, default));
            }
        }
        Building { columns, input_count, key_count, lookups, derived: Derived::default(), picks: Vec::new() }
    }

    fn first_feature(&self) -> usize {
        self.input_count + 1
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|(known, ..)| known == name)
    }

    fn schema(&self) -> Schema {
        Schema::new(
            self.columns
                .iter()
                .map(|(name, dtype, ..)| Field::new(name, dtype.clone(), true))
                .collect::<Vec<_>>(),
        )
    }

    /// Level by level: whatever names only columns so far joins them. What is left at the end names a column that does
    /// not exist, or waits for itself.
    fn derive(&mut self, service: &FeatureService) -> Result<(), Vec<DefError>> {
        let mut waiting: Vec<&Feature> = service.derived.iter().collect();
        let mut errors = Vec::new();
        while !waiting.is_empty() {
            let schema = self.schema();
            let (mut written, mut blocked) = (Vec::new(), Vec::new());
            for feature in waiting {
                match Written::parse(&feature.expr.sql, &schema) {
                    Ok(expression) => written.push((feature, expression)),
                    Err(mistake) => match derived_named(service, mistake.unknown.as_deref()) {
                        Some(awaited) => blocked.push((feature, awaited)),
                        None => errors.push(mistake.at(&feature.expr.loc)),
                    },
                }
            }
            if written.is_empty() {
                // With errors elsewhere, what waits may only wait for those.
                if errors.is_empty() {
                    errors.extend(cycle(&blocked));
                }
                break;
            }
            errors.extend(self.add_level(&schema, written));
            waiting = blocked.into_iter().map(|(feature, _)| feature).collect();
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Adds what compiles; gives the mistakes of the others.
    fn add_level(&mut self, schema: &Schema, written: Vec<(&Feature, Written)>) -> Vec<DefError> {
        let named = written.iter().flat_map(|(_, expression)| expression.columns()).copied().collect();
        let reads = Reads::new(named, schema);
        let (mut expressions, mut errors) = (Vec::new(), Vec::new());
        for (feature, expression) in written {
            match expression.compile(&reads.schema, wish(feature.dtype).as_ref()) {
                Ok(expression) => {
                    let dtype = expression.dtype().clone();
                    self.columns.push((
                        feature.name.clone(),
                        dtype,
                        Origin::Derived,
                        feature.default.clone(),
                    ));
                    expressions.push((feature.name.clone(), expression));
                }
                Err(mistake) => errors.push(mistake.at(&feature.expr.loc)),
            }
        }
        self.derived.levels.push(Level { reads, expressions });
        errors
    }

    fn pick(&self, outputs: &[Expr]) -> Result<Vec<usize>, Vec<DefError>> {
        let (mut picks, mut errors) = (Vec::new(), Vec::new());
        for output in outputs {
            match self.place(&output.sql) {
                Some(place) => picks.push(place),
                None => {
                    let known = self.columns.iter().map(|(name, ..)| name.as_str());
                    let cause = format!("`outputs` names unknown column `{}`", output.sql);
                    errors.push(DefError::new(&output.loc, cause).with_help(suggest(&output.sql, known)));
                }
            }
        }
        if errors.is_empty() { Ok(picks) } else { Err(errors) }
    }

    fn done(self, name: &str) -> ServicePlan {
        let fields = |places: &mut dyn Iterator<Item = usize>| {
            let fields =
                places.map(|place| Field::new(&self.columns[place].0, self.columns[place].1.clone(), true));
            Arc::new(Schema::new(fields.collect::<Vec<_>>()))
        };
        ServicePlan {
            name: name.to_owned(),
            inputs: fields(&mut (0..self.input_count)),
            key_count: self.key_count,
            outputs: fields(&mut self.picks.iter().copied()),
            origins: self.picks.iter().map(|place| self.columns[*place].2).collect(),
            defaults: self.picks.iter().map(|place| self.columns[*place].3.clone()).collect(),
            lookups: self.lookups,
            derived: self.derived,
            picks: self.picks,
        }
    }
}

/// The derived feature called `name`.
fn derived_named<'a>(service: &'a FeatureService, name: Option<&str>) -> Option<&'a str> {
    service.derived.iter().map(|feature| feature.name.as_str()).find(|known| Some(*known) == name)
}

/// The mistake of features that each wait for another.
fn cycle(blocked: &[(&Feature, &str)]) -> Option<DefError> {
    let (first, _) = blocked.first()?;
    let names = cycle_from(&first.name, blocked);
    let (feature, _) = blocked.iter().find(|(feature, _)| feature.name == names[0])?;
    let cause = format!("derived features form a cycle: {}", names.join(" → "));
    Some(DefError::new(&feature.expr.loc, cause).with_help("compute one of them from other columns"))
}

/// The cycle that `from` runs into, each name followed by the one it waits for, the first one repeated at the end.
fn cycle_from<'a>(from: &'a str, blocked: &[(&Feature, &'a str)]) -> Vec<&'a str> {
    let mut path = vec![from];
    loop {
        let last = path[path.len() - 1];
        let Some((_, next)) = blocked.iter().find(|(feature, _)| feature.name == last) else { return path };
        if let Some(start) = path.iter().position(|name| name == next) {
            path.push(next);
            return path.split_off(start);
        }
        path.push(next);
    }
}
