//! What does the schema of an upload become, once it is read?
//!
//! In a flatbuffer one field may stand in thousands of places, and one name be that of thousands of fields: each of
//! them is a copy once the schema is read. So the fields are walked as its reader will walk them. That there are not
//! endlessly many, nor ever deeper ones, the check of the flatbuffer has seen to.

use arrow::ipc::{Field, KeyValue, Schema};

/// A field without its texts: itself, its type, its place in a list, and what a training set or a batch notes of it.
const FIELD: usize = 512;
/// An entry of metadata without its texts.
const ENTRY: usize = 128;
/// A text is copied once by the reader, and once as a name to look up.
const COPIES: usize = 2;

/// The bytes that a schema becomes.
pub fn weight(schema: &Schema<'_>) -> usize {
    let fields = schema.fields().into_iter().flatten().map(|field| of_field(&field));
    let entries = schema.custom_metadata().into_iter().flatten().map(|entry| of_entry(&entry));
    fields.chain(entries).fold(0, usize::saturating_add)
}

fn of_field(field: &Field<'_>) -> usize {
    let zone = field.type_as_timestamp().and_then(|time| time.timezone()).map_or(0, str::len);
    let numbers = field.type_as_union().and_then(|union| union.typeIds()).map_or(0, |ids| ids.len());
    let texts = field.name().map_or(0, str::len) + zone;
    let children = field.children().into_iter().flatten().map(|child| of_field(&child));
    let entries = field.custom_metadata().into_iter().flatten().map(|entry| of_entry(&entry));
    children.chain(entries).fold(FIELD + COPIES * texts + numbers * ENTRY, usize::saturating_add)
}

fn of_entry(entry: &KeyValue<'_>) -> usize {
    ENTRY + COPIES * (entry.key().map_or(0, str::len) + entry.value().map_or(0, str::len))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use arrow::datatypes::{DataType, Field, Fields, Schema, TimeUnit};
    use arrow::ipc::convert::IpcSchemaEncoder;
    use arrow::ipc::root_as_schema;

    fn weight(fields: impl Into<Fields>) -> usize {
        let schema = IpcSchemaEncoder::new().schema_to_fb(&Schema::new(fields));
        super::weight(&root_as_schema(schema.finished_data()).unwrap())
    }

    #[test]
    fn a_schema_weighs_its_fields_and_all_their_texts() {
        let text = "x".repeat(10_000);
        let plain = |name: &str| Field::new(name, DataType::Int64, true);
        let zoned = Field::new("t", DataType::Timestamp(TimeUnit::Second, Some(text.as_str().into())), true);
        let noted = plain("n").with_metadata(HashMap::from([("k".to_owned(), text.clone())]));
        let nested = Field::new("s", DataType::Struct(vec![plain("a"), plain(&text)].into()), true);
        assert_eq!(weight(vec![plain("ab")]), 512 + 4);
        assert_eq!(weight(vec![plain(&text); 3]), 3 * (512 + 20_000));
        assert_eq!(weight(vec![zoned]), 512 + 20_002);
        assert_eq!(weight(vec![noted]), 512 + 2 + 128 + 20_002);
        assert_eq!(weight(vec![nested]), 3 * 512 + 2 + 2 + 20_000);
    }
}
