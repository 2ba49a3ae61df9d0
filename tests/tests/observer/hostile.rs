//! Theme: the observer under names that nobody chooses, at limits, and with logs that are none. What
//! a program does stays the same; what could not be noted is told.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};

use kiln::observe::seen::Seen;
use kiln_observer::log::{self, Kind, flags};
use kiln_tests::host::SYSTEM_PATH;
use kiln_tests::lab::{CAPACITY, SLOTS, lost, read_log};
use kiln_tests::{Lab, Program, lab};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// The program, and what it starts by its bare name.
fn hostile(lab: &Lab, case: &str) -> Program {
    lab.compile("show.c");
    let path = format!("{}:{SYSTEM_PATH}", lab.at("").display());
    let program = lab.compile_as("hostile", "hostile.c", &["-pthread"]);
    Program::new(&program).args(&[case]).env("PATH", path).env("HERE", "yes")
}

fn names_of(seen: &Seen, kind: Kind) -> Vec<Vec<u8>> {
    let all = seen.facts.iter().filter(|fact| fact.kind == kind && !fact.has(flags::START));
    all.map(|fact| fact.name.clone()).collect()
}

/// Names in the order in which each comes first.
fn firsts(names: impl IntoIterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
    let mut firsts: Vec<Vec<u8>> = Vec::new();
    for name in names {
        if !firsts.contains(&name) {
            firsts.push(name);
        }
    }
    firsts
}

/// What a log has of opening this path in the lab's directory.
fn opened(work: &Path, name: &[u8]) -> Option<Vec<u8>> {
    use std::os::unix::ffi::OsStrExt;
    match name {
        [] => None,
        // The system takes no path that is longer.
        long if long.len() > 4095 => None,
        [b'/', ..] => Some(name.to_vec()),
        relative => Some([work.as_os_str().as_bytes(), b"/", relative].concat()),
    }
}

fn joined(names: &[Vec<u8>]) -> Vec<u8> {
    names.iter().flat_map(|name| [name.as_slice(), b"\0"].concat()).collect()
}

#[track_caller]
fn check_names(lab: &Lab, program: &Program, names: &[Vec<u8>]) {
    let seen = lab.compared(&program.clone().stdin(&joined(names)));
    let want = firsts(names.iter().filter_map(|name| opened(&lab.work(), name)));
    assert_eq!(names_of(&seen, Kind::Read), want);
    assert_eq!(lost(&seen), [""; 0]);
}

#[test]
fn names_of_all_sorts() {
    let lab = lab!();
    let long = |len: usize| b"x".repeat(len);
    let below = |len: usize| [b"/".to_vec(), b"abc/".repeat(len / 4)].concat();
    let names = [
        b"not UTF-8 \xff\xfe\xc3".to_vec(),
        b"new\nline\r\t\x01\x7f".to_vec(),
        b"".to_vec(),
        b"/".to_vec(),
        b"//".to_vec(),
        b"//dir//inner".to_vec(),
        b"dir/".to_vec(),
        b"file/".to_vec(),
        b".".to_vec(),
        b"..".to_vec(),
        b"./file".to_vec(),
        b" (deleted)".to_vec(),
        b"KILN_OBSERVER=".to_vec(),
        long(255),
        long(256),
        long(4095),
        long(4096),
        long(20_000),
        below(4092),
        below(4096),
        below(9000),
    ];
    check_names(&lab, &hostile(&lab, "open names"), &names);
}

#[test]
fn any_names() {
    let lab = lab!();
    let program = hostile(&lab, "open names");
    let byte = prop_oneof![Just(b'/'), Just(b'.'), Just(b'a'), 1..=255_u8];
    let name = prop_oneof![
        4 => prop::collection::vec(byte.clone(), 0..12),
        1 => prop::collection::vec(byte, 0..5000),
    ];
    let names = prop::collection::vec(name, 0..40);
    let config = Config { cases: 40, failure_persistence: None, ..Config::default() };
    // Each name comes once more, which the log must not show.
    let twice = names.prop_map(|names| [names.clone(), names].concat());
    let test = |names: Vec<Vec<u8>>| {
        let names: Vec<_> = names.into_iter().filter(|name| !is_device(name)).collect();
        check_names(&lab, &program, &names);
        Ok(())
    };
    TestRunner::new(config).run(&twice, test).unwrap();
}

/// Names that chance should not open.
fn is_device(name: &[u8]) -> bool {
    name.windows(3).any(|part| part == b"dev")
}

#[test]
fn variables_of_all_sorts() {
    let lab = lab!();
    let names: Vec<Vec<u8>> = vec![
        b"\xff\n".to_vec(),
        b"".to_vec(),
        b"A=B".to_vec(),
        b"V".repeat(8192),
        b"HERE".to_vec(),
    ];
    let program = hostile(&lab, "get variables").stdin(&joined(&names));
    let seen = lab.compared(&program);
    assert_eq!(names_of(&seen, Kind::Variable), names);
    assert_eq!(lost(&seen), [""; 0]);
    let seen = lab.compared(&program.stdin(&joined(&[b"V".repeat(8193)])));
    assert_eq!(names_of(&seen, Kind::Variable), Vec::<Vec<u8>>::new());
    assert_eq!(lost(&seen), ["path"]);
}

/// A working directory whose path is long is told; one over the system's bound is lost.
#[test]
fn deep_directories() {
    let lab = lab!();
    let seen = lab.compared(&hostile(&lab, "deep directories"));
    let read = names_of(&seen, Kind::Read);
    let want =
        format!("{}{}/here", lab.work().display(), format!("/{}", "d".repeat(200)).repeat(11));
    assert_eq!(read, [want.into_bytes()]);
    assert_eq!(lost(&seen), ["path"]);
    fs::remove_dir_all(lab.work()).unwrap();
}

