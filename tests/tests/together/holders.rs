//! Theme: whoever compiles what others wait for is killed, stopped, or fails: the others end well, and soon.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use kiln_tests::far::{Mode, Relay, Shared};
use kiln_tests::mount::Mount;
use kiln_tests::server::{Gate, kill, parent_of, wait_until};
use kiln_tests::{Call, skip};
use rustix::process::Signal;

use crate::machine;
use crate::machines::{LIBRARIES, Machine, SUM, address, leases, until_they_wait};
use crate::network::{HERE, Network};
use crate::wire::Wire;

const KRATE: &str = LIBRARIES[0];

#[test]
fn a_job_that_is_killed_leaves_its_crate_to_one_that_waits() {
    let shared = Shared::start();
    let machines = [machine!(&shared), machine!(&shared), machine!(&shared)];
    let gate = Gate::new(&machines[0].world.bin(), KRATE);
    let job = machines[0].build(1);
    let held = gate.wait();
    let others = [machines[1].build(1), machines[2].build(1)];
    until_they_wait(&address(&shared), KRATE, 2);
    machines[0].kill();
    let done = others.map(|job| job.wait().ok());
    drop(held);
    job.wait().fails();
    assert_eq!(done.iter().filter(|done| done.did_compile(KRATE)).count(), 1);
    for machine in &machines[1..] {
        assert_eq!(machine.says(), SUM);
    }
    assert!(leases(&address(&shared)).is_empty());
}

/// Its connections are open and it says nothing any more.
#[test]
fn a_job_that_is_stopped_is_not_waited_for_for_long() {
    let shared = Shared::start();
    let (first, second) = (machine!(&shared), machine!(&shared));
    let gate = Gate::new(&first.world.bin(), KRATE);
    let job = first.build(1);
    let held = gate.wait();
    let other = second.build(1);
    until_they_wait(&address(&shared), KRATE, 1);
    let stopped = first.processes();
    stopped.iter().for_each(|pid| kill(*pid, Signal::STOP));
    let done = other.wait().ok();
    assert!(done.did_compile(KRATE));
    assert_eq!(second.says(), SUM);
    stopped.iter().for_each(|pid| kill(*pid, Signal::CONT));
    drop(held);
    // It has lost its lease meanwhile; its own compile is as good as ever.
    job.wait().ok();
    assert_eq!(first.says(), SUM);
    println!("the other job took {:.1} s", done.took.as_secs_f64());
}

/// What a crate takes is known, and two jobs wait for one that takes longer: one of them compiles it for both.
#[test]
fn who_takes_too_long_is_taken_over_from_by_one() {
    let shared = Shared::start();
    let machines = [machine!(&shared), machine!(&shared), machine!(&shared)];
    let gate = Gate::new(&machines[0].world.bin(), KRATE);
    let job = machines[0].build_one(KRATE);
    let held = gate.wait();
    let age_ms = || leases(&address(&shared)).first().map_or(0, |lease| lease.holder.age_ms);
    wait_until("it has taken a while", || age_ms() >= 3000);
    drop(held);
    job.wait().ok();
    for machine in &machines {
        let source = format!("{KRATE}/src/lib.rs");
        let text = std::fs::read_to_string(machine.project.at(&source)).unwrap();
        machine.project.write(&source, format!("{text}// More.\n"));
    }
    let job = machines[0].build_one(KRATE);
    let held = gate.wait();
    let others = [machines[1].build_one(KRATE), machines[2].build_one(KRATE)];
    let done = others.map(|job| job.wait().ok());
    assert_eq!(done.iter().filter(|done| done.did_compile(KRATE)).count(), 1);
    let slow = |machine: &&Machine| machine.outcome(KRATE).1 == "wait-abandoned";
    assert_eq!(machines[1..].iter().filter(slow).count(), 1);
    drop(held);
    job.wait().ok();
}

/// A job compiles what another one waits for, and is cut off meanwhile: the other one compiles it, and each has what it
/// built.
fn cut_off(shared: &Shared, (first, call): (&Machine, Call), second: &Machine, cut: impl FnOnce()) {
    let gate = Gate::new(&first.world.bin(), KRATE);
    let job = call.args(&["-p", KRATE]).spawn();
    let held = gate.wait();
    let other = second.build(1);
    until_they_wait(&address(shared), KRATE, 1);
    cut();
    let done = other.wait().ok();
    assert!(done.did_compile(KRATE));
    assert_eq!(second.says(), SUM);
    drop(held);
    // It cannot tell anybody what it made, and has made it.
    job.wait().ok();
    println!("the other job took {:.1} s", done.took.as_secs_f64());
}

