//! Which of the things that were seen are inputs: a table of rules, the first that applies decides.
//! Pure.
//!
//! What the compiler itself reads is mostly known by other ways (its identity, dep-info, the crates
//! given, the linker's list), and what is seen of it only adds to that. What plugins and the programs
//! that they start ask for is known in no other way: all of it counts, but for what cannot change an
//! output.

use std::collections::{BTreeMap, BTreeSet};

use kiln_observer::log::{Kind, Lost, flags};

use super::seen::{Fact, Origin, Seen};

/// What becomes of a thing that was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// No input.
    Ignore,
    /// What is there: a file's content, a directory, nothing.
    Content,
    /// The names in a directory.
    Names,
    /// Where a symbolic link leads, as it says.
    Link,
    /// The place that a path is in the end.
    Place,
    /// The value of a variable.
    Value,
    /// All variables.
    Environment,
    /// The program that is found, by content.
    Program,
    /// It cannot be told what was read.
    Doubt,
}

/// What the rules know of a unit besides what was seen.
#[derive(Clone, Copy)]
pub struct Around<'a> {
    /// Whether a file belongs to the compiler as it is identified.
    pub covered: &'a dyn Fn(&str) -> bool,
    /// Whether a file is an output of the unit.
    pub output: &'a dyn Fn(&str) -> bool,
    /// Variables that dep-info tells of.
    pub declared: &'a dyn Fn(&str) -> bool,
}

