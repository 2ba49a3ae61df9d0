//! cargo's jobserver: giving a token back while another job compiles what this one waits for, so that cargo
//! starts another crate meanwhile; and taking one before compiling after all.
//!
//! Only a jobserver that cargo itself made is touched: what make made is shared with programs that count their
//! tokens. Nothing is trusted that a variable says: the descriptors have to be the two ends of one pipe, or the
//! named pipe has to be one, and the process that started this one has to have it open too. A number that was
//! closed and opened again as something else never gets a token.
//!
//! What was given is booked in [`ledger`]. Called by [`crate::lease`].

mod ledger;

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;

use self::ledger::{Booked, Ledger};
use crate::env::Env;
use crate::observe::rules::JOBSERVER;
use crate::places::Place;

/// The variable in which cargo tells its jobserver.
const VARIABLE: &str = "CARGO_MAKEFLAGS";
/// What a token is made of; readers do not look.
const TOKEN: &[u8] = b"|";
/// Largest environment or command line of another process that is read, bytes.
const MAX_PROCESS_BYTES: u64 = 4 * 1024 * 1024;
/// Most descriptors of another process that are looked at.
const MAX_DESCRIPTORS: usize = 4096;

/// A pipe of tokens.
#[derive(Debug)]
pub(crate) struct Jobserver {
    read: File,
    write: File,
    ledger: Ledger,
}

/// A token that was given back. Dropped, it is owed: cargo believes that this process has it, and will give it
/// back once more when this process ends.
#[derive(Debug)]
pub(crate) struct Given(Booked);

impl Jobserver {
    /// The jobserver of the cargo that started this process, booked below a state directory; none where there is
    /// none, somebody else made it, or anything about it is odd.
    pub(crate) fn of_cargo(env: &Env, dir: &Path) -> Option<Self> {
        let parent = rustix::process::getppid()?.as_raw_nonzero().get();
        Self::of(&Cargo::read(PathBuf::from(format!("/proc/{parent}")))?, env, dir)
    }

    fn of(cargo: &Cargo, env: &Env, dir: &Path) -> Option<Self> {
        if cargo.inherited() {
            return None;
        }
        let pipe = Style::parse(env.text(VARIABLE)?)?.pipe(&cargo.process)?;
        let open = |options: &mut OpenOptions| {
            options.custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(&pipe.path).ok()
        };
        let is_it = |file: &File| {
            let meta = file.metadata();
            meta.is_ok_and(|m| pipe.is(&m) && m.file_type().is_fifo())
        };
        let read = open(OpenOptions::new().read(true)).filter(is_it)?;
        let write = open(OpenOptions::new().write(true)).filter(is_it)?;
        let number = cargo.process.file_name()?.to_str()?;
        let name = format!("{:x}-{:x}-{number}-{}", pipe.dev, pipe.ino, started(&cargo.process)?);
        let ledger = Ledger::new(dir, &name, jobs(&cargo.command_line, env));
        Some(Self { read, write, ledger })
    }

    /// How many processes cargo runs at once.
    pub(crate) const fn jobs(&self) -> usize {
        self.ledger.jobs()
    }

    /// Gives this process's token back. None when too many are given already, or it cannot be booked: then it is
    /// kept.
    pub(crate) fn give(&self) -> Option<Given> {
        self.ledger.give(|| (&self.write).write_all(TOKEN)).map(Given)
    }

