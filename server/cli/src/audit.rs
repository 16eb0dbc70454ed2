//! `quern audit`: what stands for an entity in the audit?

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use clap::Args;
use feature_defs::{Column, Loc, Type, suggest};
use quern_server::Pseudonyms;
use quern_wire::{ColumnInfo, EntityInfo};

use super::Options;
use super::backend::existing;
use super::failure::{Failure, Result};
use super::output::print;
use super::words::{directory_and, split};

#[derive(Debug, Args)]
#[command(
    override_usage = "quern audit [OPTIONS] [DIR] <ENTITY> <KEY=VALUE>...",
    help_template = "{about-with-newline}\n{usage-heading} {usage}\n\nArguments:
  [DIR]           The repository (default: the nearest folder upwards with a quern.yaml)
  <ENTITY>        The entity, by its name in the definitions
  <KEY=VALUE>...  All of its join keys\n\n{all-args}"
)]
pub(super) struct Arguments {
    #[arg(required = true, hide = true, value_name = "ENTITY")]
    words: Vec<String>,
}

/// By the secret on this machine: no server tells it.
pub(super) async fn run(arguments: &Arguments, options: &Options) -> Result<()> {
    let (names, given) = split(&arguments.words);
    let (directory, name) = directory_and(&names, "the entity")?;
    let pseudonyms = Pseudonyms::read(&options.settings(&directory, &[])?)?;
    let entities = existing(&directory, options).await?.catalogue().await?.entities;
    let Some(entity) = entities.iter().find(|entity| entity.name == name) else {
        let known = suggest(&name, entities.iter().map(|entity| entity.name.as_str()));
        return Err(Failure::Usage(format!("unknown entity `{name}`; {known}")));
    };
    let (columns, values) = keys(entity, &given)?;
    match pseudonyms.of_values(&name, &columns, &values)? {
        Some(pseudonym) => print(pseudonym),
        None => return Err(Failure::Usage(format!("no entity `{name}` has a join key that is null"))),
    }
    Ok(())
}

/// The join keys of an entity, and what was given for each, as text.
fn keys(entity: &EntityInfo, given: &[(String, String)]) -> Result<(Vec<Column>, Vec<ArrayRef>)> {
    let keys = entity.join_keys.iter().map(|key| key.name.as_str());
    if let Some((other, _)) = given.iter().find(|(column, _)| keys.clone().all(|key| key != column)) {
        let known = suggest(other, keys);
        return Err(Failure::Usage(format!("`{other}` is no join key of `{}`; {known}", entity.name)));
    }
    let mut columns = Vec::new();
    for ColumnInfo { name, dtype } in &entity.join_keys {
        let dtype = Type::parse(dtype).map_err(Failure::Usage)?;
        let mut of_it = given.iter().filter(|(column, _)| column == name);
        let (Some((_, text)), None) = (of_it.next(), of_it.next()) else {
            return Err(Failure::Usage(format!("give `{name}=…` once")));
        };
        let column = Column {
            name: name.clone(),
            dtype,
            default: None,
            format: None,
            from: None,
            loc: Loc::start("quern audit"),
        };
        let value: ArrayRef = Arc::new(StringArray::from(vec![text.as_str()]));
        columns.push((column, value));
    }
    Ok(columns.into_iter().unzip())
}
