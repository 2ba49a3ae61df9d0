//! What things are called in the bucket: the only place that makes or reads these names. Called by the rest
//! of [`super`] and by [`crate::remote::collect`]. No I/O.
//!
//! | name | what |
//! |---|---|
//! | `results/<format>/<scope>/<xx>/<unit>/<result>.<generation>` | a result: its record and small blobs |
//! | `packed/<xx>/<digest>` | a blob of up to 64 MiB in a frame |
//! | `blobs/<xx>/<digest>` | a larger blob, raw |
//! | `notes/<scope>/<name>/<order>-<chance>` | a note; the least name is the newest |
//! | `together/<scope>/<name>/<order>-<chance>` | a pack of what the job of a note uses |
//! | `rejected/<scope>/<result>.<generation>` | that no pack may give this result any more |
//! | `used/<scope>/<day>/<order>-<chance>` | results that were used |
//! | `collecting/<order>-<chance>` | blobs that somebody is about to delete |
//! | `collecting/<order>-<chance>.done` | that they are deleted, or spared |
//! | `events/<scope>/<run>/<job>-<digest>` | what became of some units of a job |
//! | `pins/<scope>/<result>` | a result that is to stay; of any content |

use crate::digest::Digest;
use crate::encode::Encoder;
use crate::key::{ObjectName, ResultKey, Scope, UnitKey};
use crate::limits;
use crate::record::RECORD_VERSION;
use crate::remote::ResultName;

/// Version of the layout and of what results hold, beside that of the record: another version sees no
/// result of this one, and takes none for damaged.
const LAYOUT_VERSION: u32 = 1;

/// The prefix of all results, of any format.
pub(crate) const RESULTS: &str = "results/";
/// The prefix of framed blobs.
pub(crate) const PACKED: &str = "packed/";
/// The prefix of raw blobs.
pub(crate) const RAW: &str = "blobs/";
/// The prefix of what was used.
pub(crate) const USED: &str = "used/";
/// The prefix of packs.
pub(crate) const TOGETHER: &str = "together/";
/// The prefix of what is rejected.
pub(crate) const REJECTED: &str = "rejected/";
/// The prefix of what is about to be deleted.
pub(crate) const COLLECTING: &str = "collecting/";
/// The prefix of what became of units.
pub(crate) const EVENTS: &str = "events/";
/// The prefix of results that are to stay.
pub(crate) const PINS: &str = "pins/";

/// A name made of parts that are known to fit the grammar.
fn name(text: String) -> ObjectName {
    // Everything that is joined here is hexadecimal, a number, or a word of this file.
    text.parse().unwrap_or_else(|_| ObjectName::blob(&Digest::of(text.as_bytes())))
}

/// The prefix of the results of this format; ends with `/`.
pub(crate) fn format_prefix() -> String {
    format!("{RESULTS}{LAYOUT_VERSION}.{RECORD_VERSION}/")
}

/// The prefix of the results of a unit in a scope; ends with `/`.
pub(crate) fn unit_prefix(scope: &Scope, unit: &UnitKey) -> String {
    let hex = unit.to_string();
    format!("{}{}/{}/{hex}/", format_prefix(), scope.id(), &hex[..2])
}

/// The object of a result.
pub(crate) fn result(of: &ResultName) -> ObjectName {
    let prefix = unit_prefix(&of.scope, &of.unit);
    name(format!("{prefix}{}.{}", of.result, of.generation))
}

/// Result and generation, of a name below a unit's prefix.
pub(crate) fn parse_result(below_unit: &str) -> Option<(ResultKey, u32)> {
    let (result, generation) = below_unit.split_once('.')?;
    Some((result.parse().ok()?, generation.parse().ok()?))
}

/// What the name of a result's object says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ResultObject {
    /// Whether it is of the format that is read here.
    pub(crate) readable: bool,
    /// The scope, by its id.
    pub(crate) scope_id: String,
    pub(crate) unit: UnitKey,
    pub(crate) result: ResultKey,
    pub(crate) generation: u32,
}

