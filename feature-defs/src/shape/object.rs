//! What may stand under a key?

use crate::project::is_project;
use crate::stored::STORED;
use crate::yaml::Value;
use crate::{ScalarType, Type};

/// What the URL of an object begins with: in S3, Google Cloud Storage and Azure.
pub(crate) const OBJECT_SCHEMES: [&str; 8] = ["s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl"];

/// Longest name, in characters.
pub(crate) const NAME_CHARS_MAX: usize = 128;

/// A mapping with known keys.
#[derive(Debug)]
pub(crate) struct Object {
    /// With its article, as in "unknown key `x` in a feature view".
    pub(crate) noun: &'static str,
    /// One line for people.
    pub(crate) doc: &'static str,
    /// Its keys, in the order the reference lists them.
    pub(crate) keys: &'static [Key],
}

impl Object {
    pub(crate) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

/// One key of an [`Object`].
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) required: bool,
    /// One line for people.
    pub(crate) doc: &'static str,
}

/// What may stand under a key.
#[derive(Debug)]
pub(crate) enum Shape {
    /// Exactly this text.
    Constant(&'static str),
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// Any text.
    Text,
    /// One character of ASCII that ends no line.
    Character,
    /// A name that SQL takes without quotes.
    Identifier,
    /// A name in a URL: an identifier with `-` and `.`.
    ModelName,
    /// What names a definition: its name, or `project.name` for another project's.
    Reference,
    /// The same, or `*`.
    ReferenceOrAll,
    /// What names a feature of a view: `view:feature`.
    FeatureReference,
    /// A project, or `*`.
    ProjectOrAll,
    /// So many in a time.
    Rate,
    /// A model version: a model name, or a whole number.
    Version,
    /// A column of a source, whatever its files call it.
    SourceColumn,
    /// A path or glob, on this machine or in an object store, or the URL of a file.
    Path,
    /// A path on this machine, or the URL of an object.
    PathOrUrl,
    /// The URL of objects or of servers.
    Url,
    /// The same; or beside a `driver`, whatever it takes for the name of a database.
    Leads,
    /// A SQL expression.
    Expression,
    /// A type of the language.
    Type,
    /// What files hold in place of a type.
    Stored,
    /// A type that a join key may have.
    KeyType,
    /// A length of time.
    Duration {
        /// Whether it may be zero.
        zero: bool,
    },
    /// A duration, or `lifetime`.
    Window,
    /// A duration, or a whole number.
    Overlap,
    /// A whole number from 1 to `max`.
    Count {
        max: u32,
    },
    /// A whole number from 0 to `max`.
    Whole {
        max: i64,
    },
    /// A number from 0 to 1.
    Share,
    Bool,
    /// A constant: one value, or a list of such.
    Literal,
    /// A constant that is one value.
    Value,
    /// Items of one shape, at least one.
    List(&'static Shape),
    /// The first of these that a scalar, a list or a mapping may be.
    AnyOf(&'static [Shape]),
    /// Names of one shape → values of another.
    Map {
        key: &'static Shape,
        value: &'static Shape,
    },
    Object(&'static Object),
    /// Where a secret is told: an object, of which nothing is repeated that stands there instead.
    Secret(&'static Object),
    /// An object, or bare text that stands for the object with only this key.
    Short {
        key: &'static str,
        object: &'static Object,
    },
}

impl Shape {
    /// Whether it is the shape of a list, or of a mapping; others are scalars.
    pub(crate) fn takes(&self, value: &Value) -> bool {
        match self {
            Shape::AnyOf(shapes) => shapes.iter().any(|shape| shape.takes(value)),
            Shape::Short { .. } => !matches!(value, Value::List(_)),
            Shape::List(_) => matches!(value, Value::List(_)),
            Shape::Map { .. } | Shape::Object(_) | Shape::Secret(_) => matches!(value, Value::Map(_)),
            _ => matches!(value, Value::Scalar { .. }),
        }
    }

    /// As in "`ttl` must be …".
    pub(crate) fn expected(&self) -> String {
        match self {
            Shape::Constant(text) => format!("`{text}`"),
            Shape::OneOf(texts) => {
                texts.iter().map(|text| format!("`{text}`")).collect::<Vec<_>>().join(" or ")
            }
            Shape::Text => "a text".to_owned(),
            Shape::Character => "one character of ASCII, such as `\";\"`".to_owned(),
            Shape::Identifier => {
                "a name of letters, digits and `_` that does not start with a digit".to_owned()
            }
            Shape::ModelName => "a name of letters, digits, `_`, `-` and `.`".to_owned(),
            Shape::Reference => "a name, or `project.name`".to_owned(),
            Shape::ReferenceOrAll => "a name, or `\"*\"` for all".to_owned(),
            Shape::FeatureReference => "a feature as `view:feature`".to_owned(),
            Shape::ProjectOrAll => "the name of a project, or `\"*\"` for all".to_owned(),
            Shape::Rate => "a rate such as `500/s`, `30/m` or `10/h`".to_owned(),
            Shape::Version => "a whole number or a name of letters, digits, `_`, `-` and `.`".to_owned(),
            Shape::SourceColumn => "the name of a column".to_owned(),
            Shape::Path => "a path".to_owned(),
            Shape::PathOrUrl => "a path or a URL".to_owned(),
            Shape::Url | Shape::Leads => "a URL".to_owned(),
            Shape::Expression => "a SQL expression".to_owned(),
            Shape::Type => "a type such as `float64`".to_owned(),
            Shape::Stored => STORED.to_owned(),
            Shape::KeyType => "a type such as `string`".to_owned(),
            Shape::Duration { .. } => "a duration such as `90d` or `1d12h`".to_owned(),
            Shape::Overlap => "a duration such as `1h`, or a whole number".to_owned(),
            Shape::Window => "a duration such as `7d`, or `lifetime`".to_owned(),
            Shape::Count { max } => format!("a whole number from 1 to {max}"),
            Shape::Whole { max } => format!("a whole number from 0 to {max}"),
            Shape::Share => "a number from 0 to 1".to_owned(),
            Shape::Bool => "`true` or `false`".to_owned(),
            Shape::Literal => "a number, a text, `true` or `false`, or a list of such".to_owned(),
            Shape::Value => "a number, a text, `true` or `false`".to_owned(),
            Shape::List(_) => "a list".to_owned(),
            Shape::AnyOf(shapes) => shapes.iter().map(Shape::expected).collect::<Vec<_>>().join(" or "),
            Shape::Map { .. } => "a mapping".to_owned(),
            Shape::Object(object) => format!("{} (a mapping)", object.noun),
            Shape::Secret(_) => "`{env: NAME}` or `{file: PATH}`".to_owned(),
            Shape::Short { key, object } => format!("{} (a mapping) or just its `{key}`", object.noun),
        }
    }

    /// Whether `text` is well formed where the shape is a kind of name.
    pub(crate) fn admits_name(&self, text: &str) -> bool {
        let url_too = !matches!(self, Shape::Identifier);
        match self {
            Shape::Text => return !text.is_empty(),
            Shape::ReferenceOrAll | Shape::ProjectOrAll if text == "*" => return true,
            Shape::ProjectOrAll => return is_project(text),
            _ => {}
        }
        let mut characters = text.chars();
        let first = characters.next();
        let starts = first.is_some_and(|c| c == '_' || c.is_ascii_alphabetic())
            || url_too && first.is_some_and(|c| c.is_ascii_digit());
        starts
            && text.len() <= NAME_CHARS_MAX
            && characters.all(|c| c == '_' || c.is_ascii_alphanumeric() || url_too && matches!(c, '-' | '.'))
    }

    /// [`Shape::admits_name`] but for the length, as a regular expression for JSON Schema.
    pub(crate) fn name_pattern(&self) -> &'static str {
        match self {
            Shape::ReferenceOrAll => "^([A-Za-z0-9_][A-Za-z0-9_.-]*|[*])$",
            Shape::ProjectOrAll => "^([A-Za-z0-9_][A-Za-z0-9_-]*|[*])$",
            Shape::Text => ".",
            Shape::ModelName | Shape::Reference | Shape::Version => "^[A-Za-z0-9_][A-Za-z0-9_.-]*$",
            _ => "^[A-Za-z_][A-Za-z0-9_]*$",
        }
    }
}

/// The names of all types, to suggest instead of an unknown one.
pub(crate) fn type_names(keys_only: bool) -> Vec<String> {
    let mut names: Vec<String> = ScalarType::ALL
        .into_iter()
        .filter(|scalar| !keys_only || scalar.is_key())
        .map(|scalar| scalar.name().to_owned())
        .collect();
    if !keys_only {
        let lists = [(ScalarType::String, None), (ScalarType::Float32, Some(128))];
        names.extend(lists.map(|(item, length)| Type::List { item, length }.to_string()));
    }
    names
}
