//! `DoExchange` with a [`TrainingSetCommand`]: the spine goes up, the training set comes down in the spine's order. Its
//! schema comes down as soon as the spine's has gone up, and what else there is to say ([`TableNotes`]) as the metadata
//! of the batches.
//!
//! [`TableNotes`]: quern_wire::TableNotes

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow_flight::FlightData;
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use futures::{TryStreamExt, stream};
use quern_wire::TrainingSetCommand;
use tonic::{Response, Status};

use super::pump::{Batches, pump};
use super::{Answer, Messages, guarded, noted, receive_schema, refuse, unreadable};
use crate::asker::Asker;
use crate::error::Result;
use quern_access::{Action, Caller};
use quern_base::Failure;
use quern_base::memory::Lease;
use quern_base::tasks::long;
use quern_engine::size::packed_bytes;
use quern_server::Node;
use quern_server::verbs::train::{Layout, service};

/// Bytes of a value that history is asked for, until its batch is made.
const GATHERED: usize = 8;

pub(super) async fn exchange(
    (node, asker): (&Arc<Node>, Asker),
    command: TrainingSetCommand,
    spine: FlightDataDecoder,
    lease: Arc<Lease>,
) -> Answer<Messages<FlightData>> {
    let live = node.live();
    let (spine_schema, spine) = guarded(receive_schema(spine)).await?;
    let wanted = service(&live, asker.caller(), &command).map_err(|e| refuse(&e))?;
    let schema = Layout::new(wanted, &spine_schema).map_err(|e| refuse(&e))?.schema;

    let (node, train, received) = (Arc::clone(node), node.train.clone(), command.received);
    let (columns, name) = (schema.fields().len(), command.feature_service.clone());
    let permit = move |node: &Node, who: &Caller| -> Result<()> {
        Ok(node.live().seen_by(who).permit_still(Action::Train, &name)?)
    };
    // The schema goes down as soon as the spine's is up: not before then does pyarrow send rows.
    let batches = async move {
        let spine = guarded(receive(spine, &lease, &asker)).await?;
        let rows: usize = spine.iter().map(RecordBatch::num_rows).sum();
        let who = asker.still().await.map_err(|e| refuse(&e))?;
        permit(&node, &who).map_err(|e| refuse(&e))?;
        node.take_rows(&who, rows).map_err(|e| refuse(&e))?;
        lease.take(rows.saturating_mul(columns).saturating_mul(GATHERED)).map_err(|e| refuse(&e))?;
        let room = Arc::clone(&lease);
        let making = long("making a training set", move || {
            train.training_set((&live, &who), &command, (&spine_schema, &spine), Some(&room))
        });
        let made = making.await.map_err(|e| refuse(&e))?;
        let made: Batches = Box::new(made.map(|batch| batch.map_err(Failure::from)));
        let made = pump(made, received, lease);
        Ok::<_, Status>(asker.watch(made, move |who| permit(&node, who)))
    };
    let batches = stream::once(batches).try_flatten();
    Ok(Response::new(noted(schema, batches)))
}

/// All rows of a table, which are held until the call ends.
async fn receive(
    mut spine: FlightDataDecoder,
    lease: &Lease,
    asker: &Asker,
) -> std::result::Result<Vec<RecordBatch>, Status> {
    let mut batches = Vec::new();
    while let Some(message) = spine.try_next().await.map_err(unreadable)? {
        if let DecodedPayload::RecordBatch(batch) = message.payload {
            asker.message().await.map_err(|e| refuse(&e))?;
            // Once as it came, and once as one table.
            lease.take(2 * packed_bytes(&batch)).map_err(|e| refuse(&e))?;
            batches.push(batch);
        }
    }
    Ok(batches)
}
