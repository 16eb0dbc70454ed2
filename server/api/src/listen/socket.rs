//! What comes over a connection, and when?

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connections::Connection;

/// How a connection over HTTP/2 begins.
const HTTP2: &[u8] = b"PRI";

/// What comes and goes, as the client means it: over TCP, over TLS on it, or over the Unix socket.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A stream whose connection learns of what is read.
pub(super) struct Socket {
    // One type, whatever it is: HTTP above it is large, and compiled once.
    stream: Box<dyn Stream>,
    connection: Arc<Connection>,
    speaks: Speaks,
}

/// What a connection speaks, as far as its first bytes tell.
#[derive(Debug, Clone, Copy)]
enum Speaks {
    /// So many bytes came, all of them those of [`HTTP2`].
    Perhaps(usize),
    Http1,
    Http2,
}

impl Speaks {
    fn after(self, bytes: &[u8]) -> Speaks {
        let Speaks::Perhaps(seen) = self else { return self };
        let rest = &HTTP2[seen..];
        let begins = &bytes[..rest.len().min(bytes.len())];
        match (rest.starts_with(begins), rest.len() - begins.len()) {
            (false, _) => Speaks::Http1,
            (true, 0) => Speaks::Http2,
            (true, _) => Speaks::Perhaps(seen + begins.len()),
        }
    }
}

impl Socket {
    pub(super) fn new(stream: Box<dyn Stream>, connection: Arc<Connection>) -> Socket {
        Socket { stream, connection, speaks: Speaks::Perhaps(0) }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, into))?;
        let read = &into.filled()[before..];
        self.speaks = self.speaks.after(read);
        // Over HTTP/2, nobody can tell a part of a head from what else there is to say.
        if !read.is_empty() && !matches!(self.speaks, Speaks::Http2) {
            self.connection.has_read();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }
}
