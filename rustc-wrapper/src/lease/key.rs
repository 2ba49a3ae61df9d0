//! What is about to be compiled, as far as that is known before: the unit, the crates it is given, its sources, what
//! a build script made for it, and what cargo says of the package. Two jobs with one key most likely make
//! one result. A key that says too little costs a wait in vain, one that says too much costs a compile; neither
//! is ever wrong.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use kiln_storage::encode::Encoder;
use kiln_storage::record::{EnvForm, Member, Record, TokenPath, TreeFilter, result_key};
use kiln_storage::{LeaseKey, ResultKey};

use crate::engine::Engine;
use crate::limits::{MAX_LEASE_DEPTH, MAX_LEASE_ENTRIES, MAX_LEASE_SOURCES};
use crate::roots::TARGET_MARKER;
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

/// The key of a compile for which what another job made does not hold: all that was read for that counts, too, as it is
/// here. So whoever differs in the same way waits for each other, and for nobody else. None when it cannot be told.
pub(crate) fn narrowed(engine: &Engine<'_>, key: LeaseKey, made: &ResultKey) -> Option<LeaseKey> {
    let record = engine.differing.iter().find(|record| record.result_key == *made)?;
    let Record { unit_key, members, .. } = record;
    let mut evaluator = engine.evaluator();
    let values: Option<Vec<_>> = members.iter().map(|member| evaluator.value(member)).collect();
    let here = result_key(unit_key, members, &values?);
    let mut encoder = Encoder::new("kiln narrowed lease key v1");
    encoder.digest("of", key.digest()).digest("here", here.digest());
    Some(LeaseKey::new(encoder.finish()))
}

/// The sources of a crate: those beside and below its first one, or that alone where these are too many.
fn sources(engine: &Engine<'_>, first: &Path) -> Option<Vec<Member>> {
    let place = engine.roots.tokenise(first.to_str()?);
    if UNPACKED.iter().any(|start| place.starts_with(start)) {
        return Some(Vec::new());
    }
    let target = engine.roots.place("target").map(Path::new);
    let mut walk = Walk { target, left: MAX_LEASE_ENTRIES, found: BTreeSet::new() };
    if !walk.collect(first.parent()?, MAX_LEASE_DEPTH) {
        walk.found.clear();
    }
    walk.found.insert(first.to_owned());
    walk.found.iter().map(|path| file(engine, path)).collect()
}

/// A walk over the sources of Rust in a directory and below it. Target directories are left out: a package may have its
/// own in itself, and what build scripts have left there hangs on how far a job is.
struct Walk<'a> {
    /// The target directory, which may have no marker.
    target: Option<&'a Path>,
    /// So many more names are looked at.
    left: usize,
    found: BTreeSet<PathBuf>,
}

impl Walk<'_> {
    /// Whether what was found is all there is.
    fn collect(&mut self, dir: &Path, depth: usize) -> bool {
        let Ok(entries) = std::fs::read_dir(dir) else { return true };
        for entry in entries.flatten() {
            let Some(left) = self.left.checked_sub(1) else { return false };
            self.left = left;
            let (name, path) = (entry.file_name(), entry.path());
            if path.extension().is_some_and(|extension| extension == "rs") {
                self.found.insert(path);
            } else if !name.as_encoded_bytes().starts_with(b".")
                && entry.file_type().is_ok_and(|kind| kind.is_dir())
                && !self.is_target(&path)
                && (depth == 0 || !self.collect(&path, depth - 1))
            {
                return false;
            }
            if self.found.len() > MAX_LEASE_SOURCES {
                return false;
            }
        }
        true
    }

    fn is_target(&self, dir: &Path) -> bool {
        Some(dir) == self.target || dir.ends_with("target") || dir.join(TARGET_MARKER).exists()
    }
}

fn tree(engine: &Engine<'_>, dir: &Path) -> Option<Member> {
    Some(Member::Tree(TokenPath(engine.roots.tokenise(dir.to_str()?)), TreeFilter::All))
}

fn file(engine: &Engine<'_>, path: &Path) -> Option<Member> {
    Some(Member::File(TokenPath(engine.roots.tokenise(path.to_str()?))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(dir: &Path, target: Option<&Path>, left: usize) -> Option<Vec<String>> {
        let mut walk = Walk { target, left, found: BTreeSet::new() };
        let name = |path: &PathBuf| path.strip_prefix(dir).unwrap().display().to_string();
        walk.collect(dir, 3).then(|| walk.found.iter().map(name).collect())
    }

    /// The script of a package lies beside all of it. What is in a target directory hangs on what the job has built so far.
    #[test]
    fn what_is_in_target_directories_is_no_source() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        };
        for name in ["build.rs", "src/lib.rs", "target/a.rs", ".git/b.rs", "musl/debug/out/c.rs"] {
            put(name);
        }
        put("mounted/out/d.rs");
        put("musl/CACHEDIR.TAG");
        let target = dir.path().join("mounted");
        let want = ["build.rs".to_owned(), "src/lib.rs".to_owned()];
        assert_eq!(found(dir.path(), Some(&target), 100).unwrap(), want);
        (0..100).for_each(|n| put(&format!("data/{n}")));
        assert_eq!(found(dir.path(), Some(&target), 100), None, "it is not looked at for ever");
    }
}
