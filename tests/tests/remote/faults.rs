//! Theme: whatever is wrong with the place behind a server, builds are right and end; the log says each kind
//! of fault once, what could not be sent is sent later, and what waiting costs is bounded by the limits on
//! questions.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use kiln_server::limits::{DRAIN_STALL, OUTBOX_WORKERS, REMOTE_FAULTS};
use kiln_storage::testing::gha::{Call as Kind, Fault, READ_WRITE};
use kiln_storage::testing::proxy::{HttpFault, When};
use kiln_tests::far::bucket::{Bucket, warnings};
use kiln_tests::far::cache::{Cache, Face};
use kiln_tests::samples::{build_all_kinds, of_all_kinds};
use kiln_tests::server::Server;
use kiln_tests::{Call, Done, Project, World, bucket, world};
use serde_json::Value;

/// Units of the project.
const UNITS: u64 = 5;
/// Times that a request to a bucket is sent, at most.
const ATTEMPTS: u64 = 5;
/// Questions that may be asked of a place that answers none, at most: before it is left alone each unit may have
/// asked, and the note of the job; then a few results are tried to be sent, once more when the server leaves,
/// and the note.
const QUESTIONS: u64 = UNITS + 1 + 2 * (REMOTE_FAULTS as u64 + OUTBOX_WORKERS as u64) + 2;

#[track_caller]
fn build(world: &World, project: &Project, bucket: &Bucket) -> Done {
    build_all_kinds(world, project, bucket.before(world.cargo(project, &["build"])))
}

/// What became of the newest build.
fn newest(world: &World) -> Value {
    world.stats()["build"].clone()
}

/// `kiln server stop` within some seconds; what it said.
fn stop(world: &World, seconds: &str) -> String {
    let said = world.kiln(&["server", "stop"]).env("KILN_DRAIN", seconds).run().ok();
    format!("{}{}", said.stdout, said.stderr)
}

/// What the log says of faults of a kind.
const KINDS: [&str; 8] = [
    "cannot be reached",
    "broke",
    "makes no sense",
    "status",
    "too slow",
    "is damaged",
    "takes no results",
    "never sent",
];

/// Looks whether each kind of fault is told once, and which.
#[track_caller]
fn told(world: &World, want: &[&str]) {
    let lines = warnings(&world.kiln_dir());
    println!("{lines:#?}");
    for kind in KINDS {
        let count = lines.iter().filter(|line| line.contains(kind)).count();
        assert!(count <= 1, "{kind}: {lines:#?}");
    }
    for kind in want {
        assert!(lines.iter().any(|line| line.contains(kind)), "{kind}: {lines:#?}");
    }
    assert!(want.is_empty() == lines.is_empty(), "{lines:#?}");
}

/// A bucket that one machine has filled.
fn filled(world: &World) -> Result<Bucket, String> {
    let bucket = Bucket::open(world)?;
    build(world, &of_all_kinds(world, "app"), &bucket);
    assert!(stop(world, "60").contains("5 results were sent to s3://"));
    assert_eq!(bucket.objects("results").len(), 5);
    bucket.proxy().forget();
    Ok(bucket)
}

/// [`filled`]; ends a test that cannot have it.
macro_rules! filled {
    ($world:expr) => {
        match filled(&$world) {
            Ok(bucket) => bucket,
            Err(why) => kiln_tests::skip!("{why}"),
        }
    };
}

/// A place that fails from the start: all is compiled and stays queued, and is sent when the place is well.
#[track_caller]
fn down(world: &World, bucket: &Bucket, fault: HttpFault, want: &[&str]) {
    bucket.proxy().inject(When::any().always(), fault);
    let project = of_all_kinds(world, "app");
    build(world, &project, bucket);
    assert_eq!(newest(world)["miss"], 5);
    world.assert_all_hit(&build(world, &project, bucket));
    assert_eq!(newest(world)["hit_local"], 5);
    let said = stop(world, "1");
    assert!(said.contains("5 results") && said.contains("stay queued"), "{said}");
    let asked = bucket.proxy().injected();
    println!("{fault:?}: asked {asked} times\n{said}");
    assert!(asked > 0 && asked <= QUESTIONS * ATTEMPTS, "{asked}");
    assert_eq!(bucket.objects("results").len(), 0);
    told(world, want);
    bucket.proxy().clear();
    bucket.before(world.kiln(&["server", "start"])).run().ok();
    let said = stop(world, "60");
    assert!(said.contains("stopped") && !said.contains("queued"), "{said}");
    assert_eq!(bucket.objects("results").len(), 5);
}

