//! What do a server and its worker say to one another?
//!
//! Messages of protocol buffers, each after its length in eight bytes. Both ends are the same build, so no version is
//! negotiated. Outputs travel as an Arrow IPC stream, which keeps every type and every bit.

use std::io::{self, Read, Write};

use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use prost::{Message, Oneof};
use quern_base::Kind;
use quern_engine::each_number_kind;
use quern_engine::fit::{Element, Port, Signature, Tensor, TensorData};

use crate::error::{Error, Result};
use crate::number::Number;

/// The longest message; Protocol Buffers have no longer ones.
const BYTES_MAX: u64 = (1 << 31) - 1;

/// What a worker is asked.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Request {
    #[prost(oneof = "Asked", tags = "1, 2")]
    pub(super) asked: Option<Asked>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Asked {
    #[prost(message, tag = "1")]
    Load(Load),
    #[prost(message, tag = "2")]
    Run(Run),
}

/// Make a session of this file.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Load {
    #[prost(string, tag = "1")]
    pub(super) library: String,
    #[prost(string, repeated, tag = "2")]
    pub(super) providers: Vec<String>,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) onnx: bytes::Bytes,
}

/// Run these inputs.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Run {
    #[prost(message, repeated, tag = "1")]
    inputs: Vec<Input>,
    #[prost(uint64, tag = "2")]
    pub(super) rows: u64,
}

/// A [`Tensor`].
#[derive(Clone, PartialEq, Message)]
struct Input {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint64, repeated, tag = "2")]
    shape: Vec<u64>,
    /// The kind of its cells, as [`TensorData`] calls it.
    #[prost(string, tag = "3")]
    kind: String,
    /// Numbers, little-endian.
    #[prost(bytes = "vec", tag = "4")]
    numbers: Vec<u8>,
    #[prost(string, repeated, tag = "5")]
    texts: Vec<String>,
}

/// What a worker answers.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Reply {
    #[prost(oneof = "Answer", tags = "1, 2, 3")]
    pub(super) answer: Option<Answer>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Answer {
    #[prost(message, tag = "1")]
    Loaded(Loaded),
    #[prost(bytes = "vec", tag = "2")]
    Outputs(Vec<u8>),
    #[prost(message, tag = "3")]
    Failed(Failed),
}

/// What was loaded, and what it runs on.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Loaded {
    #[prost(message, repeated, tag = "1")]
    inputs: Vec<Outlet>,
    #[prost(message, repeated, tag = "2")]
    outputs: Vec<Outlet>,
    #[prost(string, tag = "3")]
    pub(super) provider: String,
    /// A batch without rows, of the outputs as columns; empty where the file leaves anything of them open.
    #[prost(bytes = "vec", tag = "4")]
    pub(super) columns: Vec<u8>,
}

/// A [`Port`]; what is free in its shape is -1.
#[derive(Clone, PartialEq, Message)]
struct Outlet {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    element: String,
    #[prost(int64, repeated, tag = "3")]
    shape: Vec<i64>,
}

/// Why a run or a load failed.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Failed {
    #[prost(string, tag = "1")]
    pub(super) what: String,
    #[prost(string, optional, tag = "2")]
    cause: Option<String>,
    /// Whether the inputs were at fault.
    #[prost(bool, tag = "3")]
    by_inputs: bool,
    /// The same with the values of rows in it.
    #[prost(string, optional, tag = "4")]
    quoting: Option<String>,
}

/// Writes one message.
pub(super) fn send(to: &mut impl Write, message: &impl Message) -> io::Result<()> {
    let length = message.encoded_len();
    let mut bytes = Vec::with_capacity(8 + length);
    bytes.extend_from_slice(&(length as u64).to_le_bytes());
    message.encode(&mut bytes).map_err(io::Error::other)?;
    to.write_all(&bytes)
}

/// Reads one message.
pub(super) fn receive<M: Message + Default>(from: &mut impl Read) -> io::Result<M> {
    let mut length = [0; 8];
    from.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    if length > BYTES_MAX {
        return Err(io::Error::other(format!("a message of {length} bytes")));
    }
    // Its room grows with what comes: a length alone takes no memory.
    let mut bytes = Vec::new();
    if from.take(length).read_to_end(&mut bytes)? as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    M::decode(bytes::Bytes::from(bytes)).map_err(io::Error::other)
}

