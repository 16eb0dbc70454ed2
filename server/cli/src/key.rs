//! `quern key`: who may ask by an API key?

use clap::{Args, Subcommand};
use quern_wire::{KeyInfo, KeyList, NewKey, NewKeyRequest, RevokeKeysRequest};

use super::backend::{Backend, existing};
use super::failure::Result;
use super::output::{Align, print, print_json, table};
use super::words::directory_and;
use super::{Options, Repository};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a key and show it, this once
    New(NewArguments),
    /// List all keys that there ever were, without their secrets
    List(ListArguments),
    /// Take a key back, or all of a name: they are not taken any more
    Revoke(RevokeArguments),
}

#[derive(Debug, Args)]
#[command(
    override_usage = "quern key new [OPTIONS] [DIR] <NAME>",
    help_template = "{about-with-newline}\n{usage-heading} {usage}\n\nArguments:
  [DIR]   The repository (default: the nearest folder upwards with a quern.yaml)
  <NAME>  Whose it is to be; two that are valid may have one name, so that one can take the
          place of the other\n\n{all-args}"
)]
struct NewArguments {
    #[arg(required = true, hide = true, value_name = "NAME")]
    words: Vec<String>,
    /// After how long it expires, as in `90d`; never, if unset.
    #[arg(long, value_name = "DURATION")]
    expires: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ListArguments {
    #[command(flatten)]
    repository: Repository,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(
    override_usage = "quern key revoke [OPTIONS] [DIR] <NAME|ID>",
    help_template = "{about-with-newline}\n{usage-heading} {usage}\n\nArguments:
  [DIR]      The repository (default: the nearest folder upwards with a quern.yaml)
  <NAME|ID>  The ID of one key, or the name of all that are to be revoked\n\n{all-args}"
)]
struct RevokeArguments {
    #[arg(required = true, hide = true, value_name = "NAME|ID")]
    words: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) fn json(&self) -> bool {
        match &self.action {
            Action::New(arguments) => arguments.json,
            Action::List(arguments) => arguments.json,
            Action::Revoke(arguments) => arguments.json,
        }
    }
}

pub(super) async fn run(arguments: &Arguments, options: &Options) -> Result<()> {
    match &arguments.action {
        Action::New(arguments) => new(arguments, options).await,
        Action::List(arguments) => list(arguments, options).await,
        Action::Revoke(arguments) => revoke(arguments, options).await,
    }
}

async fn new(arguments: &NewArguments, options: &Options) -> Result<()> {
    let (directory, name) = directory_and(&arguments.words, "the name of the key")?;
    let backend = Backend::open_to_change(&directory, options).await?;
    let request = NewKeyRequest { name, expires: arguments.expires.clone() };
    let made: NewKey = backend.call("/v1/keys", &request).await?;
    if arguments.json {
        print_json(&made);
        return Ok(());
    }
    // The key alone is the answer, for who reads it into a variable.
    print(&made.key);
    let KeyInfo { id, name, expires, .. } = &made.info;
    let until = expires.as_ref().map_or("never expires".to_owned(), |time| format!("expires {time}"));
    eprintln!("key {id} of `{name}`, {until}; it is not shown again");
    Ok(())
}

async fn list(arguments: &ListArguments, options: &Options) -> Result<()> {
    let backend = existing(&arguments.repository.folder(), options).await?;
    let list: KeyList = backend.get("/v1/keys").await?;
    show(&list, arguments.json);
    Ok(())
}

async fn revoke(arguments: &RevokeArguments, options: &Options) -> Result<()> {
    let (directory, key) = directory_and(&arguments.words, "the name or ID of the key")?;
    let backend = existing(&directory, options).await?;
    let revoked: KeyList = backend.call("/v1/keys/revoke", &RevokeKeysRequest { key }).await?;
    show(&revoked, arguments.json);
    Ok(())
}

fn show(list: &KeyList, json: bool) {
    if json {
        return print_json(list);
    }
    if list.keys.is_empty() {
        return print("there are no keys; `quern key new NAME` makes one");
    }
    let head = ["name", "id", "state", "ends with", "created", "expires"].map(|name| (name, Align::Left));
    let row = |key: &KeyInfo| {
        let expires = key.expires.clone().unwrap_or_else(|| "never".to_owned());
        let state = match &key.revoked {
            Some(time) => format!("{} {time}", key.state),
            None => key.state.to_string(),
        };
        vec![key.name.clone(), key.id.clone(), state, key.last_four.clone(), key.created.clone(), expires]
    };
    print(table(&head, &list.keys.iter().map(row).collect::<Vec<_>>()));
}
