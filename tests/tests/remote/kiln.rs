//! Theme: two machines before one shared server. What the first has made, the second does not make again;
//! and whatever is wrong with the shared server, builds are right.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::collections::BTreeMap;

use kiln_tests::far::{Mode, Relay, Shared, requests, show};
use kiln_tests::samples::of_all_kinds as sample;
use kiln_tests::server::{kill, wait_until};
use kiln_tests::{Call, Done, Project, World, registry, skip, world};
use rustix::process::Signal;
use serde_json::Value;

fn before(call: Call, relay: &Relay) -> Call {
    call.env("KILN_UPSTREAM", relay.url()).env("KILN_JOB", "dev")
}

#[track_caller]
fn build(world: &World, project: &Project, relay: &Relay) -> Done {
    project.wipe();
    let done = before(world.cargo(project, &["build"]), relay).run().ok();
    let program = world.call(project.at("target/debug/app"), project.dir(), &[]).run().ok();
    assert_eq!(program.stdout, "42 43 44\n");
    done
}

/// What became of the newest build.
fn newest(world: &World) -> Value {
    world.stats()["build"].clone()
}

/// `kiln server stop`; what it said.
fn stop(world: &World) -> Done {
    world.kiln(&["server", "stop"]).run().ok()
}

fn remote_lines(world: &World) -> Vec<String> {
    let log = std::fs::read_to_string(world.kiln_dir().join("server.log")).unwrap_or_default();
    let lines = log.lines().filter(|line| line.contains(" remote http") && line.contains(" warn "));
    lines.map(str::to_owned).collect()
}

/// The second machine has nothing: no state, no target, another checkout path, another cargo home.
#[test]
fn the_second_machine_compiles_nothing_and_runs_no_script() {
    let (shared, one, two) = (Shared::start(), world!(), world!());
    let relay = Relay::before(&shared);
    let first = sample(&one, "app");
    build(&one, &first, &relay);
    // app, its build script, the run of that, mac, low.
    assert_eq!(newest(&one)["miss"], 5, "{:#}", one.stats());
    let said = stop(&one);
    assert!(said.stdout.contains("5 results were sent to http"), "{}{}", said.stdout, said.stderr);
    assert_eq!(shared.results(), 5);
    let filled = relay.take();
    show("first machine", &filled);
    assert_eq!(requests(&filled, "PUT /v1/results/*"), 5);
    assert_eq!(requests(&filled, "PUT /v1/notes/*") + requests(&filled, "GET /v1/notes/*"), 2);

    let second = sample(&two, "elsewhere/checkout");
    let done = build(&two, &second, &relay);
    two.assert_all_hit(&done);
    let figures = newest(&two);
    assert_eq!((&figures["units"], &figures["hit_remote"]), (&5.into(), &5.into()), "{figures:#}");
    let used = relay.take();
    let all = show("second machine", &used);
    // One note, one question for all records, and the blobs.
    assert_eq!(requests(&used, "POST /v1/lookup"), 1, "{used:#?}");
    assert!(all.requests <= 10, "{used:#?}");
    assert!(!used.keys().any(|call| call.starts_with("PUT")), "{used:#?}");

    // By now everything is here.
    two.assert_all_hit(&build(&two, &second, &relay));
    assert_eq!(newest(&two)["hit_local"], 5);
    // Events go when they go; nothing else does.
    let used = relay.take();
    let asked: Vec<&String> = used.keys().filter(|call| *call != "POST /v1/events").collect();
    assert_eq!(asked, [""; 0], "{used:#?}");
    assert_eq!(remote_lines(&two), [""; 0]);
}

