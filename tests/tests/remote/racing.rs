//! Theme: several at work on one place at a time: servers with the same results of which one is killed, collections
//! beside builds, entries that go while they are read, chains of servers of which each may die. Builds are right, what
//! is seen is whole, and the next machine hits.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::sync::atomic::{AtomicBool, Ordering};

use kiln_storage::testing::gha::READ_WRITE;
use kiln_storage::testing::proxy::{HttpFault, When};
use kiln_tests::far::bucket::{Bucket, warnings};
use kiln_tests::far::cache::{Cache, Face};
use kiln_tests::far::standing::Standing;
use kiln_tests::samples::{build_all_kinds, of_all_kinds};
use kiln_tests::server::{Server, is_alive, kill, wait_until};
use kiln_tests::{Call, World, bucket, world};
use rustix::process::Signal;

/// A build of five units that has to be right; how many came from afar, and how many were compiled.
#[track_caller]
fn build(world: &World, before: &dyn Fn(Call) -> Call) -> (u64, u64) {
    let project = of_all_kinds(world, "app");
    build_all_kinds(world, &project, before(world.cargo(&project, &["build"])));
    let build = &world.stats()["build"];
    assert_eq!((&build["units"], &build["error"]), (&5.into(), &0.into()), "{build:#}");
    (build["hit_remote"].as_u64().unwrap(), build["miss"].as_u64().unwrap())
}

fn stop(world: &World) -> String {
    let said = world.kiln(&["server", "stop"]).env("KILN_DRAIN", "60").run().ok();
    format!("{}{}", said.stdout, said.stderr)
}

/// Nothing that was read there was damaged.
#[track_caller]
fn all_was_whole(world: &World) {
    assert_eq!(Server::info(&world.kiln_dir())["remote"]["damaged"], 0);
    assert_eq!(warnings(&world.kiln_dir()), [""; 0]);
}

/// Two machines have made the same, and send it at the same time; one is killed at some point of that.
#[test]
fn of_two_servers_that_send_the_same_one_is_killed() {
    one_of_two_is_killed(&[2, 8]);
}

/// At more of them.
#[test]
#[ignore = "minutes; .ci/run --full"]
fn of_two_servers_that_send_the_same_one_is_killed_anywhere() {
    one_of_two_is_killed(&[1, 2, 4, 6, 8, 10, 12]);
}

fn one_of_two_is_killed(points: &[u64]) {
    for &point in points {
        let (killed, other, reader, last) = (world!(), world!(), world!(), world!());
        let bucket = bucket!(killed);
        let before = |call| bucket.before(call);
        let writes = When { method: Some("PUT"), ..When::any() };
        bucket.proxy().inject(writes.always(), HttpFault::Status(503, Some(3600)));
        for world in [&killed, &other] {
            assert_eq!(build(world, &before), (0, 5));
        }
        let slow = HttpFault::Slow { pieces: 4, pause: std::time::Duration::from_millis(5) };
        bucket.proxy().clear();
        bucket.proxy().forget();
        bucket.proxy().inject(When::any().always(), slow);
        let server = killed.server().unwrap();
        let stopping = [&killed, &other].map(|world| world.kiln(&["server", "stop"]).spawn());
        wait_until("so much was written, or all", || {
            bucket.proxy().count("PUT", "") >= point || !server.is_alive()
        });
        server.kill_if_alive();
        let [_, said] = stopping.map(|stopping| stopping.wait());
        bucket.proxy().clear();
        println!("point {point}: {}", said.stdout.replace('\n', " | "));
        assert!(!said.stderr.contains("queued"), "{}", said.stderr);
        assert_eq!(build(&reader, &before), (5, 0), "point {point}");
        all_was_whole(&reader);
        before(killed.kiln(&["server", "start"])).run().ok();
        assert!(!stop(&killed).contains("queued"));
        assert_eq!(build(&last, &before), (5, 0), "point {point}");
        all_was_whole(&last);
    }
}

/// `kiln gc` that takes all, but for what is young where no other grace is given.
fn collect(world: &World, bucket: &Bucket, flags: &[&str]) -> String {
    let flags = [&["gc", "--unused", "0s", "--quota", "1"], flags].concat();
    bucket.before(world.kiln(&flags)).run().ok().stdout
}

/// Collections that take all, over and over, while machines build and store.
#[test]
fn collections_beside_builds_that_store() {
    let collector = world!();
    let bucket = bucket!(collector);
    let before = |call| bucket.before(call);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                collect(&collector, &bucket, &["--grace", "0s"]);
            }
        });
        for _ in 0..4 {
            let world = world!();
            build(&world, &before);
            assert!(!stop(&world).contains("queued"));
        }
        is_over.store(true, Ordering::Relaxed);
    });
    // A machine that finds it as it is now fills it, and all hit then.
    let (next, last) = (world!(), world!());
    build(&next, &before);
    stop(&next);
    // What is young stays, whatever the quota is.
    let said = collect(&collector, &bucket, &[]);
    assert!(said.contains("deleted: 0 results and 0 blobs"), "{said}");
    assert_eq!(build(&last, &before), (5, 0));
    all_was_whole(&last);
}

/// One collection that takes all, at some point of a build that reads: packs of its job, or object by object.
#[test]
fn a_collection_beside_builds_that_read() {
    collected_at(&[1, 3], &[2, 6]);
}

/// At more of them.
#[test]
#[ignore = "minutes; .ci/run --full"]
fn a_collection_anywhere_beside_builds_that_read() {
    collected_at(&[1, 2, 3, 4], &[2, 4, 6, 8, 10]);
}

