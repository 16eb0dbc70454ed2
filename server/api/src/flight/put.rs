//! `DoPut`: rows for history and head. The descriptor's command is a [`PushCommand`] in JSON; each batch is pushed by
//! itself and answered, once it is on disk, by a [`PushReply`] in the metadata of a `PutResult`.

use std::sync::Arc;

use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use arrow_flight::{FlightDescriptor, PutResult};
use futures::{TryStreamExt, stream};
use quern_wire::{PushCommand, PushReply};
use tonic::{Response, Status};

use super::{Answer, Messages, guarded, receive_schema, refuse, unreadable};
use quern_server::Node;
use quern_server::error::NoneTaken;

use crate::asker::Asker;
use crate::error::Error;
use quern_server::verbs::push::PushedBatch;

/// An upload under way.
struct Upload {
    node: Arc<Node>,
    asker: Asker,
    command: PushCommand,
    rows: FlightDataDecoder,
    batch: usize,
}

pub(super) async fn put(
    (node, asker): (&Arc<Node>, Asker),
    descriptor: Option<FlightDescriptor>,
    rows: FlightDataDecoder,
) -> Answer<Messages<PutResult>> {
    let command = descriptor.map(|descriptor| descriptor.cmd).unwrap_or_default();
    let command: PushCommand = serde_json::from_slice(&command).map_err(|error| {
        refuse(&Error::invalid(format!(
            "the flight descriptor's command is not {{\"push_source_name\": \"…\", \"to\": \"online_and_offline\"}}: {error}"
        )))
    })?;
    // Before the rows are read: who pushes to nothing need not send them.
    let named = node.live().seen_by(asker.caller()).source(&command.push_source_name).map(drop);
    named.map_err(|error| refuse(&error))?;
    let (_, rows) = guarded(receive_schema(rows)).await?;
    let upload = Upload { node: Arc::clone(node), asker, command, rows, batch: 0 };
    let replies = stream::try_unfold(upload, |mut upload| async {
        let reply = upload.next().await?;
        Ok(reply.map(|reply| (reply, upload)))
    });
    Ok(Response::new(Box::pin(replies)))
}

impl Upload {
    /// Pushes the next batch.
    async fn next(&mut self) -> Result<Option<PutResult>, Status> {
        let rows = loop {
            let message = guarded(async { self.rows.try_next().await.map_err(unreadable) }).await?;
            match message.map(|message| message.payload) {
                Some(DecodedPayload::RecordBatch(rows)) => break rows,
                Some(_) => {}
                None => return Ok(None),
            }
        };
        let who = self.asker.message().await.map_err(|error| refuse(&error))?;
        self.node.take_rows(&who, rows.num_rows()).map_err(|error| refuse(&error))?;
        let batch = self.batch;
        self.batch += 1;
        let pushed = PushedBatch {
            source: self.command.push_source_name.clone(),
            rows,
            rejected: Vec::new(),
            to: self.command.to,
            view: None,
            idempotency_key: self.command.idempotency_key.as_ref().map(|key| format!("{key}#{batch}")),
            positions: Vec::new(),
        };
        let reply = match self.node.push.push(&who, pushed).await {
            // The rows of the batches to come may be better.
            Err(error) => match error.facts() {
                Some(NoneTaken(rejected)) => PushReply { rejected: rejected.clone(), ..PushReply::default() },
                None => return Err(refuse(&error)),
            },
            Ok(reply) => reply,
        };
        let reply = PushReply { batch: Some(batch), ..reply };
        let app_metadata = serde_json::to_vec(&reply).map_err(|e| Status::internal(e.to_string()))?;
        Ok(Some(PutResult { app_metadata: app_metadata.into() }))
    }
}
