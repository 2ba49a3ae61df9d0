//! [`Seen`]: what a log tells, with the processes put in order. Pure.
//!
//! A log names processes by number. Here each entry gets an [`Origin`] instead: whether the compiler
//! itself asked, a plugin in it, its linker, or something that a plugin started. Of a build script's run
//! all counts as a plugin's does, but for what Kiln itself asks for in it.

use std::collections::{BTreeMap, BTreeSet};

use kiln_observer::log::{Entries, Entry, How, Kind, Lost, Process, flags};
use memchr::memmem::Finder;

use crate::quick::QuickSet;

/// Whose doing an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// A program that stood in for the compiler and became it: a proxy that chooses a toolchain.
    Proxy,
    /// The compiler's own code.
    Tool,
    /// Code that the compiler loaded: procedural macros. Or a build script.
    Plugin,
    /// A program that the compiler's own code started: the linker, and what that starts.
    Linker,
    /// A script that stands in for the linker or a part of it, and what that starts: it may read
    /// anything.
    Script,
    /// A program that a plugin started, and what that starts.
    Helper,
    /// Kiln, asked by a build script for a compile: it says itself what that read.
    Own,
}

/// What ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject<'a> {
    /// A compiler.
    Compiler,
    /// A build script; and the path of the program that is Kiln.
    Script(&'a [u8]),
}

impl Origin {
    /// Whether it is the doing of a plugin, by itself or through programs: known in no other way.
    pub fn is_foreign(self) -> bool {
        matches!(self, Self::Plugin | Self::Helper)
    }
}

/// One thing that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fact {
    /// By whom.
    pub origin: Origin,
    /// What.
    pub kind: Kind,
    /// Bits of [`flags`], without [`flags::LATER`], which the origin tells.
    pub flags: u8,
    /// A path or a name.
    pub name: Vec<u8>,
}

impl Fact {
    /// Whether a bit is set.
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// A program that was started and not observed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unobserved {
    /// Who started it.
    pub origin: Origin,
    /// The system's number of its process.
    pub pid: u32,
    /// What it was started as: a path, or a name for `PATH`.
    pub program: Vec<u8>,
}

/// What was seen of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// What was asked for, in order.
    pub facts: Vec<Fact>,
    /// Programs that were started and not observed.
    pub unobserved: Vec<Unobserved>,
    /// What was lost: bits of [`Lost`].
    pub lost: u32,
    /// Whether the compiler, or the script, was observed at all.
    pub began: bool,
    /// The system's numbers of processes that were Kiln.
    pub own: Vec<u32>,
    /// Those of the others, each once or more often.
    pub pids: Vec<u32>,
}

/// What every compiler loads when it starts, and nothing else does.
const DRIVER: &[u8] = b"/librustc_driver-";

/// A process of the log.
#[derive(Debug, Clone, Copy)]
struct Known {
    parent: u16,
    how: How,
    /// Whether it is a compiler; not asked of a build script's run.
    driver: bool,
    /// Whether it runs scripts.
    interpreter: bool,
    /// Whether it is Kiln.
    own: bool,
}

/// Programs that run scripts, by the begin of their names.
const INTERPRETERS: &[&str] = &[
    "sh", "ash", "bash", "busybox", "dash", "fish", "ksh", "lua", "mksh", "node", "perl", "php",
    "python", "ruby", "tclsh", "toybox", "zsh",
];

/// Whether a program runs scripts: one of [`INTERPRETERS`], perhaps with a version behind it.
fn is_interpreter(program: &[u8]) -> bool {
    let name = program.rsplit(|byte| *byte == b'/').next().unwrap_or(program);
    let version = |rest: &[u8]| rest.iter().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-'));
    INTERPRETERS.iter().any(|known| name.strip_prefix(known.as_bytes()).is_some_and(version))
}

/// All processes of a log, by their numbers. Parents have smaller numbers than their children.
#[derive(Debug, Default)]
struct Processes(BTreeMap<u16, Known>);

