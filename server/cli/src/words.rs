//! What do the words of a command say? A folder, a name, and values for columns.

use std::env;
use std::path::{Path, PathBuf};

use quern_server::settings::SETTINGS_FILE;
use quern_wire::{Catalogue, ColumnInfo};
use serde_json::{Map, Value};

use super::failure::{Failure, Result};

/// The repository: the folder that was named; else the nearest one with settings, from the current folder upwards, as
/// git and cargo look for theirs; else the current folder.
pub(super) fn repository(named: Option<&Path>) -> PathBuf {
    let here = || PathBuf::from(".");
    let around = || {
        let here = env::current_dir().ok()?;
        here.ancestors().skip(1).find(|folder| folder.join(SETTINGS_FILE).exists()).map(Path::to_owned)
    };
    match named {
        Some(folder) => folder.to_owned(),
        None if here().join(SETTINGS_FILE).exists() => here(),
        None => around().unwrap_or_else(here),
    }
}

/// Names come first, assignments after them.
pub(super) fn split(words: &[String]) -> (Vec<String>, Vec<(String, String)>) {
    let first = words.iter().position(|word| word.contains('=')).unwrap_or(words.len());
    let (names, assignments) = words.split_at(first);
    let assignments = assignments.iter().map(|word| match word.split_once('=') {
        Some((column, value)) => (column.to_owned(), value.to_owned()),
        None => (word.clone(), String::new()),
    });
    (names.to_vec(), assignments.collect())
}

/// `[DIR] NAME`: the repository and the name.
pub(super) fn directory_and(names: &[String], what: &str) -> Result<(PathBuf, String)> {
    match names {
        [name] => Ok((repository(None), name.clone())),
        [directory, name] => Ok((repository(Some(Path::new(directory))), name.clone())),
        [] => Err(Failure::Usage(format!("{what} is missing"))),
        [_, _, other, ..] => Err(Failure::Usage(format!("`{other}` is not COLUMN=VALUE"))),
    }
}

/// What a feature service takes; nothing where there is no such service, which the answer will say.
pub(super) fn inputs(catalogue: &Catalogue, service: &str) -> Vec<ColumnInfo> {
    let found = catalogue.feature_services.iter().find(|known| known.name == service);
    found.map(|service| service.inputs.clone()).unwrap_or_default()
}

/// What a model takes: the version that is named, or any that may answer.
pub(super) fn inputs_of_model(catalogue: &Catalogue, model: &str, version: Option<&str>) -> Vec<ColumnInfo> {
    let model = catalogue.models.iter().find(|known| known.name == model);
    let versions = model.iter().flat_map(|model| model.versions.iter().rev());
    let named = versions.filter(|known| version.is_none_or(|version| known.version == version));
    let mut columns: Vec<ColumnInfo> = Vec::new();
    for column in named.flat_map(|version| inputs(catalogue, &version.feature_service)) {
        if columns.iter().all(|known| known.name != column.name) {
            columns.push(column);
        }
    }
    columns
}

/// Text becomes what its column takes: `23` is a number for a number and text for a text.
pub(super) fn instance(
    assignments: &[(String, String)],
    columns: &[ColumnInfo],
) -> Result<Map<String, Value>> {
    let mut instance = Map::new();
    for (column, text) in assignments {
        let dtype = columns.iter().find(|known| known.name == *column).map_or("", |known| &known.dtype);
        let value = match dtype {
            "string" | "bytes" | "date" => Value::String(text.clone()),
            _ => serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone())),
        };
        if instance.insert(column.clone(), value).is_some() {
            return Err(Failure::Usage(format!("`{column}` is given twice")));
        }
    }
    Ok(instance)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_becomes_what_its_column_takes() {
        let columns = [("tail", "string"), ("distance", "float64")]
            .map(|(name, dtype)| ColumnInfo { name: name.to_owned(), dtype: dtype.to_owned() });
        let words = ["dir", "svc", "tail=23", "distance=23", "event_timestamp=2013-01-01T00:00:00Z"];
        let (names, assignments) = split(&words.map(str::to_owned));
        assert_eq!(names, ["dir", "svc"]);
        let made = instance(&assignments, &columns).expect("sound");
        let expected = json!({"tail": "23", "distance": 23, "event_timestamp": "2013-01-01T00:00:00Z"});
        assert_eq!(Value::Object(made), expected);
    }
}
