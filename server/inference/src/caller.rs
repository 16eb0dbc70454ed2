//! What does a model on another server say of these tensors?

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, SchemaRef};
use bytes::Bytes;
use quern_base::trace::traceparent;
use quern_engine::each_number_kind;
use quern_engine::fit::{Element, Tensor, TensorData};
use quern_oip::cells::cells;
use quern_oip::client::{Client, Failed, Why};
use quern_oip::messages::{
    InferInputTensor, InferRequestedOutputTensor, ModelInferRequest, ModelInferResponse, TensorMetadata,
};
use tokio::runtime::Handle;

use crate::error::{Error, Result};
use crate::metrics::metrics;
use crate::number::Number;
use crate::outputs::{self, Says, Shape};
use crate::run::in_pieces;
use crate::stop::Stop;

/// The most dimensions of a tensor, as it is told of and as it comes.
pub(crate) const DIMS_MAX: usize = 8;
/// How often a call looks whether somebody still waits for it.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Who asks the other server.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) client: Client,
    pub(crate) runtime: Handle,
    pub(crate) place: String,
    pub(crate) model: String,
    pub(crate) version: String,
    pub(crate) timeout: Duration,
    pub(crate) outputs: Vec<Output>,
    pub(crate) schema: SchemaRef,
    /// How many rows a call has, where the model says.
    pub(crate) at_a_time: Option<usize>,
    /// The names of our model and its version, by which calls are counted.
    pub(crate) whose: [String; 2],
}

impl Caller {
    /// Asks about these rows. Ends early where `stop` says so.
    pub(crate) fn run(&self, inputs: Vec<Tensor>, rows: usize, stop: Option<&Stop>) -> Result<RecordBatch> {
        in_pieces(self.at_a_time, (inputs, rows), |inputs, shape| self.run_once(inputs, shape, stop))
    }

    fn run_once(&self, inputs: Vec<Tensor>, went_in: Shape, stop: Option<&Stop>) -> Result<RecordBatch> {
        let (raw, inputs) = inputs.into_iter().map(input).unzip();
        let outputs = self.outputs.iter().map(|output| InferRequestedOutputTensor {
            name: output.name.clone(),
            ..InferRequestedOutputTensor::default()
        });
        let request = ModelInferRequest {
            model_name: self.model.clone(),
            model_version: self.version.clone(),
            inputs,
            outputs: outputs.collect(),
            raw_input_contents: raw,
            ..ModelInferRequest::default()
        };
        let [model, version] = &self.whose;
        let timer = metrics().remote.with_label_values(&[model, version]).start_timer();
        let trace = traceparent();
        let answer = self.runtime.block_on(async {
            tokio::select! {
                answer = self.client.infer(request, self.timeout, trace.as_deref()) => answer,
                () = asked_to_stop(stop) => {
                    Err(Failed { why: Why::Late, said: "nobody waits for it any more".to_owned() })
                }
            }
        });
        timer.observe_duration();
        let answer = answer.map_err(|failed| self.failed(failed))?;
        self.columns(answer, went_in)
    }

