//! Theme: cold jobs that start together compile each unit once, and help each other meanwhile.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use kiln::client::Address;
use kiln_tests::far::Shared;
use kiln_tests::server::{Gate, wait_until};
use kiln_tests::{Running, world};

use crate::machine;
use crate::machines::{LIBRARIES, Machine, SUM, address, compiles, until_they_wait};

/// Asserts that each unit was compiled once over all jobs.
#[track_caller]
fn assert_once(jobs: &[kiln_tests::Done]) {
    let counts = compiles(jobs);
    assert_eq!(counts.len(), LIBRARIES.len() + 1, "{counts:?}");
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
}

#[test]
fn cold_jobs_that_start_together_compile_each_unit_once() {
    let shared = Shared::start();
    let machines = [machine!(&shared), machine!(&shared), machine!(&shared)];
    for jobs in [1, 2] {
        let running: Vec<Running> = machines.iter().map(|machine| machine.build(jobs)).collect();
        let done: Vec<_> = running.into_iter().map(|job| job.wait().ok()).collect();
        match jobs {
            1 => assert_once(&done),
            _ => assert!(compiles(&done).is_empty()),
        }
        for machine in &machines {
            assert_eq!(machine.says(), SUM);
            machine.project.wipe();
        }
    }
}

/// With one job of cargo: while it waits, cargo compiles another crate in its place.
#[test]
fn while_one_crate_is_waited_for_cargo_compiles_another() {
    let shared = Shared::start();
    one_is_waited_for(&shared, &[machine!(&shared), machine!(&shared)]);
}

/// Each machine has a local server, which hands the questions on to the one behind.
#[test]
fn machines_with_servers_of_their_own_wait_for_each_other() {
    let shared = Shared::start();
    let machines = [machine!(&shared).with_edge(), machine!(&shared).with_edge()];
    one_is_waited_for(&shared, &machines);
}

#[track_caller]
fn one_is_waited_for(shared: &Shared, [first, second]: &[Machine; 2]) {
    let gate = Gate::new(&first.world.bin(), LIBRARIES[0]);
    let job = first.build_one(LIBRARIES[0]);
    let held = gate.wait();
    let other = second.build(1);
    // All that does not need the one crate.
    for krate in &LIBRARIES[1..] {
        second.until_it_compiles(krate);
    }
    until_they_wait(&address(shared), LIBRARIES[0], 1);
    assert!(!second.began("app"));
    drop(held);
    let done = [job.wait().ok(), other.wait().ok()];
    assert_once(&done);
    assert_eq!(second.outcome(LIBRARIES[0]), ("joined".into(), String::new()));
    assert_eq!(second.says(), SUM);
}

#[test]
fn who_does_not_want_to_wait_compiles() {
    let shared = Shared::start();
    let (first, second) = (machine!(&shared), machine!(&shared));
    let gate = Gate::new(&first.world.bin(), LIBRARIES[0]);
    let job = first.build(1);
    let held = gate.wait();
    second.build_with(1, &[("KILN_LEASES", "off")]).wait().ok();
    assert_eq!(second.outcome(LIBRARIES[0]).0, "miss");
    drop(held);
    job.wait().ok();
    // What was stored meanwhile is the same: it is not stored twice, and the job never fails for it.
    assert_eq!((first.says(), second.says()), (SUM.into(), SUM.into()));
}

/// Two processes of cargo on one machine have the local server in common.
#[test]
fn two_builds_on_one_machine_compile_each_unit_once() {
    let world = world!();
    let shared = Shared::start();
    let machine = crate::machines::Machine::new(world, &shared);
    let gate = Gate::new(&machine.world.bin(), LIBRARIES[0]);
    let build = |target: &str, package: &str| {
        let call = machine.world.cargo(&machine.project, &["build", "-j1", "-p", package]);
        call.args(&["--target-dir".as_ref(), machine.world.at(target).as_os_str()]).spawn()
    };
    let job = build("one", LIBRARIES[0]);
    let held = gate.wait();
    let other = build("two", "app");
    let started = || machine.world.runs_since(0).iter().filter(|run| run.is_compile()).count();
    wait_until("all crates are compiled", || started() == LIBRARIES.len());
    let local = Address::Unix(machine.world.kiln_dir().join("kiln.sock"));
    until_they_wait(&local, LIBRARIES[0], 1);
    drop(held);
    let (job, other) = (job.wait().ok(), other.wait().ok());
    let runs = machine.world.runs_since(0);
    let compiled = runs.iter().filter(|run| run.is_compile()).count();
    assert_eq!(compiled, LIBRARIES.len() + 1, "{:?} {:?}", job.compiled(), other.compiled());
    assert!(machine.world.stats()["joined"].as_u64() >= Some(1));
}

