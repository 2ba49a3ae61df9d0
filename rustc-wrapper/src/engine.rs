//! [`Engine`]: what every run that Kiln may answer has, whatever its front end: where it is, whom it asks,
//! what it is called, and the event that ends it.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kiln_storage::api::{Event, EventsRequest, Outcome};
use kiln_storage::record::{Member, Record, UnitName};
use kiln_storage::{Digest, ResultKey};
use rustix::process::Pid;

use crate::client::{Client, ClientError};
use crate::config::Config;
use crate::env::Env;
use crate::identity::Identity;
use crate::local::{self, Faults};
use crate::members::Evaluator;
use crate::memo::Memo;
use crate::roots::Roots;
use crate::stamp;
use crate::unit::Named;

/// What a run needs that may be answered.
#[derive(Debug)]
pub struct Engine<'a> {
    /// The environment.
    pub env: &'a Env,
    /// The settings.
    pub config: &'a Config,
    /// The state directory.
    pub dir: &'a Path,
    /// The working directory.
    pub cwd: PathBuf,
    /// The roots.
    pub roots: Roots,
    /// What the unit is called: key, parts, name.
    pub named: Named,
    /// The width that diagnostics are wrapped at, as given.
    pub width: Option<String>,
    /// Members that have another value after the run than before it, with the one before.
    pub before: Vec<(Member, Digest)>,
    /// The digest memo.
    pub memo: Memo,
    /// The connection, while it is usable.
    pub client: Option<Client>,
    /// Counts faults of the server.
    pub faults: Faults,
    /// What the nearest earlier result of the unit cost.
    pub expected: Option<Duration>,
    /// The records of the last lookup, when none of them holds here.
    pub differing: Vec<Record>,
    /// The process that started this one.
    pub started_by: Option<Pid>,
    /// The event so far.
    pub event: Event,
    clock: Instant,
    phase: Instant,
}

/// Where a run is and what it is, for an [`Engine`].
#[derive(Debug)]
pub struct Place {
    /// The working directory.
    pub cwd: PathBuf,
    /// The roots.
    pub roots: Roots,
    /// What the unit is called.
    pub named: Named,
    /// The digest memo.
    pub memo: Memo,
}

/// An event with what is known from the start.
pub(crate) fn event(env: &Env, config: &Config, cwd: &Path, unit: UnitName) -> Event {
    let who = Identity::find(env, config, cwd);
    let now_ms = u64::try_from(stamp::now_ns() / 1_000_000).unwrap_or(0);
    Event {
        id: format!("{}-{}-{}", who.build, std::process::id(), stamp::now_ns()),
        at_ms: now_ms,
        run: who.run,
        job: who.job,
        about: who.about,
        build: who.build,
        unit,
        unit_key: None,
        result_key: None,
        outcome: Outcome::Error,
        reason: None,
        detail: None,
        causes: Vec::new(),
        more_causes: 0,
        stem: None,
        pinned: Vec::new(),
        conservative: Vec::new(),
        phases_us: Default::default(),
        bytes: 0,
        cost_ms: 0,
        cpu_ms: 0,
        wall_us: 0,
    }
}

impl<'a> Engine<'a> {
    /// An engine for a run that began at a moment.
    pub fn new(
        env: &'a Env,
        config: &'a Config,
        dir: &'a Path,
        place: Place,
        clock: Instant,
    ) -> Self {
        let mut event = event(env, config, &place.cwd, place.named.name.clone());
        event.unit_key = Some(place.named.key);
        let mut engine = Self {
            env,
            config,
            dir,
            cwd: place.cwd,
            roots: place.roots,
            named: place.named,
            width: None,
            before: Vec::new(),
            memo: place.memo,
            client: None,
            faults: Faults::new(dir),
            expected: None,
            differing: Vec::new(),
            started_by: rustix::process::getppid(),
            event,
            clock,
            phase: clock,
        };
        engine.end_phase("plan");
        engine
    }

    /// An evaluator of members for this unit.
    pub fn evaluator(&self) -> Evaluator<'_> {
        let known = self.before.iter().cloned();
        Evaluator::new(self.env, &self.roots, &self.memo, self.width.clone()).knowing(known)
    }

    /// Ends a phase and notes how long it took.
    pub fn end_phase(&mut self, name: &str) {
        let took = u64::try_from(self.phase.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.phase = Instant::now();
        *self.event.phases_us.entry(name.to_owned()).or_default() += took;
    }

    /// A usable connection: the one there is, or a new one.
    ///
    /// # Errors
    /// When no server can be reached, which counts as a fault.
    pub fn connect(&mut self) -> Result<&mut Client, ClientError> {
        if self.client.as_ref().is_none_or(|client| !client.is_alive()) {
            self.client = None;
            match local::connect(self.env, self.config) {
                Ok(client) => self.client = Some(client),
                Err(error) => {
                    self.faults.count();
                    return Err(error);
                }
            }
        }
        self.client.as_mut().ok_or(ClientError::Foreign("no connection"))
    }

    /// Tells the server what became of the unit. Nothing waits for it and nothing depends on it.
    pub fn report(
        &mut self,
        outcome: Outcome,
        reason: Option<(&str, String)>,
        result: Option<ResultKey>,
    ) {
        self.event.outcome = outcome;
        if let Some((reason, detail)) = reason {
            self.event.reason = Some(reason.to_owned());
            self.event.detail = Some(detail).filter(|d| !d.is_empty());
        }
        self.event.result_key = result;
        self.event.wall_us = u64::try_from(self.clock.elapsed().as_micros()).unwrap_or(u64::MAX);
        note(self.config, &self.event);
        if self.faults.are_too_many() {
            return;
        }
        let events = EventsRequest { events: vec![self.event.clone()] };
        let reused = self.client.is_some();
        let told = self.connect().is_ok_and(|client| tell(client, &events));
        self.client = None;
        // The server may have hung up since the last question.
        if reused
            && !told
            && let Ok(client) = self.connect()
        {
            tell(client, &events);
        }
    }
}

/// Appends an event to the file that the settings name, if they do. One write, so that lines of
/// concurrent units do not mix; one that fails costs a line.
pub(crate) fn note(config: &Config, event: &Event) {
    let Some(path) = &config.report else { return };
    let file = OpenOptions::new().create(true).append(true).open(path);
    if let (Ok(mut file), Ok(mut line)) = (file, serde_json::to_vec(event)) {
        line.push(b'\n');
        let _ = file.write_all(&line);
    }
}

/// Hands events over. The answer is awaited: a server drops what a client that hangs up has asked.
/// Whether it has them; a lost event costs a figure in a report, never a build.
pub(crate) fn tell(client: &mut Client, events: &EventsRequest) -> bool {
    let body = serde_json::to_vec(events).unwrap_or_default();
    client.request("POST", "/v1/events", &body, crate::limits::EVENT_TIMEOUT).is_ok()
}
