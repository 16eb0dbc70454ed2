//! Is a document shaped as its kind wants it?
//!
//! Walks the YAML beside the table in [`crate::shape`] and reports every difference. It knows no names but
//! those of the table; whether a view's source exists is asked later.

use crate::duration::parse_duration;
use crate::literal::{fit, literal};
use crate::reach::{HTTP, Reach};
use crate::registered::{REGISTERED, RegisteredModel};
use crate::shape::{Kind, NAME_CHARS_MAX, OBJECT_SCHEMES, Object, Shape, type_names};
use crate::whose::{is_of_others, misspelt_kind, shaped_as};
use crate::words::{function_meant, type_meant};
use crate::yaml::{Entry, Node, Scalar, Value};
use crate::{BatchSource, DefError, Loc, Rate, Stored, Type, nearest, suggest};

/// The kind that `document` says it is.
pub(super) fn kind_of(document: &Node) -> Result<Kind, DefError> {
    let kinds = || Kind::ALL.into_iter().map(Kind::name);
    if !matches!(document.value, Value::Map(_)) {
        let cause =
            format!("a document must be a mapping with `kind` and `name`, found {}", document.describe());
        return Err(DefError::new(&document.loc, cause));
    }
    let Some(kind) = document.get("kind") else {
        return Err(
            DefError::new(&document.loc, "a document lacks the key `kind`").with_help(meant(document))
        );
    };
    let Some(name) = kind.text() else {
        return Err(DefError::new(
            &kind.loc,
            format!("`kind` must be the name of a kind, found {}", kind.describe()),
        )
        .with_help(suggest("", kinds())));
    };
    Kind::ALL.into_iter().find(|known| known.name() == name).ok_or_else(|| {
        let error = DefError::new(&kind.loc, format!("unknown kind `{name}`"));
        match shaped_as(document) {
            Some(kind) => {
                error.with_help(format!("it has the keys of {}: `kind: {}`", kind.object().noun, kind.name()))
            }
            None => {
                let meant = if is_of_others(name) { "" } else { name };
                error.with_help(format!("{}; {OTHERS}", suggest(meant, kinds())))
            }
        }
    })
}

/// The way out for a document that only looks like one of ours.
const OTHERS: &str = "a file of another tool goes into `.quernignore`";

/// What a document without `kind` was to say.
fn meant(document: &Node) -> String {
    if let Some(Entry { key, .. }) = misspelt_kind(document) {
        return format!("write `kind` for `{key}`");
    }
    match shaped_as(document) {
        Some(kind) => format!("it has the keys of {}: `kind: {}`", kind.object().noun, kind.name()),
        None => format!("known kinds: {}; {OTHERS}", Kind::ALL.map(Kind::name).join(", ")),
    }
}

/// Reports every difference of `node` from `object`.
pub(super) fn check_object(object: &Object, node: &Node, errors: &mut Vec<DefError>) {
    for entry in node.entries() {
        if let Some(key) = object.key(&entry.key) {
            let subject = format!("`{}`", key.name);
            match (&key.shape, entry.value.text()) {
                (Shape::Leads, Some(text)) if node.get("driver").is_some() => {
                    errors.extend(check_database(&subject, &entry.value, text));
                }
                _ => check_shape(&key.shape, &subject, &entry.value, errors),
            }
        } else {
            errors.push(unknown_key(object, entry));
        }
    }
    for key in object.keys.iter().filter(|key| key.required && node.get(key.name).is_none()) {
        errors.push(
            DefError::new(&node.loc, format!("{} lacks the key `{}`", object.noun, key.name))
                .with_help(format!("`{}`: {}", key.name, key.doc)),
        );
    }
    check_default(node, errors);
}

fn unknown_key(object: &Object, entry: &Entry) -> DefError {
    let error = DefError::new(&entry.key_loc, format!("unknown key `{}` in {}", entry.key, object.noun));
    // `{type: list<float32, 128>}` is, to YAML, a mapping with a key `128>`.
    let cut_off = matches!(entry.value.value, Value::Scalar { scalar: Scalar::Null, .. })
        && !Shape::Identifier.admits_name(&entry.key);
    if cut_off {
        return error.with_help("a comma within `{…}` ends a value: quote the value before it");
    }
    error.with_help(suggest(&entry.key, object.keys.iter().map(|key| key.name)))
}

