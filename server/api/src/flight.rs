//! Tables over Arrow Flight.
//!
//! `DoExchange` with a [`TrainingSetCommand`] in JSON as the descriptor's command makes a [`training`] set.
//! `ListFlights` and `GetFlightInfo` show the feature services and the columns that they add to a spine. `DoExchange`
//! with a command that names a model predicts ([`batch`]). `DoPut` takes pushed rows in ([`put`]), or [`labels`];
//! `DoGet` gives logged [`predictions`], or the rows of a feature view or a source ([`export`]).

mod batch;
mod export;
mod labels;
mod predictions;
mod pump;
mod put;
mod training;
mod upload;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

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
use axum::body::Body;
use axum::extract::{Request as HttpRequest, State};
use axum::http::Response as HttpResponse;
use axum::routing::post;
use futures::{Stream, TryStreamExt, stream};
use quern_wire::{BatchCommand, REQUEST_ID, TableNotes, TrainingSetCommand};
use serde::de::IgnoredAny;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::server::Grpc;
use tonic::{Request, Response, Status, Streaming};
use tower::service_fn;

use quern_access::{Caller, Question};
use quern_base::Failure;

use self::pump::Made;
use self::upload::opened;
use super::asker::Asker;
use super::error::{Logged, grpc_status};
use super::memory::lease_of;
use super::observe::LateCause;
use super::weighed::Weighed;
use super::who::who;
use crate::error::{Error, Result};
use quern_engine::caught::caught_while;
use quern_server::verbs::train::{Layout, service};
use quern_server::{Deployment, Node};

/// pyarrow sends a batch as one message.
const MESSAGE_BYTES_MAX: usize = 1 << 30;

type Messages<T> = Pin<Box<dyn Stream<Item = std::result::Result<T, Status>> + Send>>;
type Answer<T> = std::result::Result<Response<T>, Status>;

struct Flight {
    node: Arc<Node>,
}

/// What is live, and who asks.
type Asking<'a> = (&'a Deployment, &'a Caller);

/// Flight's gRPC routes. What goes up beside rows is short.
pub(super) fn routes(node: Arc<Node>) -> Router<Arc<Node>> {
    let service = FlightServiceServer::new(Flight { node })
        .max_decoding_message_size(upload::COMMAND_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let exchange = |State(node): State<Arc<Node>>, request: HttpRequest| {
        let flight = Arc::new(Flight { node });
        streamed(request, move |request| {
            let flight = Arc::clone(&flight);
            async move { flight.do_exchange(request).await }
        })
    };
    let put = |State(node): State<Arc<Node>>, request: HttpRequest| {
        let flight = Arc::new(Flight { node });
        streamed(request, move |request| {
            let flight = Arc::clone(&flight);
            async move { flight.do_put(request).await }
        })
    };
    Router::new()
        .route("/arrow.flight.protocol.FlightService/DoExchange", post(exchange))
        .route("/arrow.flight.protocol.FlightService/DoPut", post(put))
        .route_service("/arrow.flight.protocol.FlightService/{call}", service)
}

/// Answers a call whose messages bring rows: each is weighed before it is read.
async fn streamed<T, F>(
    request: HttpRequest,
    answer: impl FnMut(Request<Streaming<FlightData>>) -> F + Send + Sync,
) -> HttpResponse<Body>
where
    T: prost::Message + Send + 'static,
    F: Future<Output = Answer<Messages<T>>> + Send,
{
    let codec = Weighed::<T, FlightData>::of(request.extensions(), upload::weight_of_descriptor);
    let mut grpc = Grpc::new(codec)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    grpc.streaming(service_fn(answer), request).await.map(Body::new)
}

fn refuse(error: &Failure) -> Status {
    grpc_status(error)
}

/// The name of a request, and where what goes wrong is left for whoever logs it.
struct Name {
    id: Option<MetadataValue<Ascii>>,
    cause: LateCause,
}

impl Name {
    fn of<T>(request: &Request<T>) -> Name {
        let cause = request.extensions().get().cloned().unwrap_or_default();
        Name { id: request.metadata().get(REQUEST_ID).cloned(), cause }
    }

    /// Names the request in what goes wrong while its reply is under way: the head of the reply, which names it, has
    /// gone.
    fn on<T: 'static>(self, reply: Answer<Messages<T>>) -> Answer<Messages<T>> {
        let failed = move |mut status: Status| {
            if let Some(cause) = Logged::in_status(&status) {
                self.cause.leave(cause);
            }
            if let Some(id) = &self.id {
                status.metadata_mut().insert(REQUEST_ID, id.clone());
            }
            status
        };
        reply.map(|reply| reply.map(|messages| Box::pin(messages.map_err(failed)) as Messages<T>))
    }
}

