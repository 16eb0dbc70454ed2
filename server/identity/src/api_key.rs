//! How is an API key written?
//!
//! `quern_<id>_<secret><checksum>`: its beginning is what scanners for secrets in repositories look for, and its
//! checksum tells them, and the server, a key from what only looks like one. The secret has 256 bits drawn at random,
//! so nobody finds it by trying: what is kept of it is its SHA-256, and a slow hash would only slow requests down.

use std::iter;

use crc::{CRC_32_ISO_HDLC, Crc};
use quern_base::digest::sha256;
use ring::rand::{SecureRandom, SystemRandom};

use crate::refused::{Error, Result};

/// What every key begins with.
pub const PREFIX: &str = "quern_";
/// Its name among keys: some 59 bits.
const ID_LETTERS: usize = 10;
/// 62⁴³ is a little more than 2²⁵⁶.
const SECRET_LETTERS: usize = 43;
/// 62⁶ is more than 2³².
const CHECKSUM_LETTERS: usize = 6;
const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

static CHECKSUM: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// A key that nobody has yet. It is shown once: only what is not `text` may be kept, and nothing of it logged.
pub struct Fresh {
    /// Its name among keys.
    pub id: String,
    /// The key itself.
    pub text: String,
    /// SHA-256 of its secret, in hexadecimal.
    pub sha256: String,
}

/// Whether a bearer is meant as an API key.
pub(crate) fn is_meant(bearer: &str) -> bool {
    bearer.starts_with(PREFIX)
}

/// Draws a key.
///
/// # Errors
/// Where the system has no random bytes to give.
pub fn fresh() -> Result<Fresh> {
    let (id, secret) = (letters(ID_LETTERS)?, letters(SECRET_LETTERS)?);
    let text = format!("{PREFIX}{id}_{secret}");
    let text = format!("{text}{}", checksum(&text));
    Ok(Fresh { id, sha256: sha256(secret.as_bytes()), text })
}

/// The ID of a key and the SHA-256 of its secret; none where this is no key.
pub(crate) fn read(text: &str) -> Option<(&str, String)> {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if text.len() != PREFIX.len() + ID_LETTERS + 1 + SECRET_LETTERS + CHECKSUM_LETTERS
        || !text.bytes().all(is_letter)
    {
        return None;
    }
    let (key, found) = text.split_at(text.len() - CHECKSUM_LETTERS);
    if checksum(key) != found {
        return None;
    }
    let (id, secret) = key.strip_prefix(PREFIX)?.split_once('_')?;
    (id.len() == ID_LETTERS).then(|| (id, sha256(secret.as_bytes())))
}

fn checksum(text: &str) -> String {
    let mut rest = CHECKSUM.checksum(text.as_bytes());
    let letters = iter::repeat_with(|| {
        let letter = LETTERS[rest as usize % LETTERS.len()];
        rest /= LETTERS.len() as u32;
        char::from(letter)
    });
    letters.take(CHECKSUM_LETTERS).collect()
}

/// So many letters, each as likely as any other.
fn letters(count: usize) -> Result<String> {
    let mut text = String::with_capacity(count);
    let mut bytes = [0; 64];
    while text.len() < count {
        let none = |_| Error::broken("the system has no random bytes to give");
        SystemRandom::new().fill(&mut bytes).map_err(none)?;
        // Four times as many letters as there are go into a byte; what is over would make some likelier.
        let fair = bytes.iter().filter(|byte| usize::from(**byte) < LETTERS.len() * 4);
        let drawn = fair.map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]));
        text.extend(drawn.take(count - text.len()));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written() {
        for _ in 0..100 {
            let fresh = fresh().unwrap();
            assert_eq!(fresh.text.len(), 66);
            assert_eq!(read(&fresh.text), Some((&*fresh.id, fresh.sha256.clone())));
        }
        // Scanners reckon the checksum as we do.
        let known = "quern_0123456789_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg";
        assert_eq!(read(&format!("{known}{}", checksum(known))).map(|(id, _)| id), Some("0123456789"));
        for wrong in ["", "quern_", "quern_é", known, &format!("{known}000000")] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
