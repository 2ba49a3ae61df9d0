//! Which of the things that were seen are inputs: a table of rules, the first that applies decides.
//! Pure.
//!
//! What the compiler itself reads is mostly known by other ways (its identity, dep-info, the crates
//! given, the linker's list), and what is seen of it only adds to that. What plugins and the programs
//! that they start ask for is known in no other way: all of it counts, but for what cannot change an
//! output. (Of a build script's run everything counts: see [`crate::script::inputs`], which takes from
//! here only what holds nothing of its own.)

use kiln_observer::log::{Kind, flags};

use super::seen::{Fact, Origin};
use crate::env::Env;

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

impl Verdict {
    /// In words.
    fn words(self) -> &'static str {
        match self {
            Self::Ignore => "no input",
            Self::Content => "what is there: content, a directory, nothing",
            Self::Names => "the names in it",
            Self::Link => "where the link leads",
            Self::Place => "the real place; the result holds only there",
            Self::Value => "the value",
            Self::Environment => "all variables, and the conservative way",
            Self::Program => "the program that is found, by content",
            Self::Doubt => "the conservative way",
        }
    }
}

/// What the rules know of a unit besides what was seen.
#[derive(Clone, Copy)]
pub struct Around<'a> {
    /// Whether a file belongs to the compiler as it is identified.
    pub covered: &'a dyn Fn(&str) -> bool,
    /// Whether a file is an output of the unit.
    pub output: &'a dyn Fn(&str) -> bool,
    /// Variables that are members already: dep-info tells of them, or the table of silent ones.
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
pub const JOBSERVER: &[&str] = &["CARGO_MAKEFLAGS", "MAKEFLAGS", "MFLAGS"];

/// The file of the kernel that tells of the processor. A build script that reads it makes code for it.
pub const PROCESSOR: &str = "/proc/cpuinfo";

