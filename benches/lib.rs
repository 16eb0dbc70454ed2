//! Quern.
