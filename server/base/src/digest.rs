//! What names content, whoever holds it?

use std::fmt::Write as _;
use std::io::{self, Write};

use sha2::{Digest, Sha256};

/// SHA-256 of `bytes`, in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// What names content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digested {
    /// How long it is.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
}

/// Hashes content on its way.
pub struct Hashing<W> {
    to: W,
    digest: Sha256,
    bytes: u64,
}

impl<W> Hashing<W> {
    /// On its way to `to`.
    pub fn into(to: W) -> Hashing<W> {
        Hashing { to, digest: Sha256::new(), bytes: 0 }
    }

    /// Where it went, and what came.
    pub fn finish(self) -> (W, Digested) {
        (self.to, Digested { bytes: self.bytes, sha256: hexadecimal(&self.digest.finalize()) })
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.digest.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Bytes in hexadecimal, lower case.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
