//! Theme: prefix maps that C compilers get when they run observed.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::fs;
use std::path::Path;

use kiln_tests::{Lab, Program, lab};

const C: &str = "int twice(int n) { return n + n; }\n";
const ASSEMBLY: &str = "#define ANSWER 42\n.text\n.globl answer\nanswer:\n ret\n.long ANSWER\n";

/// A lab with sources in a directory of their own.
struct Stage {
    lab: Lab,
    root: String,
}

impl Stage {
    fn new(lab: Lab) -> Self {
        let place = lab.at("place");
        fs::create_dir(&place).unwrap();
        for (name, text) in [("x.c", C), ("x.cc", C), ("x.S", ASSEMBLY)] {
            fs::write(place.join(name), text).unwrap();
        }
        fs::write(place.join("x.s"), ASSEMBLY.replace("#define ANSWER", "#")).unwrap();
        fs::write(place.join("wrong.c"), "int f(void) { return nothing; }\n").unwrap();
        let root = lab.at("").to_str().unwrap().trim_end_matches('/').to_owned();
        Self { lab, root }
    }

    /// The map of the lab, and of the sources in it.
    fn maps(&self) -> String {
        format!("{0}=/kiln/lab:{0}/place=/kiln/place", self.root)
    }

    fn shell(&self, script: &str) -> Program {
        let script = script.replace("PLACE", &format!("{}/place", self.root));
        Program::new(Path::new("/bin/sh")).args(&["-ec", &script]).maps(&self.maps())
    }

    /// Runs a script that makes `out` of sources; what it made.
    #[track_caller]
    fn make(&self, script: &str) -> Vec<u8> {
        let (ended, seen) = self.lab.watched(&self.shell(script));
        assert_eq!(ended.status, 0, "{script}: {}", String::from_utf8_lossy(&ended.stderr));
        assert_eq!(seen.lost, 0, "{script}");
        fs::read(self.lab.work().join("out")).unwrap()
    }

    fn make_plain(&self, script: &str) -> Vec<u8> {
        assert_eq!(self.lab.plain(&self.shell(script)).status, 0, "{script}");
        fs::read(self.lab.work().join("out")).unwrap()
    }
}

