//! `quern can`: may they, and why?

use std::process::ExitCode;

use clap::Args;
use quern_wire::{CanReply, CanRequest};

use super::backend::existing;
use super::failure::Result;
use super::output::{print, print_json};
use super::{EXIT_CHANGES, Options, Repository};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Who: `key:NAME`, `spiffe://…`, `dns:NAME`, `jwt:CLAIM=VALUE` or `jwt:ISSUER#SUBJECT`.
    who: String,
    /// What they would do: `predict`, `label`, `read_log`, `route`, `train`, `read`, `push`, `apply` or `operate`.
    action: String,
    /// With what: a model, a feature service, a source, a feature as `card:amount`, a view as `view:card`, an owner, a
    /// connection as `connection:models`, or an operation.
    what: String,
    #[command(flatten)]
    repository: Repository,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// Ends with 2 where they may not.
pub(super) async fn run(arguments: &Arguments, options: &Options) -> Result<ExitCode> {
    let Arguments { who, action, what, repository, json } = arguments;
    let backend = existing(&repository.folder(), options).await?;
    let request = CanRequest { who: who.clone(), action: action.clone(), what: what.clone() };
    let reply: CanReply = backend.call("/v1/can", &request).await?;
    match json {
        true => print_json(&reply),
        false => print(&reply),
    }
    Ok(if reply.allowed { ExitCode::SUCCESS } else { ExitCode::from(EXIT_CHANGES) })
}
