//! The command line of `kiln-benches`: which benches run, and how often.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::cargo::Profile;
use crate::failure::{Outcome, while_doing};
use crate::programs::Programs;
use crate::{
    cold, fresh, observation, project, report, runs, scripts, server, together, warm, wrapper,
};

/// Pairs of warm builds.
const WARM_PAIRS: usize = 11;
/// Pairs of cold builds.
const COLD_PAIRS: usize = 3;
/// Pairs of compiles.
const OBSERVED_PAIRS: usize = 15;
/// Rounds of lookups and of blobs.
const SERVER_ROUNDS: usize = 9;
/// Pairs of builds on a fresh machine.
const FRESH_PAIRS: usize = 5;
/// Runs in a history.
const RUNS: usize = 50;
/// Runs of one hit.
const HITS: usize = 200;

#[derive(Debug, Parser)]
#[command(
    name = "kiln-benches",
    about = "Measures Kiln against something else in the same run, and prints the ratios",
    after_help = "Without a command all benches but fresh and report run, which takes about a quarter of an hour."
)]
struct CommandLine {
    #[command(subcommand)]
    bench: Option<Bench>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Args)]
struct Options {
    /// Measure this program instead of the one built from this workspace
    #[arg(long, global = true, value_name = "PATH")]
    kiln: Option<PathBuf>,
    /// Repeat so often instead of the bench's own number of times
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    times: Option<u16>,
    /// Only this profile of cargo: dev or release
    #[arg(long, global = true, value_parser = profile)]
    profile: Option<Profile>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
enum Bench {
    /// All of them but `fresh`, which needs moto, and `report`
    All,
    /// A fresh machine with a warm bucket against an archive of the target directory
    Fresh,
    /// A warm build against the blind replay of it
    Warm,
    /// A build with an empty cache against one without Kiln
    Cold,
    /// One hit as a whole process
    Wrapper,
    /// A compile with and without observation
    Observation,
    /// A project with C libraries: build scripts answered, and observed
    Scripts,
    /// Cold jobs that start together against the same jobs without Kiln
    Together,
    /// Lookups and blobs of a server
    Server,
    /// Reports: events taken, reports and pages made, the size of the history; `--times` is the number of runs in it
    Report,
    /// The blind replay alone: what there is to gain
    Replay,
}

fn profile(text: &str) -> Result<Profile, String> {
    let all = [Profile::Dev, Profile::Release];
    all.into_iter().find(|p| p.name() == text).ok_or_else(|| "expected dev or release".to_owned())
}

/// The `kiln-benches` program.
pub fn main() -> ExitCode {
    let line = CommandLine::parse();
    match run(line.bench.unwrap_or(Bench::All), line.options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report::complaint(&failure.to_string());
            ExitCode::FAILURE
        }
    }
}

fn run(bench: Bench, options: Options) -> Outcome<()> {
    let profiles = match options.profile {
        Some(profile) => vec![profile],
        None => vec![Profile::Dev, Profile::Release],
    };
    let times = |own: usize| options.times.map_or(own, usize::from);
    let programs = Programs::build(options.kiln.clone())?;
    let empty = || tempfile::tempdir().map_err(while_doing("making a temporary directory"));
    let sources = empty()?;
    let wants = |one: Bench| bench == one || bench == Bench::All;
    if wants(Bench::Server) {
        server::run(&programs.kiln, empty()?.path(), times(SERVER_ROUNDS))?;
    }
    if bench == Bench::Server {
        return Ok(());
    }
    if bench == Bench::Report {
        return runs::run(&programs.kiln, empty()?.path(), times(RUNS));
    }
    if bench == Bench::Fresh {
        let pairs = times(FRESH_PAIRS);
        let project = project::fetch(sources.path())?;
        fresh::run(&programs, ("ripgrep", &project), empty()?.path(), pairs)?;
        let project = project::with_c_libraries(sources.path())?;
        return fresh::run(&programs, ("C libraries", &project), empty()?.path(), pairs);
    }
    if wants(Bench::Scripts) {
        let project = project::with_c_libraries(sources.path())?;
        for profile in &profiles {
            scripts::warm(&programs, &project, *profile, empty()?.path(), times(WARM_PAIRS))?;
        }
        scripts::cold(&programs, &project, empty()?.path(), times(COLD_PAIRS))?;
    }
    if bench == Bench::Scripts {
        return Ok(());
    }
    let project = project::fetch(sources.path())?;
    if bench == Bench::Replay {
        for profile in &profiles {
            warm::floor(&programs, &project, *profile, empty()?.path(), times(WARM_PAIRS))?;
        }
    }
    if wants(Bench::Wrapper) {
        wrapper::run(&programs, &project, empty()?.path(), times(HITS))?;
    }
    if wants(Bench::Observation) {
        observation::run(&programs, &project, empty()?.path(), times(OBSERVED_PAIRS))?;
    }
    if wants(Bench::Together) {
        together::run(&programs, &project, empty()?.path(), times(COLD_PAIRS))?;
    }
    for profile in &profiles {
        if wants(Bench::Warm) {
            warm::run(&programs, &project, *profile, empty()?.path(), times(WARM_PAIRS))?;
        }
    }
    for profile in &profiles {
        if wants(Bench::Cold) {
            cold::run(&programs, &project, *profile, empty()?.path(), times(COLD_PAIRS))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }
}