/// What a program notes at a limit, and what is lost.
const LIMITS: &[(&str, &[&str], &[&str], bool)] = &[
    ("no memory", &["read file", "read link"], &[], true),
    ("no memory for long", &[], &["path"], false),
    ("no descriptors", &["read! file", "look file"], &[], true),
    ("descriptors closed", &["read file"], &[], false),
    ("a signal's stack", &["read file", "look? nothing"], &[], false),
    ("a thread that is cancelled", &[], &[], false),
];

fn limits(lab: &Lab) {
    for (case, want, want_lost, child_lost) in LIMITS {
        let seen = lab.compared(&hostile(lab, case));
        let lines = lab.lines(&seen);
        for line in *want {
            assert!(lines.iter().any(|l| l == line), "{case}: {lines:?}");
        }
        assert_eq!(lost(&seen), *want_lost, "{case}");
        assert_eq!(!seen.unobserved.is_empty(), *child_lost, "{case}: {:?}", seen.unobserved);
    }
    let seen = lab.compared(&hostile(lab, "small stacks"));
    let mut lines = lab.lines(&seen);
    lines.sort_unstable();
    assert_eq!(
        lines,
        ["look? /nothing", "program show", "read file", "read file", "variable HERE"]
    );
    assert_eq!((lost(&seen), seen.unobserved), (vec![], vec![]));
}

#[test]
fn programs_at_limits() {
    limits(&lab!());
}

#[test]
fn programs_at_limits_under_musl() {
    limits(&lab!("musl-gcc"));
}

/// Something in the place of a log, and whether the library takes it for one.
fn places(lab: &Lab) -> Vec<(&'static str, PathBuf)> {
    let make = |name: &str, bytes: &[u8]| {
        fs::write(lab.at(name), bytes).unwrap();
        lab.at(name)
    };
    let header = log::header(CAPACITY, SLOTS);
    let head = |change: usize, byte: u8| {
        let mut header = header.to_vec();
        header[change] = byte;
        header
    };
    let odd = log::header(4096, 48);
    let huge = log::header(u32::MAX, 64);
    vec![
        ("nothing", lab.at("no log")),
        ("a directory", lab.at("work/dir")),
        ("a device", "/dev/null".into()),
        ("an empty file", make("empty", b"")),
        ("a short file", make("short", &header[..63])),
        ("garbage", make("garbage", &[0xa5; 100_000])),
        ("another version", make("other", &[head(7, b'9'), vec![0; 100]].concat())),
        ("a header and no log", make("cut", &header)),
        ("slots that are no power of two", make("odd", &[odd.to_vec(), vec![0; 5000]].concat())),
        ("a size over all bounds", make("huge", &[huge.to_vec(), vec![0; 5000]].concat())),
    ]
}

#[test]
fn what_is_no_log() {
    let lab = lab!();
    let program = hostile(&lab, "files");
    let plain = lab.plain(&program);
    for (what, path) in places(&lab) {
        let before = fs::read(&path).unwrap_or_default();
        assert_eq!(lab.with_log(&program, &path), plain, "{what}");
        assert_eq!(fs::read(&path).unwrap_or_default(), before, "{what} is left as it is");
    }
}

#[test]
fn a_log_that_may_not_be_written() {
    let lab = lab!();
    let program = hostile(&lab, "files");
    let log = lab.new_log("log", CAPACITY, SLOTS);
    fs::set_permissions(&log, std::os::unix::fs::PermissionsExt::from_mode(0o400)).unwrap();
    let before = fs::read(&log).unwrap();
    assert_eq!(lab.with_log(&program, &log), lab.plain(&program));
    if !kiln_tests::host::host().is_root {
        assert_eq!(fs::read(&log).unwrap(), before);
        assert!(!read_log(&log).unwrap().began);
    }
}

/// Logs without room: what fits is there, and that more was to be said.
#[test]
fn full_logs() {
    let lab = lab!();
    let program = hostile(&lab, "files");
    let plain = lab.plain(&program);
    for capacity in [0, 8, 64, 200, 400] {
        for slots in [1, 2, 64] {
            let log = lab.new_log("log", capacity, slots);
            assert_eq!(lab.with_log(&program, &log), plain, "{capacity} {slots}");
            assert_eq!(lost(&read_log(&log).unwrap()), ["full"], "{capacity} {slots}");
        }
    }
    let log = lab.new_log("log", 2000, 0);
    assert_eq!(lab.with_log(&program, &log), plain, "no slots");
    assert!(!read_log(&log).unwrap().began);
}

/// The number of processes has a bound, which is told.
#[test]
fn more_processes_than_numbers() {
    let lab = lab!();
    let program = hostile(&lab, "files");
    let log = lab.new_log("log", CAPACITY, SLOTS);
    let mut bytes = fs::read(&log).unwrap();
    bytes[log::PROCESSES_AT..log::PROCESSES_AT + 4].copy_from_slice(&65534_u32.to_le_bytes());
    fs::write(&log, bytes).unwrap();
    assert_eq!(lab.with_log(&program, &log), lab.plain(&program));
    let seen = read_log(&log).unwrap();
    assert_eq!(lost(&seen), ["child"]);
    assert!(lab.lines(&seen).contains(&"read file".to_owned()), "the first one has a number");
}
