//! [`Kiln`]: a state directory of its own for one bench, and the server that goes with it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use kiln_storage::api::StatsResponse;

use crate::cargo::{Build, Profile, bare, run_to_end, wipe};
use crate::failure::{Failure, Outcome};

/// A `kiln` program with a state directory. Its server is stopped when this goes.
#[derive(Debug)]
pub struct Kiln {
    program: PathBuf,
    dir: PathBuf,
    more: Vec<(&'static str, OsString)>,
}

impl Kiln {
    /// A Kiln that has stored nothing.
    pub fn new(program: &Path, dir: PathBuf) -> Self {
        Self { program: program.to_owned(), dir, more: Vec::new() }
    }

    /// The same with more settings.
    #[must_use]
    pub fn with(mut self, more: Vec<(&'static str, OsString)>) -> Self {
        self.more = more;
        self
    }

    /// The program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The state directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the wrapper needs to know.
    pub fn variables(&self) -> Vec<(&'static str, OsString)> {
        let mut variables = vec![("KILN_DIR", self.dir.clone().into())];
        variables.extend(self.more.iter().cloned());
        variables
    }

    /// A command of this Kiln.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = bare(&self.program);
        command.args(arguments).envs(self.variables());
        command
    }

    /// A build through this Kiln.
    pub fn build(&self, project: &Path, profile: Profile, target: PathBuf) -> Build {
        Build {
            project: project.to_owned(),
            profile,
            wrapper: Some(self.program.clone()),
            target,
            variables: self.variables(),
        }
    }

    /// What the server counted.
    ///
    /// # Errors
    /// When no server answers.
    pub fn stats(&self) -> Outcome<StatsResponse> {
        let output = run_to_end(&mut self.command(&["stats", "--format", "json"]))?;
        serde_json::from_slice(&output.stdout)
            .map_err(|error| Failure::NotMeasured(format!("kiln stats: {error}")))
    }

    /// Stops the server, if one runs.
    ///
    /// # Errors
    /// When it does not stop.
    pub fn stop(&self) -> Outcome<()> {
        run_to_end(&mut self.command(&["server", "stop"])).map(drop)
    }

    /// Stops the server and forgets everything stored.
    ///
    /// # Errors
    /// When it does not stop, or a file cannot be removed.
    pub fn forget(&self) -> Outcome<()> {
        self.stop()?;
        wipe(&self.dir)
    }
}

impl Drop for Kiln {
    fn drop(&mut self) {
        // One that cannot be stopped leaves when it is idle or its directory is gone.
        let _ = self.stop();
    }
}
