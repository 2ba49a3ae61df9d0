//! Theme: what the observer notes of each function of libc that it stands in front of.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use kiln_tests::lab::lost;
use kiln_tests::{Lab, Program, lab};

/// A case of a program in `tests/programs`, and the lines that tell what is noted of it.
type Case = (&'static str, &'static [&'static str]);

/// Runs the cases; what they note, and that nothing is lost. The names of temporary files become
/// `t`.
#[track_caller]
fn check(lab: &Lab, source: &str, cases: &[Case]) {
    let path = lab.compile(source);
    let mut wrong = Vec::new();
    for (case, want) in cases {
        let program = Program::new(&path).args(&[case]).env("HERE", "yes");
        let seen = lab.compared(&program);
        let lines: Vec<String> = lab.lines(&seen).into_iter().map(plain).collect();
        if lines != *want || seen.lost != 0 {
            wrong.push(format!("{case}: {lines:?} {:?}, not {want:?}", lost(&seen)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn plain(line: String) -> String {
    let temporary = line.strip_prefix("write t.");
    temporary.map_or(line.clone(), |rest| format!("write t{}", rest.get(6..).unwrap_or("?")))
}

const OPENING: &[Case] = &[
    ("open", &["read file"]),
    ("open absent", &["read? nothing"]),
    ("open below a file", &["read? file/inner"]),
    ("open absolute", &["read /dev/null"]),
    ("open new", &["write new"]),
    ("open exclusive", &["write+ new"]),
    ("open what exists", &["look file"]),
    ("open for appending", &["look~ file", "write~> file"]),
    ("open for appending what is new", &["write+> new"]),
    ("open for reading and appending", &["read file", "write~> file"]),
    ("open for reading with the flag of appending", &["read file"]),
    ("open for both", &["read file", "write~ file"]),
    ("open for writing what is absent", &["look? nothing"]),
    ("open without a name", &["look ."]),
    ("open a directory", &["read dir"]),
    ("open64", &["read file"]),
    ("openat", &["read file"]),
    ("openat a directory", &["read dir", "read dir/inner"]),
    ("openat absolute", &["read /dev/null"]),
    ("openat64", &["read file"]),
    ("creat", &["write new"]),
    ("creat64", &["write file"]),
    ("fopen r", &["read file"]),
    ("fopen absent", &["read? nothing"]),
    ("fopen r+", &["read file", "write~ file"]),
    ("fopen w", &["write new"]),
    ("fopen w+", &["write new"]),
    ("fopen wx", &["look file"]),
    ("fopen a", &["write~> file"]),
    ("fopen a+", &["read file", "write~> file"]),
    ("fopen ax", &["write+> new"]),
    ("fopen with a set of characters", &["read file"]),
    ("fopen wrongly", &["read! file"]),
    ("fopen64", &["read file"]),
    ("freopen", &["read file"]),
    ("freopen64", &["read file"]),
    ("freopen the same", &[]),
    ("after chdir", &["look@ dir", "read dir/inner", "read dir/../file"]),
    ("after fchdir", &["read dir", "read dir/inner"]),
    ("through a link", &["read dirlink/inner"]),
    ("what the system refuses to read", &[]),
    ("no path at all", &[]),
    ("errors stay", &["read file", "variable X", "look dir"]),
];

/// What programs call that were built with checks of their buffers.
const CHECKED: &[Case] = &[
    ("checked open", &["read file"]),
    ("checked open64", &["read file"]),
    ("checked openat", &["read file"]),
    ("checked openat64", &["read file"]),
    ("checked readlink", &["resolve@ link"]),
    ("checked readlinkat", &["resolve@ link"]),
    ("checked getcwd", &["cwd ."]),
];

const LOOKING: &[Case] = &[
    ("stat", &["look link"]),
    ("stat absent", &["look? nothing"]),
    ("stat64", &["look file"]),
    ("lstat", &["look@ link"]),
    ("lstat64", &["look@ link"]),
    ("fstatat", &["look link"]),
    ("fstatat a link", &["look@ link"]),
    ("fstatat a descriptor", &["read file"]),
    ("fstatat64", &["look file"]),
    ("access", &["look file"]),
    ("access absent", &["look? nothing"]),
    ("eaccess", &["look file"]),
    ("euidaccess", &["look file"]),
    ("faccessat", &["look link"]),
    ("faccessat a link", &["look@ link"]),
    ("chdir", &["look@ dirlink"]),
    ("chdir absent", &["look?@ nothing"]),
    ("opendir", &["list dir"]),
    ("opendir absent", &["list? nothing"]),
    ("fdopendir", &["read dir", "list dir"]),
    ("fdopendir a file", &["read file"]),
    ("scandir", &["list dir"]),
    ("scandir64", &["list dir"]),
    ("getdents64", &["read dir", "list dir"]),
    ("readlink", &["resolve@ link", "resolve@! file"]),
    ("readlinkat", &["resolve@ link"]),
    ("realpath", &["resolve link"]),
    ("realpath with its own memory", &["resolve link"]),
    ("realpath absent", &["resolve? nothing"]),
    ("getcwd", &["cwd ."]),
    ("getcwd with its own memory", &["cwd ."]),
    ("getcwd too small", &[]),
    ("get_current_dir_name", &["cwd ."]),
    ("getenv", &["variable HERE", "variable NOT_HERE", "variable ", "variable HERE=x"]),
    ("secure_getenv", &["variable HERE"]),
];

const MAKING: &[Case] = &[
    ("rename", &["read file", "look@~ file", "write~ new"]),
    ("rename absent", &["look? nothing", "look? new"]),
    ("renameat", &["read file", "look@~ file", "write~ new"]),
    ("link", &["read file", "write+ new"]),
    ("link to what exists", &["look file", "look link"]),
    ("linkat", &["read link", "write+ new"]),
    ("symlink", &["write~+ new"]),
    ("symlinkat", &["write~+ new"]),
    ("mkdir", &["write+ new"]),
    ("mkdir what exists", &["look dir"]),
    ("mkdirat", &["read dir", "write+ dir/new"]),
    ("mkdtemp", &["write t"]),
    ("mkstemp", &["write t"]),
    ("mkstemp64", &["write t"]),
    ("mkostemp", &["write t"]),
    ("mkostemp64", &["write t"]),
    ("mkstemps", &["write t.x"]),
    ("mkstemps64", &["write t.x"]),
    ("mkostemps", &["write t.x"]),
    ("mkostemps64", &["write t.x"]),
    ("mkstemp wrongly", &[]),
];

/// Functions that musl's libc does not have.
const OF_GLIBC: &[Case] = &[
    ("statx", &["look link"]),
    ("statx a link", &["look@ link"]),
    ("canonicalize_file_name", &["resolve link"]),
    ("renameat2", &["read file", "look@~ file", "write~ new"]),
];

#[test]
fn opening() {
    check(&lab!(), "files.c", OPENING);
}

#[test]
fn looking() {
    check(&lab!(), "files.c", LOOKING);
}

#[test]
fn making() {
    check(&lab!(), "files.c", MAKING);
}

#[test]
fn functions_of_glibc_alone() {
    check(&lab!(), "files.c", OF_GLIBC);
}

#[test]
fn functions_that_check_buffers() {
    let lab = lab!();
    let program = std::fs::read(lab.compile("files.c")).unwrap();
    for name in ["__open_2", "__open64_2", "__openat_2", "__openat64_2", "__readlink_chk"] {
        let there = program.windows(name.len()).any(|window| window == name.as_bytes());
        assert!(there, "the program calls {name}");
    }
    check(&lab, "files.c", CHECKED);
}

#[test]
fn under_musl() {
    let lab = lab!("musl-gcc");
    for cases in [OPENING, LOOKING, MAKING] {
        check(&lab, "files.c", cases);
    }
}

/// What a path is relative to cannot be told: it is said that something was lost.
#[test]
fn a_path_relative_to_nothing() {
    let lab = lab!();
    let program = Program::new(&lab.compile("files.c")).args(&["openat of nothing"]);
    let seen = lab.compared(&program);
    assert_eq!(lab.lines(&seen), [""; 0]);
    assert_eq!(lost(&seen), ["path"]);
}

/// System calls by number, through `syscall`.
const NUMBERS: &[Case] = &[
    ("openat", &["read file"]),
    ("openat2", &["read file", "write~ file"]),
    ("openat2 wrongly", &["read! file"]),
    ("openat2 of nothing", &[]),
    ("newfstatat", &["look link", "look@ link"]),
    ("statx", &["look link", "look@ link"]),
    ("faccessat", &["look link"]),
    ("faccessat2", &["look@ link"]),
    ("readlinkat", &["resolve@ link"]),
    ("renameat2", &["read file", "look@~ file", "write~ new"]),
    ("linkat", &["read file", "write+ new"]),
    ("symlinkat", &["write~+ new"]),
    ("mkdirat", &["write+ new"]),
    ("chdir", &["look@ dir"]),
    ("unlinkat", &["look~ file"]),
    ("fchmodat", &["look~ file"]),
    ("fchownat", &["look~ file"]),
    ("utimensat", &["look~ file", "read dir", "look~ dir"]),
    ("mknodat", &["write+ new"]),
    ("truncate", &["look~ file"]),
    ("lsetxattr", &["look@~! link"]),
    ("changes by descriptor", &["read file", "write~ file", "look~ file"]),
    ("getdents64", &["read dir", "list dir"]),
    ("getcwd", &["cwd ."]),
    ("what is of no interest", &["read file"]),
];

/// System calls that newer processors do not have.
#[cfg(target_arch = "x86_64")]
const OLD_NUMBERS: &[Case] = &[
    ("open", &["read file"]),
    ("creat", &["write new"]),
    ("stat", &["look link"]),
    ("lstat", &["look@ link"]),
    ("access", &["look? nothing"]),
    ("readlink", &["resolve@ link"]),
    ("rename", &["read file", "look@~ file", "write~ new"]),
    ("renameat", &["read file", "look@~ file", "write~ new"]),
    ("link", &["read file", "write+ new"]),
    ("symlink", &["write~+ new"]),
    ("mkdir", &["look dir"]),
    ("unlink", &["look~ file"]),
    ("rmdir", &["look?~ nothing"]),
    ("chmod", &["look~ file"]),
    ("chown", &["look~ file", "look@~ link"]),
    ("utime", &["look~ file"]),
    ("mknod", &["write+ new"]),
    ("getdents", &["read dir", "list dir"]),
];

/// What programs call that were built with an older glibc.
#[cfg(target_arch = "x86_64")]
const OLD_FUNCTIONS: &[Case] = &[
    ("__xstat", &["look link"]),
    ("__xstat64", &["look link"]),
    ("__lxstat", &["look@ link"]),
    ("__lxstat64", &["look?@ nothing"]),
    ("__fxstatat", &["look@ link"]),
    ("__fxstatat64", &["look link"]),
    ("__secure_getenv", &["variable HERE"]),
    ("realpath of an old version", &["resolve link"]),
];

/// What reads, lists or starts something out of sight, and how that is said.
const UNSEEN: &[(&str, &[&str])] = &[
    ("unseen", &["system", "popen", "ftw", "nftw", "glob", "name_to_handle_at"]),
    ("unseen", &["open_by_handle_at", "chroot", "unshare", "setns", "mount"]),
    ("unseen", &["chroot by number", "unshare by number", "setns by number", "mount by number"]),
    ("unseen", &["pivot_root by number"]),
    ("path", &["io_uring_setup", "open_by_handle_at by number"]),
];

const UNSEEN_OF_GLIBC: &[(&str, &[&str])] = &[
    ("unseen", &["ftw64", "nftw64", "glob64", "wordexp", "scandirat", "scandirat64"]),
    ("unseen", &["fts_open", "fts64_open"]),
];

#[track_caller]
fn check_unseen(lab: &Lab, cases: &[(&str, &[&str])]) {
    let path = lab.compile("calls.c");
    for (want, names) in cases {
        for name in *names {
            let seen = lab.compared(&Program::new(&path).args(&[name]));
            assert_eq!(lost(&seen), [*want], "{name}");
        }
    }
}

#[test]
fn system_calls_by_number() {
    check(&lab!(), "calls.c", NUMBERS);
}

#[test]
#[cfg(target_arch = "x86_64")]
fn older_system_calls_and_functions() {
    check(&lab!(), "calls.c", OLD_NUMBERS);
    check(&lab!(), "calls.c", OLD_FUNCTIONS);
}

#[test]
fn what_is_not_followed_is_told() {
    let lab = lab!();
    check_unseen(&lab, UNSEEN);
    check_unseen(&lab, UNSEEN_OF_GLIBC);
}

#[test]
fn calls_under_musl() {
    let lab = lab!("musl-gcc");
    check(&lab, "calls.c", NUMBERS);
    check(&lab, "calls.c", &[("getdents of musl", &["read dir", "list dir"])]);
    check_unseen(&lab, UNSEEN);
}
