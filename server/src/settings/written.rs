//! Of which type is a setting in the file?

use saphyr::{MarkedYaml, Scalar, YamlData};

/// What a setting is in the file. A variable or a flag is text in any case.
#[derive(Debug, Clone, Copy)]
pub enum Wants {
    /// Text, such as this one.
    Text(&'static str),
    /// Text, or a list of texts.
    Texts(&'static str),
    /// A whole number.
    Whole,
    /// A boolean.
    Bool,
}

impl Wants {
    /// As in "must be …".
    pub(super) fn expected(self) -> &'static str {
        match self {
            Wants::Text(_) => "one text",
            Wants::Texts(_) => "a text or a list of texts",
            Wants::Whole => "a whole number",
            Wants::Bool => "true or false",
        }
    }

    /// The value as a variable would have it; what takes several takes them with commas between.
    ///
    /// # Errors
    /// What was found, where it is something else.
    pub(super) fn text(self, node: &MarkedYaml<'_>) -> std::result::Result<String, String> {
        match (self, &node.data) {
            (Wants::Text(_) | Wants::Texts(_), YamlData::Value(Scalar::String(text))) => Ok(text.to_string()),
            (Wants::Texts(example), YamlData::Sequence(items)) => {
                let items = items.iter().map(|item| Wants::Text(example).text(item));
                let items: Vec<String> =
                    items.collect::<std::result::Result<_, _>>().map_err(|found| format!("{found} in it"))?;
                Ok(items.join(","))
            }
            (Wants::Whole, YamlData::Value(Scalar::Integer(number))) => Ok(number.to_string()),
            // `16_777_216` is text to YAML.
            (Wants::Whole, YamlData::Value(Scalar::String(text))) if text.contains('_') => {
                Ok(text.to_string())
            }
            (Wants::Bool, YamlData::Value(Scalar::Boolean(value))) => Ok(value.to_string()),
            _ => Err(found(node)),
        }
    }
}

/// Whether it would be a number or a boolean without its quotes.
pub(super) fn is_quoted(node: &MarkedYaml<'_>) -> bool {
    let YamlData::Value(Scalar::String(text)) = &node.data else { return false };
    text.parse::<u64>().is_ok() || text.parse::<bool>().is_ok()
}

/// What stands there, for messages.
pub(super) fn found(node: &MarkedYaml<'_>) -> String {
    match &node.data {
        YamlData::Value(Scalar::Boolean(value)) => format!("the boolean `{value}`"),
        YamlData::Value(Scalar::Integer(number)) => format!("the number `{number}`"),
        YamlData::Value(Scalar::FloatingPoint(number)) => format!("the number `{number}`"),
        YamlData::Value(Scalar::String(text)) => format!("the text `{text}`"),
        YamlData::Value(Scalar::Null) => "nothing".to_owned(),
        YamlData::Sequence(_) => "a list".to_owned(),
        YamlData::Mapping(_) => "a mapping".to_owned(),
        _ => "something else".to_owned(),
    }
}
