//! Every reason for a miss, a bypass or an error, with what to change: a table. The wrapper gives the reasons and makes
//! `docs/reasons.md` of it; reports and pages of the server say what they mean.

/// One reason.
#[derive(Debug, Clone, Copy)]
pub struct Reason {
    /// The word in figures and events.
    pub word: &'static str,
    /// Which outcome it explains.
    pub outcome: &'static str,
    /// What it means, and what to change.
    pub note: &'static str,
    /// Which command says more of it; empty: none.
    hint: &'static str,
    /// Of a result that is not stored: whether that is of one machine, or of one moment, and not of the unit.
    passing: bool,
}

const fn row(word: &'static str, outcome: &'static str, note: &'static str) -> Reason {
    Reason { word, outcome, note, hint: "", passing: false }
}

impl Reason {
    const fn hint(self, hint: &'static str) -> Self {
        Self { hint, ..self }
    }

    const fn passing(self) -> Self {
        Self { passing: true, ..self }
    }

    /// What it means, what to change, and which command says more.
    pub fn whole(&self) -> String {
        match self.hint {
            "" => self.note.to_owned(),
            hint => format!("{}; {hint}", self.note),
        }
    }
}

/// All reasons.
pub const REASONS: &[Reason] = &[
    row("new-unit", "miss", "nothing is stored for this crate with these arguments")
        .hint("kiln explain says which differ"),
    row("input-changed", "miss", "something that the compile, or the build script, reads differs")
        .hint("kiln explain names it"),
    row(
        "compile-failed",
        "miss",
        "the compiler refused the crate, or could not do its work; of failures only those are stored with which it answers a build script",
    ),
    row(
        "failure-not-observed",
        "miss",
        "a source that a build script tried out was refused, and what the compiler read for that is not known; not stored",
    ),
    row(
        "failure-left-output",
        "miss",
        "a source that a build script tried out was refused, and some output was left; not stored",
    ),
    row(
        "remote-slow",
        "miss",
        "the result is stored afar, and did not come in less time than the compile takes; see remote.md",
    ),
    row(
        "remote-failed",
        "miss",
        "the result is stored afar and could not be brought: the place does not answer, or the result is gone or damaged there; server.log says which",
    ),
    row(
        "wait-abandoned",
        "miss",
        "another job compiled it, and this one stopped waiting: it took too long, failed, or what it made does not hold here; see leases.md",
    ),
    row("refresh", "miss", "KILN_MODE=refresh compiles everything"),
    row("damaged", "miss", "what was stored was damaged; it is replaced"),
    row(
        "odd-output",
        "miss",
        "control characters that cannot be stored were printed, or a name in OUT_DIR is none that can be put back; not stored",
    ),
    row("long-output", "miss", "more was printed than is kept (2 MiB), or not UTF-8; not stored"),
    row("missing-output", "miss", "an output that was expected is not there; not stored"),
    row("unreadable-output", "miss", "an output cannot be read; not stored").passing(),
    row("no-dep-info", "miss", "the compiler left no dep-info; not stored"),
    row(
        "assembler-include",
        "miss",
        "assembly in the source includes a file (.incbin, .include), which the compiler does not tell; not stored",
    ),
    row("no-linker-list", "miss", "the linker left no list of what it read; not stored"),
    row("unreadable-crate", "miss", "a crate given by --extern cannot be read; not stored"),
    row(
        "unknown-input",
        "miss",
        "an input cannot be evaluated, e.g. a package of too many files, or has a name that is not UTF-8; not stored",
    ),
    row(
        "macro-writes",
        "miss",
        "a procedural macro wrote a file, which a hit would not write; not stored",
    ),
    row(
        "special-file",
        "miss",
        "a source, or something in OUT_DIR, is a pipe, socket or device; not stored",
    ),
    row("script-failed", "miss", "the build script failed; only runs that succeed are stored"),
    row(
        "not-observed",
        "miss",
        "not all that the build script read is known (static programs, system calls past libc, a compile in it that was not stored, KILN_OBSERVE=off); the script runs each time",
    ),
    row(
        "writes-outside",
        "miss",
        "the build script changed something elsewhere than in OUT_DIR and temporary directories, which a hit would not do; let it write to OUT_DIR",
    ),
    row(
        "network",
        "miss",
        "the build script used the network, or a socket of this machine; not stored",
    ),
    row(
        "large-output",
        "miss",
        "the build script left more than 10,000 files in OUT_DIR; not stored",
    ),
    row(
        "input-vanished",
        "miss",
        "a file that the linker, or the build script, read is gone; not stored",
    )
    .passing(),
    row(
        "input-changed-meanwhile",
        "miss",
        "a file changed while the compiler, or the build script, ran; not stored",
    )
    .passing(),
    row(
        "no-file-time",
        "miss",
        "KILN_DIR takes no files, or its file times do not move; not stored",
    )
    .passing(),
    row("publish-failed", "miss", "the server did not take the result; see kiln doctor").passing(),
    row(
        "verified",
        "miss",
        "a hit that was compiled all the same (KILN_VERIFY): what is stored is what the compiler makes",
    ),
    row(
        "not-reproducible",
        "miss",
        "a hit that was checked: two fresh compiles differ from each other; what is stored stays",
    ),
    row(
        "verify-differs",
        "miss",
        "a hit that was checked and is wrong: two fresh compiles agree and differ from what is stored; quarantined, please report it",
    ),
    row(
        "not-verified",
        "miss",
        "a hit that was to be checked was compiled and could not be compared; the event says why",
    ),
    row(
        "quarantined",
        "miss",
        "a result of this key proved wrong; none is stored until it is released (kiln verify --quarantined)",
    ),
    row(
        "incremental",
        "bypass",
        "incremental compilation is on; set CARGO_INCREMENTAL=0 (kiln env prints it)",
    ),
    row(
        "stdin-source",
        "bypass",
        "the source comes from standard input and is longer than is kept, or typed at a terminal",
    ),
    row(
        "output-file",
        "bypass",
        "-o with another output than the linked file or metadata, with several, or to standard output",
    ),
    row("emit-to-file", "bypass", "--emit=KIND=FILE"),
    row("save-temps", "bypass", "-C save-temps leaves files with unpredictable names"),
    row("print", "bypass", "--print together with a compile"),
    row(
        "unsupported-flag",
        "bypass",
        "a flag whose effects are not stored; see docs/rustc-flags.md",
    ),
    row("unknown-flag", "bypass", "a flag that is not known and names a file"),
    row("unknown-emit", "bypass", "a kind of output that is not known"),
    row("unknown-crate-type", "bypass", "a crate type that is not known"),
    row("malformed-arguments", "bypass", "arguments that the compiler will refuse"),
    row("argument-file", "bypass", "an @file that cannot be read"),
    row("non-utf8-argument", "bypass", "an argument that is not UTF-8"),
    row("non-utf8-path", "bypass", "a path that is not UTF-8"),
    row("no-working-directory", "bypass", "the working directory is gone"),
    row(
        "not-from-cargo",
        "bypass",
        "a build script that was not started by cargo: OUT_DIR or CARGO_MANIFEST_DIR is not set",
    ),
    row(
        "odd-out-dir",
        "bypass",
        "OUT_DIR is right below the top of the file system, or the package itself",
    ),
    row("no-tool", "bypass", "no program to run"),
    row("unknown-tool", "bypass", "the program is no rustc, or its files cannot be read"),
    row(
        "unknown-processor",
        "bypass",
        "target-cpu=native on a machine that does not tell its processor",
    ),
    row(
        "script-as-compiler",
        "bypass",
        "the compiler is a script, which may do anything; name the compiler itself",
    ),
    row("unknown-wrapper", "bypass", "another wrapper stands between Kiln and rustc"),
    row(
        "no-scratch",
        "bypass",
        "neither the state directory nor a directory for temporary files has room for the linker's list",
    ),
    row(
        "linker-untraceable",
        "bypass",
        "the linker cannot list what it reads (GNU ld 2.35, lld or mold can)",
    ),
    row("server-absent", "error", "no server can be reached or started; see kiln doctor"),
    row(
        "over-limit",
        "error",
        "this job, or its token, has asked the server for more than it may in this time; its administrator can raise that (docs/trust.md)",
    ),
    row("lookup-failed", "error", "the server did not answer in time or not as it should"),
    row(
        "server-left-alone",
        "error",
        "after repeated faults the server is not asked for five minutes (kiln server start asks at once)",
    ),
    row("restore-failed", "error", "the target directory does not take the files"),
];

/// What a reason means.
pub fn note(word: &str) -> Option<&'static str> {
    REASONS.iter().find(|r| r.word == word).map(|r| r.note)
}

/// The same, with the command that says more of it where there is one.
pub fn note_with_hint(word: &str) -> Option<String> {
    REASONS.iter().find(|r| r.word == word).map(Reason::whole)
}

/// Whether a result was not stored for what is of one machine, or of one moment: the next compile of the unit may be
/// stored.
pub fn is_passing(word: &str) -> bool {
    REASONS.iter().any(|reason| reason.word == word && reason.passing)
}