/// What is not the same is not waited for.
#[test]
fn another_source_is_compiled_at_once() {
    let shared = Shared::start();
    let (first, second) = (machine!(&shared), machine!(&shared));
    second.project.write(&format!("{}/src/lib.rs", LIBRARIES[0]), "pub fn n() -> usize { 100 }\n");
    let gate = Gate::new(&first.world.bin(), LIBRARIES[0]);
    let job = first.build(1);
    let held = gate.wait();
    second.build(1).wait().ok();
    assert_eq!(second.outcome(LIBRARIES[0]).0, "miss");
    assert_eq!(second.says(), "115\n");
    drop(held);
    job.wait().ok();
    assert_eq!(first.says(), SUM);
}

/// A value that only the compile itself finds out: the result that was waited for does not hold, and is not taken.
#[test]
fn a_result_that_does_not_hold_here_is_compiled_after_all() {
    let shared = Shared::start();
    let (first, second) = (machine!(&shared), machine!(&shared));
    let source = "pub fn n() -> usize { env!(\"WHICH\").len() }\n";
    for machine in [&first, &second] {
        machine.project.write(&format!("{}/src/lib.rs", LIBRARIES[0]), source);
    }
    let gate = Gate::new(&first.world.bin(), LIBRARIES[0]);
    let job = first.build_with(1, &[("WHICH", "one")]);
    let held = gate.wait();
    let other = second.build_with(1, &[("WHICH", "three")]);
    until_they_wait(&address(&shared), LIBRARIES[0], 1);
    drop(held);
    job.wait().ok();
    other.wait().ok();
    assert_eq!((first.says(), second.says()), ("18\n".into(), "20\n".into()));
    assert_eq!(second.outcome(LIBRARIES[0]), ("miss".into(), "wait-abandoned".into()));
}

/// Jobs that have several values: those with the same one wait for each other, and the others wait for nobody.
#[test]
fn who_waited_in_vain_waits_for_nobody_who_differs() {
    const WHICH: [&str; 5] = ["a", "bb", "ccc", "dddd", "ccc"];
    let shared = Shared::start();
    let machines = WHICH.map(|_| machine!(&shared));
    let source = "pub fn n() -> usize { env!(\"WHICH\").len() }\n";
    for machine in &machines {
        machine.project.write(&format!("{}/src/lib.rs", LIBRARIES[0]), source);
    }
    let gates = [0, 1, 3].map(|n: usize| Gate::new(&machines[n].world.bin(), LIBRARIES[0]));
    let build = |n: usize| machines[n].build_with(1, &[("WHICH", WHICH[n])]);
    let job = build(0);
    let held = gates[0].wait();
    let [second, third, fourth, like_third] = [1, 2, 3, 4].map(|n| {
        let job = build(n);
        until_they_wait(&address(&shared), LIBRARIES[0], n);
        job
    });
    drop(held);
    job.wait().ok();
    let held = [gates[1].wait(), gates[2].wait()];
    // These go on while the others compile.
    third.wait().ok();
    like_third.wait().ok();
    drop(held);
    second.wait().ok();
    fourth.wait().ok();
    let mut events = machines.each_ref().map(|machine| machine.outcome(LIBRARIES[0]).1);
    events[2..].sort_unstable();
    let vain = "wait-abandoned";
    assert_eq!(events, ["new-unit", vain, "", vain, vain], "the same value is compiled once");
    for (machine, which) in machines.iter().zip(WHICH) {
        assert_eq!(machine.says(), format!("{}\n", 15 + which.len()));
    }
}
