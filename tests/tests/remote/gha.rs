//! Theme: jobs that share the GitHub Actions cache and nothing else, over both of its services. A new job
//! finds what the last one made, a pull request reads from the default branch and writes for itself alone,
//! and all of that takes a handful of entries.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use kiln_server::limits::REMOTE_FAULTS;
use kiln_storage::limits::MAX_RECORDS_PER_UNIT;
use kiln_storage::remote::gha::limits::{MAX_READ_BYTES, PACK_TARGET_BYTES};
use kiln_storage::testing::gha::{Call as Kind, Fault, READ, READ_WRITE};
use kiln_tests::far::bucket::warnings;
use kiln_tests::far::cache::{Cache, Face};
use kiln_tests::left::Tally;
use kiln_tests::samples::{build_all_kinds, of_all_kinds, of_all_kinds_with_tally};
use kiln_tests::server::{kill, wait_until};
use kiln_tests::{Call, Done, Project, World, registry, skip, world};
use rustix::process::Signal;
use serde_json::Value;

const MAIN: &[(&str, u8)] = &[("refs/heads/main", READ_WRITE)];
const PULL: &[(&str, u8)] = &[("refs/pull/7/merge", READ_WRITE), ("refs/heads/main", READ)];

#[track_caller]
fn build(world: &World, project: &Project, cache: &Cache, scopes: &[(&str, u8)]) -> Done {
    build_all_kinds(world, project, cache.job(world.cargo(project, &["build"]), scopes))
}

/// What became of the newest build.
fn newest(world: &World) -> Value {
    world.stats()["build"].clone()
}

#[track_caller]
fn stop(world: &World, want: &str) {
    let said = world.kiln(&["server", "stop"]).run().ok();
    assert!(said.stdout.contains(want), "{}{}", said.stdout, said.stderr);
}

/// Keys of entries of a ref.
fn keys(cache: &Cache, scope: &str) -> Vec<String> {
    cache.fake().keys().into_iter().filter(|(of, _)| of == scope).map(|(_, key)| key).collect()
}

fn figures(cache: &Cache, what: &str) {
    println!("{what}: {:?}", cache.fake().counted());
}

#[track_caller]
fn jobs(face: Face) {
    let cache = Cache::start(face);
    let (one, two, pull) = (world!(), world!(), world!());
    let (again, later, tally) = (world!(), world!(), Tally::new(&one));
    build(&one, &of_all_kinds_with_tally(&one, "app", &tally), &cache, MAIN);
    assert_eq!(tally.take(), ["app"]);
    stop(&one, "5 results were sent to the GitHub Actions cache");
    figures(&cache, "first job");
    // What became of the units, a pack, and the manifest.
    assert_eq!(cache.fake().counted().finalized, 3, "{:?}", cache.fake().keys());

    // A new job on the same ref.
    let before = cache.fake().counted();
    let project = of_all_kinds_with_tally(&two, "elsewhere/checkout", &tally);
    two.assert_all_hit(&build(&two, &project, &cache, MAIN));
    assert_eq!((&newest(&two)["hit_remote"], tally.take().len()), (&5.into(), 0));
    figures(&cache, "second job");
    let after = cache.fake().counted();
    assert_eq!(after.reserved, before.reserved, "a job that stores nothing writes nothing yet");
    assert!(after.of(Kind::Lookup) - before.of(Kind::Lookup) <= 6, "{after:?}");
    stop(&two, "stopped");
    // What became of its units.
    assert_eq!(cache.fake().counted().reserved, before.reserved + 1);

    // A pull request has what the default branch made, and leaves what it makes to itself.
    let project = of_all_kinds_with_tally(&pull, "app", &tally);
    project.write("low/src/lib.rs", "pub fn n() -> i32 { 40 + 4 }\n");
    pull.assert_compiled(&build(&pull, &project, &cache, PULL), &["app bin", "low lib"]);
    assert_eq!((&newest(&pull)["hit_remote"], tally.take().len()), (&3.into(), 0));
    stop(&pull, "2 results were sent to the GitHub Actions cache");
    figures(&cache, "pull request");
    assert_eq!(keys(&cache, MAIN[0].0).len(), 4);
    assert_eq!(keys(&cache, PULL[0].0).len(), 3);

    // The next push to it finds that; the default branch does not.
    let changed = |world: &World| {
        let project = of_all_kinds_with_tally(world, "app", &tally);
        project.write("low/src/lib.rs", "pub fn n() -> i32 { 40 + 4 }\n");
        project
    };
    again.assert_all_hit(&build(&again, &changed(&again), &cache, PULL));
    let project = changed(&later);
    later.assert_compiled(&build(&later, &project, &cache, MAIN), &["app bin", "low lib"]);
    for world in [&one, &two, &pull, &again, &later] {
        assert_eq!(warnings(&world.kiln_dir()), [""; 0]);
    }
}

