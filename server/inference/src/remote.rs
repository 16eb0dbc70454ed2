//! How is a model on another server fitted to what feeds it? By what that server tells of it, over gRPC, in the Open
//! Inference Protocol.
//!
//! What the server tells of the model when definitions are applied, its metadata, stands for the file: it is kept by
//! its digest, and fits the model to its columns at every start without asking anybody. Requests wait for their turn
//! and share calls as they do before a file.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::Schema;
use bytes::Bytes;
use feature_defs::{Remote, suggest};
use prost::Message;
use quern_engine::fit::{Fit, Port, Signature};
use quern_oip::client::{Client, Failed, Why};
use quern_oip::messages::{ModelMetadataResponse, TensorMetadata};
use tokio::runtime::Handle;

use crate::caller::{Caller, DIMS_MAX, Output, element};
use crate::fed::{By, Fed, Feed};
use crate::pool::{Pool, Traits};
use crate::rules::Rules;
use crate::run::Cost;
use crate::runner::Runner;
use crate::trial::{Rows, Tried};

/// So many calls at the same time, unless `concurrency` says otherwise.
const CALLS: usize = 8;

/// Why a server does not tell of a model.
#[derive(Debug)]
pub struct Untold {
    /// In words.
    pub cause: String,
    /// Whether it is only away, or busy, and may tell later.
    pub is_away: bool,
}

impl From<String> for Untold {
    fn from(cause: String) -> Untold {
        Untold { cause, is_away: false }
    }
}

/// What the server tells of the model now: as bytes, which stand for its file.
///
/// # Errors
/// Why it does not.
pub async fn describe(remote: &Remote) -> std::result::Result<Bytes, Untold> {
    let (at, model) = (&remote.server, &remote.model);
    let client = Client::new(at).map_err(|error| format!("{at}: {error}"))?;
    let version = remote.version.as_deref().unwrap_or_default();
    let said = client.metadata(model, version).await.map_err(|Failed { why, said }| Untold {
        cause: match why {
            Why::NotFound => format!("{at} does not have it: {said}"),
            _ => format!("{at} does not tell about model `{model}`: {said}"),
        },
        is_away: matches!(why, Why::Away | Why::Late | Why::Busy),
    })?;
    if version.is_empty() && said.versions.len() > 1 {
        let known = said.versions.join("`, `");
        let help = format!("name one of `{known}` as `version`");
        return Err(format!("{at} has several versions of model `{model}`: {help}").into());
    }
    let is_listed = said.versions.is_empty() || said.versions.iter().any(|known| known == version);
    if !version.is_empty() && !is_listed {
        let known = suggest(version, said.versions.iter().map(String::as_str));
        return Err(format!("{at}: model `{model}` has no version `{version}` ({known})").into());
    }
    // What is not of the version itself may change.
    let ModelMetadataResponse { name, inputs, outputs, .. } = said;
    let versions = remote.version.iter().cloned().collect();
    let kept = ModelMetadataResponse { name, versions, platform: String::new(), inputs, outputs };
    Ok(kept.encode_to_vec().into())
}

