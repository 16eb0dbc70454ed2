//! How do the bytes of a request become columns?
//!
//! [`json`] reads rows, with the types that a feature service declares. [`tensor`] and its [`datatype`] are those of
//! the Open Inference Protocol, both ways; [`print`] writes values as replies show them.
//!
//! Architecture invariant: no store, no node and no socket: whatever is thrown at it, it can be tried on its own.

pub mod datatype;
mod error;
pub mod json;
pub mod print;
pub mod tensor;

pub use self::error::{Error, Result};

use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Bytes as text. Padded when written; read with and without.
pub const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests;