/// Without a note of the job every unit asks for itself, and hits as well.
#[test]
fn a_job_of_another_name_hits_too() {
    let (shared, one, two) = (Shared::start(), world!(), world!());
    let relay = Relay::before(&shared);
    build(&one, &sample(&one, "app"), &relay);
    stop(&one);
    relay.take();
    let second = sample(&two, "app");
    let call = before(two.cargo(&second, &["build"]), &relay).env("KILN_JOB", "another");
    two.assert_all_hit(&call.run().ok());
    let used = relay.take();
    show("without a note", &used);
    assert_eq!(requests(&used, "POST /v1/lookup"), 5);
    assert_eq!(newest(&two)["hit_remote"], 5);
}

/// What differs is compiled, though the shared server has results of the unit; and that they do not hold
/// is found out with one question.
#[test]
fn a_changed_source_is_compiled_and_shared() {
    let (shared, one, two) = (Shared::start(), world!(), world!());
    let relay = Relay::before(&shared);
    build(&one, &sample(&one, "app"), &relay);
    stop(&one);
    let second = sample(&two, "app");
    second.write("low/src/lib.rs", "pub fn n() -> i32 { 40 + 4 }\n");
    let done = build(&two, &second, &relay);
    two.assert_compiled(&done, &["app bin", "low lib"]);
    stop(&two);
    assert_eq!(shared.results(), 7);
    // The first machine has other results of both units, and asks on.
    let first = sample(&one, "app");
    first.write("low/src/lib.rs", "pub fn n() -> i32 { 40 + 4 }\n");
    one.assert_all_hit(&build(&one, &first, &relay));
    assert_eq!(newest(&one)["hit_remote"], 2, "{:#}", one.stats());
}

/// The queue survives the server that is killed.
#[test]
fn an_edge_killed_with_a_full_queue_loses_nothing() {
    let (shared, world) = (Shared::start(), world!());
    let relay = Relay::before(&shared);
    relay.set(Mode::HangUp);
    let project = sample(&world, "app");
    build(&world, &project, &relay);
    wait_until("all five results wait to be sent", || queued(&world) == 5);
    world.server().unwrap().kill();
    assert!(relay.refused() > 0);
    assert_eq!(shared.results(), 0);
    relay.set(Mode::Pass);
    let start = before(world.kiln(&["server", "start"]), &relay).run().ok();
    assert!(start.stdout.contains("before http"), "{}", start.stdout);
    let doctor = |url: &str| {
        world.kiln(&["doctor"]).env("KILN_UPSTREAM", url).env("KILN_JOB", "dev").run().stdout
    };
    assert!(doctor(&relay.url()).contains("before http"), "{}", doctor(&relay.url()));
    assert!(doctor("http://other:1").contains("another KILN_UPSTREAM"));
    wait_until("all five results have arrived", || shared.results() == 5);
    wait_until("nothing waits any more", || queued(&world) == 0);
}

/// A server that is told to leave by a signal, or leaves because nobody needs it, sends first.
#[test]
fn an_edge_that_leaves_sends_what_waits() {
    for idle in ["120", "1"] {
        let (shared, world) = (Shared::start(), world!());
        let relay = Relay::before(&shared);
        let project = sample(&world, "app");
        let call = before(world.cargo(&project, &["build"]), &relay);
        call.env("KILN_IDLE", idle).run().ok();
        // One that is idle may be gone already.
        if let Some(server) = world.server() {
            if idle == "120" {
                kill(server.pid, Signal::TERM);
            }
            wait_until("the server has left", || !server.is_alive());
        }
        assert_eq!(shared.results(), 5, "idle after {idle} s");
        assert_eq!(requests(&relay.take(), "PUT /v1/notes/*"), 1);
        assert_eq!(remote_lines(&world), [""; 0]);
    }
}

/// How many results wait to be sent, as `kiln server status` says.
fn queued(world: &World) -> u64 {
    let status = world.kiln(&["server", "status"]).run().stdout;
    let line = status.lines().find_map(|line| line.strip_prefix("to be sent: "));
    let count = line.and_then(|line| line.split(' ').next()?.parse().ok());
    count.unwrap_or_else(|| panic!("{status}"))
}

