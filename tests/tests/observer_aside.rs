//! Theme: what the observer notes of calls that change what they name, and of functions that read files
//! and variables inside libc.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use kiln_tests::lab;
use kiln_tests::lab::Program;

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
