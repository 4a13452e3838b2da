//! The process: arguments in, exit code out. What happens reads in the library.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// The gateway's, for its floor.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    usher_loadtest::run()
}
