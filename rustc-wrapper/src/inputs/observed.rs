//! Observed inputs as members of an input set.

use kiln_storage::record::{EnvForm, Member, Variables};

use super::{Inputs, Run, Unknown, file_member, foreign, token, unknown};
use crate::depinfo::DepInfo;
use crate::limits::{MAX_DOUBT_CHARS, MAX_DOUBTS};
use crate::observe::rules::is_jobserver;
use crate::observe::{Around, Found, Observed};
use crate::roots::tidy;
use crate::silent;
use crate::stamp::changed_ns;

/// Why it is not known all that was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Doubts {
    /// For people; empty when all of it is known.
    pub why: Vec<String>,
    /// Whether the variables that were read are known all the same.
    pub variables_known: bool,
}

/// Adds what was observed.
pub(super) fn add(run: &Run<'_>, info: &DepInfo, inputs: &mut Inputs) -> Result<Doubts, Unknown> {
    let seen = match run.seen {
        Ok(seen) => seen,
        Err(why) => return Ok(Doubts { why: vec![why.to_owned()], variables_known: false }),
    };
    let is_output = foreign::outputs(run);
    let around = Around {
        covered: &|path| run.tool.covers(path) || is_jobserver(run.env, path),
        output: &is_output,
        declared: &|name| {
            info.variables.iter().any(|declared| declared == name)
                || silent::variables(run.link.is_some(), run.clippy).any(|known| known == name)
        },
    };
    let (classes, memo) = run.known;
    let Observed { found } = Observed::new(seen, &around, classes, memo);
    if let Some(name) = &found.unnameable {
        return Err(unknown("unknown-input", name));
    }
    check(run, &found)?;
    members(run, &found, inputs);
    foreign::add(run, seen, &found, inputs)?;
    let short = |doubt: &String| doubt.chars().take(MAX_DOUBT_CHARS).collect();
    let why = found.doubts.iter().take(MAX_DOUBTS).map(short).collect();
    Ok(Doubts { why, variables_known: seen.began && seen.lost == 0 })
}

/// Refuses what a later hit could not stand for: a file that was read and is gone, and one that a
/// macro wrote.
fn check(run: &Run<'_>, found: &Found) -> Result<(), Unknown> {
    for (path, _) in found.content.iter().filter(|(_, there)| **there) {
        if std::fs::symlink_metadata(path).is_err() {
            return Err(unknown("input-vanished", path));
        }
        if std::fs::metadata(path).is_ok_and(|meta| !meta.is_file() && !meta.is_dir()) {
            return Err(unknown("special-file", path));
        }
    }
    let temporary = |path: &str| {
        run.roots
            .place("tmp")
            .into_iter()
            .chain(["/tmp", "/dev", "/proc"])
            .any(|place| path.strip_prefix(place).is_some_and(|rest| rest.starts_with('/')))
    };
    for path in found.written.iter().filter(|path| foreign::is_owned(run, path) || !temporary(path))
    {
        let changed = std::fs::symlink_metadata(path)
            .is_ok_and(|meta| !meta.is_dir() && changed_ns(&meta) >= run.started_ns);
        if changed {
            return Err(unknown("macro-writes", path));
        }
    }
    Ok(())
}

fn members(run: &Run<'_>, found: &Found, inputs: &mut Inputs) {
    let members = &mut inputs.members;
    members.extend(found.content.keys().map(|path| file_member(run, &tidy(path))));
    members.extend(found.names.iter().map(|path| Member::Listing(token(run, &tidy(path)))));
    members.extend(found.links.iter().map(|path| Member::Link(token(run, &tidy(path)))));
    members.extend(found.places.iter().map(|path| Member::Place(token(run, &tidy(path)))));
    for name in &found.variables {
        members.insert(Member::Env(name.clone(), EnvForm::Raw));
    }
    // Code that a user puts into every process.
    for library in run.env.text("LD_PRELOAD").unwrap_or("").split([':', ' ']) {
        if library.starts_with('/') {
            members.insert(file_member(run, library));
        }
    }
    for program in &found.programs {
        members.insert(match program.contains('/') {
            true => file_member(run, &run.cwd.join(program).to_string_lossy()),
            false => Member::Program(program.clone()),
        });
    }
    if found.lasting {
        members.insert(Member::Environment(Variables::Lasting));
    }
    if found.environment {
        members.insert(Member::Environment(Variables::All));
    }
    for place in &found.places {
        inputs.pinned.push(format!("place of {}", run.roots.tokenise(place)));
    }
    for name in &found.variables {
        let rooted = run.env.get(name).and_then(|v| v.to_str());
        if rooted.is_some_and(|value| run.roots.occurs_in(value)) {
            inputs.pinned.push(name.clone());
        }
    }
}
