//! One recorded run: a directory with the files it left, what it printed, and how to run it again.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use super::{Mode, key, out_dir, owns};
use crate::{environment, report};

const FILES: &str = "files";
const STDOUT: &str = "stdout";
const STDERR: &str = "stderr";
const ARGUMENTS: &str = "arguments";
const VARIABLES: &str = "variables";
const WORKING_DIRECTORY: &str = "working-directory";

/// Runs the compiler, passes on what it prints and records what it left. A run that fails is not
/// recorded.
pub(super) fn record(dir: &Path, argv: &[OsString]) -> ExitCode {
    let Some((tool, arguments)) = argv.split_first() else {
        return ExitCode::from(2);
    };
    let output = match Command::new(tool).args(arguments).stdin(Stdio::inherit()).output() {
        Ok(output) => output,
        Err(error) => {
            report::complaint(&format!("replay-wrapper: {error}"));
            return ExitCode::from(127);
        }
    };
    report::pass_on(&output.stdout, &output.stderr);
    if output.status.success() {
        let written = write(&dir.join(key(argv)), argv, &output.stdout, &output.stderr);
        if let Err(error) = written {
            report::complaint(&format!("replay-wrapper: {error}"));
            return ExitCode::from(2);
        }
        return super::put_front(argv);
    }
    exit_code(output.status)
}

/// The exit code that says how a program ended.
pub(super) fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().unwrap_or(128 + status.signal().unwrap_or(0));
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

fn write(place: &Path, argv: &[OsString], stdout: &[u8], stderr: &[u8]) -> io::Result<()> {
    let files = place.join(FILES);
    fs::create_dir_all(&files)?;
    for file in outputs(argv)? {
        if let Some(name) = file.file_name() {
            fs::copy(&file, files.join(name))?;
        }
    }
    fs::write(place.join(STDOUT), stdout)?;
    fs::write(place.join(STDERR), stderr)?;
    let pair =
        |(name, value): &(OsString, OsString)| [name.as_bytes(), b"=", value.as_bytes()].concat();
    let variables: Vec<Vec<u8>> = environment::all().iter().map(pair).collect();
    fs::write(place.join(VARIABLES), variables.join(&0))?;
    let arguments: Vec<&[u8]> = argv.iter().map(|a| a.as_bytes()).collect();
    fs::write(place.join(ARGUMENTS), arguments.join(&0))?;
    let cwd = environment::working_directory().unwrap_or_default();
    fs::write(place.join(WORKING_DIRECTORY), cwd.as_os_str().as_bytes())
}

/// The files that a run left.
fn outputs(argv: &[OsString]) -> io::Result<Vec<PathBuf>> {
    let Some(dir) = out_dir(argv) else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let own = entry.file_name().to_str().is_some_and(|name| owns(argv, name));
        if own && entry.file_type()?.is_file() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Puts the files of a recording back and says again what the run printed.
///
/// # Errors
/// When there is no such recording, or a file cannot be put back.
pub(super) fn restore(place: &Path, mode: Mode, argv: &[OsString]) -> io::Result<()> {
    let stderr = fs::read(place.join(STDERR))?;
    let stdout = fs::read(place.join(STDOUT))?;
    let dir = out_dir(argv).unwrap_or_default();
    fs::create_dir_all(&dir)?;
    for entry in fs::read_dir(place.join(FILES))? {
        let entry = entry?;
        let to = dir.join(entry.file_name());
        match mode {
            Mode::Link => fs::hard_link(entry.path(), to)?,
            Mode::Record | Mode::Copy => drop(fs::copy(entry.path(), to)?),
        }
    }
    report::pass_on(&stdout, &stderr);
    Ok(())
}

/// A recorded run that can be run again.
#[derive(Debug, Clone)]
pub struct Recording {
    /// Compiler and arguments.
    pub argv: Vec<OsString>,
    /// The variables it ran with.
    pub variables: Vec<(OsString, OsString)>,
    /// Where it ran.
    pub working_directory: PathBuf,
    /// Names and sizes of the files it left.
    pub files: Vec<(String, u64)>,
}

fn split(bytes: &[u8]) -> Vec<OsString> {
    bytes.split(|byte| *byte == 0).map(|part| OsString::from_vec(part.to_vec())).collect()
}

impl Recording {
    /// All recordings of a directory.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn all(dir: &Path) -> io::Result<Vec<Self>> {
        let mut places: Vec<PathBuf> =
            fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
        places.sort();
        places.iter().map(|place| Self::read(place)).collect()
    }

    fn read(place: &Path) -> io::Result<Self> {
        let pair = |text: OsString| {
            let bytes = text.as_bytes();
            let at = bytes.iter().position(|byte| *byte == b'=')?;
            let part = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
            Some((part(&bytes[..at]), part(&bytes[at + 1..])))
        };
        let variables = split(&fs::read(place.join(VARIABLES))?).into_iter().filter_map(pair);
        let mut files = Vec::new();
        for entry in fs::read_dir(place.join(FILES))? {
            let entry = entry?;
            files.push((entry.file_name().to_string_lossy().into_owned(), entry.metadata()?.len()));
        }
        let cwd = OsString::from_vec(fs::read(place.join(WORKING_DIRECTORY))?);
        Ok(Self {
            argv: split(&fs::read(place.join(ARGUMENTS))?),
            variables: variables.collect(),
            working_directory: cwd.into(),
            files,
        })
    }

    /// Bytes in all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, size)| size).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argv(out_dir: &Path) -> Vec<OsString> {
        ["rustc", "--crate-name", "ab", "-C", "extra-filename=-0f", "--out-dir"]
            .into_iter()
            .map(OsString::from)
            .chain([out_dir.into()])
            .collect()
    }

    #[test]
    fn what_a_run_left_comes_back_by_copy_and_by_link() {
        let dir = tempfile::tempdir().unwrap();
        let (out, place) = (dir.path().join("out"), dir.path().join("recordings/one"));
        fs::create_dir(&out).unwrap();
        fs::write(out.join("libab-0f.rlib"), "library").unwrap();
        fs::write(out.join("other.rlib"), "another's").unwrap();
        write(&place, &argv(&out), b"", b"").unwrap();
        for mode in [Mode::Copy, Mode::Link] {
            fs::remove_dir_all(&out).unwrap();
            restore(&place, mode, &argv(&out)).unwrap();
            assert_eq!(fs::read(out.join("libab-0f.rlib")).unwrap(), b"library");
            assert_eq!(fs::read_dir(&out).unwrap().count(), 1, "{mode:?}");
        }
        let all = Recording::all(&dir.path().join("recordings")).unwrap();
        assert_eq!(all[0].argv, argv(&out));
        assert_eq!(all[0].files, [("libab-0f.rlib".to_owned(), 7)]);
        assert_eq!(all[0].bytes(), 7);
    }

    #[test]
    fn without_a_recording_nothing_is_put_back() {
        let dir = tempfile::tempdir().unwrap();
        assert!(restore(&dir.path().join("none"), Mode::Copy, &argv(dir.path())).is_err());
    }
}
