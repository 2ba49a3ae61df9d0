//! Theme: wrappers and servers of different versions. A record with something in it that one of them does not know
//! is a miss for who cannot read it, and no fault of anybody; what else is in the answer is used.

#![allow(clippy::unwrap_used, reason = "tests")]

use kiln_storage::record::RECORD_VERSION;
use kiln_storage::testing::proxy::{HttpFault, When};
use kiln_tests::far::between::Between;
use kiln_tests::far::bucket::warnings;
use kiln_tests::far::standing::Standing;
use kiln_tests::samples::{build_all_kinds, of_all_kinds};
use kiln_tests::{Done, World, world};
use serde_json::Value;

/// What a wrapper or a server has before itself: the variable that names it.
const SIDES: [&str; 2] = ["KILN_SERVER", "KILN_UPSTREAM"];

fn shared(world: &World) -> Standing {
    Standing::start(world.kiln(&["serve", "--listen", "127.0.0.1:0"]))
}

/// A build before a server that this variable names; with what became of it, by the server that was asked.
#[track_caller]
fn build(world: &World, side: &str, between: &Between) -> (Done, Value) {
    let project = of_all_kinds(world, "app");
    let done = build_all_kinds(
        world,
        &project,
        world.cargo(&project, &["build"]).env(side, between.url()),
    );
    let stats = world.kiln(&["stats", "--format", "json"]).env(side, between.url()).run().ok();
    let stats: Value = serde_json::from_str(&stats.stdout).unwrap();
    (done, stats["build"].clone())
}

/// `kiln server stop`, where the wrapper has a server of its own; what it said.
fn stop(world: &World) -> String {
    let said = world.kiln(&["server", "stop"]).run().ok();
    format!("{}{}", said.stdout, said.stderr)
}

/// One record has something that only a newer version has.
const ONE_NEWER: HttpFault =
    HttpFault::Rewrite("\"unit\":{\"crate_name\":\"low\"", "\"unit\":{\"crate_name\":[\"low\"]");

/// Every record is one of the next version.
fn newer_records() -> HttpFault {
    let of = |version: u32| &*format!("\"version\":{version},\"unit_key\"").leak();
    HttpFault::Rewrite(of(RECORD_VERSION), of(RECORD_VERSION + 1))
}

#[test]
fn a_newer_record_is_a_miss_and_the_others_are_hits() {
    for side in SIDES {
        let (there, one) = (world!(), world!());
        let server = shared(&there);
        let between = Between::before(&server);
        build(&one, side, &between);
        if side == "KILN_UPSTREAM" {
            assert!(stop(&one).contains("5 results were sent"));
        }
        for (newer, missed) in [(ONE_NEWER, 1), (newer_records(), 5)] {
            let two = world!();
            between.proxy().clear();
            between.proxy().inject(When::next("POST", "/v1/lookup").always(), newer);
            let (_, figures) = build(&two, side, &between);
            let of = |what: &str| figures[what].as_u64().unwrap();
            assert_eq!((of("miss"), of("error"), of("bypass")), (missed, 0, 0), "{figures:#}");
            assert_eq!(of("hit_remote"), 5 - missed, "{figures:#}");
            if side == "KILN_UPSTREAM" {
                stop(&two);
            }
            assert_eq!(warnings(&two.kiln_dir()), [""; 0]);
        }
        assert_eq!(warnings(&there.kiln_dir()), [""; 0]);
    }
}

/// The other way round: what an older server does not take is compiled each time, and told once.
#[test]
fn a_newer_record_is_refused_by_an_older_server() {
    for side in SIDES {
        for newer in [ONE_NEWER, newer_records()] {
            let (there, one, two) = (world!(), world!(), world!());
            let server = shared(&there);
            let between = Between::before(&server);
            between.proxy().inject(When::next("PUT", "/v1/results/").always(), newer);
            build(&one, side, &between);
            let refused = if newer == ONE_NEWER { 1 } else { 5 };
            if side == "KILN_UPSTREAM" {
                let said = stop(&one);
                assert!(said.contains("never will be") && !said.contains("queued"), "{said}");
                let told = warnings(&one.kiln_dir());
                assert_eq!(told.len(), 1, "{told:?}");
                assert!(told[0].contains("perhaps of another version"), "{told:?}");
            }
            let (_, figures) = build(&two, side, &between);
            let of = |what: &str| figures[what].as_u64().unwrap();
            assert_eq!((of("miss"), of("hit_remote")), (refused, 5 - refused), "{figures:#}");
            if side == "KILN_UPSTREAM" {
                stop(&two);
            }
        }
    }
}
