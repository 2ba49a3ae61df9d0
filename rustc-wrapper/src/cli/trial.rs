//! `kiln try`: a cargo project built twice in throw-away targets through a throw-away cache.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use kiln_storage::api::StatsResponse;

use super::{bytes, stats, time};
use crate::client::{Address, Client};
use crate::env::{Env, SETTINGS};
use crate::{local, reasons, say, stamp};

/// Longest the server may take to note the last units of a build.
const SETTLE: Duration = Duration::from_secs(2);

/// The throw-away directory; stops its server and removes everything at the end.
struct Scratch {
    dir: PathBuf,
    env: Env,
}

impl Scratch {
    fn create(env: &Env) -> std::io::Result<Self> {
        let base = env.absolute("TMPDIR").unwrap_or_else(|| "/tmp".into());
        let dir =
            base.join(format!("kiln-try-{}-{}", std::process::id(), stamp::now_ns() / 1_000_000));
        std::fs::create_dir_all(&dir)?;
        Ok(Self { dir, env: env.clone() })
    }

    fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    fn client(&self) -> Option<Client> {
        Client::connect(&Address::Unix(local::socket(&self.env, &self.state()))).ok()
    }

    fn stats(&self) -> Option<StatsResponse> {
        stats::read(&mut self.client()?).ok()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(mut client) = self.client() {
            let _ = client.request("POST", "/v1/shutdown", b"{}", SETTLE);
        }
        let socket = local::socket(&self.env, &self.state());
        let deadline = Instant::now() + SETTLE;
        while socket.exists() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

pub(super) fn run(env: &Env, path: Option<PathBuf>, release: bool) -> ExitCode {
    let project = path.or_else(|| env.cwd.clone()).unwrap_or_else(|| ".".into());
    if !project.join("Cargo.toml").is_file() {
        say::error(
            &format!("{} is no cargo project: it has no Cargo.toml", project.display()),
            &["kiln try PATH builds the project at PATH"],
        );
        return ExitCode::from(super::USAGE);
    }
    let scratch = match Scratch::create(env) {
        Ok(scratch) => scratch,
        Err(error) => {
            say::error(
                &format!("no throw-away directory: {error}"),
                &["set TMPDIR to a writable place"],
            );
            return ExitCode::FAILURE;
        }
    };
    match builds(env, &project, release, &scratch) {
        Ok(text) => {
            say::result(&text);
            ExitCode::SUCCESS
        }
        Err((fact, hint)) => {
            say::error(&fact, &[&hint]);
            ExitCode::FAILURE
        }
    }
}

fn builds(
    env: &Env,
    project: &Path,
    release: bool,
    scratch: &Scratch,
) -> Result<String, (String, String)> {
    let kind = if release { "release" } else { "dev" };
    say::progress(&format!("Building {} ({kind}) through an empty cache ...", project.display()));
    let cold = build(env, project, release, scratch, "cold")?;
    let first = scratch.stats().unwrap_or_default();
    say::progress("Building it again into an empty target directory ...");
    let warm = build(env, project, release, scratch, "warm")?;
    let second = scratch.stats().unwrap_or_default();
    let counts = |s: &StatsResponse| {
        (s.build.units, s.build.hit_local, s.build.miss, s.build.bypass + s.build.error)
    };
    let (a, b) = (counts(&first), counts(&second));
    let mut out = format!(
        "\n{:<14}{:>10}{:>10}{:>12}{:>10}{:>12}\n",
        "", "time", "units", "from cache", "made", "not cached"
    );
    for (name, time_taken, (units, hits, miss, other)) in
        [("empty cache", cold, a), ("warm cache", warm, b)]
    {
        let taken = time(u64::try_from(time_taken.as_millis()).unwrap_or(u64::MAX));
        out.push_str(&format!("{name:<14}{taken:>10}{units:>10}{hits:>12}{miss:>10}{other:>12}\n"));
    }
    let ratio = cold.as_secs_f64() / warm.as_secs_f64().max(0.001);
    out.push_str(&format!(
        "\nThe second build took 1/{ratio:.0} of the time; {} came from the cache, which holds {}.\n",
        bytes(second.build.restored_bytes),
        bytes(second.store.bytes)
    ));
    for unit in second.missed.iter().take(5) {
        let why = reasons::note(&unit.reason).unwrap_or(&unit.reason);
        out.push_str(&format!(
            "made again: {} ({}): {why}\n",
            unit.unit.crate_name, unit.unit.kind
        ));
    }
    out.push_str("\nTo use it: eval \"$(kiln env)\", then cargo build as always; kiln stats shows the figures.");
    Ok(out)
}

fn build(
    env: &Env,
    project: &Path,
    release: bool,
    scratch: &Scratch,
    name: &str,
) -> Result<Duration, (String, String)> {
    let program = env.program.clone().ok_or_else(|| {
        ("the path of this program is not known".to_owned(), "call it by its full path".to_owned())
    })?;
    let target = scratch.dir.join(name);
    let mut command = Command::new(env.get("CARGO").unwrap_or("cargo".as_ref()));
    command.arg("build").current_dir(project).arg("--target-dir").arg(&target);
    if release {
        command.arg("--release");
    }
    for setting in SETTINGS {
        command.env_remove(setting.name);
    }
    command.env("RUSTC_WRAPPER", &program).env("CARGO_INCREMENTAL", "0");
    command.env("KILN_DIR", scratch.state()).env("KILN_IDLE", "60").stdin(Stdio::null());
    let began = Instant::now();
    let status = command.status().map_err(|error| {
        (format!("cargo cannot be run: {error}"), "install Rust, or put cargo into PATH".to_owned())
    })?;
    let took = began.elapsed();
    if !status.success() {
        let same = "cargo build without Kiln shows the same? Then it is the project; else please report it";
        return Err((format!("the build failed ({status})"), same.to_owned()));
    }
    Ok(took)
}
