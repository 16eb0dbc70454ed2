//! `inference.GRPCInferenceService`: the protocol over gRPC, with the cells of all outputs in raw bytes.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request as HttpRequest, State};
use axum::http::Response as HttpResponse;
use axum::routing::post;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use tonic::codec::{Codec, CompressionEncoding};
use tonic::server::Grpc;
use tonic::{Request, Response, Status, Streaming};
use tower::service_fn;
use tracing::{Instrument, Span};

use super::metadata::{self, Port};
use super::rest::no_shared_memory;
use super::weight::weight;
use super::{applied_not_loaded, statistics};
use crate::asker::Asker;
use crate::error::{Error, Kind, Result, grpc_status, log_fault};
use crate::memory::{Held, lease_of};
use crate::terms::Terms;
use crate::weighed::Weighed;
use crate::who::who;
use quern_access::Caller;
use quern_decode::datatype::Datatype;
use quern_decode::tensor::{Head, Tensor};
use quern_oip::messages::{
    Choice, Empty, InferInputTensor, InferTensorContents, ModelConfig, ModelConfigResponse, ModelIndex,
    ModelInferRequest, ModelInferResponse, ModelInput, ModelMetadataResponse, ModelOutput, ModelRequest,
    ModelStatisticsResponse, ModelStreamInferResponse, Parameter, Parameters, ReadyResponse,
    RepositoryIndexResponse, ServerLiveResponse, ServerMetadataResponse, TensorMetadata,
};
use quern_server::Node;
use quern_server::live::LiveVersion;
use quern_server::verbs::predict::Target;
use quern_wire::InferenceServer;

/// Names when the message of a stream may be sent again, among the parameters of its answer.
const RETRY_AFTER_MS: &str = "retry_after_ms";

/// What reads requests, compressed or not, of up to `body_bytes_max` once they are read. Replies are as they are: every
/// client of gRPC says that it reads compressed ones, few gain by it.
fn grpc<C: Codec>(codec: C, node: &Node) -> Grpc<C> {
    Grpc::new(codec)
        .max_decoding_message_size(node.settings.body_bytes_max)
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Deflate)
}

/// The service's routes. `call` is the rest of the path, so that what is not built is told so in gRPC's words.
pub(super) fn routes() -> Router<Arc<Node>> {
    /// A call with one request and one reply, which `answer` gives.
    macro_rules! unary {
        ($answer:expr) => {
            post(|State(node): State<Arc<Node>>, request: HttpRequest| async move {
                let mut grpc = grpc(Weighed::of(request.extensions(), weight), &node);
                let answer = service_fn(move |request| {
                    let node = Arc::clone(&node);
                    async move {
                        let answer: Result<_> = $answer(node, request).await;
                        answer.map(Response::new).map_err(|error| grpc_status(&error))
                    }
                });
                grpc.unary(answer, request).await.map(Body::new)
            })
        };
    }
    let route = |call: &str| format!("/inference.GRPCInferenceService/{call}");
    Router::new()
        .route(&route("ServerLive"), unary!(server_live))
        .route(&route("ServerReady"), unary!(server_ready))
        .route(&route("ModelReady"), unary!(model_ready))
        .route(&route("ServerMetadata"), unary!(server_metadata))
        .route(&route("ModelMetadata"), unary!(model_metadata))
        .route(&route("ModelConfig"), unary!(model_config))
        .route(&route("ModelStatistics"), unary!(model_statistics))
        .route(&route("RepositoryIndex"), unary!(repository_index))
        .route(&route("RepositoryModelLoad"), unary!(load))
        .route(&route("RepositoryModelUnload"), unary!(load))
        .route(&route("ModelInfer"), unary!(model_infer))
        .route(&route("ModelStreamInfer"), post(model_stream_infer))
        .route(&route("{call}"), post(not_built))
}

async fn not_built(request: HttpRequest) -> HttpResponse<Body> {
    let call = request.uri().path().rsplit('/').next().unwrap_or_default();
    Status::unimplemented(format!("{call} is not built")).into_http()
}

async fn server_live(_: Arc<Node>, _: Request<Empty>) -> Result<ServerLiveResponse> {
    Ok(ServerLiveResponse { live: true })
}

