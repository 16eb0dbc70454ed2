//! Which values do these keys have at these times?
//!
//! Engine and store meet here and nowhere else: the store gives rows and takes bytes, the engine says what they mean.
//! In reading order:
//!
//! 1. [`compiled`]: what must be known of definitions.
//! 2. [`look_up`]: what the head says now, and history where a caller asks for earlier.
//! 3. [`as_of`]: what history said about keys at times; of `windows` of events, and of rows (`latest`).
//! 4. [`past`]: the vectors that come of it, for whole tables.
//! 5. [`write`]: how rows and events become the head.
//! 6. `units`: what of the files may matter to whom; `read`: how it is read once for all who ask.
//! 7. [`table`]: all rows of a view, or the latest of each key, as a table.
//! 8. [`sample`]: some vectors, for a model to be tried on.
//!
//! Architecture invariant: whoever reads gets a [`Reader`], which cannot write.

mod error;
mod metrics;

pub mod as_of;
mod asked;
pub mod compiled;
mod latest;
pub mod look_up;
pub mod past;
mod question;
mod read;
pub mod sample;
pub mod table;
mod units;
mod vectors;
mod windows;
pub mod write;

pub use self::as_of::{Answer, Question};
pub use self::compiled::Compiled;
pub use self::error::{Error, Result, kind_of, strict_text};
pub use self::look_up::Reader;
pub use self::metrics::metrics;
pub use self::units::Units;
pub use self::vectors::Vectors;
