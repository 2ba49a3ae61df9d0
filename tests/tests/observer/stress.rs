//! Theme: the observer's log under many threads and processes at once: no entry torn, none lost, and
//! what repeats takes no room.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;

use kiln::observe::seen::Seen;
use kiln_observer::log::{self, Kind};
use kiln_tests::lab::{CAPACITY, SLOTS, lost, read_log};
use kiln_tests::{Lab, Program, lab};

/// Runs the program; its log, whole and nothing lost, and how many bytes it took.
#[track_caller]
fn stressed(lab: &Lab, case: &str, count: usize) -> (Seen, usize) {
    let path = lab.compile_as("stress", "stress.c", &["-pthread"]);
    let program = Program::new(&path).args(&[case, &count.to_string()]);
    let log = lab.new_log("log", CAPACITY, SLOTS);
    let ended = lab.with_log(&program, &log);
    assert_eq!((ended.status, ended.text()), (0, String::new()), "{case}");
    let seen = read_log(&log).unwrap();
    assert_eq!((lost(&seen), &seen.unobserved), (vec![], &vec![]), "{case}");
    (seen, log::head(&fs::read(&log).unwrap()).unwrap().entries)
}

/// How often each name was noted; none of them exists.
fn counts(lab: &Lab, seen: &Seen, stem: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    let start = format!("read? {stem}");
    for line in lab.lines(seen).into_iter().filter(|line| line.starts_with(&start)) {
        *counts.entry(line[6..].to_owned()).or_default() += 1;
    }
    counts
}

/// Names that repeat come at most once from each thread that met them new.
#[test]
fn threads_that_open_few_names() {
    let lab = lab!();
    let (seen, bytes) = stressed(&lab, "few", 50);
    let counts = counts(&lab, &seen, "few");
    assert_eq!(counts.len(), 50);
    assert!(counts.values().all(|count| *count <= 8), "{counts:?}");
    assert!(bytes < 8 * 50 * 128 + 2000, "{bytes}");
}

#[test]
fn threads_that_open_many_names() {
    let lab = lab!();
    let (seen, _) = stressed(&lab, "many", 1000);
    let counts = counts(&lab, &seen, "many");
    for (thread, number) in (0..8).flat_map(|t| (0..1000).map(move |n| (t, n))) {
        assert!(counts.contains_key(&format!("many{thread}-{number}")), "{thread} {number}");
    }
    // Each was opened twice. Nearly all are found again: the table has room for them.
    let twice = counts.values().filter(|count| **count > 1).count();
    assert!(twice < 200, "{twice}");
}

#[test]
fn many_forks() {
    let lab = lab!();
    let (seen, _) = stressed(&lab, "forks", 200);
    assert_eq!(counts(&lab, &seen, "fork").len(), 200);
    let shared = counts(&lab, &seen, "shared");
    assert_eq!(shared.len(), 20);
    let entries: usize = shared.values().sum();
    assert!(entries < 200 * 20 / 4, "{entries}");
}

#[test]
fn a_process_that_becomes_the_next() {
    let lab = lab!();
    let (seen, _) = stressed(&lab, "execs", 100);
    assert_eq!(counts(&lab, &seen, "exec").len(), 101);
    let began = seen.facts.iter().filter(|fact| fact.kind == Kind::Process).count();
    assert_eq!(began, 101);
}

#[test]
fn signals_while_files_are_opened() {
    let lab = lab!();
    let (seen, _) = stressed(&lab, "signals", 3000);
    assert_eq!(counts(&lab, &seen, "signal").len(), 100);
    assert!(lab.lines(&seen).contains(&"variable SIGNAL".to_owned()));
}

#[test]
fn stress_under_musl() {
    let lab = lab!("musl-gcc");
    assert_eq!(counts(&lab, &stressed(&lab, "few", 50).0, "few").len(), 50);
    assert_eq!(counts(&lab, &stressed(&lab, "many", 200).0, "many").len(), 1600);
    assert_eq!(counts(&lab, &stressed(&lab, "forks", 50).0, "fork").len(), 50);
    assert_eq!(counts(&lab, &stressed(&lab, "signals", 3000).0, "signal").len(), 100);
}

/// More names than the log takes, from many threads: what is there is whole, and it says so.
#[test]
fn threads_that_fill_a_log() {
    let lab = lab!();
    let path = lab.compile_as("stress", "stress.c", &["-pthread"]);
    let log = lab.new_log("log", 40_000, 64);
    let ended = lab.with_log(&Program::new(&path).args(&["many", "500"]), &log);
    assert_eq!(ended.status, 0);
    let seen = read_log(&log).unwrap();
    assert_eq!(lost(&seen), ["full"]);
    assert!(counts(&lab, &seen, "many").len() > 200);
}

/// A table that is far too small costs room for repetitions, and nothing else.
#[test]
fn a_table_that_is_too_small() {
    let lab = lab!();
    let path = lab.compile_as("stress", "stress.c", &["-pthread"]);
    for slots in [1, 8] {
        let log = lab.new_log("log", CAPACITY, slots);
        assert_eq!(lab.with_log(&Program::new(&path).args(&["many", "200"]), &log).status, 0);
        let seen = read_log(&log).unwrap();
        assert_eq!(lost(&seen), [""; 0]);
        assert_eq!(counts(&lab, &seen, "many").len(), 1600);
    }
}
