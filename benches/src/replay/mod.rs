//! The blind replay: a `RUSTC_WRAPPER` that records what each rustc run left and, from then on,
//! puts it back. No hash of any content, no check, no server: the least that a wrapper can do, and
//! so what a cache is compared with. Runs of build scripts are recorded and put back in the same way.
//!
//! `KILN_BENCH_REPLAY_DIR` holds the recordings, `KILN_BENCH_REPLAY_MODE` is `record`, `copy` or
//! `link`. Like Kiln it hands the questions that cargo asks before a build (no `--crate-name`, or
//! the crate `___`) to the compiler, and what failed when it was recorded.

mod key;
mod recording;
mod script;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

pub use key::{is_probe, key, out_dir, owns, value};
pub use recording::Recording;

use crate::{environment, report};

/// The variable that names the directory of recordings.
pub const DIR: &str = "KILN_BENCH_REPLAY_DIR";
/// The variable that says what to do.
pub const MODE: &str = "KILN_BENCH_REPLAY_MODE";

/// What the tool does with a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Runs the compiler and records what it left.
    Record,
    /// Copies the files back.
    Copy,
    /// Links the files back.
    Link,
}

impl Mode {
    /// The word for [`MODE`].
    pub fn word(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Copy => "copy",
            Self::Link => "link",
        }
    }

    fn of_word(word: &str) -> Option<Self> {
        [Self::Record, Self::Copy, Self::Link].into_iter().find(|mode| mode.word() == word)
    }
}

/// The `replay-wrapper` program.
pub fn main() -> ExitCode {
    let argv = environment::arguments();
    let dir = environment::one(DIR).map(PathBuf::from);
    let mode = environment::one(MODE).and_then(|word| Mode::of_word(word.to_str()?));
    let real = script::real_program();
    let (Some(dir), Some(mode)) = (dir, mode) else {
        report::complaint(&format!("replay-wrapper: {DIR} and {MODE} must be set"));
        return ExitCode::from(2);
    };
    if let Some(real) = real {
        return script::run(&dir, mode, &real, &argv);
    }
    if argv.is_empty() {
        report::complaint("replay-wrapper: no compiler is named");
        return ExitCode::from(2);
    }
    if is_probe(&argv) {
        return become_tool(&argv);
    }
    match mode {
        Mode::Record => recording::record(&dir, &argv),
        Mode::Copy | Mode::Link => put_back(&dir, mode, &argv),
    }
}

/// Puts the front of a build script in place, after a compile.
fn put_front(argv: &[OsString]) -> ExitCode {
    match script::put_front(argv) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::complaint(&format!("replay-wrapper: {error}"));
            ExitCode::from(2)
        }
    }
}

fn put_back(dir: &Path, mode: Mode, argv: &[OsString]) -> ExitCode {
    match recording::restore(&dir.join(key(argv)), mode, argv) {
        Ok(()) => put_front(argv),
        Err(_) => become_tool(argv),
    }
}

fn become_tool(argv: &[OsString]) -> ExitCode {
    let Some((tool, arguments)) = argv.split_first() else {
        return ExitCode::from(2);
    };
    let error = Command::new(tool).args(arguments).exec();
    report::complaint(&format!("replay-wrapper: {error}"));
    ExitCode::from(127)
}
