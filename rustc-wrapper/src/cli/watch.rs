//! `kiln watch`: a run while it goes on: its jobs, what became of their units, who compiles what. In place on a
//! terminal, elsewhere a line for each change.
//!
//! The server is asked again and again ([`ask`]); what is shown is made by [`text`] and put on the screen by
//! [`screen`]. Nothing about the terminal is changed that would have to be put back, so it may be interrupted at any
//! moment.

mod ask;
mod screen;
mod text;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use kiln_storage::api::Lease;
use kiln_storage::api::watch::RunNow;

use super::time;
use crate::client::ClientError;
use crate::config::Config;
use crate::env::Env;
use crate::limits::{WATCH_EVERY, WATCH_EVERY_IN_LOG, WATCH_UNTIL_QUIET};
use crate::say;
use ask::{Asker, Found};
use screen::Screen;
use text::Told;

/// `kiln watch`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The run [default: the one that is under way here, else the newest that goes on, then each that begins]
    run: Option<String>,
    /// Print how it stands, and end
    #[arg(long)]
    once: bool,
    /// End when nothing was heard of it for so long, or `never` [default: 600]
    #[arg(long, value_name = "SECONDS", value_parser = until_quiet)]
    until_quiet: Option<UntilQuiet>,
    /// Look again after so long [default: 1 on a terminal, else 10]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    every: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct UntilQuiet(Option<Duration>);

fn until_quiet(text: &str) -> Result<UntilQuiet, String> {
    match (text, text.parse::<u64>()) {
        ("never", _) => Ok(UntilQuiet(None)),
        (_, Ok(seconds @ 1..)) => Ok(UntilQuiet(Some(Duration::from_secs(seconds)))),
        _ => Err("whole seconds, e.g. 600, or never".to_owned()),
    }
}

/// How a run stands.
#[derive(Debug, Default)]
pub(super) struct View {
    /// As the server told it last; none: there is none yet.
    now: Option<RunNow>,
    /// Who compiles what in it.
    leases: Vec<Lease>,
    /// How long ago it was told.
    age: Duration,
    /// Why there is nothing newer.
    notice: Option<Notice>,
}

/// Why nothing is told of a run, or nothing newer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Notice {
    /// There is nothing yet.
    Waits(String),
    /// The server does not answer.
    Fault(String),
}

impl Notice {
    /// For people.
    fn text(&self) -> &str {
        match self {
            Self::Waits(text) | Self::Fault(text) => text,
        }
    }
}

impl View {
    /// For how long nothing happened, as far as it is known.
    fn quiet(&self) -> Duration {
        match &self.now {
            Some(now) if self.leases.is_empty() => {
                self.age.saturating_add(Duration::from_millis(now.quiet_ms))
            }
            _ => self.age,
        }
    }
}

/// Why watching ends.
enum End {
    /// How it stands was told once.
    Told,
    /// Nobody reads what is printed.
    Unread,
    /// Nothing happened for long.
    Quiet(Duration),
}

pub(super) fn run(env: &Env, config: &Config, arguments: &Arguments) -> ExitCode {
    let mut asker = Asker::new(env, config, arguments.run.clone());
    let mut screen = Screen::find(env);
    let (mut view, mut told) = (View::default(), Told::default());
    let mut heard = Instant::now();
    let every = match screen.is_terminal() {
        true => WATCH_EVERY,
        false => WATCH_EVERY_IN_LOG,
    };
    let every = arguments.every.map_or(every, Duration::from_secs);
    let until_quiet = match arguments.until_quiet {
        Some(UntilQuiet(until)) => until,
        None => Some(WATCH_UNTIL_QUIET),
    };
    let end = loop {
        match asker.look(view.quiet()) {
            Ok(Found::Run { now, leases }) => {
                heard = Instant::now();
                view = View { now: Some(*now), leases, ..View::default() };
            }
            Ok(Found::None { missing, waits_for }) => {
                let waits_for = waits_for.filter(|_| !arguments.once);
                let then = waits_for.map_or(String::new(), |what| format!("; waiting for {what}"));
                view.notice = Some(Notice::Waits(missing + &then));
            }
            Err(error) if !asker.was_answered() => return fails(&error),
            Err(error) => {
                let why = format!("the server does not answer ({error}); trying again");
                view.notice = Some(Notice::Fault(why));
            }
        }
        view.age = heard.elapsed();
        if arguments.once {
            break End::Told;
        }
        let is_read = match screen.size() {
            Some(size) => screen.draw(&text::frame(&view, Some(size)), size, told.is_other(&view)),
            None => told.changes(&view).iter().try_for_each(|line| say::live(&format!("{line}\n"))),
        };
        match until_quiet {
            _ if is_read.is_err() => break End::Unread,
            Some(until) if view.quiet() >= until => break End::Quiet(until),
            _ => std::thread::sleep(every),
        }
    };
    ended(&end, &view)
}

/// What is said at the end.
fn ended(end: &End, view: &View) -> ExitCode {
    match (end, &view.now, &view.notice) {
        (End::Unread, ..) => return ExitCode::SUCCESS,
        (End::Told, Some(_), None) => say::result(&text::frame(view, None).join("\n")),
        (End::Quiet(until), Some(now), None) => {
            let until = time(u64::try_from(until.as_millis()).unwrap_or(u64::MAX));
            say::result(&format!("nothing was heard of run {} for {until}", say::inline(&now.run)));
        }
        (_, _, notice) => {
            let hint =
                "a build with Kiln makes a run; units that cargo finds fresh are not counted";
            let why = notice.as_ref().map(Notice::text).unwrap_or_default();
            say::error(&format!("nothing to watch: {why}"), &[hint]);
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn fails(error: &ClientError) -> ExitCode {
    say::error(&format!("nothing to watch: {error}"), &["kiln doctor looks for the reason"]);
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_until_it_ends_is_read() {
        assert_eq!(until_quiet("5"), Ok(UntilQuiet(Some(Duration::from_secs(5)))));
        assert_eq!(until_quiet("never"), Ok(UntilQuiet(None)));
        for bad in ["", "0", "-1", "1m", "NEVER", "99999999999999999999999"] {
            assert!(until_quiet(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_run_is_not_quiet_while_something_is_compiled() {
        let now = RunNow { quiet_ms: 5000, ..RunNow::default() };
        let mut view = View { now: Some(now), age: Duration::from_secs(1), ..View::default() };
        assert_eq!(view.quiet(), Duration::from_secs(6));
        view.leases.push(Lease {
            unit: Default::default(),
            holder: Default::default(),
            waiting: Vec::new(),
        });
        assert_eq!(view.quiet(), Duration::from_secs(1));
    }
}
