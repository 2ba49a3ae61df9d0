//! Tests of reading logs: made-up ones, entry by entry.

use super::*;
use kiln_observer::log::{ENTRY_BYTES, padded};
use proptest::prelude::*;

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

    fn compiler(self, number: u16, parent: u16, how: How, pid: u32) -> Self {
        let driver = b"/toolchain/lib/librustc_driver-0123.so";
        self.process(number, parent, how, pid).add(number, Kind::Object, flags::START, driver)
    }

    /// A program that code of a plugin starts.
    fn starts(self, pid: u32, path: &str) -> Self {
        self.program(1, (Kind::Program, flags::LATER), pid, path)
    }

    fn program(self, process: u16, what: (Kind, u8), pid: u32, path: &str) -> Self {
        let mut name = pid.to_le_bytes().to_vec();
        name.extend(path.as_bytes());
        self.add(process, what.0, what.1, &name)
    }

    fn read(self) -> Seen {
        super::read(&self.0, Lost(0), Subject::Compiler)
    }
}

fn origins(seen: &Seen) -> Vec<Origin> {
    seen.facts.iter().filter(|f| f.kind == Kind::Read).map(|f| f.origin).collect()
}

fn unobserved(origin: Origin, pid: u32, program: &str) -> Unobserved {
    Unobserved { origin, pid, program: program.into() }
}

#[test]
fn origins_follow_from_who_started_whom() {
    let seen = Script::default()
        .compiler(1, 0, How::Root, 10)
        .add(1, Kind::Read, 0, b"/tool")
        .add(1, Kind::Read, flags::LATER, b"/plugin")
        .program(1, (Kind::Program, 0), 11, "cc")
        .process(2, 1, How::Child, 11)
        .add(2, Kind::Read, flags::LATER, b"/linker's plugin")
        .process(3, 1, How::ChildOfLater, 12)
        .add(3, Kind::Read, 0, b"/helper")
        .process(4, 3, How::Child, 13)
        .add(4, Kind::Read, 0, b"/helper's child")
        .compiler(5, 3, How::Child, 14)
        .add(5, Kind::Read, 0, b"/compiler that a macro starts")
        .read();
    use Origin::{Helper, Linker, Plugin, Tool};
    assert_eq!(origins(&seen), [Tool, Plugin, Linker, Helper, Helper, Helper]);
    assert!(seen.began && seen.unobserved.is_empty() && seen.lost == 0);
}

#[test]
fn kiln_in_a_build_script_tells_itself_what_it_read() {
    let kiln = |script: Script, number, parent, pid| {
        let mut name = Process { parent, how: How::Child, pid }.encode().to_vec();
        name.extend(b"/bin/kiln");
        script.add(number, Kind::Process, 0, &name)
    };
    let script = Script::default()
        .process(1, 0, How::Root, 10)
        .add(1, Kind::Read, flags::LATER, b"/the script's")
        .process(2, 1, How::Child, 11)
        .add(2, Kind::Read, 0, b"/a tool's");
    let script = kiln(kiln(script, 3, 1, 12), 4, 1, 13)
        .add(3, Kind::Read, 0, b"/kiln's")
        .program(3, (Kind::Program, 0), 14, "/rustc, observed by itself")
        .process(5, 4, How::Became, 13)
        .add(5, Kind::Read, 0, b"/a compiler's")
        .process(6, 3, How::Child, 15)
        .add(6, Kind::Read, 0, b"/a server's");
    let seen = super::read(&script.0, Lost(0), Subject::Script(b"/bin/kiln"));
    use Origin::{Helper, Own, Plugin};
    assert_eq!(origins(&seen), [Plugin, Helper, Own, Helper, Own]);
    assert_eq!(seen.unobserved, [unobserved(Own, 14, "/rustc, observed by itself")]);
    assert_eq!((seen.own, seen.began), (vec![12, 13], true));
}

