//! Can any text be taken for an expression, and does it say of a row alone what it says in a batch?

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quern_fuzzed::ask("expressions", bytes));
