//! Does a source have rows, and does it know its columns?

use super::declared::Declaration;
use super::names::{listed, not_twice};
use crate::yaml::Node;
use crate::{BatchSource, Column, DefError, Dialect, Format, Loc, ScalarType, Source, Type, suggest};

/// Checks that `source` has rows, and that its names are among its columns.
pub(super) fn check(source: &Declaration<Source>, errors: &mut Vec<DefError>) {
    let Declaration { def, node, .. } = source;
    if node.get("batch").is_none() && !def.push {
        errors.push(
            DefError::new(&def.loc, format!("source `{}` has neither files nor pushes", def.name))
                .with_help("give it `batch`, `push: true`, `stream`, or several of them"),
        );
    }
    if let (Some(batch), Some(node)) = (&def.batch, node.get("batch")) {
        check_table(batch, node, errors);
        check_dialect(batch, node, errors);
    }
    not_twice("column", def.columns.iter().map(|column| (column.name.as_str(), &column.loc)), errors);
    not_twice("`event_id` column", listed(node, "event_id"), errors);
    let times = ["event_timestamp", "created_timestamp"].into_iter().filter_map(|key| {
        let column = node.get(key)?;
        Some((column.text()?, &column.loc))
    });
    let is_time = |column: &Column| column.dtype == Type::Scalar(ScalarType::Timestamp);
    for (name, _) in times.clone() {
        if let Some(column) = def.columns.iter().find(|column| column.name == name && !is_time(column)) {
            let cause = format!("`{name}` is the source's time, but declared as `{}`", column.dtype);
            errors.push(DefError::new(&column.loc, cause).with_help("declare it as `timestamp`"));
        }
    }
    for column in def.columns.iter().filter(|column| column.format.is_some() && !is_time(column)) {
        let cause = format!("`{}` has a `format`, but is declared as `{}`", column.name, column.dtype);
        errors.push(
            DefError::new(&column.loc, cause)
                .with_help("`format` says what the numbers of a `timestamp` count"),
        );
    }
    errors.extend(def.columns.iter().filter_map(|column| misstored(def, column)));
    let Some(why) = def.must_declare().filter(|_| source.whole) else {
        return;
    };
    if def.columns.is_empty() {
        // Where there are files, whoever reads them says which columns these have.
        if def.batch.is_some() {
            return;
        }
        errors.push(
            DefError::new(&def.loc, format!("source `{}` must declare its `columns`", def.name))
                .with_help(why),
        );
        return;
    }
    for (name, loc) in times.chain(listed(node, "event_id")) {
        check_column(def, name, loc, errors);
    }
}

/// That what `from` says of a column is of no use.
fn misstored(source: &Source, column: &Column) -> Option<DefError> {
    let from = column.from?;
    let format = source.batch.as_ref().map(|batch| batch.format);
    let error = |cause: String, help: &str| Some(DefError::new(&column.loc, cause).with_help(help));
    match format {
        Some(format) if format.is_typed() && from.becomes(column.dtype) => None,
        Some(format) if format.is_typed() => {
            let cause =
                format!("`{}` is stored as {from}, which does not become {}", column.name, column.dtype);
            error(
                cause,
                "text becomes any other type, a decimal a number or text, `binary` and `uuid` become text",
            )
        }
        _ => {
            let cause = format!("`{}` has a `from`, which is of Parquet and Arrow files", column.name);
            error(cause, "leave it out: what is text, or pushed, is read as the type")
        }
    }
}

/// Reports what is said of a table where there is none, and a table that is a glob.
fn check_table(batch: &BatchSource, node: &Node, errors: &mut Vec<DefError>) {
    let name = batch.format.name();
    if let Some(version) = node.get("version").filter(|_| !batch.format.is_table()) {
        let cause = format!("`version` is of a table, and these are {name} files");
        let help = "leave it out, or say `format: delta` or `format: iceberg`";
        errors.push(DefError::new(&version.loc, cause).with_help(help));
    }
    if let Some(reference) = node.get("ref") {
        let error = |cause: String, help: &str| DefError::new(&reference.loc, cause).with_help(help);
        if batch.format != Format::Iceberg {
            let cause = format!("`ref` is of a table of Iceberg, and `format` is {name}");
            errors.push(error(cause, "leave it out"));
        } else if batch.version.is_some() {
            errors
                .push(error("`ref` and `version` both name a snapshot".to_owned(), "leave one of them out"));
        }
    }
    if batch.format.is_table() && batch.path.contains(['*', '?', '[']) {
        let log = if batch.format == Format::Delta { "_delta_log" } else { "metadata" };
        let cause = format!("`{}` is a glob, and a table is one folder", batch.path);
        errors.push(
            DefError::new(&batch.loc, cause).with_help(format!("name the folder in which `{log}` lies")),
        );
    }
}

/// Reports what is said of another format, and a quote that is a delimiter.
fn check_dialect(batch: &BatchSource, node: &Node, errors: &mut Vec<DefError>) {
    let of_csv = ["delimiter", "quote", "null_values", "encoding"];
    let said = node.entries().iter().filter(|entry| of_csv.contains(&entry.key.as_str()));
    if batch.format != Format::Csv {
        errors.extend(said.map(|entry| {
            let cause = format!("`{}` is of CSV files, and these are {}", entry.key, batch.format.name());
            DefError::new(&entry.key_loc, cause).with_help("leave it out")
        }));
        return;
    }
    let Dialect { delimiter, quote, .. } = &batch.dialect;
    if let (true, Some(said)) = (delimiter == quote, node.get("quote").or(node.get("delimiter"))) {
        let cause = format!("`{}` cannot stand both between cells and around them", char::from(*quote));
        errors.push(DefError::new(&said.loc, cause).with_help("give another `quote` or `delimiter`"));
    }
}

/// Reports `name` unless it is a declared column of `source`.
pub(super) fn check_column(source: &Source, name: &str, loc: &Loc, errors: &mut Vec<DefError>) {
    if name.is_empty() || source.columns.iter().any(|column| column.name == name) {
        return;
    }
    let known = source.columns.iter().map(|column| column.name.as_str());
    let cause = format!("`{name}` is not among the declared columns of source `{}`", source.name);
    errors.push(DefError::new(loc, cause).with_help(suggest(name, known)));
}
