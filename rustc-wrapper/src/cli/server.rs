//! `kiln server start|stop|status`: the local server.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Subcommand;
use kiln_storage::api::ServerInfo;
use kiln_storage::limits;

use crate::client::Client;
use crate::config::{Config, ServerPlace};
use crate::env::Env;
use crate::local::{self, Faults};
use crate::say;

/// Longest `stop` waits for the server to be gone.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(10);

/// What to do with the server.
#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Start it, unless it runs
    Start,
    /// Stop it after it has stored what it was given
    Stop,
    /// Say whether it runs
    Status,
}

pub(super) fn run(env: &Env, config: &Config, action: &Action) -> ExitCode {
    if config.server != ServerPlace::Local && !matches!(action, Action::Status) {
        say::error("KILN_SERVER names another server", &["unset it to manage the local one"]);
        return ExitCode::FAILURE;
    }
    match action {
        Action::Start => start(env, config),
        Action::Stop => stop(env, config),
        Action::Status => status(env, config),
    }
}

/// Who answers.
pub(super) fn info(client: &mut Client) -> Option<ServerInfo> {
    let answer = client.request("GET", "/v1/server", &[], limits::LOOKUP_TIMEOUT).ok()?;
    serde_json::from_slice(&answer).ok().filter(|info: &ServerInfo| info.name == "kiln")
}

fn start(env: &Env, config: &Config) -> ExitCode {
    if let Some(dir) = &config.dir {
        Faults::new(dir).clear();
    }
    match local::connect(env, config) {
        Ok(_) => status(env, config),
        Err(error) => {
            say::error(
                &format!("the server does not start: {error}"),
                &["kiln doctor looks for the reason"],
            );
            ExitCode::FAILURE
        }
    }
}

fn stop(env: &Env, config: &Config) -> ExitCode {
    let Ok(mut client) = super::connect(env, config) else {
        say::result("no server is running");
        return ExitCode::SUCCESS;
    };
    let Some(info) = info(&mut client) else {
        say::error("what listens there is not Kiln", &[]);
        return ExitCode::FAILURE;
    };
    let asked = super::connect(env, config).and_then(|mut client| {
        client.request("POST", "/v1/shutdown", b"{}", limits::LOOKUP_TIMEOUT)
    });
    if let Err(error) = asked {
        say::error(&format!("the server does not take the order: {error}"), &[]);
        return ExitCode::FAILURE;
    }
    let deadline = Instant::now() + STOP_TIMEOUT;
    while Instant::now() < deadline {
        if !std::path::Path::new(&format!("/proc/{}", info.pid)).exists() {
            say::result("stopped");
            return ExitCode::SUCCESS;
        }
        std::thread::sleep(POLL);
    }
    say::error(&format!("the server (process {}) is still running", info.pid), &[]);
    ExitCode::FAILURE
}

fn status(env: &Env, config: &Config) -> ExitCode {
    let place = match local::address(env, config) {
        Some(address) => format!("{address:?}"),
        None => "nowhere".into(),
    };
    let info = super::connect(env, config).ok().and_then(|mut client| info(&mut client));
    match info {
        Some(info) => {
            let idle =
                info.idle_s.map_or("never leaves".into(), |s| format!("leaves after {s} s idle"));
            say::result(&format!(
                "running: {} {} ({}), process {}, up {} s, {idle}, at {place}",
                info.name, info.version, info.role, info.pid, info.uptime_s
            ));
            if let Some(why) = info.read_only {
                say::result(&format!("nothing can be stored: {why}"));
            }
            ExitCode::SUCCESS
        }
        None => {
            say::result(&format!("not running at {place}"));
            ExitCode::FAILURE
        }
    }
}
