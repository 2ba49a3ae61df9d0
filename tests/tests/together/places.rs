//! Theme: how many compile at a time on the same processors, whatever cargo they are of.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::process::{Child, Command};

use kiln_tests::server::wait_until;
use kiln_tests::{Call, Job, world};
use serde_json::Value;

use crate::machines::{LIBRARIES, Machine, address, leases};
use crate::tokens::{Held, KRATE, compile, looks};

/// What is bound to the first processor.
const BOUND: [&str; 3] = ["taskset", "-c", "0"];

/// Something that leaves a processor no time to be idle.
struct Busy(Child);

impl Busy {
    fn new() -> Self {
        let call = Command::new(BOUND[0])
            .args(&BOUND[1..])
            .args(["sh", "-c", "while :; do :; done"])
            .spawn();
        Self(call.unwrap())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A compile of a machine that shares the first processor with another machine.
fn beside(machine: &Machine, other: &Machine, krate: &str) -> Call {
    let call = compile(machine, krate, "").under(&BOUND);
    call.env("XDG_RUNTIME_DIR", other.world.runtime_dir())
}

/// A crate that the first machine compiles on the first processor, until it is let go.
fn held() -> Held {
    Held::by(|first| beside(first, first, KRATE))
}

#[test]
fn jobs_on_one_processor_compile_one_after_the_other() {
    let _busy = Busy::new();
    let Held { shared, second, first, job, held, _gate } = held();
    let other = beside(&second, &first, LIBRARIES[1]).spawn();
    let began = looks(other.pid());
    wait_until("it looks for a place again and again", || looks(other.pid()) > began + 50);
    assert!(!second.began(LIBRARIES[1]));
    assert_eq!(leases(&address(&shared)).len(), 1, "nobody who cannot compile has a lease");
    drop(held);
    job.wait().ok();
    assert!(other.wait().ok().did_compile(LIBRARIES[1]));
    assert_eq!(leases(&address(&shared)).len(), 0);
}

#[test]
fn who_waits_for_a_place_gets_what_another_compiles_meanwhile() {
    let _busy = Busy::new();
    let Held { shared: _shared, second, first, job, held, _gate } = held();
    let other = beside(&second, &first, KRATE).spawn();
    let began = looks(other.pid());
    wait_until("it looks for a place again and again", || looks(other.pid()) > began + 10);
    drop(held);
    job.wait().ok();
    assert!(!other.wait().ok().did_compile(KRATE));
    assert_eq!(second.outcome(KRATE), ("joined".to_owned(), String::new()));
}

/// At once where the processor is idle; it may be another's, and then after a while.
#[test]
fn a_compile_that_does_not_get_on_holds_nobody_up() {
    let Held { shared: _shared, second, first, job, held, _gate } = held();
    let other = beside(&second, &first, LIBRARIES[1]).spawn();
    assert!(other.wait().ok().did_compile(LIBRARIES[1]));
    drop(held);
    job.wait().ok();
}

#[test]
fn who_asks_for_no_leases_waits_for_no_place() {
    let _busy = Busy::new();
    let Held { shared: _shared, second, first, job, held, _gate } = held();
    let other = beside(&second, &first, LIBRARIES[1]).env("KILN_LEASES", "off").spawn();
    assert!(other.wait().ok().did_compile(LIBRARIES[1]));
    drop(held);
    job.wait().ok();
}

/// There is one place, and the script does not have it.
#[test]
fn a_cargo_that_a_build_script_starts_does_not_wait_for_the_script() {
    let world = world!();
    let project = world.project("outer");
    project.package("outer", "[workspace]\n").write("src/lib.rs", "");
    world.project("outer/inner").package("inner", "[workspace]\n").write("src/lib.rs", "");
    project.write(
        "build.rs",
        r#"
        use std::{env::var, process::Command};
        fn main() {
            let mut cargo = Command::new(var("CARGO").unwrap());
            cargo.args(["build", "--manifest-path", "inner/Cargo.toml", "--target-dir"]);
            assert!(cargo.arg(var("OUT_DIR").unwrap() + "/t").status().unwrap().success());
        }
        "#,
    );
    let _busy = Busy::new();
    let job = Job::new(world, project);
    job.cargo(&["build", "-j1"]).under(&BOUND).run().ok();
    assert_eq!(job.outcome_of("inner lib").0, "miss");
    let text = std::fs::read_to_string(job.world.at("notes.jsonl")).unwrap();
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let inner = events.iter().find(|event| event["unit"]["crate_name"] == "inner").unwrap();
    assert!(inner["phases_us"]["wait"].is_null(), "{inner}");
}
