//! Theme: what lets a server in, and ends: tokens that are malformed, over in the middle, or for less than was
//! meant. Builds are right, what is wrong is said by its name, and nothing that is secret is shown or kept anywhere.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::path::{Path, PathBuf};

use kiln_storage::testing::gha::{READ, READ_WRITE, WRITE, token};
use kiln_storage::testing::proxy::{HttpFault, When};
use kiln_tests::far::bucket::warnings;
use kiln_tests::far::cache::{Cache, Face};
use kiln_tests::samples::{build_all_kinds, of_all_kinds};
use kiln_tests::server::Server;
use kiln_tests::{Call, World, bucket, world};
use serde_json::Value;

const MAIN: &[(&str, u8)] = &[("refs/heads/main", READ_WRITE)];

/// All that a machine says of itself, and all that it keeps, has none of these in it.
#[track_caller]
fn keeps_to_itself(world: &World, secrets: &[&str], dress: &dyn Fn(Call) -> Call) {
    let mut said = String::new();
    for args in [
        &["stats"][..],
        &["stats", "--format", "json"],
        &["doctor"],
        &["explain"],
        &["report"],
        &["env"],
        &["server", "status"],
    ] {
        let done = dress(world.kiln(args)).run();
        said += &format!("{}{}", done.stdout, done.stderr);
    }
    for path in ["/metrics", "/readyz", "/healthz", "/v1/server", "/", "/v1/nothing"] {
        let answer = Server::answer(&world.kiln_dir(), path);
        assert!(!answer.is_empty(), "{path}");
        said += &answer;
    }
    let mut kept = Vec::new();
    files_below(&world.kiln_dir(), &mut kept);
    for secret in secrets {
        assert!(!said.contains(secret), "{secret}: {said}");
        for file in &kept {
            let bytes = std::fs::read(file).unwrap_or_default();
            let has = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
            assert!(!has, "{secret} is in {}", file.display());
        }
    }
}

/// The files of a directory that may change meanwhile.
fn files_below(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files_below(&entry.path(), files),
            Ok(kind) if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
}

/// A build with a change in it, by a machine that gets in like this; what became of the units, and what was said when
/// its server left.
#[track_caller]
fn second(secrets: &[&str], dress: &dyn Fn(Call) -> Call) -> (Value, String, Vec<String>) {
    let world = world!();
    let project = of_all_kinds(&world, "app");
    project.write("low/src/lib.rs", "pub fn n() -> i32 { 40 + 4 }\n");
    build_all_kinds(&world, &project, dress(world.cargo(&project, &["build"])));
    keeps_to_itself(&world, secrets, dress);
    let figures = world.stats()["build"].clone();
    let said = dress(world.kiln(&["server", "stop"])).run().ok();
    let said = format!("{}{}", said.stdout, said.stderr);
    let log = std::fs::read_to_string(world.kiln_dir().join("server.log")).unwrap();
    assert!(secrets.iter().all(|secret| !log.contains(secret) && !said.contains(secret)), "{log}");
    println!("{} from afar, {} compiled; {said}", figures["hit_remote"], figures["miss"]);
    (figures, said, warnings(&world.kiln_dir()))
}

/// A cache that one job has filled.
fn filled_cache(face: Face) -> Cache {
    let (cache, world) = (Cache::start(face), world!());
    let project = of_all_kinds(&world, "app");
    build_all_kinds(&world, &project, cache.job(world.cargo(&project, &["build"]), MAIN));
    world.kiln(&["server", "stop"]).run().ok();
    cache
}

/// What comes out of a file or of another program often ends with a line break.
#[test]
fn a_line_break_behind_what_an_action_hands_on() {
    for (face, place) in [(Face::V2, "ACTIONS_RESULTS_URL"), (Face::V1, "ACTIONS_CACHE_URL")] {
        let cache = filled_cache(face);
        let url =
            if face == Face::V2 { cache.fake().results_url() } else { cache.fake().cache_url() };
        let token = token(MAIN);
        let dress = |call: Call| {
            let call = cache.job(call, MAIN).env("ACTIONS_RUNTIME_TOKEN", format!("{token}\n"));
            call.env(place, format!("{url}\n"))
        };
        let (figures, said, log) = second(&[&token], &dress);
        assert_eq!(figures["hit_remote"], 3, "{figures:#}");
        assert!(said.contains("2 results were sent"), "{said}");
        assert_eq!(log, [""; 0]);
    }
}

/// What cannot be a token or a place is named, and not shown.
#[test]
fn what_an_action_hands_on_is_none() {
    let cache = filled_cache(Face::V2);
    for (name, value) in
        [("ACTIONS_RUNTIME_TOKEN", "hunter2 hunter2"), ("ACTIONS_RESULTS_URL", "ftp://hunter2/")]
    {
        let before = cache.fake().counted();
        let dress = |call: Call| cache.job(call, MAIN).env(name, value);
        let (figures, said, log) = second(&["hunter2"], &dress);
        assert_eq!(figures["miss"], 5, "{figures:#}");
        assert!(said.contains("5 results") && said.contains(name), "{said}");
        assert!(log.len() == 1 && log[0].contains(name), "{log:#?}");
        assert_eq!(cache.fake().counted(), before, "nothing is asked in vain");
    }
}

