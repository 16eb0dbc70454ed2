//! What do a server and the process that asks a database say to one another?
//!
//! A byte that says what comes, its length in eight bytes, and it: the question as JSON, then batches of rows, each an
//! Arrow IPC stream of its own, and what ends a statement or all of it.

use std::io::{self, Read, Write};

use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::question::Question;

/// The longest message.
const BYTES_MAX: u64 = 1 << 31;

const QUESTION: u8 = b'q';
const ROWS: u8 = b'r';
const END: u8 = b'e';
const FAILED: u8 = b'f';

/// What the process answers.
#[derive(Debug)]
pub(crate) enum Reply {
    /// Rows of the statement that is under way; the first of each may have none.
    Rows(RecordBatch),
    /// The statement is answered.
    End,
    /// The last there is.
    Failed(Failed),
}

/// Why a driver gave up, in its own words less what is secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Failed {
    /// What was being done.
    pub(crate) doing: String,
    /// As ADBC names it.
    pub(crate) status: String,
    pub(crate) sqlstate: String,
    pub(crate) message: String,
}

pub(crate) fn ask(socket: &mut impl Write, question: &Question) -> io::Result<()> {
    send(socket, QUESTION, &serde_json::to_vec(question)?)
}

pub(crate) fn asked(socket: &mut impl Read) -> io::Result<Question> {
    match receive(socket)? {
        (QUESTION, bytes) => Ok(serde_json::from_slice(&bytes)?),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

pub(crate) fn answer(socket: &mut impl Write, reply: &Reply) -> Result<()> {
    match reply {
        Reply::Rows(rows) => {
            let mut writer = StreamWriter::try_new(Vec::new(), rows.schema_ref())?;
            writer.write(rows)?;
            send(socket, ROWS, &writer.into_inner()?)?;
        }
        Reply::End => send(socket, END, &[])?,
        Reply::Failed(failed) => {
            send(socket, FAILED, &serde_json::to_vec(failed).map_err(io::Error::from)?)?;
        }
    }
    Ok(())
}

/// What is answered next; why there is nothing, where that is the process's end.
pub(crate) fn answered(socket: &mut impl Read) -> io::Result<Result<Reply>> {
    let (kind, bytes) = receive(socket)?;
    let odd = || Error::broken("the process that asks a database answered something else");
    Ok(match kind {
        ROWS => StreamReader::try_new(bytes.as_slice(), None)
            .and_then(|mut rows| rows.next().transpose())
            .map_or_else(|error| Err(error.into()), |rows| rows.map(Reply::Rows).ok_or_else(odd)),
        END => Ok(Reply::End),
        FAILED => serde_json::from_slice(&bytes).map(Reply::Failed).map_err(|_| odd()),
        _ => Err(odd()),
    })
}

fn send(socket: &mut impl Write, kind: u8, bytes: &[u8]) -> io::Result<()> {
    socket.write_all(&[kind])?;
    socket.write_all(&(bytes.len() as u64).to_le_bytes())?;
    socket.write_all(bytes)
}

fn receive(socket: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let (mut kind, mut length) = ([0], [0; 8]);
    socket.read_exact(&mut kind)?;
    socket.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    if length > BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // As it comes: a length alone takes no memory.
    let mut bytes = Vec::new();
    match socket.take(length).read_to_end(&mut bytes)? as u64 == length {
        true => Ok((kind[0], bytes)),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