async fn server_ready(node: Arc<Node>, _: Request<Empty>) -> Result<ReadyResponse> {
    Ok(ReadyResponse { ready: node.live().number > 0 })
}

async fn server_metadata(_: Arc<Node>, _: Request<Empty>) -> Result<ServerMetadataResponse> {
    let InferenceServer { name, version, extensions } = metadata::server();
    Ok(ServerMetadataResponse { name, version, extensions })
}

fn find(node: &Node, who: &Caller, model: &str, version: &str) -> Result<Target> {
    Ok(node.predict.target(who, model, (!version.is_empty()).then_some(version))?)
}

async fn model_ready(node: Arc<Node>, request: Request<ModelRequest>) -> Result<ReadyResponse> {
    let ModelRequest { name, version } = request.get_ref();
    match find(&node, &who(&request)?, name, version) {
        Ok(target) => Ok(ReadyResponse { ready: target.is_ready().is_ok() }),
        // The reply has a word for it.
        Err(error) if error.kind() == Kind::NotFound => Ok(ReadyResponse { ready: false }),
        Err(error) => Err(error),
    }
}

async fn model_metadata(node: Arc<Node>, request: Request<ModelRequest>) -> Result<ModelMetadataResponse> {
    let who = who(&request)?;
    let ModelRequest { name, version } = request.into_inner();
    let target = find(&node, &who, &name, &version)?;
    let ports = |ports: Vec<Port>| {
        let port = |Port { name, datatype, shape }| TensorMetadata {
            name,
            datatype: Datatype::name(datatype).to_owned(),
            shape,
        };
        ports.into_iter().map(port).collect()
    };
    Ok(ModelMetadataResponse {
        versions: metadata::versions(&target),
        platform: metadata::PLATFORM.to_owned(),
        inputs: ports(metadata::inputs(&target)),
        outputs: ports(metadata::outputs(&target)),
        name,
    })
}

async fn model_config(node: Arc<Node>, request: Request<ModelRequest>) -> Result<ModelConfigResponse> {
    let who = who(&request)?;
    let ModelRequest { name, version } = request.into_inner();
    let target = find(&node, &who, &name, &version)?;
    let input = |optional| {
        move |Port { name, datatype, shape }| {
            let (_, data_type) = Datatype::in_config(datatype);
            ModelInput { name, data_type, dims: shape, optional }
        }
    };
    let output = |Port { name, datatype, shape }| {
        let (_, data_type) = Datatype::in_config(datatype);
        ModelOutput { name, data_type, dims: shape }
    };
    let time = input(true)(metadata::query_time());
    let inputs = metadata::inputs(&target).into_iter().map(input(false));
    let config = ModelConfig {
        name,
        platform: metadata::PLATFORM.to_owned(),
        backend: metadata::BACKEND.to_owned(),
        max_batch_size: 0,
        input: inputs.chain([time]).collect(),
        output: metadata::outputs(&target).into_iter().map(output).collect(),
    };
    Ok(ModelConfigResponse { config: Some(config) })
}

async fn model_statistics(
    node: Arc<Node>,
    request: Request<ModelRequest>,
) -> Result<ModelStatisticsResponse> {
    let who = who(&request)?;
    let ModelRequest { name, version } = request.get_ref();
    let of = if name.is_empty() {
        let live = node.live();
        statistics::of_all(&live, &live.seen_by(&who))
    } else {
        statistics::of(&find(&node, &who, name, version)?, !version.is_empty())
    };
    Ok(ModelStatisticsResponse { model_stats: of.into_iter().map(statistics::as_message).collect() })
}

async fn repository_index(node: Arc<Node>, request: Request<Empty>) -> Result<RepositoryIndexResponse> {
    let (live, who) = (node.live(), who(&request)?);
    let seen = live.seen_by(&who);
    let entry = |(name, version): (&str, &LiveVersion)| ModelIndex {
        name: name.to_owned(),
        version: version.version.clone(),
        state: "READY".to_owned(),
        reason: String::new(),
    };
    Ok(RepositoryIndexResponse { models: metadata::index(&live, &seen).map(entry).collect() })
}

async fn load(_: Arc<Node>, _: Request<Empty>) -> Result<Empty> {
    Err(applied_not_loaded())
}

