//! The `kiln` program as the tests run it: built with them, so that they know where it is.

use std::process::ExitCode;

fn main() -> ExitCode {
    kiln::main()
}
