//! Do the columns of a service compute one another, and which of them leave?

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use feature_defs::{DefError, Expr, Feature, FeatureService, Literal, Projection, suggest};

use super::{Derivation, Derived, Level, Lookup, Origin, ServicePlan};
use crate::EngineError;
use crate::default::fitted;
use crate::expr::{Reads, Written, wish};
use crate::schema::{EVENT_TIMESTAMP, arrow_type, timestamp, type_name};
use crate::view::ViewPlan;

/// Feature views by name.
type Views = BTreeMap<String, Arc<ViewPlan>>;

impl ServicePlan {
    /// A service without a name: the features (view and feature) that a request lists.
    pub fn adhoc(
        views: &Views,
        features: &[(String, String)],
        full_names: bool,
    ) -> Result<ServicePlan, EngineError> {
        let (mut joins, mut names): (Vec<Join>, Vec<String>) = (Vec::new(), Vec::new());
        for (view, feature) in features {
            let (view, index) = find(views, view, feature)?;
            let name = if full_names { format!("{}__{feature}", view.name) } else { feature.clone() };
            let join = joins.iter().position(|join| join.view.name == view.name).unwrap_or_else(|| {
                joins.push(Join::new(view, &BTreeMap::new()));
                joins.len() - 1
            });
            joins[join].features.push((index, name.clone()));
            names.push(name);
        }
        if let Some(twice) = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
            let cause = match full_names {
                true => "it is asked for twice; name each feature once",
                false => "two features are called so; ask with `full_feature_names: true`",
            };
            return Err(EngineError::Evaluate {
                what: format!("feature `{}`", twice.1),
                cause: cause.to_owned(),
            });
        }
        let mut plan = Building::new(joins, Vec::new());
        // Outputs leave in the order asked for, which need not be grouped by view.
        plan.picks = names.iter().filter_map(|name| plan.index(name)).collect();
        Ok(plan.done(""))
    }

    /// Compiles `service` over the views that it joins, or reports every mistake.
    pub(crate) fn compile(service: &FeatureService, views: &Views) -> Result<ServicePlan, Vec<DefError>> {
        let request = service
            .request
            .iter()
            .map(|column| (column.name.clone(), arrow_type(column.dtype), column.default.clone()));
        let joins =
            service.projections.iter().map(|projection| Join::of(projection, &views[&projection.view]));
        let mut plan = Building::new(joins.collect(), request.collect());
        plan.exclude_events(&service.projections)?;
        let listed = plan.first_feature()..plan.columns.len();
        plan.derive(service)?;
        plan.picks = match &service.outputs {
            None => {
                let derived = service.derived.iter().filter_map(|feature| plan.index(&feature.name));
                listed.chain(derived).collect()
            }
            Some(outputs) => plan.pick(outputs)?,
        };
        Ok(plan.done(&service.name))
    }
}

/// The view called `view`, and the index of its feature called `feature`.
fn find<'a>(views: &'a Views, view: &str, feature: &str) -> Result<(&'a Arc<ViewPlan>, usize), EngineError> {
    let Some(found) = views.get(view) else {
        let help = suggest(view, views.keys().map(String::as_str));
        return Err(EngineError::Unknown(format!("unknown feature view `{view}`; {help}")));
    };
    let Some(index) = found.feature(feature) else {
        let known = found.features.fields().iter().map(|f| f.name().as_str());
        let help = suggest(feature, known);
        return Err(EngineError::Unknown(format!(
            "feature view `{view}` has no feature `{feature}`; {help}"
        )));
    };
    Ok((found, index))
}

/// A view to be joined.
struct Join {
    view: Arc<ViewPlan>,
    /// The column that each join key is taken from, in key order.
    keys: Vec<String>,
    /// The features taken, as indices among the view's, and the names they leave under.
    features: Vec<(usize, String)>,
}

impl Join {
    /// None of the features of `view`, by columns that `keys` may rename.
    fn new(view: &Arc<ViewPlan>, keys: &BTreeMap<String, String>) -> Join {
        let column = |key: &Arc<Field>| keys.get(key.name()).unwrap_or(key.name()).clone();
        let keys = view.keys.fields().iter().map(column).collect();
        Join { view: Arc::clone(view), keys, features: Vec::new() }
    }

