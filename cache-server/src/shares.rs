//! How much of a store one repository may hold when the store is full: [`plan`] takes first from those that are over
//! their share, so that nobody pushes out what others have. Pure. Called by [`crate::evict`].
//!
//! Refusing what is over a share would need the exact size of each repository at each upload, and would leave room
//! unused that nobody else wants. So a store that is not full is anybody's.

use std::collections::{HashMap, HashSet};

use kiln_storage::Digest;
use kiln_storage::eviction::{self, Budget, Plan, State};
use kiln_storage::limits::EVICTION_TARGET_PERCENT;

use crate::limits::SHARE_ORPHAN_GRACE;

/// Whose the contents of a store are.
#[derive(Debug, Clone, Default)]
pub(crate) struct Whose {
    /// The repositories of results; one that is missing belongs to none.
    pub results: HashMap<i64, String>,
    /// The repositories of blobs that no result names.
    pub unnamed: HashMap<Digest, Vec<String>>,
}

/// What should go of a store, first of the repositories that hold more than their share (in bytes) and then of all.
pub(crate) fn plan(
    state: &State<i64>,
    whose: &Whose,
    share_of: impl Fn(&str) -> u64,
    (now_ms, budget): (u64, &Budget),
) -> Plan<i64> {
    let bytes = |state: &State<i64>| {
        let blobs: u64 = state.blobs.iter().map(|blob| blob.bytes).sum();
        blobs + state.results.iter().map(|result| result.bytes).sum::<u64>()
    };
    let held = bytes(state);
    if held <= budget.max_bytes {
        return eviction::plan(state, now_ms, budget);
    }
    let mut over: Vec<(u64, String, State<i64>)> = parts(state, whose)
        .into_iter()
        .map(|(name, part)| (bytes(&part).saturating_sub(share_of(&name)), name, part))
        .filter(|(over, ..)| *over > 0)
        .collect();
    over.sort_by(|(a, name_a, _), (b, name_b, _)| b.cmp(a).then_with(|| name_a.cmp(name_b)));
    let (mut results, mut blobs, mut left) = (Vec::new(), Vec::new(), held);
    for (_, name, part) in over {
        let too_much = left.saturating_sub(budget.target_bytes());
        if too_much == 0 {
            break;
        }
        let stays = share_of(&name).max(bytes(&part).saturating_sub(too_much));
        // An eviction goes down to a part of its budget.
        let max_bytes = stays.saturating_mul(100) / EVICTION_TARGET_PERCENT;
        let own = Budget { max_bytes, orphan_grace: SHARE_ORPHAN_GRACE };
        let own = eviction::plan(&part, now_ms, &own);
        left = left.saturating_sub(own.bytes_before - own.bytes_after);
        results.extend(own.results);
        blobs.extend(own.blobs);
    }
    let rest = without(state, &results, &blobs);
    let Plan { results: more, blobs: more_blobs, bytes_after, .. } =
        eviction::plan(&rest, now_ms, budget);
    results.extend(more);
    blobs.extend(more_blobs);
    Plan { results, blobs, bytes_before: held, bytes_after }
}

/// What repositories have alone.
fn parts(state: &State<i64>, whose: &Whose) -> HashMap<String, State<i64>> {
    let mut of_blob: HashMap<Digest, Option<&str>> = HashMap::new();
    for (digest, owners) in &whose.unnamed {
        of_blob.insert(*digest, owners.first().filter(|_| owners.len() == 1).map(String::as_str));
    }
    for result in &state.results {
        let owner = whose.results.get(&result.id).map(String::as_str);
        for digest in &result.blobs {
            let of = of_blob.entry(*digest).or_insert(owner);
            if *of != owner {
                *of = None;
            }
        }
    }
    let new = || State { results: Vec::new(), blobs: Vec::new() };
    let mut parts: HashMap<String, State<i64>> = HashMap::new();
    for result in &state.results {
        if let Some(owner) = whose.results.get(&result.id) {
            parts.entry(owner.clone()).or_insert_with(new).results.push(result.clone());
        }
    }
    for blob in &state.blobs {
        if let Some(Some(owner)) = of_blob.get(&blob.digest) {
            parts.entry((*owner).to_owned()).or_insert_with(new).blobs.push(blob.clone());
        }
    }
    parts
}

fn without(state: &State<i64>, results: &[i64], blobs: &[Digest]) -> State<i64> {
    let results: HashSet<i64> = results.iter().copied().collect();
    let blobs: HashSet<Digest> = blobs.iter().copied().collect();
    let mut rest = state.clone();
    rest.results.retain(|result| !results.contains(&result.id));
    rest.blobs.retain(|blob| !blobs.contains(&blob.digest));
    rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_storage::eviction::{BlobUse, ResultUse};

    const NOW: u64 = 1_000_000_000;

    /// Results of 10 bytes each with a blob of 90 of their own; those of `small` are old.
    fn store(large: i64, small: i64) -> (State<i64>, Whose) {
        let mut state = State { results: Vec::new(), blobs: Vec::new() };
        let mut whose = Whose::default();
        for id in 0..large + small {
            let digest = Digest::of(&id.to_le_bytes());
            let (name, used_ms) = if id < large { ("large", NOW) } else { ("small", 1) };
            whose.results.insert(id, name.to_owned());
            let blobs = vec![digest];
            state.results.push(ResultUse {
                id,
                bytes: 10,
                blobs,
                cost_ms: 1,
                used_ms,
                pinned: false,
            });
            state.blobs.push(BlobUse { digest, bytes: 90, used_ms, pinned: false });
        }
        (state, whose)
    }

    fn gone(large: i64, small: i64, budget: u64) -> (usize, usize) {
        let (state, whose) = store(large, small);
        let budget = Budget::new(budget);
        let plan = plan(&state, &whose, |_| budget.max_bytes / 2, (NOW, &budget));
        let gone = plan.results.iter().filter(|id| **id < large).count();
        assert!(plan.bytes_after <= budget.max_bytes);
        assert_eq!(plan.blobs.len(), plan.results.len());
        (gone, plan.results.len() - gone)
    }

    #[test]
    fn what_is_over_its_share_goes_first_though_others_are_older() {
        let (large, small) = gone(90, 20, 10_000);
        assert!(large >= 10 && small == 0, "{large} {small}");
        let (large, small) = gone(60, 60, 10_000);
        assert!(large + small >= 20, "{large} {small}");
    }

    #[test]
    fn who_is_alone_may_have_all_of_it() {
        assert_eq!(gone(100, 0, 10_000), (0, 0));
        let (large, _) = gone(101, 0, 10_000);
        assert!((1..30).contains(&large), "{large}: no more than any eviction takes");
    }

    #[test]
    fn blobs_that_nobody_names_count_for_who_sent_them() {
        let (mut state, mut whose) = store(0, 20);
        for n in 0..90_u64 {
            let digest = Digest::of(format!("unnamed {n}").as_bytes());
            state.blobs.push(BlobUse { digest, bytes: 100, used_ms: NOW - 120_000, pinned: false });
            whose.unnamed.insert(digest, vec!["large".to_owned()]);
        }
        let budget = Budget::new(10_000);
        let plan = plan(&state, &whose, |_| 5_000, (NOW, &budget));
        assert_eq!(plan.results, [0_i64; 0]);
        assert!(plan.blobs.len() >= 10);
    }
}
