//! Can any bytes be taken for messages of Arrow IPC, and do they become no more than they were weighed for?

#![no_main]

use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// Types, names and the columns themselves, which are as many as the messages say in so many words.
const BESIDE_BYTES: usize = 1 << 20;

/// The decoder panics at hostile bytes, which is caught: the fuzzer need not hear of it.
fn catch_quietly() {
    let fuzzer = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |told| {
        if !quern_fuzzed::ipc::is_reading() {
            fuzzer(told);
        }
    }));
}

libfuzzer_sys::fuzz_target!(
    init: catch_quietly(),
    |bytes: &[u8]| {
        let before = HEAP.current_usage();
        HEAP.reset_peak_usage();
        let promised = quern_fuzzed::ipc::read(bytes).promised;
        let taken = HEAP.peak_usage() - before;
        if taken > 3 * promised + BESIDE_BYTES {
            eprintln!("{taken} bytes were taken where {promised} were promised");
            std::process::abort();
        }
        quern_fuzzed::ask("ipc", bytes);
    }
);
