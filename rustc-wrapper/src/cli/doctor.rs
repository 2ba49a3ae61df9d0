//! `kiln doctor`: settings, server, store and toolchain, checked one by one, each with what to
//! change.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{ExitCode, Stdio};

use kiln_server::{Key, RemoteUrl, ServeConfig};
use kiln_storage::api::{LookupRequest, RemoteStatus, ServerInfo};
use kiln_storage::{Digest, UnitKey};

use super::{bytes, results, server, stats};
use crate::client::{Client, ClientError};
use crate::config::{Config, Mode, ServerPlace};
use crate::env::{Env, SETTINGS};
use crate::local::{self, Faults};
use crate::members::find_program;
use crate::memo::Memo;
use crate::observe::Library;
use crate::observe::seen::Subject;
use crate::{compile, say, stamp};

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Good,
    Note,
    Bad,
}

/// The lines so far, and whether one of them is bad.
#[derive(Default)]
struct Lines {
    text: String,
    noted: bool,
    bad: bool,
}

impl Lines {
    fn add(&mut self, mark: Mark, fact: &str, hint: &str) {
        let word = match mark {
            Mark::Good => "ok  ",
            Mark::Note => "note",
            Mark::Bad => "FAIL",
        };
        self.bad |= mark == Mark::Bad;
        self.noted |= mark == Mark::Note;
        self.text.push_str(&format!("{word}  {fact}\n"));
        if !hint.is_empty() {
            self.text.push_str(&format!("      hint: {hint}\n"));
        }
    }
}