#[test]
fn a_bucket_that_hangs_up() {
    let world = world!();
    down(
        &world,
        &bucket!(world),
        HttpFault::ResetBefore,
        &["the connection broke before an answer came"],
    );
}

#[test]
fn a_bucket_that_is_overloaded() {
    let world = world!();
    down(
        &world,
        &bucket!(world),
        HttpFault::Status(503, None),
        &["status 503; it is busy or broken"],
    );
}

/// A long `Retry-After` is not waited for: each question is asked once.
#[test]
fn a_bucket_over_its_rate() {
    let world = world!();
    let bucket = bucket!(world);
    down(&world, &bucket, HttpFault::Status(429, Some(3600)), &["status 429; it is busy"]);
}

/// Each question is bounded, and after a few the place is left alone.
#[test]
fn a_bucket_that_never_answers() {
    let world = world!();
    down(&world, &bucket!(world), HttpFault::Hold, &["too slow"]);
}

/// Takes no connection, as behind a wall that drops what comes: its queue is full, with these.
fn wall() -> (TcpListener, Vec<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok();
    let full = std::iter::from_fn(connect).take(10_000).collect();
    (listener, full)
}

/// Nothing comes back from there at all: what that costs does not grow with what is built.
#[test]
fn a_black_hole_costs_a_few_questions_however_much_is_built() {
    const PACKAGES: usize = 60;
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (wall, _full) = wall();
    // The note of the job and what is asked until it is left alone, and as much by tries later, each sent twice where
    // nobody takes the connection; and what is sent until then.
    let questions = 2 * (1 + 2 * u64::from(REMOTE_FAULTS)) + OUTBOX_WORKERS as u64 * ATTEMPTS;
    assert!(questions < PACKAGES as u64);
    for (what, place) in [("silent", &silent), ("wall", &wall)] {
        let world = world!();
        let project = world.project("many");
        for n in 0..PACKAGES {
            let manifest = format!("[package]\nname = \"p{n}\"\nversion = \"0.1.0\"\n");
            project.write(&format!("p{n}/Cargo.toml"), manifest);
            project.write(&format!("p{n}/src/lib.rs"), format!("pub const N: usize = {n};\n"));
        }
        project.write("Cargo.toml", "[workspace]\nmembers = [\"p*\"]\nresolver = \"2\"\n");
        let begun = std::time::Instant::now();
        world.plain_cargo(&project, &["check"]).run().ok();
        println!("without Kiln: {:?}", begun.elapsed());
        project.wipe();
        let endpoint = format!("http://{}", place.local_addr().unwrap());
        let cargo = world.cargo(&project, &["check"]).env("KILN_STORAGE", "s3://bucket").envs(&[
            ("KILN_JOB", "dev"),
            ("AWS_ENDPOINT_URL_S3", &endpoint),
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "not-to-be-seen"),
        ]);
        let begun = std::time::Instant::now();
        cargo.run().ok();
        let took = begun.elapsed();
        let asked = Server::info(&world.kiln_dir())["remote"]["requests"].as_u64().unwrap();
        println!("{what}: {took:?}, {asked} requests");
        assert_eq!(newest(&world)["miss"], PACKAGES, "{:#}", newest(&world));
        assert!(asked <= questions, "{what}: {asked}");
        told(&world, &["too slow"]);
        let begun = std::time::Instant::now();
        let said = stop(&world, "600");
        println!("{what}: gone after {:?}\n{said}", begun.elapsed());
        assert!(said.contains("60 results (") && said.contains("stay queued"), "{said}");
        // What an answer was waited for, or that none is waited for any more: whichever comes first.
        let why = ["too slow", "does not answer in time"];
        assert!(why.iter().any(|why| said.contains(why)), "{said}");
        told(&world, &["too slow"]);
    }
}

