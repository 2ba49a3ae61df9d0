//! One recorded rustc run, run again and again through different wrappers.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::failure::{Failure, Outcome, at, while_doing};
use crate::replay::{Recording, out_dir, value};

/// Variables of the recorded run that name descriptors which are no longer there, or were the
/// recorder's.
const LEFT_OUT: [&str; 3] = ["CARGO_MAKEFLAGS", "MAKEFLAGS", "RUSTC_WRAPPER"];

/// A recorded run, with a name for the table.
#[derive(Debug, Clone)]
pub struct RecordedUnit {
    /// What it is, for people.
    pub name: String,
    /// The run.
    pub recording: Recording,
}

impl RecordedUnit {
    fn new(what: &str, recording: &Recording) -> Self {
        let krate = value(&recording.argv, "--crate-name").unwrap_or_default().to_string_lossy();
        let kib = recording.bytes() / 1024;
        let externs = externs(recording);
        Self {
            name: format!("{what} ({krate}: {kib} KiB, {externs} externs)"),
            recording: recording.clone(),
        }
    }

    /// Small and large library, and the run with the most externs.
    pub fn choose(recordings: &[Recording]) -> Vec<Self> {
        let libraries = || {
            recordings.iter().filter(|r| value(&r.argv, "--crate-type").is_some_and(|t| t == "lib"))
        };
        let chosen = [
            ("small library", libraries().min_by_key(|r| r.bytes())),
            ("large library", libraries().max_by_key(|r| r.bytes())),
            ("most externs", recordings.iter().max_by_key(|r| externs(r))),
        ];
        chosen.into_iter().filter_map(|(what, found)| Some(Self::new(what, found?))).collect()
    }

    /// The command that runs it through a wrapper.
    pub fn command(&self, wrapper: &Path, variables: &[(&'static str, OsString)]) -> Command {
        let mut command = Command::new(wrapper);
        self.complete(&mut command, variables);
        command
    }

    /// The command that runs it through a wrapper below a tool.
    pub fn command_below(
        &self,
        tool: &[OsString],
        wrapper: &Path,
        variables: &[(&'static str, OsString)],
    ) -> Command {
        let (program, arguments) = match tool.split_first() {
            Some((program, arguments)) => (program.as_os_str(), arguments),
            None => (OsStr::new(""), tool),
        };
        let mut command = Command::new(program);
        command.args(arguments).arg(wrapper);
        self.complete(&mut command, variables);
        command
    }

    fn complete(&self, command: &mut Command, variables: &[(&'static str, OsString)]) {
        let recorded = self.recording.variables.iter();
        command.args(&self.recording.argv).current_dir(&self.recording.working_directory);
        command.env_clear();
        command
            .envs(recorded.filter(|(name, _)| !LEFT_OUT.iter().any(|left| name == left)).cloned());
        command.envs(variables.iter().map(|(name, value)| (*name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    }

    /// Removes what the run leaves.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn remove_outputs(&self) -> Outcome<()> {
        let Some(dir) = out_dir(&self.recording.argv) else {
            return Ok(());
        };
        for (name, _) in &self.recording.files {
            let file = dir.join(name);
            match fs::remove_file(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(at(&file)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Milliseconds of one run from nothing, as whoever starts it sees them.
    ///
    /// # Errors
    /// When it cannot be started or fails.
    pub fn time(&self, command: &mut Command) -> Outcome<f64> {
        self.remove_outputs()?;
        let start = Instant::now();
        let status = command.status().map_err(while_doing("starting a wrapper"))?;
        let took = start.elapsed();
        match status.success() {
            true => Ok(took.as_secs_f64() * 1000.0),
            false => Err(Failure::NotMeasured(format!("{} failed: {status}", self.name))),
        }
    }

    /// The sizes of all outputs that are there.
    pub fn output_bytes(&self) -> u64 {
        let dir = out_dir(&self.recording.argv).unwrap_or_default();
        let size = |name: &String| fs::metadata(dir.join(name)).map_or(0, |meta| meta.len());
        self.recording.files.iter().map(|(name, _)| size(name)).sum()
    }
}

fn externs(recording: &Recording) -> usize {
    recording.argv.iter().filter(|argument| *argument == "--extern").count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recording(argv: &str, size: u64) -> Recording {
        Recording {
            argv: argv.split(' ').map(OsString::from).collect(),
            variables: vec![("A".into(), "1".into()), ("MAKEFLAGS".into(), "-j".into())],
            working_directory: "/".into(),
            files: vec![("f".into(), size)],
        }
    }

    #[test]
    fn three_units_are_chosen() {
        let all = [
            recording("rustc --crate-name a --crate-type lib", 10_240),
            recording("rustc --crate-name b --crate-type lib", 20_480),
            recording("rustc --crate-name c --crate-type lib", 15_000),
            recording("rustc --crate-name d --crate-type bin --extern a --extern b", 1),
        ];
        let names: Vec<String> = RecordedUnit::choose(&all).into_iter().map(|u| u.name).collect();
        assert!(names[0].starts_with("small library (a: 10 KiB, 0 externs)"), "{names:?}");
        assert!(names[1].starts_with("large library (b"), "{names:?}");
        assert!(names[2].starts_with("most externs (d: 0 KiB, 2 externs)"), "{names:?}");
    }

    #[test]
    fn the_command_is_the_recorded_one_without_stale_descriptors() {
        let unit = RecordedUnit::new("x", &recording("rustc --crate-name a", 1));
        let command = unit.command(Path::new("/w"), &[("K", "2".into())]);
        let arguments: Vec<&OsStr> = command.get_args().collect();
        assert_eq!(arguments, ["rustc", "--crate-name", "a"]);
        let names: Vec<&OsStr> =
            command.get_envs().filter(|(_, v)| v.is_some()).map(|(n, _)| n).collect();
        assert_eq!(names, ["A", "K"]);
    }
}