/// `default` must fit `type` in every object that has both.
fn check_default(node: &Node, errors: &mut Vec<DefError>) {
    let dtype = node.get("type").and_then(Node::text).and_then(|text| Type::parse(text).ok());
    if let (Some(default), Some(dtype)) = (node.get("default"), dtype)
        && let Some(value) = literal(default)
        // A number that is not finite is no default of any type, and reported as such.
        && value.is_finite()
        && let Err(wants) = fit(value, dtype)
    {
        let cause = format!("`default` of type `{dtype}` must be {wants}; found {}", default.describe());
        errors.push(DefError::new(&default.loc, cause));
    }
}

/// `subject` opens the sentence: "`ttl`", "each of `entities`".
fn check_shape(shape: &Shape, subject: &str, node: &Node, errors: &mut Vec<DefError>) {
    let result = match (shape, &node.value) {
        (Shape::AnyOf(shapes), value) => match shapes.iter().find(|shape| shape.takes(value)) {
            Some(shape) => {
                check_shape(shape, subject, node, errors);
                Ok(())
            }
            None => Err(wrong(shape, subject, node)),
        },
        (Shape::List(item), Value::List(items)) => {
            items.iter().for_each(|node| check_shape(item, &format!("each of {subject}"), node, errors));
            match items.is_empty() {
                true => Err(DefError::new(&node.loc, format!("{subject} must not be empty"))),
                false => Ok(()),
            }
        }
        (Shape::Literal, Value::List(items)) => {
            items.iter().for_each(|it| check_shape(&Shape::Value, &format!("each of {subject}"), it, errors));
            Ok(())
        }
        (Shape::Map { key, value }, Value::Map(entries)) => {
            for entry in entries {
                if !key.admits_name(&entry.key) {
                    errors.push(wrong_name(key, subject, &entry.key, &entry.key_loc));
                }
                check_shape(value, &format!("each of {subject}"), &entry.value, errors);
            }
            Ok(())
        }
        (Shape::Object(object) | Shape::Secret(object) | Shape::Short { object, .. }, Value::Map(_)) => {
            check_object(object, node, errors);
            Ok(())
        }
        (Shape::Short { key, object }, Value::Scalar { .. }) => match object.key(key) {
            Some(key) => check_scalar(&key.shape, subject, node),
            None => Ok(()),
        },
        (Shape::Secret(_), _) => {
            let cause = format!("{subject} must be {}", shape.expected());
            Err(DefError::new(&node.loc, cause)
                .with_help("what is secret stands in no definition: these are kept, and shown"))
        }
        (_, Value::Scalar { .. }) => check_scalar(shape, subject, node),
        (_, Value::List(_) | Value::Map(_)) => Err(wrong(shape, subject, node)),
    };
    errors.extend(result.err());
}

fn check_scalar(shape: &Shape, subject: &str, node: &Node) -> Result<(), DefError> {
    let Value::Scalar { text, scalar } = &node.value else {
        return Err(wrong(shape, subject, node));
    };
    let is_text = *scalar == Scalar::Text;
    match shape {
        Shape::Constant(constant) if is_text && text == constant => Ok(()),
        Shape::OneOf(texts) if is_text && texts.contains(&text.as_str()) => Ok(()),
        Shape::Text | Shape::FeatureReference if is_text => Ok(()),
        Shape::Character if is_text && is_character(text) => Ok(()),
        Shape::Identifier
        | Shape::ModelName
        | Shape::Reference
        | Shape::ReferenceOrAll
        | Shape::ProjectOrAll
            if is_text =>
        {
            match shape.admits_name(text) {
                true => Ok(()),
                false => Err(wrong_name(shape, subject, text, &node.loc)),
            }
        }
        Shape::Rate if is_text && Rate::parse(text).is_some() => Ok(()),
        Shape::Version => check_version(subject, node, text, *scalar),
        Shape::SourceColumn if is_text && !text.is_empty() && text.chars().count() <= NAME_CHARS_MAX => {
            Ok(())
        }
        Shape::Path if is_text && !text.is_empty() => check_path(subject, node, text),
        Shape::PathOrUrl if is_text && !text.is_empty() => check_url(subject, node, text),
        Shape::Url | Shape::Leads if is_text => check_reach(subject, node, text),
        Shape::Expression if *scalar != Scalar::Null && !text.trim().is_empty() => Ok(()),
        Shape::Stored if is_text && Stored::parse(text).is_some() => Ok(()),
        Shape::Type | Shape::KeyType if is_text => check_type(shape, node, text),
        Shape::Duration { zero } if is_text => check_duration(*zero, subject, node, text),
        Shape::Overlap if is_text => check_duration(true, subject, node, text),
        Shape::Overlap => match scalar {
            Scalar::Int(n) if *n >= 0 => Ok(()),
            _ => Err(wrong(shape, subject, node)),
        },
        Shape::Window if is_text => check_window(subject, node, text),
        Shape::Count { max } => match scalar {
            Scalar::Int(n) if (1..=i64::from(*max)).contains(n) => Ok(()),
            _ => Err(wrong(shape, subject, node)),
        },
        Shape::Whole { max } => match scalar {
            Scalar::Int(n) if (0..=*max).contains(n) => Ok(()),
            _ => Err(wrong(shape, subject, node)),
        },
        Shape::Share => match scalar {
            Scalar::Int(0 | 1) => Ok(()),
            Scalar::Float(share) if (0.0..=1.0).contains(share) => Ok(()),
            _ => Err(wrong(shape, subject, node)),
        },
        Shape::Bool if matches!(scalar, Scalar::Bool(_)) => Ok(()),
        Shape::Literal | Shape::Value => match scalar {
            Scalar::Null => Err(wrong(shape, subject, node)),
            Scalar::Float(value) if !value.is_finite() => {
                let cause = format!("{subject} must be a finite number, found {}", node.describe());
                Err(DefError::new(&node.loc, cause))
            }
            _ => Ok(()),
        },
        _ => Err(wrong(shape, subject, node)),
    }
}