/// Fits the model that `metadata` tells of to what feeds it.
///
/// # Errors
/// Inputs that are not the columns, outputs that no column can be.
pub(crate) fn fitted(
    metadata: &[u8],
    (remote, feed): (&Remote, &Feed<'_>),
    rules: &Rules,
) -> std::result::Result<Fed, String> {
    let said = ModelMetadataResponse::decode(metadata).map_err(|error| error.to_string())?;
    let place = &remote.server;
    if said.inputs.is_empty() || said.outputs.is_empty() {
        return Err(format!(
            "{place} does not say what model `{}` takes and gives: declare its inputs and outputs there (`inputs` and \
             `outputs` of MLServer's model-settings.json, `input` and `output` of Triton's config.pbtxt)",
            remote.model
        ));
    }
    bounded(&said)?;
    let kept = kept(&said, remote)?;
    let ports = |tensors: &[TensorMetadata]| tensors.iter().map(port).collect();
    let signature = Signature { inputs: ports(&said.inputs), outputs: ports(&kept) };
    let fit = Fit::new(feed.of, feed.columns, &remote.inputs, &signature)?;
    let outputs = kept.iter().map(Output::new).collect::<std::result::Result<Vec<_>, _>>()?;
    let schema = Arc::new(Schema::new(outputs.iter().map(Output::field).collect::<Vec<_>>()));
    let at_a_time = signature.rows().unwrap_or_default();
    let client = within_runtime(|| Client::new(place))?.map_err(|error| format!("{place}: {error}"))?;
    let caller = Caller {
        client,
        runtime: Handle::current(),
        place: place.to_string(),
        model: remote.model.clone(),
        version: remote.version.clone().unwrap_or_default(),
        timeout: Duration::from_micros(remote.timeout_us.unsigned_abs()),
        outputs,
        schema: Arc::clone(&schema),
        at_a_time,
        whose: [rules.model.clone(), rules.version.clone()],
    };
    let calls = rules.batching.concurrency.map_or(CALLS, |asked| asked as usize);
    let caller = Arc::new(caller);
    let runners = (0..calls).map(|_| Runner::Remote(Arc::clone(&caller))).collect();
    // A call costs what it costs, and rows little beside it; whether company changes an answer, nobody can tell here.
    let cost = Cost { micros: 1_000.0, micros_per_row: 10.0 };
    let pool = Arc::new(Pool::new(runners, Traits { cost, alike: true, uneven: true }, rules.batching));
    let tried = Tried { on: Rows::None, failed: None, said: None };
    Ok(Fed { signature, outputs: schema, fit, tried, by: By::Remote, pool })
}

/// So many inputs and outputs, names of so many bytes, and calls of so many rows at most: what another server tells is
/// not to fill this one.
const PORTS_MAX: usize = 4_096;
const NAME_BYTES_MAX: usize = 1_024;
const ROWS_MAX: i64 = 65_536;

pub(crate) fn bounded(said: &ModelMetadataResponse) -> std::result::Result<(), String> {
    for (what, ports) in [("input", &said.inputs), ("output", &said.outputs)] {
        if ports.len() > PORTS_MAX {
            return Err(format!("the model has {} {what}s, and at most {PORTS_MAX} are read", ports.len()));
        }
        let mut names = BTreeSet::new();
        for TensorMetadata { name, shape, .. } in ports {
            if name.is_empty() || name.len() > NAME_BYTES_MAX {
                return Err(format!("an {what} of the model has a name of {} bytes", name.len()));
            }
            if !names.insert(name) {
                return Err(format!("two {what}s of the model are called `{name}`"));
            }
            if shape.len() > DIMS_MAX {
                return Err(format!(
                    "{what} `{name}` has {} dimensions, at most {DIMS_MAX} are read",
                    shape.len()
                ));
            }
            if shape.first().is_some_and(|rows| *rows > ROWS_MAX) {
                return Err(format!(
                    "{what} `{name}` has {} rows at a time, at most {ROWS_MAX} are sent",
                    shape[0]
                ));
            }
        }
    }
    Ok(())
}

fn within_runtime<T>(make: impl FnOnce() -> T) -> std::result::Result<T, String> {
    let runtime = Handle::try_current().map_err(|error| error.to_string())?;
    let _entered = runtime.enter();
    Ok(make())
}

/// The outputs that are asked for.
fn kept(said: &ModelMetadataResponse, remote: &Remote) -> std::result::Result<Vec<TensorMetadata>, String> {
    if remote.outputs.is_empty() {
        return Ok(said.outputs.clone());
    }
    let find = |name: &str| {
        let names = || said.outputs.iter().map(|output| output.name.as_str());
        let found = said.outputs.iter().find(|output| output.name == name).cloned();
        found.ok_or_else(|| {
            format!("`outputs`: the model has no output `{name}` ({})", suggest(name, names()))
        })
    };
    remote.outputs.iter().map(|output| find(&output.sql)).collect()
}

fn port(tensor: &TensorMetadata) -> Port {
    let shape = tensor.shape.iter().map(|dim| usize::try_from(*dim).ok()).collect();
    Port { name: tensor.name.clone(), element: element(&tensor.datatype), shape }
}
