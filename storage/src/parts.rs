//! What differs between the parts of two unit keys, for people. Pure.
//!
//! The one place beside the wrapper that knows what the names of parts mean: explanations and reports
//! read what comes of it, and no answer of the cache depends on it. Some differences follow from others: cargo's
//! `-C metadata` from features and versions, the file names of crates from those crates. [`Rank`] says so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::api::Cause;
use crate::record::UnitPart;

/// The compiler: what it says of itself, and its content.
pub const COMPILER: &str = "compiler";
/// Which program compiles: rustc or clippy-driver.
pub const TOOL: &str = "tool";
/// `--cfg`, features among them.
pub const CFG: &str = "cfg";
/// `--check-cfg`.
pub const CHECK_CFG: &str = "check-cfg";
/// `-C`, by option.
pub const CODEGEN: &str = "-C";
/// `--extern`, by name.
pub const EXTERN: &str = "extern";
/// `-L`, by kind.
pub const SEARCH: &str = "-L";
/// Where the outputs go.
pub const OUTPUT_DIRECTORY: &str = "output directory";
/// The crate root.
pub const INPUT: &str = "crate root";
/// The working directory.
pub const WORKING_DIRECTORY: &str = "working directory";
/// Flags without a kind of their own, by flag.
pub const FLAG: &str = "flag";
/// The program of a build script, by content: a part of every run of one and of no other key.
pub const PROGRAM: &str = "build script";

/// What a value is called that an argument without one has.
const GIVEN: &str = "given";

/// How much a difference tells; less is more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rank {
    /// Decides alone.
    Own,
    /// Mostly goes along with another change of the package.
    Declared,
    /// Leads to another crate.
    Crate,
    /// Follows from something else; left out when there is any other.
    Follows,
}

/// The parts that only one of two lists has, paired where both have one of the same name.
pub fn differences(then: &[UnitPart], now: &[UnitPart]) -> Vec<(Rank, Cause)> {
    let mut gone: BTreeMap<(&str, &str), VecDeque<&UnitPart>> = BTreeMap::new();
    for part in missing_in(then, now) {
        gone.entry(named(part)).or_default().push_back(part);
    }
    let mut found = Vec::new();
    for part in missing_in(now, then) {
        let before = gone.get_mut(&named(part)).and_then(VecDeque::pop_front);
        found.push(describe(part, before.map(value), Some(value(part))));
    }
    for part in gone.into_values().flatten() {
        found.push(describe(part, Some(value(part)), None));
    }
    if found.is_empty() {
        found.extend(order(then, now));
    }
    found
}

fn value_of<'a>(parts: &'a [UnitPart], group: &str, name: &str) -> Option<&'a str> {
    let found = parts.iter().find(|part| part.group == group && part.name == name);
    found.and_then(|part| part.value.as_deref())
}

/// Whether one program compiled both: what clippy leaves is never what rustc does.
pub fn is_same_tool(then: &[UnitPart], now: &[UnitPart]) -> bool {
    value_of(then, TOOL, "") == value_of(now, TOOL, "")
}

/// Whether two units of one version were made of the same target of the package: a test of the library is none of
/// the program, and a build script tries many sources under one name. A package has one build script.
pub fn is_same_target(then: &[UnitPart], now: &[UnitPart]) -> bool {
    let same = |group: &str, name: &str| {
        let here = value_of(now, group, name);
        here.is_some() && here == value_of(then, group, name)
    };
    let is_run = now.iter().any(|part| part.group == PROGRAM);
    is_run || same(INPUT, "") || same(CODEGEN, "metadata")
}

/// Options of the code generator that a profile sets.
const OF_PROFILE: [&str; 11] = [
    "opt-level",
    "debuginfo",
    "debug-assertions",
    "overflow-checks",
    "panic",
    "lto",
    "codegen-units",
    "strip",
    "split-debuginfo",
    "embed-bitcode",
    "linker-plugin-lto",
];

/// What differences that decide alone come from: `compiler`, `features`, `profile`, `flags` (RUSTFLAGS and
/// settings of cargo), or `arguments` of more than one origin.
pub fn kind_of(causes: &[Cause]) -> &'static str {
    let one = |cause: &Cause| -> &'static str {
        match cause.kind.as_str() {
            "compiler" => "compiler",
            "feature" => "features",
            "argument" | "order" => {
                let option = cause.name.strip_prefix("-C ").unwrap_or_default();
                match cause.name.as_str() {
                    // As far as it goes alone, of what cargo knows of all that it builds.
                    "-C metadata" => "arguments",
                    _ if OF_PROFILE.contains(&option) => "profile",
                    name if name.starts_with('-') => "flags",
                    _ => "arguments",
                }
            }
            _ => "arguments",
        }
    };
    let mut kinds: Vec<&'static str> = causes.iter().map(one).collect();
    kinds.sort_unstable();
    kinds.dedup();
    match kinds[..] {
        [kind] => kind,
        _ if kinds.contains(&"compiler") => "compiler",
        _ => "arguments",
    }
}

