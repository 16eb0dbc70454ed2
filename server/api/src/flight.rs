//! Training sets over Arrow Flight.
//!
//! `DoExchange` with a [`TrainingSetCommand`] in JSON as the descriptor's command: the spine goes up, the training set
//! comes down in the spine's order. Its schema comes down as soon as the spine's has gone up, and what else there is to
//! say ([`TableNotes`]) as the metadata of the batches. `ListFlights` and `GetFlightInfo` show the feature
//! services and the columns that they add to a spine. `DoExchange` with a command that names a model predicts
//! ([`batch`]). `DoPut` takes pushed rows in ([`put`]), or [`labels`]; `DoGet` gives logged [`predictions`].

mod batch;
mod labels;
mod predictions;
mod put;

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest,
    HandshakeResponse, IpcMessage, PollInfo, PutResult, SchemaAsIpc, SchemaResult, Ticket,
};
use axum::Router;
use futures::{FutureExt, Stream, StreamExt, TryStreamExt, stream};
use quern_wire::{BatchCommand, REQUEST_ID, TableNotes, TrainingSetCommand};
use tokio::sync::mpsc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Request, Response, Status, Streaming};

use quern_base::Failure;

use super::error::grpc_status;
use crate::error::{Error, Result};
use quern_server::verbs::train::{Layout, TrainingSet, service};
use quern_server::{Deployment, Node, NotedRows};

/// A spine is held in memory; a larger one is sent in parts.
const SPINE_BYTES_MAX: usize = 8 << 30;
/// pyarrow sends a batch as one message.
const MESSAGE_BYTES_MAX: usize = 1 << 30;
/// Batches made ahead of the client.
const AHEAD: usize = 2;

type Messages<T> = Pin<Box<dyn Stream<Item = std::result::Result<T, Status>> + Send>>;
type Answer<T> = std::result::Result<Response<T>, Status>;

struct Flight {
    node: Arc<Node>,
}

/// Flight's gRPC routes.
pub(super) fn routes(node: Arc<Node>) -> Router<Arc<Node>> {
    let service = FlightServiceServer::new(Flight { node })
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    Router::new().route_service("/arrow.flight.protocol.FlightService/{call}", service)
}

fn refuse(error: &Failure) -> Status {
    grpc_status(error)
}

/// Names the request in what goes wrong while its reply is under way: the head of the reply, which names it, has gone.
fn named<T: 'static>(name: Option<MetadataValue<Ascii>>, reply: Answer<Messages<T>>) -> Answer<Messages<T>> {
    let Some(name) = name else { return reply };
    let failed = move |mut status: Status| {
        status.metadata_mut().insert(REQUEST_ID, name.clone());
        status
    };
    reply.map(|reply| reply.map(|messages| Box::pin(messages.map_err(failed)) as Messages<T>))
}

fn not_built(call: &str) -> Status {
    Status::unimplemented(format!("{call} is not built; a training set is pulled with DoExchange"))
}

impl Flight {
    fn command(&self, descriptor: Option<FlightDescriptor>) -> Result<TrainingSetCommand> {
        read(descriptor, "{\"feature_service\": \"…\", \"as_known\": false}")
    }

    /// The columns that a service needs and adds, as a training set over the smallest spine.
    fn layout(&self, live: &Deployment, command: &TrainingSetCommand) -> Result<SchemaRef> {
        let service = service(live, command)?;
        let mut fields = service.inputs.fields().to_vec();
        let time = arrow::datatypes::Field::new("event_timestamp", quern_engine::schema::timestamp(), true);
        fields.push(Arc::new(time));
        Ok(Layout::new(service, &Schema::new(fields))?.schema)
    }

    fn info(&self, live: &Deployment, command: &TrainingSetCommand) -> Result<FlightInfo> {
        let schema = self.layout(live, command)?;
        let descriptor = serde_json::to_vec(command).map_err(|e| Error::internal("flight descriptor", e))?;
        Ok(FlightInfo::new().try_with_schema(&schema)?.with_descriptor(FlightDescriptor::new_cmd(descriptor)))
    }
}

