//! `kiln server start|stop|status`: the local server.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Subcommand;
use kiln_server::Key;
use kiln_server::config::parse_drain;
use kiln_server::limits::DEFAULT_DRAIN;
use kiln_storage::api::{DrainRequest, RemoteStatus, ServerInfo, ShutdownRequest};
use kiln_storage::limits;

use super::{bytes, results, were};
use crate::client::{Client, ClientError};
use crate::config::{Config, ServerPlace};
use crate::env::Env;
use crate::local::{self, Faults};
use crate::say;

/// Longest `stop` waits for the server to be gone.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
/// After so long the progress of sending is said again.
const DRAIN_STEP: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(10);

/// What to do with the server.
#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Start it, unless it runs
    Start,
    /// Stop it after it has stored what it was given, and sent it where something is behind it
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
///
/// # Errors
/// Nobody, or none of Kiln.
pub(super) fn info(client: &mut Client) -> Result<ServerInfo, ClientError> {
    let answer = client.request("GET", "/v1/server", &[], limits::LOOKUP_TIMEOUT)?;
    let info = serde_json::from_slice(&answer).ok().filter(|info: &ServerInfo| info.name == "kiln");
    info.ok_or(ClientError::Foreign("who listens there is another program"))
}

fn start(env: &Env, config: &Config) -> ExitCode {
    if let Some(dir) = &config.dir {
        Faults::new(dir).clear();
    }
    // One that was killed a moment ago still takes connections, and breaks them.
    let begun = || local::connect(env, config).and_then(|mut client| info(&mut client));
    let first = begun();
    let started = if matches!(first, Err(ClientError::Broken(_))) { begun() } else { first };
    match started {
        Err(error @ (ClientError::Absent(_) | ClientError::Broken(_))) => {
            say::error(
                &format!("the server does not start: {error}"),
                &["kiln doctor looks for the reason"],
            );
            ExitCode::FAILURE
        }
        // Who listens there, whatever it is.
        _ => status(env, config),
    }
}

fn stop(env: &Env, config: &Config) -> ExitCode {
    let Ok(mut client) = super::connect(env, config) else {
        say::result("no server is running");
        return ExitCode::SUCCESS;
    };
    let Ok(info) = info(&mut client) else {
        say::error("what listens there is not Kiln", &[]);
        return ExitCode::FAILURE;
    };
    let left = info.remote.is_some().then(|| drain(env, config)).flatten();
    // What could not be sent in this time is not tried again.
    let order = serde_json::to_vec(&ShutdownRequest { at_once: true }).unwrap_or_default();
    let asked = super::connect(env, config).and_then(|mut client| {
        client.request("POST", "/v1/shutdown", &order, limits::LOOKUP_TIMEOUT)
    });
    if let Err(error) = asked {
        say::error(&format!("the server does not take the order: {error}"), &[]);
        return ExitCode::FAILURE;
    }
    let deadline = Instant::now() + STOP_TIMEOUT;
    while Instant::now() < deadline {
        if !std::path::Path::new(&format!("/proc/{}", info.pid)).exists() {
            say::result("stopped");
            left.iter().for_each(tell_left);
            return ExitCode::SUCCESS;
        }
        std::thread::sleep(POLL);
    }
    say::error(&format!("the server (process {}) is still running", info.pid), &[]);
    ExitCode::FAILURE
}

