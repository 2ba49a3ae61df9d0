//! The environment of the process: the only module that reads it.

use std::ffi::OsString;
use std::path::PathBuf;

/// Variables that the programs under measurement get; everything else of the caller's is left out,
/// so that a bench is the same from every shell and below `cargo run`.
const PASSED_ON: [&str; 8] =
    ["PATH", "HOME", "USER", "LANG", "TMPDIR", "CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"];

/// The variables that are passed on, with their values.
#[expect(clippy::disallowed_methods, reason = "the one place of the package that reads it")]
pub fn passed_on() -> Vec<(&'static str, OsString)> {
    PASSED_ON.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))).collect()
}

/// All variables of this process: what a recorded unit is run with again.
#[expect(clippy::disallowed_methods, reason = "the one place of the package that reads it")]
pub fn all() -> Vec<(OsString, OsString)> {
    std::env::vars_os().collect()
}

/// One variable.
#[expect(clippy::disallowed_methods, reason = "the one place of the package that reads it")]
pub fn one(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// The arguments of this process, its own name left out.
pub fn arguments() -> Vec<OsString> {
    std::env::args_os().skip(1).collect()
}

/// The working directory.
pub fn working_directory() -> Option<PathBuf> {
    std::env::current_dir().ok()
}

/// This program's file.
pub fn program() -> Option<PathBuf> {
    std::env::current_exe().ok()
}

/// The directory that this program lies in.
pub fn program_directory() -> Option<PathBuf> {
    program()?.parent().map(PathBuf::from)
}

/// Where cargo keeps what it fetched.
pub fn cargo_home() -> Option<PathBuf> {
    one("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(one("HOME")?).join(".cargo")))
}

/// A program in `PATH`.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = one("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|candidate| candidate.is_file())
}
