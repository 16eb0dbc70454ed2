//! Can any JSON that is pushed or predicted for be read, and does what a reply shows of it say the same once more?

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quern_fuzzed::ask("rows", bytes));