/// Has the server send what waits to be sent, for the time that the settings give it; how far it came.
fn drain(env: &Env, config: &Config) -> Option<RemoteStatus> {
    // What its server was started with, as a rule.
    let said = super::serve_settings(config).unwrap_or_else(|_| config.serve.clone());
    let within = said.get(Key::Drain).and_then(|text| parse_drain(text).ok());
    let deadline = Instant::now() + within.unwrap_or(DEFAULT_DRAIN);
    let (mut last, mut said) = (None, String::new());
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let within = left.min(DRAIN_STEP);
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let asked = super::connect(env, config).and_then(|mut client| {
            let timeout = within + limits::LOOKUP_TIMEOUT;
            let request = DrainRequest { within_ms: millis(within), in_all_ms: millis(left) };
            client.json::<_, RemoteStatus>("POST", "/v1/drain", &request, timeout)
        });
        let Ok(status) = asked else { return last };
        let sent = status.queued == 0 && !status.packing;
        let ended = sent || status.not_sending.is_some() || left.is_zero();
        if !ended {
            let text = match status.queued {
                0 => format!("sending packs of what was used to {}", status.place),
                queued => {
                    let bytes = bytes(status.queued_bytes);
                    format!("sending {} ({bytes}) to {}", results(queued), status.place)
                }
            };
            if text != said {
                say::progress(&text);
                said = text;
            }
        }
        last = Some(status);
        if ended {
            return last;
        }
    }
}

/// Says what was not sent.
fn tell_left(status: &RemoteStatus) {
    let place = &status.place;
    if status.sent > 0 {
        let (sent, were) = (results(status.sent), were(status.sent));
        say::result(&format!("{sent} {were} sent to {place}"));
    }
    if status.queued > 0 {
        let why = status.not_sending.as_deref().unwrap_or("the time for it is over");
        say::warning(
            &format!(
                "{} ({}) not sent to {place}: {why}",
                results(status.queued),
                bytes(status.queued_bytes)
            ),
            &["they stay queued in KILN_DIR, and are sent when its server runs again"],
        );
    }
    if status.lost > 0 {
        let why = status.lost_why.as_deref().unwrap_or("unknown");
        say::warning(
            &format!(
                "{} {} not sent to {place} and never will be; the last: {why}",
                results(status.lost),
                were(status.lost)
            ),
            &["they are stored on this machine"],
        );
    } else if let Some(why) = &status.lost_why {
        say::warning(why, &["what is lost to the place is stored on this machine"]);
    }
}

/// Says what is behind the server.
fn tell_remote(status: &RemoteStatus) {
    let state = match (&status.left_alone, status.reachable) {
        (Some(why), _) => format!("left alone for a while: {why}"),
        (None, Some(true)) => "answers".to_owned(),
        (None, Some(false)) => {
            let why = status.fault.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            format!("did not answer last{why}")
        }
        (None, None) => "not asked so far".to_owned(),
    };
    say::result(&format!("before {}: {state}", status.place));
    let oldest = status.oldest_ms.map(|ms| format!(", the oldest for {} s", ms / 1000));
    say::result(&format!(
        "to be sent: {} ({}){}; sent {}, lost {}",
        results(status.queued),
        bytes(status.queued_bytes),
        oldest.unwrap_or_default(),
        status.sent,
        status.lost
    ));
    if let Some(why) = &status.lost_why {
        say::result(&format!("lost: {why}"));
    }
    if let Some(why) = &status.not_sending {
        say::result(&format!("nothing is sent: {why}"));
    }
    say::result(&format!(
        "came from there: {}; {} in, {} out, {} requests",
        results(status.arrived),
        bytes(status.bytes_in),
        bytes(status.bytes_out),
        status.requests
    ));
}

fn status(env: &Env, config: &Config) -> ExitCode {
    let place = match local::address(env, config) {
        Some(address) => address.to_string(),
        None => "nowhere".into(),
    };
    let info = super::connect(env, config).and_then(|mut client| info(&mut client));
    match info {
        Ok(info) => {
            let idle =
                info.idle_s.map_or("never leaves".into(), |s| format!("leaves after {s} s idle"));
            say::result(&format!(
                "running: {} {} ({}), process {}, up {} s, {idle}, at {place}",
                info.name, info.version, info.role, info.pid, info.uptime_s
            ));
            if let Some(why) = info.read_only {
                say::result(&format!("nothing can be stored: {why}"));
            }
            info.remote.iter().for_each(tell_remote);
            ExitCode::SUCCESS
        }
        Err(ClientError::Absent(_)) => {
            say::result(&format!("not running at {place}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            say::result(&format!("not to be asked at {place}: {error}"));
            ExitCode::FAILURE
        }
    }
}