impl Processes {
    fn read(bytes: &[u8], subject: Subject<'_>) -> Self {
        let mut processes = Self::default();
        let driver = Finder::new(DRIVER);
        for entry in Entries::new(bytes).flatten() {
            if entry.kind == Kind::Process
                && let Some((Process { parent, how, .. }, path)) = Process::decode(entry.name)
            {
                let (interpreter, own) = (is_interpreter(path), subject == Subject::Script(path));
                let known = Known { parent, how, driver: false, interpreter, own };
                processes.0.insert(entry.process, known);
            }
            if subject == Subject::Compiler
                && entry.kind == Kind::Object
                && entry.has(flags::START)
                && driver.find(entry.name).is_some()
                && let Some(known) = processes.0.get_mut(&entry.process)
            {
                known.driver = true;
            }
        }
        processes
    }

    /// The processes above one, nearest first.
    fn above(&self, number: u16) -> impl Iterator<Item = (u16, Known)> {
        let up = |below: &(u16, Known)| {
            let parent = below.1.parent;
            let known = self.0.get(&parent).filter(|_| parent < below.0)?;
            Some((parent, *known))
        };
        let first = self.0.get(&number).map(|known| (number, *known));
        std::iter::successors(first, up).skip(1)
    }

    /// The compiler: the first process that is one, and that no other compiler started.
    fn compiler(&self) -> Option<u16> {
        self.0.iter().find(|(_, known)| known.driver).map(|(number, _)| *number)
    }

    /// Whose doing the own code of each process of a build script's run is.
    fn origins_of_script(&self) -> BTreeMap<u16, Origin> {
        let mut origins = BTreeMap::new();
        for (number, known) in &self.0 {
            let parent = origins.get(&known.parent).copied();
            let origin = match (parent, known.how) {
                _ if known.own => Origin::Own,
                (_, How::Root) => Origin::Plugin,
                // It became the compiler that it was asked to be; what else it starts is its own.
                (Some(Origin::Own), How::Became) => Origin::Helper,
                (Some(Origin::Own), _) => Origin::Own,
                _ => Origin::Helper,
            };
            origins.insert(*number, origin);
        }
        origins
    }

    /// Whose doing the own code of each process of a compile is.
    fn origins(&self) -> BTreeMap<u16, Origin> {
        // Where none is recognised, the first one is taken for it.
        let compiler = self.compiler().or_else(|| self.0.keys().next().copied());
        let above: BTreeSet<u16> =
            compiler.into_iter().flat_map(|c| self.above(c)).map(|(number, _)| number).collect();
        let mut origins = BTreeMap::new();
        for (number, known) in &self.0 {
            let parent = origins.get(&known.parent).copied();
            let origin = match (parent, known.how) {
                _ if compiler == Some(*number) => Origin::Tool,
                _ if above.contains(number) => Origin::Proxy,
                (Some(Origin::Tool), How::ChildOfLater) | (Some(Origin::Helper), _) => {
                    Origin::Helper
                }
                (Some(Origin::Proxy), _) => Origin::Proxy,
                (Some(Origin::Script), _) => Origin::Script,
                (Some(Origin::Tool | Origin::Linker), _) if known.interpreter => Origin::Script,
                (Some(Origin::Tool | Origin::Linker), _) => Origin::Linker,
                _ => Origin::Helper,
            };
            origins.insert(*number, origin);
        }
        origins
    }
}

/// A process that never introduced itself is taken for a plugin's, which counts most.
const UNKNOWN: Origin = Origin::Helper;

/// Where in the order a program was started, and by whom.
type Start = (usize, Origin);

/// A log, while it is read.
struct Reader<'a> {
    seen: Seen,
    /// By the numbers of processes.
    origins: Vec<Origin>,
    /// Programs that were started and did not fail, by the system's number of the process and the
    /// path: where in the order, and by whom.
    started: BTreeMap<(u32, &'a [u8]), Vec<Start>>,
    /// How often each of these introduced itself.
    introduced: BTreeMap<u32, usize>,
    /// Numbers of processes that are Kiln.
    own: BTreeSet<u16>,
    /// What a script's processes asked for already: hundreds of them may read the same headers.
    asked: Option<QuickSet<Asked<'a>>>,
}

/// Who asked for what, in which way.
type Asked<'a> = (Origin, Kind, u8, &'a [u8]);

impl<'a> Reader<'a> {
    /// Who asked.
    fn origin(&self, entry: &Entry<'_>) -> Origin {
        match self.origins.get(usize::from(entry.process)).copied().unwrap_or(UNKNOWN) {
            Origin::Tool if entry.has(flags::LATER) => Origin::Plugin,
            origin => origin,
        }
    }

