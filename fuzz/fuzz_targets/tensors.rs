//! Can any tensor of the Open Inference Protocol be read, and do its raw bytes, as a reply has them, say the same?

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quern_fuzzed::ask("tensors", bytes));
