//! The binary `quern`.

use std::process::ExitCode;

// Requests allocate small things by the thousand; the system's allocator is slower at that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    quern_cli::main()
}
