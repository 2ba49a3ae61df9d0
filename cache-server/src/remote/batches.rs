//! What the packs of a job hold, as its note tells it, and when new ones are written: pure policy. Packs are
//! written and given up in batches: those of one run. [`super::together`] acts on it.

use std::collections::{HashMap, HashSet};

use kiln_storage::ResultKey;
use kiln_storage::remote::together::{PackName, Written};
use serde::{Deserialize, Serialize};

use crate::limits::{MAX_JOB_BATCHES, MIN_PACKED_RESULTS};

/// Packs that were written together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Batch {
    /// Their names.
    pub packs: Vec<PackName>,
    /// Their bytes.
    pub bytes: u64,
}

/// The batches of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Batches {
    batches: Vec<Batch>,
    /// In which batch each result is whole, with all blobs that no older one has, and its bytes there.
    rows: HashMap<ResultKey, (usize, u64)>,
}

impl Batches {
    /// Batches with their results; what is placed nowhere is left out.
    pub(crate) fn new(
        batches: Vec<Batch>,
        rows: impl IntoIterator<Item = (ResultKey, (usize, u64))>,
    ) -> Self {
        let rows = rows.into_iter().filter(|(_, (batch, _))| *batch < batches.len()).collect();
        Self { batches, rows }
    }

    /// All of them.
    pub(crate) fn all(&self) -> &[Batch] {
        &self.batches
    }

    /// Where a result is, and its bytes there.
    pub(crate) fn of(&self, result: &ResultKey) -> Option<(usize, u64)> {
        self.rows.get(result).copied()
    }

    /// The names of all packs.
    pub(crate) fn packs(&self) -> Vec<PackName> {
        self.batches.iter().flat_map(|batch| batch.packs.iter().cloned()).collect()
    }

    /// Bytes of all packs.
    pub(crate) fn bytes(&self) -> u64 {
        self.batches.iter().map(|batch| batch.bytes).sum()
    }

    /// The packs that pay where some results are missing: half of their bytes at least is of use.
    pub(crate) fn worth_reading(&self, missing: &[ResultKey]) -> Vec<PackName> {
        let wanted = self.live(missing);
        let all = self.batches.iter().zip(wanted);
        let worth = all.filter(|(batch, wanted)| wanted * 2 >= batch.bytes);
        worth.flat_map(|(batch, _)| batch.packs.iter().cloned()).collect()
    }

    /// Bytes of each batch that are of some results.
    fn live(&self, results: &[ResultKey]) -> Vec<u64> {
        let mut live = vec![0_u64; self.batches.len()];
        for result in results.iter().collect::<HashSet<_>>() {
            if let Some((batch, bytes)) = self.rows.get(result) {
                live[*batch] = live[*batch].saturating_add(*bytes);
            }
        }
        live
    }

    /// Without the batches of which a pack is gone or damaged.
    pub(crate) fn without(&self, broken: &HashSet<PackName>) -> Self {
        self.only(|_, batch| !batch.packs.iter().any(|pack| broken.contains(pack)))
    }

    fn only(&self, stays: impl Fn(usize, &Batch) -> bool) -> Self {
        let mut places = Vec::with_capacity(self.batches.len());
        let mut batches = Vec::new();
        for (i, batch) in self.batches.iter().enumerate() {
            places.push(stays(i, batch).then_some(batches.len()));
            if places[i].is_some() {
                batches.push(batch.clone());
            }
        }
        let rows = self.rows.iter().filter_map(|(result, (batch, bytes))| {
            Some((*result, (places.get(*batch).copied().flatten()?, *bytes)))
        });
        Self { batches, rows: rows.collect() }
    }

    /// What stays of the batches for the results of a job, in order, and which of these are to be written; none
    /// when all is well as it is. A batch goes when less than half of it is of use, or when there would be too many
    /// and it is the smallest.
    pub(crate) fn next(&self, results: &[ResultKey]) -> Option<(Self, Vec<ResultKey>)> {
        let live = self.live(results);
        let mut kept = self.only(|i, batch| live[i] * 2 >= batch.bytes);
        let dropped = kept.batches.len() < self.batches.len();
        let new = |kept: &Self| -> Vec<ResultKey> {
            results.iter().filter(|result| !kept.rows.contains_key(*result)).copied().collect()
        };
        if !dropped && new(&kept).len() < MIN_PACKED_RESULTS {
            return None;
        }
        while kept.batches.len() >= MAX_JOB_BATCHES {
            let smallest = (0..kept.batches.len()).min_by_key(|i| kept.batches[*i].bytes);
            kept = kept.only(|i, _| Some(i) != smallest);
        }
        let new = new(&kept);
        Some((kept, new))
    }

