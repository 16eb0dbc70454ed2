//! Who asks, and what may they?
//!
//! A [`Principal`] is who asks, as far as that was proved.
//!
//! Architecture invariant: this crate is pure. It knows neither sockets nor stores nor the clock; whoever proves
//! something brings what was proved.

mod principal;

pub use principal::{Principal, Proof, Token};