#[test]
fn jobs_over_the_service_of_github() {
    jobs(Face::V2);
}

#[test]
fn jobs_over_the_older_service() {
    jobs(Face::V1);
}

/// A real program: a second job compiles nothing, and reads large pieces of a few packs.
#[test]
fn ripgrep_in_a_second_job() {
    let world = world!();
    let cache = Cache::start(Face::V2);
    let published = match registry::published(&world, "ripgrep", "15.2.0") {
        Ok(published) => published,
        Err(why) => skip!("{why}"),
    };
    world.provide_sources(&published);
    let first = published.copy_to(world.at("ws/one"));
    cache.job(world.cargo(&first, &["build"]), MAIN).run().ok();
    let units = newest(&world)["units"].as_u64().unwrap();
    let said = world.kiln(&["server", "stop"]).env("KILN_DRAIN", "300").run().ok();
    assert!(said.stdout.contains(&format!("{units} results were sent")), "{}", said.stdout);
    figures(&cache, "ripgrep, first job");
    let filled = cache.fake().counted();

    // The compilers and the sources of the registry are where they are on every machine of a CI.
    let second = published.copy_to(world.at("ws/elsewhere/two"));
    let (dir, home) = (world.at("k2"), world.at("home2"));
    std::fs::create_dir(&home).unwrap();
    let there = |call: Call| call.env("KILN_DIR", &dir).env("HOME", &home);
    let done = cache.job(there(world.cargo(&second, &["build"])), MAIN).run().ok();
    let stats = there(world.kiln(&["stats", "--format", "json"])).run().ok();
    let built: Value = serde_json::from_str(&stats.stdout).unwrap();
    let read = cache.fake().counted();
    figures(&cache, "ripgrep, second job");
    there(world.kiln(&["server", "stop"])).run().ok();
    figures(&cache, "ripgrep, second job at its end");
    assert_eq!(done.compiled(), [""; 0], "{built:#}");
    // The script of the checkout itself holds at its place only. No other one runs.
    let missed = built["missed"].as_array().cloned().unwrap_or_default();
    assert!(missed.iter().all(|one| one["unit"]["crate_name"] == "ripgrep"), "{built:#}");
    let hits = built["build"]["hit_remote"].as_u64().unwrap();
    assert!(
        missed.len() <= 1 && built["build"]["units"] == hits + missed.len() as u64,
        "{built:#}"
    );

    // Packs of 32 MiB and a manifest; pieces of 16 MiB, of which two that follow each other are more than one. Results
    // are asked for in two goes, 8 and the rest, which may want what lies beside each other.
    // Beside the manifest and what became of the units.
    let packs = filled.finalized - 1 - units.div_ceil(1000);
    assert!(packs <= filled.bytes_in / PACK_TARGET_BYTES + 1, "{filled:?}");
    let downloads = read.of(Kind::Download);
    assert!(downloads <= 1 + 2 * (filled.bytes_in / MAX_READ_BYTES + 1) + 1, "{read:?}");
    // The manifest: found, and two higher numbers looked for; each pack once.
    let lookups = read.of(Kind::Lookup) - filled.of(Kind::Lookup);
    assert_eq!(lookups, 3 + packs, "{read:?}");
    // Nothing comes twice.
    assert!(read.bytes_out < filled.bytes_in + filled.bytes_in / 50, "{read:?} {filled:?}");
    println!(
        "ripgrep: {hits} of {units} units from afar, {packs} packs, {lookups} lookups, {downloads} downloads"
    );
    assert_eq!(warnings(&world.kiln_dir()), [""; 0]);
    assert_eq!(warnings(&dir), [""; 0]);
}

