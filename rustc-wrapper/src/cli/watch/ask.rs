//! [`Asker`]: which run is watched, and what the server says of it.
//!
//! Each look is a small request or two on one connection. A server that is gone is asked again; only the first time
//! one is started, so that whoever stops it has it stopped.

use std::collections::BTreeSet;
use std::time::Duration;

use kiln_storage::api::report::{RunSummary, RunsResponse};
use kiln_storage::api::watch::RunNow;
use kiln_storage::api::{Lease, LeasesResponse, plain};
use kiln_storage::limits::REPORT_TIMEOUT;
use serde::de::DeserializeOwned;

use super::super::connect;
use super::super::explain::in_query;
use super::super::report::under_way;
use crate::client::{Client, ClientError};
use crate::config::Config;
use crate::env::Env;
use crate::limits::{WATCH_CANDIDATES, WATCH_GOING, WATCH_SETTLED, WATCH_TIMEOUT};
use crate::local;

/// What a look found.
#[derive(Debug)]
pub(super) enum Found {
    /// A run.
    Run {
        /// How it stands.
        now: Box<RunNow>,
        /// Who compiles what in it.
        leases: Vec<Lease>,
    },
    /// None yet.
    None {
        /// What there is not.
        missing: String,
        /// What is waited for, where it may come.
        waits_for: Option<&'static str>,
    },
}

/// Asks a server about a run.
pub(super) struct Asker<'a> {
    env: &'a Env,
    config: &'a Config,
    client: Option<Client>,
    /// The run that was named; else each that begins is watched.
    named: Option<String>,
    /// The run that is watched.
    run: Option<String>,
    /// What the runs were at the last look for one that began.
    known: Option<BTreeSet<String>>,
    /// The server has leases.
    has_leases: bool,
    was_answered: bool,
    /// Everything of the run was brought to the server once.
    is_gathered: bool,
}

impl<'a> Asker<'a> {
    /// Asks about a run, or else about the one that is under way, or about those that begin.
    pub(super) fn new(env: &'a Env, config: &'a Config, run: Option<String>) -> Self {
        let named = run.or_else(|| under_way(env, config));
        Self {
            env,
            config,
            client: None,
            run: named.clone(),
            named,
            known: None,
            has_leases: true,
            was_answered: false,
            is_gathered: false,
        }
    }

    /// Whether the server has answered at all.
    pub(super) fn was_answered(&self) -> bool {
        self.was_answered
    }

    /// One look at the run; `quiet` says for how long nothing happened in it.
    ///
    /// # Errors
    /// The server does not answer.
    pub(super) fn look(&mut self, quiet: Duration) -> Result<Found, ClientError> {
        let is_free = self.named.is_none();
        if is_free && (self.run.is_none() || quiet >= WATCH_SETTLED) {
            self.choose()?;
        }
        let Some(run) = self.run.clone() else {
            let missing = "no run goes on".to_owned();
            return Ok(Found::None { missing, waits_for: Some("one to begin") });
        };
        let path = format!("/v1/runs/{}", in_query(&run));
        if !self.is_gathered {
            // Brings what other machines left of it; later looks do not wait for that.
            if self.get::<RunSummary>(&path, REPORT_TIMEOUT)?.is_none() {
                // No unit has ended; the first ones may be compiled right now.
                let leases = self.leases(Some(&run))?;
                if !leases.is_empty() {
                    let now = Box::new(RunNow { run, ..RunNow::default() });
                    return Ok(Found::Run { now, leases });
                }
                let missing = format!("no run {} is known", plain(&run));
                return Ok(Found::None { missing, waits_for: Some("it") });
            }
            self.is_gathered = true;
        }
        let Some(now) = self.get::<Box<RunNow>>(&format!("{path}/now"), WATCH_TIMEOUT)? else {
            let missing = format!("run {} is not known any more", plain(&run));
            return Ok(Found::None { missing, waits_for: None });
        };
        Ok(Found::Run { now, leases: self.leases(Some(&run))? })
    }

    /// Who compiles what, in a run or in all of them.
    fn leases(&mut self, run: Option<&str>) -> Result<Vec<Lease>, ClientError> {
        let of_run = run.map_or(String::new(), |run| format!("?run={}", in_query(run)));
        let leases: Option<LeasesResponse> = match self.has_leases {
            true => self.get(&format!("/v1/leases{of_run}"), WATCH_TIMEOUT)?,
            false => None,
        };
        self.has_leases = leases.is_some();
        Ok(leases.unwrap_or_default().leases)
    }

    /// Goes on to a run that began, or at first to the newest that goes on.
    fn choose(&mut self) -> Result<(), ClientError> {
        let path = format!("/v1/runs?limit={WATCH_CANDIDATES}");
        let listed = self.get::<RunsResponse>(&path, REPORT_TIMEOUT)?.unwrap_or_default().runs;
        let mut chosen = chosen(&listed, self.known.as_ref());
        if chosen.is_none() && self.run.is_none() {
            // One that has only begun is in no list.
            chosen = self.leases(None)?.pop().map(|lease| lease.holder.run);
        }
        self.known = Some(listed.iter().map(|run| run.run.clone()).collect());
        if chosen.is_some() && chosen != self.run {
            (self.run, self.is_gathered) = (chosen, false);
        }
        Ok(())
    }

    /// An answer; none: there is no such thing.
    fn get<T: DeserializeOwned>(
        &mut self,
        path: &str,
        timeout: Duration,
    ) -> Result<Option<T>, ClientError> {
        let mut client = match self.client.take().filter(Client::is_alive) {
            Some(client) => client,
            None if self.was_answered => connect(self.env, self.config)?,
            None => local::connect(self.env, self.config)?,
        };
        let answer = match client.request("GET", path, &[], timeout) {
            Ok(answer) => {
                let read = serde_json::from_slice(&answer);
                Some(read.map_err(|_| ClientError::Foreign("how a run stands"))?)
            }
            Err(ClientError::Refused(404, _)) => None,
            Err(error) => return Err(error),
        };
        (self.client, self.was_answered) = (Some(client), true);
        Ok(answer)
    }
}

/// The run to watch: of those that go on the one that began last, or once some are known one that is not among them.
fn chosen(listed: &[RunSummary], known: Option<&BTreeSet<String>>) -> Option<String> {
    let is_new = |run: &&RunSummary| known.is_none_or(|known| !known.contains(&run.run));
    let goes_on = |run: &&RunSummary| Duration::from_millis(run.quiet_ms) < WATCH_GOING;
    let going = listed.iter().filter(goes_on).filter(is_new);
    going.max_by_key(|run| run.first_ms).map(|run| run.run.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str, first_ms: u64, quiet_s: u64) -> RunSummary {
        let quiet_ms = quiet_s * 1000;
        RunSummary { run: name.into(), first_ms, quiet_ms, ..RunSummary::default() }
    }

    #[test]
    fn the_newest_run_that_goes_on_is_watched_and_then_each_that_begins() {
        let mut listed = vec![run("old", 9, 3600), run("one", 1, 50), run("two", 2, 1)];
        assert_eq!(chosen(&listed, None).as_deref(), Some("two"));
        assert_eq!(chosen(&listed[..1], None), None);
        let known: BTreeSet<String> = listed.iter().map(|run| run.run.clone()).collect();
        assert_eq!(chosen(&listed, Some(&known)), None);
        // Whatever the clock of its machine says.
        listed.push(run("three", 0, 0));
        assert_eq!(chosen(&listed, Some(&known)).as_deref(), Some("three"));
    }
}
