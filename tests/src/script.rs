//! [`Scripted`]: a workspace whose program shows what a build script found, and `check`: what is shown
//! must follow what the script reads, with Kiln as without.
//!
//! Every script notes its runs in a log, so that a run that was answered from the cache is told from a
//! real one. A script's code gives a `String`; for that it has the names in [`PRELUDE`].

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::call::{Call, Done};
use crate::direct::With;
use crate::left::{Tally, built, outputs};
use crate::project::Project;
use crate::tools::Tools;
use crate::world::World;

/// What becomes of a run of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// It is stored, and holds in another checkout.
    Everywhere,
    /// It is stored, and holds at its place only.
    Here,
    /// It may be left out.
    Perhaps,
    /// It is left out for this reason.
    Refused(&'static str),
}

/// What every script starts with.
pub const PRELUDE: &str = r#"
#![allow(dead_code, unused_imports)]
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
fn var(name: &str) -> String { std::env::var(name).expect("cargo sets it") }
fn at(path: &str) -> PathBuf { Path::new(&var("CARGO_MANIFEST_DIR")).join(path) }
fn out(path: &str) -> PathBuf { Path::new(&var("OUT_DIR")).join(path) }
fn outside(path: &str) -> PathBuf { Path::new("@OUTSIDE@").join(path) }
fn read(path: impl AsRef<Path>) -> String { fs::read_to_string(path).unwrap() }
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{stderr}");
    String::from_utf8(output.stdout).unwrap() + &stderr
}
fn sh(script: &str) -> String { run(Command::new("sh").args(["-c", script])) }
/// Notes this run.
fn tally() {
    let mut log = OpenOptions::new().create(true).append(true).open("@TALLY@").unwrap();
    log.write_all(concat!(env!("CARGO_PKG_NAME"), "\n").as_bytes()).unwrap();
}
"#;

/// A program that prints what its script found.
pub const SHOW: &str =
    "fn main() { print!(\"{}\", include_str!(concat!(env!(\"OUT_DIR\"), \"/shown\"))) }\n";

/// What came of a build.
#[derive(Debug)]
pub struct Shown {
    /// What the program prints and what the build warned of; what the build says, where it failed.
    pub text: String,
    /// The packages whose scripts really ran.
    pub scripts: Vec<String>,
    /// Everything else.
    pub done: Done,
}

/// A workspace `ws/one` with the package `pk`, whose script is under test; files elsewhere are in
/// `outside`.
#[derive(Debug)]
pub struct Scripted {
    /// The world.
    pub world: World,
    /// The workspace.
    pub project: Project,
    /// What scripts note.
    pub tally: Tally,
    /// Stand-ins for the programs that scripts call, first in `PATH`.
    pub tools: Tools,
    base: RefCell<Vec<(String, String)>>,
    env: RefCell<BTreeMap<String, String>>,
    path_first: RefCell<Option<PathBuf>>,
    args: RefCell<Vec<String>>,
    compiles_again: Cell<bool>,
}

impl Scripted {
    /// A package whose script writes the value of this code.
    pub fn new(world: World, code: &str) -> Self {
        Self::with_items(world, &format!("fn value() -> String {{ {code} }}"))
    }

    /// The same for a script of several items, `fn value() -> String` among them.
    pub fn with_items(world: World, items: &str) -> Self {
        let main = "fn main() { tally(); let text = value(); fs::write(out(\"shown\"), text).unwrap(); }\n";
        Self::with_script(world, &format!("{main}{items}\n"))
    }

    /// A package whose script is [`PRELUDE`] and these items.
    pub fn with_script(world: World, items: &str) -> Self {
        let (project, tools) = (world.project("one"), Tools::install(&world));
        let tally = Tally::new(&world);
        std::fs::create_dir_all(world.at("outside")).expect("a directory");
        let place = Self {
            world,
            project,
            tally,
            tools,
            base: RefCell::default(),
            env: RefCell::default(),
            path_first: RefCell::default(),
            args: RefCell::new(vec!["build".into()]),
            compiles_again: Cell::new(false),
        };
        place.base("Cargo.toml", "[workspace]\nmembers = [\"pk\"]\nresolver = \"2\"\n");
        place.base("pk/Cargo.toml", &manifest("pk", ""));
        place.base("pk/src/main.rs", SHOW);
        place.script("pk/build.rs", items);
        place.reset();
        place
    }

    /// A file that every state has.
    pub fn base(&self, path: &str, text: &str) -> &Self {
        self.base.borrow_mut().retain(|(p, _)| p != path);
        self.base.borrow_mut().push((path.into(), text.into()));
        self.project.write(path, text);
        self
    }

    /// A build script that every state has: [`PRELUDE`] and these items.
    pub fn script(&self, path: &str, items: &str) -> &Self {
        self.base(path, &(self.prelude() + &items.replace("@TALLY@", self.tally.path())))
    }

