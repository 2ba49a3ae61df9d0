//! Theme: programs that observed programs start, and objects that they load.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use kiln::observe::seen::{Origin, Seen};
use kiln_observer::log::{Kind, VARIABLE};
use kiln_tests::host::SYSTEM_PATH;
use kiln_tests::lab::{CAPACITY, SLOTS, lost, read_log};
use kiln_tests::{Lab, Program, lab};

/// A lab with the programs.
struct Stage {
    lab: Lab,
    starts: String,
    show: String,
    plugin: String,
}

impl Stage {
    fn new(lab: Lab) -> Self {
        let text = |path: std::path::PathBuf| path.to_str().unwrap().to_owned();
        let starts = text(lab.compile_as("starts", "starts.c", &["-ldl", "-Wl,-rpath,$ORIGIN"]));
        let show = text(lab.compile("show.c"));
        let plugin = text(lab.compile_as("plugin.so", "plugin.c", &["-shared", "-fPIC"]));
        Self { lab, starts, show, plugin }
    }

    fn program(&self, case: &str) -> Program {
        let path = format!("{}:{SYSTEM_PATH}", self.lab.at("").display());
        let program = Program::new(self.starts.as_ref());
        program.args(&[case, &self.show, &self.plugin]).env("PATH", path).env("Z", "z")
    }

    fn run(&self, case: &str) -> Seen {
        self.lab.compared(&self.program(case))
    }

    /// What was noted, with the programs' paths as names, sorted: a child may be first to note.
    fn lines(&self, seen: &Seen) -> Vec<String> {
        let short = |line: String| line.replace(&self.show, "SHOW").replace(&self.plugin, "PLUGIN");
        let mut lines: Vec<String> = self.lab.lines(seen).into_iter().map(short).collect();
        lines.sort_unstable();
        lines
    }

    /// Runs cases in which the child is followed.
    #[track_caller]
    fn followed(&self, cases: &[&str], want: &[&str]) {
        for case in cases {
            let seen = self.run(case);
            assert_eq!(self.lines(&seen), want, "{case}");
            assert_eq!(processes(&seen), [self.starts.as_str(), &self.show], "{case}");
            assert_eq!((lost(&seen), &seen.unobserved), (vec![], &vec![]), "{case}");
        }
    }
}

fn processes(seen: &Seen) -> Vec<String> {
    let all = seen.facts.iter().filter(|fact| fact.kind == Kind::Process);
    all.map(|fact| String::from_utf8(fact.name.clone()).unwrap()).collect()
}

const BY_PATH: &[&str] = &[
    "execl 1",
    "execl 3",
    "execl 5",
    "execl 9",
    "execle 1",
    "execle 3",
    "execle 5",
    "execle 9",
    "execv",
    "execve",
    "execve without an environment",
    "execve by number",
    "fork and exec",
    "vfork and exec",
    "vfork and execl",
    "posix_spawn",
    "posix_spawn without a place",
];
const BY_NAME: &[&str] =
    &["execlp 1", "execlp 3", "execlp 5", "execlp 9", "execvp", "execvpe", "posix_spawnp"];

/// Programs that do not start, and what is said of them.
const FAILING: &[(&str, &[&str])] = &[
    ("execl absent", &["program /nothing"]),
    ("execlp absent", &["program nothing"]),
    ("execle absent", &["program /nothing"]),
    ("execve a directory", &["program dir"]),
    ("execve no program", &["program file"]),
    ("execvp an empty name", &["program "]),
    ("posix_spawn absent", &["program /nothing"]),
];

fn starts(stage: &Stage) {
    stage.followed(BY_PATH, &["program SHOW", "read file"]);
    stage.followed(BY_NAME, &["program show", "read file"]);
    let after = ["program /nothing", "program SHOW", "read file"];
    stage.followed(&["exec after an absent one"], &after);
    let actions = ["look new", "program SHOW", "read file", "read link", "write new"];
    stage.followed(&["posix_spawn with actions"], &actions);
    for (case, want) in FAILING {
        let seen = stage.run(case);
        assert_eq!(stage.lines(&seen), *want, "{case}");
        assert_eq!((lost(&seen), &seen.unobserved), (vec![], &vec![]), "{case}");
    }
}

#[test]
fn programs() {
    starts(&Stage::new(lab!()));
}

#[test]
fn programs_under_musl() {
    starts(&Stage::new(lab!("musl-gcc")));
}

/// A program that is started by a descriptor runs as it would, and it is said that one was started.
#[test]
fn programs_by_descriptor() {
    let stage = Stage::new(lab!());
    for (case, want) in
        [("fexecve", &["read SHOW"][..]), ("execveat", &["read SHOW"]), ("execveat by number", &[])]
    {
        let seen = stage.run(case);
        assert_eq!(stage.lines(&seen), want, "{case}");
        assert_eq!(lost(&seen), ["child"], "{case}");
        assert_eq!(processes(&seen), [stage.starts.as_str()]);
    }
}