    /// With one more.
    pub(crate) fn and(mut self, written: &Written) -> Self {
        if written.packs.is_empty() {
            return self;
        }
        let place = self.batches.len();
        self.batches.push(Batch { packs: written.packs.clone(), bytes: written.bytes });
        self.rows.extend(written.results.iter().map(|(result, bytes)| (*result, (place, *bytes))));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_storage::Digest;

    fn keys(range: std::ops::Range<u64>) -> Vec<ResultKey> {
        range.map(|n| ResultKey::new(Digest::of(&n.to_le_bytes()))).collect()
    }

    fn written(name: &str, results: std::ops::Range<u64>, bytes: u64) -> Written {
        Written {
            packs: vec![PackName(name.into())],
            bytes: bytes * (results.end - results.start),
            results: keys(results).into_iter().map(|result| (result, bytes)).collect(),
            failed: None,
        }
    }

    fn names(batches: &Batches) -> Vec<String> {
        batches.packs().into_iter().map(|pack| pack.0).collect()
    }

    #[test]
    fn only_what_no_pack_has_is_written() {
        let (kept, new) = Batches::default().next(&keys(0..20)).unwrap();
        assert_eq!((names(&kept), new), (vec![], keys(0..20)));
        let one = kept.and(&written("a", 0..20, 10));
        assert_eq!(one.next(&keys(0..20)), None);
        // A few are no pack.
        assert_eq!(one.next(&keys(1..21)), None);
        let (kept, new) = one.next(&keys(8..28)).unwrap();
        assert_eq!((names(&kept), new), (vec!["a".into()], keys(20..28)));
        let two = kept.and(&written("b", 20..28, 10));
        assert_eq!((two.bytes(), two.next(&keys(8..28))), (280, None));
    }

    #[test]
    fn what_is_hardly_of_use_goes_and_what_was_in_it_is_written_again() {
        let one = Batches::default().and(&written("a", 0..20, 10)).and(&written("b", 20..40, 10));
        let (kept, new) = one.next(&keys(11..40)).unwrap();
        assert_eq!((names(&kept), new), (vec!["b".into()], keys(11..20)));
        assert_eq!(kept.of(&keys(20..21)[0]), Some((0, 10)));
        let broken = HashSet::from([PackName("b".into())]);
        let without = one.without(&broken);
        assert_eq!((names(&without), without.of(&keys(20..21)[0])), (vec!["a".into()], None));
    }

    #[test]
    fn batches_are_few_and_the_smallest_is_written_again() {
        let mut batches = Batches::default();
        for i in 0..30 {
            // The third is the smallest.
            let results = i * 10..i * 10 + 10;
            let (kept, new) = batches.next(&keys(0..i * 10 + 10)).unwrap();
            assert!(new.len() <= 60, "what is written again stays bounded: {}", new.len());
            let all = new.len() as u64;
            let mut more = written(&i.to_string(), results, if i == 2 { 1 } else { 10 });
            more.results = new.into_iter().map(|result| (result, 10)).collect();
            more.bytes = all * 10;
            batches = kept.and(&more);
            assert!(batches.all().len() <= MAX_JOB_BATCHES);
        }
    }

    #[test]
    fn packs_are_read_where_half_of_them_is_missing() {
        let one = Batches::default().and(&written("a", 0..20, 10)).and(&written("b", 20..40, 10));
        let worth = |missing| one.worth_reading(&keys(missing)).len();
        assert_eq!((worth(0..40), worth(0..10), worth(0..9), worth(35..40)), (2, 1, 0, 0));
    }

    #[test]
    fn what_is_placed_nowhere_is_nowhere() {
        let rows = keys(0..2).into_iter().zip([(0, 5), (1, 5)]);
        let batches = Batches::new(vec![Batch::default()], rows);
        assert_eq!((batches.of(&keys(0..1)[0]), batches.of(&keys(1..2)[0])), (Some((0, 5)), None));
    }
}