/// Nothing arrives from it any more, and nothing says so.
#[test]
fn a_job_that_is_cut_off_is_not_waited_for_for_long() {
    let shared = Shared::start();
    let wire = Wire::to(shared.address());
    let (first, second) = (machine!(&shared).over(wire.address), machine!(&shared));
    cut_off(&shared, (&first, first.call(1, &[])), &second, || wire.cut());
}

/// The same, where a cable is pulled between two machines.
#[test]
fn a_machine_that_is_cut_off_is_not_waited_for_for_long() {
    let network = match Network::new() {
        Ok(network) => network,
        Err(why) => skip!("{why}"),
    };
    let shared = Shared::start_at(HERE);
    let (first, second) = (machine!(&shared), machine!(&shared));
    let call = network.on_other(first.call(1, &[]));
    cut_off(&shared, (&first, call), &second, || network.cut());
}

/// It has stored what it made, and nobody heard of it.
#[test]
fn what_a_job_that_is_lost_has_stored_is_not_compiled_again() {
    let shared = Shared::start();
    let relay = Relay::before(&shared);
    relay.set(Mode::NoReleases);
    let (first, second) = (machine!(&shared).over(relay.address()), machine!(&shared));
    let gate = Gate::new(&first.world.bin(), KRATE);
    let job = first.build_one(KRATE);
    let held = gate.wait();
    let other = second.build_one(KRATE);
    until_they_wait(&address(&shared), KRATE, 1);
    drop(held);
    job.wait().ok();
    assert!(!other.wait().ok().did_compile(KRATE));
    assert_eq!(second.outcome(KRATE).0, "joined");
    assert!(leases(&address(&shared)).is_empty());
}

/// What stands in the way of storing it is of one machine, and of that moment: elsewhere it is compiled once.
#[test]
fn what_one_job_could_not_store_is_compiled_by_one_more() {
    let shared = Shared::start();
    let machines = [machine!(&shared), machine!(&shared), machine!(&shared)];
    let gates = machines.each_ref().map(|machine| Gate::new(&machine.world.bin(), KRATE));
    let job = machines[0].build(1);
    let held = gates[0].wait();
    let others = [machines[1].build(1), machines[2].build(1)];
    until_they_wait(&address(&shared), KRATE, 2);
    machines[0].project.write(&format!("{KRATE}/src/lib.rs"), "pub fn n() -> usize { 100 }\n");
    drop(held);
    job.wait().ok();
    assert_eq!(machines[0].outcome(KRATE), ("miss".into(), "input-changed-meanwhile".into()));
    until_they_wait(&address(&shared), KRATE, 1);
    drop(gates);
    let done = others.map(|job| job.wait().ok());
    assert_eq!(done.iter().filter(|done| done.did_compile(KRATE)).count(), 1);
    assert_eq!([machines[1].says(), machines[2].says()], [SUM, SUM]);
}

/// Nobody is left who wants what a job waits for.
#[test]
fn a_job_whose_cargo_is_killed_while_it_waits_compiles_nothing_more() {
    let shared = Shared::start();
    let (first, second) = (machine!(&shared), machine!(&shared));
    let gate = Gate::new(&first.world.bin(), KRATE);
    let job = first.build_one(KRATE);
    let held = gate.wait();
    let other = second.build_one(KRATE);
    until_they_wait(&address(&shared), KRATE, 1);
    kill(other.pid(), Signal::KILL);
    other.wait().fails();
    wait_until("its processes are gone", || {
        let line = |pid| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let is_wrapper = |pid: &u32| String::from_utf8_lossy(&line(*pid)).contains(KRATE);
        !second.processes().iter().any(is_wrapper)
    });
    assert!(!second.began(KRATE));
    drop(held);
    job.wait().ok();
}

/// There is no room for what one job compiles.
#[test]
fn a_job_whose_disk_is_full_leaves_its_crate_to_another() {
    let shared = Shared::start();
    let (first, second) = (machine!(&shared), machine!(&shared));
    let small = ["-t", "tmpfs", "-o", "size=2m,mode=0755", "none"];
    let full = match Mount::new(&small, &first.project.at("target")) {
        Ok(full) => full,
        Err(why) => skip!("{why}"),
    };
    let gate = Gate::new(&first.world.bin(), KRATE);
    let job = first.build_one(KRATE);
    let held = gate.wait();
    let other = second.build(1);
    until_they_wait(&address(&shared), KRATE, 1);
    let filled = std::fs::write(first.project.at("target/filler"), vec![0; 4 * 1024 * 1024]);
    assert!(filled.is_err(), "there is no room left");
    drop(held);
    job.wait().fails();
    assert!(other.wait().ok().did_compile(KRATE));
    assert_eq!(second.says(), SUM);
    drop(full);
}

