//! The table of rustc's arguments: one row per flag, saying what it means for a cached unit.
//!
//! `docs/rustc-flags.md` is generated from it. A flag that is not here is identity when it is one
//! word that names no file, else the unit is a bypass.

/// What a flag means for a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Part of the unit key, in its order, with roots in paths as tokens.
    Identity,
    /// Part of the unit key as a member of a set: its order does not matter.
    IdentitySet,
    /// Part of the unit key, and names a file whose content is an input.
    PathRead,
    /// Says where outputs go; the names are part of the unit key, the place is not.
    Output,
    /// Says how diagnostics are shown; see the row.
    Diagnostics,
    /// Cannot change an output.
    Neutral,
    /// A unit with it is handed to the tool without caching.
    Unsupported,
    /// The run asks for information and is no unit.
    Probe,
}

impl Role {
    /// The word in the generated page.
    pub fn word(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::IdentitySet => "identity (set)",
            Self::PathRead => "file to read",
            Self::Output => "output place",
            Self::Diagnostics => "diagnostics",
            Self::Neutral => "neutral",
            Self::Unsupported => "bypass",
            Self::Probe => "no unit",
        }
    }
}

/// Whether a flag takes a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// It stands alone.
    Nothing,
    /// `--flag value`, `--flag=value`; for one-letter flags `-Fvalue` too.
    Value,
}

/// One row: a flag (or a `-C` or `-Z` option) and what it means.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The flag, or the option's name.
    pub name: &'static str,
    /// Whether a value follows.
    pub takes: Takes,
    /// What it means.
    pub role: Role,
    /// Why.
    pub note: &'static str,
}

const fn row(name: &'static str, takes: Takes, role: Role, note: &'static str) -> Row {
    Row { name, takes, role, note }
}

use Role::{Diagnostics, Identity, IdentitySet, Neutral, Output, PathRead, Probe, Unsupported};
use Takes::{Nothing, Value};

/// Flags of rustc itself.
pub const FLAGS: &[Row] = &[
    row("--crate-name", Value, Identity, ""),
    row("--crate-type", Value, Identity, "decides which outputs there are"),
    row("--edition", Value, Identity, ""),
    row("--cfg", Value, IdentitySet, ""),
    row("--check-cfg", Value, IdentitySet, "decides which warnings there are"),
    row("--emit", Value, Identity, "decides which outputs there are; a file of its own: bypass"),
    row("--extern", Value, Identity, "name, options and file; the content of the file is an input"),
    row("-L", Value, Identity, "what is found there is an input, see inputs.rs"),
    row("-l", Value, Identity, "the library found is an input"),
    row("--test", Nothing, Identity, ""),
    row("--target", Value, Identity, "a target description by its content"),
    row("--sysroot", Value, Identity, "its libraries are part of the tool identity"),
    row("-C", Value, Identity, "see the table of -C options"),
    row("--codegen", Value, Identity, "as -C"),
    row("-Z", Value, Identity, "see the table of -Z options"),
    row("-g", Nothing, Identity, "as -C debuginfo=2"),
    row("-O", Nothing, Identity, "as -C opt-level=3"),
    row("-A", Value, Identity, "lint levels change what is printed and what fails"),
    row("--allow", Value, Identity, "as -A"),
    row("-W", Value, Identity, ""),
    row("--warn", Value, Identity, "as -W"),
    row("--force-warn", Value, Identity, ""),
    row("-D", Value, Identity, ""),
    row("--deny", Value, Identity, "as -D"),
    row("-F", Value, Identity, ""),
    row("--forbid", Value, Identity, "as -F"),
    row("--cap-lints", Value, Identity, ""),
    row("--remap-path-prefix", Value, Identity, "the user's own; Kiln's come before them"),
    row("--remap-path-scope", Value, Identity, ""),
    row("--env-set", Value, Identity, ""),
    row("--out-dir", Value, Output, ""),
    row("-o", Value, Output, "with anything but the linked file or metadata alone: bypass"),
    row("--error-format", Value, Diagnostics, "identity"),
    row(
        "--json",
        Value,
        Diagnostics,
        "identity, but for diagnostic-rendered-ansi: the plain form is the ANSI form stripped",
    ),
    row(
        "--color",
        Value,
        Diagnostics,
        "identity, after `auto` is resolved, for human-readable diagnostics only",
    ),
    row("--diagnostic-width", Value, Diagnostics, "an input only where there is a diagnostic"),
    row("-v", Nothing, Identity, "more text in diagnostics"),
    row("--verbose", Nothing, Identity, "as -v"),
    row(
        "--print",
        Value,
        Probe,
        "prints and compiles nothing; `native-static-libs` and `link-args` with a compile: bypass",
    ),
    row("-V", Nothing, Probe, ""),
    row("-vV", Nothing, Probe, ""),
    row("-Vv", Nothing, Probe, ""),
    row("--version", Nothing, Probe, ""),
    row("-h", Nothing, Probe, ""),
    row("--help", Nothing, Probe, ""),
    row("--explain", Value, Probe, ""),
    row("--rustc", Nothing, Unsupported, "clippy-driver as rustc"),
];