async fn model_infer(node: Arc<Node>, request: Request<ModelInferRequest>) -> Result<ModelInferResponse> {
    let terms = Terms::of(request.metadata().as_ref())?;
    let (who, held) = (who(&request)?, Held(lease_of(request.extensions())?));
    infer((&node, &who), (terms, held), request.into_inner()).await
}

/// One reply for each request, in their order; an error is a reply, and the stream goes on, unless who asks is nobody
/// by then.
async fn model_stream_infer(State(node): State<Arc<Node>>, request: HttpRequest) -> HttpResponse<Body> {
    let codec = Weighed::<ModelStreamInferResponse, ModelInferRequest>::of(request.extensions(), weight);
    let mut grpc = grpc(codec, &node);
    let answer = service_fn(move |requests: Request<Streaming<ModelInferRequest>>| {
        let node = Arc::clone(&node);
        async move {
            let terms = Terms::of(requests.metadata().as_ref()).map_err(|error| grpc_status(&error))?;
            let held = Held(lease_of(requests.extensions()).map_err(|error| grpc_status(&error))?);
            let asker = Asker::of(&node, &requests).map_err(|error| grpc_status(&error))?;
            Ok(Response::new(replies((node, asker), (terms, held), requests.into_inner())))
        }
    });
    grpc.streaming(answer, request).await.map(Body::new)
}

fn replies(
    (node, asker): (Arc<Node>, Asker),
    terms: (Terms, Held),
    requests: Streaming<ModelInferRequest>,
) -> impl Stream<Item = std::result::Result<ModelStreamInferResponse, Status>> {
    // Answers come after the handler's, and belong to its span all the same.
    let call = Span::current();
    requests.then(move |request| {
        let (node, asker, terms) = (Arc::clone(&node), asker.clone(), terms.clone());
        async move {
            let request = request?;
            let (id, call) = (request.id.clone(), terms.0.request_id.clone());
            let answered = match asker.message().await {
                Ok(who) => infer((&node, &who), terms, request).await,
                // Who is nobody by now is told nothing more.
                Err(error) if error.kind() == Kind::Unauthenticated => return Err(grpc_status(&error)),
                Err(error) => Err(error),
            };
            Ok(match answered {
                Ok(reply) => {
                    ModelStreamInferResponse { error_message: String::new(), infer_response: Some(reply) }
                }
                Err(error) => {
                    log_fault(&error, &call);
                    let answer = ModelInferResponse { id, parameters: again(&error), ..Default::default() };
                    ModelStreamInferResponse { error_message: error.said(), infer_response: Some(answer) }
                }
            })
        }
        .instrument(call.clone())
    })
}

/// When the same message may be sent again, where that is known: the status of a stream is for all of them.
fn again(error: &Error) -> Parameters {
    let millis = error.retry_after().map(|time| Choice::Int64(time.as_millis() as i64));
    let named = millis.map(|choice| (RETRY_AFTER_MS.to_owned(), Parameter { choice: Some(choice) }));
    named.into_iter().collect()
}

async fn infer(
    (node, who): (&Arc<Node>, &Caller),
    (mut terms, held): (Terms, Held),
    request: ModelInferRequest,
) -> Result<ModelInferResponse> {
    let target = find(node, who, &request.model_name, &request.model_version)?;
    if !request.id.is_empty() {
        terms.name_request(&request.id)?;
    }
    set(&mut terms, &request.parameters)?;
    for output in &request.outputs {
        refuse_shared_memory(&output.name, &output.parameters)?;
        if output.parameters.contains_key("classification") {
            return Err(Error::invalid(format!(
                "output `{}`: `classification` is not built; take the output itself",
                output.name
            )));
        }
    }
    let asked = super::Request {
        tensors: tensors(request.inputs, &request.raw_input_contents)?,
        outputs: request.outputs.into_iter().map(|output| output.name).collect(),
        terms,
        held,
    };
    let reply = super::infer((node, who), target, asked).await?;
    let outputs = reply.outputs.iter().map(|tensor| InferInputTensor {
        name: tensor.name.clone(),
        datatype: tensor.datatype.name().to_owned(),
        shape: tensor.shape.iter().map(|dim| *dim as i64).collect(),
        ..InferInputTensor::default()
    });
    let raw = reply.outputs.iter().map(|tensor| Ok(Bytes::from(tensor.raw()?)));
    Ok(ModelInferResponse {
        model_name: request.model_name,
        model_version: reply.version,
        id: request.id,
        parameters: Parameters::default(),
        outputs: outputs.collect(),
        raw_output_contents: raw.collect::<Result<_>>()?,
    })
}

