//! Does a source have rows, and does it know its columns?

use super::declared::Declaration;
use super::names::{listed, not_twice};
use super::read::{is_of_database, text};
use crate::yaml::{Node, Scalar, Value};
use crate::{
    BatchSource, Column, DefError, Dialect, Format, Loc, PullSource, ScalarType, Source, Type, suggest,
};

/// Checks that `source` has rows, and that its names are among its columns.
pub(super) fn check(source: &Declaration<Source>, errors: &mut Vec<DefError>) {
    let Declaration { def, node, .. } = source;
    if node.get("batch").is_none() && !def.push {
        errors.push(
            DefError::new(&def.loc, format!("source `{}` has neither files nor pushes", def.name))
                .with_help("give it `batch`, `push: true`, `stream`, or several of them"),
        );
    }
    if let Some(batch) = node.get("batch") {
        match batch.get("connection").is_some() && text(batch, "format") == Format::Iceberg.name() {
            true => check_cataloged(batch, errors),
            false => check_keys(batch, is_of_database(node), errors),
        }
    }
    if let (Some(batch), Some(node)) = (&def.batch, node.get("batch")) {
        check_table(batch, node, errors);
        check_dialect(batch, node, errors);
    }
    if let (Some(pull), Some(batch)) = (&def.pull, node.get("batch")) {
        check_cursor(def, pull, batch, errors);
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

/// Reports what is said of a table beside its name in a catalog, or is not.
fn check_cataloged(batch: &Node, errors: &mut Vec<DefError>) {
    let table = batch.get("table");
    let parts = table.and_then(Node::text).unwrap_or_default().split('.');
    if parts.clone().count() < 2 || parts.clone().any(str::is_empty) {
        let loc = table.map_or(&batch.loc, |table| &table.loc);
        let cause = "a table of a catalog is named by `table`, with its namespaces before it";
        errors.push(DefError::new(loc, cause).with_help("as in `table: sales.landings`"));
    }
    let others = ["path", "query", "cursor", "overlap"];
    for entry in batch.entries().iter().filter(|entry| others.contains(&entry.key.as_str())) {
        let cause = format!("`{}` is not of a table that a catalog knows", entry.key);
        errors.push(DefError::new(&entry.key_loc, cause).with_help("leave it out"));
    }
}

/// Reports what files say and a database does not, or the other way round, and what either needs.
fn check_keys(batch: &Node, is_of_database: bool, errors: &mut Vec<DefError>) {
    let of_files = ["path", "version", "ref", "delimiter", "quote", "escape", "null_values", "encoding"];
    let of_databases = ["connection", "table", "query", "cursor", "overlap"];
    let (others, whose, help) = match is_of_database {
        true => (&of_files[..], "files, and these are rows of a database", "leave it out"),
        false => (&of_databases[..], "rows of a database", "leave it out, or say `format: sql`"),
    };
    for entry in batch.entries().iter().filter(|entry| others.contains(&entry.key.as_str())) {
        let cause = format!("`{}` is of {whose}", entry.key);
        errors.push(DefError::new(&entry.key_loc, cause).with_help(help));
    }
    let mut lacks = |key: &str, help: &str| {
        errors
            .push(DefError::new(&batch.loc, format!("a batch source lacks the key `{key}`")).with_help(help));
    };
    match is_of_database {
        false if batch.get("path").is_none() => {
            lacks("path", "`path`: where the files lie, as a path or glob")
        }
        true if batch.get("connection").is_none() => {
            lacks("connection", "`connection`: the name of the connection to the database");
        }
        _ => {}
    }
    let ways = [batch.get("table"), batch.get("query")].into_iter().flatten().count();
    if is_of_database && ways != 1 {
        let cause = "the rows of a database are said by one of `table` and `query`";
        errors.push(DefError::new(&batch.loc, cause).with_help("as in `table: public.orders`"));
    }
}

/// Reports a cursor that does not grow, and an overlap that is none of its kind.
fn check_cursor(def: &Source, pull: &PullSource, batch: &Node, errors: &mut Vec<DefError>) {
    let loc = batch.get("cursor").map_or(&batch.loc, |cursor| &cursor.loc);
    if pull.cursor.is_empty() {
        let cause = format!("nothing says which rows of source `{}` are new", def.name);
        let help =
            "give `batch` a `cursor`, a column that grows with each row, or the source a `created_timestamp`";
        return errors.push(DefError::new(loc, cause).with_help(help));
    }
    let Some(column) = def.columns.iter().find(|column| column.name == pull.cursor) else {
        return check_column(def, &pull.cursor, loc, errors);
    };
    let Type::Scalar(ScalarType::Timestamp | ScalarType::Int32 | ScalarType::Int64) = column.dtype else {
        let cause = format!("`{}` cannot tell which rows are new: it is `{}`", column.name, column.dtype);
        let help = "a `cursor` is a `timestamp`, `int32` or `int64`";
        return errors.push(DefError::new(loc, cause).with_help(help));
    };
    let Some(overlap) = batch.get("overlap") else { return };
    let is_number = matches!(overlap.value, Value::Scalar { scalar: Scalar::Int(_), .. });
    if is_number == (column.dtype == Type::Scalar(ScalarType::Timestamp)) {
        let cause = format!("`overlap` does not fit `{}`, which is `{}`", column.name, column.dtype);
        let help = "of a time it is a duration such as `1h`, of a number a whole number";
        errors.push(DefError::new(&overlap.loc, cause).with_help(help));
    }
}

/// That what `from` says of a column is of no use.
fn misstored(source: &Source, column: &Column) -> Option<DefError> {
    let from = column.from?;
    let format = source.batch.as_ref().map(|batch| batch.format);
    let error = |cause: String, help: &str| Some(DefError::new(&column.loc, cause).with_help(help));
    let says_types = format.is_some_and(Format::is_typed) || source.pull.is_some();
    match says_types {
        true if from.becomes(column.dtype) => None,
        true => {
            let cause =
                format!("`{}` is stored as {from}, which does not become {}", column.name, column.dtype);
            error(
                cause,
                "text becomes any other type, a decimal a number or text, `binary` and `uuid` become text",
            )
        }
        false => {
            let cause = format!("`{}` has a `from`, which is of Parquet and Arrow files", column.name);
            error(cause, "leave it out: what is text, or pushed, is read as the type")
        }
    }
}

/// Reports what is said of a table where there is none, and a table that is a glob or cannot be listed.
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
    if batch.format.is_table() && batch.is_over_http() {
        let cause = "a table is many files, and over HTTP a server lists none";
        let help = "copy the table into a bucket, or into a folder of this machine";
        errors.push(DefError::new(&batch.loc, cause).with_help(help));
    } else if batch.format.is_table() && batch.path.contains(['*', '?', '[']) {
        let log = if batch.format == Format::Delta { "_delta_log" } else { "metadata" };
        let cause = format!("`{}` is a glob, and a table is one folder", batch.path);
        errors.push(
            DefError::new(&batch.loc, cause).with_help(format!("name the folder in which `{log}` lies")),
        );
    }
}

/// Reports what is said of another format, and a quote that is a delimiter.
fn check_dialect(batch: &BatchSource, node: &Node, errors: &mut Vec<DefError>) {
    let of_csv = ["delimiter", "quote", "escape", "null_values", "encoding"];
    let said = node.entries().iter().filter(|entry| of_csv.contains(&entry.key.as_str()));
    if batch.format != Format::Csv {
        errors.extend(said.map(|entry| {
            let cause = format!("`{}` is of CSV files, and these are {}", entry.key, batch.format.name());
            DefError::new(&entry.key_loc, cause).with_help("leave it out")
        }));
        return;
    }
    let Dialect { delimiter, quote, escape, .. } = &batch.dialect;
    if let (true, Some(said)) = (*escape == Some(*delimiter), node.get("escape")) {
        let cause =
            format!("`{}` cannot stand both between cells and before a character", char::from(*delimiter));
        errors.push(DefError::new(&said.loc, cause).with_help("give another `escape` or `delimiter`"));
    }
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
