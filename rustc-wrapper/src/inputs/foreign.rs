//! What observation adds for plugins and the programs they start alone: whose code is not known, and what
//! they do cannot be told but by what they did. And which files are the compiler's own. Called by
//! [`super::observed`].

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use kiln_observer::log::Kind;
use kiln_storage::record::Member;

use super::{Inputs, Run, Unknown, file_member, token, unknown};
use crate::observe::Found;
use crate::observe::seen::{Fact, Seen};
use crate::roots::tidy;

/// Tells the compiler's own outputs and temporary files. It calls its output directory as it was told,
/// or as it is in the end.
pub(super) fn outputs<'a>(run: &'a Run<'_>) -> impl Fn(&str) -> bool + 'a {
    let real = std::fs::canonicalize(run.out_dir).unwrap_or_default();
    move |path| {
        let path = Path::new(path);
        let dirs = [run.out_dir, real.as_path()];
        path.starts_with(run.private)
            || dirs.iter().filter_map(|dir| path.strip_prefix(dir).ok()).any(|p| is_made(run, p))
    }
}

/// Whether a crate file that is found by its name alone may have been read: none that the unit makes itself, and where all
/// was observed, none that nobody opened.
pub(super) fn may_be_read(run: &Run<'_>, file: &Path) -> bool {
    if file.to_str().is_some_and(outputs(run)) {
        return false;
    }
    let Some(seen) = run.seen.ok().filter(|seen| seen.began && seen.lost == 0) else {
        return true;
    };
    let real = std::fs::canonicalize(file).unwrap_or_default();
    seen.facts.iter().filter(|fact| matches!(fact.kind, Kind::Read | Kind::Object)).any(|fact| {
        let path = run.cwd.join(OsStr::from_bytes(&fact.name));
        path == file || path == real
    })
}

/// Whether rustc makes something of this name in its output directory: an output, or what is in a
/// temporary directory.
fn is_made(run: &Run<'_>, path: &Path) -> bool {
    let mut names = path.components().filter_map(|name| name.as_os_str().to_str());
    match (names.next(), names.next()) {
        (Some(name), None) => run.names.owns(name) || is_temporary(name),
        (Some(name), Some(_)) => is_temporary(name),
        _ => false,
    }
}

/// Whether a name is one that rustc gives to its temporary directories, e.g. `rustcXh3fK9`.
fn is_temporary(name: &str) -> bool {
    let random = name.strip_prefix("rustc").unwrap_or_default();
    random.len() == 6 && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Whether a path is in a directory of the build, which may lie in one of temporary files.
pub(super) fn is_owned(run: &Run<'_>, path: &str) -> bool {
    let places = ["workspace", "package", "target", "build", "cargo"];
    let mut places = places.iter().filter_map(|root| run.roots.place(root));
    places.any(|place| Path::new(path).starts_with(place))
}

/// What could only be made since there was nothing: that is an input. What is still there would be
/// missing after a hit.
fn made(run: &Run<'_>, found: &Found, inputs: &mut Inputs) -> Result<(), Unknown> {
    for path in &found.made {
        if std::fs::symlink_metadata(path).is_ok() {
            return Err(unknown("macro-writes", path));
        }
        inputs.members.insert(file_member(run, &tidy(path)));
    }
    Ok(())
}

/// What only counts where plugins and their helpers saw it.
///
/// The mode of a file: it is told by a look at it, also by one at its descriptor. The place of the root
/// that a file is in: nobody knows where the plugin had the path from, so that elsewhere it may ask
/// for the same path, and not for the same file below another root.
pub(super) fn add(
    run: &Run<'_>,
    seen: &Seen,
    found: &Found,
    inputs: &mut Inputs,
) -> Result<(), Unknown> {
    made(run, found, inputs)?;
    let theirs = |fact: &&Fact| fact.origin.is_foreign();
    for fact in seen.facts.iter().filter(theirs).filter(|fact| fact.kind != Kind::Variable) {
        let Ok(path) = std::str::from_utf8(&fact.name) else { continue };
        let there = found.content.get(path);
        if there.is_none() && !found.names.contains(path) && !found.links.contains(path) {
            continue;
        }
        let token = token(run, &tidy(path));
        if let Some((root, _)) = token.0.strip_prefix('<').and_then(|rest| rest.split_once('>'))
            && inputs.members.insert(Member::Root(root.to_owned()))
        {
            inputs.pinned.push(format!("<{root}>"));
        }
        if there == Some(&true) && matches!(fact.kind, Kind::Read | Kind::Look) {
            inputs.members.insert(Member::Mode(token));
        }
    }
    Ok(())
}
