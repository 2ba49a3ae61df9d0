//! [`Call`]: one run of a program with an environment of its own, and [`Done`]: what came of it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::runs::{Log, Run};

/// A program to be run; nothing of the test's own environment reaches it.
#[derive(Debug, Clone)]
pub struct Call {
    program: PathBuf,
    args: Vec<OsString>,
    dir: PathBuf,
    env: BTreeMap<OsString, OsString>,
    log: Option<PathBuf>,
    stdin: Option<Vec<u8>>,
    under: Vec<OsString>,
}

/// Starts a program. Another test of this process may fork while it holds a copy of the program open
/// for writing; that is over as soon as its child becomes another program.
fn spawn(command: &mut Command) -> Child {
    loop {
        match command.spawn() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
            started => return started.expect("the program starts"),
        }
    }
}

impl Call {
    /// A call without any environment.
    pub fn new(program: &Path, dir: &Path, args: &[&str]) -> Self {
        Self {
            program: program.to_owned(),
            args: args.iter().map(Into::into).collect(),
            dir: dir.to_owned(),
            env: BTreeMap::new(),
            log: None,
            stdin: None,
            under: Vec::new(),
        }
    }

    /// Where the stand-ins note their runs.
    pub fn log(mut self, path: PathBuf) -> Self {
        self.log = Some(path);
        self
    }

    /// Sets a variable.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.insert(name.as_ref().to_owned(), value.as_ref().to_owned());
        self
    }

    /// Sets variables.
    pub fn envs(mut self, pairs: &[(&str, &str)]) -> Self {
        self.env.extend(pairs.iter().map(|(n, v)| (OsString::from(n), OsString::from(v))));
        self
    }

    /// Takes a variable out.
    pub fn without(mut self, name: &str) -> Self {
        self.env.remove(OsStr::new(name));
        self
    }

    /// Puts a directory before all others in `PATH`.
    pub fn path_first(self, dir: &Path) -> Self {
        let mut path = dir.as_os_str().to_owned();
        path.push(":");
        path.push(self.env.get(OsStr::new("PATH")).cloned().unwrap_or_default());
        self.env("PATH", path)
    }

    /// More arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: &[S]) -> Self {
        self.args.extend(args.iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Another working directory.
    pub fn dir(mut self, dir: &Path) -> Self {
        dir.clone_into(&mut self.dir);
        self
    }

    /// Bytes for standard input, which is empty otherwise.
    pub fn stdin(mut self, bytes: &[u8]) -> Self {
        self.stdin = Some(bytes.to_owned());
        self
    }

    /// Runs the program by another one, which gets it with its arguments behind its own.
    pub fn under(mut self, words: &[&str]) -> Self {
        self.under = words.iter().map(OsString::from).collect();
        self
    }

    /// Runs the program under a shell with this file creation mask, e.g. `077`.
    pub fn umask(self, mask: &str) -> Self {
        let script = format!("umask {mask}; exec \"$@\"");
        self.under(&["/bin/sh", "-c", &script, "sh"])
    }

    /// The command, for a test that runs it in its own way.
    pub fn command(&self) -> Command {
        let mut words = self.under.iter().cloned();
        let mut command = match words.next() {
            Some(first) => {
                let mut command = Command::new(first);
                command.args(words).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        command.args(&self.args).current_dir(&self.dir).env_clear().envs(&self.env);
        command.stdin(Stdio::null());
        command
    }

    /// Starts it.
    pub fn spawn(self) -> Running {
        let log_from = self.log.as_deref().map_or(0, |path| Log::new(path).end());
        let mut command = self.command();
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        if self.stdin.is_some() {
            command.stdin(Stdio::piped());
        }
        let began = Instant::now();
        let mut child = spawn(&mut command);
        if let (Some(bytes), Some(mut pipe)) = (&self.stdin, child.stdin.take()) {
            // A program that does not read it hangs up.
            let _ = pipe.write_all(bytes);
        }
        Running { child, log: self.log, log_from, began }
    }

    /// Runs it to its end.
    pub fn run(self) -> Done {
        self.spawn().wait()
    }
}

/// A program that runs.
#[derive(Debug)]
pub struct Running {
    child: Child,
    log: Option<PathBuf>,
    log_from: u64,
    began: Instant,
}

impl Running {
    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end and for that of its output.
    pub fn wait(self) -> Done {
        let output = self.child.wait_with_output().expect("the program ends");
        let runs = self.log.map(|path| Log::new(&path).since(self.log_from)).unwrap_or_default();
        let text = |bytes| String::from_utf8(bytes).expect("output is UTF-8");
        Done {
            status: output.status,
            stdout: text(output.stdout),
            stderr: text(output.stderr),
            runs,
            took: self.began.elapsed(),
        }
    }
}

/// A program that ended.
#[derive(Debug)]
pub struct Done {
    /// How it ended.
    pub status: ExitStatus,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
    /// The runs of real compilers meanwhile.
    pub runs: Vec<Run>,
    /// How long it took.
    pub took: Duration,
}

impl Done {
    /// Itself, if the program succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(self.status.success(), "{}\n{}\n{}", self.status, self.stdout, self.stderr);
        self
    }

    /// Itself, if the program failed.
    #[track_caller]
    pub fn fails(self) -> Self {
        assert!(!self.status.success(), "it succeeds\n{}\n{}", self.stdout, self.stderr);
        self
    }

    /// The units that were really compiled for cargo, sorted; those that build scripts compile for
    /// themselves are not among them.
    pub fn compiled(&self) -> Vec<String> {
        let compiles = self.runs.iter().filter(|run| run.is_compile() && !run.of_build_script);
        let mut names: Vec<String> = compiles.map(Run::name).collect();
        names.sort_unstable();
        names
    }

    /// Whether a unit of this crate was compiled.
    pub fn did_compile(&self, crate_name: &str) -> bool {
        self.runs
            .iter()
            .any(|run| run.is_compile() && run.value("--crate-name") == Some(crate_name))
    }

    /// The messages of `--message-format=json`.
    pub fn messages(&self) -> Vec<Value> {
        let json = self.stdout.lines().filter(|line| line.starts_with('{'));
        json.map(|line| serde_json::from_str(line).expect("a message of cargo")).collect()
    }
}
