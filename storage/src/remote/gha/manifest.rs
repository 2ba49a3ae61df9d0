//! [`Manifest`]: what is stored in one scope, and where.
//!
//! Pure: merging, pruning, and (in `codec`) the stored form. Each writer writes a manifest under the next
//! number, with all that the earlier ones had. Writers that run at once may write theirs without having seen
//! each other's; so a manifest says which numbers it has seen, and merging is a least upper bound: whatever
//! was merged with what, in whatever order and however often, the outcome is the same. What makes a manifest
//! smaller is done apart, by [`Manifest::prune`], and by writers only.

mod codec;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::limits;
use super::pack::{PackId, PackIndex};

pub use codec::{ManifestError, decode, encode};

/// Which manifest numbers were merged: all up to the highest, but for those that are missing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    high: u64,
    /// The missing ones, and when each was first missed.
    missing: BTreeMap<u64, u64>,
}

impl Seen {
    /// The highest number that is known to exist.
    pub fn high(&self) -> u64 {
        self.high
    }

    /// The numbers that exist and were not merged, and when they were first missed.
    pub fn missing(&self) -> &BTreeMap<u64, u64> {
        &self.missing
    }

    /// Whether a number was merged (or given up).
    pub fn has(&self, number: u64) -> bool {
        number <= self.high && !self.missing.contains_key(&number)
    }

    /// A number was merged.
    pub fn add(&mut self, number: u64, now_ms: u64) {
        self.miss(number, now_ms);
        self.missing.remove(&number);
    }

    /// A number is known to exist; it is missing unless it was merged before. So are those below it.
    pub fn miss(&mut self, number: u64, now_ms: u64) {
        // Of a jump, only so many are remembered: a number is a guess when a lookup made it up.
        let first = (self.high + 1).max(number.saturating_sub(limits::MAX_MISSING as u64));
        for unseen in first..=number {
            self.missing.insert(unseen, now_ms);
        }
        self.high = self.high.max(number);
    }

    /// The union.
    fn merge(&mut self, other: &Self) {
        let mut missing = BTreeMap::new();
        let mut note = |number: u64, at: u64| {
            let first = missing.entry(number).or_insert(at);
            *first = at.min(*first);
        };
        for (number, at) in &self.missing {
            if !other.has(*number) {
                note(*number, *at);
            }
        }
        for (number, at) in &other.missing {
            if !self.has(*number) {
                note(*number, *at);
            }
        }
        self.missing = missing;
        self.high = self.high.max(other.high);
    }
}

/// A small text under a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// When it was written, milliseconds since 1970. The latest wins.
    pub written_ms: u64,
    /// The text.
    pub text: Bytes,
}

/// What is stored in one scope, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    /// The manifests that are in this one.
    pub seen: Seen,
    /// The packs.
    pub packs: BTreeMap<PackId, Arc<PackIndex>>,
    /// Packs that the service dropped, and when that was seen.
    pub gone: BTreeMap<PackId, u64>,
    /// Results that proved damaged, by pack and offset.
    pub dead: BTreeSet<(PackId, u64)>,
    /// The notes.
    pub notes: BTreeMap<String, Note>,
}

/// What [`Manifest::prune`] left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Packs.
    pub packs: usize,
    /// Results in them.
    pub results: usize,
    /// Notes.
    pub notes: usize,
    /// Manifest numbers given up.
    pub numbers: usize,
}

impl Manifest {
    /// Takes in all that another one has.
    pub fn merge(&mut self, other: &Self) {
        self.seen.merge(&other.seen);
        for (id, at) in &other.gone {
            let first = self.gone.entry(*id).or_insert(*at);
            *first = (*first).min(*at);
        }
        for (id, index) in &other.packs {
            let kept = self.packs.entry(*id).or_insert_with(|| Arc::clone(index));
            // Equal, as packs are named by content; if somebody lied, at least all agree on one.
            if **kept < **index {
                *kept = Arc::clone(index);
            }
        }
        let gone = &self.gone;
        self.packs.retain(|id, _| !gone.contains_key(id));
        self.dead.extend(other.dead.iter().copied());
        for (name, note) in &other.notes {
            let kept = self.notes.entry(name.clone()).or_insert_with(|| note.clone());
            if *kept < *note {
                *kept = note.clone();
            }
        }
    }