    fn of(projection: &Projection, view: &Arc<ViewPlan>) -> Join {
        let features = projection.features.iter();
        let features = features.filter_map(|name| Some((view.feature(name)?, projection.output_name(name))));
        Join { features: features.collect(), ..Join::new(view, &projection.keys) }
    }
}

/// A column of a service.
struct Column {
    name: String,
    dtype: DataType,
    origin: Origin,
    default: Option<Literal>,
}

/// A service while it is compiled: all its columns so far.
struct Building {
    columns: Vec<Column>,
    input_count: usize,
    key_count: usize,
    lookups: Vec<Lookup>,
    derived: Derived,
    picks: Vec<usize>,
}

impl Building {
    fn new(joins: Vec<Join>, request: Vec<(String, DataType, Option<Literal>)>) -> Building {
        let mut columns: Vec<Column> = Vec::new();
        let mut lookups = Vec::new();
        for Join { view, keys, features } in joins {
            let keys = keys.into_iter().zip(view.keys.fields()).map(|(name, key)| {
                let known = columns.iter().position(|column| column.name == name);
                known.unwrap_or_else(|| {
                    let (index, dtype) = (columns.len(), key.data_type().clone());
                    columns.push(Column { name, dtype, origin: Origin::Input(index), default: None });
                    index
                })
            });
            let keys = keys.collect();
            let (features, names) = features.into_iter().unzip();
            lookups.push(Lookup { view, keys, exclude_event: None, features, names });
        }
        let key_count = columns.len();
        for (name, dtype, default) in request {
            let origin = Origin::Input(columns.len());
            columns.push(Column { name, dtype, origin, default });
        }
        let input_count = columns.len();
        let time = EVENT_TIMESTAMP.to_owned();
        columns.push(Column { name: time, dtype: timestamp(), origin: Origin::Derived, default: None });
        columns.extend(lookups.iter().enumerate().flat_map(|(index, lookup)| features_of(index, lookup)));
        Building { columns, input_count, key_count, lookups, derived: Derived::default(), picks: Vec::new() }
    }

    fn first_feature(&self) -> usize {
        self.input_count + 1
    }

