//! Which rows does a database give for a query?
//!
//! A database is spoken with by an ADBC driver: native code of others, which may crash, hang or grow. So it runs in a
//! process of its own ([`Answers`], and [`serve`] at the other end), which ends with the query or with the server,
//! whichever is first. Drivers are those that the operator has put into one folder ([`Drivers`]); none is searched for.
//! What is asked is one statement ([`sql`]), in which no value stands but numbers and times that are written here.
//!
//! Architecture invariant: it knows no stores and no views. Rows leave here in the types that the driver gave.

mod drivers;
mod error;
mod message;
mod process;
mod question;
mod serve;
pub mod sql;

pub use drivers::Drivers;
pub use error::{Error, Result};
pub use process::{Answers, Program};
pub use question::Question;
pub use serve::{is_wanted, serve};
