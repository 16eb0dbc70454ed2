//! What do the tensors of a request bring? The names tell: entities, whole feature vectors, or the model's own inputs.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{FieldRef, Schema, SchemaRef, TimestampMicrosecondType};
use feature_defs::suggest;
use quern_engine::fit::{Port, Signature};
use quern_engine::schema::{EVENT_TIMESTAMP, timestamp};

use crate::error::{Error, Result};
use quern_decode::datatype::{Datatype, shape, shown};
use quern_decode::json;
use quern_decode::tensor::Tensor;
use quern_server::verbs::predict::{Given, Target};

/// The most tensors that one request may bring.
const TENSORS_MAX: usize = 4_096;

/// Reads what `tensors` bring to `target`.
///
/// # Errors
/// A mixture of forms, a name of none, a tensor that is missing or given twice, tensors of different numbers of rows,
/// and what is wrong with a tensor itself.
pub(super) fn given(target: &Target, tensors: &[Tensor], arrival_us: i64) -> Result<Given> {
    let rows = rows(tensors)?;
    json::limit(rows)?;
    let (inputs, features) = (target.inputs().schema, target.features());
    let signature = &target.version().model.signature;
    let time = find(tensors, EVENT_TIMESTAMP);
    let without_time = tensors.len() - usize::from(time.is_some());
    let ports = || signature.inputs.iter().map(|port| port.name.as_str());
    if are(without_time, tensors, names(inputs)) {
        let query_times_us =
            time.map_or_else(|| Ok(vec![arrival_us; rows]), |tensor| times(tensor, arrival_us))?;
        Ok(Given::Entities { inputs: batch(inputs, tensors, rows)?, query_times_us, timed: time.is_some() })
    } else if !target.sees() {
        // Whether a guess at what goes in is right is not for them.
        Err(none_of_all(target, signature, tensors))
    } else if are(tensors.len(), tensors, names(features)) {
        Ok(Given::Vectors(batch(features, tensors, rows)?))
    } else if are(tensors.len(), tensors, ports()) {
        let cells = signature.inputs.iter().map(|port| cells(port, tensors)).collect::<Result<Vec<_>>>()?;
        Ok(Given::Vectors(target.vectors(&cells, rows)?))
    } else {
        Err(none_of_all(target, signature, tensors))
    }
}

/// Whether `count` of the tensors are those that `names` want, all of them and no other.
fn are<'a>(count: usize, tensors: &[Tensor], names: impl Iterator<Item = &'a str> + Clone) -> bool {
    names.clone().count() == count && names.clone().all(|name| find(tensors, name).is_some())
}

fn names(schema: &SchemaRef) -> impl Iterator<Item = &str> + Clone {
    schema.fields().iter().map(|field| field.name().as_str())
}

fn find<'a>(tensors: &'a [Tensor], name: &str) -> Option<&'a Tensor> {
    tensors.iter().find(|tensor| tensor.name == name)
}

/// How many instances the tensors bring, all alike.
fn rows(tensors: &[Tensor]) -> Result<usize> {
    let Some(first) = tensors.first() else {
        return Err(Error::invalid("`inputs` is empty: give a tensor for each column"));
    };
    if tensors.len() > TENSORS_MAX {
        let found = tensors.len();
        return Err(Error::too_large(format!(
            "the request brings {found} tensors, at most {TENSORS_MAX} are read"
        )));
    }
    for (i, tensor) in tensors.iter().enumerate() {
        if tensors[..i].iter().any(|before| before.name == tensor.name) {
            return Err(Error::invalid(format!("input `{}` is given twice", tensor.name)));
        }
        if tensor.shape[0] != first.shape[0] {
            return Err(Error::invalid(format!(
                "input `{}` has {} rows and input `{}` has {}; all have one for each instance",
                tensor.name, tensor.shape[0], first.name, first.shape[0]
            )));
        }
    }
    Ok(first.shape[0])
}

fn batch(schema: &SchemaRef, tensors: &[Tensor], rows: usize) -> Result<RecordBatch> {
    let column = |field: &FieldRef| {
        let tensor = find(tensors, field.name()).ok_or_else(|| Error::broken("a tensor is lost"))?;
        Ok(tensor.column(field.data_type())?)
    };
    let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
        .map_err(|error| Error::invalid(error.to_string()))
}

