//! Shape: a job of the second stage starts while the first one still builds. It takes what is there, waits for what is in
//! work and needed, compiles what nobody has begun, and fails for none of it.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs::File;

use kiln::client::Address;
use kiln_tests::far::Shared;
use kiln_tests::job::{address, compiles, leases, until_they_wait};
use kiln_tests::server::{Gate, wait_until};
use kiln_tests::{Job, Project, World, world};
use rustix::fs::{FlockOperation, flock};

use crate::{WAYS, manifest};

/// Libraries of the first stage. The second one needs all but `other`.
const LIBRARIES: [&str; 4] = ["quick", "slow", "late", "other"];

/// Libraries that do not know of each other, and what the second stage makes of them: `own`.
fn workspace(world: &World) -> Project {
    let project = world.project("app");
    project.write(
        "Cargo.toml",
        "[workspace]\nmembers = [\"*\"]\nexclude = [\"target\"]\nresolver = \"2\"\n",
    );
    for (n, name) in LIBRARIES.iter().enumerate() {
        project.write(&format!("{name}/Cargo.toml"), manifest(name, ""));
        project.write(&format!("{name}/src/lib.rs"), format!("pub fn n() -> usize {{ {n} }}\n"));
    }
    let needed = LIBRARIES[..3].iter().map(|name| format!("{name} = {{ path = \"../{name}\" }}\n"));
    let needed = format!("[dependencies]\n{}", needed.collect::<String>());
    project.write("own/Cargo.toml", manifest("own", &needed));
    project.write(
        "own/src/main.rs",
        "fn main() { println!(\"{}\", quick::n() + slow::n() + late::n()); }\n",
    );
    project
}

/// What `own` says.
const SUM: &str = "3\n";

/// The jobs of both stages, before a server.
struct Stages {
    one: Job,
    two: Job,
    shared: Shared,
}

impl Stages {
    fn new(way: &str) -> Self {
        let shared = Shared::start();
        let job = || {
            let world = world!();
            let project = workspace(&world);
            Job::new(world, project).with(way, format!("http://{}", shared.address()))
        };
        let (one, two) = (job(), job());
        Self { one, two, shared }
    }

    fn server(&self) -> Address {
        address(&self.shared)
    }

    /// Waits until so many results are there, which a server of the job's own sends behind its back.
    #[track_caller]
    fn until_there_are(&self, results: usize) {
        wait_until(&format!("{results} results are there"), || self.shared.results() == results);
    }
}

#[test]
fn the_second_stage_waits_for_what_it_needs_alone() {
    needs_alone(WAYS[0]);
}

#[test]
fn the_second_stage_waits_by_a_server_of_its_own() {
    needs_alone(WAYS[1]);
}

#[track_caller]
fn needs_alone(way: &str) {
    let stages = Stages::new(way);
    let (one, two) = (&stages.one, &stages.two);
    let first = one.cargo(&["build", "-p", "quick"]).run().ok();
    stages.until_there_are(1);
    let gates = ["slow", "other"].map(|krate| Gate::new(&one.world.bin(), krate));
    let stage_one = one.cargo(&["build", "-j2", "-p", "slow", "-p", "other"]).spawn();
    let [slow, other] = gates.each_ref().map(Gate::wait);

    let stage_two = two.cargo(&["build", "-j1", "-p", "own"]).spawn();
    until_they_wait(&stages.server(), "slow", 1);
    // The first stage has not come to it.
    two.until_it_compiles("late");
    assert!(!two.began("slow") && !two.began("own"));
    drop(slow);
    let second = stage_two.wait().ok();
    assert_eq!(second.compiled(), ["late lib", "own bin"]);
    assert_eq!(two.says("debug/own"), SUM);
    let outcome = |krate: &str| two.outcome_of(&format!("{krate} lib")).0;
    assert!(outcome("quick").starts_with("hit-"), "{}", outcome("quick"));
    assert_eq!((outcome("slow").as_str(), outcome("late").as_str()), ("joined", "miss"));

    // What it does not need is still in work, and nobody has waited for it.
    let leases = leases(&stages.server());
    let of_other: Vec<_> = leases.iter().filter(|one| one.unit.crate_name == "other").collect();
    assert!(matches!(of_other[..], [lease] if lease.waiting.is_empty()), "{leases:?}");
    drop(other);
    let rest = stage_one.wait().ok();
    // The first stage comes to what the second one has made.
    stages.until_there_are(LIBRARIES.len() + 1);
    let last = one.cargo(&["build", "-p", "late"]).run().ok();
    let counts = compiles(&[first, rest, second, last]);
    assert_eq!(counts.len(), LIBRARIES.len() + 1, "{counts:?}");
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
}

