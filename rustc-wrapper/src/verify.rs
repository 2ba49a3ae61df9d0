//! Checking a hit (`KILN_VERIFY`): the compiler really ran, and what it made is compared with the
//! record that a restore would have used.
//!
//! Where they differ, the compiler runs once more, silently and at the same place: what differs
//! between two fresh runs is no fault of the cache; what two fresh runs agree on and the record does
//! not proves that its key is wrong, and the result is quarantined. The outputs of the first run are
//! what stays. Called by [`crate::wrapper`], which holds artifact notices back meanwhile: nobody reads
//! the outputs before they are judged.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use kiln_storage::api::QuarantineRequest;
use kiln_storage::encode::Encoder;
use kiln_storage::record::{Content, Record};
use kiln_storage::{ResultKey, limits};

use crate::compile::Finished;
use crate::config::{Mode, Percent};
use crate::inputs::Unknown;
use crate::limits::{MAX_NAMED_OUTPUTS, MIN_VERIFY_ROOM_BYTES};
use crate::needles::Needles;
use crate::outputs::{self, Made, Scanned};
use crate::publish;
use crate::roots::Escape;
use crate::session::Session;
use crate::stamp;

/// What standard output and standard error are called among the outputs.
const STDOUT: &str = "standard output";
const STDERR: &str = "standard error";

/// The compile that ran in place of a restore.
#[derive(Debug)]
pub struct Fresh<'a> {
    /// How the tool ended.
    pub finished: &'a Finished,
    /// A [`stamp::barrier`] right before it was started, nanoseconds.
    pub started_ns: i128,
    /// The run's private directory.
    pub private: &'a Path,
}

/// What came of a check, for the event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// A word from docs/reasons.md.
    pub reason: &'static str,
    /// The outputs concerned, and more for people.
    pub detail: String,
    /// The result that was judged, where it could be.
    pub result: Option<ResultKey>,
}

impl Finding {
    fn new(reason: &'static str, detail: impl Into<String>, record: &Record) -> Self {
        Self { reason, detail: detail.into(), result: Some(record.result_key) }
    }

    fn none(reason: &'static str, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), result: None }
    }
}

/// Whether this hit is checked. One of a compile that was refused has no outputs to compare, and is not.
pub fn is_chosen(session: &Session<'_>, record: &Record) -> bool {
    record.status == 0 && chooses(session.config.verify, &record.result_key, &session.event.build)
}

/// Whether a share of the hits has this one in it: by chance, and the same for the same build.
pub fn chooses(share: Percent, result: &ResultKey, build: &str) -> bool {
    if share == Percent::NONE {
        return false;
    }
    let mut encoder = Encoder::new("kiln verify choice v1");
    encoder.digest("result", result.digest()).text("build", build);
    let digest = encoder.finish();
    let number = digest.as_bytes().iter().take(8).fold(0, |n, byte| (n << 8) | u64::from(*byte));
    number % 100 < u64::from(share.get())
}

