//! [`Lab`]: small C programs, run with the observer's library and without, and what it noted.
//!
//! The log is made here and not by the wrapper, so that tests can give programs a log of any size, or
//! none.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use kiln::config::Config;
use kiln::env::Env;
use kiln::memo::Memo;
use kiln::observe::Library;
use kiln::observe::seen::{self, Fact, Seen};
use kiln_observer::log::{self, Kind, Lost, flags};

use crate::host::{SYSTEM_PATH, host};

/// Bytes for entries of a usual log.
pub const CAPACITY: u32 = 8 * 1024 * 1024;
/// Slots of a usual log.
pub const SLOTS: u32 = 16 * 1024;

/// A directory with the library, programs, and a place to run them in.
#[derive(Debug)]
pub struct Lab {
    dir: tempfile::TempDir,
    library: PathBuf,
    compiler: PathBuf,
}

/// What a program got to read and wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Exit status, or minus the signal.
    pub status: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl Ended {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// A program to be run, with what it gets.
#[derive(Debug, Clone)]
pub struct Program {
    /// Its path.
    pub path: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Its variables besides `PATH`.
    pub env: Vec<(String, OsString)>,
    /// Its standard input.
    pub stdin: Vec<u8>,
    /// Prefix maps for C compilers, as a lead has them.
    pub maps: String,
}

impl Program {
    /// A program without arguments.
    pub fn new(path: &Path) -> Self {
        let (args, env, stdin) = (Vec::new(), Vec::new(), Vec::new());
        Self { path: path.to_owned(), args, env, stdin, maps: String::new() }
    }

    /// With arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: &[S]) -> Self {
        self.args.extend(args.iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// With a variable.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// With prefix maps.
    pub fn maps(mut self, maps: &str) -> Self {
        maps.clone_into(&mut self.maps);
        self
    }

    /// With standard input.
    pub fn stdin(mut self, bytes: &[u8]) -> Self {
        bytes.clone_into(&mut self.stdin);
        self
    }
}

impl Lab {
    /// A lab with a C compiler of this name; what is missing, where there is none.
    ///
    /// # Errors
    /// What is missing.
    pub fn open(compiler: &str) -> Result<Self, String> {
        let found = SYSTEM_PATH.split(':').map(|dir| Path::new(dir).join(compiler));
        let compiler = found.into_iter().find(|path| path.exists());
        let compiler = compiler.ok_or("there is no such C compiler")?;
        let base = fs::canonicalize(&host().tmp).expect("a directory for temporary files");
        let dir = tempfile::Builder::new().prefix("obs").tempdir_in(base).expect("a directory");
        let state = dir.path().join("state");
        let home = state.to_str().expect("a plain path");
        let env = Env::of_pairs([("KILN_DIR", home), ("HOME", home)]);
        let config = Config::resolve(&env).expect("settings");
        Library::open(&config, &state, &Memo::default())?;
        let mut there = fs::read_dir(state.join("observer")).expect("the library's directory");
        let library = there.next().expect("the library").expect("the library").path();
        let lab = Self { dir, library, compiler };
        lab.fixture();
        Ok(lab)
    }

    /// The library.
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// A path in the lab.
    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The directory that programs run in.
    pub fn work(&self) -> PathBuf {
        self.at("work")
    }

    /// Makes that directory anew: a file, a directory, links to both.
    pub fn fixture(&self) {
        let work = self.work();
        let _ = fs::remove_dir_all(&work);
        fs::create_dir_all(work.join("dir")).expect("directories");
        fs::write(work.join("file"), "content\n").expect("a file");
        fs::write(work.join("dir/inner"), "inner\n").expect("a file");
        std::os::unix::fs::symlink("file", work.join("link")).expect("a link");
        std::os::unix::fs::symlink("dir", work.join("dirlink")).expect("a link");
    }

    /// Compiles a program of `tests/programs` with optimisation and checks of buffers.
    pub fn compile(&self, source: &str) -> PathBuf {
        self.compile_as(source.split('.').next().unwrap_or(source), source, &[])
    }

    /// The same, under another name and with more arguments.
    pub fn compile_as(&self, out: &str, source: &str, more: &[&str]) -> PathBuf {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs");
        let out = self.at(out);
        let mut cc = Command::new(&self.compiler);
        cc.args(["-O2", "-D_FORTIFY_SOURCE=2", "-w", "-o"]).arg(&out).arg(sources.join(source));
        let cc = cc.args(more).env_clear().env("PATH", SYSTEM_PATH).output().expect("cc runs");
        assert!(cc.status.success(), "{source}: {}", String::from_utf8_lossy(&cc.stderr));
        out
    }

    fn command(&self, program: &Program) -> Command {
        let mut command = Command::new(&program.path);
        command.args(&program.args).current_dir(self.work());
        command.env_clear().env("PATH", SYSTEM_PATH);
        command.envs(program.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a program as it is.
    pub fn plain(&self, program: &Program) -> Ended {
        finish(self.command(program), &program.stdin)
    }

    /// Runs a program with the library and a log at this path, whatever that is.
    pub fn with_log(&self, program: &Program, log: &Path) -> Ended {
        let mut command = self.command(program);
        let mut preload = self.library.clone().into_os_string();
        let own = program.env.iter().find(|(name, _)| name == "LD_PRELOAD");
        if let Some((_, others)) = own {
            preload.push(":");
            preload.push(others);
        }
        let mut lead = format!("0:r:{}:{}", self.library.display(), log.display());
        if !program.maps.is_empty() {
            lead.push_str(&format!(":{}", program.maps));
        }
        command.env("LD_PRELOAD", preload).env(log::VARIABLE, lead);
        finish(command, &program.stdin)
    }

    /// Runs a program with the library; what it noted.
    pub fn watched(&self, program: &Program) -> (Ended, Seen) {
        let log = self.new_log("log", CAPACITY, SLOTS);
        let ended = self.with_log(program, &log);
        (ended, read_log(&log).expect("a log"))
    }

    /// Runs a program without the library and with it, each time in a fresh directory; what it noted.
    /// Both runs end alike.
    #[track_caller]
    pub fn compared(&self, program: &Program) -> Seen {
        self.fixture();
        let plain = self.plain(program);
        self.fixture();
        let (watched, seen) = self.watched(program);
        assert_eq!(watched.text(), plain.text(), "{:?}", program.args);
        assert_eq!(watched, plain, "{:?}", program.args);
        seen
    }

    /// An empty log.
    pub fn new_log(&self, name: &str, capacity: u32, slots: u32) -> PathBuf {
        let path = self.at(name);
        let mut file = File::create(&path).expect("a log");
        file.write_all(&log::header(capacity, slots)).expect("a header");
        file.set_len(log::file_bytes(capacity, slots)).expect("its size");
        path
    }

    /// Facts as lines of text, without those of how programs start: `read dir/inner`. Paths below the
    /// lab's directory are relative to it. Behind the kind stand `?` for what is absent, `!` for another failure,
    /// `@` for a link itself, `~` for what is kept, `+` for what is fresh, `>` for what is appended to.
    pub fn lines(&self, seen: &Seen) -> Vec<String> {
        let start = |fact: &&Fact| fact.kind == Kind::Process || fact.has(flags::START);
        seen.facts.iter().filter(|fact| !start(fact)).map(|fact| self.line(fact)).collect()
    }

    fn line(&self, fact: &Fact) -> String {
        let name = String::from_utf8_lossy(&fact.name).into_owned();
        let work = self.work();
        let work = work.to_str().expect("a plain path");
        let name = match name.strip_prefix(work) {
            Some("") => ".".to_owned(),
            Some(rest) if rest.starts_with('/') => rest.trim_start_matches('/').to_owned(),
            _ => name.replace(&format!("unix:{work}/"), "unix:"),
        };
        let mut kind = format!("{:?}", fact.kind).to_lowercase();
        for (bit, mark) in [
            (flags::ABSENT, '?'),
            (flags::LINK, '@'),
            (flags::KEPT, '~'),
            (flags::FRESH, '+'),
            (flags::APPEND, '>'),
        ] {
            if fact.has(bit) {
                kind.push(mark);
            }
        }
        if fact.has(flags::FAILED) && !fact.has(flags::ABSENT) {
            kind.push('!');
        }
        format!("{kind} {name}")
    }
}

/// Reads a log.
///
/// # Errors
/// When it is none.
pub fn read_log(path: &Path) -> Result<Seen, String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let head = log::head(&bytes).map_err(|_| "not a log")?;
    let end = head.entries_at + head.entries;
    let entries = bytes.get(head.entries_at..end).ok_or("too short")?;
    Ok(seen::read(entries, head.lost, seen::Subject::Compiler))
}

/// The names of what was lost.
pub fn lost(seen: &Seen) -> Vec<&'static str> {
    [
        (Lost::FULL, "full"),
        (Lost::PATH, "path"),
        (Lost::CHILD, "child"),
        (Lost::TORN, "torn"),
        (Lost::UNSEEN, "unseen"),
    ]
    .into_iter()
    .filter_map(|(bit, name)| (seen.lost & bit != 0).then_some(name))
    .collect()
}

fn finish(mut command: Command, stdin: &[u8]) -> Ended {
    use std::os::unix::process::ExitStatusExt;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let mut pipe = child.stdin.take().expect("a pipe");
    let bytes = stdin.to_owned();
    let writer = std::thread::spawn(move || {
        // A program that does not read it hangs up.
        let _ = pipe.write_all(&bytes);
    });
    let Output { status, stdout, stderr } = child.wait_with_output().expect("the program ends");
    writer.join().expect("the input is written");
    let status = status.code().unwrap_or_else(|| -status.signal().unwrap_or(0));
    Ended { status, stdout, stderr }
}
