//! The process: arguments in, exit code out. The boot order of a node reads in `cli::serve`.

use std::process::ExitCode;

fn main() -> ExitCode {
    usher::cli::run()
}
