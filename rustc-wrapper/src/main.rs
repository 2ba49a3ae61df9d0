//! The `kiln` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    kiln::main()
}