fn set(terms: &mut Terms, parameters: &Parameters) -> Result<()> {
    let get = |name: &str| parameters.get(name).and_then(|parameter| parameter.choice.as_ref());
    let wrong = |name: &str, expected: &str, found: &Choice| {
        Error::invalid(format!("parameter `{name}`: expected {expected}, found {found:?}"))
    };
    match get("timeout") {
        None => {}
        Some(Choice::Int64(micros)) => terms.wait_for_micros(*micros)?,
        Some(Choice::Uint64(micros)) => terms.wait_for_micros(i64::try_from(*micros).unwrap_or(i64::MAX))?,
        Some(other) => return Err(wrong("timeout", "a whole number of microseconds", other)),
    }
    match get("priority") {
        None => {}
        Some(Choice::Uint64(number)) => terms.rank(*number),
        Some(Choice::Int64(number)) if *number >= 0 => terms.rank(number.unsigned_abs()),
        Some(Choice::String(name)) => terms.name_priority("parameter `priority`", name)?,
        Some(other) => {
            return Err(wrong("priority", "a number from 1 on, `batch` or `interactive`", other));
        }
    }
    Ok(())
}

fn refuse_shared_memory(tensor: &str, parameters: &Parameters) -> Result<()> {
    if parameters.contains_key("shared_memory_region") {
        return Err(no_shared_memory(tensor));
    }
    Ok(())
}

/// The inputs, with their cells in raw bytes for all, or each with its own.
fn tensors(inputs: Vec<InferInputTensor>, raw: &[Bytes]) -> Result<Vec<Tensor>> {
    if !raw.is_empty() && raw.len() != inputs.len() {
        let (raw, inputs) = (raw.len(), inputs.len());
        return Err(Error::invalid(format!(
            "`raw_input_contents` has {raw} and `inputs` {inputs} entries; it has one for each, or none"
        )));
    }
    let tensor = |(i, input): (usize, InferInputTensor)| {
        let head = Head::new(&input.name, &input.datatype, &input.shape)?;
        refuse_shared_memory(&input.name, &input.parameters)?;
        match (raw.get(i), input.contents) {
            (Some(raw), None) => Ok(head.with_raw(raw)?),
            (Some(_), Some(_)) => Err(Error::invalid(format!(
                "input `{}`: give either `contents` or `raw_input_contents`, not both",
                input.name
            ))),
            (None, contents) => {
                let cells = cells(&head, contents.unwrap_or_default())?;
                Ok(head.with(cells)?)
            }
        }
    };
    inputs.into_iter().enumerate().map(tensor).collect()
}

/// The cells in the one field that the datatype has.
fn cells(head: &Head, contents: InferTensorContents) -> Result<ArrayRef> {
    Ok(match head.datatype {
        Datatype::Bool => Arc::new(BooleanArray::from(contents.bool_contents)),
        Datatype::Int8 | Datatype::Int16 | Datatype::Int32 => {
            Arc::new(Int32Array::from(contents.int_contents))
        }
        Datatype::Int64 => Arc::new(Int64Array::from(contents.int64_contents)),
        Datatype::Uint8 | Datatype::Uint16 | Datatype::Uint32 => {
            Arc::new(Int64Array::from_iter_values(contents.uint_contents.into_iter().map(i64::from)))
        }
        Datatype::Uint64 => head.unsigned(&contents.uint64_contents)?,
        Datatype::Fp16 => {
            let name = &head.name;
            return Err(Error::invalid(format!(
                "input `{name}`: `contents` has no field for FP16; send it in `raw_input_contents`"
            )));
        }
        Datatype::Fp32 => Arc::new(Float32Array::from(contents.fp32_contents)),
        Datatype::Fp64 => Arc::new(Float64Array::from(contents.fp64_contents)),
        Datatype::Bytes => {
            Arc::new(BinaryArray::from_iter_values(contents.bytes_contents.iter().map(|text| text.as_ref())))
        }
    })
}
