//! Theme: a machine's server before a shared one, and that before a bucket. What the shared one has is not all
//! that there is.

#![allow(clippy::unwrap_used, reason = "tests")]

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
