//! The process: arguments in, exit code out. The boot order of a node reads in `cli::serve`.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// After a rush that came and went the system's allocator keeps three times what the sessions need (15,000 sessions,
/// glibc 2.36); this one gives it back. Its settings are in `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    usher::cli::run()
}
