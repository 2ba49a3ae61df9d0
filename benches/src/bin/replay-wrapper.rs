//! A blind `RUSTC_WRAPPER`: puts back what it recorded, without a check of any kind.

use std::process::ExitCode;

fn main() -> ExitCode {
    kiln_benches::replay::main()
}
