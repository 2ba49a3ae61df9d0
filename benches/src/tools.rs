//! What other tools say of one run: instructions (valgrind) and system calls (strace), where they
//! are installed.

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;

use crate::environment;
use crate::failure::{Outcome, at, while_doing};
use crate::unit::RecordedUnit;

/// Instructions that the process executes in user space. None when valgrind is not installed.
///
/// # Errors
/// When the run cannot be started.
pub fn instructions(
    unit: &RecordedUnit,
    wrapper: &Path,
    variables: &[(&'static str, OsString)],
) -> Outcome<Option<f64>> {
    let Some(valgrind) = environment::find_program("valgrind") else {
        return Ok(None);
    };
    let tool =
        [valgrind.into(), "--tool=callgrind".into(), "--callgrind-out-file=/dev/null".into()];
    let mut command = unit.command_below(&tool, wrapper, variables);
    command.stderr(Stdio::piped());
    // valgrind sets LD_PRELOAD, which a proc macro could read: the first run is a miss that stores
    // a result for it, the second is the hit.
    unit.remove_outputs()?;
    command.output().map_err(while_doing("valgrind"))?;
    unit.remove_outputs()?;
    let output = command.output().map_err(while_doing("valgrind"))?;
    Ok(collected(&String::from_utf8_lossy(&output.stderr)))
}

/// The figure in what callgrind prints at its end.
fn collected(text: &str) -> Option<f64> {
    let figure = text.lines().find_map(|line| line.split_once("Collected : ").map(|(_, n)| n))?;
    figure.trim().parse().ok()
}

/// System calls of the process. None when strace is not installed.
///
/// # Errors
/// When the run cannot be started, or strace leaves no list.
pub fn system_calls(
    unit: &RecordedUnit,
    wrapper: &Path,
    variables: &[(&'static str, OsString)],
    list: &Path,
) -> Outcome<Option<f64>> {
    let Some(strace) = environment::find_program("strace") else {
        return Ok(None);
    };
    let tool = [strace.into(), "-qq".into(), "-o".into(), list.into()];
    unit.remove_outputs()?;
    let mut command = unit.command_below(&tool, wrapper, variables);
    command.status().map_err(while_doing("strace"))?;
    let text = std::fs::read_to_string(list).map_err(at(list))?;
    Ok(Some(text.lines().filter(|line| line.contains('(')).count() as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figure_of_callgrind_is_found() {
        let text = "==1== Events    : Ir\n==1== Collected : 1234567\n==1== \n";
        assert_eq!(collected(text), Some(1_234_567.0));
        assert_eq!(collected("valgrind: no such program"), None);
    }
}
