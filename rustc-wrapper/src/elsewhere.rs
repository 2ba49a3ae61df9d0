//! The whole program where there is no Unix, which means Windows: compilers run as if Kiln were not there, and whoever
//! asks Kiln for something is told so. A matrix with such jobs needs no other settings for them.

#![expect(clippy::print_stderr, reason = "what prints elsewhere needs Unix")]

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode};

/// What somebody who asks for anything is told.
const NOTHING_IS_CACHED: &str = "kiln: nothing is cached on this system: compilers run as they are\n  \
     hint: Kiln caches on Linux; see docs/compatibility.md";
/// Exit status when a compiler cannot be started, and for a command that would have to do something.
const FAILURE: u8 = 1;

/// Runs the compiler that cargo names, or says that there are no commands here.
pub(crate) fn main(arguments: &[OsString]) -> ExitCode {
    let Some((first, rest)) = arguments.split_first() else {
        eprintln!("{NOTHING_IS_CACHED}");
        return ExitCode::SUCCESS;
    };
    if is_program(first) {
        return run(first, rest);
    }
    eprintln!("{NOTHING_IS_CACHED}");
    // What CI calls around a build does not fail it; what was to be had from a command is not there.
    let is_harmless =
        matches!(first.to_str(), Some("--version" | "-V" | "--help" | "server" | "stats"));
    ExitCode::from(if is_harmless { 0 } else { FAILURE })
}

/// Whether it is a program that cargo wants to be run, and no command of Kiln.
fn is_program(word: &OsString) -> bool {
    let path = Path::new(word);
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    path.components().count() > 1 || stem.starts_with("rustc") || stem == "clippy-driver"
}

/// Runs a program with this process's input and output; its exit status.
fn run(program: &OsString, arguments: &[OsString]) -> ExitCode {
    match Command::new(program).args(arguments).status() {
        // Of a status of 32 bits what is not 0 stays so.
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(status) => ExitCode::from(
            status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILURE),
        ),
        Err(error) => {
            eprintln!("kiln: error: {}: {error}", program.display());
            ExitCode::from(FAILURE)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(words: &[&str]) -> ExitCode {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        main(&words)
    }

    #[test]
    fn a_compiler_runs_and_its_status_is_handed_on() {
        assert_eq!(code(&["/bin/sh", "-c", "exit 0"]), ExitCode::SUCCESS);
        assert_eq!(code(&["/bin/sh", "-c", "exit 101"]), ExitCode::from(101));
        assert_eq!(code(&["/bin/sh", "-c", "kill -9 $$"]), ExitCode::from(FAILURE));
        assert_eq!(code(&["/none/rustc"]), ExitCode::from(FAILURE));
    }

    #[test]
    fn what_is_no_compiler_is_a_command() {
        for program in ["rustc", "rustc.exe", "clippy-driver", "C:/bin/rustc.exe", "./x"] {
            assert!(is_program(&program.into()), "{program}");
        }
        for command in ["stats", "report", "--version", "server"] {
            assert!(!is_program(&command.into()), "{command}");
        }
        assert_eq!(code(&["server", "stop"]), ExitCode::SUCCESS);
        assert_eq!(code(&["report", "--fail-under", "90"]), ExitCode::from(FAILURE));
    }
}
