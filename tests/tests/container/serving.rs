//! Theme: jobs in networks of their own share what the main branch stored, pull requests keep theirs, and all of it
//! outlives the container in the store beside it.

#![allow(clippy::unwrap_used, reason = "tests")]

use kiln_tests::server::{is_alive, wait_until};
use rustix::process::Signal;
use serde_json::json;

use crate::issuer::of_pull_request;
use crate::job::{ALL, NOTHING, PROGRAM};
use crate::{job, site};

#[test]
fn a_container_serves_jobs_by_their_scopes_and_so_does_the_next_one_from_the_bucket() {
    let site = site!();
    let first = site.start(&site.volume("first"));
    let (one, two) = (job!(site, 0), job!(site, 1));
    let main = json!({});
    let [pull_1, pull_2, pull_3] = [1, 2, 3].map(|number| of_pull_request(number, "main"));

    assert_eq!(one.build(&main, "main"), ALL);
    assert_eq!(two.build(&main, "main"), NOTHING, "another machine of the main branch");
    assert_eq!(two.build(&pull_1, "pull"), PROGRAM, "a pull request reads the main branch");
    assert_eq!(one.build(&pull_1, "pull"), NOTHING, "and its own scope");
    assert_eq!(one.build(&pull_2, "pull"), PROGRAM, "another one sees nothing of it");
    assert_eq!(two.build(&main, "pull"), PROGRAM, "nor does the main branch");
    assert_eq!(two.build(&pull_1, "only"), PROGRAM);
    wait_until("all is in the bucket", || site.results() == 6);

    // What a job stored just before the end is sent before it.
    site.hold_writes();
    assert_eq!(one.build(&main, "late"), PROGRAM);
    first.signal(Signal::TERM);
    wait_until("it takes nothing any more", || site.is_left());
    assert!(is_alive(first.pid()) && site.results() == 6, "it waits for the bucket");
    site.take_writes();
    let ended = first.ended();
    assert!(ended.status.success() && ended.stderr.trim_end().ends_with(" left"), "{ended:?}");
    assert_eq!(site.results(), 7);

    // Nothing but the bucket is left of it.
    let second = site.start(&site.volume("second"));
    let edge = job!(site, 0).with_edge();
    assert_eq!(edge.build(&pull_3, "main"), NOTHING, "what the main branch stored");
    assert_eq!(two.build(&pull_3, "late"), NOTHING);
    assert_eq!(
        two.build(&pull_3, "only"),
        PROGRAM,
        "what a pull request stored is brought for no other"
    );
    assert_eq!(one.build(&pull_1, "only"), NOTHING, "but for itself");
    assert_eq!(one.build(&main, "only"), PROGRAM);
    edge.ends();
    second.signal(Signal::TERM);
    assert!(second.ended().status.success());
    assert_eq!(site.results(), 9);
}

/// A result is the volume's as soon as a job has stored it, and goes to the bucket when it can.
#[test]
fn a_container_that_is_killed_goes_on_where_it_was() {
    let site = site!();
    let volume = site.volume("volume");
    let job = job!(site, 0);
    site.hold_writes();
    let first = site.start(&volume);
    assert_eq!(job.build(&json!({}), "main"), ALL);
    first.signal(Signal::KILL);
    assert!(!first.ended().status.success());
    assert_eq!(site.results(), 0);

    let second = site.start(&volume);
    assert_eq!(job.build(&json!({}), "main"), NOTHING, "with nothing in the bucket");
    site.take_writes();
    wait_until("what waited is in the bucket", || site.results() == 2);
    second.signal(Signal::TERM);
    assert!(second.ended().status.success());
}
