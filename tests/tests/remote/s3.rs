//! Theme: machines that share a bucket and nothing else, with and without shared servers before it. What
//! the first has made, the second does not make again; what that costs in requests and bytes is counted
//! twice, by the server and on the way.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use kiln_storage::testing::proxy::{HttpFault, When};
use kiln_tests::far::bucket::{Bucket, warnings};
use kiln_tests::far::standing::Standing;
use kiln_tests::far::{requests, show};
use kiln_tests::left::Tally;
use kiln_tests::samples::{build_all_kinds, of_all_kinds, of_all_kinds_with_tally};
use kiln_tests::server::{Server, wait_until};
use kiln_tests::{Call, Done, Project, World, bucket, registry, skip, world};
use rustix::process::Signal;
use serde_json::Value;

#[track_caller]
fn build(world: &World, project: &Project, bucket: &Bucket) -> Done {
    build_all_kinds(world, project, bucket.before(world.cargo(project, &["build"])))
}

/// What became of the newest build.
fn newest(world: &World) -> Value {
    world.stats()["build"].clone()
}

/// What the server of a state directory says of the place behind it, once it has counted all that went by.
#[track_caller]
fn counted(bucket: &Bucket, kiln_dir: &std::path::Path) -> Value {
    let mut remote = Value::Null;
    wait_until("nothing is under way", || {
        remote = Server::info(kiln_dir)["remote"].clone();
        remote["queued"] == 0 && remote["requests"] == bucket.proxy().seen().len()
    });
    let seen = bucket.proxy().seen();
    assert_eq!(remote["bytes_out"], seen.iter().map(|one| one.sent).sum::<u64>(), "{remote:#}");
    // Listings are no bytes of results.
    let received = seen.iter().filter(|one| !one.query.contains("list-type"));
    let received: u64 = received.filter(|one| one.status == 200).map(|one| one.received).sum();
    assert_eq!(remote["bytes_in"], received, "{remote:#} {seen:#?}");
    remote
}

/// The second machine has nothing: no state, no target, another checkout path, another cargo home.
#[test]
fn the_second_machine_compiles_nothing_and_runs_no_script() {
    let (one, two) = (world!(), world!());
    let (bucket, tally) = (bucket!(one), Tally::new(&one));
    let first = of_all_kinds_with_tally(&one, "app", &tally);
    build(&one, &first, &bucket);
    // app, its build script, the run of that, mac, low.
    assert_eq!(newest(&one)["miss"], 5, "{:#}", one.stats());
    assert_eq!(tally.take(), ["app"]);
    counted(&bucket, &one.kiln_dir());
    let said = one.kiln(&["server", "stop"]).run().ok();
    assert!(said.stdout.contains("5 results were sent to s3://"), "{}", said.stdout);
    let filled = bucket.take();
    show("first machine", &filled);
    let (results, packed) = (bucket.objects("results").len(), bucket.objects("packed").len());
    assert_eq!(results, 5);
    assert_eq!(requests(&filled, "LIST results"), 5, "{filled:#?}");
    assert_eq!(requests(&filled, "PUT results"), 5, "{filled:#?}");
    assert_eq!(requests(&filled, "PUT packed"), packed as u64, "{filled:#?}");
    // The note is written once more when the pack is there, and then the older one goes.
    assert_eq!(requests(&filled, "PUT notes"), 2, "{filled:#?}");
    assert_eq!(requests(&filled, "PUT together"), 1, "{filled:#?}");
    // What became of the units, for reports.
    assert_eq!(requests(&filled, "PUT events"), 1, "{filled:#?}");
    assert_eq!(filled.values().map(|kind| kind.requests).sum::<u64>(), 26, "{filled:#?}");

    let second = of_all_kinds_with_tally(&two, "elsewhere/checkout", &tally);
    let done = build(&two, &second, &bucket);
    two.assert_all_hit(&done);
    assert_eq!(tally.take(), [""; 0]);
    let figures = newest(&two);
    assert_eq!((&figures["units"], &figures["hit_remote"]), (&5.into(), &5.into()), "{figures:#}");
    counted(&bucket, &two.kiln_dir());
    let used = bucket.take();
    show("second machine", &used);
    // The note, what no pack may give, and one pack with everything.
    for kind in ["LIST notes", "GET notes", "LIST rejected", "GET together"] {
        assert_eq!(requests(&used, kind), 1, "{used:#?}");
    }
    // What became of the units goes there a minute later, or when the server ends.
    let all = used.iter().filter(|(kind, _)| *kind != "PUT events");
    assert_eq!(all.map(|(_, kind)| kind.requests).sum::<u64>(), 4, "{used:#?}");

    // By now everything is here.
    two.assert_all_hit(&build(&two, &second, &bucket));
    assert_eq!(newest(&two)["hit_local"], 5);
    assert!(bucket.take().is_empty());
    assert_eq!(warnings(&one.kiln_dir()), [""; 0]);
    assert_eq!(warnings(&two.kiln_dir()), [""; 0]);
}