/// A build before a shared server that fails in some way; what the log says, and what was stored.
#[track_caller]
fn fails(mode: Mode, want: &str) {
    let (shared, world) = (Shared::start(), world!());
    let relay = Relay::before(&shared);
    relay.set(mode);
    let project = sample(&world, "app");
    build(&world, &project, &relay);
    world.assert_all_hit(&build(&world, &project, &relay));
    assert_eq!(newest(&world)["hit_local"], 5);
    let said = stop(&world);
    assert!(relay.refused() > 0, "no fault was seen");
    assert_eq!(shared.results(), 0);
    let told = format!("{}{}", said.stdout, said.stderr);
    assert!(told.contains("5 results") && told.contains("stay queued"), "{told}");
    let lines = remote_lines(&world);
    let faults: Vec<_> = lines.iter().filter(|line| !line.contains("stay queued")).collect();
    assert_eq!(faults.len(), 1, "{lines:#?}");
    assert!(faults[0].contains(want), "{lines:#?}");
}

#[test]
fn a_shared_server_that_hangs_up() {
    fails(Mode::HangUp, "the connection broke before an answer came");
}

#[test]
fn a_shared_server_that_answers_garbage() {
    fails(Mode::Garbage, "none of a Kiln server");
}

#[test]
fn a_shared_server_that_takes_no_writes() {
    fails(Mode::NoWrites(503), "takes no results");
}

#[test]
fn a_shared_server_that_is_full() {
    fails(Mode::NoWrites(507), "takes no results");
}

/// Nobody listens at all.
#[test]
fn a_shared_server_that_is_away() {
    let world = world!();
    let shared = Shared::start();
    let relay = Relay::before(&shared);
    let project = sample(&world, "app");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let build = || {
        project.wipe();
        world
            .cargo(&project, &["build"])
            .env("KILN_UPSTREAM", format!("http://{nobody}"))
            .run()
            .ok()
    };
    assert_eq!(build().compiled().len(), 4);
    world.assert_all_hit(&build());
    let said = stop(&world);
    assert!(said.stderr.contains("stay queued"), "{}", said.stderr);
    assert_eq!(relay.take(), BTreeMap::new());
}

/// Each question is bounded, and after a few the server is left alone.
#[test]
fn a_shared_server_that_never_answers() {
    let (shared, world) = (Shared::start(), world!());
    let relay = Relay::before(&shared);
    relay.set(Mode::Silent);
    let project = sample(&world, "app");
    let begun = std::time::Instant::now();
    build(&world, &project, &relay);
    println!("before a server that never answers: {:?}", begun.elapsed());
    let (plain, begun) = (world!(), std::time::Instant::now());
    let app = sample(&plain, "app");
    plain.cargo(&app, &["build"]).run().ok();
    println!("with nothing behind the server: {:?}", begun.elapsed());
    assert!(relay.refused() > 0, "no fault was seen");
    assert_eq!(newest(&world)["miss"], 5);
    world.assert_all_hit(&build(&world, &project, &relay));
    let lines = remote_lines(&world);
    let told = |kind: &str| lines.iter().filter(|line| line.contains(kind)).count();
    assert_eq!(told("too slow"), 1, "{lines:#?}");
    // That of a question which went on when nobody waited any more.
    assert!(told("does not answer in time") <= 1 && lines.len() <= 2, "{lines:#?}");
    // It gives up the results that it sends; they stay queued.
    let said = world.kiln(&["server", "stop"]).env("KILN_DRAIN", "1").run().ok();
    assert!(said.stderr.contains("stay queued"), "{}{}", said.stdout, said.stderr);
}

