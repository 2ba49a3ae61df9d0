//! Runs the benches and prints a table of ratios.

use std::process::ExitCode;

fn main() -> ExitCode {
    kiln_benches::command_line::main()
}
