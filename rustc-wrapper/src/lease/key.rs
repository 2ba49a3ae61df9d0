//! What is about to be compiled, as far as that is known before: the unit, the crates it is given, its sources, what
//! a build script made for it, and what cargo says of the package. Two jobs with one key most likely make
//! one result. A key that says too little costs a wait in vain, one that says too much costs a compile; neither
//! is ever wrong.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use kiln_storage::LeaseKey;
use kiln_storage::record::{EnvForm, Member, TokenPath, TreeFilter, result_key};

use crate::engine::Engine;
use crate::limits::{MAX_LEASE_DEPTH, MAX_LEASE_SOURCES};
use crate::script;
use crate::session::Session;

/// Variables that say what is compiled, by how their names begin.
const OF_PACKAGES: [&str; 4] = ["CARGO_PKG_", "CARGO_CFG_", "CARGO_FEATURE_", "DEP_"];
/// What cargo unpacks never changes: its place names its content.
const UNPACKED: [&str; 2] = ["<cargo>/registry/", "<cargo>/git/"];

/// The key of a compile; none when something that is known to count cannot be read.
pub(crate) fn of_compile(session: &Session<'_>) -> Option<LeaseKey> {
    let given = session.parsed.externs.iter().filter_map(|krate| krate.path.as_ref());
    let given = given.map(|path| file(session, &session.cwd.join(path)));
    let generated = session.env.absolute("OUT_DIR").map(|dir| tree(session, &dir));
    let mut members: Vec<Member> = given.chain(generated).collect::<Option<_>>()?;
    if !session.parsed.is_stdin() {
        members.extend(sources(session, &session.cwd.join(&session.parsed.input))?);
    }
    of(session, members)
}

/// The key of a build script's run: its program is in the unit's.
pub(crate) fn of_script(run: &script::Run<'_>) -> Option<LeaseKey> {
    of(&run.engine, Vec::new())
}

fn of(engine: &Engine<'_>, mut members: Vec<Member>) -> Option<LeaseKey> {
    let names = engine.env.names();
    let told = names.filter(|name| OF_PACKAGES.iter().any(|start| name.starts_with(start)));
    members.extend(told.map(|name| Member::Env(name.to_owned(), EnvForm::Tokens)));
    members.sort_unstable();
    let mut evaluator = engine.evaluator();
    let values: Option<Vec<_>> = members.iter().map(|member| evaluator.value(member)).collect();
    Some(LeaseKey::new(*result_key(&engine.named.key, &members, &values?).digest()))
}

/// The sources of a crate: those beside and below its first one, or that alone where these are too many.
fn sources(engine: &Engine<'_>, first: &Path) -> Option<Vec<Member>> {
    let place = engine.roots.tokenise(first.to_str()?);
    if UNPACKED.iter().any(|start| place.starts_with(start)) {
        return Some(Vec::new());
    }
    let mut found = BTreeSet::new();
    if !walk(first.parent()?, MAX_LEASE_DEPTH, &mut found) {
        found.clear();
    }
    found.insert(first.to_owned());
    found.iter().map(|path| file(engine, path)).collect()
}

/// Adds the sources of Rust in a directory and below it; whether these are all.
fn walk(dir: &Path, depth: usize, found: &mut BTreeSet<PathBuf>) -> bool {
    let Ok(entries) = std::fs::read_dir(dir) else { return true };
    for entry in entries.flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let is_source = path.extension().is_some_and(|extension| extension == "rs");
        let is_hidden = name.as_encoded_bytes().starts_with(b".") || name == "target";
        let is_dir = !is_source && !is_hidden && entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_source {
            found.insert(path);
        } else if is_dir && (depth == 0 || !walk(&path, depth - 1, found)) {
            return false;
        }
        if found.len() > MAX_LEASE_SOURCES {
            return false;
        }
    }
    true
}

fn tree(engine: &Engine<'_>, dir: &Path) -> Option<Member> {
    Some(Member::Tree(TokenPath(engine.roots.tokenise(dir.to_str()?)), TreeFilter::All))
}

fn file(engine: &Engine<'_>, path: &Path) -> Option<Member> {
    Some(Member::File(TokenPath(engine.roots.tokenise(path.to_str()?))))
}
