//! Why did a command fail, and which exit code says so?

use std::process::ExitCode;

use quern_server::InUse;
use quern_wire::{Code, ErrorReply};

use super::output::print_json;
use crate::error::Error;

const EXIT_FAILED: u8 = 1;
const EXIT_USAGE: u8 = 2;

pub(super) type Result<T> = std::result::Result<T, Failure>;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// What was typed is wrong.
    #[error("{0}")]
    Usage(String),
    /// A verb said no, in this process.
    #[error(transparent)]
    Here(#[from] Error),
    /// The server that holds the data folder said no, or says nothing.
    #[error(transparent)]
    There(#[from] quern::Error),
    /// What was printed for programs says so already; this is for people.
    #[error("{0}")]
    Printed(String),
}

impl From<quern_server::Error> for Failure {
    fn from(error: quern_server::Error) -> Self {
        Failure::Here(error.into())
    }
}

impl From<quern_api::Error> for Failure {
    fn from(error: quern_api::Error) -> Self {
        Failure::Here(error.into())
    }
}

impl Failure {
    /// Whether another process has the data folder.
    pub(super) fn is_in_use(&self) -> bool {
        matches!(self, Failure::Here(error) if error.facts::<InUse>().is_some())
    }

    /// Says why, to a person on stderr or to a program on stdout, and gives the exit code.
    pub(super) fn report(&self, json: bool) -> ExitCode {
        let reply = match self {
            Failure::Usage(message) => {
                eprintln!("error: {message}\n\nFor more information, try '--help'.");
                return ExitCode::from(EXIT_USAGE);
            }
            Failure::Printed(message) => {
                if !json {
                    eprintln!("error: {message}");
                }
                return ExitCode::from(EXIT_FAILED);
            }
            // Who runs the command owns the machine: the cause is told here, since no log has it.
            Failure::Here(error) => ErrorReply { error: error.to_string(), ..quern_api::error::reply(error) },
            Failure::There(quern::Error::Server(reply)) => ErrorReply::clone(reply),
            Failure::There(error) => ErrorReply::new(Code::Unavailable, error.to_string()),
        };
        if json {
            print_json(&reply);
        } else if reply.mistakes.is_empty() {
            eprintln!("error: {}", reply.error);
        } else {
            for mistake in &reply.mistakes {
                eprintln!("{mistake}");
            }
            let count = reply.mistakes.len();
            eprintln!("{count} mistake{}", if count == 1 { "" } else { "s" });
        }
        if let (Some(id), false) = (&reply.request_id, json) {
            eprintln!("request ID: {id}");
        }
        ExitCode::from(EXIT_FAILED)
    }
}
