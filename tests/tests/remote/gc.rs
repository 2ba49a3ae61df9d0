//! Theme: `kiln gc`, as somebody calls it who has filled a bucket by builds: what it says, what it does, and
//! what it says where there is nothing to do.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use kiln_tests::far::bucket::Bucket;
use kiln_tests::samples::{build_all_kinds, of_all_kinds};
use kiln_tests::{Done, World, bucket, world};

/// `kiln gc` before a bucket; it is printed, for who reads it aloud.
fn gc(world: &World, bucket: &Bucket, flags: &[&str]) -> Done {
    let done = bucket.before(world.kiln(&[&["gc"], flags].concat())).run();
    println!("$ kiln gc {}\n{}{}", flags.join(" "), done.stdout, done.stderr);
    assert!(!format!("{}{}", done.stdout, done.stderr).contains("not-to-be-seen"));
    done
}

#[test]
fn a_bucket_is_collected_by_the_command() {
    let (one, two) = (world!(), world!());
    let bucket = bucket!(one);
    let project = of_all_kinds(&one, "app");
    build_all_kinds(&one, &project, bucket.before(one.cargo(&project, &["build"])));
    one.kiln(&["server", "stop"]).run().ok();
    let blobs = bucket.objects("packed").len();
    assert_eq!(bucket.objects("results").len(), 5);

    // All of it is young.
    let said = gc(&one, &bucket, &["--dry-run"]).ok().stdout;
    assert!(said.contains(&bucket.url()) && said.contains("0 results and 0 blobs go"), "{said}");
    assert!(said.contains("--unused TIME and --quota SIZE let more go"), "{said}");

    let all = ["--quota", "1", "--grace", "0s"];
    let said = gc(&one, &bucket, &[&all[..], &["--dry-run"]].concat()).ok().stdout;
    assert!(said.contains(&format!("5 results and {blobs} blobs go")), "{said}");
    assert!(said.contains("scope shared@all: 5 of 5 results"), "{said}");
    assert!(said.contains("dry run: nothing was deleted; without --dry-run it goes"), "{said}");
    assert_eq!((bucket.objects("results").len(), bucket.objects("packed").len()), (5, blobs));

    let said = gc(&one, &bucket, &all).ok().stdout;
    assert!(said.contains(&format!("deleted: 5 results and {blobs} blobs")), "{said}");
    assert_eq!((bucket.objects("results").len(), bucket.objects("packed").len()), (0, 0));
    // Whoever comes then compiles, and fills it again.
    let project = of_all_kinds(&two, "app");
    let done = build_all_kinds(&two, &project, bucket.before(two.cargo(&project, &["build"])));
    assert_eq!(done.compiled().len(), 4);
    two.kiln(&["server", "stop"]).run().ok();
    assert_eq!(bucket.objects("results").len(), 5);
}

/// The bucket that servers get by `KILN_UPSTREAM` is the one that is collected.
#[test]
fn the_bucket_behind_the_server_is_the_one() {
    let world = world!();
    let bucket = bucket!(world);
    let call = bucket.before(world.kiln(&["gc", "--dry-run"]));
    let call = call.env("KILN_STORAGE", "").env("KILN_UPSTREAM", bucket.url());
    let said = call.run().ok().stdout;
    assert!(said.contains(&bucket.url()) && said.contains("0 results"), "{said}");
}

#[test]
fn a_bucket_that_is_not_there_is_named() {
    let world = world!();
    let bucket = bucket!(world);
    let said = gc(&world, &bucket, &["--storage", "s3://nobodys/place"]);
    assert_eq!(said.status.code(), Some(1));
    let want = "s3://nobodys/place: there is no such bucket; look at the URL";
    assert!(said.stderr.contains(want), "{}", said.stderr);
    assert_eq!(said.stderr.matches("s3://nobodys/place").count(), 1, "{}", said.stderr);
}

/// What needs no collection is said, with what to do instead.
#[test]
fn a_local_store_needs_no_collection() {
    let world = world!();
    for storage in ["", "file:///somewhere", "gha://"] {
        let said = world.kiln(&["gc"]).env("KILN_STORAGE", storage).run();
        println!("$ KILN_STORAGE={storage} kiln gc\n{}{}", said.stdout, said.stderr);
        assert_eq!((said.status.code(), said.stdout.as_str()), (Some(2), ""), "{}", said.stderr);
        assert!(said.stderr.contains("--storage s3://bucket/prefix"), "{}", said.stderr);
        assert!(said.stderr.contains("KILN_CACHE_SIZE"), "{}", said.stderr);
    }
}