#[test]
fn the_second_stage_builds_by_itself_where_the_first_one_is_killed() {
    is_killed(WAYS[0]);
}

#[test]
fn the_second_stage_builds_by_itself_where_the_first_one_is_killed_with_its_server() {
    is_killed(WAYS[1]);
}

#[track_caller]
fn is_killed(way: &str) {
    let stages = Stages::new(way);
    let (one, two) = (&stages.one, &stages.two);
    one.cargo(&["build", "-p", "quick"]).run().ok();
    stages.until_there_are(1);
    let gate = Gate::new(&one.world.bin(), "slow");
    let stage_one = one.cargo(&["build", "-p", "slow"]).spawn();
    let held = gate.wait();
    let stage_two = two.cargo(&["build", "-j1", "-p", "own"]).spawn();
    until_they_wait(&stages.server(), "slow", 1);
    one.kill();
    stage_one.wait().fails();
    let second = stage_two.wait().ok();
    drop(held);
    assert_eq!(second.compiled(), ["late lib", "own bin", "slow lib"]);
    assert_eq!(two.outcome_of("slow lib"), ("miss".into(), "wait-abandoned".into()));
    assert_eq!(two.says("debug/own"), SUM);
    wait_until("no lease is left", || leases(&stages.server()).is_empty());
}

/// A library is slow since its build script is: the run of that is waited for like a compile.
#[test]
fn the_second_stage_waits_for_a_build_script() {
    let stages = Stages::new(WAYS[0]);
    let (one, two) = (&stages.one, &stages.two);
    for job in [one, two] {
        // It takes as long as somebody else has the lock.
        job.project.write("slow/lock", "");
        job.project.write(
            "slow/build.rs",
            "use std::os::fd::AsRawFd;\nextern \"C\" { fn flock(fd: i32, how: i32) -> i32; }\n\
             fn main() {\n    println!(\"cargo:rustc-env=MADE=1\");\n    \
             let lock = std::fs::File::open(\"lock\").unwrap();\n    \
             assert_eq!(unsafe { flock(lock.as_raw_fd(), 2) }, 0);\n}\n",
        );
        job.project.write("slow/src/lib.rs", "pub fn n() -> usize { env!(\"MADE\").len() }\n");
    }
    let lock = File::open(one.project.at("slow/lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let stage_one = one.cargo(&["build", "-p", "slow"]).spawn();
    let is_run = || leases(&stages.server()).iter().any(|one| one.unit.kind == "build-script run");
    wait_until("the script runs", is_run);
    let stage_two = two.cargo(&["build", "-j1", "-p", "own"]).spawn();
    until_they_wait(&stages.server(), "slow", 1);
    two.until_it_compiles("late");
    assert!(!two.began("slow"));
    drop(lock);
    let done = [stage_one.wait().ok(), stage_two.wait().ok()];
    assert!(compiles(&done).values().all(|count| *count == 1), "{:?}", compiles(&done));
    let run = "slow build-script run";
    assert_eq!((one.outcome_of(run).0, two.outcome_of(run).0), ("miss".into(), "joined".into()));
    assert_eq!(two.says("debug/own"), SUM);
}
