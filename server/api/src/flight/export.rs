//! `DoGet` with a [`ViewCommand`] or a [`SourceCommand`] as its ticket: rows of history as one table.

use std::sync::Arc;

use arrow_flight::{FlightData, FlightDescriptor};
use quern_wire::{SourceCommand, ViewCommand};
use tonic::Response;

use super::pump::pump;
use super::{Answer, Messages, noted, read, refuse};
use crate::asker::Asker;
use crate::error::{Error, Result};
use quern_access::Caller;
use quern_base::Failure;
use quern_base::clock::now_us;
use quern_base::memory::Lease;
use quern_base::tasks::long;
use quern_server::Node;
use quern_server::verbs::export::Exported;

const OF_VIEWS: &str = "{\"view\": \"…\", \"features\": [], \"from_us\": null, \"to_us\": null, \"latest\": false, \
                        \"at_us\": null}";
const OF_SOURCES: &str = "{\"source\": \"…\", \"from_us\": null, \"to_us\": null}";

/// The rows of a feature view.
pub(super) async fn view(
    (node, asker): (&Arc<Node>, Asker),
    ticket: FlightDescriptor,
    lease: Arc<Lease>,
) -> Answer<Messages<FlightData>> {
    let command: ViewCommand = read(Some(ticket), OF_VIEWS).map_err(|error| refuse(&error))?;
    if command.received > 0 && command.latest && command.at_us.is_none() {
        let cause = "the latest rows are others by now: go on (`received`) where the first call named a moment (`at_us`)";
        return Err(refuse(&Error::invalid(cause)));
    }
    let (opening, who, received) = (Arc::clone(node), asker.caller().clone(), command.received);
    let (name, features) = (command.view.clone(), command.features.clone());
    let room = Arc::clone(&lease);
    let open = move || opening.export.view((&opening.live(), &who), &command, (now_us(), Some(&room)));
    let permit = move |node: &Node, who: &Caller| -> Result<()> {
        Ok(node.live().seen_by(who).export_still(&name, &features)?)
    };
    stream((node, asker), (open, permit), received, lease).await
}

/// The rows of a source.
pub(super) async fn source(
    (node, asker): (&Arc<Node>, Asker),
    ticket: FlightDescriptor,
    lease: Arc<Lease>,
) -> Answer<Messages<FlightData>> {
    let command: SourceCommand = read(Some(ticket), OF_SOURCES).map_err(|error| refuse(&error))?;
    let (opening, who, received) = (Arc::clone(node), asker.caller().clone(), command.received);
    let open = move || opening.export.source((&opening.live(), &who), &command);
    let permit = |node: &Node, who: &Caller| -> Result<()> {
        Ok(node.live().seen_by(who).administer_still("export a source")?)
    };
    stream((node, asker), (open, permit), received, lease).await
}

async fn stream(
    (node, asker): (&Arc<Node>, Asker),
    (open, permit): (
        impl FnOnce() -> quern_server::Result<Exported> + Send + 'static,
        impl Fn(&Node, &Caller) -> Result<()> + Send + Sync + 'static,
    ),
    received: u64,
    lease: Arc<Lease>,
) -> Answer<Messages<FlightData>> {
    let exported = long("opening a table", open).await.map_err(|error| refuse(&error.into()))?;
    let schema = Arc::clone(exported.schema());
    let rows = exported.map(|rows| rows.map_err(Failure::from));
    let node = Arc::clone(node);
    let rows = asker.watch(pump(Box::new(rows), received, lease), move |who| permit(&node, who));
    Ok(Response::new(noted(schema, rows)))
}
