//! Can any text be taken for definitions, and do its mistakes stand where they are said to stand?

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use feature_defs::{DefError, DefFile};
use quern_engine::SourceSchemas;
use quern_engine::schema::{arrow_type, timestamp};

/// Columns that the seeds name, of sources that declare none.
static COLUMNS: LazyLock<SchemaRef> = LazyLock::new(|| {
    let columns = [
        ("k", DataType::Int64),
        ("at", timestamp()),
        ("x", DataType::Float64),
        ("s", DataType::Utf8),
        ("b", DataType::Boolean),
    ];
    Arc::new(Schema::new(columns.map(|(name, dtype)| Field::new(name, dtype, true)).to_vec()))
});

pub(crate) fn ask(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let files = [DefFile::new("a.yaml", text.to_owned())];
    let _ = feature_defs::whose(text);
    let definitions = match feature_defs::parse(&files) {
        Ok(definitions) => definitions,
        Err(mistakes) => return check(&mistakes, text),
    };
    let schema = |source: &feature_defs::Source| {
        let columns = source.columns.iter();
        let declared: Vec<_> =
            columns.map(|column| Field::new(&column.name, arrow_type(column.dtype), true)).collect();
        if declared.is_empty() { Arc::clone(&COLUMNS) } else { Arc::new(Schema::new(declared)) }
    };
    let sources: SourceSchemas =
        definitions.sources.iter().map(|(name, source)| (name.clone(), schema(source))).collect();
    if let Err(mistakes) = quern_engine::compile(definitions, &sources) {
        check(&mistakes, text);
    }
}

fn check(mistakes: &[DefError], text: &str) {
    assert!(!mistakes.is_empty(), "whoever is refused hears why");
    assert!(mistakes.is_sorted());
    // A line may end in any of the three ways that YAML knows, and what is missing stands behind the last one.
    let lines = 2 + text.matches(['\n', '\r']).count();
    for DefError { loc, cause, .. } in mistakes {
        assert!((1..=lines).contains(&loc.line) && loc.column > 0, "{loc} of {lines} lines");
        assert!(!cause.is_empty());
    }
}
