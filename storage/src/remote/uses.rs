//! [`Uses`]: which results were used, on their way to a bucket that does not know when an object was last
//! read. Called by [`super::objects`], which notes and writes them; [`crate::remote::collect`] reads them.
//!
//! A process writes each result of a day once, many in one object. What a killed process had not
//! written is lost: its results look older than they are, which may cost compiling them again.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::entry;
use crate::key::{ObjectName, ResultKey};
use crate::limits;
use crate::remote::objects::layout;

/// Milliseconds of a day.
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// The day of a moment.
pub(crate) fn day(at_ms: u64) -> u64 {
    at_ms / DAY_MS
}

/// When a day ends: what was used on it was used at that time at the latest.
pub(crate) fn end_of(day: u64) -> u64 {
    (day + 1).saturating_mul(DAY_MS).saturating_sub(1)
}

/// Of a scope id and a day.
type Page = (String, u64);

/// What was used and what of it is written.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    waiting: BTreeMap<Page, BTreeSet<ResultKey>>,
    written: BTreeMap<Page, BTreeSet<ResultKey>>,
}

impl Uses {
    /// A result of a scope was used.
    pub(crate) fn note(&mut self, scope_id: &str, result: ResultKey, now_ms: u64) {
        let page = (scope_id.to_owned(), day(now_ms));
        // Other days are over: nobody asks for them again.
        self.written.retain(|(_, day), _| *day == page.1);
        if !self.written.get(&page).is_some_and(|results| results.contains(&result)) {
            self.waiting.entry(page).or_default().insert(result);
        }
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.values().map(BTreeSet::len).sum()
    }

    /// The objects to write: the prefix of each, and the results in it. They count as written; what fails is
    /// handed back to [`Uses::put_back`].
    pub(crate) fn take(&mut self) -> Vec<(Page, Vec<ResultKey>)> {
        let mut pages = Vec::new();
        for (page, results) in std::mem::take(&mut self.waiting) {
            let all: Vec<_> = results.iter().copied().collect();
            let parts = all.chunks(limits::MAX_USED_RESULTS);
            pages.extend(parts.map(|part| (page.clone(), part.to_vec())));
            self.written.entry(page).or_default().extend(results);
        }
        pages
    }

    /// Waits again.
    pub(crate) fn put_back(&mut self, page: &Page, results: Vec<ResultKey>) {
        if let Some(written) = self.written.get_mut(page) {
            written.retain(|result| !results.contains(result));
        }
        if self.waiting() < limits::MAX_REMEMBERED {
            self.waiting.entry(page.clone()).or_default().extend(results);
        }
    }
}

/// The object of a page: its name and its bytes.
pub(crate) fn encode(
    page: &Page,
    results: &[ResultKey],
    now_ms: u64,
    chance: u64,
) -> Option<(ObjectName, Vec<u8>)> {
    let name = layout::timed(&layout::used_prefix(&page.0, page.1), now_ms, chance);
    let bytes: Vec<u8> = results.iter().flat_map(|result| *result.digest().as_bytes()).collect();
    let frame = entry::encode(&name, &bytes).ok()?;
    Some((name, frame))
}

/// The results in the object of a page.
pub(crate) fn decode(name: &ObjectName, frame: Bytes) -> Option<Vec<ResultKey>> {
    let payload = entry::decode(name, frame).ok()?;
    let (digests, []) = payload.as_chunks() else { return None };
    Some(digests.iter().map(|digest| ResultKey::new(crate::Digest::from_bytes(*digest))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;

    fn result(i: u8) -> ResultKey {
        ResultKey::new(Digest::of(&[i]))
    }

    #[test]
    fn a_result_is_written_once_a_day() {
        let mut uses = Uses::default();
        let now = 20_000 * DAY_MS + 5;
        uses.note("a", result(1), now);
        uses.note("a", result(1), now);
        uses.note("a", result(2), now);
        uses.note("b", result(1), now);
        let taken = uses.take();
        assert_eq!(taken.iter().map(|(_, results)| results.len()).collect::<Vec<_>>(), [2, 1]);
        uses.note("a", result(1), now);
        assert_eq!((uses.waiting(), uses.take().len()), (0, 0));
        uses.note("a", result(1), now + DAY_MS);
        assert_eq!(uses.take(), [(("a".to_owned(), 20_001), vec![result(1)])]);
    }

    #[test]
    fn what_could_not_be_written_waits_again() {
        let mut uses = Uses::default();
        uses.note("a", result(1), 5);
        for _ in 0..2 {
            let taken = uses.take();
            assert_eq!(taken.len(), 1);
            uses.put_back(&taken[0].0, taken[0].1.clone());
        }
        assert_eq!(uses.waiting(), 1);
    }

    #[test]
    fn pages_are_read_as_they_are_written() {
        let page = ("0123".to_owned(), 20_000);
        let results: Vec<_> = (0..5).map(result).collect();
        let (name, frame) = encode(&page, &results, 7, 1).unwrap();
        assert_eq!(layout::parse_used(&name), Some(page));
        assert_eq!(decode(&name, frame.clone().into()), Some(results));
        assert_eq!(decode(&name, frame[1..].to_vec().into()), None);
    }
}
