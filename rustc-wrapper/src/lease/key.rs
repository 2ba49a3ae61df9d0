//! What is about to be compiled, as far as that is known before: the unit, the crates it is given, the package,
//! what a build script made for it, and what cargo says of the package. Two jobs with one key most likely make
//! one result. A key that says too little costs a wait in vain, one that says too much costs a compile; neither
//! is ever wrong.

use std::path::Path;

use kiln_storage::LeaseKey;
use kiln_storage::record::{EnvForm, Member, TokenPath, TreeFilter, result_key};

use crate::engine::Engine;
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
    let generated = session.env.absolute("OUT_DIR").map(|dir| tree(session, &dir, TreeFilter::All));
    of(session, given.chain(generated).collect())
}

/// The key of a build script's run, likewise.
pub(crate) fn of_script(run: &script::Run<'_>) -> Option<LeaseKey> {
    of(&run.engine, Some(Vec::new()))
}

fn of(engine: &Engine<'_>, given: Option<Vec<Member>>) -> Option<LeaseKey> {
    let mut members = given?;
    if let Some(package) = engine.env.absolute("CARGO_MANIFEST_DIR") {
        let place = engine.roots.tokenise(package.to_str()?);
        if !UNPACKED.iter().any(|start| place.starts_with(start)) {
            members.push(tree(engine, &package, TreeFilter::Package)?);
        }
    }
    let names = engine.env.names();
    let told = names.filter(|name| OF_PACKAGES.iter().any(|start| name.starts_with(start)));
    members.extend(told.map(|name| Member::Env(name.to_owned(), EnvForm::Tokens)));
    members.sort_unstable();
    let mut evaluator = engine.evaluator();
    let values: Option<Vec<_>> = members.iter().map(|member| evaluator.value(member)).collect();
    Some(LeaseKey::new(*result_key(&engine.named.key, &members, &values?).digest()))
}

fn tree(engine: &Engine<'_>, dir: &Path, filter: TreeFilter) -> Option<Member> {
    Some(Member::Tree(TokenPath(engine.roots.tokenise(dir.to_str()?)), filter))
}

fn file(engine: &Engine<'_>, path: &Path) -> Option<Member> {
    Some(Member::File(TokenPath(engine.roots.tokenise(path.to_str()?))))
}