    fn columns(&self, answer: ModelInferResponse, went_in: Shape) -> Result<RecordBatch> {
        let wrong = |name: &str, cause: String| {
            self.count("failed");
            let what = format!("reading output `{name}` of model `{}` of {}", self.model, self.place);
            Error::internal(what, format!("it {cause}"))
        };
        let mut raw = answer.raw_output_contents.into_iter();
        let (mut found, has_raw) = (Vec::with_capacity(answer.outputs.len()), raw.len() > 0);
        for InferInputTensor { name, datatype, shape, contents, .. } in answer.outputs {
            let bytes = if has_raw { raw.next() } else { None };
            found.push((name, datatype, shape, bytes, contents));
        }
        let mut columns = Vec::with_capacity(self.outputs.len());
        for output in &self.outputs {
            let place = found.iter().position(|(name, ..)| *name == output.name);
            let place = place.ok_or_else(|| wrong(&output.name, "is missing".to_owned()))?;
            let (name, datatype, shape, bytes, contents) = found.swap_remove(place);
            if datatype != output.datatype {
                return Err(wrong(
                    &name,
                    format!("is {datatype}, and was {} when it was applied", output.datatype),
                ));
            }
            // Lists within lists become types within types, and whoever walks through these needs room for each.
            if shape.len() > DIMS_MAX {
                return Err(wrong(
                    &name,
                    format!("has {} dimensions, at most {DIMS_MAX} are read", shape.len()),
                ));
            }
            // Lists of nothing within lists have no number of their own.
            if shape.len() > 2 && shape.contains(&0) && went_in.rows > 0 {
                return Err(wrong(&name, format!("has the shape {shape:?}, which holds nothing")));
            }
            let cells = cells(&datatype, bytes.as_ref(), contents).map_err(|cause| wrong(&name, cause))?;
            let column = outputs::folded(cells, &shape, went_in, output.says);
            let column = column.map_err(|cause| wrong(&name, cause))?;
            let column = match *column.data_type() == output.dtype {
                true => column,
                false if is_alike(column.data_type(), &output.dtype) => cast(&column, &output.dtype)?,
                false => {
                    return Err(wrong(
                        &name,
                        format!("has the shape {shape:?}, another than when it was applied"),
                    ));
                }
            };
            columns.push(column);
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    fn failed(&self, Failed { why, said }: Failed) -> Error {
        let Caller { model, place, .. } = self;
        let (who, what) =
            (format!("model `{model}` of {place}"), format!("asking model `{model}` of {place}"));
        let (cause, error) = match why {
            Why::Late => ("late", Error::late(format!("{who} did not answer in time"))),
            Why::Away => ("unavailable", Error::unavailable(format!("{who} does not answer")).quoting(said)),
            Why::Busy => ("overloaded", Error::overloaded(format!("{who} has too much to do"))),
            Why::NotFound => ("failed", Error::internal(what, "it is not there any more").quoting(said)),
            Why::Other => ("failed", Error::internal(what, "it says no").quoting(said)),
        };
        self.count(cause);
        error
    }

    fn count(&self, cause: &str) {
        let [model, version] = &self.whose;
        metrics().remote_failed.with_label_values(&[model, version, cause]).inc();
    }
}

/// Whether a list of one length is where one of any is expected.
fn is_alike(found: &DataType, expected: &DataType) -> bool {
    match (found, expected) {
        (DataType::FixedSizeList(item, _), DataType::List(wanted)) => {
            is_alike(item.data_type(), wanted.data_type())
        }
        (DataType::FixedSizeList(item, length), DataType::FixedSizeList(wanted, expected)) => {
            length == expected && is_alike(item.data_type(), wanted.data_type())
        }
        (found, expected) => found == expected,
    }
}

async fn asked_to_stop(stop: Option<&Stop>) {
    let Some(stop) = stop else { return std::future::pending().await };
    while !stop.is_asked() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn input(tensor: Tensor) -> (Bytes, InferInputTensor) {
    let Tensor { name, shape, data } = tensor;
    let mut raw = Vec::new();
    macro_rules! put {
        ($($kind:ident: $number:ty),*) => {
            match data {
                $(TensorData::$kind(cells) => {
                    raw.reserve(cells.len() * size_of::<$number>());
                    cells.into_iter().for_each(|cell| cell.put(&mut raw));
                    datatype(&Element::$kind)
                })*
                TensorData::String(texts) => {
                    for text in texts {
                        raw.extend_from_slice(&(text.len() as u32).to_le_bytes());
                        raw.extend_from_slice(text.as_bytes());
                    }
                    "BYTES"
                }
            }
        };
    }
    let datatype = each_number_kind!(put).to_owned();
    let shape = shape.into_iter().map(|dim| dim as i64).collect();
    (raw.into(), InferInputTensor { name, datatype, shape, ..InferInputTensor::default() })
}

/// What the protocol calls the elements of tensors.
const DATATYPES: [(Element, &str); 14] = [
    (Element::Bool, "BOOL"),
    (Element::Int8, "INT8"),
    (Element::Int16, "INT16"),
    (Element::Int32, "INT32"),
    (Element::Int64, "INT64"),
    (Element::UInt8, "UINT8"),
    (Element::UInt16, "UINT16"),
    (Element::UInt32, "UINT32"),
    (Element::UInt64, "UINT64"),
    (Element::Float16, "FP16"),
    (Element::BFloat16, "BF16"),
    (Element::Float32, "FP32"),
    (Element::Float64, "FP64"),
    (Element::String, "BYTES"),
];

fn datatype(element: &Element) -> &'static str {
    let found = DATATYPES.iter().find(|(known, _)| known == element);
    // No `Other` is fitted to a column.
    found.map_or("BYTES", |(_, datatype)| datatype)
}

/// The elements of a datatype.
pub(crate) fn element(datatype: &str) -> Element {
    let found = DATATYPES.into_iter().find(|(_, known)| *known == datatype);
    found.map_or_else(|| Element::Other(datatype.to_owned()), |(element, _)| element)
}

/// An output, as its metadata tells of it.
#[derive(Debug)]
pub(crate) struct Output {
    name: String,
    datatype: String,
    says: Says,
    dtype: DataType,
}

impl Output {
    pub(crate) fn new(tensor: &TensorMetadata) -> std::result::Result<Output, String> {
        let TensorMetadata { name, datatype, shape } = tensor;
        let item = element(datatype).given_as().ok_or_else(|| {
            format!("output `{name}` is of the datatype `{datatype}`, which is none of the protocol's")
        })?;
        let says = Says::of_shape(shape);
        let dims = if says.is_plain { &[] } else { &shape[1..] };
        let dtype = dims.iter().rev().fold(item, |item, dim| {
            let item = Arc::new(Field::new("item", item, true));
            match i32::try_from(*dim).ok().filter(|length| *length >= 0) {
                Some(length) => DataType::FixedSizeList(item, length),
                None => DataType::List(item),
            }
        });
        Ok(Output { name: name.clone(), datatype: datatype.clone(), says, dtype })
    }

    pub(crate) fn field(&self) -> Field {
        Field::new(&self.name, self.dtype.clone(), true)
    }
}