/// Packs only save requests: without one, or with one that is damaged, the same results come one by one. What is
/// gone or damaged is written anew by the machine that found that.
#[test]
fn a_pack_that_is_gone_or_damaged_costs_requests_only() {
    let one = world!();
    let bucket = bucket!(one);
    build(&one, &of_all_kinds(&one, "app"), &bucket);
    one.kiln(&["server", "stop"]).run().ok();
    let packed = bucket.objects("packed").len() as u64;
    // With how many results, and large blobs, come alone then; and how often a pack is written anew.
    let faults = [
        (HttpFault::Status(404, None), 5, packed..=packed, 1),
        (HttpFault::BitFlip, 0, 1..=packed, 1),
        (HttpFault::Stall, 0, 1..=packed, 0),
    ];
    for (fault, results, large, anew) in faults {
        let two = world!();
        bucket.take();
        bucket.proxy().inject(When::next("GET", "/together/").always(), fault);
        let second = of_all_kinds(&two, "app");
        two.assert_all_hit(&build(&two, &second, &bucket));
        assert_eq!(newest(&two)["hit_remote"], 5);
        let used = bucket.take();
        show("without the pack", &used);
        assert_eq!(requests(&used, "LIST results"), 0, "{used:#?}");
        assert_eq!(requests(&used, "GET results"), results, "{used:#?}");
        assert!(large.contains(&requests(&used, "GET packed")), "{used:#?}");
        bucket.proxy().clear();
        two.kiln(&["server", "stop"]).run().ok();
        let left = bucket.take();
        show("what is written anew", &left);
        assert_eq!(requests(&left, "PUT together"), anew, "{left:#?}");
    }
    let three = world!();
    three.assert_all_hit(&build(&three, &of_all_kinds(&three, "app"), &bucket));
    let used = bucket.take();
    assert_eq!(requests(&used, "GET together"), 1, "{used:#?}");
    assert_eq!(requests(&used, "GET results") + requests(&used, "GET packed"), 0, "{used:#?}");
}

/// Without a note of the job every unit asks for itself, and hits as well.
#[test]
fn a_job_of_another_name_hits_too() {
    let (one, two) = (world!(), world!());
    let bucket = bucket!(one);
    build(&one, &of_all_kinds(&one, "app"), &bucket);
    one.kiln(&["server", "stop"]).run().ok();
    bucket.take();
    let second = of_all_kinds(&two, "app");
    let call = bucket.before(two.cargo(&second, &["build"])).env("KILN_JOB", "another");
    two.assert_all_hit(&build_all_kinds(&two, &second, call));
    counted(&bucket, &two.kiln_dir());
    let used = bucket.take();
    show("without a note", &used);
    assert_eq!(requests(&used, "LIST results"), 5, "{used:#?}");
    assert_eq!(requests(&used, "GET results"), 5, "{used:#?}");
    assert_eq!(newest(&two)["hit_remote"], 5);
}

