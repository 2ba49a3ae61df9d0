//! Theme: no program sees the observer: not in its environment, not in that of what it starts, not in
//! what a library sees that the user preloads; and who would not take it gets nothing.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kiln::observe::seen::{Origin, Seen};
use kiln_observer::log::Kind;
use kiln_tests::host::SYSTEM_PATH;
use kiln_tests::lab::lost;
use kiln_tests::{Lab, Program, lab, skip};

fn processes(seen: &Seen) -> usize {
    seen.facts.iter().filter(|fact| fact.kind == Kind::Process).count()
}

fn shell(script: &str) -> Program {
    Program::new(Path::new("/bin/sh")).args(&["-c", script])
}

/// Writes a script that can be run.
fn script(lab: &Lab, name: &str, text: &str) -> PathBuf {
    let path = lab.at(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    path
}

#[test]
fn environments() {
    let lab = lab!();
    let env = Path::new("/usr/bin/env");
    let more = |program: Program| program.env("A", "1").env("Z", "2").env("K", "").env("L", "=");
    let seen = lab.compared(&more(Program::new(env)));
    assert_eq!(processes(&seen), 1);
    let seen = lab.compared(&more(Program::new(env).args(&["env", "env", "B=3", "env"])));
    assert_eq!(processes(&seen), 4);
    let seen = lab.compared(&more(shell("env; (env; sh -c 'env; true'); echo $LD_PRELOAD; set")));
    assert_eq!(processes(&seen), 5);
    let show = lab.compile("show.c");
    assert!(lab.compared(&more(Program::new(&show))).unobserved.is_empty());
}

/// The kernel shows where the variables were. What is left of them there are empty texts.
#[test]
fn environments_as_the_kernel_shows_them() {
    let lab = lab!();
    let script =
        "tr '\\0' '\\n' < /proc/self/environ | grep .; tr '\\0' '\\n' < /proc/$$/environ | grep .";
    for program in [shell(script), shell(&format!("sh -c \"{}\"", script.replace('$', "\\$")))] {
        lab.compared(&program.env("A", "1").env("Z", "2"));
    }
}

#[test]
fn command_lines_and_descriptors() {
    let lab = lab!();
    lab.compared(&shell(
        "tr '\\0' ' ' < /proc/self/cmdline; ls /proc/self/fd; exec 9<file; ls /proc/self/fd",
    ));
}

/// A library of the user's own, before and behind which others may stand.
#[test]
fn libraries_that_the_user_preloads() {
    let lab = lab!();
    let own = lab.compile_as("own.so", "own.c", &["-shared", "-fPIC", "-ldl"]);
    let other = lab.compile_as("other.so", "plugin.c", &["-shared", "-fPIC"]);
    let (own, other) = (own.to_str().unwrap(), other.to_str().unwrap());
    let show = lab.compile("show.c");
    let starts = lab.compile_as("starts", "starts.c", &["-ldl"]);
    let files = lab.compile("files.c");
    let path = format!("{}:{SYSTEM_PATH}", lab.at("").display());
    for list in [own.to_owned(), format!("{own}:{other}"), format!("{other} {own}")] {
        let with = |program: &Path, args: &[&str]| {
            let program = Program::new(program).args(args).env("PATH", &path);
            lab.compared(&program.env("LD_PRELOAD", &list).env("HERE", "1"))
        };
        for case in
            ["open", "open new", "fopen r", "realpath", "access", "renameat", "linkat", "getenv"]
        {
            let seen = with(&files, &[case]);
            let lines = lab.lines(&seen);
            assert!(lines.contains(&"read dir/inner".to_owned()), "before the start: {lines:?}");
            assert!(lines.len() > 3, "{case}: {lines:?}");
        }
        for case in [
            "execl 3",
            "execl 9",
            "execlp 5",
            "execle 9",
            "execv",
            "execvpe",
            "execve absent",
            "fork and exec",
            "vfork and execl",
            "posix_spawn without a place",
            "dlopen",
        ] {
            let seen = with(&starts, &[case, show.to_str().unwrap(), other]);
            assert_eq!((lost(&seen), &seen.unobserved), (vec![], &vec![]), "{case}");
        }
        lab.compared(&shell("env; sh -c 'env; env | cat'").env("LD_PRELOAD", &list));
    }
}

/// The place and the text of the user's variable, also an empty one, stay in what programs start.
#[test]
fn the_list_of_libraries_as_it_was() {
    let lab = lab!();
    let show = lab.compile("show.c");
    let other = lab.compile_as("other.so", "plugin.c", &["-shared", "-fPIC"]);
    for list in [other.to_str().unwrap(), "", ":", " "] {
        let script = format!(
            "A=1; export A; LD_PRELOAD={list:?} {0}; env -i A=1 LD_PRELOAD={list:?} B=2 {0}",
            show.display()
        );
        let seen = lab.compared(&shell(&script));
        assert!(seen.unobserved.is_empty(), "{list:?}: {:?}", seen.unobserved);
    }
}

fn static_program(lab: &Lab) -> Option<PathBuf> {
    let there = Command::new("cc").args(["-print-file-name=libc.a"]).output().ok()?;
    let found = String::from_utf8(there.stdout).ok()?;
    found.trim().starts_with('/').then(|| lab.compile_as("still", "show.c", &["-static"]))
}

#[test]
fn programs_that_take_no_library() {
    let lab = lab!();
    let Some(still) = static_program(&lab) else { skip!("there is no static libc") };
    let starts = lab.compile_as("starts", "starts.c", &["-ldl"]);
    let by_name = script(&lab, "show", &format!("#! {}\n", still.display()));
    for program in [&still, &by_name] {
        for case in
            ["execl 3", "execve", "posix_spawn", "fork and exec", "execlp 3", "posix_spawnp"]
        {
            let path = format!("{}:{SYSTEM_PATH}", lab.at("").display());
            let program = Program::new(&starts).args(&[case, program.to_str().unwrap(), ""]);
            let seen = lab.compared(&program.env("PATH", path));
            let started = seen.unobserved.iter().map(|started| started.origin).collect::<Vec<_>>();
            assert_eq!(started, [Origin::Tool], "{case}");
        }
    }
    // The first program itself.
    assert!(!lab.watched(&Program::new(&still)).1.began);
}

#[test]
fn scripts() {
    let lab = lab!();
    let first = script(&lab, "first", "#!/bin/sh\ncat file; env\n");
    let second = script(&lab, "second", &format!("#! {} \nexit 3\n", first.display()));
    let through_env = script(&lab, "third", "#!/usr/bin/env sh\nenv; cat dir/inner\n");
    let starts = lab.compile_as("starts", "starts.c", &["-ldl"]);
    for path in [&first, &second, &through_env] {
        for case in ["execve", "posix_spawn", "fork and exec"] {
            let program = Program::new(&starts).args(&[case, path.to_str().unwrap(), ""]);
            let seen = lab.compared(&program);
            assert!(seen.unobserved.is_empty(), "{case} {}: {:?}", path.display(), seen.unobserved);
            assert!(processes(&seen) >= 3, "{case} {}", path.display());
        }
    }
    // Without its first line a script is run by whoever starts it.
    let bare = script(&lab, "bare", "env\n");
    let program = Program::new(&starts).args(&["execve", bare.to_str().unwrap(), ""]);
    assert_eq!(processes(&lab.compared(&program)), 1);
}

/// A program for another kind of processor: with no loader, and with one that must not be told of a
/// library it cannot load.
#[test]
fn programs_for_another_processor() {
    let lab = lab!();
    // A header, one segment, and code that exits with 42 on a processor that is of this kind.
    let mut file = vec![0x7f, b'E', b'L', b'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for half in [2_u16, 3] {
        file.extend(half.to_le_bytes());
    }
    for word in [1_u32, 0x0804_8054, 52, 0, 0] {
        file.extend(word.to_le_bytes());
    }
    for half in [52_u16, 32, 1, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    for word in [1_u32, 0, 0x0804_8000, 0x0804_8000, 96, 96, 5, 0x1000] {
        file.extend(word.to_le_bytes());
    }
    file.extend([0xb8, 1, 0, 0, 0, 0xbb, 42, 0, 0, 0, 0xcd, 0x80]);
    let other = script(&lab, "other", "");
    fs::write(&other, file).unwrap();
    let starts = lab.compile_as("starts", "starts.c", &["-ldl"]);
    for case in ["execve", "posix_spawn", "fork and exec"] {
        let program = Program::new(&starts).args(&[case, other.to_str().unwrap(), ""]);
        let seen = lab.compared(&program);
        assert_eq!(processes(&seen), 1, "{case}");
    }
}

/// The library itself: what it wants of a libc, and how it is loaded.
#[test]
fn the_library() {
    let lab = lab!();
    let readelf = |args: &[&str]| {
        let done = Command::new("readelf").args(args).arg(lab.library()).output();
        done.ok().map(|done| String::from_utf8(done.stdout).unwrap())
    };
    let (Some(symbols), Some(dynamic), Some(segments)) =
        (readelf(&["-W", "--dyn-syms"]), readelf(&["-Wd"]), readelf(&["-Wl"]))
    else {
        skip!("there is no readelf")
    };
    let undefined = symbols.lines().filter(|line| line.contains(" UND "));
    let mut wanted: Vec<&str> =
        undefined.filter_map(|line| line.split_whitespace().nth(7)).collect();
    wanted.sort_unstable();
    let every_libc = [
        "__errno_location",
        "bcmp",
        "dl_iterate_phdr",
        "environ",
        "getauxval",
        "memcmp",
        "memcpy",
        "memmove",
        "memset",
        "strlen",
    ];
    assert!(wanted.contains(&"dl_iterate_phdr"), "{symbols}");
    assert!(wanted.iter().all(|name| every_libc.contains(name)), "{wanted:?}");
    for tag in ["NEEDED", "TEXTREL", "RUNPATH", "RPATH"] {
        assert!(!dynamic.contains(tag), "{dynamic}");
    }
    assert!(dynamic.contains("NOW"), "{dynamic}");
    let stack = segments.lines().find(|line| line.contains("GNU_STACK")).unwrap();
    assert!(stack.contains("RW ") && !stack.contains('E'), "{stack}");
}

/// Every function that the library stands in front of is called by a program of these tests.
#[test]
fn each_function_is_tested() {
    let lab = lab!();
    let programs = [
        lab.compile("files.c"),
        lab.compile("calls.c"),
        lab.compile("aside.c"),
        lab.compile("touches.c"),
        lab.compile("network.c"),
        lab.compile_as("starts", "starts.c", &["-ldl"]),
    ];
    let symbols = |path: &Path| {
        let done = Command::new("readelf").args(["-W", "--dyn-syms"]).arg(path).output().ok()?;
        let lines = String::from_utf8(done.stdout).unwrap();
        let row = |line: &str| {
            let mut words = line.split_whitespace().skip(6);
            let (section, name) = (words.next()?.to_owned(), words.next()?.to_owned());
            Some((section, name.split('@').next()?.to_owned()))
        };
        Some(lines.lines().filter_map(row).collect::<Vec<_>>())
    };
    let Some(library) = symbols(lab.library()) else { skip!("there is no readelf") };
    let called: Vec<_> = programs.iter().flat_map(|path| symbols(path).unwrap()).collect();
    // The first is a function of musl alone, the other one of no libc that is known.
    let alone = ["getdents", "pivot_root"];
    let exported = library.iter().filter(|(section, _)| section != "UND" && section != "Ndx");
    let untested: Vec<_> = exported
        .map(|(_, name)| name.as_str())
        .filter(|name| !alone.contains(name))
        .filter(|name| !called.iter().any(|(section, there)| section == "UND" && there == name))
        .collect();
    assert_eq!(untested, [""; 0]);
    assert!(library.iter().any(|(section, name)| section != "UND" && name == "open"));
}
