//! How is a server asked that a connection names, and by whom?
//!
//! Tracking servers of MLflow, catalogs of tables, registries of schemas, and whoever gives tokens for those. Each is
//! connected to by what its name leads to after DNS, and by no other way; it is told who asks as its connection says.
//! What it answers is bounded, and shown without what was told in confidence.
//!
//! Architecture invariant: it knows nothing of what is asked for.

mod answer;
mod client;
mod session;
mod told;

pub use answer::{Refused, ask};
pub use client::{api_of, causes, client, on_one_line, server_at};
pub use session::{Session, Token, Tokens};
pub use told::told;