/// The token is over after so many more calls, in the middle of a lookup, of the build, of sending.
#[test]
fn a_token_that_is_over_in_the_middle() {
    let over = "the runtime token is not accepted";
    for (face, calls) in [(Face::V2, 1), (Face::V2, 7), (Face::V1, 5)] {
        let cache = filled_cache(face);
        let used = cache.fake().counted().all_requests();
        cache.fake().behave(|behaviour| behaviour.token_calls = Some(used + calls));
        let secret = token(MAIN);
        let (figures, said, log) = second(&[&secret], &|call| cache.job(call, MAIN));
        assert_eq!(figures["units"], 5, "{figures:#}");
        assert!(said.contains("not sent") && said.contains(over), "{calls}: {said}");
        assert!(log.len() == 1 && log[0].contains(over), "{calls}: {log:#?}");
        cache.fake().behave(|behaviour| behaviour.token_calls = None);
        let (figures, _, log) = second(&[&secret], &|call| cache.job(call, MAIN));
        assert_ne!(figures["hit_remote"], 0, "{figures:#}");
        assert_eq!(log, [""; 0]);
    }
}

/// Jobs whose tokens, or workflows, allow less than reading and writing: what is read, what is sent, and why not.
#[test]
fn a_job_that_may_do_less() {
    let cache = filled_cache(Face::V2);
    let read_only = "the token may not write";
    let unread = "the token may only write where it may not read";
    let main = "refs/heads/main";
    for (scopes, mode, read, said) in [
        (&[(main, READ)][..], "", 3, read_only),
        (&[("refs/pull/7/merge", WRITE), (main, READ)], "write", 3, unread),
        (MAIN, "read", 3, "cache mode is `read`"),
        (MAIN, "None ", 0, "cache mode is `none`"),
        (MAIN, "write-only", 0, "cache mode is `write-only`"),
    ] {
        let before = cache.fake().counted().finalized;
        let dress = |call: Call| cache.job(call, scopes).env("ACTIONS_CACHE_MODE", mode);
        let (figures, all, log) = second(&[&token(scopes)], &dress);
        assert_eq!(figures["hit_remote"], read, "{scopes:?} {mode:?} {figures:#}");
        assert!(all.contains(said), "{scopes:?} {mode:?}: {all}");
        assert!(log.len() == 1 && log[0].contains(said), "{scopes:?} {mode:?}: {log:#?}");
        assert_eq!(cache.fake().counted().finalized, before, "{scopes:?} {mode:?}");
    }
    // A word of tomorrow is no bar.
    let dress = |call: Call| cache.job(call, MAIN).env("ACTIONS_CACHE_MODE", "read,write");
    let (figures, said, _) = second(&[], &dress);
    assert_eq!(figures["hit_remote"], 3, "{figures:#}");
    assert!(said.contains("2 results were sent"), "{said}");
}

/// The session of a bucket is over after so many more requests. What was not sent then is sent by a server that is
/// started with the next one.
#[test]
fn a_session_that_is_over_in_the_middle() {
    let over = "(ExpiredToken); the session of AWS_SESSION_TOKEN is over";
    for requests in [0, 4, 6] {
        let (one, two) = (world!(), world!());
        let bucket = bucket!(one);
        let build = |world: &World, source: &str, session: &str| {
            let project = of_all_kinds(world, "app");
            project.write("low/src/lib.rs", source);
            let call = bucket.before(world.cargo(&project, &["build"]));
            build_all_kinds(world, &project, call.env("AWS_SESSION_TOKEN", session));
        };
        build(&one, "pub fn n() -> i32 { 44 }\n", "first");
        one.kiln(&["server", "stop"]).run().ok();
        let all = When::any().always().after(requests);
        bucket.proxy().inject(all, HttpFault::Code(400, "ExpiredToken"));
        build(&two, "pub fn n() -> i32 { 40 + 4 }\n", "hunter2session");
        let secrets = ["hunter2session", "not-to-be-seen"];
        keeps_to_itself(&two, &secrets, &|call| {
            bucket.before(call).env("AWS_SESSION_TOKEN", "hunter2session")
        });
        let said = two.kiln(&["server", "stop"]).run().ok();
        let said = format!("{}{}", said.stdout, said.stderr);
        assert!(said.contains("not sent") && said.contains(over), "{requests}: {said}");
        let log = warnings(&two.kiln_dir());
        assert!(log.len() == 1 && log[0].contains(over), "{requests}: {log:#?}");
        bucket.proxy().clear();
        bucket.before(two.kiln(&["server", "start"])).env("AWS_SESSION_TOKEN", "next").run().ok();
        let said = two.kiln(&["server", "stop"]).run().ok();
        assert!(said.stdout.contains("sent to s3://"), "{requests}: {}", said.stdout);
        let three = world!();
        build(&three, "pub fn n() -> i32 { 40 + 4 }\n", "next");
        assert_eq!(three.stats()["build"]["hit_remote"], 5, "{:#}", three.stats());
    }
}
