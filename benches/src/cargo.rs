//! Running cargo: with few variables of the caller's, in a target directory of its own, timed.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use crate::environment;
use crate::failure::{Failure, Outcome, at, while_doing};

/// Most bytes of a failed program's output that are shown.
const SHOWN_BYTES: usize = 4000;

/// Runs a program and returns what it printed.
///
/// # Errors
/// When it cannot be started or fails.
pub fn run_to_end(command: &mut Command) -> Outcome<Output> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(while_doing(&program))?;
    if output.status.success() {
        return Ok(output);
    }
    let text = [output.stdout, output.stderr].concat();
    let text = &text[text.len().saturating_sub(SHOWN_BYTES)..];
    Err(Failure::Program { program, output: String::from_utf8_lossy(text).into_owned() })
}

/// A program with no variables but those that are passed on.
pub fn bare(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().envs(environment::passed_on());
    command
}

/// How a project is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// `cargo build`.
    Dev,
    /// `cargo build --release`.
    Release,
}

impl Profile {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Release => "release",
        }
    }
}

/// One way to build one project.
#[derive(Debug, Clone)]
pub struct Build {
    /// The project.
    pub project: PathBuf,
    /// How it is compiled.
    pub profile: Profile,
    /// `RUSTC_WRAPPER`, if any.
    pub wrapper: Option<PathBuf>,
    /// Its target directory.
    pub target: PathBuf,
    /// What the wrapper needs to know.
    pub variables: Vec<(&'static str, OsString)>,
}

impl Build {
    /// Empties the target directory, then builds; the seconds the build took.
    ///
    /// # Errors
    /// When the directory cannot be emptied or the build fails.
    pub fn from_nothing(&self) -> Outcome<f64> {
        wipe(&self.target)?;
        let mut command = self.command();
        command.arg("--quiet");
        let start = Instant::now();
        run_to_end(&mut command)?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// Builds on what is in the target directory, of which all has to be fresh; the seconds it took.
    ///
    /// # Errors
    /// When the build fails or compiles something.
    pub fn on_fresh(&self) -> Outcome<f64> {
        let (seconds, output) = self.timed()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        match said.lines().find(|line| line.trim_start().starts_with("Compiling")) {
            Some(line) => Err(Failure::NotMeasured(format!("not all was fresh: {line}"))),
            None => Ok(seconds),
        }
    }

    /// Builds on what is in the target directory; the seconds it took.
    ///
    /// # Errors
    /// When the build fails.
    pub fn on_what_is_there(&self) -> Outcome<f64> {
        self.timed().map(|(seconds, _)| seconds)
    }

    fn timed(&self) -> Outcome<(f64, Output)> {
        let start = Instant::now();
        let output = run_to_end(&mut self.command())?;
        Ok((start.elapsed().as_secs_f64(), output))
    }

    /// The command that builds.
    pub fn command(&self) -> Command {
        let mut command = bare("cargo");
        command.args(["build", "--offline", "--locked"]);
        command.args((self.profile == Profile::Release).then_some("--release"));
        command.current_dir(&self.project);
        command.env("CARGO_INCREMENTAL", "0").env("CARGO_TARGET_DIR", &self.target);
        command.envs(self.wrapper.iter().map(|wrapper| ("RUSTC_WRAPPER", wrapper)));
        command.envs(self.variables.iter().map(|(name, value)| (*name, value)));
        command
    }
}

/// Removes a directory with all that is in it.
///
/// # Errors
/// When something cannot be removed.
pub fn wipe(dir: &Path) -> Outcome<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(dir)(error)),
        _ => Ok(()),
    }
}