fn wrong(shape: &Shape, subject: &str, node: &Node) -> DefError {
    let found = node.describe();
    let error = DefError::new(&node.loc, format!("{subject} must be {}, found {found}", shape.expected()));
    let Value::Scalar { text, scalar } = &node.value else {
        return error;
    };
    match (shape, scalar) {
        (Shape::OneOf(texts), Scalar::Text) => match one_meant(text, texts) {
            Some(meant) => error.with_help(format!("did you mean {meant}?")),
            None => error,
        },
        (Shape::Bool, Scalar::Text) => match text.to_lowercase().as_str() {
            "true" | "yes" | "on" | "y" => error.with_help(UNQUOTED_TRUE),
            "false" | "no" | "off" | "n" => error.with_help(UNQUOTED_FALSE),
            _ => error,
        },
        (Shape::Count { .. } | Shape::Whole { .. } | Shape::Share, Scalar::Text)
            if text.parse::<f64>().is_ok() =>
        {
            error.with_help(format!("a number stands without quotes: {text}"))
        }
        (Shape::Character, _) if text == "\\t" => error.with_help(r#"in double quotes it is a tab: "\t""#),
        (Shape::Text, Scalar::Null) if !text.is_empty() => error.with_help(format!("quote it: \"{text}\"")),
        (_, Scalar::Null | Scalar::Text) => error,
        (Shape::Duration { zero: false }, Scalar::Int(0)) => error.with_help(without_end(subject)),
        (Shape::Duration { .. }, Scalar::Int(_)) => {
            error.with_help(format!("add a unit: w, d, h, m, s, ms or us, as in `{text}s`"))
        }
        (Shape::Text | Shape::Character | Shape::FeatureReference | Shape::SourceColumn, _) => {
            error.with_help(format!("quote it: \"{text}\""))
        }
        _ => error,
    }
}

/// Whether it is one character that may stand between cells or around them.
fn is_character(text: &str) -> bool {
    matches!(text.as_bytes(), [byte] if byte.is_ascii() && !matches!(byte, 0 | b'\r' | b'\n'))
}

const UNQUOTED_TRUE: &str =
    "write it without quotes: true; what is in quotes is a text, and so are yes and on";
const UNQUOTED_FALSE: &str =
    "write it without quotes: false; what is in quotes is a text, and so are no and off";

/// Which of `texts` was meant, and what goes with it.
fn one_meant(text: &str, texts: &[&'static str]) -> Option<String> {
    match function_meant(text).filter(|(function, _)| texts.contains(function)) {
        Some((function, with)) => Some(format!("`{function}`{with}")),
        None => nearest(text, texts.iter().copied()).map(|meant| format!("`{meant}`")),
    }
}

fn wrong_name(shape: &Shape, subject: &str, text: &str, loc: &Loc) -> DefError {
    if text.chars().count() > NAME_CHARS_MAX {
        return DefError::new(loc, format!("{subject} is a name longer than {NAME_CHARS_MAX} characters"));
    }
    DefError::new(loc, format!("{subject} must be {}, found `{text}`", shape.expected()))
}

fn check_version(subject: &str, node: &Node, text: &str, scalar: Scalar) -> Result<(), DefError> {
    match scalar {
        Scalar::Text if Shape::Version.admits_name(text) => Ok(()),
        // As it is written: `0x10`, `+1` or `-1` would be names that nobody finds again.
        Scalar::Int(_) if text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(()),
        Scalar::Text => Err(wrong_name(&Shape::Version, subject, text, &node.loc)),
        Scalar::Float(_) => {
            Err(wrong(&Shape::Version, subject, node).with_help(format!("quote it: \"{text}\"")))
        }
        _ => Err(wrong(&Shape::Version, subject, node)),
    }
}

/// A path or glob of this machine, the URL of objects, of which the last parts may be globs, or that of a file.
fn check_path(subject: &str, node: &Node, text: &str) -> Result<(), DefError> {
    match text.split_once("://") {
        None => Ok(()),
        Some((scheme, _)) if OBJECT_SCHEMES.contains(&scheme) => match Reach::parse(BatchSource::plain(text))
        {
            Ok(_) if !text.contains(['?', '#']) => Ok(()),
            Ok(_) => Err("has `?` or `#`; in a key they are written `%3F` and `%23`".to_owned()),
            Err(cause) => Err(cause),
        }
        .map_err(|cause| {
            DefError::new(&node.loc, format!("{subject} {cause}"))
                .with_help("a URL is written as in `s3://bucket/landings/date=*/*.parquet`")
        }),
        Some((scheme, rest)) if HTTP.contains(&scheme) => check_file(text, rest)
            .map_err(|(cause, help)| DefError::new(&node.loc, format!("{subject} {cause}")).with_help(help)),
        Some((scheme, _)) => {
            let cause = format!("{subject} is a URL of the scheme `{scheme}`, which rows are not read by");
            let known = OBJECT_SCHEMES.into_iter().chain(HTTP);
            Err(DefError::new(&node.loc, cause).with_help(suggest(scheme, known)))
        }
    }
}

/// The URL of one file over HTTP; what is wrong with it is not repeated: it may be signed, or hold a password.
fn check_file(url: &str, rest: &str) -> Result<(), (String, &'static str)> {
    let (_, path) = rest.split_once('/').unwrap_or((rest, ""));
    if rest.contains(['?', '#']) {
        let cause = "has `?` or `#`, and names a file over HTTP: it may be no glob, and hold no signature";
        let help = "who asks is said by the `credentials` of its connection; in a path they are written `%3F` and `%23`";
        return Err((cause.to_owned(), help));
    }
    if path.is_empty() || path.ends_with('/') || path.contains(['*', '[']) {
        let cause = "must name one file: over HTTP a server lists none, so it is neither a folder nor a glob";
        let help = "give each file a source of its own, as in `path: \"https://host/folder/file.parquet\"`, or put them into \
                    a bucket; in a path `*` and `[` are written `%2A` and `%5B`";
        return Err((cause.to_owned(), help));
    }
    let written = |cause| (cause, "a URL is written as in `https://host/folder/file.parquet`");
    Reach::parse(url).map(drop).map_err(written)
}

/// A path, or the URL of objects; whether there are any is for those who open it.
fn check_url(subject: &str, node: &Node, text: &str) -> Result<(), DefError> {
    if text.starts_with(REGISTERED) {
        return RegisteredModel::parse(text).map(drop).map_err(|cause| {
            let help = "a version is named by its number or its alias, as in `models:/fraud/3` or \
                        `models:/fraud@champion`";
            DefError::new(&node.loc, format!("{subject}: {cause}")).with_help(help)
        });
    }
    match text.split_once("://") {
        None => Ok(()),
        Some((scheme, _)) if OBJECT_SCHEMES.contains(&scheme) => {
            Reach::parse(text).map(drop).map_err(|cause| {
                DefError::new(&node.loc, format!("{subject} {cause}")).with_help(
                    "a URL is written as in `s3://bucket/key`, `gs://bucket/key` or `az://container/key`",
                )
            })
        }
        Some((scheme, _)) => {
            let cause = format!("{subject} is a URL of the unknown scheme `{scheme}`");
            Err(DefError::new(&node.loc, cause).with_help(suggest(scheme, OBJECT_SCHEMES)))
        }
    }
}

fn check_reach(subject: &str, node: &Node, text: &str) -> Result<(), DefError> {
    Reach::parse(text).map(drop).map_err(|cause| {
        DefError::new(&node.loc, format!("{subject} {cause}")).with_help(
            "a URL is written as in `s3://bucket/folder/`, `kafka://a:9092,b:9092`, `redis://host:6379` or \
             `https://host:5000/`",
        )
    })
}

/// Where a driver leads only it can read; that no password stands there can be seen.
fn check_database(subject: &str, node: &Node, text: &str) -> Option<DefError> {
    let small = text.to_ascii_lowercase();
    let is_secret = text.contains('@')
        || ["password=", "passwd=", "pwd=", "secret=", "token="].iter().any(|it| small.contains(it));
    let cause = match text {
        _ if is_secret => "must hold neither a user nor a password: these are kept, and shown",
        "" => "is empty",
        text if text.trim() != text || text.contains(char::is_control) => {
            "has a blank at an end, or a control character"
        }
        _ => return None,
    };
    let help =
        "who asks is said by `credentials`, as in `{username: {env: PGUSER}, password: {env: PGPASSWORD}}`";
    Some(DefError::new(&node.loc, format!("{subject} {cause}")).with_help(help))
}

fn check_type(shape: &Shape, node: &Node, text: &str) -> Result<(), DefError> {
    let names = type_names(matches!(shape, Shape::KeyType));
    match Type::parse(text) {
        Ok(dtype) if matches!(shape, Shape::KeyType) && !dtype.is_key() => {
            let cause = format!("a join key cannot have type `{dtype}`");
            Err(DefError::new(&node.loc, cause).with_help(format!("join keys may be {}", names.join(", "))))
        }
        Ok(_) => Ok(()),
        Err(cause) if text.starts_with("list<") && !text.ends_with('>') => {
            let help = "within `{…}` a type with a comma must be quoted: \"list<float32, 128>\"";
            Err(DefError::new(&node.loc, cause).with_help(help))
        }
        Err(cause) => {
            let help = match type_meant(text) {
                Some(meant) if names.contains(&meant) || matches!(shape, Shape::Type) => {
                    format!("did you mean `{meant}`? known: {}", names.join(", "))
                }
                Some(meant) => format!("`{meant}` is no type of a join key; it may be {}", names.join(", ")),
                None => suggest(text, names.iter().map(String::as_str)),
            };
            Err(DefError::new(&node.loc, cause).with_help(help))
        }
    }
}

/// Longest window, µs: ten years.
const WINDOW_MAX_US: i64 = 3_650 * 86_400_000_000;

fn check_window(subject: &str, node: &Node, text: &str) -> Result<(), DefError> {
    let way_out = "a window is written as in `1h`, `7d` or `lifetime`";
    match parse_duration(text) {
        _ if text == "lifetime" => Ok(()),
        Ok(1_000_000..=WINDOW_MAX_US) => Ok(()),
        Ok(_) => {
            Err(DefError::new(&node.loc, format!("{subject} must be from `1s` to `3650d`, found `{text}`"))
                .with_help("`lifetime` is a window over all time"))
        }
        Err(cause) => Err(DefError::new(&node.loc, format!("{subject}: {cause}")).with_help(way_out)),
    }
}

/// What people write for a time without end.
const FOREVER: [&str; 7] = ["forever", "infinite", "infinity", "inf", "never", "none", "unlimited"];

/// The way out where a length of time is none, which elsewhere means that there is no limit.
fn without_end(subject: &str) -> String {
    match subject {
        "`ttl`" => {
            "leave it out if rows never expire, which is what 0 means in Feast; with `1us` a row counts \
                    for a microsecond"
                .to_owned()
        }
        _ => "leave it out for no limit".to_owned(),
    }
}

fn check_duration(zero: bool, subject: &str, node: &Node, text: &str) -> Result<(), DefError> {
    match parse_duration(text) {
        Ok(0) if !zero => {
            let cause = format!("{subject} must be longer than nothing");
            Err(DefError::new(&node.loc, cause).with_help(without_end(subject)))
        }
        Ok(_) => Ok(()),
        Err(cause) if !zero && FOREVER.contains(&text.to_lowercase().as_str()) => {
            Err(DefError::new(&node.loc, format!("{subject}: {cause}")).with_help(without_end(subject)))
        }
        Err(cause) => Err(DefError::new(&node.loc, format!("{subject}: {cause}"))
            .with_help("a duration is written as in `90d`, `1d12h` or `250ms`")),
    }
}
