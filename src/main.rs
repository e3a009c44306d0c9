//! The `ditscope` program: see `ditscope --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ditscope::cli::main()
}