pub(super) fn run(env: &Env, config: &Config) -> ExitCode {
    let mut lines = Lines::default();
    settings(env, config, &mut lines);
    match &config.dir {
        Some(dir) => directory(dir, &mut lines),
        None => lines.add(
            Mark::Bad,
            "no directory for local state",
            "set HOME or KILN_DIR; without one nothing is cached",
        ),
    }
    service(env, config, &mut lines);
    toolchain(env, &mut lines);
    if let Some(dir) = &config.dir {
        observation(env, config, dir, &mut lines);
    }
    lines.text.push_str(match (lines.bad, lines.noted) {
        (true, _) => "\nsomething is wrong: see FAIL above",
        (false, true) => "\nKiln works; see the notes above",
        (false, false) => "\nnothing is wrong",
    });
    say::result(&lines.text);
    if lines.bad { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn settings(env: &Env, config: &Config, lines: &mut Lines) {
    // What a doctor says is shown to others.
    let shown = |name: &str, value: &str| match name {
        "KILN_TOKEN" => format!("{name} (not shown)"),
        _ => format!("{name}={value}"),
    };
    let set: Vec<String> =
        SETTINGS.iter().filter_map(|s| Some(shown(s.name, env.text(s.name)?))).collect();
    let known = |name: &&str| SETTINGS.iter().any(|s| s.name == *name);
    for name in env.names().filter(|n| n.starts_with("KILN_") && !known(n)) {
        lines.add(
            Mark::Note,
            &format!("{name} is no setting of Kiln"),
            "kiln doc settings lists them all",
        );
    }
    match set.is_empty() {
        true => lines.add(Mark::Good, "settings: all defaults", ""),
        false => lines.add(Mark::Good, &format!("settings: {}", set.join(" ")), ""),
    }
    if config.server == ServerPlace::Local {
        file(config, lines);
    }
    if config.mode == Mode::Off {
        lines.add(Mark::Note, "KILN_MODE=off: nothing is cached", "unset it");
    }
    match env.text("RUSTC_WRAPPER") {
        Some(wrapper) => lines.add(Mark::Good, &format!("RUSTC_WRAPPER={wrapper}"), ""),
        None => {
            lines.add(Mark::Note, "RUSTC_WRAPPER is not set in this shell", "eval \"$(kiln env)\"")
        }
    }
    if env.text("CARGO_INCREMENTAL") != Some("0") {
        lines.add(
            Mark::Note,
            "CARGO_INCREMENTAL is not 0: workspace crates of dev builds are compiled incrementally and not cached",
            "eval \"$(kiln env)\"",
        );
    }
}

/// What the local server reads when it starts.
fn file(config: &Config, lines: &mut Lines) {
    let read = super::serve_settings(config);
    let base = ServeConfig::local(Path::new("/"), None, 0);
    match read.and_then(|settings| base.with(&settings).map(|_| settings)) {
        Ok(settings) => {
            if let Some(file) = settings.file() {
                lines.add(Mark::Good, &format!("the local server reads {}", file.display()), "");
            }
        }
        Err(error) => lines.add(
            Mark::Bad,
            &format!("the local server does not start: {error}"),
            "builds go on without it; kiln serve --check says what would be started",
        ),
    }
}

/// Whether a compiler's reads are seen, tried out with the one that `PATH` finds.
fn observation(env: &Env, config: &Config, dir: &Path, lines: &mut Lines) {
    let library = Library::open(config, dir, &Memo::open(dir));
    let tried = library.and_then(|library| try_out(env, &library));
    match tried {
        Ok(()) => lines.add(Mark::Good, "observation: what procedural macros and build scripts read is seen", ""),
        Err(why) => lines.add(
            Mark::Note,
            &format!("no observation: {why}"),
            "units with procedural macros depend on their whole workspace instead, and on nothing outside of it; build scripts run each time",
        ),
    }
}

fn try_out(env: &Env, library: &Library) -> Result<(), String> {
    let watch = library.watch(crate::limits::OBSERVER_LOG_BYTES)?;
    let tool = env.get("RUSTC").unwrap_or(OsStr::new("rustc"));
    let mut rustc = compile::command(tool, &["-vV"]);
    rustc.envs(watch.variables(env, &[])).stdin(Stdio::null());
    rustc.stdout(Stdio::null()).stderr(Stdio::null());
    let name = tool.to_string_lossy();
    rustc.status().map_err(|error| format!("{name}: {error}"))?;
    match watch.read(Subject::Compiler) {
        Ok(seen) if seen.began => Ok(()),
        Ok(_) => Err(format!("{name} does not load the observer (is it linked statically?)")),
        Err(error) => Err(format!("{name}: {error}")),
    }
}

fn directory(dir: &Path, lines: &mut Lines) {
    let probe = dir.join(format!("doctor-{}-{}", std::process::id(), stamp::now_ns()));
    let written = local::create_dir(dir).and_then(|()| std::fs::write(&probe, b"x"));
    let _ = std::fs::remove_file(&probe);
    match written {
        Ok(()) => {
            lines.add(Mark::Good, &format!("state directory {} can be written", dir.display()), "")
        }
        Err(error) => lines.add(
            Mark::Bad,
            &format!("state directory {} cannot be written: {error}", dir.display()),
            "make it writable or set KILN_DIR to another place",
        ),
    }
    let faults = Faults::new(dir);
    if faults.are_too_many() {
        lines.add(
            Mark::Note,
            "the server failed repeatedly and is left alone for five minutes",
            "kiln server start tries at once",
        );
    }
}

/// The server, when it answers as it should; a line where it does not.
fn reached(env: &Env, config: &Config, lines: &mut Lines) -> Option<(Client, ServerInfo)> {
    let mut client = match local::connect(env, config) {
        Ok(client) => client,
        Err(ClientError::Untrusted(why)) => {
            lines.add(
                Mark::Bad,
                &format!("the server is not used: {why}"),
                "docs/remote.md says whom a client trusts; builds go on without the server",
            );
            return None;
        }
        Err(error) => {
            let hint = match config.server {
                ServerPlace::Local => {
                    "server.log in the state directory says why; another program may hold the socket"
                }
                _ => "check KILN_SERVER, and that the server runs",
            };
            let fact = match error {
                ClientError::Absent(_) => error.to_string(),
                error => format!("no server: {error}"),
            };
            lines.add(Mark::Bad, &fact, hint);
            return None;
        }
    };
    match server::info(&mut client) {
        Ok(info) => Some((client, info)),
        Err(ClientError::Refused(status @ (401 | 403), why)) => {
            lines.add(
                Mark::Bad,
                &format!("the server lets nobody in like that: {why} (status {status})"),
                "KILN_TOKEN has to hold a token of this server: docs/trust.md; until then everything is compiled",
            );
            None
        }
        Err(error) => {
            let error = match error {
                ClientError::Foreign(why) => why.to_owned(),
                error => error.to_string(),
            };
            let hint = match config.server {
                ServerPlace::Local => "remove it, or set KILN_DIR to another place",
                _ => "look at KILN_SERVER and KILN_TOKEN",
            };
            let fact =
                format!("what listens at the server's place does not answer as Kiln: {error}");
            lines.add(Mark::Bad, &fact, hint);
            None
        }
    }
}

fn service(env: &Env, config: &Config, lines: &mut Lines) {
    let Some((mut client, info)) = reached(env, config, lines) else { return };
    lines.add(
        Mark::Good,
        &format!("server {} ({}), process {}", info.version, info.role, info.pid),
        "",
    );
    if info.version != env!("CARGO_PKG_VERSION") {
        lines.add(
            Mark::Note,
            &format!("this is Kiln {}", env!("CARGO_PKG_VERSION")),
            "kiln server stop lets the next build start a server of this version",
        );
    }
    if let Some(why) = &info.read_only {
        lines.add(
            Mark::Bad,
            &format!("nothing can be stored: {why}"),
            "make room or make the store writable",
        );
    }
    let remote_now = info.remote.map(|status| asked(&mut client, status));
    remote(config, remote_now.as_ref(), lines);
    if let Ok(stats) = stats::read(&mut client) {
        let budget = stats.store.budget_bytes.map_or("no budget".into(), bytes);
        let fact =
            format!("store {}: {} of {budget}", stats.store.storage, bytes(stats.store.bytes));
        lines.add(Mark::Good, &fact, "");
        if stats.quarantined > 0 {
            lines.add(
                Mark::Note,
                &format!("{} proved wrong: quarantined", results(stats.quarantined)),
                "kiln verify --quarantined lists them",
            );
        }
    }
    lines.add(
        Mark::Note,
        "whatever builds as this user shares this cache",
        "on a self-hosted runner give each trust domain a KILN_DIR of its own",
    );
}

/// How the place behind the server is, by a question to it where there was none so far: for a unit that nobody
/// has.
fn asked(client: &mut Client, status: RemoteStatus) -> RemoteStatus {
    if status.reachable.is_some() || status.left_alone.is_some() {
        return status;
    }
    let chance = format!("kiln doctor {} {}", std::process::id(), stamp::now_ns());
    let unit = UnitKey::new(Digest::of(chance.as_bytes()));
    let _ = client.lookup(&LookupRequest { units: vec![unit], ..LookupRequest::default() });
    server::info(client).ok().and_then(|info| info.remote).unwrap_or(status)
}

/// What is behind the server, as the settings name it and as the server knows it.
fn remote(config: &Config, status: Option<&RemoteStatus>, lines: &mut Lines) {
    let said = super::serve_settings(config).unwrap_or_else(|_| config.serve.clone());
    let wanted = said.get(Key::Upstream);
    let wanted = wanted.and_then(|url| RemoteUrl::parse("KILN_UPSTREAM", url).ok());
    let has = |url: &RemoteUrl| status.is_some_and(|status| status.place == url.display());
    if config.server == ServerPlace::Local && wanted.is_some_and(|url| !has(&url)) {
        lines.add(
            Mark::Note,
            "the server that runs was started with another KILN_UPSTREAM",
            "kiln server stop lets the next build start one with this",
        );
    }
    let Some(status) = status else { return };
    match (&status.left_alone, &status.not_sending) {
        (Some(why), _) => lines.add(
            Mark::Note,
            &format!("{} is left alone for a while: {why}", status.place),
            "server.log in the state directory says more",
        ),
        (None, Some(why)) => lines.add(
            Mark::Note,
            &format!("nothing is sent to {}: {why}", status.place),
            "results stay queued; docs/remote.md",
        ),
        (None, None) => match stats::trouble(status) {
            Some(why) => lines.add(
                Mark::Note,
                &format!("nothing comes from {}: {why}", status.place),
                "look at KILN_UPSTREAM, and at docs/remote.md; builds go on without it",
            ),
            None => {
                let answers = if status.reachable == Some(true) {
                    "which answers"
                } else {
                    "not asked so far"
                };
                let waits = results(status.queued);
                let fact = format!("before {}, {answers}; {waits} to be sent", status.place);
                lines.add(Mark::Good, &fact, "");
            }
        },
    }
}

fn toolchain(env: &Env, lines: &mut Lines) {
    let version = |program: &str, argument: &str| {
        let mut command = compile::command(program, &[argument]);
        let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output();
        let output = output.ok().filter(|o| o.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).lines().next()?.to_owned())
    };
    match version("rustc", "-V") {
        Some(text) => lines.add(Mark::Good, &text, ""),
        None => lines.add(Mark::Bad, "rustc cannot be run", "install Rust, or put it into PATH"),
    }
    match find_program(env, "cc") {
        Some(path) => {
            let traced =
                version(&path.to_string_lossy(), "-Wl,--dependency-file=/dev/null,--version");
            match traced {
                Some(text) => lines.add(Mark::Good, &format!("linker can be traced: {text}"), ""),
                None => lines.add(
                    Mark::Note,
                    "the linker behind cc cannot list what it reads: executables and proc macros are not cached",
                    "GNU ld 2.35 or newer, lld or mold can",
                ),
            }
        }
        None => lines.add(Mark::Note, "there is no cc in PATH", "rustc needs one to link"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_not_shown() {
        let env = Env::of_pairs([("KILN_DIR", "/k"), ("KILN_TOKEN", "secret")]);
        let mut lines = Lines::default();
        settings(&env, &Config::resolve(&env).unwrap(), &mut lines);
        assert!(lines.text.contains("KILN_DIR=/k KILN_TOKEN (not shown)"), "{}", lines.text);
        assert!(!lines.text.contains("secret"), "{}", lines.text);
    }
}
