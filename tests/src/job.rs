//! [`Job`]: a job of a matrix, on a machine of its own: what it builds, what became of it, and whom a server has it wait
//! for. Everything of it is its own but the server that a variable names.

use std::collections::BTreeMap;
use std::time::Duration;

use kiln::client::{Address, Client};
use kiln_storage::api::{Lease, LeasesResponse};
use rustix::process::Signal;
use serde_json::Value;

use crate::call::{Call, Done};
use crate::far::Shared;
use crate::project::Project;
use crate::runs::Run;
use crate::server::{kill, processes_with, wait_until};
use crate::world::World;

/// A machine with a checkout, and the variables of its job.
#[derive(Debug)]
pub struct Job {
    /// The machine.
    pub world: World,
    /// The checkout.
    pub project: Project,
    variables: Vec<(String, String)>,
}

/// What became of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Became {
    /// Crate and kind, e.g. `app bin`.
    pub name: String,
    /// E.g. `miss`.
    pub outcome: String,
    /// Why; empty where nothing has to be said.
    pub reason: String,
}

impl Job {
    /// A job on a machine.
    pub fn new(world: World, project: Project) -> Self {
        Self { world, project, variables: Vec::new() }
    }

    /// The same with a variable.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    /// A call with the variables of the job.
    pub fn dressed(&self, call: Call) -> Call {
        let variables = self.variables.iter();
        variables.fold(call, |call, (name, value)| call.env(name, value))
    }

    /// A call of cargo in the checkout.
    pub fn cargo(&self, args: &[&str]) -> Call {
        let call = self.dressed(self.world.cargo(&self.project, args));
        call.env("KILN_REPORT_FILE", self.world.at("notes.jsonl"))
    }

    /// What became of each of its units so far.
    pub fn events(&self) -> Vec<Became> {
        let notes = std::fs::read_to_string(self.world.at("notes.jsonl")).unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let event = |line: &str| {
            let event: Value = serde_json::from_str(line).expect("an event");
            let unit = &event["unit"];
            Became {
                name: format!("{} {}", text(&unit["crate_name"]), text(&unit["kind"])),
                outcome: text(&event["outcome"]),
                reason: text(&event["reason"]),
            }
        };
        notes.lines().map(event).collect()
    }

    /// The outcome and reason of the last unit of this name: crate and kind.
    #[track_caller]
    pub fn outcome_of(&self, name: &str) -> (String, String) {
        let events = self.events();
        let event = events.iter().rfind(|event| event.name == name);
        let event = event.unwrap_or_else(|| panic!("{name} is not among {events:#?}"));
        (event.outcome.clone(), event.reason.clone())
    }

    /// The units that were no hit, sorted: crate and kind.
    pub fn missed(&self) -> Vec<String> {
        let hit = |event: &Became| matches!(&*event.outcome, "hit-local" | "hit-remote");
        let missed = self.events().into_iter().filter(|event| !hit(event));
        let mut missed: Vec<String> = missed.map(|event| event.name).collect();
        missed.sort_unstable();
        missed
    }

    /// Whether a crate is, or was, compiled here.
    pub fn began(&self, krate: &str) -> bool {
        let runs = self.world.runs_since(0);
        runs.iter().any(|run| run.is_compile() && run.value("--crate-name") == Some(krate))
    }

    /// Waits until a crate is compiled here.
    #[track_caller]
    pub fn until_it_compiles(&self, krate: &str) {
        wait_until(&format!("{krate} is compiled"), || self.began(krate));
    }

    /// All its processes: cargo, wrappers, compilers, a server of its own.
    pub fn processes(&self) -> Vec<u32> {
        processes_with(&format!("KILN_DIR={}", self.world.kiln_dir().display()))
    }

    /// Ends all its processes at once.
    pub fn kill(&self) {
        self.processes().into_iter().for_each(|pid| kill(pid, Signal::KILL));
    }

    /// What a program that was built says.
    #[track_caller]
    pub fn says(&self, program: &str) -> String {
        let program = self.project.at("target").join(program);
        self.world.call(program, self.world.root(), &[]).run().ok().stdout
    }
}

/// How often each unit was compiled, over all jobs.
pub fn compiles(jobs: &[Done]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    let runs = jobs.iter().flat_map(|done| &done.runs).filter(|run| run.is_compile());
    runs.map(Run::name).for_each(|name| *counts.entry(name).or_default() += 1);
    counts
}

/// Where a shared server listens.
pub fn address(shared: &Shared) -> Address {
    Address::Tcp(shared.address().to_string())
}

/// Who compiles what, as a server says.
#[track_caller]
pub fn leases(server: &Address) -> Vec<Lease> {
    let mut client = Client::connect(server).expect("a server");
    let answer = client.request("GET", "/v1/leases", &[], Duration::from_secs(10));
    let leases: LeasesResponse =
        serde_json::from_slice(&answer.expect("an answer")).expect("leases");
    leases.leases
}

/// Waits until so many jobs wait for a crate.
#[track_caller]
pub fn until_they_wait(server: &Address, krate: &str, jobs: usize) {
    let waiting = |leases: &[Lease]| {
        let lease = leases.iter().find(|lease| lease.unit.crate_name == krate);
        lease.map_or(0, |lease| lease.waiting.len())
    };
    wait_until(&format!("{jobs} wait for {krate}"), || waiting(&leases(server)) == jobs);
}
