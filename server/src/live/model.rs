//! What is known of a model before anybody asks: its versions, who gets which, and what stands in for one.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{Field, Schema, SchemaRef};
use feature_defs::{DefError, Expr, Instead, Literal, Model as Declared, fit};
use quern_engine::Computed;
use quern_engine::schema::{quern_type, type_name};

use super::route::Route;
use super::version::LiveVersion;

/// A model that answers.
#[derive(Debug)]
pub struct LiveModel {
    /// Unique among models.
    pub name: String,
    /// Its versions as listed.
    pub versions: Vec<Arc<LiveVersion>>,
    /// What an instance brings where no version is named: what any of the versions that may answer wants.
    pub inputs: SchemaRef,
    /// The places of each version's inputs among these; none where they are the same.
    pub(crate) reads: Vec<Option<Vec<usize>>>,
    /// Which version answers whom.
    pub route: Route,
    /// What answers where the version does not.
    pub(crate) fallback: Option<Fallback>,
    /// Whether a reply should say who answered: it may be one or another.
    pub(crate) says_who: bool,
}

/// What answers where a version does not.
#[derive(Debug)]
pub(crate) struct Fallback {
    pub(crate) timeout: Option<Duration>,
    pub(crate) max_age_us: Option<i64>,
    pub(crate) max_missing: Option<f64>,
    pub(crate) to: Vec<Substitute>,
}

/// What answers instead of a version.
#[derive(Debug)]
pub(crate) enum Substitute {
    /// Another version, by its place.
    Version(usize),
    /// An expression over the vectors of each version, by its place.
    Expr(Vec<Computed>),
    /// Always the same.
    Constant(Computed),
}

impl LiveModel {
    /// Brings `versions`, which are those of `declared`, together. `weights` are those that were set since it was
    /// declared.
    ///
    /// # Errors
    /// Every rule that the versions do not agree on.
    pub(crate) fn new(
        declared: &Declared,
        versions: Vec<Arc<LiveVersion>>,
        weights: Option<&[(String, u32)]>,
    ) -> Result<LiveModel, Vec<DefError>> {
        let mut mistakes = Vec::new();
        let is_routed = declared.route.is_some() || declared.fallback.is_some();
        // What none of the versions gives any more, nothing can stand in for.
        let all_lost = versions.iter().all(|version| version.model.why_lost().is_some());
        if is_routed {
            one_output(declared, &versions, &mut mistakes);
        }
        let inputs = inputs(declared, &versions, is_routed, &mut mistakes);
        let route = Route::new(declared, &versions, &inputs, weights).map_err(|found| mistakes.extend(found));
        let fallback = declared.fallback.as_ref().filter(|_| !all_lost).map(|fallback| Fallback {
            timeout: fallback.timeout_us.map(|us| Duration::from_micros(us.unsigned_abs())),
            max_age_us: fallback.max_age_us,
            max_missing: fallback.max_missing,
            to: fallback.to.iter().filter_map(|to| substitute(to, &versions, &mut mistakes)).collect(),
        });
        match route {
            Ok(route) if mistakes.is_empty() => {
                let reads = versions.iter().map(|version| reads(&version.service.inputs, &inputs)).collect();
                let name = declared.name.clone();
                Ok(LiveModel { name, versions, inputs, reads, route, fallback, says_who: is_routed })
            }
            _ => Err(mistakes),
        }
    }

    /// The place of a version.
    pub fn place(&self, version: &str) -> Option<usize> {
        self.versions.iter().position(|known| known.version == version)
    }
}

