//! [`Desk`]: the same compile with Kiln and without it. What one shows, the other must show.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::call::{Call, Done};
use crate::project::Project;
use crate::server::wait_until;
use crate::world::World;

/// How the compiler is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum With {
    /// By Kiln.
    Kiln,
    /// Directly.
    Nothing,
}

/// A directory and a compiler for it.
#[derive(Debug)]
pub struct Desk {
    /// Where it is.
    pub world: World,
    /// The directory.
    pub project: Project,
    compiler: RefCell<PathBuf>,
    env: RefCell<BTreeMap<String, String>>,
}

impl Desk {
    /// An empty directory, and the compiler of the world.
    pub fn new(world: World) -> Self {
        let (project, compiler) = (world.project("x"), RefCell::new(world.bin().join("rustc")));
        Self { world, project, compiler, env: RefCell::default() }
    }

    /// Another compiler.
    pub fn set_compiler(&self, path: PathBuf) {
        *self.compiler.borrow_mut() = path;
    }

    /// A variable for all calls from now on.
    pub fn set(&self, name: &str, value: &str) {
        self.env.borrow_mut().insert(name.into(), value.into());
    }

    /// Takes a variable out again.
    pub fn unset(&self, name: &str) {
        self.env.borrow_mut().remove(name);
    }

    /// Writes a file of the directory.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        self.project.write(path, content);
    }

    /// A path of the directory as text.
    pub fn text(&self, path: &str) -> String {
        self.project.text(path)
    }

    /// An empty directory in place of whatever is there.
    pub fn empty(&self, path: &str) -> PathBuf {
        self.project.remove(path);
        let path = self.project.at(path);
        std::fs::create_dir_all(&path).expect("a directory");
        path
    }

    /// A program of the shell.
    pub fn script(&self, path: &str, content: &str) -> PathBuf {
        self.write(path, format!("#!/bin/sh\n{content}\n"));
        let path = self.project.at(path);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("the mode");
        path
    }

    /// A static archive whose function `answer` returns this number.
    pub fn archive(&self, path: &str, n: u32) {
        let scratch = self.world.project("c");
        scratch.write("a.c", format!("int answer(void) {{ return {n}; }}\n"));
        self.tool("/usr/bin/cc", scratch.dir(), "-c -fPIC a.c -o a.o");
        scratch.remove("a.a");
        self.tool("/usr/bin/ar", scratch.dir(), "crsD a.a a.o");
        self.write(path, scratch.read("a.a"));
    }

    /// Runs a program that must succeed; the arguments are apart by blanks.
    #[track_caller]
    pub fn tool(&self, program: &str, dir: &Path, args: &str) -> Done {
        self.world.call(program, dir, &words(args)).run().ok()
    }

    /// The variables set so far, in a call.
    pub fn dress(&self, call: Call) -> Call {
        self.env.borrow().iter().fold(call, |call, (name, value)| call.env(name, value))
    }

    /// The compiler; the arguments are apart by blanks.
    pub fn call(&self, with: With, args: &str) -> Call {
        let compiler = self.compiler.borrow().clone();
        let call = |program: &Path| self.world.call(program, self.project.dir(), &[]);
        let call = match with {
            With::Kiln => call(&self.world.programs.kiln).args(&[compiler]),
            With::Nothing => call(&compiler),
        };
        self.dress(call.args(&words(args)))
    }

    /// Compiles; it must succeed.
    #[track_caller]
    pub fn rustc(&self, with: With, args: &str) -> Done {
        self.call(with, args).run().ok()
    }

    /// What a program of the directory prints.
    pub fn prints(&self, program: &str) -> String {
        let program = self.project.at(program);
        if !program.exists() {
            return format!("no {}", program.display());
        }
        let done = self.world.call(program, self.project.dir(), &[]).run();
        match done.status.success() {
            true => done.stdout,
            false => format!("{} {}", done.status, done.stderr),
        }
    }

    /// Compiles the program `m` into the empty directory `out` and runs it; the error of a compile
    /// that fails.
    pub fn program(&self, with: With, args: &str) -> String {
        self.empty("out");
        let args = format!("--crate-name m --emit=dep-info,link --out-dir out {args}");
        match first_error(&self.call(with, &args).run()) {
            Some(error) => error,
            None => self.prints("out/m"),
        }
    }

    /// Asserts that a build shows the same with Kiln as without, and returns that.
    #[track_caller]
    pub fn same(&self, build: impl Fn(With) -> String) -> String {
        let kiln = build(With::Kiln);
        let plain = build(With::Nothing);
        assert_eq!(kiln, plain, "with Kiln and without; reasons: {}", self.world.stats()["missed"]);
        plain
    }

    /// Builds before a change and after it. It must show without Kiln, and with Kiln the same.
    #[track_caller]
    pub fn check(&self, build: impl Fn(With) -> String, change: impl FnOnce()) {
        let before = self.same(&build);
        change();
        let after = self.same(&build);
        assert_ne!(before, after, "the change has to show");
    }

    /// Waits until what is written now is clearly younger than this file.
    pub fn settle(&self, path: &str) {
        let nanoseconds = |path: &Path| {
            let meta = std::fs::metadata(path).expect("a file");
            i128::from(meta.ctime()) * 1_000_000_000 + i128::from(meta.ctime_nsec())
        };
        let (then, probe) = (nanoseconds(&self.project.at(path)), self.world.at("probe"));
        wait_until("the clock of the file system goes on", || {
            std::fs::write(&probe, "").expect("a file");
            nanoseconds(&probe) - then > 100_000_000
        });
    }
}

/// Words that are apart by blanks.
fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

/// The first line of an error of a compiler that failed.
pub fn first_error(done: &Done) -> Option<String> {
    if done.status.success() {
        return None;
    }
    let line = done.stderr.lines().find(|line| line.starts_with("error"));
    Some(line.map_or_else(|| format!("{}: {}", done.status, done.stderr), ToOwned::to_owned))
}

/// The names in a directory, sorted.
pub fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("a directory").flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    names
}

/// Runs a program that may hang: its group is ended after a while, and there is no status then.
pub fn ends_within(call: &Call, longest: Duration) -> Option<ExitStatus> {
    let mut command = call.command();
    command.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    let mut child = command.spawn().expect("the program starts");
    let began = Instant::now();
    while began.elapsed() < longest {
        if let Some(status) = child.try_wait().expect("a child") {
            return Some(status);
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    end_group(&mut child);
    None
}

fn end_group(child: &mut Child) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process number");
    // It may end by itself right now.
    let _ = kill_process_group(group, Signal::KILL);
    let _ = child.wait();
}
