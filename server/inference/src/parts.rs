//! Which parts is an ONNX file made of?
//!
//! The messages are those of `onnx.proto` (<https://github.com/onnx/onnx/blob/main/onnx/onnx.proto>), as far as they
//! lead to operators and weights. Nothing is decoded on the way, so the weights are not copied.

use prost::{Message, decode_length_delimiter, encode_length_delimiter};

/// Messages within messages: as many as protocol buffers are read with elsewhere.
const DEPTH_MAX: usize = 100;

/// The bytes are no messages of an ONNX file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Damaged;

/// A kind of message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Model,
    Function,
    Graph,
    Node,
    Attribute,
    SparseTensor,
    Tensor,
}

impl Kind {
    /// What the field with this number holds, if it leads on.
    fn inner(self, number: usize) -> Option<Kind> {
        Some(match (self, number) {
            (Kind::Model, 7) | (Kind::Attribute, 6 | 11) => Kind::Graph,
            (Kind::Model, 25) => Kind::Function,
            (Kind::Graph, 1) | (Kind::Function, 7) => Kind::Node,
            (Kind::Node, 5) => Kind::Attribute,
            (Kind::Graph, 15) | (Kind::Attribute, 22 | 23) => Kind::SparseTensor,
            (Kind::Graph, 5) | (Kind::Attribute, 5 | 10) | (Kind::SparseTensor, 1 | 2) => Kind::Tensor,
            _ => return None,
        })
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Function {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "10")]
    pub(crate) domain: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Node {
    #[prost(string, tag = "4")]
    pub(crate) op_type: String,
    #[prost(string, tag = "7")]
    pub(crate) domain: String,
}

/// A tensor, but for its weights.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Tensor {
    #[prost(string, tag = "8")]
    pub(crate) name: String,
    #[prost(message, repeated, tag = "13")]
    pub(crate) external_data: Vec<Entry>,
    #[prost(int32, tag = "14")]
    pub(crate) data_location: i32,
}

/// Where in which file the weights of a tensor are.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Entry {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
}

/// One field of a message.
pub(crate) struct Field<'a> {
    pub(crate) number: usize,
    /// Number, length and content.
    pub(crate) whole: &'a [u8],
    /// Of a text, bytes or a message.
    pub(crate) content: Option<&'a [u8]>,
}

impl<'a> Field<'a> {
    fn take(rest: &mut &'a [u8]) -> Result<Field<'a>, Damaged> {
        let start = *rest;
        let key = number(rest)?;
        let mut content = None;
        match key & 7 {
            0 => skip_varint(rest)?,
            1 => _ = split(rest, 8)?,
            2 => {
                let length = number(rest)?;
                content = Some(split(rest, length)?);
            }
            5 => _ = split(rest, 4)?,
            _ => return Err(Damaged),
        }
        let whole = &start[..start.len() - rest.len()];
        Ok(Field { number: key >> 3, whole, content })
    }
}

/// The fields of a message; what is damaged ends them.
pub(crate) fn fields(mut message: &[u8]) -> impl Iterator<Item = Field<'_>> {
    std::iter::from_fn(move || if message.is_empty() { None } else { Field::take(&mut message).ok() })
}

/// Writes a field that holds bytes or a message.
pub(crate) fn put(out: &mut Vec<u8>, number: usize, content: &[u8]) {
    // A `Vec` has room for whatever comes.
    let (Ok(()), Ok(())) =
        (encode_length_delimiter(number << 3 | 2, out), encode_length_delimiter(content.len(), out))
    else {
        return;
    };
    out.extend_from_slice(content);
}

/// Shows `see` every message in the model, outer ones first. For whatever message it returns another, that one is put
/// in its place.
///
/// # Errors
/// Where the bytes are no such messages, or `see` fails. `None` where nothing was replaced.
pub(crate) fn visit<E: From<Damaged>>(
    onnx: &[u8],
    see: &mut impl FnMut(Kind, &[u8]) -> Result<Option<Vec<u8>>, E>,
) -> Result<Option<Vec<u8>>, E> {
    visit_message((Kind::Model, onnx), DEPTH_MAX, see)
}

fn visit_message<E: From<Damaged>>(
    (kind, message): (Kind, &[u8]),
    depth_left: usize,
    see: &mut impl FnMut(Kind, &[u8]) -> Result<Option<Vec<u8>>, E>,
) -> Result<Option<Vec<u8>>, E> {
    let Some(depth_left) = depth_left.checked_sub(1) else { return Err(Damaged.into()) };
    if let Some(other) = see(kind, message)? {
        return Ok(Some(other));
    }
    let mut out: Option<Vec<u8>> = None;
    let mut rest = message;
    while !rest.is_empty() {
        let before = message.len() - rest.len();
        let field = Field::take(&mut rest)?;
        let other = match (kind.inner(field.number), field.content) {
            (Some(inner), Some(content)) => visit_message((inner, content), depth_left, see)?,
            _ => None,
        };
        match (&mut out, other) {
            (None, None) => {}
            (Some(out), None) => out.extend_from_slice(field.whole),
            (out, Some(other)) => {
                put(out.get_or_insert_with(|| message[..before].to_vec()), field.number, &other);
            }
        }
    }
    Ok(out)
}

/// A key or a length.
fn number(rest: &mut &[u8]) -> Result<usize, Damaged> {
    decode_length_delimiter(&mut *rest).map_err(|_| Damaged)
}

/// A number of up to 64 bits, whose value nobody asks for.
fn skip_varint(rest: &mut &[u8]) -> Result<(), Damaged> {
    let length = rest.iter().take(10).position(|byte| *byte < 0x80).ok_or(Damaged)?;
    split(rest, length + 1).map(|_| ())
}

fn split<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], Damaged> {
    rest.split_off(..length).ok_or(Damaged)
}
