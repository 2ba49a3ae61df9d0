//! Theme: what the observer notes of calls that change what they name, and of functions that read files
//! and variables inside libc.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use kiln_tests::{Lab, Program, lab};

const CHANGING: &[(&str, &[&str])] = &[
    ("unlink", &["look~ file"]),
    ("unlink absent", &["look?~ nothing"]),
    ("unlinkat", &["look~ file"]),
    ("rmdir", &["look?~ nothing"]),
    ("remove", &["look~ link"]),
    ("truncate", &["look~ file"]),
    ("truncate64", &["look?~ nothing"]),
    ("chmod", &["look~ file"]),
    ("fchmodat", &["look~ file"]),
];

const TOUCHING: &[(&str, &[&str])] = &[
    ("utimensat", &["look~ file"]),
    ("utimensat absent", &["look?~ nothing"]),
    ("utime", &["look~ file"]),
    ("utimes", &["look~ file"]),
    ("lutimes", &["look@~ link"]),
    ("chown", &["look~ file"]),
    ("lchown", &["look@~ link"]),
    ("setxattr", &["look?~ nothing"]),
    ("lsetxattr", &["look?@~ nothing"]),
    ("mknod", &["write+ new"]),
    ("mknodat", &["write+ new"]),
    ("mkfifo", &["write+ new"]),
    ("mkfifo what exists", &["look file"]),
    ("mkfifoat", &["write+ new"]),
];

/// Their programs begin by opening a file.
const TOUCHING_OPEN: &[(&str, &[&str])] = &[
    ("futimesat", &["look~ file"]),
    ("fchownat", &["look~ file"]),
    ("fchownat a descriptor", &["read dir", "look~ dir"]),
    ("fchmod", &["look~ file"]),
    ("fchown", &["look~ file"]),
    ("futimens", &["look~ file"]),
    ("futimes", &["look~ file"]),
    ("ftruncate", &["look~ file"]),
    ("ftruncate64", &["look~ file"]),
    ("fchmod of nothing", &[]),
    ("ftruncate without a name", &[]),
];

#[track_caller]
fn check(lab: &Lab, cases: &[(&str, &[&str])], opened: &[&str]) {
    let path = lab.compile("touches.c");
    for (case, want) in cases {
        let seen = lab.compared(&Program::new(&path).args(&[case]));
        let mut lines = lab.lines(&seen);
        lines.retain(|line| !opened.contains(&line.as_str()));
        assert_eq!(lines, *want, "{case}");
        assert_eq!(seen.lost, 0, "{case}");
    }
}

#[test]
fn touching() {
    let lab = lab!();
    check(&lab, TOUCHING, &[]);
    check(&lab, TOUCHING_OPEN, &["read file", "write~ file"]);
    if cfg!(target_arch = "x86_64") {
        check(&lab, &[("__xmknod", &["write+ new"]), ("__xmknodat", &["write+ new"])], &[]);
    }
}

#[test]
fn touching_under_musl() {
    let lab = lab!("musl-gcc");
    check(&lab, TOUCHING, &[]);
    check(&lab, TOUCHING_OPEN, &["read file", "write~ file"]);
}

#[test]
fn changing() {
    let lab = lab!();
    let path = lab.compile("aside.c");
    for (case, want) in CHANGING {
        let seen = lab.compared(&Program::new(&path).args(&[case]));
        assert_eq!(lab.lines(&seen), *want, "{case}");
        assert_eq!(seen.lost, 0, "{case}");
    }
}

/// Each of these notes the same; whether the files are there, their value tells.
#[test]
fn reading_aside() {
    const ZONE: &[&str] = &[
        "localtime",
        "localtime_r",
        "mktime",
        "timelocal",
        "tzset",
        "ctime",
        "ctime_r",
        "strftime",
        "strftime_l",
    ];
    const PEOPLE: &[&str] = &[
        "getpwnam",
        "getpwuid",
        "getpwnam_r",
        "getpwuid_r",
        "getgrnam",
        "getgrgid",
        "getgrnam_r",
        "getgrgid_r",
    ];
    let lab = lab!();
    let path = lab.compile("aside.c");
    let notes = |case: &str| {
        let program = Program::new(&path).args(&[case]).env("TZ", "Europe/Vienna");
        let seen = lab.compared(&program);
        assert_eq!(seen.lost, 0, "{case}");
        lab.lines(&seen)
    };
    for (cases, want) in [
        (ZONE, &["variable TZ", "read? /usr/share/zoneinfo/Europe/Vienna"][..]),
        (PEOPLE, &["read? /etc/passwd", "read? /etc/group"]),
        (&["setlocale", "newlocale"], &["variable LANG", "variable LC_ALL"]),
    ] {
        for case in cases {
            let lines = notes(case);
            for line in want {
                assert!(lines.iter().any(|noted| noted == line), "{case}: {line} not in {lines:?}");
            }
        }
    }
    assert_eq!(notes("setlocale told"), [""; 0]);
}