/// Versions that answer for one another must say the same kind of thing.
fn one_output(declared: &Declared, versions: &[Arc<LiveVersion>], mistakes: &mut Vec<DefError>) {
    let shape = |version: &LiveVersion| {
        let fields = version.model.outputs.fields().iter();
        fields
            .map(|field| format!("{} {}", field.name(), type_name(field.data_type())))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let Some(first) = versions.first() else { return };
    for (version, declared) in versions.iter().zip(&declared.versions) {
        if version.model.outputs.fields() != first.model.outputs.fields() {
            let cause = format!(
                "version `{}` gives {}, and version `{}` gives {}: they cannot answer for one another",
                version.version,
                shape(version),
                first.version,
                shape(first)
            );
            mistakes.push(DefError::new(&declared.loc, cause).with_help(
                "name and cast the outputs alike with `steps` and `outputs`, or declare two models",
            ));
        }
    }
}

/// The columns that the versions want, those of the first version first; without a route only the last one's.
fn inputs(
    declared: &Declared,
    versions: &[Arc<LiveVersion>],
    is_routed: bool,
    mistakes: &mut Vec<DefError>,
) -> SchemaRef {
    if !is_routed {
        return versions
            .last()
            .map_or_else(|| Arc::new(Schema::empty()), |last| Arc::clone(&last.service.inputs));
    }
    let mut fields: Vec<Arc<Field>> = Vec::new();
    for (version, declared) in versions.iter().zip(&declared.versions) {
        for field in version.service.inputs.fields() {
            match fields.iter().find(|known| known.name() == field.name()) {
                None => fields.push(Arc::clone(field)),
                Some(known) if known.data_type() == field.data_type() => {}
                Some(known) => mistakes.push(
                    DefError::new(
                        &declared.loc,
                        format!(
                            "version `{}` wants `{}` as {}, another version as {}",
                            version.version,
                            field.name(),
                            type_name(field.data_type()),
                            type_name(known.data_type())
                        ),
                    )
                    .with_help("a request brings a column once: give it one type in both feature services"),
                ),
            }
        }
    }
    Arc::new(Schema::new(fields))
}

fn reads(wanted: &SchemaRef, inputs: &SchemaRef) -> Option<Vec<usize>> {
    let places = wanted.fields().iter().filter_map(|field| inputs.index_of(field.name()).ok());
    (wanted != inputs).then(|| places.collect())
}

fn substitute(
    instead: &Instead,
    versions: &[Arc<LiveVersion>],
    mistakes: &mut Vec<DefError>,
) -> Option<Substitute> {
    let expr = match instead {
        Instead::Version(name, _) => {
            return versions.iter().position(|version| version.version == *name).map(Substitute::Version);
        }
        Instead::Expr(expr) => expr.clone(),
        Instead::Constant(constant, loc) => Expr { sql: sql(constant), loc: loc.clone() },
    };
    let outputs = versions.first()?.model.outputs.fields();
    let [output] = outputs.as_ref() else {
        let names: Vec<&str> = outputs.iter().map(|field| field.name().as_str()).collect();
        let cause = format!("the model has several outputs ({}), and this is one value", names.join(", "));
        mistakes.push(
            DefError::new(&expr.loc, cause)
                .with_help("fall back to a version, or keep one output with `steps` and `outputs`"),
        );
        return None;
    };
    if let (Instead::Constant(constant, loc), Some(dtype)) = (instead, quern_type(output.data_type()))
        && let Err(wants) = fit(constant.clone(), dtype)
    {
        // A value that the output cannot have would fail each request that needs it.
        let cause = format!(
            "`constant` stands in for a value of type {dtype}, and must be {wants}; found {constant}"
        );
        mistakes.push(DefError::new(loc, cause));
        return None;
    }
    let mut compile = |schema: &Schema, over: &str| -> Option<Computed> {
        match Computed::compile(&expr, schema, Some(output.data_type())) {
            Ok(computed) => Some(computed),
            Err(wrong) => {
                let mut error = wrong.error;
                error.cause = format!("{}{over}", error.cause);
                mistakes.push(error);
                None
            }
        }
    };
    if let Instead::Constant(..) = instead {
        return compile(&Schema::empty(), "").map(Substitute::Constant);
    }
    let each = versions.iter().map(|version| {
        compile(&version.service.outputs, &format!(" (over feature service `{}`)", version.service.name))
    });
    each.collect::<Vec<_>>().into_iter().collect::<Option<Vec<_>>>().map(Substitute::Expr)
}

/// A constant as SQL.
fn sql(constant: &Literal) -> String {
    match constant {
        Literal::Bool(value) => value.to_string(),
        Literal::Int(value) => value.to_string(),
        Literal::Float(value) => format!("CAST({value:?} AS DOUBLE)"),
        Literal::String(text) => format!("'{}'", text.replace('\'', "''")),
        Literal::List(items) => {
            let items: Vec<String> = items.iter().map(sql).collect();
            format!("make_array({})", items.join(", "))
        }
    }
}
