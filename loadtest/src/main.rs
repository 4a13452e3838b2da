//! The process: arguments in, exit code out. What happens reads in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    usher_loadtest::run()
}
