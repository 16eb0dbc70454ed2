//! Are the rows of a database those of a source? Real drivers, a PostgreSQL of the tests' own, and files of SQLite.

pub(crate) mod databases;
mod failing;
mod pulls;
mod types;
