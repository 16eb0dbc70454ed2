//! `quern verify --training`: is the training set of a model version still what it was?

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use arrow::array::RecordBatch;
use quern_engine::schema::EVENT_TIMESTAMP;
use quern_wire::{
    Catalogue, FeatureServiceInfo, ModelVersionInfo, TrainingReport, TrainingSetCommand, TrainingSetPin,
};

use super::{Arguments, exit};
use crate::backend::Backend;
use crate::error::Error;
use crate::failure::Result;
use crate::output::{counted, print, print_json, thousands};
use crate::tables::Table;
use crate::train::Pull;

pub(super) async fn run(arguments: &Arguments, spine: &Path, backend: Backend) -> Result<ExitCode> {
    let catalogue = backend.catalogue().await?;
    let model = arguments.model.as_deref().unwrap_or_default();
    let (version, pin, service) = trained(&catalogue, model, arguments.version.as_deref())?;
    let pull = pull(spine, service, pin)?;
    let (_, notes) = pull.from(backend, |_| Ok(()), |(), _| Ok(())).await?;
    let Some(now) = notes.pin else {
        return Err(Error::invalid(format!("spine {}: it has no rows", spine.display())).into());
    };
    let report =
        TrainingReport { model: model.to_owned(), version: version.version.clone(), ..pin.compare(&now) };
    if arguments.json {
        print_json(&report);
    } else {
        print_report(&report, pin);
    }
    Ok(exit(report.is_same()))
}

/// The version, what its training set was, and the service that made it.
fn trained<'a>(
    catalogue: &'a Catalogue,
    model: &str,
    version: Option<&str>,
) -> Result<(&'a ModelVersionInfo, &'a TrainingSetPin, &'a FeatureServiceInfo)> {
    let found = catalogue.models.iter().find(|known| known.name == model);
    let versions = &found.ok_or_else(|| Error::not_found(format!("there is no model `{model}`")))?.versions;
    let mut versions = versions.iter().rev();
    let found = versions.find(|known| version.is_none_or(|version| known.version == version));
    let version = found.ok_or_else(|| {
        Error::not_found(format!("model `{model}` has no version `{}`", version.unwrap_or_default()))
    })?;
    let pin = version.trained_on.as_ref().ok_or_else(|| {
        Error::invalid(format!(
            "version `{}` of model `{model}` does not say on what it was trained, or not to you; say it with `trained_on` \
             in its definition: what `quern.training_set` in the metadata of the training set has",
            version.version
        ))
    })?;
    let mut services = catalogue.feature_services.iter();
    let service = services.find(|service| service.name == version.feature_service);
    let missing = || Error::not_found(format!("there is no feature service `{}`", version.feature_service));
    Ok((version, pin, service.ok_or_else(missing)?))
}

/// Asks for it again, with the spine of `path`: the file that was the spine, or the training set itself, which has its
/// columns.
fn pull(path: &Path, service: &FeatureServiceInfo, pin: &TrainingSetPin) -> Result<Pull> {
    let table = Table::open("spine", path, &service.inputs)?;
    let names = |columns: &[quern_wire::ColumnInfo]| -> BTreeSet<String> {
        columns.iter().map(|column| column.name.clone()).collect()
    };
    let (inputs, outputs) = (names(&service.inputs), names(&service.outputs));
    let is_own = |name: &String| pin.columns.contains_key(name) && !outputs.contains(name);
    let is_spine = |name: &String| name == EVENT_TIMESTAMP || inputs.contains(name) || is_own(name);
    let fields = table.schema.fields().iter().enumerate();
    let places: Vec<usize> =
        fields.filter(|(_, field)| is_spine(field.name())).map(|(place, _)| place).collect();
    let schema = Arc::new(table.schema.project(&places).map_err(Error::from)?);
    let batches = table.batches.map(|batch| Ok::<RecordBatch, Error>(batch?.project(&places)?));
    let request =
        TrainingSetCommand { feature_service: service.name.clone(), as_known: pin.as_known, received: 0 };
    Ok(Pull { request, schema, spine: batches.collect::<std::result::Result<_, _>>()? })
}

fn print_report(report: &TrainingReport, pin: &TrainingSetPin) {
    let TrainingReport { model, version, rows: (were, are), differ, changed } = report;
    let of = format!("model {model}, version {version}");
    if report.is_same() {
        let columns = counted(pin.columns.len() as u64, "column");
        print(format!("{of}: the training set is the same, {} × {columns}", counted(*were, "row")));
    } else {
        print(format!("{of}: the training set is another one"));
    }
    if were != are {
        print(format!(
            "  it had {} rows, and has {}: is it the same spine?",
            thousands(*were),
            thousands(*are)
        ));
    } else if !differ.is_empty() {
        print(format!("  values differ in: {}", differ.iter().cloned().collect::<Vec<_>>().join(", ")));
    }
    for (part, (was, is)) in changed {
        print(match (was.is_empty(), is.is_empty()) {
            (false, true) => format!("  {part}: is no part of it any more"),
            (true, false) => format!("  {part}: is part of it now"),
            _ => format!("  {part}: was {was}\n  {:1$}  is  {is}", "", part.len()),
        });
    }
}