/// The compiler of one job is killed, as by a lack of memory.
#[test]
fn a_compile_that_fails_in_one_job_is_done_by_another() {
    let shared = Shared::start();
    let (first, second) = (machine!(&shared), machine!(&shared));
    let gate = Gate::new(&first.world.bin(), KRATE);
    let job = first.build(1);
    let held = gate.wait();
    let other = second.build(1);
    until_they_wait(&address(&shared), KRATE, 1);
    // The compiler waits at the gate: it has the arguments of the crate, and the wrapper as its parent.
    let compiler = first.processes().into_iter().find(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let parent = parent_of(*pid).map(|parent| format!("/proc/{parent}/comm"));
        let parent = parent.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(KRATE) && parent.starts_with("kiln")
    });
    kill(compiler.unwrap(), Signal::KILL);
    drop(held);
    job.wait().fails();
    assert!(other.wait().ok().did_compile(KRATE));
    assert_eq!(second.says(), SUM);
}

/// A crate that does not compile fails in each job, once each, and nobody waits for it for ever.
#[test]
fn a_crate_that_does_not_compile_fails_in_each_job() {
    let shared = Shared::start();
    let machines = [machine!(&shared), machine!(&shared), machine!(&shared), machine!(&shared)];
    for machine in &machines {
        machine.project.write(&format!("{KRATE}/src/lib.rs"), "pub fn n() -> usize { nonsense }\n");
    }
    let running = machines.each_ref().map(|machine| machine.build(1));
    for job in running {
        let done = job.wait().fails();
        assert!(done.stderr.contains("cannot find value `nonsense`"), "{}", done.stderr);
        assert!(done.did_compile(KRATE));
    }
    assert!(leases(&address(&shared)).is_empty());
}

/// A job that only reads does not make others wait for what it cannot store.
#[test]
fn a_job_that_stores_nothing_is_not_waited_for() {
    let shared = Shared::start();
    let (first, second) = (machine!(&shared), machine!(&shared));
    let gate = Gate::new(&first.world.bin(), KRATE);
    let job = first.build_with(1, &[("KILN_MODE", "read")]);
    let held = gate.wait();
    let done = second.build(1).wait().ok();
    assert!(done.did_compile(KRATE));
    assert_eq!(second.outcome(KRATE), ("miss".into(), "new-unit".into()));
    drop(held);
    job.wait().ok();
}

/// The server goes while a job waits: it compiles.
#[test]
fn a_server_that_leaves_sends_everybody_to_work() {
    let shared = Shared::start();
    let (first, second) = (machine!(&shared), machine!(&shared));
    let gate = Gate::new(&first.world.bin(), KRATE);
    let job = first.build(1);
    let held = gate.wait();
    let other = second.build(1);
    until_they_wait(&address(&shared), KRATE, 1);
    drop(shared);
    assert!(other.wait().ok().did_compile(KRATE));
    assert_eq!(second.says(), SUM);
    drop(held);
    job.wait().ok();
    assert_eq!(first.says(), SUM);
}

/// What is between a machine and its server is started anew while much is waited for. Who waited compiles, and the server
/// is asked on.
#[test]
fn a_way_that_breaks_once_is_used_again() {
    let shared = Shared::start();
    let wire = Wire::to(shared.address());
    let (first, second) = (machine!(&shared), machine!(&shared).over(wire.address));
    let gates = LIBRARIES.map(|krate| Gate::new(&first.world.bin(), krate));
    let job = first.build(LIBRARIES.len());
    let held = gates.each_ref().map(Gate::wait);
    let other = second.build(LIBRARIES.len());
    LIBRARIES.iter().for_each(|krate| until_they_wait(&address(&shared), krate, 1));
    wire.hang_up();
    let done = other.wait().ok();
    assert!(LIBRARIES.iter().all(|krate| done.did_compile(krate)));
    assert_eq!(second.outcome_of("app bin"), ("miss".into(), "new-unit".into()));
    drop(held);
    job.wait().ok();
}