fn has(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn objects_do_not_name_the_place() {
    let stage = Stage::new(lab!());
    for script in [
        "gcc -g -c PLACE/x.c -o out",
        "gcc -g3 -O2 -c PLACE/x.c -o out",
        "gcc -g -pipe -c PLACE/x.c -o out",
        "gcc -g -save-temps -c PLACE/x.c -o out",
        "gcc -g -shared -fPIC PLACE/x.c -o out",
        "gcc -g -S PLACE/x.c -o out",
        "gcc -g -c PLACE/x.S -o out",
        "gcc -g -c PLACE/x.s -o out",
        "as -g PLACE/x.s -o out",
        "cp PLACE/x.c . && gcc -g -c x.c -o out",
        "cd PLACE && gcc -g -c x.c -o ../work/out",
        "cp PLACE/x.S . && gcc -g -c x.S -o out",
        "sh -c 'sh -c \"gcc -g -c PLACE/x.c -o out\"; true'",
    ] {
        let plain = stage.make_plain(script);
        assert!(has(&plain, &stage.root), "{script}: without maps it does");
        let mapped = stage.make(script);
        assert!(!has(&mapped, &stage.root), "{script}");
        assert!(has(&mapped, "/kiln/"), "{script}");
        assert!(!has(&mapped, "prefix-map"), "{script}: the option is not recorded");
    }
    let specific = stage.make("gcc -g -c PLACE/x.c -o out");
    assert!(has(&specific, "/kiln/place/x.c") && !has(&specific, "/kiln/lab/place"));
}

#[test]
fn objects_of_cxx_do_not_name_the_place() {
    let stage = Stage::new(lab!("g++"));
    let script = "g++ -g -c PLACE/x.cc -o out";
    assert!(has(&stage.make_plain(script), &stage.root));
    let mapped = stage.make(script);
    assert!(!has(&mapped, &stage.root) && has(&mapped, "/kiln/place/x.cc"));
}

/// What a program is told of its sources is no matter of a debugger: it may open them.
#[test]
fn what_a_source_is_told_of_its_place_stays() {
    let stage = Stage::new(lab!());
    let told = "#ifdef TWICE\nconst char *file(void) { return FILE; }\n#else\n#define TWICE\n\
                #define FILE __FILE__\n#include __FILE__\n#endif\n";
    fs::write(stage.lab.at("place").join("told.c"), told).unwrap();
    let made = stage.make("gcc -g -c PLACE/told.c -o out");
    assert!(has(&made, &format!("{}/place/told.c", stage.root)));
}

/// The result is the same at two places, which is what it is for.
#[test]
fn two_places_make_the_same() {
    let made = |lab: Lab| Stage::new(lab).make("gcc -g -c PLACE/x.c -o out");
    assert_eq!(made(lab!()), made(lab!()));
}

#[test]
fn the_users_own_maps_win() {
    let stage = Stage::new(lab!());
    for script in [
        "gcc -g -ffile-prefix-map=PLACE=/mine -c PLACE/x.c -o out",
        "gcc -g -fdebug-prefix-map=PLACE=/mine -c PLACE/x.c -o out",
        "gcc -g -ffile-prefix-map=PLACE=/mine -c PLACE/x.S -o out",
        "as -g --debug-prefix-map PLACE=/mine PLACE/x.s -o out",
    ] {
        let mapped = stage.make(script);
        assert!(has(&mapped, "/mine"), "{script}");
        assert!(!has(&mapped, &stage.root), "{script}: what it does not name is still mapped");
        assert!(!has(&mapped, "/kiln/place"), "{script}");
    }
}

/// What is printed is the same with maps and without, and names the files that are there.
#[test]
fn what_compilers_print_stays() {
    let stage = Stage::new(lab!());
    for script in [
        "gcc --version",
        "gcc -v 2>&1",
        "gcc -print-prog-name=cc1",
        "gcc -print-search-dirs",
        "gcc -dumpmachine",
        "gcc -dumpspecs",
        "as --version",
        "as -v < /dev/null -o out 2>&1",
        "$(gcc -print-prog-name=cc1) --version 2>&1 < /dev/null",
        "gcc -Q --help=warnings",
        "gcc -E -dM -x c /dev/null",
        "gcc -M PLACE/x.c",
        "gcc -E PLACE/x.c | grep '^#'",
        "gcc -c PLACE/wrong.c -o out",
        "gcc -c PLACE/nothing.c -o out",
    ] {
        stage.lab.compared(&stage.shell(script));
    }
}

/// Programs by these names and arguments, and the option that they get.
const TAKERS: &[(&str, &str, &str)] = &[
    ("cc1", "-quiet x.c", "-fdebug-prefix-map="),
    ("cc1", "", "-fdebug-prefix-map="),
    ("cc1plus", "-quiet x.c", "-fdebug-prefix-map="),
    ("cc1obj", "x.m", "-fdebug-prefix-map="),
    ("cc1objplus", "x.m", "-fdebug-prefix-map="),
    ("cc1d", "x.d", ""),
    ("gcc", "x.c", ""),
    ("cc", "x.c", ""),
    ("as", "x.s", "--debug-prefix-map="),
    ("as", "-v x.s", "--debug-prefix-map="),
    ("as", "-v", ""),
    ("as", "", ""),
    ("as", "--64 --version", ""),
    ("aarch64-linux-gnu-as", "x.s", "--debug-prefix-map="),
    ("llvm-as", "x.ll", ""),
    ("spirv-as", "x.spvasm", ""),
    ("has", "x.s", ""),
    ("clang", "x.c", "-fdebug-prefix-map="),
    ("clang", "-v x.c", "-fdebug-prefix-map="),
    ("clang", "-v", ""),
    ("clang", "", ""),
    ("clang", "--version", ""),
    ("clang", "-cc1 x.c", ""),
    ("clang", "-cc1as x.s", ""),
    ("clang++", "x.cc", "-fdebug-prefix-map="),
    ("clang-14", "x.c", "-fdebug-prefix-map="),
    ("clang++-14", "x.cc", "-fdebug-prefix-map="),
    ("clang-14.0", "x.c", "-fdebug-prefix-map="),
    ("x86_64-linux-gnu-clang-14", "x.c", "-fdebug-prefix-map="),
    ("x86_64-linux-gnu-clang++", "x.cc", "-fdebug-prefix-map="),
    ("clang14", "x.c", ""),
    ("clang-format", "x.c", ""),
    ("clang-cpp", "x.c", ""),
    ("notclang", "x.c", ""),
    ("14", "x.c", ""),
];

#[test]
fn who_gets_maps() {
    let stage = Stage::new(lab!());
    let show = stage.lab.compile("show.c");
    fs::create_dir(stage.lab.at("tools")).unwrap();
    let maps = stage.maps();
    for (name, args, option) in TAKERS {
        let tool = stage.lab.at("tools").join(name);
        fs::copy(&show, &tool).unwrap();
        let (ended, seen) =
            stage.lab.watched(&stage.shell(&format!("exec {} {args}", tool.display())));
        assert_eq!((ended.status, seen.lost), (7, 0), "{name}");
        let text = ended.text();
        let got: Vec<&str> =
            text.lines().filter_map(|l| l.strip_prefix('[')?.strip_suffix(']')).collect();
        let mut want = vec![tool.to_str().unwrap().to_owned()];
        if !option.is_empty() {
            want.extend(maps.split(':').map(|pair| format!("{option}{pair}")));
        }
        want.extend(args.split_whitespace().map(str::to_owned));
        assert_eq!(got, want, "{name} {args}");
    }
}

/// The same by each way of starting a program.
#[test]
fn every_way_of_starting_hands_maps_on() {
    let stage = Stage::new(lab!());
    let starts = stage.lab.compile_as("starts", "starts.c", &["-ldl"]);
    let show = stage.lab.compile("show.c");
    fs::create_dir(stage.lab.at("tools")).unwrap();
    let cc1 = stage.lab.at("tools/cc1");
    fs::copy(&show, &cc1).unwrap();
    for case in [
        "execl 3",
        "execl 9",
        "execle 3",
        "execv",
        "execve",
        "execve by number",
        "fork and exec",
        "vfork and exec",
        "posix_spawn",
    ] {
        let program = Program::new(&starts).args(&[case, cc1.to_str().unwrap()]);
        let plain = stage.lab.plain(&program).text();
        let (ended, seen) = stage.lab.watched(&program.maps(&stage.maps()));
        assert_eq!(seen.lost, 0, "{case}");
        let without = |text: &str| {
            let lines = text.lines().filter(|l| !l.starts_with("[-fdebug-prefix-map="));
            lines.filter(|l| !l.ends_with(" arguments")).collect::<Vec<_>>().join("\n")
        };
        assert_eq!(ended.text().matches("[-fdebug-prefix-map=").count(), 2, "{case}");
        assert_eq!(without(&ended.text()), without(&plain), "{case}");
    }
}

#[test]
fn a_program_with_very_many_arguments_is_left_alone() {
    let stage = Stage::new(lab!());
    fs::create_dir(stage.lab.at("tools")).unwrap();
    let cc1 = stage.lab.at("tools/cc1");
    fs::copy(stage.lab.compile("show.c"), &cc1).unwrap();
    for (count, more) in [(4000, 2), (4090, 2), (5000, 0)] {
        let script = format!("exec {} $(seq {count})", cc1.display());
        let (ended, _) = stage.lab.watched(&stage.shell(&script));
        let first = ended.text().lines().next().unwrap().to_owned();
        assert_eq!(first, format!("{} arguments", count + 1 + more));
    }
}

/// A lead with longer maps leads nowhere: the process is not observed, as with any lead
/// that is none.
#[test]
fn maps_over_their_bound() {
    let stage = Stage::new(lab!());
    let run = |len: usize| {
        let old = format!("/{}", "x".repeat(len - 4));
        let program = Program::new(Path::new("/bin/true")).maps(&format!("{old}=/y"));
        let (ended, seen) = stage.lab.watched(&program);
        assert_eq!(ended.status, 0);
        seen.facts.len()
    };
    assert!(run(kiln_observer::log::MAX_MAPS) > 0);
    assert_eq!(run(kiln_observer::log::MAX_MAPS + 1), 0);
}