impl Flight {
    /// A table goes up and comes down: a spine as its training set, or rows with what a model says of them.
    async fn exchange(&self, messages: Streaming<FlightData>) -> Answer<Messages<FlightData>> {
        let (command, spine) = opened(messages).await?;
        if names(command.as_ref(), "model") {
            let command: BatchCommand =
                read(command, "{\"model\": \"…\", \"version\": null, \"as_of\": false}")
                    .map_err(|e| refuse(&e))?;
            return batch::exchange(&self.node, &command, spine).await;
        }
        let command = self.command(command).map_err(|e| refuse(&e))?;
        let live = self.node.live();
        let (spine_schema, spine) = guarded(receive_schema(spine)).await?;
        let wanted = service(&live, &command).map_err(|e| refuse(&e))?;
        let schema = Layout::new(wanted, &spine_schema).map_err(|e| refuse(&e))?.schema;

        let (sender, receiver) = mpsc::channel(AHEAD);
        let train = self.node.train.clone();
        tokio::spawn(async move {
            let spine = match guarded(receive(spine)).await {
                Ok(spine) => spine,
                Err(status) => return drop(sender.send(Err(status)).await),
            };
            let making = move || send(train.training_set(&live, &command, &spine_schema, &spine), &sender);
            if let Err(e) = tokio::task::spawn_blocking(making).await {
                tracing::error!(error = %e, "making a training set failed");
            }
        });
        let batches = tokio_stream::wrappers::ReceiverStream::new(receiver);
        Ok(Response::new(noted(schema, batches)))
    }
}

#[tonic::async_trait]
impl FlightService for Flight {
    type HandshakeStream = Messages<HandshakeResponse>;
    type ListFlightsStream = Messages<FlightInfo>;
    type DoGetStream = Messages<FlightData>;
    type DoPutStream = Messages<PutResult>;
    type DoActionStream = Messages<arrow_flight::Result>;
    type ListActionsStream = Messages<ActionType>;
    type DoExchangeStream = Messages<FlightData>;

