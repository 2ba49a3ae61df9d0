//! What is fetched ahead, and when that stops: pure policy. [`super::ahead`] acts on it.
//!
//! A job leaves a [`Note`] of the results that it used, in that order. The next run of the job fetches them
//! before they are asked for, within a budget of bytes that follows how much of it was of use.

use std::collections::HashSet;

use bytes::Bytes;
use kiln_storage::remote::ResultName;
use kiln_storage::{Digest, ResultKey, Scope, UnitKey};
use serde::{Deserialize, Serialize};

use super::batches::{Batch, Batches};

use crate::limits::{
    AHEAD_BYTES, AHEAD_ENOUGH_ASKED, AHEAD_LARGE_BYTES, AHEAD_MEASURED_BYTES, AHEAD_PACK_BYTES,
    AHEAD_REST_RUNS, AHEAD_UNUSED_RUNS, MAX_AHEAD_RESULTS,
};

/// Longest note before it is compressed, bytes.
const MAX_NOTE_TEXT_BYTES: usize = 4 * 1024 * 1024;

/// Version of the note; another one is none.
const VERSION: u32 = 2;

/// What a job used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    version: u32,
    /// Bytes that may be fetched ahead.
    budget: u64,
    /// Runs for which nothing is fetched ahead, after it was of no use.
    rest: u32,
    scopes: Vec<Scope>,
    results: Vec<Row>,
    /// Packs that hold results.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    batches: Vec<Batch>,
}

/// Scope (by its place), unit, result, generation, for how many runs it was not used, and the batch that holds it
/// (by its place, from 1; 0: none) with its bytes there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Row(usize, UnitKey, ResultKey, u32, u32, usize, u64);

/// What fetching ahead brought in a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Yield {
    /// Bytes fetched.
    pub fetched: u64,
    /// Bytes of these in results that were used.
    pub used: u64,
}

impl Note {
    /// Reads a note; one that is damaged or of another version is none.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let text = zstd::bulk::decompress(bytes, MAX_NOTE_TEXT_BYTES).ok()?;
        let note: Self = serde_json::from_slice(&text).ok()?;
        let well = note.version == VERSION && note.results.len() <= MAX_AHEAD_RESULTS;
        let placed = note.results.iter().all(|row| row.0 < note.scopes.len());
        (well && placed).then_some(note)
    }

    /// The note as it is kept. What cannot be encoded is none when it is read.
    pub(crate) fn encode(&self) -> Bytes {
        let text = serde_json::to_vec(self).unwrap_or_default();
        zstd::bulk::compress(&text, 0).unwrap_or_default().into()
    }

    /// Leaves out what was used last.
    pub(crate) fn halve(&mut self) {
        self.results.truncate(self.results.len() / 2);
    }

    /// Whether it has all results of another note as used, and its budget: then nothing is new in that.
    pub(crate) fn says_as_much_as(&self, other: &Self) -> bool {
        let used = |note: &Self| -> HashSet<ResultKey> {
            note.results.iter().filter(|row| row.4 == 0).map(|row| row.2).collect()
        };
        let same = (self.budget, self.rest, self.results.len());
        same == (other.budget, other.rest, other.results.len())
            && self.batches == other.batches
            && used(self) == used(other)
    }

    /// The packs that hold its results.
    pub(crate) fn batches(&self) -> Batches {
        let placed = |row: &Row| Some((row.2, (row.5.checked_sub(1)?, row.6)));
        Batches::new(self.batches.clone(), self.results.iter().filter_map(placed))
    }

    /// The same, with other packs.
    pub(crate) fn with_batches(mut self, batches: &Batches) -> Self {
        self.batches = batches.all().to_vec();
        for row in &mut self.results {
            (row.5, row.6) = batches.of(&row.2).map_or((0, 0), |(place, bytes)| (place + 1, bytes));
        }
        self
    }

    /// The results, in the order they were used.
    pub(crate) fn names(&self) -> Vec<ResultName> {
        let name = |row: &Row| {
            let scope = self.scopes.get(row.0)?.clone();
            Some(ResultName { scope, unit: row.1, result: row.2, generation: row.3 })
        };
        self.results.iter().filter_map(name).collect()
    }

    /// Bytes that may be fetched ahead now.
    pub(crate) fn budget(&self) -> u64 {
        if self.rest > 0 { 0 } else { self.budget.min(AHEAD_BYTES) }
    }
}