fn collected_at(of_packs: &[usize], of_objects: &[usize]) {
    let (collector, last) = (world!(), world!());
    let bucket = bucket!(collector);
    for (job, points) in [("dev", of_packs), ("other", of_objects)] {
        for point in points {
            let (filler, reader) = (world!(), world!());
            build(&filler, &|call| bucket.before(call));
            stop(&filler);
            bucket.proxy().forget();
            let before = |call: Call| bucket.before(call).env("KILN_JOB", job);
            let project = of_all_kinds(&reader, "app");
            let building = before(reader.cargo(&project, &["build"])).spawn();
            wait_until("so much was asked, or all", || {
                bucket.proxy().seen().len() >= *point || !is_alive(building.pid())
            });
            let server = reader.server().unwrap();
            kill(server.pid, Signal::STOP);
            collect(&collector, &bucket, &["--grace", "0s"]);
            kill(server.pid, Signal::CONT);
            building.wait().ok();
            let program = reader.call(project.at("target/debug/app"), project.dir(), &[]);
            assert_eq!(program.run().ok().stdout, "42 43 44\n");
            let stats = &reader.stats()["build"];
            println!("{job} {point}: {} hits, {} misses", stats["hit_remote"], stats["miss"]);
            // A wrapper may have waited for its server in vain.
            assert_eq!(stats["units"], 5, "{stats:#}");
            assert!(!stop(&reader).contains("queued"));
            collect(&collector, &bucket, &["--grace", "0s"]);
        }
    }
    let next = world!();
    build(&next, &|call| bucket.before(call));
    stop(&next);
    assert_eq!(build(&last, &|call| bucket.before(call)), (5, 0));
}

/// Entries of the GitHub cache go at some point of a build: packs, manifests, all.
#[test]
fn entries_that_go_while_a_job_reads() {
    entries_go_after(&[0, 2]);
}

/// At more of them.
#[test]
#[ignore = "minutes; .ci/run --full"]
fn entries_that_go_anywhere_while_a_job_reads() {
    entries_go_after(&[0, 1, 2, 3, 5]);
}

fn entries_go_after(points: &[u64]) {
    for prefix in ["kiln-pack-", "kiln-idx-", "kiln-"] {
        for &point in points {
            let (one, two, three) = (world!(), world!(), world!());
            let cache = Cache::start(Face::V2);
            let before = |call| cache.job(call, &[("refs/heads/main", READ_WRITE)]);
            build(&one, &before);
            stop(&one);
            let asked = cache.fake().counted().all_requests();
            let is_over = AtomicBool::new(false);
            let (hits, missed) = std::thread::scope(|scope| {
                let evicting = scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed)
                        && cache.fake().counted().all_requests() < asked + point
                    {
                        std::thread::yield_now();
                    }
                    cache.fake().evict(prefix)
                });
                let built = build(&two, &before);
                is_over.store(true, Ordering::Relaxed);
                assert_ne!(evicting.join().unwrap(), 0);
                built
            });
            println!("{prefix} goes after {point} requests: {hits} hits, {missed} misses");
            assert_eq!(hits + missed, 5);
            stop(&two);
            let third = build(&three, &before);
            println!("then: {third:?}");
            stop(&three);
            // What the second had from there before it went, it did not store again.
            let four = world!();
            assert_eq!(build(&four, &before), (5, 0), "{prefix} {point}");
        }
    }
}

/// A machine before a shared server before a bucket, and each of them dies in the middle of a build.
#[test]
fn a_chain_of_which_each_link_dies() {
    for dies in ["bucket", "shared", "edge"] {
        for filled in [false, true] {
            let (there, one, two) = (world!(), world!(), world!());
            let bucket = bucket!(there);
            let shared = || serve(&there, &bucket);
            let mut server = Some(shared());
            let url = server.as_ref().unwrap().url();
            let before = |call: Call| call.env("KILN_UPSTREAM", &url).env("KILN_JOB", "dev");
            if filled {
                let filler = world!();
                build(&filler, &|call| bucket.before(call));
                stop(&filler);
            }
            bucket.proxy().forget();
            let project = of_all_kinds(&one, "app");
            let building = before(one.cargo(&project, &["build"])).spawn();
            wait_until("the bucket is asked", || !bucket.proxy().seen().is_empty());
            match dies {
                "bucket" => bucket.proxy().inject(When::any().always(), HttpFault::ResetBefore),
                "shared" => drop(server.take().unwrap().end(Signal::KILL)),
                _ => one.server().unwrap().kill(),
            }
            building.wait().ok();
            let program = one.call(project.at("target/debug/app"), project.dir(), &[]);
            assert_eq!(program.run().ok().stdout, "42 43 44\n");
            println!("{dies} dies, filled: {filled}: {:#}", one.stats()["build"]);
            // All is well again, and what was made arrives in the end.
            bucket.proxy().clear();
            let server = server.unwrap_or_else(shared);
            let before =
                |call: Call| call.env("KILN_UPSTREAM", server.url()).env("KILN_JOB", "dev");
            stop_if_running(&one);
            // What was about to be stored when its server died is made once more.
            build(&one, &before);
            assert!(!stop(&one).contains("queued"));
            server.end(Signal::TERM);
            let fresh = world!();
            let server = serve(&fresh, &bucket);
            let before =
                |call: Call| call.env("KILN_UPSTREAM", server.url()).env("KILN_JOB", "dev");
            assert_eq!(build(&two, &before), (5, 0), "{dies} {filled}");
            all_was_whole(&two);
        }
    }
}

fn serve(world: &World, bucket: &Bucket) -> Standing {
    Standing::start(bucket.before(world.kiln(&["serve", "--listen", "127.0.0.1:0"])))
}

fn stop_if_running(world: &World) {
    world.kiln(&["server", "stop"]).env("KILN_DRAIN", "1").run();
}
