//! [`Seen`]: what a log tells, with the processes put in order. Pure.
//!
//! A log names processes by number. Here each entry gets an [`Origin`] instead: whether the compiler
//! itself asked, a plugin in it, its linker, or something that a plugin started.

use std::collections::BTreeMap;

use kiln_observer::log::{Entries, Entry, How, Kind, Lost, Process, flags};

/// Whose doing an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// A program that stood in for the compiler and became it: a proxy that chooses a toolchain.
    Proxy,
    /// The compiler's own code.
    Tool,
    /// Code that the compiler loaded: procedural macros.
    Plugin,
    /// A program that the compiler's own code started: the linker, and what that starts.
    Linker,
    /// A program that a plugin started, and what that starts.
    Helper,
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

/// What was seen of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// What was asked for, in order.
    pub facts: Vec<Fact>,
    /// Programs that were started and not observed, with who started them.
    pub unobserved: Vec<(Origin, Vec<u8>)>,
    /// What was lost: bits of [`Lost`].
    pub lost: u32,
    /// Whether the first process was observed at all.
    pub began: bool,
}

/// A process, while the log is read.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// Origin of what its own code does; a plugin is only known in the compiler itself.
    origin: Origin,
}

/// The origin of a process that another began.
fn born(parent: Option<Known>, how: How) -> Origin {
    let parent = parent.map_or(Origin::Tool, |known| known.origin);
    match (how, parent) {
        (How::Root, _) => Origin::Tool,
        (How::Became, parent) => parent,
        (_, Origin::Helper) | (How::ChildOfLater, Origin::Tool | Origin::Proxy) => Origin::Helper,
        (How::Child | How::ChildOfLater, _) => Origin::Linker,
    }
}

fn origin(entry: &Entry<'_>, known: Option<Known>) -> Origin {
    // A process that never introduced itself: what it does is taken for a plugin's, which counts most.
    match known.map_or(Origin::Helper, |known| known.origin) {
        Origin::Tool if entry.has(flags::LATER) => Origin::Plugin,
        origin => origin,
    }
}

