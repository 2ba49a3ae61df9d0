//! Runs of build scripts, replayed as blindly as compiles are: what a run left in `OUT_DIR` and what it
//! printed, under its program, arguments and `OUT_DIR`.
//!
//! After each compile of a build script the replay-wrapper stands in its place, with the real program
//! beside it; so cargo starts the replay-wrapper where it means the script.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use super::recording::exit_code;
use super::{Mode, key, out_dir, owns, value};
use crate::{environment, report};

/// The real program, beside the one that cargo starts.
const REAL: &str = "build-script.real";
const TREE: &str = "tree";
const STDOUT: &str = "stdout";
const STDERR: &str = "stderr";

/// The real program of the build script that this process was started as, if it was.
pub(super) fn real_program() -> Option<PathBuf> {
    let real = environment::program_directory()?.join(REAL);
    real.exists().then_some(real)
}

/// Puts the wrapper in the place of the build script that a run compiled, if it did.
///
/// # Errors
/// When a file cannot be renamed or made.
pub(super) fn put_front(argv: &[OsString]) -> io::Result<()> {
    let (Some(dir), Some(program)) = (out_dir(argv), program_of(argv)) else {
        return Ok(());
    };
    let program = dir.join(program);
    let wrapper = environment::program().ok_or(io::ErrorKind::NotFound)?;
    fs::rename(&program, dir.join(REAL))?;
    fs::hard_link(&wrapper, &program).or_else(|_| fs::copy(&wrapper, &program).map(drop))
}

/// The file name of the build script that a run compiles.
fn program_of(argv: &[OsString]) -> Option<String> {
    let name = value(argv, "--crate-name")?.to_str()?;
    let is_program = value(argv, "--crate-type")? == "bin";
    let mut suffix = argv.iter().filter_map(|a| a.to_str()?.strip_prefix("extra-filename="));
    let file = format!("{name}{}", suffix.next_back().unwrap_or_default());
    let is_script = name.starts_with("build_script_") && is_program && owns(argv, &file);
    is_script.then_some(file)
}

/// Where the run of a script is recorded: beside the recordings of compiles.
fn place(dir: &Path, real: &Path, out_dir: &Path, arguments: &[OsString]) -> PathBuf {
    let mut words = vec![real.into(), out_dir.into()];
    words.extend_from_slice(arguments);
    dir.with_extension("scripts").join(key(&words))
}

/// Runs a script and records it, or puts back what is recorded.
pub(super) fn run(dir: &Path, mode: Mode, real: &Path, arguments: &[OsString]) -> ExitCode {
    let Some(out_dir) = environment::one("OUT_DIR").map(PathBuf::from) else {
        report::complaint("replay-wrapper: a build script without OUT_DIR");
        return ExitCode::from(2);
    };
    let place = place(dir, real, &out_dir, arguments);
    match mode {
        Mode::Copy | Mode::Link if put_back(&place, &out_dir).is_ok() => ExitCode::SUCCESS,
        _ => record(&place, &out_dir, real, arguments),
    }
}

fn put_back(place: &Path, out_dir: &Path) -> io::Result<()> {
    let (stdout, stderr) = (fs::read(place.join(STDOUT))?, fs::read(place.join(STDERR))?);
    copy(&place.join(TREE), out_dir)?;
    report::pass_on(&stdout, &stderr);
    Ok(())
}

fn record(place: &Path, out_dir: &Path, real: &Path, arguments: &[OsString]) -> ExitCode {
    let output = match Command::new(real).args(arguments).stdin(Stdio::inherit()).output() {
        Ok(output) => output,
        Err(error) => {
            report::complaint(&format!("replay-wrapper: {error}"));
            return ExitCode::from(127);
        }
    };
    report::pass_on(&output.stdout, &output.stderr);
    if output.status.success() {
        let written = copy(out_dir, &place.join(TREE))
            .and_then(|()| fs::write(place.join(STDERR), &output.stderr))
            .and_then(|()| fs::write(place.join(STDOUT), &output.stdout));
        if let Err(error) = written {
            report::complaint(&format!("replay-wrapper: {error}"));
            return ExitCode::from(2);
        }
    }
    exit_code(output.status)
}

/// Copies a tree: directories, files with their modes, links.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, to) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &to)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(entry.path())?, to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn build_scripts_are_told_from_other_programs() {
        let argv = |name: &str, kind: &str| {
            words(&format!("rustc --crate-name {name} --crate-type {kind} -C extra-filename=-0f"))
        };
        let script = program_of(&argv("build_script_build", "bin"));
        assert_eq!(script.as_deref(), Some("build_script_build-0f"));
        assert_eq!(program_of(&argv("build_script_build", "lib")), None);
        assert_eq!(program_of(&argv("app", "bin")), None);
    }

    #[test]
    fn what_a_run_left_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let (out, place) = (dir.path().join("out"), dir.path().join("place"));
        fs::create_dir_all(out.join("d/empty")).unwrap();
        fs::write(out.join("d/file"), "text").unwrap();
        symlink("d/file", out.join("link")).unwrap();
        let arguments = words("-c echo");
        let recorded = record(&place, &out, Path::new("/bin/true"), &arguments);
        assert_eq!(recorded, ExitCode::SUCCESS);
        fs::remove_dir_all(&out).unwrap();
        put_back(&place, &out).unwrap();
        assert_eq!(fs::read(out.join("link")).unwrap(), b"text");
        assert!(out.join("d/empty").is_dir());
        assert_eq!(fs::read_link(out.join("link")).unwrap(), Path::new("d/file"));
    }

    #[test]
    fn a_run_that_fails_is_not_recorded() {
        let dir = tempfile::tempdir().unwrap();
        let (out, place) = (dir.path().join("out"), dir.path().join("place"));
        fs::create_dir(&out).unwrap();
        assert_ne!(record(&place, &out, Path::new("/bin/false"), &[]), ExitCode::SUCCESS);
        assert!(put_back(&place, &out).is_err());
    }
}
