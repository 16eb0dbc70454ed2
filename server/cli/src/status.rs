//! `quern status`: how is it? What is wrong comes first.

mod page;

use std::process::ExitCode;

use clap::Args;
use quern_wire::{Code, ErrorReply, ServerStatus};

use super::backend::Backend;
use super::failure::Result;
use super::output::{print, print_json};
use super::{Options, Repository};

/// Nobody answers who could say how it is.
const EXIT_NO_SERVER: u8 = 2;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    repository: Repository,
    /// Print the server's reply as it is, JSON.
    #[arg(long)]
    pub(super) json: bool,
    /// Print nothing, and end with 0 where a server answers, whatever it says: for the health check of a container.
    #[arg(long, conflicts_with = "json")]
    live: bool,
}

/// Ends with 0 where all is well, with 1 where something is wrong, and with 2 where no server answers.
pub(super) async fn run(arguments: &Arguments, options: &Options) -> Result<ExitCode> {
    let settings = options.settings(&arguments.repository.folder(), &[])?;
    let client = match Backend::server(&settings).await? {
        Ok(client) => client,
        Err(why) => return Ok(nobody(&why, arguments.json)),
    };
    let status: ServerStatus = match client.status().await {
        Ok(status) => status,
        Err(error @ quern::Error::Unreachable { .. }) => {
            return Ok(nobody(&error.to_string(), arguments.json));
        }
        Err(error) => return Err(error.into()),
    };
    if arguments.live {
        return Ok(ExitCode::SUCCESS);
    }
    match arguments.json {
        true => print_json(&status),
        false => print(page::page(&status)),
    }
    Ok(if status.healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn nobody(why: &str, json: bool) -> ExitCode {
    match json {
        true => print_json(&ErrorReply::new(Code::Unavailable, why.to_owned())),
        false => eprintln!("error: {why}"),
    }
    ExitCode::from(EXIT_NO_SERVER)
}
