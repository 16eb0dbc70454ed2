//! `DoPut` with a [`LabelsCommand`]: what came true of predictions. Each batch is kept by itself and answered, once it
//! is on disk, by a [`LabelsReply`] in the metadata of a `PutResult`.

use std::sync::Arc;

use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use arrow_flight::{FlightDescriptor, PutResult};
use futures::{TryStreamExt, stream};
use quern_wire::{LabelsCommand, LabelsReply};
use tonic::{Response, Status};

use super::{Answer, Messages, guarded, read, receive_schema, refuse, unreadable};
use crate::asker::Asker;
use quern_access::Action;
use quern_server::Node;

pub(super) async fn put(
    (node, asker): (&Arc<Node>, Asker),
    descriptor: Option<FlightDescriptor>,
    rows: FlightDataDecoder,
) -> Answer<Messages<PutResult>> {
    let command: LabelsCommand = read(descriptor, "{\"labels\": \"…\"}").map_err(|error| refuse(&error))?;
    // Before the rows are read: who may tell nothing need not send them.
    node.live()
        .seen_by(asker.caller())
        .permit_on(Action::Label, &command.labels)
        .map_err(|error| refuse(&error.into()))?;
    let (_, rows) = guarded(receive_schema(rows)).await?;
    let upload = (Arc::clone(node), asker, command.labels, rows);
    let replies = stream::try_unfold(upload, |(node, asker, model, mut rows)| async move {
        loop {
            let message = guarded(async { rows.try_next().await.map_err(unreadable) }).await?;
            let batch = match message.map(|message| message.payload) {
                Some(DecodedPayload::RecordBatch(batch)) => batch,
                Some(_) => continue,
                None => return Ok(None),
            };
            let who = asker.message().await.map_err(|error| refuse(&error))?;
            node.take_rows(&who, batch.num_rows()).map_err(|error| refuse(&error))?;
            let accepted = node.label(who, model.clone(), batch).await.map_err(|error| refuse(&error))?;
            let reply = serde_json::to_vec(&LabelsReply { accepted });
            let app_metadata = reply.map_err(|error| Status::internal(error.to_string()))?.into();
            return Ok(Some((PutResult { app_metadata }, (node, asker, model, rows))));
        }
    });
    Ok(Response::new(Box::pin(replies)))
}
