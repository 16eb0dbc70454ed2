//! `DoGet` with a [`PredictionsCommand`] as its ticket: logged predictions with their labels, as one table.

use std::sync::Arc;

use arrow_flight::{FlightData, FlightDescriptor};
use quern_wire::PredictionsCommand;
use tonic::Response;

use super::pump::pump;
use super::{Answer, Messages, noted, read, refuse};
use crate::asker::Asker;
use crate::error::Result;
use quern_access::{Action, Caller};
use quern_base::Failure;
use quern_base::memory::Lease;
use quern_base::tasks::long;
use quern_server::{Node, NotedRows};

pub(super) async fn get(
    (node, asker): (&Arc<Node>, Asker),
    ticket: FlightDescriptor,
    lease: Arc<Lease>,
) -> Answer<Messages<FlightData>> {
    let command: PredictionsCommand = read(
        Some(ticket),
        "{\"predictions\": \"…\", \"from_us\": null, \"to_us\": null, \"labelled\": false}",
    )
    .map_err(|error| refuse(&error))?;
    node.predictions.flush().await;
    let (opening, received, model) = (Arc::clone(node), command.received, command.predictions.clone());
    let who = asker.caller().clone();
    let joined = long("reading predictions", move || opening.joined(&who, &command)).await;
    let joined = joined.map_err(|error| refuse(&error.into()))?;
    let schema = Arc::clone(joined.schema());
    let rows = joined.map(|rows| rows.map(NotedRows::from).map_err(Failure::from));
    let node = Arc::clone(node);
    let permit = move |who: &Caller| -> Result<()> {
        Ok(node.live().seen_by(who).permit_still(Action::ReadLog, &model)?)
    };
    let rows = asker.watch(pump(Box::new(rows), received, lease), permit);
    Ok(Response::new(noted(schema, rows)))
}