/// A token that only reads: the build hits, nothing is written, and that is said.
#[test]
fn a_job_whose_token_only_reads() {
    let (one, two) = (world!(), world!());
    let cache = Cache::start(Face::V2);
    build(&one, &of_all_kinds(&one, "app"), &cache, MAIN);
    stop(&one, "5 results were sent");
    let project = of_all_kinds(&two, "app");
    project.write("low/src/lib.rs", "pub fn n() -> i32 { 40 + 4 }\n");
    let done = build(&two, &project, &cache, &[("refs/heads/main", READ)]);
    two.assert_compiled(&done, &["app bin", "low lib"]);
    let before = cache.fake().counted().finalized;
    let said = two.kiln(&["server", "stop"]).run().ok();
    println!("{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains("2 results"), "{}{}", said.stdout, said.stderr);
    assert_eq!(cache.fake().counted().finalized, before);
    let lines = warnings(&two.kiln_dir());
    assert_eq!(lines.len(), 1, "{lines:#?}");
}

/// Without the variables that an action hands on, the build is right, and it is said what is missing.
#[test]
fn a_job_that_is_told_nothing() {
    let world = world!();
    let project = of_all_kinds(&world, "app");
    let job = || world.cargo(&project, &["build"]).env("KILN_STORAGE", "gha://");
    assert_eq!(build_all_kinds(&world, &project, job()).compiled().len(), 4);
    world.assert_all_hit(&build_all_kinds(&world, &project, job()));
    let missing = "ACTIONS_RUNTIME_TOKEN is not set";
    let status = world.kiln(&["server", "status"]).run().ok();
    assert!(status.stdout.contains(missing), "{}", status.stdout);
    let said = world.kiln(&["server", "stop"]).run().ok();
    assert!(said.stderr.contains("5 results") && said.stderr.contains(missing), "{}", said.stderr);
    let log = std::fs::read_to_string(world.kiln_dir().join("server.log")).unwrap();
    assert!(log.contains(missing), "{log}");
    let lines = warnings(&world.kiln_dir());
    assert_eq!(lines.len(), 1, "{lines:#?}");
}

/// The service is away when a job ends: that costs a few attempts, not all the time that there is.
#[test]
fn a_service_that_is_gone_at_the_end() {
    let world = world!();
    let cache = Cache::start(Face::V2);
    let project = of_all_kinds(&world, "app");
    build(&world, &project, &cache, MAIN);
    cache.fake().fail(Kind::Create, &Fault::Status(503), 10_000);
    let said = world.kiln(&["server", "stop"]).run().ok();
    let why = "0 results are stored, 5 are not yet: it answers 503";
    assert!(said.stderr.contains("5 results") && said.stderr.contains(why), "{}", said.stderr);
    let asked = cache.fake().counted().of(Kind::Create);
    // Each flush asks for a pack and for the manifest, with four attempts each.
    assert!(asked <= u64::from(REMOTE_FAULTS) * 2 * 4, "{asked}");
    let lines = warnings(&world.kiln_dir());
    assert_eq!(lines.len(), 1, "{lines:#?}");
}

/// A job is cancelled while it sends: what is begun at the service stays there, the number of a manifest too.
#[test]
fn a_job_that_is_killed_while_it_sends() {
    let (killed, last) = (world!(), world!());
    let cache = Cache::start(Face::V2);
    build(&killed, &of_all_kinds(&killed, "app"), &cache, MAIN);
    // That of the pack is answered, that of the manifest never.
    cache.fake().script(Kind::Finalize, [None, Some(Fault::Stall)]);
    let stopping = killed.kiln(&["server", "stop"]).spawn();
    wait_until("the manifest is claimed", || cache.fake().counted().of(Kind::Finalize) == 2);
    kill(stopping.pid(), Signal::INT);
    killed.server().unwrap().kill();
    stopping.wait();
    cache.fake().heal();
    assert_eq!(cache.fake().counted().reserved, 2);

    let project = of_all_kinds(&last, "elsewhere/app");
    build(&last, &project, &cache, MAIN);
    assert_eq!(newest(&last)["miss"], 5, "nobody was told of the pack");
    // What the killed server did not see through is queued.
    cache.job(killed.kiln(&["server", "start"]), MAIN).run().ok();
    stop(&killed, "5 results were sent");
    last.stop_server();
    std::fs::remove_dir_all(last.kiln_dir()).unwrap();
    last.assert_all_hit(&build(&last, &project, &cache, MAIN));
    assert_eq!(newest(&last)["hit_remote"], 5);
    for world in [&killed, &last] {
        assert_eq!(warnings(&world.kiln_dir()), [""; 0]);
    }
}

/// More jobs with other sources each than a lookup gives results of a unit: the note names that of the last one, and
/// who needs the oldest finds it all the same.
#[test]
fn a_result_that_neither_note_nor_lookup_brings() {
    let (one, two) = (world!(), world!());
    let cache = Cache::start(Face::V2);
    let check = |world: &World, (name, job): (&str, &str), variant: usize| {
        let project = world.project(name);
        let source = format!("pub const VARIANT: usize = {variant};\n");
        project.package("small", "").write("src/lib.rs", source);
        project.wipe();
        cache.job(world.cargo(&project, &["check"]), MAIN).env("KILN_JOB", job).run().ok()
    };
    for variant in 0..MAX_RECORDS_PER_UNIT {
        check(&one, ("app", "others"), variant);
    }
    check(&one, ("app", "dev"), MAX_RECORDS_PER_UNIT);
    stop(&one, "7 results were sent");
    two.assert_all_hit(&check(&two, ("elsewhere", "dev"), 0));
    assert_eq!(newest(&two)["hit_remote"], 1, "{:#}", newest(&two));
}
