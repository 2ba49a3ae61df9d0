//! Theme: servers that are killed while they send, at each point of it, and what they had to send. Nothing half is
//! ever read by others, and what was not sent is sent by the next server, or told as lost.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use kiln_storage::testing::gha::{Call as Kind, Fault, READ_WRITE};
use kiln_storage::testing::proxy::{HttpFault, When};
use kiln_tests::far::bucket::{Bucket, warnings};
use kiln_tests::far::cache::{Cache, Face};
use kiln_tests::server::{Server, wait_until};
use kiln_tests::{Call, World, bucket, world};

/// Points of sending after which nothing is left to be sent.
const MOST_POINTS: u64 = 40;

/// Units of [`build`]: as many as a pack is written for.
const UNITS: u64 = 4;

/// A build of a few libraries; how many came from afar, and how many were compiled.
#[track_caller]
fn build(world: &World, mode: &str, before: &dyn Fn(Call) -> Call) -> (u64, u64) {
    let project = world.project("four");
    project.write("Cargo.toml", "[workspace]\nmembers = [\"p*\"]\nresolver = \"2\"\n");
    for n in 0..UNITS {
        let manifest = format!("[package]\nname = \"p{n}\"\nversion = \"0.1.0\"\n");
        project.write(&format!("p{n}/Cargo.toml"), manifest);
        project.write(&format!("p{n}/src/lib.rs"), format!("pub const N: u64 = {n};\n"));
    }
    project.wipe();
    before(world.cargo(&project, &["check"])).env("KILN_MODE", mode).run().ok();
    let build = &world.stats()["build"];
    assert_eq!(Server::info(&world.kiln_dir())["remote"]["damaged"], 0);
    assert_eq!(warnings(&world.kiln_dir()), [""; 0]);
    (build["hit_remote"].as_u64().unwrap(), build["miss"].as_u64().unwrap())
}

/// `kiln server stop`, and the server is killed as soon as this holds.
fn killed_when(world: &World, holds: impl Fn() -> bool) {
    let server = world.server().unwrap();
    let stopping = world.kiln(&["server", "stop"]).spawn();
    wait_until("it is under way, or done", || holds() || !server.is_alive());
    server.kill_if_alive();
    stopping.wait();
}

/// The next server of a state directory sends what the last one left.
#[track_caller]
fn sends_the_rest(world: &World, before: &dyn Fn(Call) -> Call) {
    before(world.kiln(&["server", "start"])).run().ok();
    let said = world.kiln(&["server", "stop"]).env("KILN_DRAIN", "60").run().ok();
    assert!(!format!("{}{}", said.stdout, said.stderr).contains("queued"), "{}", said.stderr);
}

/// After some of the writes to the bucket.
#[test]
fn a_server_killed_at_a_write_to_a_bucket() {
    killed_at_writes(4);
}

/// After each of them.
#[test]
#[ignore = "minutes; .ci/run --full"]
fn a_server_killed_at_any_write_to_a_bucket() {
    killed_at_writes(1);
}

fn killed_at_writes(step: usize) {
    for point in (0..).step_by(step) {
        assert!(point < MOST_POINTS);
        let (killed, reader, last) = (world!(), world!(), world!());
        let bucket = bucket!(killed);
        let before = |call| bucket.before(call);
        let write = When { method: Some("PUT"), ..When::any() };
        bucket.proxy().inject(write.after(point).always(), HttpFault::Hold);
        build(&killed, "read-write", &before);
        killed_when(&killed, || bucket.proxy().injected() > 0);
        let held = bucket.proxy().injected();
        bucket.proxy().clear();
        let there = bucket.objects("results").len() as u64;
        // What is seen there is whole, and all of it is used.
        assert_eq!(build(&reader, "read", &before), (there, UNITS - there), "point {point}");
        sends_the_rest(&killed, &before);
        assert_eq!(build(&last, "read", &before), (UNITS, 0), "point {point}");
        println!("point {point}: {there} results were there, {held} writes held");
        if held == 0 {
            break;
        }
    }
}

/// At each kind of call, some of the times.
#[test]
fn a_job_killed_at_a_call_to_the_cache() {
    killed_at_calls(3);
}

/// Each time.
#[test]
#[ignore = "minutes; .ci/run --full"]
fn a_job_killed_at_any_call_to_the_cache() {
    killed_at_calls(1);
}

fn killed_at_calls(step: usize) {
    for kind in [Kind::Lookup, Kind::Create, Kind::Upload, Kind::Finalize] {
        for point in (0..).step_by(step) {
            assert!(point < 10);
            let (killed, reader, other, last) = (world!(), world!(), world!(), world!());
            let cache = Cache::start(Face::V2);
            let before = |call| cache.job(call, &[("refs/heads/main", READ_WRITE)]);
            build(&killed, "read-write", &before);
            cache.fake().script(kind, std::iter::repeat_n(None, point));
            cache.fake().fail(kind, &Fault::Stall, 100);
            killed_when(&killed, || cache.fake().counted().injected > 0);
            let held = cache.fake().counted().injected;
            cache.fake().heal();
            let (hits, _) = build(&reader, "read", &before);
            assert!(hits == 0 || hits == UNITS, "{kind:?} {point}: {hits}");
            // Another job makes the same meanwhile, where it finds nothing.
            let (hits, _) = build(&other, "read-write", &before);
            assert!(hits == 0 || hits == UNITS, "{kind:?} {point}: {hits}");
            sends_the_rest(&killed, &before);
            sends_the_rest(&other, &before);
            assert_eq!(build(&last, "read", &before), (UNITS, 0), "{kind:?} {point}");
            println!("{kind:?}, point {point}: {hits} results were there");
            if held == 0 {
                break;
            }
        }
    }
}

/// Somebody empties the state directory but for the store, or a part of it: what waited is told as lost.
#[test]
fn what_waited_in_an_index_that_was_removed_is_told() {
    let world = world!();
    let bucket: Bucket = bucket!(world);
    let before = |call| bucket.before(call);
    bucket.proxy().inject(When { method: Some("PUT"), ..When::any() }.always(), HttpFault::Hold);
    build(&world, "read-write", &before);
    let noted = world.kiln_dir().join("index.unsent");
    wait_until("it is noted", || std::fs::read_to_string(&noted).is_ok_and(|text| text == "4"));
    world.server().unwrap().kill();
    std::fs::remove_file(world.kiln_dir().join("index.sqlite")).unwrap();
    bucket.proxy().clear();
    before(world.kiln(&["server", "start"])).run().ok();
    let said = world.kiln(&["server", "stop"]).run().ok();
    let told = warnings(&world.kiln_dir());
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("4 results are never sent: the index in which"), "{told:?}");
    let said = format!("{}{}", said.stdout, said.stderr);
    assert!(said.contains("4 results") && said.contains("is gone"), "{said}");
    assert!(!noted.exists());
    // Nothing is told twice.
    before(world.kiln(&["server", "start"])).run().ok();
    world.kiln(&["server", "stop"]).run().ok();
    assert_eq!(warnings(&world.kiln_dir()).len(), 1);
}
