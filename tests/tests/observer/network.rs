//! Theme: what the observer notes of calls that reach others, over the network or a socket of this
//! machine.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use kiln_observer::log::Kind;
use kiln_tests::{Lab, Program, lab};

const CASES: &[(&str, &[&str])] = &[
    ("connect", &["network! network"]),
    ("connect by another version", &["network! network"]),
    ("connect at once", &["network network"]),
    ("connect to a socket", &["network? unix:/nothing"]),
    ("connect to a socket here", &["network? unix:socket"]),
    ("connect to an abstract socket", &["network! unix:@kiln-nobody"]),
    ("connect to nowhere", &[]),
    ("connect to another family", &["network family:16"]),
    ("what the system refuses to read", &[]),
    ("bind", &["network network"]),
    ("bind a socket", &["network unix:socket"]),
    ("listen", &["network network"]),
    ("sendto", &["network network"]),
    ("sendto a socket", &["network? unix:/nothing"]),
    ("sendmsg", &["network network"]),
    ("sendmmsg", &["network network"]),
    ("a pair", &[]),
    ("by number", &["network network", "network unix:socket", "network? unix:/nothing"]),
    ("getaddrinfo", &["network host:127.0.0.1"]),
    ("getaddrinfo of no name", &[]),
    ("gethostbyname", &["network host:127.0.0.1"]),
    ("gethostbyname2", &["network host:127.0.0.1"]),
    ("gethostbyname_r", &["network host:127.0.0.1"]),
    ("gethostbyname2_r", &["network host:127.0.0.1"]),
];

#[track_caller]
fn check(lab: &Lab) {
    let path = lab.compile("network.c");
    let mut wrong = Vec::new();
    for (case, want) in CASES {
        let mut seen = lab.compared(&Program::new(&path).args(&[case]));
        // What libc loads and reads to look names up is not of interest here.
        seen.facts.retain(|fact| fact.kind == Kind::Network);
        let lines = lab.lines(&seen);
        if lines != *want || seen.lost != 0 {
            wrong.push(format!("{case}: {lines:?} {:?}, not {want:?}", seen.lost));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn reaching_others() {
    check(&lab!());
}

#[test]
fn reaching_others_under_musl() {
    check(&lab!("musl-gcc"));
}