/// A real program: nothing is compiled and no build script runs on the second machine.
#[test]
fn ripgrep_on_a_second_machine() {
    let world = world!();
    let bucket = bucket!(world);
    let published = match registry::published(&world, "ripgrep", "15.2.0") {
        Ok(published) => published,
        Err(why) => skip!("{why}"),
    };
    world.provide_sources(&published);
    let first = published.copy_to(world.at("ws/one"));
    bucket.before(world.cargo(&first, &["build"])).run().ok();
    let units = newest(&world)["units"].as_u64().unwrap();
    world.kiln(&["server", "stop"]).env("KILN_DRAIN", "300").run().ok();
    let filled = bucket.take();
    let sent = show("ripgrep, first machine", &filled);
    let (results, packed) = (bucket.objects("results").len(), bucket.objects("packed").len());
    assert_eq!(results as u64, units);
    assert_eq!(requests(&filled, "PUT results"), units, "{filled:#?}");
    // A large one goes in parts, between a request that begins and one that ends that.
    let in_parts = requests(&filled, "POST packed") / 2;
    assert_eq!(requests(&filled, "PUT packed") + in_parts, packed as u64, "{filled:#?}");
    assert_eq!(requests(&filled, "LIST results"), units, "{filled:#?}");

    // The compilers and the sources of the registry are where they are on every machine of a CI.
    let second = published.copy_to(world.at("ws/elsewhere/two"));
    let (dir, home) = (world.at("k2"), world.at("home2"));
    std::fs::create_dir(&home).unwrap();
    let there = |call: Call| call.env("KILN_DIR", &dir).env("HOME", &home);
    let done = bucket.before(there(world.cargo(&second, &["build"]))).run().ok();
    let stats = there(world.kiln(&["stats", "--format", "json"])).run().ok();
    let figures: Value = serde_json::from_str(&stats.stdout).unwrap();
    assert_eq!(done.compiled(), [""; 0], "{figures:#}");
    // No script of a dependency runs; that of the checkout itself holds at its place only, and is listed so.
    let listed = |list: &str| figures[list].as_array().cloned().unwrap_or_default();
    let missed: Vec<Value> = listed("missed").iter().map(|unit| unit["unit"].clone()).collect();
    assert!(missed.iter().all(|unit| unit["crate_name"] == "ripgrep"), "{figures:#}");
    let pinned: Vec<Value> = listed("pinned").iter().map(|unit| unit["unit"].clone()).collect();
    assert!(missed.len() <= 1 && missed == pinned, "{figures:#}");
    // What scripts compile to try out the compiler is not asked for where they do not run.
    let hits = figures["build"]["hit_remote"].as_u64().unwrap();
    let missed = missed.len() as u64;
    assert_eq!(figures["build"]["units"], hits + missed, "{figures:#}");
    let tried = units - hits - missed;
    counted(&bucket, &dir);
    let read = bucket.take();
    let all = show("ripgrep, second machine", &read);
    assert_eq!(requests(&read, "LIST results"), missed, "{read:#?}");
    // What is in packs is not asked for again.
    assert_eq!(requests(&read, "GET results"), missed, "{read:#?}");
    assert_eq!(requests(&read, "GET packed"), 0, "{read:#?}");
    assert_eq!(requests(&read, "GET together"), bucket.objects("together").len() as u64);
    assert!(bucket.objects("together").len() <= 4);
    println!(
        "ripgrep: {hits} of {units} units from afar, {tried} compiles of scripts not asked for"
    );
    there(world.kiln(&["server", "stop"])).run().ok();
    let restored = figures["build"]["restored_bytes"].as_u64().unwrap();
    println!("ripgrep: {packed} large blobs, {restored} bytes restored");
    assert!(all.received < restored / 2 && sent.sent < restored / 2, "{all:?} {sent:?}");
    assert_eq!(warnings(&dir), [""; 0]);

    // In a job that nobody had before: object by object, each once.
    bucket.take();
    let third = published.copy_to(world.at("ws/elsewhere/three"));
    let (dir, home) = (world.at("k3"), world.at("home3"));
    std::fs::create_dir(&home).unwrap();
    let there = |call: Call| call.env("KILN_DIR", &dir).env("HOME", &home);
    let call = bucket.before(there(world.cargo(&third, &["build"]))).env("KILN_JOB", "another");
    assert_eq!(call.run().ok().compiled(), [""; 0]);
    counted(&bucket, &dir);
    let read = bucket.take();
    show("ripgrep, another job", &read);
    assert!(requests(&read, "GET packed") <= packed as u64, "{read:#?}");
    there(world.kiln(&["server", "stop"])).run().ok();
    assert_eq!(warnings(&dir), [""; 0]);
}

