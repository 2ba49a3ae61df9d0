//! Theme: a machine's server before a shared one, and that before a bucket. What the shared one has is not all
//! that there is. Servers that have one another behind themselves are of use as well.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::{SocketAddr, TcpListener};
use std::time::Instant;

use kiln_server::limits::REMOTE_ASKED;
use kiln_tests::far::bucket::{Bucket, warnings};
use kiln_tests::far::standing::Standing;
use kiln_tests::samples::{build_all_kinds, of_all_kinds};
use kiln_tests::server::wait_until;
use kiln_tests::{Done, Project, World, bucket, world};

const CHANGED: &str = "pub fn n() -> i32 { 40 + 4 }\n";

/// A shared server before the bucket, in the state directory of a world.
fn shared(world: &World, bucket: &Bucket) -> Standing {
    Standing::start(bucket.before(world.kiln(&["serve", "--listen", "127.0.0.1:0"])))
}

#[track_caller]
fn build(world: &World, project: &Project, shared: &Standing) -> Done {
    let call = world.cargo(project, &["build"]);
    build_all_kinds(world, project, call.env("KILN_UPSTREAM", shared.url()))
}

/// The shared server knows results of a library for other sources only; the bucket has the right ones by now.
#[test]
fn what_a_shared_server_has_and_does_not_hold_sends_the_question_on_to_the_bucket() {
    let (a, b) = (world!(), world!());
    let (one, two, three) = (world!(), world!(), world!());
    let bucket = bucket!(one);
    let (first, second) = (shared(&a, &bucket), shared(&b, &bucket));
    let project = of_all_kinds(&two, "app");
    project.write("low/src/lib.rs", CHANGED);
    build(&two, &project, &second);
    two.kiln(&["server", "stop"]).run().ok();
    wait_until("its results are in the bucket", || bucket.objects("results").len() == 5);
    // Of the others only those that hang on the library.
    build(&one, &of_all_kinds(&one, "app"), &first);
    one.kiln(&["server", "stop"]).run().ok();
    wait_until("the others, too", || bucket.objects("results").len() == 7);

    let project = of_all_kinds(&three, "elsewhere/app");
    three.assert_all_hit(&build(&three, &project, &second));
    assert_eq!(three.stats()["build"]["hit_remote"], 5, "{:#}", three.stats());
    // The same machine, with the sources that the shared server knew.
    project.write("low/src/lib.rs", CHANGED);
    three.assert_all_hit(&build(&three, &project, &second));
    for world in [&a, &b, &one, &two, &three] {
        assert_eq!(warnings(&world.kiln_dir()), [""; 0]);
    }
}

/// A shared server was told that there is nothing, and another one stores it then: the next machine that asks when
/// that answer counts no more has it.
#[test]
fn that_there_is_nothing_counts_for_a_moment_only() {
    let (a, b) = (world!(), world!());
    let (one, two, three) = (world!(), world!(), world!());
    let bucket = bucket!(one);
    let (first, second) = (shared(&a, &bucket), shared(&b, &bucket));
    let read = |world: &World| {
        let project = of_all_kinds(world, "app");
        let call = world.cargo(&project, &["build"]).env("KILN_MODE", "read");
        build_all_kinds(world, &project, call.env("KILN_UPSTREAM", second.url()))
    };
    read(&two);
    let asked = Instant::now();
    build(&one, &of_all_kinds(&one, "app"), &first);
    one.kiln(&["server", "stop"]).run().ok();
    wait_until("it is in the bucket", || bucket.objects("results").len() == 5);
    wait_until("the answer is old", || asked.elapsed() >= REMOTE_ASKED);
    three.assert_all_hit(&read(&three));
    assert_eq!(three.stats()["build"]["hit_remote"], 5, "{:#}", three.stats());
}

/// Addresses that nobody listens on. Other tests have ports of another address.
fn free<const N: usize>() -> [SocketAddr; N] {
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.41:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap())
}

/// Each of so many shared servers has the next one behind itself, and the last one the first. A machine before the
/// first builds, and so does a second one.
fn circle<const N: usize>() {
    let worlds = [(); N].map(|()| world!());
    let at: [SocketAddr; N] = free();
    let ring: Vec<Standing> = (0..N)
        .map(|i| {
            let serve = worlds[i].kiln(&["serve", "--listen", &at[i].to_string()]);
            Standing::start(serve.env("KILN_UPSTREAM", format!("http://{}", at[(i + 1) % N])))
        })
        .collect();
    let (one, two) = (world!(), world!());
    build(&one, &of_all_kinds(&one, "app"), &ring[0]);
    assert_eq!(one.stats()["build"]["miss"], 5, "{:#}", one.stats());
    let said = one.kiln(&["server", "stop"]).run().ok().stdout;
    assert!(said.contains("5 results were sent"), "{said}");
    let project = of_all_kinds(&two, "elsewhere/app");
    two.assert_all_hit(&build(&two, &project, &ring[0]));
    assert_eq!(two.stats()["build"]["hit_remote"], 5, "{:#}", two.stats());
    // Who is asked first learns of it; it is nobody else's fault.
    let told = warnings(&worlds[0].kiln_dir());
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("leads back") && told[0].contains("circle"), "{told:?}");
    for world in worlds[1..].iter().chain([&one, &two]) {
        assert_eq!(warnings(&world.kiln_dir()), [""; 0]);
    }
}

#[test]
fn two_servers_behind_one_another() {
    circle::<2>();
}

#[test]
fn three_servers_in_a_circle() {
    circle::<3>();
}
