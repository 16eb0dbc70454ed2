//! Can any bytes be taken for a stored row, and is what they say stored and read as the same?

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quern_fuzzed::ask("stored", bytes));