    /// Has notes come after those of another manifest that are of times to come: their writers' clocks are ahead, and
    /// nobody would replace them until then.
    pub fn outlive_notes(&mut self, of: &Self, now_ms: u64) {
        for (name, note) in &mut self.notes {
            if let Some(there) = of.notes.get(name).filter(|there| there.written_ms > now_ms) {
                note.written_ms = note.written_ms.max(there.written_ms.saturating_add(1));
            }
        }
    }

    /// Whether there is nothing in it that others should know.
    pub fn is_empty(&self) -> bool {
        self.packs.is_empty()
            && self.gone.is_empty()
            && self.dead.is_empty()
            && self.notes.is_empty()
    }

    /// The number of results.
    pub fn results(&self) -> usize {
        self.packs.values().map(|index| index.results.len()).sum()
    }

    /// Brings it within its bounds: the oldest packs and notes go, numbers that nobody could read for long
    /// are given up.
    pub fn prune(&mut self, now_ms: u64) -> Pruned {
        let mut pruned = Pruned::default();
        self.prune_numbers(now_ms, &mut pruned);
        self.prune_notes(&mut pruned);
        self.prune_packs(&mut pruned);
        while self.gone.len() > limits::MAX_GONE_PACKS {
            let oldest = self.gone.iter().min_by_key(|(id, at)| (**at, **id)).map(|(id, _)| *id);
            oldest.map(|id| self.gone.remove(&id));
        }
        let packs = &self.packs;
        self.dead.retain(|(id, _)| packs.contains_key(id));
        while self.dead.len() > limits::MAX_DEAD_RESULTS {
            self.dead.pop_first();
        }
        pruned
    }

    fn prune_numbers(&mut self, now_ms: u64, pruned: &mut Pruned) {
        let before = self.seen.missing.len();
        let abandoned = limits::ABANDONED_AFTER.as_millis() as u64;
        self.seen.missing.retain(|_, at| at.saturating_add(abandoned) > now_ms);
        while self.seen.missing.len() > limits::MAX_MISSING {
            self.seen.missing.pop_first();
        }
        pruned.numbers = before - self.seen.missing.len();
    }

    fn prune_notes(&mut self, pruned: &mut Pruned) {
        let size = |name: &String, note: &Note| name.len() + note.text.len();
        let mut bytes: usize = self.notes.iter().map(|(name, note)| size(name, note)).sum();
        while self.notes.len() > limits::MAX_NOTES || bytes > limits::MAX_NOTES_BYTES {
            let oldest = self.notes.iter().min_by_key(|(name, note)| (note.written_ms, *name));
            let Some(name) = oldest.map(|(name, _)| name.clone()) else { break };
            if let Some(note) = self.notes.remove(&name) {
                bytes -= size(&name, &note);
                pruned.notes += 1;
            }
        }
    }

    fn prune_packs(&mut self, pruned: &mut Pruned) {
        let mut newest: Vec<_> =
            self.packs.iter().map(|(id, index)| (index.created_ms, *id)).collect();
        newest.sort_unstable_by(|a, b| b.cmp(a));
        let (mut results, mut bytes) = (0, 0);
        let room = limits::MAX_MANIFEST_BYTES - limits::MAX_NOTES_BYTES - codec::FIXED_BYTES;
        for (at, (_, id)) in newest.into_iter().enumerate() {
            let Some(index) = self.packs.get(&id) else { continue };
            let (of, size) = (index.results.len(), codec::size_of(index));
            let fits = at < limits::MAX_MANIFEST_PACKS
                && results + of <= limits::MAX_MANIFEST_RESULTS
                && bytes + size <= room;
            if fits {
                results += of;
                bytes += size;
            } else {
                self.packs.remove(&id);
                pruned.packs += 1;
                pruned.results += of;
            }
        }
    }
}