impl Run {
    pub(super) fn new(inputs: Vec<Tensor>, rows: usize) -> Run {
        Run { inputs: inputs.into_iter().map(Input::from).collect(), rows: rows as u64 }
    }

    /// The inputs, and how many rows they have.
    pub(super) fn tensors(self) -> (Vec<Tensor>, usize) {
        (self.inputs.into_iter().map(Tensor::from).collect(), self.rows as usize)
    }
}

impl From<Tensor> for Input {
    fn from(Tensor { name, shape, data }: Tensor) -> Input {
        let shape = shape.into_iter().map(|length| length as u64).collect();
        let mut input = Input { name, shape, ..Input::default() };
        macro_rules! put {
            ($($kind:ident: $number:ty),*) => {
                match data {
                    $(TensorData::$kind(cells) => {
                        input.kind = stringify!($kind).to_owned();
                        input.numbers.reserve(cells.len() * size_of::<$number>());
                        cells.into_iter().for_each(|cell| cell.put(&mut input.numbers));
                    })*
                    TensorData::String(texts) => input.texts = texts,
                }
            };
        }
        each_number_kind!(put);
        input
    }
}

impl From<Input> for Tensor {
    fn from(input: Input) -> Tensor {
        macro_rules! take {
            ($($kind:ident: $number:ty),*) => {
                match input.kind.as_str() {
                    $(stringify!($kind) => TensorData::$kind(<$number>::all(&input.numbers)),)*
                    _ => TensorData::String(input.texts),
                }
            };
        }
        let data = each_number_kind!(take);
        let shape = input.shape.into_iter().map(|length| length as usize).collect();
        Tensor { name: input.name, shape, data }
    }
}

impl Loaded {
    pub(super) fn new(signature: Signature, columns: Vec<u8>, provider: String) -> Loaded {
        let outlets = |ports: Vec<Port>| ports.into_iter().map(Outlet::from).collect();
        Loaded { inputs: outlets(signature.inputs), outputs: outlets(signature.outputs), provider, columns }
    }

    pub(super) fn signature(self) -> Signature {
        let ports = |outlets: Vec<Outlet>| outlets.into_iter().map(Port::from).collect();
        Signature { inputs: ports(self.inputs), outputs: ports(self.outputs) }
    }
}

impl From<Port> for Outlet {
    fn from(Port { name, element, shape }: Port) -> Outlet {
        let shape = shape.into_iter().map(|length| length.map_or(-1, |length| length as i64)).collect();
        Outlet { name, element: element.to_string(), shape }
    }
}

impl From<Outlet> for Port {
    fn from(Outlet { name, element, shape }: Outlet) -> Port {
        let shape = shape.into_iter().map(|length| usize::try_from(length).ok()).collect();
        Port { name, element: Element::named(&element), shape }
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        let by_inputs = error.kind() == Kind::InvalidArgument;
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        let quoting = error.quotes().map(str::to_owned);
        Failed { what: error.what().to_string(), cause, by_inputs, quoting }
    }
}

impl From<Failed> for Error {
    fn from(Failed { what, cause, by_inputs, quoting }: Failed) -> Error {
        let error = if by_inputs { Error::invalid(what) } else { Error::broken(what) };
        let error = match quoting {
            Some(quoting) => error.quoting(quoting),
            None => error,
        };
        match cause {
            Some(cause) => error.because(cause),
            None => error,
        }
    }
}

/// Outputs as bytes.
pub(super) fn to_bytes(outputs: &RecordBatch) -> Result<Vec<u8>> {
    let mut writer = StreamWriter::try_new(Vec::new(), outputs.schema_ref())?;
    writer.write(outputs)?;
    Ok(writer.into_inner()?)
}

/// Outputs of bytes.
pub(super) fn of_bytes(bytes: &[u8]) -> Result<RecordBatch> {
    let mut reader = StreamReader::try_new(bytes, None)?;
    reader.next().ok_or_else(|| Error::broken("a worker answered without outputs"))?.map_err(Error::from)
}
