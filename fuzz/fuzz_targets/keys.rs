//! Do different keys have different bytes, and numbers their order?

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quern_fuzzed::ask("keys", bytes));