    fn index(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    fn schema(&self) -> Schema {
        let field = |column: &Column| Field::new(&column.name, column.dtype.clone(), true);
        Schema::new(self.columns.iter().map(field).collect::<Vec<_>>())
    }

    /// Finds the columns of events that are left out.
    fn exclude_events(&mut self, projections: &[Projection]) -> Result<(), Vec<DefError>> {
        let mut errors = Vec::new();
        for (place, projection) in projections.iter().enumerate() {
            let Some(first) = projection.exclude_event.first() else { continue };
            match self.exclude_event(&self.lookups[place].view, &projection.exclude_event) {
                Ok(columns) => self.lookups[place].exclude_event = Some(columns),
                Err((cause, help)) => errors.push(DefError::new(&first.loc, cause).with_help(help)),
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// The columns called `names`, which hold the `event_id` of an event of `view`; or what is wrong and the way out.
    fn exclude_event(&self, view: &ViewPlan, names: &[Expr]) -> Result<Vec<usize>, (String, String)> {
        let ViewPlan { name: of, source, .. } = view;
        let Some(windows) = &view.windows else {
            let cause =
                format!("`exclude_event` leaves an event out of windows, and feature view `{of}` has none");
            return Err((
                cause,
                "`at: before` in the view leaves out the row of the very query time".to_owned(),
            ));
        };
        let event_id: Vec<String> =
            windows.event_id.iter().map(|field| format!("`{}`", field.name())).collect();
        if event_id.len() != names.len() {
            return Err(match event_id.is_empty() {
                true => (
                    format!("`exclude_event` goes by `event_id`, and source `{source}` declares none"),
                    "declare there which columns tell its events apart, as in `event_id: [id]`".to_owned(),
                ),
                false => (
                    format!("the `event_id` of source `{source}` is {}", event_id.join(", ")),
                    format!("`exclude_event` names as many columns, in that order; here are {}", names.len()),
                ),
            });
        }
        let inputs = &self.columns[..self.input_count];
        let find = |(name, field): (&Expr, &Arc<Field>)| {
            let Some(place) = inputs.iter().position(|column| column.name == name.sql) else {
                let known = inputs.iter().map(|column| column.name.as_str());
                let cause = format!(
                    "`exclude_event` names `{}`, which is neither a request column nor a join key",
                    name.sql
                );
                return Err((cause, suggest(&name.sql, known)));
            };
            let (found, wanted) = (type_name(&inputs[place].dtype), type_name(field.data_type()));
            if found != wanted {
                let cause = format!(
                    "column `{}` is {found}, and `{}` in the `event_id` of source `{source}` is {wanted}",
                    name.sql,
                    field.name()
                );
                return Err((cause, format!("declare it as {wanted}")));
            }
            Ok(place)
        };
        names.iter().zip(&windows.event_id).map(find).collect()
    }

    /// Level by level: whatever names only columns so far joins them. What is left at the end names a column that does
    /// not exist, or waits for itself.
    fn derive(&mut self, service: &FeatureService) -> Result<(), Vec<DefError>> {
        // Each with the derived feature that it waits for, so that none is parsed before that is there.
        let mut waiting: Vec<_> = service.derived.iter().map(|feature| (feature, None)).collect();
        let mut errors = Vec::new();
        while !waiting.is_empty() {
            let schema = self.schema();
            let (mut written, mut blocked) = (Vec::new(), Vec::new());
            for (feature, awaited) in waiting {
                if let Some(name) = awaited
                    && schema.index_of(name).is_err()
                {
                    blocked.push((feature, name));
                    continue;
                }
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
            waiting = blocked.into_iter().map(|(feature, awaited)| (feature, Some(awaited))).collect();
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
                    let named = (feature.name.as_str(), &feature.loc);
                    let default = fitted(named, feature.default.as_ref(), expression.dtype());
                    self.columns.push(Column {
                        name: feature.name.clone(),
                        dtype: expression.dtype().clone(),
                        origin: Origin::Derived,
                        default: default.unwrap_or_else(|mistake| {
                            errors.push(mistake);
                            None
                        }),
                    });
                    let (name, strict) = (feature.name.clone(), feature.strict);
                    expressions.push(Derivation { name, expression, strict });
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
            match self.index(&output.sql) {
                Some(index) => picks.push(index),
                None => {
                    let known = self.columns.iter().map(|column| column.name.as_str());
                    let cause = format!("`outputs` names unknown column `{}`", output.sql);
                    errors.push(DefError::new(&output.loc, cause).with_help(suggest(&output.sql, known)));
                }
            }
        }
        if errors.is_empty() { Ok(picks) } else { Err(errors) }
    }

    fn done(self, name: &str) -> ServicePlan {
        let schema = self.schema();
        let inputs: Vec<usize> = (0..self.input_count).collect();
        let fields = |indices: &[usize]| schema.project(indices).expect("each is the index of a column");
        let picked = || self.picks.iter().map(|index| &self.columns[*index]);
        ServicePlan {
            name: name.to_owned(),
            inputs: Arc::new(fields(&inputs)),
            key_count: self.key_count,
            outputs: Arc::new(fields(&self.picks)),
            origins: picked().map(|column| column.origin).collect(),
            defaults: picked().map(|column| column.default.clone()).collect(),
            lookups: self.lookups,
            derived: self.derived,
            picks: self.picks,
        }
    }
}

/// The columns that a look-up brings.
fn features_of(lookup: usize, Lookup { view, features, names, .. }: &Lookup) -> impl Iterator<Item = Column> {
    features.iter().zip(names).enumerate().map(move |(feature, (index, name))| Column {
        name: name.clone(),
        dtype: view.features.field(*index).data_type().clone(),
        origin: Origin::Feature { lookup, feature },
        default: view.defaults[*index].clone(),
    })
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