fn not_built(call: &str) -> Status {
    Status::unimplemented(format!("{call} is not built; a training set is pulled with DoExchange"))
}

impl Flight {
    fn command(&self, descriptor: Option<FlightDescriptor>) -> Result<TrainingSetCommand> {
        read(descriptor, "{\"feature_service\": \"…\", \"as_known\": false}")
    }

    /// The columns that a service needs and adds, as a training set over the smallest spine.
    fn layout((live, who): Asking<'_>, command: &TrainingSetCommand) -> Result<SchemaRef> {
        let service = service(live, who, command)?;
        let mut fields = service.inputs.fields().to_vec();
        let time = arrow::datatypes::Field::new("event_timestamp", quern_engine::schema::timestamp(), true);
        fields.push(Arc::new(time));
        Ok(Layout::new(service, &Schema::new(fields))?.schema)
    }

    fn info(asking: Asking<'_>, command: &TrainingSetCommand) -> Result<FlightInfo> {
        let schema = Flight::layout(asking, command)?;
        let descriptor = serde_json::to_vec(command).map_err(|e| Error::internal("flight descriptor", e))?;
        Ok(FlightInfo::new().try_with_schema(&schema)?.with_descriptor(FlightDescriptor::new_cmd(descriptor)))
    }
}

impl Flight {
    /// A table goes up and comes down: a spine as its training set, or rows with what a model says of them.
    async fn exchange(&self, request: Request<Streaming<FlightData>>) -> Answer<Messages<FlightData>> {
        let lease = lease_of(request.extensions()).map_err(|e| refuse(&e))?;
        let asker = Asker::of(&self.node, &request).map_err(|e| refuse(&e))?;
        let (command, spine) = opened(request).await?;
        if names(command.as_ref(), "model") {
            let command: BatchCommand =
                read(command, "{\"model\": \"…\", \"version\": null, \"as_of\": false}")
                    .map_err(|e| refuse(&e))?;
            return batch::exchange((&self.node, asker), &command, spine, lease).await;
        }
        let command = self.command(command).map_err(|e| refuse(&e))?;
        training::exchange((&self.node, asker), command, spine, lease).await
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
        let name = Name::of(&request);
        name.on(self.exchange(request).await)
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Answer<FlightInfo> {
        let who = who(&request).map_err(|e| refuse(&e))?;
        let command = self.command(Some(request.into_inner())).map_err(|e| refuse(&e))?;
        Ok(Response::new(Flight::info((&self.node.live(), &who), &command).map_err(|e| refuse(&e))?))
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Answer<SchemaResult> {
        let who = who(&request).map_err(|e| refuse(&e))?;
        let command = self.command(Some(request.into_inner())).map_err(|e| refuse(&e))?;
        let schema = Flight::layout((&self.node.live(), &who), &command).map_err(|e| refuse(&e))?;
        let options = arrow::ipc::writer::IpcWriteOptions::default();
        let IpcMessage(schema) = SchemaAsIpc::new(&schema, &options)
            .try_into()
            .map_err(|e| refuse(&Error::broken("writing a schema").quoting(e)))?;
        Ok(Response::new(SchemaResult { schema }))
    }

    async fn list_flights(&self, request: Request<Criteria>) -> Answer<Self::ListFlightsStream> {
        let name = Name::of(&request);
        let (live, who) = (self.node.live(), who(&request).map_err(|e| refuse(&e))?);
        let seen = live.seen_by(&who);
        let flights: Vec<_> = live
            .compiled
            .catalog
            .services
            .keys()
            .filter(|name| seen.may(Question::Do(quern_access::Action::Train, name)))
            .map(|name| TrainingSetCommand { feature_service: name.clone(), ..Default::default() })
            .map(|command| Flight::info((&live, &who), &command).map_err(|e| refuse(&e)))
            .collect();
        name.on(Ok(Response::new(Box::pin(stream::iter(flights)))))
    }

    async fn handshake(&self, _: Request<Streaming<HandshakeRequest>>) -> Answer<Self::HandshakeStream> {
        Err(not_built("Handshake"))
    }

    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Answer<PollInfo> {
        Err(not_built("PollFlightInfo"))
    }

    async fn do_get(&self, request: Request<Ticket>) -> Answer<Self::DoGetStream> {
        let name = Name::of(&request);
        let lease = lease_of(request.extensions()).map_err(|e| refuse(&e))?;
        let asker = Asker::of(&self.node, &request).map_err(|e| refuse(&e))?;
        let ticket = FlightDescriptor::new_cmd(request.into_inner().ticket);
        let reply = match ["view", "source"].map(|key| names(Some(&ticket), key)) {
            [true, _] => export::view((&self.node, asker), ticket, lease).await,
            [_, true] => export::source((&self.node, asker), ticket, lease).await,
            _ => predictions::get((&self.node, asker), ticket, lease).await,
        };
        name.on(reply)
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Answer<Self::DoPutStream> {
        let name = Name::of(&request);
        let asker = Asker::of(&self.node, &request).map_err(|e| refuse(&e))?;
        let (command, rows) = opened(request).await?;
        let reply = match names(command.as_ref(), "labels") {
            true => labels::put((&self.node, asker), command, rows).await,
            false => put::put((&self.node, asker), command, rows).await,
        };
        name.on(reply)
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
    command.is_some_and(|command: HashMap<String, IgnoredAny>| command.contains_key(key))
}

/// The descriptor's command, which is to look like `shape`.
fn read<T: serde::de::DeserializeOwned>(descriptor: Option<FlightDescriptor>, shape: &str) -> Result<T> {
    let command = descriptor.map(|descriptor| descriptor.cmd).unwrap_or_default();
    serde_json::from_slice(&command)
        .map_err(|e| Error::invalid(format!("the flight descriptor's command is not {shape}: {e}")))
}

/// Batches as they go to the client, their schema before them, with what else there is to say of them: that comes with
/// the first message of each batch that has it.
fn noted(
    schema: SchemaRef,
    batches: impl Stream<Item = std::result::Result<Made, Status>> + Send + 'static,
) -> Messages<FlightData> {
    // The encoder asks for rows when it has no message left, so that this is of the messages that follow.
    let last = Arc::new(Mutex::new((TableNotes::default(), None)));
    let noting = Arc::clone(&last);
    let rows = batches.map_ok(move |Made { batch, held }| {
        let mut last = noting.lock().unwrap_or_else(PoisonError::into_inner);
        last.0.add(&batch.notes);
        last.1 = Some(held);
        batch.rows
    });
    let encoded = FlightDataEncoderBuilder::new()
        .with_schema(schema)
        // They are cut already.
        .with_max_flight_data_size(usize::MAX)
        .build(rows.map_err(|status| FlightError::Tonic(Box::new(status))))
        .map_err(|error| match error {
            FlightError::Tonic(status) => *status,
            other => refuse(&Error::broken("writing a table").quoting(other)),
        });
    let is_batch = |message: &FlightData| {
        arrow::ipc::root_as_message(&message.data_header)
            .is_ok_and(|message| message.header_type() == arrow::ipc::MessageHeader::RecordBatch)
    };
    Box::pin(encoded.map_ok(move |mut message| {
        if is_batch(&message) {
            let notes = std::mem::take(&mut last.lock().unwrap_or_else(PoisonError::into_inner).0);
            if !notes.is_empty() {
                message.app_metadata = serde_json::to_vec(&notes).unwrap_or_default().into();
            }
        }
        message
    }))
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
    let read = caught_while(reading).await;
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
