//! What the tests of this theme share: machines of jobs that are all their own but for the server.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::time::Duration;

use kiln::client::{Address, Client};
use kiln_storage::api::{Lease, LeasesResponse};
use kiln_tests::far::Shared;
use kiln_tests::server::wait_until;
use kiln_tests::{Call, Done, Project, Run, Running, World};
use serde_json::Value;

/// Crates that do not know of each other.
pub(crate) const LIBRARIES: [&str; 6] = ["aa", "bb", "cc", "dd", "ee", "ff"];

/// One machine.
pub(crate) struct Machine {
    pub(crate) world: World,
    pub(crate) project: Project,
    server: String,
    /// The setting that names the server: for the wrapper, or for an edge between the two.
    setting: &'static str,
}

/// A machine that shares a server with others.
#[macro_export]
macro_rules! machine {
    ($shared:expr) => {
        $crate::machines::Machine::new(kiln_tests::world!(), $shared)
    };
}

impl Machine {
    pub(crate) fn new(world: World, shared: &Shared) -> Self {
        let project = project(&world);
        let server = format!("http://{}", shared.address());
        Self { world, project, server, setting: "KILN_SERVER" }
    }

    /// The same machine with a local server of its own between.
    pub(crate) fn with_edge(self) -> Self {
        Self { setting: "KILN_UPSTREAM", ..self }
    }

    /// The same machine, whose way to the server leads over another address.
    pub(crate) fn over(self, address: std::net::SocketAddr) -> Self {
        Self { server: format!("http://{address}"), ..self }
    }

    /// The shared server.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// Starts `cargo build` with so many jobs.
    pub(crate) fn build(&self, jobs: usize) -> Running {
        self.call(jobs, &[]).spawn()
    }

    /// Starts the build of one of the crates.
    pub(crate) fn build_one(&self, krate: &str) -> Running {
        self.call(1, &[]).args(&["-p", krate]).spawn()
    }

    /// Starts `cargo build` with variables.
    pub(crate) fn build_with(&self, jobs: usize, variables: &[(&str, &str)]) -> Running {
        self.call(jobs, variables).spawn()
    }

    /// The call of `cargo build` with so many jobs and with variables.
    pub(crate) fn call(&self, jobs: usize, variables: &[(&str, &str)]) -> Call {
        let call = self.world.cargo(&self.project, &["build"]).args(&[format!("-j{jobs}")]);
        let call = call.env(self.setting, &self.server).envs(variables);
        call.env("KILN_REPORT_FILE", self.world.at("notes.jsonl"))
    }

    /// What became of each of its units: crate and kind, outcome, reason.
    pub(crate) fn events(&self) -> Vec<(String, String, String)> {
        let notes = std::fs::read_to_string(self.world.at("notes.jsonl")).unwrap_or_default();
        let events = notes.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let event = |event: Value| {
            let unit = &event["unit"];
            let name = format!("{} {}", text(&unit["crate_name"]), text(&unit["kind"]));
            (name, text(&event["outcome"]), text(&event["reason"]))
        };
        events.map(event).collect()
    }

    /// The outcome and reason of a crate's library.
    pub(crate) fn outcome(&self, krate: &str) -> (String, String) {
        let name = format!("{krate} lib");
        let event = self.events().into_iter().find(|event| event.0 == name);
        event.map(|(_, outcome, reason)| (outcome, reason)).unwrap()
    }

    /// Whether a crate is, or was, compiled here.
    pub(crate) fn began(&self, krate: &str) -> bool {
        let runs = self.world.runs_since(0);
        runs.iter().any(|run| run.is_compile() && run.value("--crate-name") == Some(krate))
    }

    /// Waits until a crate is compiled here.
    #[track_caller]
    pub(crate) fn until_it_compiles(&self, krate: &str) {
        wait_until(&format!("{krate} is compiled"), || self.began(krate));
    }

    /// What the program says.
    pub(crate) fn says(&self) -> String {
        let program = self.project.at("target/debug/app");
        self.world.call(program, self.world.root(), &[]).run().ok().stdout
    }
}

/// A program over crates that do not know of each other.
fn project(world: &World) -> Project {
    let project = world.project("app");
    let package = |name: &str, more: &str| {
        format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2021\"\n{more}")
    };
    let dependencies = LIBRARIES.map(|name| format!("{name} = {{ path = \"{name}\" }}\n")).concat();
    project.write(
        "Cargo.toml",
        package("app", &format!("[dependencies]\n{dependencies}[workspace]\n")),
    );
    let sum = LIBRARIES.map(|name| format!("{name}::n()")).join(" + ");
    project.write("src/main.rs", format!("fn main() {{ println!(\"{{}}\", {sum}); }}\n"));
    for (n, name) in LIBRARIES.iter().enumerate() {
        project.write(&format!("{name}/Cargo.toml"), package(name, ""));
        project.write(&format!("{name}/src/lib.rs"), format!("pub fn n() -> usize {{ {n} }}\n"));
    }
    project
}

/// The program over the crates says this.
pub(crate) const SUM: &str = "15\n";

/// How often each unit was compiled, over all jobs.
pub(crate) fn compiles(jobs: &[Done]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    let runs = jobs.iter().flat_map(|done| &done.runs).filter(|run| run.is_compile());
    runs.map(Run::name).for_each(|name| *counts.entry(name).or_default() += 1);
    counts
}

/// Where a shared server listens.
pub(crate) fn address(shared: &Shared) -> Address {
    Address::Tcp(shared.address().to_string())
}

/// Who compiles what, as a server says.
pub(crate) fn leases(server: &Address) -> Vec<Lease> {
    let mut client = Client::connect(server).unwrap();
    let answer = client.request("GET", "/v1/leases", &[], Duration::from_secs(10)).unwrap();
    serde_json::from_slice::<LeasesResponse>(&answer).unwrap().leases
}

/// Waits until so many jobs wait for a crate.
#[track_caller]
pub(crate) fn until_they_wait(server: &Address, krate: &str, jobs: usize) {
    let waiting = |leases: &[Lease]| {
        let lease = leases.iter().find(|lease| lease.unit.crate_name == krate);
        lease.map_or(0, |lease| lease.waiting.len())
    };
    wait_until(&format!("{jobs} wait for {krate}"), || waiting(&leases(server)) == jobs);
}
