//! Can any text be taken for definitions, and do its mistakes stand where they are said to stand?

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quern_fuzzed::ask("yaml", bytes));