    fn note(&mut self, entry: &Entry<'a>, name: &'a [u8]) {
        let (origin, flags) = (self.origin(entry), entry.flags & !flags::LATER);
        if self.is_asked_again((origin, entry.kind, flags, name)) {
            return;
        }
        self.seen.facts.push(Fact { origin, kind: entry.kind, flags, name: name.to_vec() });
    }

    /// Whether another process of the script asked the same, and nothing has come since that could make
    /// the answer another one.
    fn is_asked_again(&mut self, fact: Asked<'a>) -> bool {
        let Some(asked) = &mut self.asked else { return false };
        let kept = fact.2 & flags::KEPT != 0;
        match fact.1 {
            Kind::Write if kept => asked.clear(),
            Kind::Read | Kind::Look | Kind::List | Kind::Resolve if !kept => {
                return !asked.insert(fact);
            }
            Kind::Variable | Kind::Object | Kind::Cwd => return !asked.insert(fact),
            _ => {}
        }
        false
    }

    fn take(&mut self, entry: &Entry<'a>) {
        match entry.kind {
            Kind::Process => self.process(entry),
            Kind::Program | Kind::ProgramFailed => self.program(entry),
            _ => self.note(entry, entry.name),
        }
    }

    fn process(&mut self, entry: &Entry<'a>) {
        let Some((process, program)) = Process::decode(entry.name) else {
            self.seen.lost |= Lost::TORN;
            return;
        };
        if process.how != How::Root {
            *self.introduced.entry(process.pid).or_default() += 1;
        }
        if self.own.contains(&entry.process) {
            self.seen.own.push(process.pid);
        } else {
            self.seen.pids.push(process.pid);
        }
        self.note(entry, program);
    }

    fn program(&mut self, entry: &Entry<'a>) {
        let Some((pid, path)) = entry.name.split_first_chunk::<4>() else {
            self.seen.lost |= Lost::TORN;
            return;
        };
        let (pid, origin) = (u32::from_le_bytes(*pid), self.origin(entry));
        if entry.kind == Kind::Program {
            self.started.entry((pid, path)).or_default().push((self.seen.facts.len(), origin));
            self.note(entry, path);
        } else {
            self.started.get_mut(&(pid, path)).and_then(Vec::pop);
            if self.asked.is_some() {
                self.note(entry, path);
            }
        }
    }

    fn finish(mut self) -> Seen {
        let started = self.started.into_iter().flat_map(|((pid, path), starts)| {
            starts.into_iter().map(move |(order, origin)| (order, pid, origin, path.to_vec()))
        });
        let mut started: Vec<_> = started.collect();
        started.sort_unstable_by_key(|(order, ..)| *order);
        for (_, pid, origin, path) in started {
            match self.introduced.get_mut(&pid).filter(|count| **count > 0) {
                Some(count) => *count -= 1,
                None => self.seen.unobserved.push(Unobserved { origin, pid, program: path }),
            }
        }
        self.seen
    }
}

/// A table of origins by the numbers of processes.
fn by_number(origins: &BTreeMap<u16, Origin>) -> Vec<Origin> {
    let last = origins.keys().next_back().map_or(0, |number| usize::from(*number));
    let mut table = vec![UNKNOWN; last + 1];
    for (number, origin) in origins {
        table[usize::from(*number)] = *origin;
    }
    table
}

/// Reads the entries of a log.
pub fn read(bytes: &[u8], lost: Lost, subject: Subject<'_>) -> Seen {
    let processes = Processes::read(bytes, subject);
    let (began, origins) = match subject {
        Subject::Compiler => (processes.compiler().is_some(), processes.origins()),
        Subject::Script(_) => {
            (processes.0.values().any(|p| p.how == How::Root), processes.origins_of_script())
        }
    };
    let asked = matches!(subject, Subject::Script(_)).then(QuickSet::default);
    let own = processes.0.iter().filter(|(_, p)| p.own).map(|(number, _)| *number).collect();
    let origins = by_number(&origins);
    let seen = Seen { lost: lost.0, began, ..Seen::default() };
    let mut reader =
        Reader { seen, origins, started: BTreeMap::new(), introduced: BTreeMap::new(), own, asked };
    for entry in Entries::new(bytes) {
        match entry {
            Ok(entry) => reader.take(&entry),
            Err(lost) => reader.seen.lost |= lost.0,
        }
    }
    reader.finish()
}

#[cfg(test)]
mod tests;
