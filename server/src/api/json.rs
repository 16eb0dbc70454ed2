//! How does JSON become Arrow columns, and columns JSON?
//!
//! A body is parsed once into [`Json`], which borrows its text, and then read column by column with the types that the
//! feature service declares. Nothing is guessed: a value of another type is an error that names its instance, its
//! column, and both types.

mod labels;
mod parse;
mod print;
mod read;
mod rows;

use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

pub(crate) use labels::labels;
pub(crate) use parse::{Json, body, object};
pub(crate) use print::{Instant, Value, Values};
pub(crate) use read::{Asked, cells, columns, instances, limit, micros_now};
pub(crate) use rows::{events, rows};

/// Padded when written; read with and without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
