//! [`Failure`]: why a bench could not measure.

use std::io;
use std::path::Path;

/// Why a bench could not measure.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The system refused something.
    #[error("{what}: {error}")]
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        error: io::Error,
    },
    /// A program ended with a failure.
    #[error("{program} failed:\n{output}")]
    Program {
        /// Which.
        program: String,
        /// The end of what it printed.
        output: String,
    },
    /// What should have been measured did not happen.
    #[error("{0}")]
    NotMeasured(String),
}

/// What a bench returns.
pub type Outcome<T> = Result<T, Failure>;

/// Names a path in an error of the system; for `map_err`.
pub fn at(path: &Path) -> impl FnOnce(io::Error) -> Failure {
    let what = path.display().to_string();
    move |error| Failure::System { what, error }
}

/// Names an action in an error of the system; for `map_err`.
pub fn while_doing(what: &str) -> impl FnOnce(io::Error) -> Failure {
    let what = what.to_owned();
    move |error| Failure::System { what, error }
}
