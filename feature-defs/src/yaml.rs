//! Which YAML nodes does a file hold, and where does each one stand?
//!
//! Built on the parser's events rather than on a loaded tree: only here are both places of a key given twice
//! known, a text is still what was written (`1.10` is not `1.1`), the documents before a syntax error are not
//! lost, and nothing recurses until the depth is known to be small.

use std::collections::HashMap;

use saphyr::Scalar as CoreScalar;
use saphyr_parser::{Event, Marker, Parser, Span};

use crate::{DefError, Loc};

/// Deepest nesting; the language itself needs four levels.
const DEPTH_MAX: usize = 32;
/// Most nodes in a file, counted after aliases are expanded: a few nested aliases can stand for billions.
const NODES_MAX: usize = 1_000_000;
/// Most bytes of text that the aliases of a file repeat: a few kilobytes of them can repeat a long text for gigabytes.
const REPEATED_BYTES_MAX: usize = 4 << 20;

/// A piece of YAML and its place.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) loc: Loc,
    pub(crate) value: Value,
}

/// What a [`Node`] holds.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Scalar { text: String, scalar: Scalar },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// What a scalar means by YAML's core schema.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Scalar {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text,
}

/// One key of a mapping.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_loc: Loc,
    pub(crate) value: Node,
}

impl Node {
    /// The value under `key`, where this is a mapping that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// A scalar as it is written, unless it is null.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { scalar: Scalar::Null, .. } => None,
            Value::Scalar { text, .. } => Some(text),
            Value::List(_) | Value::Map(_) => None,
        }
    }

    /// The items of a list; nothing else has any.
    pub(crate) fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            Value::Scalar { .. } | Value::Map(_) => &[],
        }
    }

    /// The entries of a mapping; nothing else has any.
    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            Value::Scalar { .. } | Value::List(_) => &[],
        }
    }

    /// As in "found …".
    pub(crate) fn describe(&self) -> String {
        match &self.value {
            Value::Scalar { scalar: Scalar::Null, .. } => "nothing".to_owned(),
            Value::Scalar { scalar: Scalar::Bool(_), text } => format!("the boolean `{text}`"),
            Value::Scalar { scalar: Scalar::Int(_) | Scalar::Float(_), text } => {
                format!("the number `{text}`")
            }
            Value::Scalar { text, .. } if text.is_empty() => "an empty text".to_owned(),
            Value::Scalar { scalar: Scalar::Text, text } => match text.char_indices().nth(60) {
                Some((end, _)) => format!("`{}…`", &text[..end]),
                None => format!("`{text}`"),
            },
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a mapping".to_owned(),
        }
    }

    fn count(&self) -> usize {
        1 + match &self.value {
            Value::Scalar { .. } => 0,
            Value::List(items) => items.iter().map(Node::count).sum(),
            Value::Map(entries) => entries.iter().map(|entry| entry.value.count()).sum(),
        }
    }

    fn bytes(&self) -> usize {
        match &self.value {
            Value::Scalar { text, .. } => text.len(),
            Value::List(items) => items.iter().map(Node::bytes).sum(),
            Value::Map(entries) => entries.iter().map(|entry| entry.key.len() + entry.value.bytes()).sum(),
        }
    }

    fn depth(&self) -> usize {
        let below = match &self.value {
            Value::Scalar { .. } => return 0,
            Value::List(items) => items.iter().map(Node::depth).max(),
            Value::Map(entries) => entries.iter().map(|entry| entry.value.depth()).max(),
        };
        1 + below.unwrap_or(0)
    }
}

/// What is left of a file after reading.
#[derive(Debug)]
pub(crate) struct Documents {
    /// The documents that could be read, empty ones left out.
    pub(crate) documents: Vec<Node>,
    /// Whether these are all documents of the file; otherwise `errors` says why not.
    pub(crate) complete: bool,
    pub(crate) errors: Vec<DefError>,
}

/// Reads the documents of one file.
pub(crate) fn read(start: Loc, text: &str) -> Documents {
    let mut builder = Builder {
        start,
        documents: Vec::new(),
        open: Vec::new(),
        anchors: HashMap::new(),
        nodes: 0,
        repeated_bytes: 0,
        errors: Vec::new(),
    };
    let stopped = builder.read_all(text);
    let complete = stopped.is_ok();
    builder.errors.extend(stopped.err());
    Documents { documents: builder.documents, complete, errors: builder.errors }
}

struct Builder {
    /// Where the file begins.
    start: Loc,
    documents: Vec<Node>,
    /// Lists and mappings that have begun and not ended, outermost first.
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    /// How much text aliases stand for, so far.
    repeated_bytes: usize,
    errors: Vec<DefError>,
}

