//! `kiln verify`: a cargo project built beside the cache, its hits compiled again and compared; and
//! the results that proved wrong.

mod interrupt;
mod report;

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use kiln_storage::api::{QuarantineResponse, Quarantined, plain};
use kiln_storage::{ResultKey, limits};

use self::interrupt::Interrupt;
use self::report::Report;
use crate::client::{Client, ClientError};
use crate::config::{Config, Mode, Percent};
use crate::env::Env;
use crate::{local, say, spawn, stamp};

/// The share of hits that is checked when nobody says another.
const DEFAULT_SAMPLE: &str = "10%";
/// Longest the throw-away directory is tried to be removed.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);
/// Exit status after an interrupt, as a shell counts it.
const INTERRUPTED: u8 = 130;

/// What `kiln verify` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The project [default: the current directory]
    path: Option<PathBuf>,
    /// The share of hits that is checked, 0% to 100% [default: KILN_VERIFY, else 10%]
    #[arg(long, value_name = "N%", value_parser = |text: &str| text.parse::<Percent>())]
    sample: Option<Percent>,
    /// List the results that proved wrong and are not used any more
    #[arg(long, conflicts_with_all = ["path", "sample", "release", "cargo"])]
    quarantined: bool,
    /// Use results of this key again, or of all that are quarantined
    #[arg(long, value_name = "KEY|all", conflicts_with_all = ["path", "sample", "cargo"])]
    release: Option<String>,
    /// What cargo is called with [default: build]
    #[arg(last = true, value_name = "CARGO ARGS")]
    cargo: Vec<OsString>,
}

pub(super) fn run(env: &Env, config: &Config, arguments: &Arguments) -> ExitCode {
    let done = match (&arguments.release, arguments.quarantined) {
        (Some(what), _) => release(env, config, what),
        (None, true) => list(env, config),
        (None, false) => verify(env, config, arguments),
    };
    done.unwrap_or_else(|failure| {
        say::error(&failure.fact, &[&failure.hint]);
        ExitCode::from(failure.status)
    })
}

/// Why a command ends: a line of fact, a hint, and its exit status.
struct Failure {
    fact: String,
    hint: String,
    status: u8,
}

fn failure(fact: impl Into<String>, hint: &str) -> Failure {
    Failure { fact: fact.into(), hint: hint.to_owned(), status: 1 }
}

fn usage(fact: impl Into<String>, hint: &str) -> Failure {
    Failure { status: super::USAGE, ..failure(fact, hint) }
}

// Building -------------------------------------------------------------------------------------