/// It takes connections when the job ends and says nothing any more: a fraction of the time that there is for
/// sending is spent on that.
#[test]
fn a_bucket_that_goes_silent_at_the_end() {
    let world = world!();
    let bucket = bucket!(world);
    let writes = When { method: Some("PUT"), ..When::any() };
    bucket.proxy().inject(writes.always(), HttpFault::Hold);
    // Nothing large is on its way, which a slow line would need time for.
    let project = world.project("small");
    project.package("small", "").write("src/lib.rs", "pub fn n() -> i32 { 42 }\n");
    bucket.before(world.cargo(&project, &["check"])).run().ok();
    let begun = std::time::Instant::now();
    let said = stop(&world, "600");
    println!("a silent bucket: {:?}\n{said}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(300));
    assert!(said.contains("1 result (") && said.contains("stay queued"), "{said}");
    assert!(said.contains("it is too slow: it said nothing for 15 s"), "{said}");
    told(&world, &["too slow"]);
    bucket.proxy().clear();
    bucket.before(world.kiln(&["server", "start"])).run().ok();
    assert!(stop(&world, "60").contains("1 result was sent to s3://"));
}

/// It says when to come again, which is later than silence is borne: that is no silence.
#[test]
fn a_bucket_that_asks_to_wait_at_the_end() {
    let world = world!();
    let bucket = bucket!(world);
    let project = world.project("small");
    project.package("small", "").write("src/lib.rs", "pub fn n() -> i32 { 42 }\n");
    let wait = u32::try_from(DRAIN_STALL.as_secs()).unwrap() + 2;
    bucket.proxy().inject(When::next("PUT", "/results/"), HttpFault::Status(503, Some(wait)));
    bucket.before(world.cargo(&project, &["check"])).run().ok();
    let said = stop(&world, "600");
    assert!(said.contains("1 result was sent to s3://"), "{said}");
    assert_eq!(bucket.proxy().injected(), 1);
    told(&world, &[]);
}

/// Nothing there is known to the account, or the credentials are wrong.
#[test]
fn a_bucket_that_lets_nobody_in() {
    let world = world!();
    down(&world, &bucket!(world), HttpFault::Status(403, None), &["look at AWS_ACCESS_KEY_ID"]);
}

/// Why a place cannot be reached is said wherever it is said that it cannot.
#[test]
fn why_a_bucket_cannot_be_reached_is_said() {
    let world = world!();
    let bucket = bucket!(world);
    let project = of_all_kinds(&world, "app");
    let call = bucket.at(world.cargo(&project, &["build"]), "s3://nobodys/place");
    build_all_kinds(&world, &project, call);
    let why = "there is no such bucket";
    let status = world.kiln(&["server", "status"]).run().ok().stdout;
    assert!(status.contains("at unix:///") && !status.contains("Unix("), "{status}");
    assert!(status.contains("before s3://nobodys/place") && status.contains(why), "{status}");
    let said = stop(&world, "5");
    assert!(said.contains(why) && said.contains("stay queued"), "{said}");
    told(&world, &[why]);
}

/// A second machine, in a job of a new name, so that it reads object by object and no packs, while the place does
/// this to requests: the build is right. What became of it.
#[track_caller]
fn second(bucket: &Bucket, when: When, fault: HttpFault, want: &[&str]) -> Value {
    let world = world!();
    bucket.proxy().inject(when, fault);
    let project = of_all_kinds(&world, "elsewhere/app");
    let job = world.root().file_name().unwrap();
    let cargo = bucket.before(world.cargo(&project, &["build"])).env("KILN_JOB", job);
    build_all_kinds(&world, &project, cargo);
    let figures = newest(&world);
    println!("{fault:?}: {} times, {figures}", bucket.proxy().injected());
    assert!(bucket.proxy().injected() > 0, "no fault was seen");
    assert_eq!(figures["units"], 5, "{figures:#}");
    bucket.proxy().clear();
    stop(&world, "60");
    told(&world, want);
    figures
}

#[test]
fn a_bucket_that_goes_away_in_the_middle() {
    let bucket = filled!(world!());
    let when = When::any().always().after(4);
    let figures = second(&bucket, when, HttpFault::ResetBefore, &["the connection broke"]);
    assert_ne!(figures["miss"], 0, "{figures:#}");
}

/// What is slow and comes is used.
#[test]
fn a_bucket_that_drips() {
    let bucket = filled!(world!());
    let fault = HttpFault::Slow { pieces: 20, pause: Duration::from_millis(10) };
    let figures = second(&bucket, When { method: Some("GET"), ..When::any() }.always(), fault, &[]);
    assert_eq!(figures["hit_remote"], 5, "{figures:#}");
}

/// What goes wrong once is tried again: nobody notices.
#[test]
fn a_bucket_that_fails_now_and_then() {
    let bucket = filled!(world!());
    for fault in [
        HttpFault::Status(503, None),
        HttpFault::Status(429, Some(1)),
        HttpFault::ResetBefore,
        HttpFault::ResetInside,
        HttpFault::BitFlip,
        HttpFault::Truncate,
    ] {
        bucket.proxy().forget();
        let figures = second(&bucket, When::next("GET", "/results/"), fault, &[]);
        assert_eq!(figures["hit_remote"], 5, "{fault:?} {figures:#}");
        assert_eq!(bucket.proxy().seen().iter().filter(|one| one.fault.is_some()).count(), 1);
    }
}

/// It takes no writes: reading goes on.
#[test]
fn a_bucket_that_is_read_only() {
    let bucket = filled!(world!());
    let world = world!();
    bucket
        .proxy()
        .inject(When { method: Some("PUT"), ..When::any() }.always(), HttpFault::Status(403, None));
    let project = of_all_kinds(&world, "app");
    project.write("low/src/lib.rs", "pub fn n() -> i32 { 40 + 4 }\n");
    world.assert_compiled(&build(&world, &project, &bucket), &["app bin", "low lib"]);
    assert_eq!(newest(&world)["hit_remote"], 3);
    let said = stop(&world, "5");
    assert!(said.contains("2 results") && said.contains("takes no results"), "{said}");
    let writes = bucket.proxy().injected();
    assert!(writes > 0 && writes <= 2 * OUTBOX_WORKERS as u64 + 2, "{writes}");
    told(&world, &["takes no results"]);
}

/// Every object comes with a wrong bit, or cut off: nothing of that is believed.
#[test]
fn a_bucket_that_lies() {
    for (part, fault, want) in [
        ("/results/", HttpFault::BitFlip, "is damaged"),
        ("/packed/", HttpFault::BitFlip, "is damaged"),
        ("/results/", HttpFault::Truncate, "its answer broke off"),
        ("/packed/", HttpFault::Truncate, "its answer broke off"),
    ] {
        let bucket = filled!(world!());
        let figures = second(&bucket, When::next("GET", part).always(), fault, &[want]);
        assert_ne!(figures["miss"], 0, "{part} {fault:?} {figures:#}");
    }
}

// The GitHub Actions cache ------------------------------------------------------------------------

fn job(cache: &Cache, call: Call) -> Call {
    cache.job(call, &[("refs/heads/main", READ_WRITE)])
}

/// A second job, while the service does this: the build is right. What became of it.
#[track_caller]
fn second_job((kind, fault): (Kind, &Fault), times: usize, want: &[&str]) -> (Value, u64) {
    let (cache, one, two) = (Cache::start(Face::V2), world!(), world!());
    let project = of_all_kinds(&one, "app");
    build_all_kinds(&one, &project, job(&cache, one.cargo(&project, &["build"])));
    assert!(stop(&one, "60").contains("5 results were sent to the GitHub Actions cache"));
    let before = cache.fake().counted();
    cache.fake().fail(kind, fault, times);
    let project = of_all_kinds(&two, "elsewhere/app");
    build_all_kinds(&two, &project, job(&cache, two.cargo(&project, &["build"])));
    let figures = newest(&two);
    let counted = cache.fake().counted();
    cache.fake().heal();
    stop(&two, "30");
    let asked = counted.all_requests() - before.all_requests();
    println!("{fault:?}: {} times, asked {asked} times, {figures}", counted.injected);
    assert!(counted.injected > 0, "no fault was seen");
    told(&two, want);
    (figures, asked)
}

#[test]
fn a_cache_that_fails_now_and_then() {
    for (kind, fault) in [
        (Kind::Lookup, Fault::Status(503)),
        (Kind::Lookup, Fault::RetryAfter(1)),
        (Kind::Download, Fault::Drop),
        (Kind::Download, Fault::DropMidBody),
        (Kind::Download, Fault::Expired),
    ] {
        let (figures, _) = second_job((kind, &fault), 1, &[]);
        assert_eq!(figures["hit_remote"], 5, "{kind:?} {fault:?} {figures:#}");
    }
}

#[test]
fn a_cache_that_is_away() {
    for (fault, want) in [
        (Fault::Status(503), "it answers 503"),
        (Fault::Drop, "the connection broke"),
        (Fault::RetryAfter(3600), "the rate of requests is limited"),
        (Fault::Garbage, "remote the GitHub Actions cache: "),
    ] {
        let (figures, asked) = second_job((Kind::Lookup, &fault), 10_000, &[want]);
        assert_eq!(figures["miss"], 5, "{fault:?} {figures:#}");
        assert!(asked <= QUESTIONS * 4, "{fault:?}: {asked}");
    }
}

#[test]
fn a_cache_that_lies() {
    for fault in [Fault::FlipBit, Fault::Short] {
        let (figures, _) = second_job((Kind::Download, &fault), 10_000, &["is damaged"]);
        assert_eq!(figures["miss"], 5, "{fault:?} {figures:#}");
    }
}
