//! The programs under measurement, built by cargo from this workspace before anything is measured.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::environment;
use crate::failure::{Failure, Outcome};
use crate::{cargo, report};

/// Where the programs are.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `kiln`.
    pub kiln: PathBuf,
    /// `replay-wrapper`.
    pub replay: PathBuf,
    /// `no-op`.
    pub no_op: PathBuf,
}

impl Programs {
    /// Brings the programs beside the running one up to date. With `kiln` that file is measured
    /// instead of this workspace's.
    ///
    /// # Errors
    /// When cargo fails, or a program is not there afterwards.
    pub fn build(kiln: Option<PathBuf>) -> Outcome<Self> {
        let unknown = || Failure::NotMeasured("the path of this program is not known".into());
        let dir = environment::program_directory().ok_or_else(unknown)?;
        let target = dir.parent().ok_or_else(unknown)?;
        let optimised = dir.file_name().is_some_and(|name| name == "release");
        if !optimised {
            report::progress("note: this is a debug build; figures need `cargo run --release`");
        }
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("Cargo.toml");
        let mut command = Command::new("cargo");
        command.args(["build", "--quiet", "--bins", "-p", "kiln-benches"]);
        if kiln.is_none() {
            command.args(["-p", "kiln"]);
        }
        command.args(optimised.then_some("--release"));
        command.arg("--manifest-path").arg(workspace).arg("--target-dir").arg(target);
        cargo::run_to_end(&mut command)?;
        // Builds go on in other directories.
        let found = |path: PathBuf| match path.canonicalize() {
            Ok(whole) if whole.is_file() => Ok(whole),
            _ => Err(Failure::NotMeasured(format!("{} is not there", path.display()))),
        };
        Ok(Self {
            kiln: found(kiln.unwrap_or_else(|| dir.join("kiln")))?,
            replay: found(dir.join("replay-wrapper"))?,
            no_op: found(dir.join("no-op"))?,
        })
    }
}