/// Files of the kernel that tell of this process and of the machine's size: allocators, thread pools
/// and traces of the stack read them.
const MACHINE: &[&str] = &[
    PROCESSOR,
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

/// Whether a variable carries the jobserver.
pub fn carries_jobserver(name: &str) -> bool {
    JOBSERVER.contains(&name)
}

/// Whether a path is the jobserver's, as the environment tells it: descriptors of a pipe, or a named one.
pub fn is_jobserver(env: &Env, path: &str) -> bool {
    let flags = JOBSERVER.iter().filter_map(|name| env.text(name));
    let given = flags.flat_map(str::split_whitespace).filter_map(|word| {
        word.strip_prefix("--jobserver-auth=").or_else(|| word.strip_prefix("--jobserver-fds="))
    });
    given.into_iter().any(|given| match given.strip_prefix("fifo:") {
        Some(fifo) => fifo == path,
        None => path.strip_prefix("/dev/fd/").is_some_and(|fd| given.split(',').any(|n| n == fd)),
    })
}

/// Whether what was asked for holds nothing of its own: a device, what is open already, or what the kernel
/// tells of this process and the size of the machine.
pub fn tells_nothing(name: &str) -> bool {
    let descriptor = |place: &str| {
        let number = name.strip_prefix(place).unwrap_or_default();
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    DEVICES.contains(&name)
        || ["/dev/stdin", "/dev/stdout", "/dev/stderr", "/dev/fd", "/proc/self/fd"].contains(&name)
        || ["/dev/fd/", "/proc/self/fd/"].into_iter().any(descriptor)
        || MACHINE.iter().any(|place| below(name, place))
}

/// Whether a path leads through what only the process that asked has: its directory, its root, what it has
/// open.
pub fn is_of_other_process(name: &str) -> bool {
    let process = name.strip_prefix("/proc/").and_then(|rest| rest.split_once('/'));
    let own = ["cwd", "root", "fd", "task", "map_files"];
    let through = |rest: &str| own.iter().any(|own| rest == *own || below(rest, own));
    process.is_some_and(|(_, rest)| through(rest) && !tells_nothing(name))
        || (below(name, "/dev/fd") && !tells_nothing(name))
}

/// Whether it is the environment as the kernel shows it.
pub fn is_environ_file(fact: &Fact, name: &str) -> bool {
    fact.kind == Kind::Read && below(name, "/proc") && name.ends_with("/environ")
}

fn below(path: &str, place: &str) -> bool {
    path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether a path is one that tells of this process and the machine's size, or a device that holds
/// nothing.
pub fn is_of_machine(path: &str) -> bool {
    DEVICES.contains(&path) || MACHINE.iter().any(|place| below(path, place))
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
        "script-output",
        Verdict::Ignore,
        |f, p, a| by(f, Origin::Script) && ((a.output)(p) || (a.covered)(p)),
        "the unit's own output, and what is part of the compiler",
    ),
    rule(
        "script-variable",
        Verdict::Ignore,
        |f, _, _| {
            by(f, Origin::Script)
                && matches!(f.kind, Kind::Variable | Kind::Cwd | Kind::Resolve | Kind::Object)
        },
        "where the linker is a script, all variables that last are members",
    ),
    rule(
        "writing",
        Verdict::Ignore,
        |f, _, _| f.kind == Kind::Write,
        "what is written is no input",
    ),
    rule(
        "network",
        Verdict::Ignore,
        |f, _, _| f.kind == Kind::Network,
        "what comes from there is no input of a compile",
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
        "a member already",
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
        |f, p, _| is_environ_file(f, p),
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
        |f, p, _| f.kind == Kind::Variable && carries_jobserver(p),
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

/// The first rule that applies. The last one always does.
pub fn first(fact: &Fact, name: &str, around: &Around<'_>) -> Option<&'static Rule> {
    RULES.iter().find(|rule| (rule.applies)(fact, name, around))
}

/// What becomes of a fact.
pub fn verdict(fact: &Fact, name: &str, around: &Around<'_>) -> Verdict {
    first(fact, name, around).map_or(Verdict::Doubt, |rule| rule.verdict)
}

/// The page of the documentation that this table is.
pub fn page() -> String {
    let mut page = String::from(PAGE_HEAD);
    for rule in RULES {
        page.push_str(&format!("| `{}` | {} | {} |\n", rule.name, rule.verdict.words(), rule.why));
    }
    page.push_str("\n## Variables that rustc reads and that cannot change an output\n\n");
    page.push_str("| variable | what it is |\n| --- | --- |\n");
    for (name, what) in NEUTRAL {
        page.push_str(&format!("| `{name}` | {what} |\n"));
    }
    page.push_str("\n## Variables of a session or a run of CI\n\n");
    page.push_str(
        "They count when a macro or a build script is seen to read them. They do not in the \
         conservative way, nor for a shell, `make` and the like in a build script, of which nobody \
         sees what they read. ",
    );
    page.push_str("One that ends with `_` stands for all that begin so.\n\n");
    let names: Vec<String> =
        crate::silent::OF_SESSION.iter().map(|name| format!("`{name}`")).collect();
    page.push_str(&names.join(" "));
    page.push('\n');
    page
}

const PAGE_HEAD: &str = "# Observed inputs

Generated from `rustc-wrapper/src/observe/rules.rs`; `kiln doc inputs` prints it.

On Linux the compiler runs with a small library preloaded that notes what it, the procedural macros in it
and the programs they start ask the C library for: files opened and looked at, absent ones too, directories
listed, links followed, variables read, programs started. After the compile these rules say what of it is
an input; the first that applies decides. A *plugin* is code that the compiler loaded, such as a
procedural macro; a *helper* is a program that a plugin started, and whatever that starts; a *script* is
one that stands in for the linker, with all that it starts.

Never an input: the clock, randomness, the network, the times, owners and extended attributes of a file,
the name and the size of the machine, the compiler's own arguments as `std::env::args` shows them to a
macro.

Where a macro reads a file below a root (workspace, home, …) the result holds only where that root lies:
nobody knows where the macro had the path from. Where a macro starts a program, all variables count, since
a program may go through them without asking; so results differ between runs of CI whose variables differ.
They do not for programs of Rust whose code shows that they do not, and for some that are known: gcc and
binutils, LLVM, pkg-config, git, cmake, ninja, plain tools of the system, rustc and rustup.

What a preloaded library cannot see is known beforehand, by the content of what was loaded: code that
makes system calls without the C library (the crate `rustix` does), static programs, functions of the C
library that open files inside. A unit with such a macro is handled the conservative way, as all units are
with `KILN_OBSERVE=off` and where there is no observation: the whole workspace counts (for a package
outside of it the package), `OUT_DIR`, and, where it is not seen which variables are read, all of them but
those of a session or a run of CI (below). That costs misses. And it does not see what a macro reads outside
of the workspace, in `.git`, or in a directory marked with `CACHEDIR.TAG`. `kiln doctor` says whether
observation works here, `kiln stats` which units of the last build were handled the conservative way and
why.

Not seen by either way, and known: a program other than a script or a rustup proxy that stands in for the
compiler and reads a file of its own; a shared library that appears earlier in the loader's search for a
program that a macro starts; files that libc reads by functions such as `setmntent`; calls that a macro
makes by an address it looked up in libc itself; the length of a remapped path (`Span::file`). `kiln
verify` finds results that went stale by such a way.

A macro that writes files which stay is not stored, since a hit would not write them.

These are the rules of compiles. Of a run of a build script all counts that it and its helpers ask for, but
for what it made itself and what is in `OUT_DIR`; where that cannot be seen, the run is not stored, and there is
no conservative way. [build-scripts.md](build-scripts.md) says more.

| rule | what becomes of it | why |
| --- | --- | --- |
";

#[cfg(test)]
mod tests;