    /// [`PRELUDE`] with the places of this world.
    pub fn prelude(&self) -> String {
        let outside = self.world.at("outside");
        let prelude = PRELUDE.replace("@OUTSIDE@", outside.to_str().expect("UTF-8"));
        prelude.replace("@TALLY@", self.tally.path())
    }

    /// Other words for cargo than `build`.
    pub fn args(self, args: &[&str]) -> Self {
        *self.args.borrow_mut() = args.iter().map(ToString::to_string).collect();
        self
    }

    /// A compile may follow where the run of the script was answered.
    pub fn compiling_again(self) -> Self {
        self.compiles_again.set(true);
        self
    }

    /// Writes a file of the workspace, in place of whatever is there.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        self.project.remove(path).write(path, content);
    }

    /// Makes a file newer than all that was built. (What is built gets its times by a clock that lags.)
    pub fn touch(&self, path: &str) {
        let file = std::fs::OpenOptions::new().write(true).open(self.project.at(path));
        file.and_then(|file| file.set_modified(SystemTime::now())).expect("a time");
    }

    /// Writes a file of the workspace so that cargo sees the change.
    pub fn change(&self, path: &str, content: &str) {
        self.write(path, content);
        self.touch(path);
    }

    /// Writes a program of the shell.
    pub fn program(&self, path: &Path, script: &str) {
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, format!("#!/bin/sh\n{script}\n")).expect("a file");
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("the mode");
    }

    /// Writes a file outside of the workspace.
    pub fn write_outside(&self, path: &str, content: &str) {
        let path = self.world.at("outside").join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, content).expect("a file");
    }

    /// Sets a variable.
    pub fn set(&self, name: &str, value: &str) {
        self.env.borrow_mut().insert(name.into(), value.into());
    }

    /// Takes a variable out.
    pub fn unset(&self, name: &str) {
        self.env.borrow_mut().remove(name);
    }

    /// A directory before all others in `PATH`, or none.
    pub fn path_first(&self, dir: Option<PathBuf>) {
        *self.path_first.borrow_mut() = dir;
    }

    /// The workspace with nothing in it but what every state has; nothing outside.
    pub fn reset(&self) {
        for dir in [self.project.dir().to_owned(), self.world.at("outside")] {
            let _ = std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o755));
            std::fs::remove_dir_all(&dir).expect("a directory goes");
            std::fs::create_dir(&dir).expect("a directory");
        }
        for (path, text) in self.base.borrow().iter() {
            self.project.write(path, text);
        }
    }

    /// A call of cargo in a workspace with the tools first in `PATH` and the variables that are set.
    pub fn cargo(&self, with: With, project: &Project, args: &[&str]) -> Call {
        let call = match with {
            With::Kiln => self.world.cargo(project, args),
            With::Nothing => self.world.plain_cargo(project, args),
        };
        let call = call.path_first(self.tools.dir());
        let call = match &*self.path_first.borrow() {
            Some(dir) => call.path_first(dir),
            None => call,
        };
        self.env.borrow().iter().fold(call, |call, (name, value)| call.env(name, value))
    }

    /// Builds a workspace from nothing.
    pub fn build_in(&self, with: With, project: &Project) -> Shown {
        project.wipe();
        self.build_on(with, project)
    }

    /// Builds a workspace on what is there.
    pub fn build_on(&self, with: With, project: &Project) -> Shown {
        self.tally.take();
        let args = self.args.borrow().clone();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let done = self.cargo(with, project, &args).run();
        let text = match done.status.success() {
            true => warnings(&done.stderr) + &self.prints(project),
            false => failure(&done.stderr),
        };
        Shown { text, scripts: self.tally.take(), done }
    }

    /// Builds from nothing.
    pub fn build(&self, with: With) -> Shown {
        self.build_in(with, &self.project)
    }

    /// What the program of a built workspace prints, if it is there.
    pub fn prints(&self, project: &Project) -> String {
        let program = project.at("target/debug/pk");
        match program.exists() {
            true => self.world.call(program, project.dir(), &[]).run().ok().stdout,
            false => String::new(),
        }
    }

    /// Why units of the last build were made.
    pub fn reasons(&self) -> Vec<String> {
        let stats = self.world.stats();
        let missed = stats["missed"].as_array().into_iter().flatten();
        missed.map(|m| m["reason"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// All that is known of the last build, for a message.
    pub fn why(&self) -> String {
        let stats = self.world.stats();
        format!(
            "missed: {:#}\npinned: {:#}\nconservative: {:#}",
            stats["missed"], stats["pinned"], stats["conservative"]
        )
    }

    /// A build with Kiln shows this, and neither a script nor a compiler nor a tool runs.
    #[track_caller]
    pub fn hits_in(&self, project: &Project, want: &str, what: &str) {
        self.tools.take();
        let shown = self.build_in(With::Kiln, project);
        assert_eq!(shown.text, want, "{what}: what is shown; {}", self.why());
        assert!(shown.scripts.is_empty(), "{what}: the script ran; {}", self.why());
        let tools = self.tools.take();
        let compiled = shown.done.compiled();
        if !self.compiles_again.get() {
            assert!(compiled.is_empty(), "{what}: compiled {compiled:?}; {}", self.why());
            assert!(tools.is_empty(), "{what}: tools ran: {tools:#?}; {}", self.why());
        }
    }

    /// A build with Kiln shows this. `stored` says whether a script may run.
    #[track_caller]
    fn again(&self, stored: Stored, want: &str, what: &str) {
        if matches!(stored, Stored::Everywhere | Stored::Here) {
            return self.hits_in(&self.project, want, what);
        }
        let shown = self.build(With::Kiln);
        assert_eq!(shown.text, want, "{what}: what is shown; {}", self.why());
        if let Stored::Refused(reason) = stored {
            assert_eq!(shown.scripts, ["pk"], "{what}: the script has to run");
            assert!(self.reasons().iter().any(|r| r == reason), "{what}: {}", self.why());
        }
    }

    /// The state is built with Kiln and without; both show the same.
    #[track_caller]
    fn same(&self, state: &dyn Fn(&Self), what: &str) -> String {
        self.fresh(state);
        let plain = self.build(With::Nothing);
        assert!(plain.done.status.success(), "{what}: {}", plain.text);
        let (tree, printed) = (built(&self.project, false), outputs(&self.project));
        self.fresh(state);
        let kiln = self.build(With::Kiln);
        assert_eq!(kiln.text, plain.text, "{what}: with Kiln and without; {}", self.why());
        assert_eq!(built(&self.project, false), tree, "{what}: what the script left");
        assert_eq!(outputs(&self.project), printed, "{what}: what the script printed");
        plain.text
    }

    fn fresh(&self, state: &dyn Fn(&Self)) {
        self.reset();
        self.env.borrow_mut().clear();
        self.path_first(None);
        state(self);
    }

    /// Goes from one state to another and back, each made from nothing before each build. Each must
    /// show what it shows without Kiln, here and in another checkout.
    #[track_caller]
    pub fn check(&self, stored: Stored, a: impl Fn(&Self), b: impl Fn(&Self)) {
        let first = self.same(&a, "before");
        let left = built(&self.project, true);
        self.fresh(&a);
        self.again(stored, &first, "the same again");
        if matches!(stored, Stored::Everywhere | Stored::Here) {
            assert_eq!(built(&self.project, true), left, "what was put back");
        }
        self.elsewhere(stored, &a);
        let second = self.same(&b, "changed");
        assert_ne!(first, second, "the change has to show");
        self.fresh(&a);
        self.again(stored, &first, "changed back");
    }

    /// The same state in another checkout.
    #[track_caller]
    fn elsewhere(&self, stored: Stored, state: &dyn Fn(&Self)) {
        let fresh = || {
            self.fresh(state);
            let _ = std::fs::remove_dir_all(self.world.at("ws/far"));
            self.project.copy_to(self.world.at("ws/far/er/two"))
        };
        let plain = self.build_in(With::Nothing, &fresh()).text;
        let two = fresh();
        match stored {
            Stored::Everywhere => self.hits_in(&two, &plain, "in another checkout"),
            _ => {
                let kiln = self.build_in(With::Kiln, &two).text;
                assert_eq!(kiln, plain, "in another checkout; {}", self.why());
            }
        }
    }

    /// One state alone: it shows the same with Kiln as without, and again, and in another checkout.
    #[track_caller]
    pub fn check_one(&self, stored: Stored, state: impl Fn(&Self)) {
        let first = self.same(&state, "before");
        let left = built(&self.project, true);
        self.fresh(&state);
        self.again(stored, &first, "the same again");
        if matches!(stored, Stored::Everywhere | Stored::Here) {
            assert_eq!(built(&self.project, true), left, "what was put back");
        }
        self.elsewhere(stored, &state);
    }
}

/// A manifest with more lines behind `[package]`.
pub fn manifest(name: &str, more: &str) -> String {
    format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2021\"\n{more}")
}

/// The warnings of packages among the lines of a build.
fn warnings(stderr: &str) -> String {
    let told = |line: &&str| line.starts_with("warning: ") && line.contains('@');
    stderr.lines().filter(told).map(|line| format!("{line}\n")).collect()
}

/// What a build says from its first error on.
fn failure(stderr: &str) -> String {
    let lines = stderr.lines().skip_while(|line| !line.starts_with("error"));
    let kept = lines.filter(|line| !line.starts_with("warning: build failed"));
    kept.map(|line| format!("{line}\n")).collect()
}

/// A table of traps: name, what becomes of the run, the script's code, the state before, the state
/// after.
#[macro_export]
macro_rules! scripts {
    ($($(#[$doc:meta])* $name:ident: $stored:expr, $code:expr, $a:expr, $b:expr;)*) => {$(
        $(#[$doc])*
        #[test]
        fn $name() {
            use $crate::script::Stored::*;
            let place = $crate::script::Scripted::new($crate::world!(), $code);
            let a: fn(&$crate::script::Scripted) = $a;
            let b: fn(&$crate::script::Scripted) = $b;
            place.check($stored, a, b);
        }
    )*};
}