/// Takes the name of a result's object apart, of any format.
pub(crate) fn parse_whole(object: &ObjectName) -> Option<ResultObject> {
    let readable = object.as_str().starts_with(&format_prefix());
    let mut parts = object.as_str().strip_prefix(RESULTS)?.splitn(5, '/').skip(1);
    let (scope_id, _, unit) = (parts.next()?, parts.next()?, parts.next()?);
    let (result, generation) = parse_result(parts.next()?)?;
    let (scope_id, unit) = (scope_id.to_owned(), unit.parse().ok()?);
    Some(ResultObject { readable, scope_id, unit, result, generation })
}

/// The object of a blob, and whether it is framed there.
pub(crate) fn blob(digest: &Digest, size: u64) -> (ObjectName, bool) {
    if size > limits::MAX_FRAMED_BLOB_BYTES as u64 {
        return (ObjectName::blob(digest), false);
    }
    let hex = digest.to_string();
    (name(format!("{PACKED}{}/{hex}", &hex[..2])), true)
}

/// The digest of an object that is a blob, framed or raw.
pub(crate) fn parse_blob(object: &ObjectName) -> Option<Digest> {
    let text = object.as_str();
    let rest = text.strip_prefix(PACKED).or_else(|| text.strip_prefix(RAW))?;
    rest.split_once('/')?.1.parse().ok()
}

/// The prefix of the versions of a note; ends with `/`.
pub(crate) fn note_prefix(scope: &Scope, note: &str) -> String {
    format!("notes/{}/{}/", scope.id(), note_id(note))
}

fn note_id(note: &str) -> String {
    brief_id("kiln note v1", note)
}

/// The prefix of the packs of a note; ends with `/`.
pub(crate) fn together_prefix(scope: &Scope, note: &str) -> String {
    format!("{TOGETHER}{}/{}/", scope.id(), note_id(note))
}

/// Scope id and time of a pack.
pub(crate) fn parse_together(object: &ObjectName) -> Option<(String, u64)> {
    let (scope, _) = object.as_str().strip_prefix(TOGETHER)?.split_once('/')?;
    Some((scope.to_owned(), parse_timed(object)?))
}

/// The prefix of what is rejected in a scope; ends with `/`.
pub(crate) fn rejected_prefix(scope_id: &str) -> String {
    format!("{REJECTED}{scope_id}/")
}

/// The object that says that a result is rejected.
pub(crate) fn rejected(of: &ResultName) -> ObjectName {
    name(format!("{}{}.{}", rejected_prefix(&of.scope.id()), of.result, of.generation))
}

/// A name of something that a writer has at a time, below a prefix: later ones sort first, and two of one
/// moment are two.
pub(crate) fn timed(prefix: &str, at_ms: u64, chance: u64) -> ObjectName {
    name(format!("{prefix}{:016x}-{chance:016x}", u64::MAX - at_ms))
}

/// The time in a name of [`timed`], and in what is named after it.
pub(crate) fn parse_timed(object: &ObjectName) -> Option<u64> {
    let (_, last) = object.as_str().rsplit_once('/')?;
    let (order, _) = last.split_once('-')?;
    Some(u64::MAX - u64::from_str_radix(order, 16).ok()?)
}

/// The object that says that the deletions of an announcement are over.
pub(crate) fn done(announcement: &ObjectName) -> ObjectName {
    name(format!("{announcement}.done"))
}

/// The prefix of what was used in a scope on a day (days since 1970); ends with `/`.
pub(crate) fn used_prefix(scope_id: &str, day: u64) -> String {
    format!("{USED}{scope_id}/{day:08}/")
}

/// Scope id and day of an object of what was used.
pub(crate) fn parse_used(object: &ObjectName) -> Option<(String, u64)> {
    let mut parts = object.as_str().strip_prefix(USED)?.split('/');
    Some((parts.next()?.to_owned(), parts.next()?.parse().ok()?))
}

/// The prefix of what became of the units of a run; ends with `/`.
pub(crate) fn events_prefix(scope: &Scope, run: &str) -> String {
    format!("{EVENTS}{}/{}/", scope.id(), brief_id("kiln run v1", run))
}

