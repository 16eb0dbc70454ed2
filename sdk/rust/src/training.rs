//! How does a training set come down? Over Arrow Flight, while the spine goes up.

use std::pin::Pin;
use std::task::{Context, Poll};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::FlightDescriptor;
use arrow_flight::decode::{DecodedFlightData, DecodedPayload, FlightDataDecoder};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use futures::{Stream, StreamExt};

use crate::flight::flight_error;
use crate::wire::TrainingSetCommand;
use crate::{Client, Error, Result};

/// The rows of a training set: a stream of record batches in the spine's order, its schema known before the first.
pub struct TrainingSet {
    schema: SchemaRef,
    decoder: FlightDataDecoder,
}

impl TrainingSet {
    /// The spine's columns, then the feature service's outputs.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }
}

impl Client {
    /// The training set of `feature_service` for the rows of `spine`, each of `schema`: join keys,
    /// `event_timestamp`, request columns, and any other columns, which are carried through.
    ///
    /// With `as_known`, rows that became known after the query time are invisible.
    pub async fn training_set<S>(
        &self,
        feature_service: &str,
        schema: SchemaRef,
        spine: S,
        as_known: bool,
    ) -> Result<TrainingSet>
    where
        S: Stream<Item = RecordBatch> + Send + 'static,
    {
        let command = TrainingSetCommand { feature_service: feature_service.to_owned(), as_known };
        let command = serde_json::to_vec(&command).map_err(|error| Error::Invalid(error.to_string()))?;
        let messages = FlightDataEncoderBuilder::new()
            .with_schema(schema)
            .with_flight_descriptor(Some(FlightDescriptor::new_cmd(command)))
            .build(spine.map(Ok::<_, FlightError>));
        let mut decoder =
            self.flight().do_exchange(messages).await.map_err(|error| self.flight_error(error))?.into_inner();
        match decoder.next().await {
            Some(Ok(DecodedFlightData { payload: DecodedPayload::Schema(schema), .. })) => {
                Ok(TrainingSet { schema, decoder })
            }
            Some(Ok(_)) => Err(Error::Protocol("rows came before their schema".to_owned())),
            Some(Err(error)) => Err(self.flight_error(error)),
            None => Err(Error::Protocol("the reply has no schema".to_owned())),
        }
    }
}

impl Stream for TrainingSet {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            return match std::task::ready!(self.decoder.poll_next_unpin(context)) {
                Some(Ok(DecodedFlightData { payload: DecodedPayload::RecordBatch(batch), .. })) => {
                    Poll::Ready(Some(Ok(batch)))
                }
                Some(Ok(_)) => continue,
                Some(Err(error)) => Poll::Ready(Some(Err(flight_error(error)))),
                None => Poll::Ready(None),
            };
        }
    }
}
