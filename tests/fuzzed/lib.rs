//! What is asked of hostile bytes?
//!
//! One question in each module, asked through the functions that the server calls. The fuzzer (`fuzz/`) asks it of
//! bytes that it makes up, and the test `replay` of those that are kept: `fuzz/seeds`, to begin with, and
//! `fuzz/fixtures`, which once broke something. A question panics where the answer is wrong.

#![expect(clippy::unwrap_used, reason = "an answer that cannot be had is wrong")]

mod cells;
mod expressions;
pub mod ipc;
mod keys;
mod rows;
mod shown;
mod stored;
mod tensors;
mod tiles;
mod yaml;

type Question = fn(&[u8]);

/// The questions, by the names of their folders.
pub const QUESTIONS: [(&str, Question); 8] = [
    ("expressions", expressions::ask),
    ("ipc", ipc::ask),
    ("keys", keys::ask),
    ("rows", rows::ask),
    ("stored", stored::ask),
    ("tensors", tensors::ask),
    ("tiles", tiles::ask),
    ("yaml", yaml::ask),
];

/// Asks the question called `name`.
///
/// # Panics
/// The answer is wrong, or there is no such question.
pub fn ask(name: &str, bytes: &[u8]) {
    let (_, question) = QUESTIONS.iter().find(|(known, _)| *known == name).unwrap();
    question(bytes);
}