/// The object of some events of a job, by their digest.
pub(crate) fn events(scope: &Scope, run: &str, job: &str, digest: &Digest) -> ObjectName {
    let prefix = events_prefix(scope, run);
    name(format!("{prefix}{}-{digest}", brief_id("kiln job v1", job)))
}

/// Scope id of an object of events.
pub(crate) fn parse_events(object: &ObjectName) -> Option<String> {
    let mut parts = object.as_str().strip_prefix(EVENTS)?.split('/');
    let (scope, _run, batch) = (parts.next()?, parts.next()?, parts.next()?);
    let (_, digest) = batch.split_once('-')?;
    let well = parts.next().is_none() && digest.parse::<Digest>().is_ok();
    well.then(|| scope.to_owned())
}

/// A name of 32 characters for a text of any kind.
fn brief_id(domain: &str, text: &str) -> String {
    let mut encoder = Encoder::new(domain);
    encoder.text("name", text);
    let mut hex = encoder.finish().to_string();
    hex.truncate(32);
    hex
}

/// The object that keeps a result.
pub(crate) fn pin(scope: &Scope, result: &ResultKey) -> ObjectName {
    name(format!("{PINS}{}/{result}", scope.id()))
}

/// Scope id and result of a pin.
pub(crate) fn parse_pin(object: &ObjectName) -> Option<(String, ResultKey)> {
    let (scope, result) = object.as_str().strip_prefix(PINS)?.split_once('/')?;
    Some((scope.to_owned(), result.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_made() {
        let scope = Scope::new("o/r", "refs/heads/main");
        let digest = Digest::of(b"x");
        let of = ResultName {
            scope: scope.clone(),
            unit: UnitKey::new(digest),
            result: ResultKey::new(Digest::of(b"y")),
            generation: 7,
        };
        let object = result(&of);
        assert!(object.as_str().starts_with(&unit_prefix(&scope, &of.unit)));
        let parsed = parse_whole(&object).unwrap();
        let expected = ResultObject {
            readable: true,
            scope_id: scope.id(),
            unit: of.unit,
            result: of.result,
            generation: 7,
        };
        assert_eq!(parsed, expected);
        let older = object.as_str().replace(&format_prefix(), "results/0.1/").parse().unwrap();
        assert_eq!(parse_whole(&older), Some(ResultObject { readable: false, ..expected }));
        for size in [0, limits::MAX_FRAMED_BLOB_BYTES as u64, limits::MAX_BLOB_BYTES] {
            assert_eq!(parse_blob(&blob(&digest, size).0), Some(digest));
        }
        let pinned = pin(&scope, &of.result);
        assert_eq!(parse_pin(&pinned), Some((scope.id(), of.result)));
        let note = timed(&note_prefix(&scope, "Any Name! ü"), 5, 1);
        assert_eq!(parse_timed(&note), Some(5));
        let packs = timed(&together_prefix(&scope, "Any Name! ü"), 5, 1);
        assert_eq!(parse_together(&packs), Some((scope.id(), 5)));
        let rejected = rejected(&of);
        let below = rejected.as_str().strip_prefix(&rejected_prefix(&scope.id())).unwrap();
        assert_eq!(parse_result(below), Some((of.result, 7)));
        let used = timed(&used_prefix(&scope.id(), 20_000), 5, 1);
        assert_eq!(parse_used(&used), Some((scope.id(), 20_000)));
        let batch = events(&scope, "Any Run! ü", "a/b", &digest);
        assert!(batch.as_str().starts_with(&events_prefix(&scope, "Any Run! ü")));
        assert_eq!((parse_events(&batch), parse_events(&note)), (Some(scope.id()), None));
        assert_eq!(parse_whole(&note), None);
        assert_eq!(parse_blob(&note), None);
    }

    #[test]
    fn later_names_sort_first() {
        let at = |ms| timed("notes/a/b/", ms, 0);
        assert!(at(2) < at(1) && at(1_700_000_000_000) < at(1_600_000_000_000));
    }
}