/// With `KILN_MODE=read` a machine takes part, and leaves nothing.
#[test]
fn a_machine_that_only_reads_sends_nothing() {
    let (shared, one, two) = (Shared::start(), world!(), world!());
    let relay = Relay::before(&shared);
    build(&one, &sample(&one, "app"), &relay);
    stop(&one);
    relay.take();
    let second = sample(&two, "app");
    second.write("low/src/lib.rs", "pub fn n() -> i32 { 40 + 4 }\n");
    let call = before(two.cargo(&second, &["build"]), &relay).env("KILN_MODE", "read");
    two.assert_compiled(&call.run().ok(), &["app bin", "low lib"]);
    stop(&two);
    let used = relay.take();
    assert!(!used.keys().any(|call| call.starts_with("PUT")), "{used:#?}");
    assert_eq!(shared.results(), 5);
}

/// Compiles that build scripts in ripgrep's tree start, to try something out.
const COMPILES_IN_SCRIPTS: u64 = 1;

/// A real program: nothing is compiled and no build script runs on the second machine.
#[test]
fn ripgrep_on_a_second_machine() {
    let (shared, world) = (Shared::start(), world!());
    let relay = Relay::before(&shared);
    let published = match registry::published(&world, "ripgrep", "15.2.0") {
        Ok(published) => published,
        Err(why) => skip!("{why}"),
    };
    world.provide_sources(&published);
    let first = published.copy_to(world.at("ws/one"));
    before(world.cargo(&first, &["build"]), &relay).run().ok();
    let units = newest(&world)["units"].clone();
    stop(&world);
    let filled = show("ripgrep, first machine", &relay.take());

    // The compilers are at the same place, nothing else is: build scripts look at that.
    let second = published.copy_to(world.at("ws/elsewhere/two"));
    let (dir, home, cargo) = (world.at("k2"), world.at("home2"), world.at("cargo2"));
    std::fs::create_dir(&home).unwrap();
    std::fs::create_dir(&cargo).unwrap();
    world.provide_sources_to(&published, &cargo);
    let there =
        |call: Call| call.env("KILN_DIR", &dir).env("HOME", &home).env("CARGO_HOME", &cargo);
    let done = before(there(world.cargo(&second, &["build"])), &relay).run().ok();
    let stats = there(world.kiln(&["stats", "--format", "json"])).run().ok();
    there(world.kiln(&["server", "stop"])).run().ok();
    let figures: Value = serde_json::from_str(&stats.stdout).unwrap();
    assert_eq!(done.compiled(), [""; 0], "{figures:#}");
    // Runs of scripts that hold at one place only, as Kiln says of them, are no hits in another.
    let listed = |list: &str| figures[list].as_array().cloned().unwrap_or_default();
    let missed: Vec<Value> = listed("missed").iter().map(|unit| unit["unit"].clone()).collect();
    let pinned: Vec<Value> = listed("pinned").iter().map(|unit| unit["unit"].clone()).collect();
    assert!(missed.iter().all(|unit| pinned.contains(unit)), "{figures:#}");
    // Compiles within a script's run are asked for only where the script runs.
    let asked = figures["build"]["units"].as_u64().unwrap();
    let within = units.as_u64().unwrap().checked_sub(asked).unwrap();
    assert!(within <= COMPILES_IN_SCRIPTS, "{figures:#}");
    let hits = asked - missed.len() as u64;
    assert_eq!(figures["build"]["hit_remote"], hits, "{figures:#}");
    println!("ripgrep: {units} units, {hits} from afar");
    let used = relay.take();
    let all = show("ripgrep, second machine", &used);
    // One for what is needed first, one for the rest, and one for each unit whose results do not hold here.
    assert_eq!(requests(&used, "POST /v1/lookup"), 2 + missed.len() as u64, "{used:#?}");
    assert!(all.requests < units.as_u64().unwrap() * 2, "{used:#?}");
    let restored = figures["build"]["restored_bytes"].as_u64().unwrap();
    assert!(all.received < restored / 2 && filled.sent < restored / 2, "{all:?} {filled:?}");
}