    /// Waits so long at most for a token in place of one that was given. When there is none, it is owed.
    pub(crate) fn take_back(&self, given: Given, within: Duration) {
        let began = std::time::Instant::now();
        let mut booked = given.0;
        loop {
            match self.ledger.settle(booked, || self.read_one()) {
                None => return,
                Some(still) => booked = still,
            }
            let Some(left) = within.checked_sub(began.elapsed()).filter(|left| !left.is_zero())
            else {
                return;
            };
            let mut fds = [PollFd::new(&self.read, PollFlags::IN)];
            let time = Timespec {
                tv_sec: left.as_secs().cast_signed(),
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            if !poll(&mut fds, Some(&time)).is_ok_and(|ready| ready > 0) {
                return;
            }
        }
    }

    /// A place among those who compile. While a token is owed it is waited for, so long at most and until it is over;
    /// none then, and where cargo itself starts so many.
    pub(crate) fn place(&self, within: Duration, is_over: impl Fn() -> bool) -> Option<Place> {
        let began = std::time::Instant::now();
        self.ledger.place(|| is_over() || began.elapsed() >= within, || self.read_one())
    }

    /// Repays tokens that processes owe that have ended, as far as tokens are idle.
    pub(crate) fn repay(&self) {
        self.ledger.repay(|| self.read_one());
    }

    /// Whether a token could be read.
    fn read_one(&self) -> io::Result<bool> {
        let mut byte = [0];
        match (&self.read).read(&mut byte) {
            Ok(count) => Ok(count == 1),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The process that made the jobserver, if it is cargo's own.
#[derive(Debug)]
struct Cargo {
    /// Its directory in `/proc`.
    process: PathBuf,
    environment: Vec<u8>,
    command_line: Vec<u8>,
}

impl Cargo {
    fn read(process: PathBuf) -> Option<Self> {
        let environment = start_of(&process.join("environ"))?;
        let command_line = start_of(&process.join("cmdline"))?;
        Some(Self { process, environment, command_line })
    }

    /// Whether it was given a jobserver itself.
    fn inherited(&self) -> bool {
        self.environment.split(|byte| *byte == 0).any(|entry| {
            let names = JOBSERVER.iter().map(|name| name.as_bytes());
            let mut values = names.filter_map(|name| entry.strip_prefix(name)?.strip_prefix(b"="));
            values.any(|value| contains(value, b"--jobserver"))
        })
    }
}

/// How a jobserver is told.
#[derive(Debug, PartialEq, Eq)]
enum Style {
    /// Descriptors of a pipe: where it is read and written.
    Descriptors(u32, u32),
    /// The path of a named pipe.
    Named(PathBuf),
}

/// A pipe that was looked at.
struct Pipe {
    dev: u64,
    ino: u64,
    /// Where it can be opened.
    path: PathBuf,
}

impl Pipe {
    fn is(&self, meta: &Metadata) -> bool {
        (meta.dev(), meta.ino()) == (self.dev, self.ino)
    }
}

impl Style {
    /// The last one told counts, as with make.
    fn parse(flags: &str) -> Option<Self> {
        let option = |word: &'_ str| {
            let value = word.strip_prefix("--jobserver-auth=");
            value.or_else(|| word.strip_prefix("--jobserver-fds=")).map(str::to_owned)
        };
        let auth = flags.split_whitespace().filter_map(option).next_back()?;
        if let Some(path) = auth.strip_prefix("fifo:") {
            return Some(Self::Named(path.into())).filter(|_| path.starts_with('/'));
        }
        let (read, write) = auth.split_once(',')?;
        Some(Self::Descriptors(read.parse().ok()?, write.parse().ok()?))
    }

    /// The pipe, if it is one that this process and another both have.
    fn pipe(&self, process: &Path) -> Option<Pipe> {
        let path = match self {
            Self::Named(path) => path.clone(),
            Self::Descriptors(read, write) => {
                let own = |number: &u32| PathBuf::from(format!("/proc/self/fd/{number}"));
                let leads = |path: PathBuf| std::fs::read_link(path).ok();
                let name =
                    leads(own(read)).filter(|name| Some(name) == leads(own(write)).as_ref())?;
                let theirs = |number: &u32| leads(process.join(format!("fd/{number}")));
                let is_shared = theirs(read).as_ref() == Some(&name)
                    && theirs(write).as_ref() == Some(&name)
                    && is_open_for(*read, OFlags::RDONLY)
                    && is_open_for(*write, OFlags::WRONLY);
                is_shared.then(|| own(read))?
            }
        };
        let meta = std::fs::metadata(&path).ok().filter(|meta| meta.file_type().is_fifo())?;
        let pipe = Pipe { dev: meta.dev(), ino: meta.ino(), path };
        let is_known = matches!(self, Self::Descriptors(..)) || has_open(process, &pipe);
        is_known.then_some(pipe)
    }
}

/// Whether a descriptor of this process is open in one mode only.
fn is_open_for(number: u32, mode: OFlags) -> bool {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & OFlags::ACCMODE.bits() == mode.bits())
}

/// Whether a process has a pipe open.
fn has_open(process: &Path, pipe: &Pipe) -> bool {
    let entries = std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    entries
        .take(MAX_DESCRIPTORS)
        .any(|entry| std::fs::metadata(entry.path()).is_ok_and(|meta| pipe.is(&meta)))
}

/// The start of a file of `/proc`; none when it cannot be read or is longer than is read.
fn start_of(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut file = File::open(path).ok()?.take(MAX_PROCESS_BYTES);
    file.read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 != MAX_PROCESS_BYTES).then_some(bytes)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(text, part).is_some()
}

/// When a process was started, in the kernel's ticks: with its number, its name for good.
fn started(process: &Path) -> Option<u64> {
    let stat = String::from_utf8_lossy(&start_of(&process.join("stat"))?).into_owned();
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// How many processes cargo runs at once, as its command line, its variable or the processors say.
fn jobs(command_line: &[u8], env: &Env) -> usize {
    let words: Vec<&str> = command_line
        .split(|byte| *byte == 0)
        .filter_map(|word| str::from_utf8(word).ok())
        .collect();
    let number = |word: &&str| word.parse().ok().filter(|jobs| *jobs > 0);
    let of_word = |at: usize| -> Option<usize> {
        match words[at] {
            "-j" | "--jobs" => words.get(at + 1).and_then(number),
            word => number(&word.strip_prefix("--jobs=").or_else(|| word.strip_prefix("-j"))?),
        }
    };
    let told = (0..words.len()).find_map(of_word);
    told.or_else(|| number(&env.text("CARGO_BUILD_JOBS")?))
        .or_else(|| std::thread::available_parallelism().ok().map(usize::from))
        .unwrap_or(1)
}

#[cfg(test)]
mod tests;
