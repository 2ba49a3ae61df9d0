//! Theme: units are reported with the run and the job that they were built for.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use kiln_tests::{samples, world};
use serde_json::Value;

/// Two legs of a matrix on one machine are two jobs of a run; a later attempt is another run. They share results.
#[test]
fn legs_of_a_matrix_are_jobs_of_a_run() {
    let world = world!();
    let project = samples::chain(&world, "app", "low::n()");
    project.write("low/src/lib.rs", "pub fn n() -> i32 { 1 }\n");
    let events = world.at("events.jsonl");
    let leg = |matrix: &str, attempt: &str| {
        project.wipe();
        let call = world.cargo(&project, &["build"]).env("KILN_REPORT_FILE", &events);
        let call = call.env("GITHUB_ACTIONS", "true").env("GITHUB_RUN_ID", "77");
        let call = call.env("GITHUB_JOB", "test").env("GITHUB_REPOSITORY", "acme/rocket");
        let done = call.env("GITHUB_RUN_ATTEMPT", attempt).env("KILN_MATRIX", matrix).run().ok();
        let text = std::fs::read_to_string(&events).unwrap();
        std::fs::remove_file(&events).unwrap();
        let events: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let who = |event: &Value| {
            assert_eq!(event["about"]["repository"], "acme/rocket", "{event:#}");
            ["run", "job"].map(|name| event[name].as_str().unwrap().to_owned())
        };
        let mut all: Vec<_> = events.iter().map(who).collect();
        assert!(all.len() > 1);
        all.dedup();
        (all, done)
    };
    let named = |run: &str, job: &str| vec![[run.to_owned(), job.to_owned()]];
    assert_eq!(
        leg(r#"{"os":"linux","rust":"stable"}"#, "1").0,
        named("77", "test (linux, stable)")
    );
    let (beta, done) = leg(r#"{"os":"linux","rust":"beta"}"#, "1");
    assert_eq!(beta, named("77", "test (linux, beta)"));
    world.assert_all_hit(&done);
    assert_eq!(leg(r#"{"rust":"beta"}"#, "2").0, named("77.2", "test (beta)"));
}
