//! The input set of a compile that was refused: nobody tells what it read, so all that was observed
//! counts. Called by [`crate::publish`].

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use kiln_observer::log::{Kind, flags};
use kiln_storage::record::{EnvForm, Member};

use super::{
    Inputs, MAX_SCANNED_SOURCE, Run, Unknown, clippy, crates, file_member, foreign, form_of_silent,
    observed, target_descriptions, token, unknown,
};
use crate::depinfo::{self, DepInfo};
use crate::observe::rules::{is_jobserver, is_of_machine};
use crate::observe::seen::{Fact, Origin, Seen};
use crate::roots::tidy;
use crate::silent;
use crate::stamp::changed_ns;

/// Finds the input set of a compile that was refused.
///
/// A success is known by dep-info, the crates given and the linker's list, and observation adds to
/// that. A failure has nothing else, so whatever the compiler asked for is an input: files, absent ones
/// too, directories that it listed in search of crates, variables. A doubt, a linker that ran, a call
/// that failed for another reason than that there is nothing: no set.
///
/// # Errors
/// When it cannot be known.
pub fn find_of_failure(run: &Run<'_>) -> Result<Inputs, Unknown> {
    let hidden = |why: &str| unknown("failure-not-observed", why);
    let seen = run.seen.map_err(hidden)?;
    // One that was refused before it was written has none.
    let info = match run.dep_info {
        "" => DepInfo::default(),
        text => depinfo::parse(text).ok_or_else(|| unknown("no-dep-info", "unreadable"))?,
    };
    let mut inputs = Inputs::default();
    let doubts = observed::add(run, &info, &mut inputs)?;
    if let Some(why) = doubts.why.first().cloned().or_else(|| unseen(seen)) {
        return Err(hidden(&why));
    }
    let read = tool(run, seen, &mut inputs)?;
    variables(run, &info, (seen, &read), &mut inputs);
    let named = info.files.iter().map(Path::new);
    for file in named.chain(run.parsed.files.iter().map(PathBuf::as_path)).chain([run.out_dir]) {
        let path = super::absolute(run, file)?;
        inputs.members.insert(file_member(run, &path));
    }
    target_descriptions(run, &mut inputs)?;
    crates(run, &mut inputs)?;
    for name in silent::variables(run.parsed.links(), run.clippy) {
        inputs.members.insert(Member::Env(name.to_owned(), form_of_silent(name)));
    }
    if run.clippy {
        clippy(run, &mut inputs);
    }
    Ok(inputs)
}

/// What else was done that no set can tell.
fn unseen(seen: &Seen) -> Option<String> {
    let late = |fact: &&Fact| matches!(fact.origin, Origin::Linker | Origin::Script);
    if seen.facts.iter().any(|fact| late(&fact)) {
        return Some("the compiler started another program".into());
    }
    let program = &seen.unobserved.first()?.program;
    Some(format!("{} was started and cannot be observed", String::from_utf8_lossy(program)))
}

/// Whether a fact tells of a place that the compiler asked for.
fn is_asked(fact: &Fact) -> bool {
    let kind =
        matches!(fact.kind, Kind::Read | Kind::Look | Kind::List | Kind::Resolve | Kind::Object);
    fact.origin == Origin::Tool && kind && !fact.has(flags::START)
}

/// Adds what the compiler itself asked for; the files among it that are there.
fn tool(run: &Run<'_>, seen: &Seen, inputs: &mut Inputs) -> Result<BTreeSet<String>, Unknown> {
    let is_output = foreign::outputs(run);
    let (mut read, mut made) = (BTreeSet::new(), BTreeSet::new());
    for fact in &seen.facts {
        let Ok(name) = std::str::from_utf8(&fact.name) else {
            return Err(unknown("unknown-input", String::from_utf8_lossy(&fact.name)));
        };
        let no_input = is_of_machine(name) || is_jobserver(run.env, name);
        if fact.kind == Kind::Write && !fact.has(flags::KEPT) {
            made.insert(name);
        }
        let wrote = fact.origin == Origin::Tool && fact.kind == Kind::Write;
        if wrote && !is_output(name) && !no_input && stays(run, name) {
            return Err(unknown("failure-left-output", name));
        }
        let own =
            || Path::new(name).ancestors().any(|p| p.to_str().is_some_and(|p| made.contains(p)));
        if !is_asked(fact) || run.tool.covers(name) || is_output(name) || no_input || own() {
            continue;
        }
        // For want of memory, descriptors, rights: says nothing of what is there.
        if fact.has(flags::FAILED) && !fact.has(flags::ABSENT) && fact.kind != Kind::Resolve {
            return Err(unknown("failure-not-observed", format!("{name} could not be read")));
        }
        let path = tidy(name).into_owned();
        match fact.kind {
            Kind::List => drop(inputs.members.insert(Member::Listing(token(run, &path)))),
            Kind::Resolve if fact.has(flags::LINK) => {
                inputs.members.insert(Member::Link(token(run, &path)));
            }
            _ => {
                inputs.members.insert(file_member(run, &path));
                if fact.has(flags::LINK) {
                    inputs.members.insert(Member::Link(token(run, &path)));
                }
                if fact.kind == Kind::Read && !fact.has(flags::FAILED) {
                    read.insert(path);
                }
            }
        }
    }
    Ok(read)
}

/// Whether a file is there that was written in this run.
fn stays(run: &Run<'_>, path: &str) -> bool {
    std::fs::symlink_metadata(path)
        .is_ok_and(|meta| !meta.is_dir() && changed_ns(&meta) >= run.started_ns)
}

/// Adds the variables that the source names. Those that the compiler reads for itself and that cannot
/// change an output are left out of what was observed: without dep-info, a text that holds such a name
/// may use it.
fn variables(
    run: &Run<'_>,
    info: &DepInfo,
    (seen, read): (&Seen, &BTreeSet<String>),
    inputs: &mut Inputs,
) {
    let mut names: BTreeSet<String> = info.variables.clone();
    if run.dep_info.is_empty() {
        let texts: Vec<Option<Vec<u8>>> = read.iter().map(|path| text(path)).collect();
        let given = run.source.map(|source| source.bytes.as_slice());
        let named = |name: &str| {
            let holds = |text: &[u8]| memchr::memmem::find(text, name.as_bytes()).is_some();
            given.is_some_and(holds) || texts.iter().any(|t| t.as_deref().is_none_or(holds))
        };
        let asked = seen.facts.iter().filter(|fact| fact.kind == Kind::Variable);
        let asked = asked.filter_map(|fact| std::str::from_utf8(&fact.name).ok());
        names.extend(asked.filter(|name| named(name)).map(str::to_owned));
    }
    for name in names {
        let value = run.env.get(&name).and_then(|value| value.to_str());
        if value.is_some_and(|value| run.roots.occurs_in(value)) {
            inputs.pinned.push(name.clone());
        }
        inputs.members.insert(Member::Env(name, EnvForm::Raw));
    }
}

/// What is in a file that was read; none when that is too much to look through.
fn text(path: &str) -> Option<Vec<u8>> {
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_file() && meta.len() > MAX_SCANNED_SOURCE => None,
        Ok(meta) if meta.is_file() => std::fs::read(path).ok(),
        _ => Some(Vec::new()),
    }
}