/// The note that a run leaves: what it used, then for a few runs what earlier ones used.
pub(crate) fn next_note(previous: Option<&Note>, used: &[ResultName], brought: Yield) -> Note {
    let (budget, rest) = next_budget(previous, brought);
    let mut note = Note { version: VERSION, budget, rest, ..Note::default() };
    let mut seen = HashSet::new();
    let older = previous.into_iter().flat_map(|previous| {
        let unused = previous.results.iter().map(|row| row.4 + 1);
        previous.names().into_iter().zip(unused).collect::<Vec<_>>()
    });
    let all = used.iter().cloned().map(|name| (name, 0)).chain(older);
    for (name, unused) in all {
        if note.results.len() == MAX_AHEAD_RESULTS {
            break;
        }
        if unused > AHEAD_UNUSED_RUNS || !seen.insert(name.result) {
            continue;
        }
        let place = note.scopes.iter().position(|scope| *scope == name.scope);
        let place = place.unwrap_or_else(|| {
            note.scopes.push(name.scope.clone());
            note.scopes.len() - 1
        });
        note.results.push(Row(place, name.unit, name.result, name.generation, unused, 0, 0));
    }
    note
}

/// The budget of the next run, and for how many runs it rests.
fn next_budget(previous: Option<&Note>, brought: Yield) -> (u64, u32) {
    let Some(previous) = previous else { return (AHEAD_BYTES, 0) };
    if previous.rest > 0 {
        return (previous.budget, previous.rest - 1);
    }
    if brought.fetched < AHEAD_MEASURED_BYTES {
        return (previous.budget, 0);
    }
    match brought.used.saturating_mul(100) / brought.fetched {
        // A quarter of it is what a first try may take after a rest.
        0..25 => (AHEAD_BYTES / 4, AHEAD_REST_RUNS),
        25..50 => ((previous.budget / 2).max(AHEAD_MEASURED_BYTES), 0),
        _ => (previous.budget.saturating_mul(2).min(AHEAD_BYTES), 0),
    }
}

/// Whether fetching goes on in a run whose units were asked for so often, and were in the note so often.
pub(crate) fn goes_on(asked: u64, expected: u64) -> bool {
    asked < AHEAD_ENOUGH_ASKED || expected * 4 >= asked
}

/// What is fetched, in order: many small blobs at a time, and large ones beside them, so that neither
/// waits for the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Blobs that are asked for together.
    pub packs: Vec<Vec<(Digest, u64)>>,
    /// Blobs that are asked for one by one.
    pub large: Vec<(Digest, u64)>,
}