/// The query times; null is the arrival.
fn times(tensor: &Tensor, arrival_us: i64) -> Result<Vec<i64>> {
    let times = tensor.column(&timestamp())?;
    let times = times.as_primitive::<TimestampMicrosecondType>().iter();
    Ok(times.map(|time| time.unwrap_or(arrival_us)).collect())
}

/// The cells of one of the model's own inputs.
fn cells(port: &Port, tensors: &[Tensor]) -> Result<ArrayRef> {
    let lost = || Error::broken(format!("the model's input `{}` is lost", port.name));
    let tensor = find(tensors, &port.name).ok_or_else(lost)?;
    Ok(tensor.values(&port.element.arrow_type().ok_or_else(lost)?)?)
}

/// Wider feature vectors are not spelled out in an error: gRPC carries it in a header.
const FEATURES_SHOWN_MAX: usize = 12;

/// What would be right, where the names are those of no form.
fn none_of_all(target: &Target, signature: &Signature, tensors: &[Tensor]) -> Error {
    let inputs = target.inputs();
    // Who may not know what goes into the model brings entities.
    let nothing = (Arc::new(Schema::empty()), Signature { inputs: Vec::new(), outputs: Vec::new() });
    let (features, signature) =
        if target.sees() { (target.features(), signature) } else { (&nothing.0, &nothing.1) };
    let given: Vec<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    let ports: Vec<&str> = signature.inputs.iter().map(|port| port.name.as_str()).collect();
    let columns: Vec<&str> = names(features).collect();
    let entities: Vec<&str> = names(inputs.schema).collect();
    let known = || entities.iter().chain(&[EVENT_TIMESTAMP]).chain(&columns).chain(&ports).copied();
    let missing = |form: &[&str], besides: &[&str]| {
        let all_of_it = given.iter().all(|name| form.contains(name) || besides.contains(name));
        all_of_it.then(|| form.iter().find(|name| !given.contains(name)).map(ToString::to_string)).flatten()
    };
    let cause = if let Some(unknown) = given.iter().find(|name| known().all(|known| known != **name)) {
        let nearest = suggest(unknown, known());
        // The list of all follows, form by form.
        match nearest.split_once(" known:") {
            Some((nearest, _)) => format!("unknown input `{unknown}`; {nearest}"),
            None => format!("unknown input `{unknown}`."),
        }
    } else if let Some(missing) = missing(&entities, &[EVENT_TIMESTAMP])
        .or_else(|| missing(&columns, &[]))
        .or_else(|| missing(&ports, &[]))
    {
        format!("input `{missing}` is missing.")
    } else {
        "the inputs are of several kinds.".to_owned()
    };
    let column = |field: &FieldRef| {
        let dtype = field.data_type();
        format!("`{}` {} {}", field.name(), Datatype::of(dtype).name(), shown(&shape(dtype)))
    };
    let all = |schema: &SchemaRef| schema.fields().iter().map(column).collect::<Vec<_>>().join(", ");
    let vector = match columns.len() {
        0..=FEATURES_SHOWN_MAX => all(features),
        count => {
            format!("the {count} outputs of feature service `{}`, which GET /v1/definitions lists", inputs.of)
        }
    };
    let mut text = format!("{cause} Give what an instance brings: {}", all(inputs.schema));
    if !target.sees() {
        return Error::invalid(text);
    }
    text += &format!(", and `{EVENT_TIMESTAMP}` where it is not now; or its whole feature vector: {vector}");
    if ports != columns {
        let ports: Vec<String> = signature.inputs.iter().map(port).collect();
        text += &format!("; or what the model itself takes: {}", ports.join(", "));
    }
    Error::invalid(text)
}

fn port(port: &Port) -> String {
    let datatype = port.element.arrow_type().map_or("BYTES", |dtype| Datatype::of(&dtype).name());
    let dims = port.shape.iter().map(|dim| dim.and_then(|dim| i64::try_from(dim).ok()).unwrap_or(-1));
    format!("`{}` {datatype} {}", port.name, shown(&dims.collect::<Vec<_>>()))
}
