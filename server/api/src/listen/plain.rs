//! What is said to a client that does not speak TLS where it is spoken?

use std::io::{self, ErrorKind};

use quern_wire::{Code, ErrorReply};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How every connection over TLS begins: a record with a part of the handshake.
const HANDSHAKE: u8 = 22;
/// What is read of a request that is refused: a connection that is closed before would take the answer with it.
const READ_BYTES_MAX: usize = 64 << 10;

/// Whether a client begins as TLS does. Nothing is taken from the stream.
pub(super) async fn speaks_tls(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    match stream.peek(&mut first).await? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        _ => Ok(first[0] == HANDSHAKE),
    }
}

/// Says over HTTP/1.1, which most of them understand, that TLS is spoken here.
pub(super) async fn refuse(mut stream: TcpStream) -> io::Result<()> {
    let said = "TLS is spoken here: ask at `https://`";
    let reply = serde_json::to_string(&ErrorReply::new(Code::InvalidArgument, said))?;
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        reply.len()
    );
    stream.write_all((head + &reply).as_bytes()).await?;
    stream.shutdown().await?;
    let (mut rest, mut read) = ([0; 4_096], 0);
    while read < READ_BYTES_MAX {
        match stream.read(&mut rest).await? {
            0 => break,
            some => read += some,
        }
    }
    Ok(())
}