/// Reads the entries of a log.
pub fn read(bytes: &[u8], lost: Lost) -> Seen {
    let mut seen = Seen { lost: lost.0, ..Seen::default() };
    let mut processes: BTreeMap<u16, Known> = BTreeMap::new();
    let mut replaced = Vec::new();
    // Per process number of the system: started and not failed, less those that introduced themselves.
    let mut started: Vec<(u32, Origin, Vec<u8>)> = Vec::new();
    let mut introduced: BTreeMap<u32, usize> = BTreeMap::new();
    let mut by_process = Vec::new();
    for entry in Entries::new(bytes) {
        let entry = match entry {
            Ok(entry) => entry,
            Err(lost) => {
                seen.lost |= lost.0;
                break;
            }
        };
        match entry.kind {
            Kind::Process => {
                let Some((process, program)) = Process::decode(entry.name) else {
                    seen.lost |= Lost::TORN;
                    continue;
                };
                let parent = processes.get(&process.parent).copied();
                let origin = born(parent, process.how);
                processes.insert(entry.process, Known { origin });
                match process.how {
                    How::Root => seen.began = true,
                    _ => *introduced.entry(process.pid).or_default() += 1,
                }
                if process.how == How::Became && origin == Origin::Tool {
                    replaced.push(process.parent);
                }
                let name = program.to_vec();
                by_process.push((entry.process, Fact { origin, kind: entry.kind, flags: 0, name }));
            }
            Kind::Program | Kind::ProgramFailed => {
                let Some((pid, path)) = entry.name.split_first_chunk::<4>() else {
                    seen.lost |= Lost::TORN;
                    continue;
                };
                let pid = u32::from_le_bytes(*pid);
                let origin = origin(&entry, processes.get(&entry.process).copied());
                if entry.kind == Kind::Program {
                    started.push((pid, origin, path.to_vec()));
                    let name = path.to_vec();
                    let fact = Fact { origin, kind: Kind::Program, flags: 0, name };
                    by_process.push((entry.process, fact));
                } else if let Some(at) =
                    started.iter().rposition(|(p, _, n)| *p == pid && n == path)
                {
                    started.remove(at);
                }
            }
            _ => {
                let fact = Fact {
                    origin: origin(&entry, processes.get(&entry.process).copied()),
                    kind: entry.kind,
                    flags: entry.flags & !flags::LATER,
                    name: entry.name.to_vec(),
                };
                by_process.push((entry.process, fact));
            }
        }
    }
    for (process, mut fact) in by_process {
        if replaced.contains(&process) && fact.origin == Origin::Tool {
            fact.origin = Origin::Proxy;
        }
        seen.facts.push(fact);
    }
    for (pid, origin, path) in started {
        match introduced.get_mut(&pid).filter(|count| **count > 0) {
            Some(count) => *count -= 1,
            None => seen.unobserved.push((origin, path)),
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_observer::log::{ENTRY_BYTES, padded};

    /// Entries as the library writes them.
    #[derive(Default)]
    struct Script(Vec<u8>);

    impl Script {
        fn add(mut self, process: u16, kind: Kind, flags: u8, name: &[u8]) -> Self {
            let len = ENTRY_BYTES + name.len();
            self.0.extend(u32::try_from(len).unwrap().to_le_bytes());
            self.0.extend(process.to_le_bytes());
            self.0.extend([kind as u8, flags]);
            self.0.extend(name);
            self.0.resize(padded(self.0.len()), 0);
            self
        }

        fn process(self, number: u16, parent: u16, how: How, pid: u32) -> Self {
            let mut name = Process { parent, how, pid }.encode().to_vec();
            name.extend(b"/bin/x");
            self.add(number, Kind::Process, 0, &name)
        }

        fn program(self, process: u16, kind: Kind, flags: u8, pid: u32, path: &str) -> Self {
            let mut name = pid.to_le_bytes().to_vec();
            name.extend(path.as_bytes());
            self.add(process, kind, flags, &name)
        }

        fn read(self) -> Seen {
            super::read(&self.0, Lost(0))
        }
    }

    fn origins(seen: &Seen) -> Vec<Origin> {
        seen.facts.iter().filter(|f| f.kind == Kind::Read).map(|f| f.origin).collect()
    }

    #[test]
    fn origins_follow_from_who_started_whom() {
        let seen = Script::default()
            .process(1, 0, How::Root, 10)
            .add(1, Kind::Read, 0, b"/tool")
            .add(1, Kind::Read, flags::LATER, b"/plugin")
            .program(1, Kind::Program, 0, 11, "cc")
            .process(2, 1, How::Child, 11)
            .add(2, Kind::Read, flags::LATER, b"/linker's plugin")
            .process(3, 1, How::ChildOfLater, 12)
            .add(3, Kind::Read, 0, b"/helper")
            .process(4, 3, How::Child, 13)
            .add(4, Kind::Read, 0, b"/helper's child")
            .read();
        use Origin::{Helper, Linker, Plugin, Tool};
        assert_eq!(origins(&seen), [Tool, Plugin, Linker, Helper, Helper]);
        assert!(seen.began && seen.unobserved.is_empty() && seen.lost == 0);
    }

    #[test]
    fn a_proxy_that_becomes_the_compiler_is_not_it() {
        let seen = Script::default()
            .process(1, 0, How::Root, 10)
            .add(1, Kind::Read, 0, b"/settings of the proxy")
            .program(1, Kind::Program, 0, 10, "/toolchain/rustc")
            .process(2, 1, How::Became, 10)
            .add(2, Kind::Read, 0, b"/source")
            .add(2, Kind::Read, flags::LATER, b"/macro's")
            .read();
        assert_eq!(origins(&seen), [Origin::Proxy, Origin::Tool, Origin::Plugin]);
        assert_eq!(seen.unobserved, []);
    }

    #[test]
    fn programs_that_do_not_introduce_themselves_are_told() {
        let seen = Script::default()
            .process(1, 0, How::Root, 10)
            .program(1, Kind::Program, flags::LATER, 11, "/static")
            .program(1, Kind::Program, flags::LATER, 12, "/absent")
            .program(1, Kind::ProgramFailed, flags::LATER, 12, "/absent")
            .program(1, Kind::Program, flags::LATER, 13, "/seen")
            .process(2, 1, How::ChildOfLater, 13)
            .read();
        assert_eq!(seen.unobserved, [(Origin::Plugin, b"/static".to_vec())]);
    }

    #[test]
    fn what_is_torn_and_who_is_unknown_counts() {
        let mut script = Script::default().add(9, Kind::Read, 0, b"/by nobody");
        script.0.extend([1, 2, 3]);
        let seen = script.read();
        assert_eq!(origins(&seen), [Origin::Helper]);
        assert_eq!(seen.lost, Lost::TORN);
        assert!(!seen.began);
    }
}