struct Open {
    loc: Loc,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map {
        entries: Vec<Entry>,
        /// A key whose value has not come yet.
        key: Option<Node>,
        seen: HashMap<String, Loc>,
    },
}

impl Builder {
    /// Stops at the first mistake after which nothing can be trusted.
    fn read_all(&mut self, text: &str) -> Result<(), DefError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut parser = Parser::new_from_str(text);
        while let Some(event) = parser.next_event() {
            let (event, span) = event.map_err(|error| {
                DefError::new(&self.loc(error.marker()), format!("not valid YAML: {}", error.info()))
            })?;
            self.event(event, span)?;
        }
        Ok(())
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), DefError> {
        let loc = self.loc(&span.start);
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            Event::DocumentStart(_) => self.anchors.clear(),
            Event::Scalar(text, style, anchor, tag) => {
                let scalar = CoreScalar::parse_from_cow_and_metadata(text.clone(), style, tag.as_ref());
                let scalar = match scalar {
                    Some(CoreScalar::Null) => Scalar::Null,
                    Some(CoreScalar::Boolean(value)) => Scalar::Bool(value),
                    Some(CoreScalar::Integer(value)) => Scalar::Int(value),
                    Some(CoreScalar::FloatingPoint(value)) => Scalar::Float(value.into_inner()),
                    Some(CoreScalar::String(_)) => Scalar::Text,
                    None => return Err(DefError::new(&loc, format!("`{text}` is not what its tag says"))),
                };
                self.place(Node { loc, value: Value::Scalar { text: text.into_owned(), scalar } }, anchor)?;
            }
            Event::SequenceStart(anchor, _) => self.begin(loc, anchor, Content::List(Vec::new()))?,
            Event::MappingStart(anchor, _) => {
                let content = Content::Map { entries: Vec::new(), key: None, seen: HashMap::new() };
                self.begin(loc, anchor, content)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(Open { loc, anchor, content }) = self.open.pop() {
                    let value = match content {
                        Content::List(items) => Value::List(items),
                        Content::Map { entries, .. } => Value::Map(entries),
                    };
                    self.place(Node { loc, value }, anchor)?;
                }
            }
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    return Err(DefError::new(&loc, "this alias names no anchor of its document"));
                };
                self.nodes += node.count() - 1;
                self.repeated_bytes += node.bytes();
                if self.repeated_bytes > REPEATED_BYTES_MAX {
                    let cause =
                        format!("the aliases of a file repeat at most {REPEATED_BYTES_MAX} bytes of text");
                    let help = "shorten the text that is anchored, or write it where it is needed";
                    return Err(DefError::new(&loc, cause).with_help(help));
                }
                if self.open.len() + node.depth() > DEPTH_MAX {
                    return Err(too_deep(&loc));
                }
                self.place(node, 0)?;
            }
        }
        Ok(())
    }

    fn begin(&mut self, loc: Loc, anchor: usize, content: Content) -> Result<(), DefError> {
        if self.open.len() >= DEPTH_MAX {
            return Err(too_deep(&loc));
        }
        self.open.push(Open { loc, anchor, content });
        Ok(())
    }

    /// Puts a finished node where it belongs: under a key, into a list, or among the documents.
    fn place(&mut self, node: Node, anchor: usize) -> Result<(), DefError> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(DefError::new(&node.loc, format!("a file holds at most {NODES_MAX} YAML nodes")));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.content) {
            None if matches!(node.value, Value::Scalar { scalar: Scalar::Null, .. }) => {}
            None => self.documents.push(node),
            Some(Content::List(items)) => items.push(node),
            Some(Content::Map { entries, key, seen }) => match key.take() {
                None => *key = Some(node),
                Some(key) => self.errors.extend(insert(entries, seen, key, node).err()),
            },
        }
        Ok(())
    }

    fn loc(&self, marker: &Marker) -> Loc {
        // The parser counts lines from one and columns from zero.
        Loc { line: marker.line(), column: marker.col() + 1, ..self.start.clone() }
    }
}

fn insert(
    entries: &mut Vec<Entry>,
    seen: &mut HashMap<String, Loc>,
    key: Node,
    value: Node,
) -> Result<(), DefError> {
    let Some(name) = key.text().map(str::to_owned) else {
        return Err(DefError::new(&key.loc, format!("a key must be a name, found {}", key.describe())));
    };
    if let Some(first) = seen.get(&name) {
        return Err(DefError::new(&key.loc, format!("the key `{name}` is given twice"))
            .with_help(format!("it is first given at {first}")));
    }
    seen.insert(name.clone(), key.loc.clone());
    entries.push(Entry { key: name, key_loc: key.loc, value });
    Ok(())
}

fn too_deep(loc: &Loc) -> DefError {
    DefError::new(loc, format!("YAML nested deeper than {DEPTH_MAX} levels"))
}
