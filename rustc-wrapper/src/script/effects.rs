//! What a script did besides filling OUT_DIR. A hit would not do it, so a run that wrote elsewhere or spoke
//! to the network is not stored. Temporary files are nobody's, and what is gone again is none.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use kiln_observer::log::{Kind, flags};

use super::paths::{Lies, Links, Paths};
use super::{Run, unknown};
use crate::env::Env;
use crate::inputs::Unknown;
use crate::observe::seen::{Fact, Origin, Seen};
use crate::quick::QuickSet;
use crate::stamp::changed_ns;

/// Directories of temporary files and of devices.
const TEMPORARY: &[&str] = &["/tmp", "/var/tmp", "/dev", "/proc", "/run/user"];

/// Files in which cargo notes for itself what it used, and its locks.
const CARGO_NOTES: &[&str] = &[".global-cache", ".package-cache", ".package-cache-mutate"];

/// The sockets of services that libc asks for names of users and hosts; what they answer does not matter
/// where nothing else is asked of the network.
const NAME_SERVICES: &[&str] = &["unix:/var/run/nscd/socket", "unix:/run/nscd/socket"];

fn below(path: &str, place: &str) -> bool {
    path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A change of what has some path.
#[derive(Debug, Clone, Copy)]
struct Change {
    /// Whether nothing of that name was there before.
    fresh: bool,
    /// Whether programs that the script started only ever added to it.
    appended: bool,
    /// Whether it was only ever made a symbolic link, and never written through.
    link: bool,
    /// Whether it was only ever made anew: nothing was moved there, nor linked.
    own: bool,
}

/// All changes, while facts are read in their order.
#[derive(Debug, Default)]
struct Changes<'a> {
    made: BTreeMap<&'a str, Change>,
    absent: QuickSet<&'a str>,
    /// Directories of programs.
    programs: BTreeSet<&'a str>,
}

impl<'a> Changes<'a> {
    fn take(&mut self, fact: &Fact, name: &'a str) {
        if is_change(fact) {
            let helper = fact.origin == Origin::Helper;
            let appended = helper && fact.kind == Kind::Write && fact.has(flags::APPEND);
            let fresh = self.absent.contains(name)
                || fact.has(flags::FRESH)
                || self.lies_in_own_directory(name);
            let link = fact.kind == Kind::Write && fact.has(flags::KEPT) && fact.has(flags::FRESH);
            let own = fact.kind == Kind::Write && fact.has(flags::FRESH) && !fact.has(flags::KEPT);
            let change = self.made.entry(name).or_insert(Change { fresh, appended, link, own });
            change.appended &= appended;
            change.own &= own || fact.kind == Kind::Look;
            change.link &= link || fact.kind != Kind::Write;
        } else if fact.has(flags::ABSENT) && !self.made.contains_key(name) {
            self.absent.insert(name);
        } else if matches!(fact.kind, Kind::Process | Kind::Object) {
            self.programs.extend(name.rsplit_once('/').map(|(dir, _)| dir));
        }
    }

    /// Whether a path lies in a directory that the run made, so that nothing of its name was there before. What was
    /// moved or linked into such a directory may have been there.
    fn lies_in_own_directory(&self, name: &str) -> bool {
        let mut place = name;
        while let Some((above, last)) = place.rsplit_once('/') {
            if last == ".." {
                return false;
            }
            if let Some(made) = self.made.get(above) {
                return made.own;
            }
            place = above;
        }
        false
    }

    /// Whether a tool keeps a log beside itself: a hit calls no tool, and has nothing to add.
    fn is_log_of_tool(&self, env: &Env, path: &str) -> bool {
        let Some((dir, _)) = path.rsplit_once('/') else { return false };
        let searched = || env.text("PATH").unwrap_or_default().split(':').any(|place| place == dir);
        self.made[path].appended && (self.programs.contains(dir) || searched())
    }
}

/// Refuses a run that did what a hit would not do.
///
/// # Errors
/// What it did.
pub fn check(run: &Run<'_>, seen: &Seen, paths: &Paths, started_ns: i128) -> Result<(), Unknown> {
    let (mut changes, mut links) = (Changes::default(), Links::default());
    for fact in seen.facts.iter().filter(|fact| fact.origin != Origin::Own) {
        match std::str::from_utf8(&fact.name) {
            Ok(name) if fact.kind == Kind::Network => {
                if !NAME_SERVICES.contains(&name) {
                    return Err(unknown("network", name));
                }
            }
            // Perhaps it led out of OUT_DIR.
            Ok(name) if is_change(fact) && links.are_lost(name, false) => {
                return Err(unknown("writes-outside", name));
            }
            Ok(name) => {
                links.note(fact, name);
                changes.take(fact, name);
            }
            Err(_) if is_change(fact) => {
                return Err(unknown("unknown-input", String::from_utf8_lossy(&fact.name)));
            }
            Err(_) => {}
        }
    }
    let remains = |(path, change): &(&&str, &Change)| {
        let allowed = match owner(run, paths, (path, change)) {
            Owner::Build => false,
            Owner::Script => true,
            Owner::Nobody => changes.is_log_of_tool(run.engine.env, path),
        };
        !allowed && stays(path, change, started_ns)
    };
    match changes.made.iter().find(remains) {
        Some((path, _)) => Err(unknown("writes-outside", path)),
        None => Ok(()),
    }
}

/// Whether a fact tells of a change of what it names: made, written, removed, or its mode or times set.
pub(super) fn is_change(fact: &Fact) -> bool {
    match fact.kind {
        Kind::Write => true,
        Kind::Look => fact.has(flags::KEPT) && !fact.has(flags::FAILED),
        _ => false,
    }
}

/// Whose a place is.
enum Owner {
    /// The script's, to write to: OUT_DIR, and directories of temporary files where the build does not lie in
    /// them.
    Script,
    /// The build's.
    Build,
    /// Anybody's.
    Nobody,
}

fn owner(run: &Run<'_>, paths: &Paths, (path, change): (&str, &Change)) -> Owner {
    let roots = &run.engine.roots;
    // A link that leads nowhere was made, and not written through.
    let lies = match paths.lies(path) {
        _ if change.link => paths.lies_itself(path),
        Lies::Unknown => paths.lies_itself(path),
        lies => lies,
    };
    let path = match &lies {
        Lies::Within => return Owner::Script,
        Lies::Unknown => return Owner::Build,
        Lies::Elsewhere(real) => real.as_deref().unwrap_or(path),
    };
    let in_root = |name: &str| roots.place(name).is_some_and(|place| below(path, place));
    let name = path.rsplit('/').next().unwrap_or(path);
    let cargo_notes = || CARGO_NOTES.iter().any(|notes| name.starts_with(notes));
    if in_root("cargo") && cargo_notes() {
        Owner::Script
    } else if ["workspace", "package", "target", "cargo"].into_iter().any(in_root) {
        Owner::Build
    } else if in_root("tmp") || TEMPORARY.iter().any(|place| below(path, place)) {
        Owner::Script
    } else {
        Owner::Nobody
    }
}

/// Whether something remains of a change.
fn stays(path: &str, change: &Change, started_ns: i128) -> bool {
    match Path::new(path).symlink_metadata() {
        Ok(meta) => {
            (meta.is_dir() && change.fresh) || (!meta.is_dir() && changed_ns(&meta) >= started_ns)
        }
        Err(_) => !change.fresh,
    }
}