/// A shared server before the bucket, in the state directory of a world.
fn shared(world: &World, bucket: &Bucket) -> Standing {
    Standing::start(bucket.before(world.kiln(&["serve", "--listen", "127.0.0.1:0"])))
}

/// A build of a machine whose server stands before a shared one.
#[track_caller]
fn build_before(world: &World, project: &Project, shared: &Standing, mode: &str) -> Done {
    let call = world.cargo(project, &["build"]).env("KILN_MODE", mode).env("KILN_JOB", "dev");
    build_all_kinds(world, project, call.env("KILN_UPSTREAM", shared.url()))
}

/// What one machine publishes through one shared server, another machine gets through another one.
#[test]
fn two_shared_servers_on_one_bucket_see_each_others_results() {
    let (a, b, one, two) = (world!(), world!(), world!(), world!());
    let bucket = bucket!(one);
    let tally = Tally::new(&one);
    let (first, second) = (shared(&a, &bucket), shared(&b, &bucket));
    let project = of_all_kinds_with_tally(&one, "app", &tally);
    build_before(&one, &project, &first, "read-write");
    let said = one.kiln(&["server", "stop"]).run().ok();
    assert!(said.stdout.contains("5 results were sent to http"), "{}", said.stdout);
    wait_until("all five results are in the bucket", || bucket.objects("results").len() == 5);
    show("shared server that publishes", &bucket.take());
    assert_eq!(tally.take(), ["app"]);

    let project = of_all_kinds_with_tally(&two, "elsewhere/checkout", &tally);
    two.assert_all_hit(&build_before(&two, &project, &second, "read-write"));
    assert_eq!(tally.take(), [""; 0]);
    assert_eq!(newest(&two)["hit_remote"], 5, "{:#}", two.stats());
    let used = bucket.take();
    show("shared server that answers", &used);
    assert!(requests(&used, "LIST results") <= 5, "{used:#?}");
    assert!(requests(&used, "GET results") <= 5, "{used:#?}");
    assert!(!used.contains_key("PUT results") && !used.contains_key("PUT packed"), "{used:#?}");
    for (world, server) in [(&a, first), (&b, second)] {
        server.end(Signal::TERM);
        assert_eq!(warnings(&world.kiln_dir()), [""; 0]);
    }
}

/// A shared server is killed while it sends. Nothing half is in the bucket, and what was not sent is sent
/// when it runs again.
#[test]
fn a_shared_server_killed_while_it_sends() {
    let (a, b, c) = (world!(), world!(), world!());
    let (one, two, three) = (world!(), world!(), world!());
    let bucket = bucket!(one);
    let (first, second) = (shared(&a, &bucket), shared(&b, &bucket));
    bucket.proxy().inject(When::next("PUT", "/results/").after(2).always(), HttpFault::Hold);
    build_before(&one, &of_all_kinds(&one, "app"), &first, "read-write");
    one.kiln(&["server", "stop"]).run().ok();
    wait_until("three results are on their way", || bucket.proxy().injected() >= 3);
    first.end(Signal::KILL);
    bucket.proxy().clear();
    assert_eq!(bucket.objects("results").len(), 2);

    let project = of_all_kinds(&two, "app");
    build_before(&two, &project, &second, "read");
    let figures = newest(&two);
    assert_eq!((&figures["hit_remote"], &figures["miss"]), (&2.into(), &3.into()), "{figures:#}");
    assert_eq!(warnings(&b.kiln_dir()), [""; 0]);

    let again = shared(&a, &bucket);
    wait_until("all five results are in the bucket", || bucket.objects("results").len() == 5);
    drop(again);
    // One that knows of nothing: the second remembers for a few seconds what it was told.
    let (third, project) = (shared(&c, &bucket), of_all_kinds(&three, "app"));
    three.assert_all_hit(&build_before(&three, &project, &third, "read"));
    assert_eq!(newest(&three)["hit_remote"], 5);
}