/// Options of `-C`. One that is not here is identity.
pub const CODEGEN: &[Row] = &[
    row(
        "incremental",
        Value,
        Unsupported,
        "its outputs differ from other runs; set CARGO_INCREMENTAL=0",
    ),
    row("save-temps", Nothing, Unsupported, "leaves files with unpredictable names"),
    row("linker", Value, PathRead, "a name in PATH or a path; its content is an input"),
    row("link-arg", Value, Identity, "files that the linker reads are inputs"),
    row("link-args", Value, Identity, "files that the linker reads are inputs"),
    row("profile-use", Value, PathRead, ""),
    row("ar", Value, Neutral, "ignored by rustc since 2015"),
    row("passes", Value, Identity, ""),
    row("llvm-args", Value, Unsupported, "identity when it names no file"),
    row("remark", Value, Unsupported, "may write files"),
    row("codegen-backend", Value, PathRead, ""),
    row(
        "instrument-coverage",
        Nothing,
        Identity,
        "never remapped: such a result holds at one place",
    ),
];

/// Options of `-Z`. One that is not here is identity when it names no file, else a bypass.
pub const UNSTABLE: &[Row] = &[
    row("self-profile", Value, Unsupported, "writes files"),
    row("dump-mir", Value, Unsupported, "writes files"),
    row("dump-mono-stats", Value, Unsupported, "writes files"),
    row("dump-dep-graph", Nothing, Unsupported, "writes files"),
    row("time-passes", Nothing, Unsupported, "prints times"),
    row("print-type-sizes", Nothing, Unsupported, "prints"),
    row("unpretty", Value, Unsupported, "prints instead of compiling"),
    row("codegen-backend", Value, PathRead, ""),
    row("profile-sample-use", Value, PathRead, ""),
    row("treat-err-as-bug", Value, Identity, ""),
    row("threads", Value, Neutral, "how many threads the front end has"),
];

/// The row of a flag.
pub fn flag(name: &str) -> Option<&'static Row> {
    FLAGS.iter().find(|row| row.name == name)
}

/// The row of a `-C` option, whose words may be joined by `_` too.
pub fn codegen(name: &str) -> Option<&'static Row> {
    CODEGEN.iter().find(|row| row.name == name)
}

/// The row of a `-Z` option.
pub fn unstable(name: &str) -> Option<&'static Row> {
    UNSTABLE.iter().find(|row| row.name == name)
}

/// The page `docs/rustc-flags.md`.
pub fn page() -> String {
    let mut page = String::from(
        "# What each rustc flag means for the cache\n\n\
         Generated from `rustc-wrapper/src/args/table.rs`; `kiln doc flags` prints it.\n\n\
         A flag that is not listed is identity when it is one word that names no file; else the \
         run is handed to the compiler without caching (`unknown-flag`).\n\n\
         A source on standard input (`-`) is part of the unit key by its content; one of more than a \
         mebibyte, or a terminal, is handed to the compiler (`stdin-source`).\n",
    );
    for (title, rows) in [("Flags", FLAGS), ("`-C` options", CODEGEN), ("`-Z` options", UNSTABLE)] {
        page.push_str(&format!("\n## {title}\n\n| flag | role | note |\n| --- | --- | --- |\n"));
        for row in rows {
            page.push_str(&format!("| `{}` | {} | {} |\n", row.name, row.role.word(), row.note));
        }
    }
    page
}