#[test]
fn a_linker_that_is_a_script_may_read_anything() {
    let mut shell = Process { parent: 1, how: How::Child, pid: 11 }.encode().to_vec();
    shell.extend(b"/usr/bin/python3.11");
    let seen = Script::default()
        .compiler(1, 0, How::Root, 10)
        .add(2, Kind::Process, 0, &shell)
        .add(2, Kind::Read, 0, b"/script")
        .process(3, 2, How::Became, 11)
        .add(3, Kind::Read, 0, b"/the linker behind it")
        .read();
    assert_eq!(origins(&seen), [Origin::Script, Origin::Script]);
    for (name, runs_scripts) in [
        ("/bin/sh", true),
        ("python3", true),
        ("lua5.4", true),
        ("/bin/shred", false),
        ("ld", false),
    ] {
        assert_eq!(is_interpreter(name.as_bytes()), runs_scripts, "{name}");
    }
}

#[test]
fn a_proxy_is_not_the_compiler_whether_it_becomes_or_starts_it() {
    for (how, pid) in [(How::Became, 10), (How::Child, 11)] {
        let seen = Script::default()
            .process(1, 0, How::Root, 10)
            .add(1, Kind::Read, 0, b"/settings of the proxy")
            .program(1, (Kind::Program, 0), pid, "/toolchain/rustc")
            .compiler(2, 1, how, pid)
            .add(2, Kind::Read, 0, b"/source")
            .add(2, Kind::Read, flags::LATER, b"/macro's")
            .process(3, 2, How::Child, 12)
            .add(3, Kind::Read, 0, b"/linker's")
            .read();
        use Origin::{Linker, Plugin, Proxy, Tool};
        assert_eq!(origins(&seen), [Proxy, Tool, Plugin, Linker]);
        assert_eq!(seen.unobserved, []);
    }
}

#[test]
fn programs_that_do_not_introduce_themselves_are_told() {
    let seen = Script::default()
        .compiler(1, 0, How::Root, 10)
        .starts(11, "/static")
        .starts(12, "/absent")
        .program(1, (Kind::ProgramFailed, flags::LATER), 12, "/absent")
        .starts(13, "/seen")
        .process(2, 1, How::ChildOfLater, 13)
        .read();
    assert_eq!(seen.unobserved, [unobserved(Origin::Plugin, 11, "/static")]);
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

/// As many entries as a log can hold, of the sorts that are held against each other: were each
/// of them compared with all others, this would not end.
#[test]
fn full_logs_are_read_in_time() {
    let mut script = Script::default();
    for number in 1..=u16::MAX {
        script = script.process(number, number - 1, How::Child, u32::from(number));
    }
    script = script.compiler(u16::MAX, u16::MAX - 1, How::Child, 1);
    for (kind, pid) in [(Kind::Program, 0), (Kind::ProgramFailed, 1)]
        .into_iter()
        .flat_map(|(kind, from)| (0..150_000).map(move |n| (kind, from + n)))
    {
        script = script.program(1, (kind, 0), pid, "/x");
    }
    let seen = script.read();
    // The last start failed at a process of another number, and so did the first failure.
    assert_eq!(seen.unobserved.len(), 1);
    assert_eq!(seen.facts.len(), usize::from(u16::MAX) + 2 + 150_000);
}

proptest! {
    /// Whatever is in a log, it can be read, and each entry becomes one fact at most.
    #[test]
    fn any_bytes_can_be_read(
        entries in prop::collection::vec(
            (0..6_u16, 0..14_u8, any::<u8>(), prop::collection::vec(0..4_u8, 0..14)),
            0..60,
        ),
        tail in prop::collection::vec(any::<u8>(), 0..12),
        lost in any::<u32>(),
    ) {
        let mut script = Script::default();
        for (process, kind, flags, name) in &entries {
            let at = script.0.len();
            script = script.add(*process, Kind::Read, *flags, name);
            script.0[at + 6] = *kind;
        }
        script.0.extend(&tail);
        let seen = super::read(&script.0, Lost(lost), Subject::Compiler);
        prop_assert!(seen.facts.len() + seen.unobserved.len() <= 2 * (entries.len() + 1));
        prop_assert_eq!(seen.lost & lost, lost);
    }
}
