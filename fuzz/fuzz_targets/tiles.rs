//! Can any bytes be taken for the stored tiles of a key, and is what they say stored and read as the same?

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quern_fuzzed::ask("tiles", bytes));
