//! [`Ready`]: what of a job's note is still to come, so that a lookup waits for its own units and not for all of them.

use std::collections::HashSet;

use kiln_storage::UnitKey;
use kiln_storage::remote::ResultName;

use crate::limits::{AHEAD_BATCH, AHEAD_FIRST_BATCH, AHEAD_GROWTH};

/// Units of which results are on their way.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    /// None: the note is not read yet.
    coming: Option<HashSet<UnitKey>>,
}

impl Ready {
    /// When these are still to come.
    pub(crate) fn but<'a>(names: impl IntoIterator<Item = &'a ResultName>) -> Self {
        Self { coming: Some(names.into_iter().map(|name| name.unit).collect()) }
    }

    /// Whether nothing more comes for these units.
    pub(crate) fn holds_for(&self, units: &[UnitKey]) -> bool {
        self.coming.as_ref().is_some_and(|coming| !units.iter().any(|unit| coming.contains(unit)))
    }
}

/// The results that are asked for together: few at first, which are needed first, and then more and more.
pub(crate) fn batches(names: &[ResultName]) -> Vec<Vec<ResultName>> {
    let (mut rest, mut size, mut batches) = (names, AHEAD_FIRST_BATCH, Vec::new());
    while !rest.is_empty() {
        let (batch, others) = rest.split_at(size.min(rest.len()));
        batches.push(batch.to_vec());
        (rest, size) = (others, (size * AHEAD_GROWTH).min(AHEAD_BATCH));
    }
    batches
}

#[cfg(test)]
mod tests {
    use kiln_storage::{Digest, ResultKey, Scope};

    use super::*;

    fn name(unit: u64, result: u64) -> ResultName {
        ResultName {
            scope: Scope::new("r", "main"),
            unit: unit_key(unit),
            result: ResultKey::new(Digest::of(&result.to_le_bytes())),
            generation: 1,
        }
    }

    fn unit_key(n: u64) -> UnitKey {
        UnitKey::new(Digest::of(&n.to_le_bytes()))
    }

    #[test]
    fn a_unit_waits_for_all_of_its_results_and_for_nothing_else() {
        assert!(!Ready::default().holds_for(&[unit_key(1)]));
        let names = [name(1, 10), name(2, 20), name(1, 11)];
        let ready = Ready::but(&names[1..]);
        assert!(!ready.holds_for(&[unit_key(1)]) && !ready.holds_for(&[unit_key(3), unit_key(2)]));
        assert!(ready.holds_for(&[unit_key(3)]));
        assert!(Ready::but(&names[2..]).holds_for(&[unit_key(2)]));
        assert!(Ready::but(&[]).holds_for(&[unit_key(1), unit_key(2)]));
    }

    #[test]
    fn batches_grow_and_leave_none_out() {
        let names: Vec<ResultName> = (0..2_000).map(|n| name(n, n)).collect();
        let sizes: Vec<usize> = batches(&names).iter().map(Vec::len).collect();
        assert_eq!(sizes[..2], [AHEAD_FIRST_BATCH, AHEAD_FIRST_BATCH * AHEAD_GROWTH]);
        assert!(sizes.iter().all(|size| *size <= AHEAD_BATCH));
        assert_eq!(batches(&names).concat(), names);
        assert_eq!(batches(&[]).len(), 0);
    }
}