fn verify(env: &Env, config: &Config, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let project = arguments.path.clone().or_else(|| env.cwd.clone()).unwrap_or_else(|| ".".into());
    if !project.is_dir() {
        return Err(usage(format!("{} is no directory", project.display()), "kiln verify PATH"));
    }
    if config.mode == Mode::Off {
        return Err(usage("KILN_MODE=off: nothing comes from the cache", "unset it"));
    }
    let share = match arguments.sample {
        Some(share) => share,
        None if config.verify > Percent::NONE => config.verify,
        None => DEFAULT_SAMPLE.parse().unwrap_or(Percent::NONE),
    };
    let interrupt = Interrupt::catch().map_err(|error| {
        failure(format!("signals cannot be caught: {error}"), "see what limits this process")
    })?;
    let scratch = Scratch::create(env).map_err(|error| {
        failure(format!("no throw-away directory: {error}"), "set TMPDIR to a writable place")
    })?;
    let cargo = match arguments.cargo.is_empty() {
        true => vec![OsString::from("build")],
        false => arguments.cargo.clone(),
    };
    let words: Vec<_> = cargo.iter().map(|word| word.to_string_lossy()).collect();
    say::progress(&format!(
        "Checking {share} of the hits of cargo {} in {} ...",
        words.join(" "),
        project.display()
    ));
    let build = Build { project: &project, share, cargo: &cargo };
    let built = scratch.build(env, config, &build, &interrupt);
    let report = Report::read(&scratch.events());
    drop(scratch);
    let status = built?;
    say::result(&report.text());
    if interrupt.came() {
        return Ok(ExitCode::from(INTERRUPTED));
    }
    if !status.success() {
        let hint = match report.wrong.is_empty() {
            true => "the same command without Kiln shows the same? Then it is the project",
            false => "a wrong result may be why: try again now that it is not used any more",
        };
        return Err(failure(format!("cargo failed ({status})"), hint));
    }
    Ok(if report.wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is built.
struct Build<'a> {
    project: &'a Path,
    share: Percent,
    /// Cargo's arguments.
    cargo: &'a [OsString],
}

/// A throw-away directory with a target directory and the events of a build; removed at the end.
struct Scratch {
    dir: PathBuf,
}

impl Scratch {
    fn create(env: &Env) -> io::Result<Self> {
        let base = env.absolute("TMPDIR").unwrap_or_else(|| "/tmp".into());
        let name = format!("kiln-verify-{}-{}", std::process::id(), stamp::now_ns() / 1_000_000);
        let dir = base.join(name);
        std::fs::create_dir_all(&dir)?;
        Ok(Self { dir })
    }

    fn events(&self) -> PathBuf {
        self.dir.join("events.jsonl")
    }

    /// Runs cargo to its end.
    fn build(
        &self,
        env: &Env,
        config: &Config,
        what: &Build<'_>,
        interrupt: &Interrupt,
    ) -> Result<ExitStatus, Failure> {
        let program = env.program.clone().ok_or_else(|| {
            failure("the path of this program is not known", "call it by its full path")
        })?;
        let target = self.dir.join("target");
        let mut command = Command::new(env.get("CARGO").unwrap_or("cargo".as_ref()));
        command.args(what.cargo).current_dir(what.project).stdin(Stdio::null());
        // By variables: they work for every command of cargo, wherever its arguments end.
        command.env("CARGO_TARGET_DIR", &target).env("CARGO_BUILD_BUILD_DIR", &target);
        command.env("RUSTC_WRAPPER", &program).env("CARGO_INCREMENTAL", "0");
        command.env("KILN_VERIFY", what.share.to_string());
        command.env("KILN_REPORT_FILE", self.events());
        if config.mode == Mode::Refresh {
            // Nothing is looked up then.
            command.env_remove("KILN_MODE");
        }
        // A group of its own, so that one signal ends all of the build.
        command.process_group(0);
        spawn::die_with_parent(&mut command);
        let child = command.spawn().map_err(|error| {
            let hint = "install Rust, or put cargo into PATH";
            failure(format!("cargo cannot be run: {error}"), hint)
        })?;
        let lost = |error| failure(format!("cargo is lost: {error}"), "try it again");
        interrupt.wait(child).map_err(lost)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What an interrupted build has left may still be writing.
        let deadline = Instant::now() + REMOVE_TIMEOUT;
        while std::fs::remove_dir_all(&self.dir).is_err()
            && self.dir.exists()
            && Instant::now() < deadline
        {
            std::thread::sleep(POLL);
        }
    }
}

// Quarantine -----------------------------------------------------------------------------------

fn connect(env: &Env, config: &Config) -> Result<Client, Failure> {
    // The list is kept by the server; one is started to read it.
    local::connect(env, config).map_err(|error| unanswered(&error))
}

fn unanswered(error: &ClientError) -> Failure {
    failure(format!("the server does not tell: {error}"), "kiln doctor looks for the reason")
}

fn response(answer: &[u8]) -> Result<QuarantineResponse, Failure> {
    serde_json::from_slice(answer).map_err(|_| unanswered(&ClientError::Foreign("quarantine")))
}

fn list(env: &Env, config: &Config) -> Result<ExitCode, Failure> {
    let mut client = connect(env, config)?;
    let answer = client.request("GET", "/v1/quarantine", &[], limits::LOOKUP_TIMEOUT);
    let listed = response(&answer.map_err(|error| unanswered(&error))?)?.quarantined;
    let now_ms = u64::try_from(stamp::now_ns() / 1_000_000).unwrap_or(0);
    let mut text = match listed.len() {
        0 => "nothing is quarantined\n".to_owned(),
        count => format!("quarantined, newest first: {count}\n"),
    };
    for one in &listed {
        text.push_str(&entry(one, now_ms));
    }
    if !listed.is_empty() {
        text.push_str(
            "\nkiln verify --release KEY uses results of a key again, --release all of all keys",
        );
    }
    say::result(&text);
    Ok(ExitCode::SUCCESS)
}

fn entry(one: &Quarantined, now_ms: u64) -> String {
    let unit = &one.unit;
    let name = format!("{} {} ({})", unit.crate_name, unit.version, unit.kind);
    let age = age(now_ms.saturating_sub(one.at_ms) / 1000);
    format!("\n{}\n  {}, {age} ago: {}\n", one.result_key, plain(&name), plain(&one.reason))
}

/// Seconds for people.
fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

fn release(env: &Env, config: &Config, what: &str) -> Result<ExitCode, Failure> {
    let one = match what {
        "all" => None,
        key => Some(key.parse::<ResultKey>().map_err(|_| {
            usage(
                format!("{} is no key", plain(key)),
                "kiln verify --quarantined lists the keys, of 64 digits each; or write all",
            )
        })?),
    };
    let path = match one {
        Some(key) => format!("/v1/quarantine/{key}"),
        None => "/v1/quarantine".to_owned(),
    };
    let mut client = connect(env, config)?;
    let count = match client.request("DELETE", &path, &[], limits::LOOKUP_TIMEOUT) {
        Ok(_) if one.is_some() => 1,
        Ok(answer) => response(&answer)?.quarantined.len(),
        Err(ClientError::Refused(404, _)) => {
            return Err(failure(
                "this key is not quarantined",
                "kiln verify --quarantined lists those that are",
            ));
        }
        Err(error) => {
            return Err(failure(
                format!("nothing is released: {error}"),
                "kiln doctor looks for the reason",
            ));
        }
    };
    say::result(&format!("released: {count}"));
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_share_is_one() {
        assert_eq!(DEFAULT_SAMPLE.parse::<Percent>().map(Percent::get), Ok(10));
    }

    #[test]
    fn ages_for_people() {
        assert_eq!([59, 60, 7200, 86_400 * 3].map(age), ["59 s", "1 min", "2 h", "3 d"]);
    }
}