#[test]
fn copies_of_a_process() {
    let stage = Stage::new(lab!());
    assert_eq!(stage.lines(&stage.run("clone by number")), ["read file"]);
    if cfg!(target_arch = "x86_64") {
        assert_eq!(stage.lines(&stage.run("clone onto another stack")), [""; 0]);
    }
}

fn loading(stage: &Stage) {
    let seen = stage.run("dlopen");
    let want = ["object PLUGIN", "read dir/inner", "read link", "variable PLUGIN"];
    assert_eq!(stage.lines(&seen), want);
    let origin = |kind, name: &str| {
        let ends = |name: &[u8], end: &str| name.ends_with(end.as_bytes());
        let facts = seen.facts.iter().find(|f| f.kind == kind && ends(&f.name, name));
        facts.unwrap().origin
    };
    assert_eq!(origin(Kind::Read, "work/link"), Origin::Tool);
    assert_eq!(origin(Kind::Read, "dir/inner"), Origin::Plugin);
    assert_eq!(origin(Kind::Variable, "PLUGIN"), Origin::Plugin);
    let seen = stage.run("dlopen beside the program");
    assert_eq!(stage.lines(&seen), ["object plugin.so"]);
    let seen = stage.run("dlopen absent");
    assert_eq!(stage.lines(&seen), ["object ./nothing.so"]);
    let seen = stage.run("a plugin that starts a program");
    assert_eq!(stage.lines(&seen), ["object PLUGIN", "program SHOW", "read file"]);
    let of_helper = seen.facts.iter().filter(|fact| fact.origin == Origin::Helper);
    assert!(of_helper.clone().any(|fact| fact.kind == Kind::Read), "{:?}", seen.facts);
    assert_eq!((lost(&seen), &seen.unobserved), (vec![], &vec![]));
}

#[test]
fn objects() {
    let stage = Stage::new(lab!());
    loading(&stage);
    assert_eq!(lost(&stage.run("dlmopen")), ["unseen"]);
}

#[test]
fn objects_under_musl() {
    loading(&Stage::new(lab!("musl-gcc")));
}

/// Ways of starting a program with an environment that leads elsewhere.
const LEADS: &[&str] = &[
    "execve with a lead",
    "execvpe with a lead",
    "execve by number with a lead",
    "execv with a lead",
    "posix_spawn with a lead",
];

fn leads(stage: &Stage) {
    let library = stage.lab.library().to_str().unwrap();
    for case in LEADS {
        let log = stage.lab.new_log("inner", CAPACITY, SLOTS);
        let lead = |lead: String| {
            let program = stage.program(case).env("LEAD", format!("{VARIABLE}={lead}"));
            program.env("LEAD_PRELOAD", format!("LD_PRELOAD={library}"))
        };
        let program = lead(format!("0:r:{library}:{}", log.display()));
        let (plain, (ended, outer)) = (stage.lab.plain(&program), stage.lab.watched(&program));
        assert_eq!(ended, plain, "{case}");
        assert!(!shows_lead(&ended.text()), "{case}: {}", ended.text());
        // Once without observation around it and once with it.
        let inner = read_log(&log).unwrap();
        assert_eq!(processes(&inner), [stage.show.as_str(), &stage.show], "{case}");
        let reads = inner.facts.iter().filter(|fact| fact.kind == Kind::Read);
        assert_eq!(reads.count(), 2, "{case}: {inner:?}");
        not_followed(stage, case, &outer);
        // An empty lead: nobody observes it, and it sees nothing of that.
        let program = lead(String::new());
        let outer = stage.lab.compared(&program);
        let text = stage.lab.plain(&program).text();
        assert!(!shows_lead(&text), "{case}: {text}");
        not_followed(stage, case, &outer);
    }
}

/// Whether a program printed one of the two variables.
fn shows_lead(text: &str) -> bool {
    text.contains(&format!("{{{VARIABLE}")) || text.contains("{LD_PRELOAD")
}

#[track_caller]
fn not_followed(stage: &Stage, case: &str, seen: &Seen) {
    assert_eq!(processes(seen), [stage.starts.as_str()], "{case}");
    let program = if case.contains("execvpe") { "show" } else { &stage.show };
    let started = seen.unobserved.iter().map(|started| (started.origin, &started.program[..]));
    assert_eq!(started.collect::<Vec<_>>(), [(Origin::Tool, program.as_bytes())], "{case}");
    assert!(!stage.lines(seen).contains(&"read file".to_owned()), "{case}");
    assert_eq!(lost(seen), [""; 0], "{case}");
}

#[test]
fn programs_with_a_lead_of_their_own() {
    leads(&Stage::new(lab!()));
}

#[test]
fn programs_with_a_lead_of_their_own_under_musl() {
    leads(&Stage::new(lab!("musl-gcc")));
}
