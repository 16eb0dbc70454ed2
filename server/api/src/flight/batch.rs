//! `DoExchange` with a [`BatchCommand`]: rows go up, and come down with what a model says of each. The next rows are
//! read when the client takes those before them.

use std::sync::Arc;

use arrow_flight::FlightData;
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use futures::{StreamExt, TryStreamExt, stream};
use quern_wire::BatchCommand;
use tonic::{Response, Status};

use super::pump::Made;
use super::{Answer, Messages, guarded, noted, receive_schema, refuse, unreadable};
use quern_access::Caller;
use quern_base::Failure;
use quern_base::memory::Lease;
use quern_engine::size::{packed_bytes, row_bytes};
use quern_server::Node;

use crate::asker::Asker;
use crate::error::{Error, Kind, Result, retry_after};
use quern_server::verbs::predict::batch::{Batch, When};

pub(super) async fn exchange(
    (node, asker): (&Arc<Node>, Asker),
    command: &BatchCommand,
    rows: FlightDataDecoder,
    lease: Arc<Lease>,
) -> Answer<Messages<FlightData>> {
    // Before the rows are read: who asks for nothing need not send them.
    let find = || node.predict.target(asker.caller(), &command.model, command.version.as_deref());
    find().map_err(|error| refuse(&error))?;
    let (schema, rows) = guarded(receive_schema(rows)).await?;
    let batch = find().and_then(|target| Batch::new(target.within(&lease), &schema, command.as_of));
    let batch = batch.map_err(|error| refuse(&error))?;
    // Where all of a table is held, all of it is taken; else each message is, until the next one.
    let (as_of, target) = (command.as_of, Arc::clone(batch.target()));
    let permit =
        move |node: &Node, who: &Caller| -> Result<()> { Ok(target.permit_still(&node.live(), who)?) };
    let of_rows = (Arc::clone(&lease), Arc::clone(node), asker.clone(), permit.clone());
    let rows = stream::try_unfold((rows, of_rows), move |(mut rows, of_rows)| async move {
        let (lease, node, asker, permit) = &of_rows;
        loop {
            let next = guarded(async { rows.try_next().await.map_err(unreadable) }).await;
            match next.map_err(told)?.map(|message| message.payload) {
                Some(DecodedPayload::RecordBatch(batch)) => {
                    let who = asker.message().await?;
                    permit(node, &who)?;
                    node.take_rows(&who, batch.num_rows())?;
                    if as_of {
                        lease.take(2 * packed_bytes(&batch))?;
                    }
                    return Ok::<_, Error>(Some((batch, (rows, of_rows))));
                }
                Some(_) => {}
                None => return Ok(None),
            }
        }
    });
    let when = if command.as_of { When::AsOf } else { When::Now };
    let schema = Arc::clone(batch.schema());
    let rows = rows.map_err(|error: Error| quern_server::Error::from(Failure::from(error)));
    let answers = batch.answers(&node.predict, rows, when).map(move |answer| {
        let batch = answer.map_err(|error| refuse(&error))?;
        let held = lease.part(row_bytes(&batch.rows)).map_err(|error| refuse(&error))?;
        Ok::<_, Status>(stream::iter(Made::messages(batch, held).map(Ok)))
    });
    let node = Arc::clone(node);
    let answers = asker.watch(answers.try_flatten(), move |who| permit(&node, who));
    Ok(Response::new(noted(schema, answers)))
}

/// What the rows' own stream said, on its way through the verb.
fn told(status: Status) -> Error {
    match status.code() {
        tonic::Code::ResourceExhausted => match retry_after(&status) {
            Some(time) => {
                Failure::new(Kind::Overloaded, status.message().to_owned()).again_after(time).into()
            }
            None => Error::too_large(status.message().to_owned()),
        },
        _ => Error::invalid(status.message().to_owned()),
    }
}
