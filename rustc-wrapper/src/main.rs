//! The `kiln` program.

use std::process::ExitCode;

#[cfg(any(not(unix), test))]
mod elsewhere;

#[cfg(unix)]
fn main() -> ExitCode {
    kiln::main()
}

#[cfg(not(unix))]
fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    elsewhere::main(&arguments)
}