    async fn do_exchange(&self, request: Request<Streaming<FlightData>>) -> Answer<Self::DoExchangeStream> {
        let name = request.metadata().get(REQUEST_ID).cloned();
        named(name, self.exchange(request.into_inner()).await)
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Answer<FlightInfo> {
        let command = self.command(Some(request.into_inner())).map_err(|e| refuse(&e))?;
        Ok(Response::new(self.info(&self.node.live(), &command).map_err(|e| refuse(&e))?))
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Answer<SchemaResult> {
        let command = self.command(Some(request.into_inner())).map_err(|e| refuse(&e))?;
        let schema = self.layout(&self.node.live(), &command).map_err(|e| refuse(&e))?;
        let options = arrow::ipc::writer::IpcWriteOptions::default();
        let IpcMessage(schema) =
            SchemaAsIpc::new(&schema, &options).try_into().map_err(|e| Status::internal(format!("{e}")))?;
        Ok(Response::new(SchemaResult { schema }))
    }

    async fn list_flights(&self, _: Request<Criteria>) -> Answer<Self::ListFlightsStream> {
        let live = self.node.live();
        let flights: Vec<_> = live
            .compiled
            .catalog
            .services
            .keys()
            .map(|name| TrainingSetCommand { feature_service: name.clone(), as_known: false })
            .map(|command| self.info(&live, &command).map_err(|e| refuse(&e)))
            .collect();
        Ok(Response::new(Box::pin(stream::iter(flights))))
    }

    async fn handshake(&self, _: Request<Streaming<HandshakeRequest>>) -> Answer<Self::HandshakeStream> {
        Err(not_built("Handshake"))
    }

    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Answer<PollInfo> {
        Err(not_built("PollFlightInfo"))
    }

    async fn do_get(&self, request: Request<Ticket>) -> Answer<Self::DoGetStream> {
        let name = request.metadata().get(REQUEST_ID).cloned();
        named(name, predictions::get(&self.node, &request.into_inner()).await)
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Answer<Self::DoPutStream> {
        let name = request.metadata().get(REQUEST_ID).cloned();
        let (command, rows) = opened(request.into_inner()).await?;
        let reply = match names(command.as_ref(), "labels") {
            true => labels::put(&self.node, command, rows).await,
            false => put::put(&self.node, command, rows).await,
        };
        named(name, reply)
    }

    async fn do_action(&self, _: Request<Action>) -> Answer<Self::DoActionStream> {
        Err(not_built("DoAction"))
    }

    async fn list_actions(&self, _: Request<Empty>) -> Answer<Self::ListActionsStream> {
        Ok(Response::new(Box::pin(stream::empty())))
    }
}

/// Whether the descriptor's command is an object with this key: which of the calls it is.
fn names(descriptor: Option<&FlightDescriptor>, key: &str) -> bool {
    let command = descriptor.and_then(|descriptor| serde_json::from_slice(&descriptor.cmd).ok());
    command.is_some_and(|command: serde_json::Value| command.get(key).is_some())
}

/// The descriptor's command, which is to look like `shape`.
fn read<T: serde::de::DeserializeOwned>(descriptor: Option<FlightDescriptor>, shape: &str) -> Result<T> {
    let command = descriptor.map(|descriptor| descriptor.cmd).unwrap_or_default();
    serde_json::from_slice(&command)
        .map_err(|e| Error::invalid(format!("the flight descriptor's command is not {shape}: {e}")))
}

/// Batches as they go to the client, their schema before them.
fn encoded(
    schema: SchemaRef,
    batches: impl Stream<Item = std::result::Result<RecordBatch, Status>> + Send + 'static,
) -> Messages<FlightData> {
    let encoded = FlightDataEncoderBuilder::new()
        .with_schema(schema)
        .build(batches.map_err(|status| FlightError::Tonic(Box::new(status))))
        .map_err(|error| match error {
            FlightError::Tonic(status) => *status,
            other => Status::internal(other.to_string()),
        });
    Box::pin(encoded)
}

/// The same with what else there is to say of them, which comes with the first message of each batch that has it.
fn noted(
    schema: SchemaRef,
    batches: impl Stream<Item = std::result::Result<NotedRows, Status>> + Send + 'static,
) -> Messages<FlightData> {
    // The encoder asks for rows when it has no message left, so that these are the notes of the message that follows.
    let notes = Arc::new(Mutex::new(TableNotes::default()));
    let noting = Arc::clone(&notes);
    let rows = batches.map_ok(move |batch| {
        noting.lock().unwrap_or_else(PoisonError::into_inner).add(&batch.notes);
        batch.rows
    });
    let is_batch = |message: &FlightData| {
        arrow::ipc::root_as_message(&message.data_header)
            .is_ok_and(|message| message.header_type() == arrow::ipc::MessageHeader::RecordBatch)
    };
    Box::pin(encoded(schema, rows).map_ok(move |mut message| {
        if is_batch(&message) {
            let notes = std::mem::take(&mut *notes.lock().unwrap_or_else(PoisonError::into_inner));
            if !notes.is_empty() {
                message.app_metadata = serde_json::to_vec(&notes).unwrap_or_default().into();
            }
        }
        message
    }))
}

/// The descriptor of an upload, and the rows that follow it.
async fn opened(
    mut messages: Streaming<FlightData>,
) -> std::result::Result<(Option<FlightDescriptor>, FlightDataDecoder), Status> {
    let first = messages.message().await?.ok_or_else(|| Status::invalid_argument("the rows are missing"))?;
    let descriptor = first.flight_descriptor.clone();
    // pyarrow sends the descriptor in a message of its own, other clients together with the schema.
    let first = (!first.data_header.is_empty()).then_some(Ok(first));
    let all = stream::iter(first).chain(messages.map_err(FlightError::from));
    Ok((descriptor, FlightDataDecoder::new(all)))
}

fn unreadable(error: FlightError) -> Status {
    match error {
        FlightError::Tonic(status) => *status,
        other => {
            Status::invalid_argument(format!("the rows cannot be read: {}", other.to_string().trim_end()))
        }
    }
}

/// Hostile bytes make the decoder panic: that ends this reading, and is told to the client.
async fn guarded<T>(
    reading: impl Future<Output = std::result::Result<T, Status>>,
) -> std::result::Result<T, Status> {
    let read = AssertUnwindSafe(reading).catch_unwind().await;
    read.unwrap_or_else(|_| Err(Status::invalid_argument("the rows are not valid Arrow IPC")))
}

async fn receive_schema(
    mut rows: FlightDataDecoder,
) -> std::result::Result<(SchemaRef, FlightDataDecoder), Status> {
    match rows.try_next().await.map_err(unreadable)?.map(|message| message.payload) {
        Some(DecodedPayload::Schema(schema)) => Ok((schema, rows)),
        Some(_) => Err(Status::invalid_argument("the rows came before their schema")),
        None => Err(Status::invalid_argument("the rows are missing")),
    }
}

async fn receive(mut spine: FlightDataDecoder) -> std::result::Result<Vec<RecordBatch>, Status> {
    let (mut batches, mut bytes) = (Vec::new(), 0);
    while let Some(message) = spine.try_next().await.map_err(unreadable)? {
        if let DecodedPayload::RecordBatch(batch) = message.payload {
            bytes += batch.get_array_memory_size();
            if bytes > SPINE_BYTES_MAX {
                return Err(refuse(&Error::too_large(format!(
                    "the spine is larger than {} GiB; send it in parts",
                    SPINE_BYTES_MAX >> 30
                ))));
            }
            batches.push(batch);
        }
    }
    Ok(batches)
}

/// Sends the training set as fast as the client takes it; stops when the client has gone.
fn send(made: quern_server::Result<TrainingSet>, to: &mpsc::Sender<std::result::Result<NotedRows, Status>>) {
    let send =
        |batch: quern_server::Result<NotedRows>| to.blocking_send(batch.map_err(|e| refuse(&e))).is_ok();
    match made {
        Ok(batches) => {
            for batch in batches {
                let failed = batch.is_err();
                if !send(batch) || failed {
                    return;
                }
            }
        }
        Err(e) => drop(send(Err(e))),
    }
}