/// Judges a record by the compile that ran in place of its restore. `again` runs the compiler once
/// more in the same way, without showing anything.
pub fn check(
    session: &mut Session<'_>,
    record: &Record,
    fresh: &Fresh<'_>,
    again: impl FnOnce(&mut Session<'_>) -> io::Result<Finished>,
) -> Finding {
    if !fresh.finished.status.success() {
        return check_failure(session, record, fresh, again);
    }
    match weigh(session, record, fresh, again) {
        Ok(Verdict::Equal) => Finding::new("verified", "", record),
        Ok(Verdict::NotReproducible(names)) => {
            Finding::new("not-reproducible", listed(&names), record)
        }
        Ok(Verdict::Wrong(names)) => {
            let how = quarantine(session, record, &listed(&names));
            Finding::new("verify-differs", format!("{}; {how}", listed(&names)), record)
        }
        Err(unknown) => Finding::none(unknown.reason, unknown.detail),
    }
}

/// The finding where there is no point in file time to tell new outputs by.
pub fn unable(finished: &Finished, why: &io::Error) -> Finding {
    match finished.status.success() {
        true => Finding::none("not-verified", format!("no file time: {why}")),
        false => Finding::none("compile-failed", ""),
    }
}

/// How a record did.
enum Verdict {
    /// A restore would have put back what the compiler made.
    Equal,
    /// The compiler makes something else each time, in these outputs.
    NotReproducible(Vec<String>),
    /// The compiler makes the same each time, and the record has something else in these outputs.
    Wrong(Vec<String>),
}

fn unverified(error: impl ToString) -> Unknown {
    Unknown { reason: "not-verified", detail: error.to_string() }
}

fn weigh(
    session: &mut Session<'_>,
    record: &Record,
    fresh: &Fresh<'_>,
    again: impl FnOnce(&mut Session<'_>) -> io::Result<Finished>,
) -> Result<Verdict, Unknown> {
    let out_dir = session.unit.out_dir.clone();
    session.memo.probe(&out_dir);
    let made = outputs::collect(&session.unit, fresh.started_ns).map_err(unverified)?;
    let first = Seen::of_run(session, fresh.finished, &made)?;
    let differing = first.differing(&Seen::of_record(session, record)?);
    if differing.is_empty() {
        return Ok(Verdict::Equal);
    }
    // Otherwise the compiler read something else than the lookup.
    unchanged(session, record, fresh.started_ns)?;
    let second = {
        let _aside = Aside::take(&out_dir, &made).map_err(unverified)?;
        let since_ns = stamp::barrier(&fresh.private.join("stamp")).map_err(unverified)?;
        let finished = again(session).map_err(unverified)?;
        let new = outputs::collect(&session.unit, since_ns).map_err(unverified)?;
        let second = match finished.status.success() {
            true => Some(Seen::of_run(session, &finished, &new)?),
            false => None,
        };
        for file in new.iter().filter(|new| made.iter().all(|first| first.name != new.name)) {
            let _ = std::fs::remove_file(&file.path);
        }
        second
    };
    unchanged(session, record, fresh.started_ns)?;
    Ok(verdict(differing, second.map(|second| first.differing(&second))))
}

/// What the outputs that differ from the record prove; `unsteady` are those in which two fresh runs
/// differ, none when the second one failed.
fn verdict(differing: BTreeSet<String>, unsteady: Option<BTreeSet<String>>) -> Verdict {
    let steady: Vec<String> = match &unsteady {
        Some(unsteady) => differing.difference(unsteady).cloned().collect(),
        None => Vec::new(),
    };
    match steady.is_empty() {
        true => Verdict::NotReproducible(differing.into_iter().collect()),
        false => Verdict::Wrong(steady),
    }
}

/// The compile failed, though a result of it is stored. A hit for what does not compile is as wrong
/// as any; but a compiler that was killed, or has no room, says nothing of the crate.
fn check_failure(
    session: &mut Session<'_>,
    record: &Record,
    fresh: &Fresh<'_>,
    again: impl FnOnce(&mut Session<'_>) -> io::Result<Finished>,
) -> Finding {
    let first = fresh.finished.status;
    let judged = (|| {
        if first.code().is_none() {
            return Err(unverified("a result is stored, but the compiler was killed"));
        }
        if !has_room(session) {
            return Err(unverified("a result is stored, but the compiler had little room"));
        }
        let second = again(session).map_err(unverified)?;
        unchanged(session, record, fresh.started_ns)?;
        match second.status == first {
            true => Ok(()),
            false => Err(unverified("a result is stored; a second run did not fail likewise")),
        }
    })();
    match judged {
        Ok(()) => {
            let what = "a result is stored, but the crate does not compile";
            let how = quarantine(session, record, what);
            Finding::new("compile-failed", format!("{what}; {how}"), record)
        }
        Err(unknown) => Finding::none("compile-failed", unknown.detail),
    }
}

/// Whether a compile finds room for its files.
fn has_room(session: &Session<'_>) -> bool {
    let tmp = session.env.absolute("TMPDIR").unwrap_or_else(|| "/tmp".into());
    [session.unit.out_dir.as_path(), &tmp].into_iter().all(|dir| {
        rustix::fs::statvfs(dir)
            .is_ok_and(|fs| fs.f_bavail.saturating_mul(fs.f_frsize) >= MIN_VERIFY_ROOM_BYTES)
    })
}

/// Whether the record still holds here, and nothing it names changed since the compiler was started.
fn unchanged(session: &Session<'_>, record: &Record, started_ns: i128) -> Result<(), Unknown> {
    let values = publish::evaluate(session, &record.members, started_ns)?;
    match record.members.iter().zip(record.values.iter().zip(&values)).find(|(_, (a, b))| a != b) {
        None => Ok(()),
        Some((member, _)) => Err(Unknown {
            reason: "input-changed-meanwhile",
            detail: crate::lookup::describe(member),
        }),
    }
}

/// What a run or a restore leaves, written for this place.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    /// Whether it is executable, and what is in it, by name.
    outputs: BTreeMap<String, (bool, Content)>,
    stdout: String,
    stderr: String,
}

impl Seen {
    /// What a restore of the record would leave.
    fn of_record(session: &Session<'_>, record: &Record) -> Result<Self, Unknown> {
        let fill = |template: &str, escape| session.roots.fill(template, escape).ok_or_else(odd);
        let mut outputs = BTreeMap::new();
        for output in &record.outputs {
            let content = match &output.content {
                Content::Text(template) => Content::Text(fill(template, Escape::DepInfo)?),
                other => other.clone(),
            };
            outputs.insert(output.name.clone(), (output.executable, content));
        }
        let escape = publish::escape(session);
        let (stdout, stderr) = (fill(&record.stdout, escape)?, fill(&record.stderr, escape)?);
        Ok(Self { outputs, stdout, stderr })
    }

    /// What a run left.
    fn of_run(session: &Session<'_>, finished: &Finished, made: &[Made]) -> Result<Self, Unknown> {
        let unreadable =
            |error: io::Error| Unknown { reason: "unreadable-output", detail: error.to_string() };
        let mut outputs = BTreeMap::new();
        for file in made {
            let content = if file.name.ends_with(".d") {
                let text = std::fs::read_to_string(&file.path).map_err(unreadable)?;
                Content::Text(as_restored(session, &text, Escape::DepInfo)?)
            } else {
                let Scanned { digest, size, .. } =
                    publish::hash(session, &file.path, &Needles::new([])).map_err(unreadable)?;
                Content::Blob { digest, size }
            };
            outputs.insert(file.name.clone(), (file.executable, content));
        }
        let escape = publish::escape(session);
        let text = |text: &Option<String>| {
            let long =
                || Unknown { reason: "long-output", detail: "over its bound or not UTF-8".into() };
            as_restored(session, text.as_ref().ok_or_else(long)?, escape)
        };
        Ok(Self { outputs, stdout: text(&finished.stdout)?, stderr: text(&finished.stderr)? })
    }

    /// In what two of them differ, by name.
    fn differing(&self, other: &Self) -> BTreeSet<String> {
        let names = self.outputs.keys().chain(other.outputs.keys());
        let differs = |name: &&String| self.outputs.get(*name) != other.outputs.get(*name);
        let mut differing: BTreeSet<String> = names.filter(differs).cloned().collect();
        let streams =
            [(STDOUT, &self.stdout, &other.stdout), (STDERR, &self.stderr, &other.stderr)];
        let streams = streams.into_iter().filter(|(_, a, b)| a != b);
        differing.extend(streams.map(|(name, _, _)| name.to_owned()));
        differing
    }
}

fn odd() -> Unknown {
    Unknown { reason: "odd-output", detail: "cannot be written for this place".into() }
}

/// A text as it would be after it was stored and restored here: with every place by its real name.
fn as_restored(session: &Session<'_>, text: &str, escape: Escape) -> Result<String, Unknown> {
    let template = session.roots.template(text, escape).ok_or_else(odd)?;
    session.roots.fill(&template, escape).ok_or_else(odd)
}

/// The outputs of the first run, out of the way of the second; back when it is dropped.
struct Aside {
    dir: PathBuf,
    /// Where they are and where they belong.
    moved: Vec<(PathBuf, PathBuf)>,
}

impl Aside {
    fn take(out_dir: &Path, made: &[Made]) -> io::Result<Self> {
        let dir = out_dir.join(format!(".kiln-first-{}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        let mut aside = Self { dir, moved: Vec::new() };
        for file in made {
            let to = aside.dir.join(&file.name);
            std::fs::rename(&file.path, &to)?;
            aside.moved.push((to, file.path.clone()));
        }
        Ok(aside)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        for (from, to) in &self.moved {
            let _ = std::fs::rename(from, to);
        }
        let _ = std::fs::remove_dir(&self.dir);
    }
}

/// Has the server forget a result for good; what became of that, for people.
fn quarantine(session: &mut Session<'_>, record: &Record, what: &str) -> String {
    if session.config.mode == Mode::Read {
        return "not quarantined, since KILN_MODE=read stores nothing".into();
    }
    let path = format!("/v1/results/{}/quarantine", record.result_key);
    let request = QuarantineRequest { unit: session.named.name.clone(), reason: what.to_owned() };
    let body = serde_json::to_vec(&request).unwrap_or_default();
    let asked = session
        .connect()
        .and_then(|client| client.request("POST", &path, &body, limits::LOOKUP_TIMEOUT));
    match asked {
        Ok(_) => "quarantined".into(),
        Err(error) => {
            session.client = None;
            format!("not quarantined for good: {error}")
        }
    }
}

/// Some names, for people.
fn listed(names: &[String]) -> String {
    let mut text = names.iter().take(MAX_NAMED_OUTPUTS).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > MAX_NAMED_OUTPUTS {
        text.push_str(&format!(" and {} more", names.len() - MAX_NAMED_OUTPUTS));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_storage::Digest;

    fn chosen(percent: &str, build: &str) -> Vec<u32> {
        let share: Percent = percent.parse().unwrap();
        let key = |n: &u32| ResultKey::new(Digest::of(&n.to_le_bytes()));
        (0..1000).filter(|n| chooses(share, &key(n), build)).collect()
    }

    #[test]
    fn a_share_is_what_it_says_and_each_build_has_its_own() {
        assert_eq!(chosen("0%", "a").len(), 0);
        assert_eq!(chosen("100%", "a").len(), 1000);
        for (percent, want) in [("10%", 60..140), ("50%", 440..560), ("90%", 860..940)] {
            assert!(want.contains(&chosen(percent, "a").len()), "{percent}");
        }
        assert_eq!(chosen("50%", "a"), chosen("50%", "a"));
        assert_ne!(chosen("50%", "a"), chosen("50%", "b"));
        let half = chosen("50%", "a");
        assert!(chosen("10%", "a").iter().all(|n| half.contains(n)), "a larger share has it too");
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_two_fresh_runs_agree_on_is_proof() {
        let wrong = |differing: &[&str], unsteady: Option<&[&str]>| match verdict(
            names(differing),
            unsteady.map(names),
        ) {
            Verdict::Wrong(names) => Some(names),
            _ => None,
        };
        assert_eq!(wrong(&["a", "b"], Some(&["b"])), Some(vec!["a".to_owned()]));
        assert_eq!(wrong(&["a"], Some(&[])), Some(vec!["a".to_owned()]));
        assert_eq!(wrong(&["a"], Some(&["a", "b"])), None);
        assert_eq!(wrong(&["a"], None), None);
    }

    #[test]
    fn every_kind_of_difference_is_named() {
        let blob = |text: &str| Content::Blob { digest: Digest::of(text.as_bytes()), size: 1 };
        let seen = |outputs: &[(&str, bool, &str)], stderr: &str| Seen {
            outputs: outputs.iter().map(|(n, x, c)| (n.to_string(), (*x, blob(c)))).collect(),
            stdout: String::new(),
            stderr: stderr.into(),
        };
        let one = seen(&[("a", false, "1"), ("b", false, "1")], "x");
        assert_eq!(one.differing(&one), names(&[]));
        let other = seen(&[("a", false, "2"), ("b", true, "1"), ("c", false, "1")], "y");
        let want = names(&["a", "b", "c", STDERR]);
        assert_eq!(one.differing(&other), want);
        assert_eq!(other.differing(&one), want);
    }

    #[test]
    fn the_first_outputs_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("libx.rlib");
        std::fs::write(&path, "first").unwrap();
        let made = [Made { name: "libx.rlib".into(), path: path.clone(), executable: false }];
        let aside = Aside::take(dir.path(), &made).unwrap();
        assert!(!path.exists());
        std::fs::write(&path, "second").unwrap();
        drop(aside);
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn long_lists_are_cut() {
        let many: Vec<String> = (0..MAX_NAMED_OUTPUTS + 3).map(|n| n.to_string()).collect();
        assert!(listed(&many).ends_with(" and 3 more"), "{}", listed(&many));
        assert_eq!(listed(&many[..2]), "0, 1");
    }
}
