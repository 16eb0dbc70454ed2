//! How do rows come down? Over Arrow Flight, while others go up: training sets, and what a model says of a table.

use std::pin::Pin;
use std::task::{Context, Poll};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::decode::{DecodedFlightData, DecodedPayload, FlightDataDecoder};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::{FlightDescriptor, Ticket};
use futures::{Stream, StreamExt};
use serde::Serialize;

use crate::flight::flight_error;
use crate::wire::{
    BatchCommand, PredictionsCommand, SourceCommand, TableNotes, TrainingSetCommand, ViewCommand,
};
use crate::{Client, Error, Result};

/// Rows on their way down: a stream of record batches, its schema known before the first.
pub struct Rows {
    schema: SchemaRef,
    decoder: FlightDataDecoder,
    notes: TableNotes,
}

impl Rows {
    /// The columns of all rows.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// What the server says of a training set or a batch prediction besides its rows: of those that came so far, so ask
    /// once all are there.
    pub fn notes(&self) -> &TableNotes {
        &self.notes
    }

    /// Waits for the schema, which a server sends as soon as it knows that it can answer.
    pub(crate) async fn begin(client: &Client, mut decoder: FlightDataDecoder) -> Result<Rows> {
        match decoder.next().await {
            Some(Ok(DecodedFlightData { payload: DecodedPayload::Schema(schema), .. })) => {
                Ok(Rows { schema, decoder, notes: TableNotes::default() })
            }
            Some(Ok(_)) => Err(Error::Protocol("rows came before their schema".to_owned())),
            Some(Err(error)) => Err(client.flight_error(error)),
            None => Err(Error::Protocol("the reply has no schema".to_owned())),
        }
    }
}

impl Client {
    /// The training set of `feature_service` for the rows of `spine`, each of `schema`: join keys,
    /// `event_timestamp`, request columns, and any other columns, which are carried through. The spine's columns come
    /// first, then the service's outputs in the service's order, those that the spine brings among them; row by row in
    /// the spine's order. The schema's metadata names the outputs ([`OUTPUTS`](crate::wire::OUTPUTS)).
    ///
    /// With `as_known`, rows that became known after the query time are invisible.
    pub async fn training_set<S>(
        &self,
        feature_service: &str,
        schema: SchemaRef,
        spine: S,
        as_known: bool,
    ) -> Result<Rows>
    where
        S: Stream<Item = RecordBatch> + Send + 'static,
    {
        let command =
            TrainingSetCommand { feature_service: feature_service.to_owned(), as_known, received: 0 };
        self.exchange(&command, schema, spine).await
    }

    /// The rows of a table, each of `schema`, in their order, with what a model says of each in columns after its own;
    /// and where one or another may answer, who did ([`SERVED_BY`](crate::wire::SERVED_BY)).
    ///
    /// A row brings join keys and request columns, and any other columns, which are carried through; with
    /// [`BatchCommand::as_of`] its `event_timestamp`, too. Rows come down while others go up.
    pub async fn predict_batch<S>(&self, command: &BatchCommand, schema: SchemaRef, rows: S) -> Result<Rows>
    where
        S: Stream<Item = RecordBatch> + Send + 'static,
    {
        self.exchange(command, schema, rows).await
    }

    /// Logged predictions of a model with their labels, as one table that a training run can take.
    pub async fn predictions(&self, command: &PredictionsCommand) -> Result<Rows> {
        self.pull(command).await
    }

    /// The rows of a feature view, all of them in the order in which they arrived, or with [`ViewCommand::latest`] what
    /// a look-up of each entity finds.
    pub async fn export(&self, command: &ViewCommand) -> Result<Rows> {
        self.pull(command).await
    }

    /// The rows of a source's history, in the order in which they arrived.
    pub async fn export_source(&self, command: &SourceCommand) -> Result<Rows> {
        self.pull(command).await
    }

    async fn pull(&self, command: &impl Serialize) -> Result<Rows> {
        let ticket = serde_json::to_vec(command).map_err(|error| Error::Invalid(error.to_string()))?;
        let called = self.flight().do_get(Ticket::new(ticket)).await;
        Rows::begin(self, called.map_err(|error| self.flight_error(error))?.into_inner()).await
    }

    async fn exchange<S>(&self, command: &impl Serialize, schema: SchemaRef, rows: S) -> Result<Rows>
    where
        S: Stream<Item = RecordBatch> + Send + 'static,
    {
        let command = serde_json::to_vec(command).map_err(|error| Error::Invalid(error.to_string()))?;
        let messages = FlightDataEncoderBuilder::new()
            .with_schema(schema)
            .with_flight_descriptor(Some(FlightDescriptor::new_cmd(command)))
            .build(rows.map(Ok::<_, FlightError>));
        let called = self.flight().do_exchange(messages).await;
        Rows::begin(self, called.map_err(|error| self.flight_error(error))?.into_inner()).await
    }
}

impl Stream for Rows {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            return match std::task::ready!(self.decoder.poll_next_unpin(context)) {
                Some(Ok(DecodedFlightData { payload: DecodedPayload::RecordBatch(batch), inner })) => {
                    if !inner.app_metadata.is_empty() {
                        let notes = serde_json::from_slice(&inner.app_metadata);
                        self.notes.add(&notes.unwrap_or_default());
                    }
                    Poll::Ready(Some(Ok(batch)))
                }
                Some(Ok(_)) => continue,
                Some(Err(error)) => Poll::Ready(Some(Err(flight_error(error)))),
                None => Poll::Ready(None),
            };
        }
    }
}
