//! Theme: how many compile at a time on the same processors, whatever cargo they are of.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::process::{Child, Command};

use kiln_tests::far::Shared;
use kiln_tests::server::{Gate, wait_until};
use kiln_tests::{Call, world};
use serde_json::Value;

use crate::machine;
use crate::machines::{LIBRARIES, Machine, address, leases};
use crate::tokens::{compile, looks};

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

#[test]
fn jobs_on_one_processor_compile_one_after_the_other() {
    let shared = Shared::start();
    let (first, second) = (machine!(&shared), machine!(&shared));
    let gate = Gate::new(&first.world.bin(), LIBRARIES[0]);
    let _busy = Busy::new();
    let one = beside(&first, &first, LIBRARIES[0]).spawn();
    let held = gate.wait();
    let other = beside(&second, &first, LIBRARIES[1]).spawn();
    let began = looks(other.pid());
    wait_until("it looks for a place again and again", || looks(other.pid()) > began + 50);
    assert!(!second.began(LIBRARIES[1]));
    assert_eq!(leases(&address(&shared)).len(), 1, "nobody who cannot compile has a lease");
    drop(held);
    one.wait().ok();
    assert!(other.wait().ok().did_compile(LIBRARIES[1]));
    assert_eq!(leases(&address(&shared)).len(), 0);
}

#[test]
fn who_waits_for_a_place_gets_what_another_compiles_meanwhile() {
    let shared = Shared::start();
    let (first, second) = (machine!(&shared), machine!(&shared));
    let gate = Gate::new(&first.world.bin(), LIBRARIES[0]);
    let _busy = Busy::new();
    let one = beside(&first, &first, LIBRARIES[0]).spawn();
    let held = gate.wait();
    let other = beside(&second, &first, LIBRARIES[0]).spawn();
    let began = looks(other.pid());
    wait_until("it looks for a place again and again", || looks(other.pid()) > began + 10);
    drop(held);
    one.wait().ok();
    assert!(!other.wait().ok().did_compile(LIBRARIES[0]));
    assert_eq!(second.outcome(LIBRARIES[0]), ("joined".to_owned(), String::new()));
}

/// At once where the processor is idle; it may be another's, and then after a while.
#[test]
fn a_compile_that_does_not_get_on_holds_nobody_up() {
    let shared = Shared::start();
    let (first, second) = (machine!(&shared), machine!(&shared));
    let gate = Gate::new(&first.world.bin(), LIBRARIES[0]);
    let one = beside(&first, &first, LIBRARIES[0]).spawn();
    let held = gate.wait();
    let other = beside(&second, &first, LIBRARIES[1]).spawn();
    assert!(other.wait().ok().did_compile(LIBRARIES[1]));
    drop(held);
    one.wait().ok();
}

#[test]
fn who_asks_for_no_leases_waits_for_no_place() {
    let shared = Shared::start();
    let (first, second) = (machine!(&shared), machine!(&shared));
    let gate = Gate::new(&first.world.bin(), LIBRARIES[0]);
    let _busy = Busy::new();
    let one = beside(&first, &first, LIBRARIES[0]).spawn();
    let held = gate.wait();
    let other = beside(&second, &first, LIBRARIES[1]).env("KILN_LEASES", "off").spawn();
    assert!(other.wait().ok().did_compile(LIBRARIES[1]));
    drop(held);
    one.wait().ok();
}

/// There is one place, and the script does not have it.
#[test]
fn a_cargo_that_a_build_script_starts_does_not_wait_for_the_script() {
    let world = world!();
    let project = world.project("outer");
    let package = |name: &str| {
        format!(
            "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n"
        )
    };
    project.write("Cargo.toml", package("outer"));
    project.write("src/lib.rs", "");
    project.write("inner/Cargo.toml", package("inner"));
    project.write("inner/src/lib.rs", "");
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
    let notes = world.at("notes.jsonl");
    let call = world.cargo(&project, &["build", "-j1"]).under(&BOUND);
    call.env("KILN_REPORT_FILE", &notes).run().ok();
    let text = std::fs::read_to_string(&notes).unwrap();
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let inner = events.iter().find(|event| event["unit"]["crate_name"] == "inner").unwrap();
    assert_eq!(inner["outcome"], "miss", "{text}");
    assert!(inner["phases_us"]["wait"].is_null(), "{inner}");
}