/// A plan for blobs in the order they will be needed. The first one over the budget ends it.
pub(crate) fn plan(blobs: &[(Digest, u64)], budget: u64) -> Plan {
    let mut plan = Plan::default();
    let (mut left, mut pack, mut pack_bytes) = (budget, Vec::new(), 0);
    let mut seen = HashSet::new();
    for &(digest, size) in blobs {
        if !seen.insert(digest) {
            continue;
        }
        if size > left {
            break;
        }
        left -= size;
        if size > AHEAD_LARGE_BYTES {
            plan.large.push((digest, size));
            continue;
        }
        pack.push((digest, size));
        pack_bytes += size;
        if pack_bytes >= AHEAD_PACK_BYTES {
            plan.packs.push(std::mem::take(&mut pack));
            pack_bytes = 0;
        }
    }
    if !pack.is_empty() {
        plan.packs.push(pack);
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(n: u64) -> ResultName {
        let digest = Digest::of(&n.to_le_bytes());
        let scope = Scope::new("r", if n.is_multiple_of(2) { "main" } else { "other" });
        let (unit, result) = (UnitKey::new(digest), ResultKey::new(digest));
        ResultName { scope, unit, result, generation: 1 }
    }

    fn names(range: std::ops::Range<u64>) -> Vec<ResultName> {
        range.map(name).collect()
    }

    #[test]
    fn a_note_has_what_was_used_in_order_and_then_what_was_used_before() {
        let first = next_note(None, &names(0..4), Yield::default());
        assert_eq!(first.names(), names(0..4));
        assert_eq!(Note::parse(&first.encode()), Some(first.clone()));
        let mut note = next_note(Some(&first), &names(3..6), Yield::default());
        assert_eq!(note.names(), [names(3..6), names(0..3)].concat());
        for _ in 1..=AHEAD_UNUSED_RUNS {
            note = next_note(Some(&note), &names(3..6), Yield::default());
        }
        assert_eq!(note.names(), names(3..6));
    }

    #[test]
    fn notes_are_bounded_and_foreign_ones_are_none() {
        let many = names(0..MAX_AHEAD_RESULTS as u64 + 10);
        let note = next_note(None, &many, Yield::default());
        assert_eq!(note.names().len(), MAX_AHEAD_RESULTS);
        assert!(note.encode().len() <= kiln_storage::limits::MAX_NOTE_BYTES);
        for bad in ["", "{}", r#"{"version":1,"budget":1,"rest":0,"scopes":[],"results":[]}"#] {
            assert_eq!(Note::parse(bad.as_bytes()), None);
            assert_eq!(Note::parse(&zstd::bulk::compress(bad.as_bytes(), 0).unwrap()), None);
        }
    }

    #[test]
    fn a_note_that_says_nothing_new_is_told_from_one_that_does() {
        let note = next_note(None, &names(0..4), Yield::default());
        let order: Vec<_> = names(0..4).into_iter().rev().collect();
        assert!(note.says_as_much_as(&next_note(Some(&note), &order, Yield::default())));
        assert!(!note.says_as_much_as(&next_note(Some(&note), &names(0..5), Yield::default())));
        assert!(!note.says_as_much_as(&next_note(Some(&note), &names(0..3), Yield::default())));
        let useless = Yield { fetched: AHEAD_MEASURED_BYTES * 100, used: 0 };
        assert!(!note.says_as_much_as(&next_note(Some(&note), &names(0..4), useless)));
        let mut half = note.clone();
        half.halve();
        assert_eq!(half.names(), names(0..2));
        // A thousand results have to fit where notes are small.
        let many = next_note(None, &names(0..1000), Yield::default());
        assert!(many.encode().len() < 96 * 1024, "{}", many.encode().len());
    }

    #[test]
    fn what_is_of_no_use_stops_and_is_tried_again() {
        let fetched = |used_percent| Yield {
            fetched: AHEAD_MEASURED_BYTES * 100,
            used: AHEAD_MEASURED_BYTES * used_percent,
        };
        let first = next_note(None, &names(0..4), Yield::default());
        assert_eq!(first.budget(), AHEAD_BYTES);
        let half = next_note(Some(&first), &names(0..4), fetched(30));
        assert_eq!(half.budget(), AHEAD_BYTES / 2);
        let full = next_note(Some(&half), &names(0..4), fetched(90));
        assert_eq!(full.budget(), AHEAD_BYTES);
        let mut useless = next_note(Some(&first), &names(0..4), fetched(3));
        for _ in 0..AHEAD_REST_RUNS {
            assert_eq!(useless.budget(), 0);
            useless = next_note(Some(&useless), &names(0..4), Yield::default());
        }
        assert_eq!(useless.budget(), AHEAD_BYTES / 4);
        // Too little was fetched to say anything.
        let little = Yield { fetched: AHEAD_MEASURED_BYTES - 1, used: 0 };
        assert_eq!(next_note(Some(&first), &[], little).budget(), AHEAD_BYTES);
    }

    #[test]
    fn a_run_of_other_units_stops_it() {
        assert!(goes_on(0, 0) && goes_on(AHEAD_ENOUGH_ASKED - 1, 0));
        assert!(!goes_on(AHEAD_ENOUGH_ASKED, 0));
        assert!(goes_on(AHEAD_ENOUGH_ASKED * 4, AHEAD_ENOUGH_ASKED));
    }

    #[test]
    fn large_blobs_keep_no_small_one_waiting() {
        let blob = |n: u8, size| (Digest::of(&[n]), size);
        let (small, large) = (AHEAD_LARGE_BYTES, AHEAD_LARGE_BYTES + 1);
        let full = u8::try_from(AHEAD_PACK_BYTES / small).unwrap();
        let mut blobs = vec![blob(1, 10), blob(2, large), blob(1, 10)];
        blobs.extend((10..10 + full).map(|n| blob(n, small)));
        blobs.extend([blob(5, 1), blob(6, large)]);
        let whole = plan(&blobs, u64::MAX);
        assert_eq!(whole.large, [blob(2, large), blob(6, large)]);
        let packs: Vec<usize> = whole.packs.iter().map(Vec::len).collect();
        assert_eq!(packs, [usize::from(full) + 1, 1]);
        let cut = plan(&blobs, large + 10);
        assert_eq!((cut.large, cut.packs), (vec![blob(2, large)], vec![vec![blob(1, 10)]]));
        assert_eq!(plan(&blobs, 0), Plan::default());
    }
}
