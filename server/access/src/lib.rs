//! Who asks, and what may they do?
//!
//! A [`Principal`] is who asks, as far as that was proved; a [`Caller`] is one in one request. [`Access`] is a table of
//! what the roles of one apply allow; [`Rights`] are what it allows one who asks. Whatever is not allowed is not.
//!
//! Architecture invariant: this crate is pure. It knows neither sockets nor stores nor the clock; whoever proves
//! something brings what was proved.

mod caller;
mod difference;
mod principal;
mod rights;
mod table;

pub use caller::Caller;
pub use difference::Difference;
pub use principal::{Principal, Proof, Token};
pub use rights::{Action, Question, Rights};
pub use table::{Access, Rule};