/// One rule.
#[derive(Clone, Copy)]
pub struct Rule {
    /// Its name.
    pub name: &'static str,
    /// Why it holds.
    pub why: &'static str,
    applies: fn(&Fact, &str, &Around<'_>) -> bool,
    /// What follows.
    pub verdict: Verdict,
}

const fn rule(
    name: &'static str,
    verdict: Verdict,
    applies: fn(&Fact, &str, &Around<'_>) -> bool,
    why: &'static str,
) -> Rule {
    Rule { name, why, applies, verdict }
}

/// Variables that the compiler reads and that cannot change what it makes.
const NEUTRAL: &[(&str, &str)] = &[
    ("CI", "whether a crash of LLVM opens a dialogue on Windows"),
    ("CARGO_MAKEFLAGS", "jobserver"),
    ("MAKEFLAGS", "jobserver"),
    ("MFLAGS", "jobserver"),
    ("PATH", "what is found through it is identified itself"),
    ("TMPDIR", "where temporary files go"),
    ("TMP", "where temporary files go"),
    ("TEMP", "where temporary files go"),
    ("MALLOC_CONF", "the allocator"),
    ("RUST_BACKTRACE", "text of a crash"),
    ("RUST_LIB_BACKTRACE", "text of a crash"),
    ("RUSTC_CTFE_BACKTRACE", "text of a crash"),
    ("RUSTC_ICE", "where a crash is written"),
    ("RUST_MIN_STACK", "size of stacks"),
    ("RAYON_NUM_THREADS", "number of threads"),
    ("RAYON_RS_NUM_CPUS", "number of threads"),
    ("RUSTC_LOG_COLOR", "of the log that RUSTC_LOG turns on"),
    ("RUSTC_LOG_ENTRY_EXIT", "of the log that RUSTC_LOG turns on"),
    ("RUSTC_LOG_THREAD_IDS", "of the log that RUSTC_LOG turns on"),
    ("RUSTC_LOG_BACKTRACE", "of the log that RUSTC_LOG turns on"),
    ("RUSTC_LOG_WRAPTREE", "of the log that RUSTC_LOG turns on"),
    ("RUSTC_LOG_LINES", "of the log that RUSTC_LOG turns on"),
    ("RUSTC_LOG_FORMAT_JSON", "of the log that RUSTC_LOG turns on"),
    ("RUSTC_LOG_OUTPUT_TARGET", "of the log that RUSTC_LOG turns on"),
    ("RUSTC_GRAPHVIZ_FONT", "of graphs that -Z options ask for"),
    ("TERM", "colour, which is told by an argument"),
    ("COLORTERM", "colour, which is told by an argument"),
    ("NO_COLOR", "colour, which is told by an argument"),
    ("CLICOLOR", "colour, which is told by an argument"),
    ("CLICOLOR_FORCE", "colour, which is told by an argument"),
    ("COLUMNS", "the width of diagnostics, a member of its own"),
    ("LC_ALL", "the locale, which rustc's messages do not follow"),
    ("LC_MESSAGES", "the locale, which rustc's messages do not follow"),
    ("LANG", "the locale, which rustc's messages do not follow"),
];

/// Variables that carry the jobserver, whoever reads them.
const JOBSERVER: &[&str] = &["CARGO_MAKEFLAGS", "MAKEFLAGS", "MFLAGS"];

/// Files of the kernel that tell of this process and of the machine's size: allocators, thread pools
/// and traces of the stack read them.
const MACHINE: &[&str] = &[
    "/proc/cpuinfo",
    "/proc/filesystems",
    "/proc/meminfo",
    "/proc/mounts",
    "/proc/self/cgroup",
    "/proc/self/exe",
    "/proc/self/maps",
    "/proc/self/mountinfo",
    "/proc/self/stat",
    "/proc/self/statm",
    "/proc/self/status",
    "/proc/stat",
    "/proc/sys/vm/overcommit_memory",
    "/sys/devices/system/cpu",
    "/sys/fs/cgroup",
    "/sys/kernel/mm/transparent_hugepage",
];

/// Devices that hold nothing of their own.
const DEVICES: &[&str] =
    &["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];

fn below(path: &str, place: &str) -> bool {
    path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn by(fact: &Fact, origin: Origin) -> bool {
    fact.origin == origin
}

fn is_tool(fact: &Fact, kind: Kind) -> bool {
    by(fact, Origin::Tool) && fact.kind == kind
}

fn absent(fact: &Fact) -> bool {
    fact.has(flags::ABSENT)
}

/// All rules, in their order.
pub const RULES: &[Rule] = &[
    rule(
        "proxy",
        Verdict::Ignore,
        |f, _, _| by(f, Origin::Proxy),
        "it chose the compiler, which is identified by content",
    ),
    rule(
        "linker",
        Verdict::Ignore,
        |f, _, _| by(f, Origin::Linker),
        "the linker is identified, and lists what it reads",
    ),
    rule(
        "writing",
        Verdict::Ignore,
        |f, _, _| f.kind == Kind::Write,
        "what is written is no input",
    ),
    rule(
        "tool-output",
        Verdict::Ignore,
        |f, p, a| by(f, Origin::Tool) && (a.output)(p),
        "the unit's own output, perhaps of an earlier build",
    ),
    rule(
        "tool-itself",
        Verdict::Ignore,
        |f, p, a| by(f, Origin::Tool) && (a.covered)(p),
        "part of the compiler as it is identified",
    ),
    rule(
        "tool-kernel",
        Verdict::Ignore,
        |f, p, _| by(f, Origin::Tool) && ["/proc", "/sys", "/dev"].iter().any(|d| below(p, d)),
        "the size of the machine and devices; a source in there is in dep-info",
    ),
    rule(
        "tool-began",
        Verdict::Ignore,
        |f, _, _| by(f, Origin::Tool) && (f.kind == Kind::Process || f.has(flags::START)),
        "the compiler is identified by content",
    ),
    rule(
        "tool-starts",
        Verdict::Ignore,
        |f, _, _| is_tool(f, Kind::Program),
        "the linker is identified by content",
    ),
    rule(
        "crate-search",
        Verdict::Ignore,
        |f, _, _| is_tool(f, Kind::List),
        "it looks for crates, and those it may find are members",
    ),
    rule(
        "tool-looks",
        Verdict::Ignore,
        |f, _, _| is_tool(f, Kind::Look) && (!absent(f) || f.has(flags::KEPT)),
        "what it takes from there it reads, and that counts",
    ),
    rule(
        "tool-resolves",
        Verdict::Ignore,
        |f, _, _| is_tool(f, Kind::Resolve) || is_tool(f, Kind::Cwd),
        "places are remapped, and one that is left in an output pins it",
    ),
    rule(
        "tool-neutral-variable",
        Verdict::Ignore,
        |f, p, _| is_tool(f, Kind::Variable) && NEUTRAL.iter().any(|(name, _)| *name == p),
        "cannot change an output",
    ),
    rule(
        "tool-declared-variable",
        Verdict::Ignore,
        |f, p, a| is_tool(f, Kind::Variable) && (a.declared)(p),
        "dep-info tells of it",
    ),
    rule(
        "tool-variable",
        Verdict::Value,
        |f, _, _| is_tool(f, Kind::Variable),
        "the compiler read it without telling",
    ),
    rule(
        "tool-reads",
        Verdict::Content,
        |f, _, _| is_tool(f, Kind::Read) || is_tool(f, Kind::Look) || is_tool(f, Kind::Object),
        "a file, or that there is none",
    ),
    // From here on: plugins and their helpers.
    rule(
        "device",
        Verdict::Ignore,
        |f, p, _| f.kind != Kind::Variable && DEVICES.contains(&p),
        "holds nothing of its own",
    ),
    rule(
        "environ-file",
        Verdict::Environment,
        |f, p, _| f.kind == Kind::Read && below(p, "/proc") && p.ends_with("/environ"),
        "the environment as the kernel shows it",
    ),
    rule(
        "machine",
        Verdict::Ignore,
        |f, p, _| f.kind != Kind::Variable && MACHINE.iter().any(|m| below(p, m)),
        "the size of the machine, and what this process is",
    ),
    rule(
        "jobserver",
        Verdict::Ignore,
        |f, p, _| f.kind == Kind::Variable && JOBSERVER.contains(&p),
        "how many may run at once",
    ),
    rule("variable", Verdict::Value, |f, _, _| f.kind == Kind::Variable, "read by a plugin"),
    rule("listing", Verdict::Names, |f, _, _| f.kind == Kind::List, "names are inputs"),
    rule(
        "link",
        Verdict::Link,
        |f, _, _| f.kind == Kind::Resolve && f.has(flags::LINK),
        "where a link leads is an input",
    ),
    rule(
        "place",
        Verdict::Place,
        |f, _, _| matches!(f.kind, Kind::Resolve | Kind::Cwd),
        "where something lies is an input, and holds only there",
    ),
    rule("program", Verdict::Program, |f, _, _| f.kind == Kind::Program, "a plugin started it"),
    rule(
        "library-by-name",
        Verdict::Doubt,
        |f, p, _| f.kind == Kind::Object && !p.starts_with('/'),
        "where the loader finds it is not told",
    ),
    rule("content", Verdict::Content, |_, _, _| true, "read or looked at by a plugin"),
];

/// What was found to be inputs, with local names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Paths by content, and whether something was there.
    pub content: BTreeMap<String, bool>,
    /// Directories by the names in them.
    pub names: BTreeSet<String>,
    /// Symbolic links.
    pub links: BTreeSet<String>,
    /// Places.
    pub places: BTreeSet<String>,
    /// Variables.
    pub variables: BTreeSet<String>,
    /// Whether all variables count.
    pub environment: bool,
    /// Programs, by path or bare name.
    pub programs: BTreeSet<String>,
    /// Objects that plugins are, or that came with programs they started: their content says what
    /// could not be seen of them.
    pub code: BTreeSet<String>,
    /// What plugins and their helpers wrote.
    pub written: BTreeSet<String>,
    /// What of that was not there before.
    pub made: BTreeSet<String>,
    /// Why it is not known what was read; empty when all of it is known.
    pub doubts: Vec<String>,
    /// Something that cannot be named in an input set.
    pub unnameable: Option<String>,
}

/// Applies the rules.
pub fn apply(seen: &Seen, around: &Around<'_>) -> Found {
    let mut found = Found { doubts: doubts(seen), ..Found::default() };
    let mut written: BTreeSet<&str> = BTreeSet::new();
    for fact in &seen.facts {
        let Ok(name) = std::str::from_utf8(&fact.name) else {
            if counts_unnamed(fact, around) {
                found.unnameable = Some(String::from_utf8_lossy(&fact.name).into_owned());
            }
            continue;
        };
        if fact.kind == Kind::Write {
            let foreign = matches!(fact.origin, Origin::Plugin | Origin::Helper);
            if !(foreign && fact.has(flags::KEPT)) {
                written.insert(name);
            }
            if foreign {
                found.written.insert(name.to_owned());
            }
            if foreign && fact.has(flags::FRESH) {
                found.made.insert(name.to_owned());
            }
        }
        if fact.kind != Kind::Variable && is_written(&written, name) {
            continue;
        }
        let object = matches!(fact.kind, Kind::Object | Kind::Process);
        // A program gets all variables, and one in C may go through them without calling anything.
        found.environment |= fact.origin == Origin::Helper && fact.kind == Kind::Process;
        let foreign = match fact.origin {
            Origin::Tool => fact.kind == Kind::Object && !fact.has(flags::START),
            Origin::Plugin | Origin::Helper => object,
            Origin::Proxy | Origin::Linker => false,
        };
        if foreign && name.starts_with('/') && !(around.covered)(name) {
            found.code.insert(name.to_owned());
        }
        take(&mut found, fact, name, verdict(fact, name, around));
    }
    found
}

/// The verdict of the first rule that applies.
pub fn verdict(fact: &Fact, name: &str, around: &Around<'_>) -> Verdict {
    let first = RULES.iter().find(|rule| (rule.applies)(fact, name, around));
    first.map_or(Verdict::Doubt, |rule| rule.verdict)
}

fn counts_unnamed(fact: &Fact, around: &Around<'_>) -> bool {
    verdict(fact, &String::from_utf8_lossy(&fact.name), around) != Verdict::Ignore
}

/// Whether a path was made by this run itself, or lies in a directory that was.
fn is_written(written: &BTreeSet<&str>, path: &str) -> bool {
    let mut place = path;
    loop {
        if written.contains(place) {
            return true;
        }
        match place.rsplit_once('/') {
            Some((above, _)) if !above.is_empty() => place = above,
            _ => return false,
        }
    }
}

fn take(found: &mut Found, fact: &Fact, name: &str, verdict: Verdict) {
    match verdict {
        Verdict::Ignore => {}
        Verdict::Content => {
            let there = !fact.has(flags::FAILED);
            *found.content.entry(name.to_owned()).or_default() |= there;
            if fact.has(flags::LINK) {
                found.links.insert(name.to_owned());
            }
        }
        Verdict::Names => drop(found.names.insert(name.to_owned())),
        Verdict::Link => drop(found.links.insert(name.to_owned())),
        Verdict::Place => drop(found.places.insert(name.to_owned())),
        Verdict::Value => drop(found.variables.insert(name.to_owned())),
        Verdict::Environment => {
            found.environment = true;
            found.doubts.push(format!("{name} was read"));
        }
        Verdict::Program => drop(found.programs.insert(name.to_owned())),
        Verdict::Doubt => found.doubts.push(format!("{name} cannot be told")),
    }
}

fn doubts(seen: &Seen) -> Vec<String> {
    let mut doubts = Vec::new();
    if !seen.began {
        doubts.push("no compiler was seen to load the observer".to_owned());
    }
    for (bit, why) in [
        (Lost::FULL, "more was read than the log holds"),
        (Lost::PATH, "a path could not be told"),
        (Lost::CHILD, "a program was started in a way that is not followed"),
        (Lost::TORN, "the log is not whole"),
        (Lost::UNSEEN, "something was read by a function of libc that is not followed"),
    ] {
        if seen.lost & bit != 0 {
            doubts.push(why.to_owned());
        }
    }
    for (origin, program) in &seen.unobserved {
        if matches!(origin, Origin::Plugin | Origin::Helper) {
            let program = String::from_utf8_lossy(program);
            doubts.push(format!("{program} was started and cannot be observed"));
        }
    }
    doubts
}