fn named(part: &UnitPart) -> (&str, &str) {
    (&part.group, &part.name)
}

/// The parts of one list that the other does not have, as often as that is so.
fn missing_in<'a>(list: &'a [UnitPart], other: &'a [UnitPart]) -> Vec<&'a UnitPart> {
    let mut counts: BTreeMap<&UnitPart, usize> = BTreeMap::new();
    for part in other {
        *counts.entry(part).or_default() += 1;
    }
    let missing = |part: &&'a UnitPart| match counts.get_mut(*part) {
        Some(count) if *count > 0 => {
            *count -= 1;
            false
        }
        _ => true,
    };
    list.iter().filter(missing).collect()
}

/// The groups whose parts are the same in another order.
fn order(then: &[UnitPart], now: &[UnitPart]) -> Vec<(Rank, Cause)> {
    let groups: BTreeSet<&str> = now.iter().map(|part| part.group.as_str()).collect();
    let of = |list: &'_ [UnitPart], group: &str| -> Vec<UnitPart> {
        list.iter().filter(|part| part.group == group).cloned().collect()
    };
    let moved = groups.into_iter().filter(|group| of(then, group) != of(now, group));
    moved.map(|group| (Rank::Own, cause("order", group, None, None))).collect()
}

fn value(part: &UnitPart) -> String {
    part.value.clone().unwrap_or_else(|| GIVEN.to_owned())
}

fn describe(part: &UnitPart, then: Option<String>, now: Option<String>) -> (Rank, Cause) {
    let UnitPart { group, name, .. } = part;
    let rank = rank(part, then.as_deref(), now.as_deref());
    let made = match group.as_str() {
        COMPILER => cause("compiler", "", then.map(short_digest), now.map(short_digest)),
        PROGRAM => cause("script", "", then.map(brief_digest), now.map(brief_digest)),
        // As rustc has it, or as the run of a build script has it.
        CFG => match name.strip_prefix("feature=") {
            Some(feature) => cause("feature", feature.trim_matches('"'), then, now),
            None => cause("argument", &format!("--cfg {name}"), then, now),
        },
        CHECK_CFG => cause("argument", &format!("--check-cfg {name}"), then, now),
        EXTERN => cause("crate", name, then.map(file_name), now.map(file_name)),
        FLAG => cause("argument", name, then, now),
        _ if name.is_empty() => cause("argument", group, then, now),
        _ => cause("argument", &format!("{group} {name}"), then, now),
    };
    (rank, made)
}

fn rank(part: &UnitPart, then: Option<&str>, now: Option<&str>) -> Rank {
    match (part.group.as_str(), part.name.as_str()) {
        (CODEGEN, "metadata" | "extra-filename") => Rank::Follows,
        // Compiled before it runs; why it is another one is told there.
        (PROGRAM, _) => Rank::Follows,
        // Directories that cargo has named, by profile and by its hash of a package.
        (SEARCH, _) if [then, now].into_iter().flatten().all(|at| at.starts_with("<target>")) => {
            Rank::Follows
        }
        // Named by profile and target.
        (OUTPUT_DIRECTORY, _) => Rank::Follows,
        // They hold the version of a package from the registry.
        (INPUT | WORKING_DIRECTORY, _) => Rank::Follows,
        (CHECK_CFG, _) => Rank::Declared,
        (EXTERN, _) => {
            match (then.map(|t| file_name(t.into())), now.map(|n| file_name(n.into()))) {
                (Some(then), Some(now)) if then == now => Rank::Follows,
                _ => Rank::Crate,
            }
        }
        _ => Rank::Own,
    }
}

fn file_name(path: String) -> String {
    match path.rsplit_once('/') {
        Some((_, name)) => name.to_owned(),
        None => path,
    }
}

fn brief_digest(digest: String) -> String {
    digest.chars().take(8).collect()
}

/// The compiler's own words, and a short form of the digest behind them.
fn short_digest(compiler: String) -> String {
    match compiler.rsplit_once(' ') {
        Some((words, digest)) if digest.len() > 8 && digest.is_ascii() => {
            format!("{words} {}", &digest[..8])
        }
        _ => compiler,
    }
}

/// A cause of a kind, with what it names and what that was and is.
pub fn cause(kind: &str, name: &str, then: Option<String>, now: Option<String>) -> Cause {
    Cause { kind: kind.to_owned(), name: name.to_owned(), then, now }
}
