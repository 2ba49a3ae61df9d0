//! What to remove when a store is over its budget: [`plan`].
//!
//! Pure policy: it gets the contents of the store and the time, and returns what should go. It
//! deletes nothing; the server that owns the store asks it and acts (results first, then blobs,
//! so that no result ever names a blob that is gone).
//!
//! A result is worth what computing it again would cost, times the chance that it is used again,
//! for each byte it takes. The chance falls with the age of its last use as `h / (h + age)`, with
//! [`crate::limits::REUSE_HALF_LIFE`] for `h`: reuse of build results has a long tail, and the
//! hyperbola has one where an exponential has none. Of a blob that several results share, each
//! takes its part.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::time::Duration;

use crate::digest::Digest;
use crate::limits;

/// A result in the store. `R` is whatever its owner calls it by; each result has its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultUse<R> {
    /// Its name.
    pub id: R,
    /// Bytes of the stored record.
    pub bytes: u64,
    /// The blobs it names, in any order.
    pub blobs: Vec<Digest>,
    /// What computing it took, wall milliseconds.
    pub cost_ms: u64,
    /// When it was last used, milliseconds since 1970.
    pub used_ms: u64,
    /// In use, or kept by somebody's wish: it stays, and its blobs with it.
    pub pinned: bool,
}

/// A blob in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobUse {
    /// Its name.
    pub digest: Digest,
    /// Its size in bytes.
    pub bytes: u64,
    /// When it was last used, milliseconds since 1970.
    pub used_ms: u64,
    /// In use, or kept by somebody's wish.
    pub pinned: bool,
}

/// All that a store holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State<R> {
    /// The results, in any order.
    pub results: Vec<ResultUse<R>>,
    /// The blobs, in any order.
    pub blobs: Vec<BlobUse>,
}

/// What a store may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Most bytes. Only a store that holds more is evicted from.
    pub max_bytes: u64,
    /// Age since last use below which a blob that no result names stays.
    pub orphan_grace: Duration,
}

impl Budget {
    /// A budget of this many bytes, with [`limits::ORPHAN_GRACE`].
    pub fn new(max_bytes: u64) -> Self {
        Self { max_bytes, orphan_grace: limits::ORPHAN_GRACE }
    }

    /// The bytes down to which an eviction goes.
    pub fn target_bytes(&self) -> u64 {
        let target = u128::from(self.max_bytes) * u128::from(limits::EVICTION_TARGET_PERCENT) / 100;
        u64::try_from(target).unwrap_or(self.max_bytes)
    }
}

/// What should go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan<R> {
    /// Results, least value first. To be removed before the blobs.
    pub results: Vec<R>,
    /// Blobs: those that no result names, then those whose last result goes.
    pub blobs: Vec<Digest>,
    /// Bytes held before.
    pub bytes_before: u64,
    /// Bytes held after.
    pub bytes_after: u64,
}

/// What to remove so that the store holds at most [`Budget::target_bytes`]; nothing while it holds
/// no more than the budget.
///
/// More stays only when all of it is pinned, or is young blobs without a result. The answer
/// depends on the contents, not on the order they are given in. O(n log n) in the number of
/// results, blobs and references between them.
pub fn plan<R: Ord + Clone>(state: &State<R>, now_ms: u64, budget: &Budget) -> Plan<R> {
    let mut store = Store::of(state);
    let mut plan = Plan {
        results: Vec::new(),
        blobs: Vec::new(),
        bytes_before: store.bytes,
        bytes_after: store.bytes,
    };
    if store.bytes <= budget.max_bytes {
        return plan;
    }
    let target = budget.target_bytes();
    for digest in store.orphans(now_ms, budget) {
        if store.bytes <= target {
            break;
        }
        store.remove_blob(&digest);
        plan.blobs.push(digest);
    }
    for result in store.least_value_first(state, now_ms) {
        if store.bytes <= target {
            break;
        }
        plan.blobs.extend(store.remove_result(result));
        plan.results.push(result.id.clone());
    }
    plan.bytes_after = store.bytes;
    plan
}

/// The store as the plan changes it.
struct Store {
    blobs: HashMap<Digest, Blob>,
    bytes: u64,
}

struct Blob {
    bytes: u64,
    used_ms: u64,
    pinned: bool,
    /// How many results name it.
    named_by: u64,
}

impl Store {
    fn of<R>(state: &State<R>) -> Self {
        let mut blobs: HashMap<Digest, Blob> = HashMap::with_capacity(state.blobs.len());
        for blob in &state.blobs {
            let known = blobs.entry(blob.digest).or_insert(Blob {
                bytes: blob.bytes,
                used_ms: blob.used_ms,
                pinned: blob.pinned,
                named_by: 0,
            });
            // A blob given twice is one blob; what protects it more counts.
            known.bytes = known.bytes.max(blob.bytes);
            known.used_ms = known.used_ms.max(blob.used_ms);
            known.pinned |= blob.pinned;
        }
        for result in &state.results {
            for digest in names(result) {
                if let Some(blob) = blobs.get_mut(&digest) {
                    blob.named_by += 1;
                }
            }
        }
        let records = state.results.iter().map(|result| result.bytes);
        let bytes =
            records.chain(blobs.values().map(|blob| blob.bytes)).fold(0, u64::saturating_add);
        Self { blobs, bytes }
    }

    /// Blobs that no result names and that may go, longest unused first.
    fn orphans(&self, now_ms: u64, budget: &Budget) -> Vec<Digest> {
        let grace_ms = u64::try_from(budget.orphan_grace.as_millis()).unwrap_or(u64::MAX);
        let is_old = |blob: &Blob| now_ms.saturating_sub(blob.used_ms) >= grace_ms;
        let mut orphans: Vec<_> = self
            .blobs
            .iter()
            .filter(|(_, blob)| blob.named_by == 0 && !blob.pinned && is_old(blob))
            .map(|(digest, blob)| (blob.used_ms, *digest))
            .collect();
        orphans.sort_unstable();
        orphans.into_iter().map(|(_, digest)| digest).collect()
    }

    /// The results that may go. Equal value: longest unused first, then by name.
    fn least_value_first<'a, R: Ord>(
        &self,
        state: &'a State<R>,
        now_ms: u64,
    ) -> Vec<&'a ResultUse<R>> {
        let mut valued: Vec<(f64, &ResultUse<R>)> = state
            .results
            .iter()
            .filter(|result| !result.pinned)
            .map(|result| (self.value(result, now_ms), result))
            .collect();
        valued.sort_unstable_by(|(value_a, a), (value_b, b)| {
            let by_value: Ordering = value_a.total_cmp(value_b);
            by_value.then(a.used_ms.cmp(&b.used_ms)).then_with(|| a.id.cmp(&b.id))
        });
        valued.into_iter().map(|(_, result)| result).collect()
    }

    /// Expected milliseconds saved for each byte. Only additions, products and quotients, in a
    /// fixed order: every machine computes the same.
    fn value<R>(&self, result: &ResultUse<R>, now_ms: u64) -> f64 {
        let shared: f64 = names(result)
            .filter_map(|digest| self.blobs.get(&digest))
            .map(|blob| blob.bytes as f64 / blob.named_by.max(1) as f64)
            .sum();
        let bytes = shared + result.bytes as f64 + 1.0;
        let half_life_ms = limits::REUSE_HALF_LIFE.as_millis() as f64;
        let age_ms = now_ms.saturating_sub(result.used_ms) as f64;
        let chance = half_life_ms / (half_life_ms + age_ms);
        // What cost nothing measurable is still worth something: age and size decide among it.
        (result.cost_ms as f64 + 1.0) * chance / bytes
    }

    fn remove_blob(&mut self, digest: &Digest) {
        if let Some(blob) = self.blobs.remove(digest) {
            self.bytes = self.bytes.saturating_sub(blob.bytes);
        }
    }

    /// Takes a result out, and the blobs that no other result names; returns these.
    fn remove_result<R>(&mut self, result: &ResultUse<R>) -> Vec<Digest> {
        self.bytes = self.bytes.saturating_sub(result.bytes);
        let mut gone = Vec::new();
        for digest in names(result) {
            let Some(blob) = self.blobs.get_mut(&digest) else {
                continue;
            };
            blob.named_by -= 1;
            if blob.named_by == 0 && !blob.pinned {
                self.remove_blob(&digest);
                gone.push(digest);
            }
        }
        gone
    }
}

/// The blobs of a result, each once, in a fixed order.
fn names<R>(result: &ResultUse<R>) -> impl Iterator<Item = Digest> {
    let mut names = result.blobs.clone();
    names.sort_unstable();
    names.dedup();
    names.into_iter()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_700_000_000_000;
    const HOUR: u64 = 3_600_000;

    fn digest(i: u8) -> Digest {
        Digest::of(&[i])
    }

    fn result(id: u32, blobs: &[u8]) -> ResultUse<u32> {
        ResultUse {
            id,
            bytes: 0,
            blobs: blobs.iter().map(|i| digest(*i)).collect(),
            cost_ms: 1000,
            used_ms: NOW,
            pinned: false,
        }
    }

    fn blob(i: u8, bytes: u64) -> BlobUse {
        BlobUse { digest: digest(i), bytes, used_ms: NOW, pinned: false }
    }

    /// Any store: shared, missing, repeated and orphan blobs, pins, uses in the future.
    fn states() -> impl Strategy<Value = State<u32>> {
        let used = NOW - 100 * HOUR..NOW + HOUR;
        let named = proptest::collection::vec(0_u8..24, 0..5);
        let result = (0_u64..50, named, 0_u64..5000, used.clone(), any::<u8>());
        let blob = (0_u8..20, 0_u64..1000, used, any::<u8>());
        (proptest::collection::vec(result, 0..30), proptest::collection::vec(blob, 0..20)).prop_map(
            |(results, blobs)| State {
                results: results
                    .into_iter()
                    .enumerate()
                    .map(|(id, (bytes, blobs, cost_ms, used_ms, pin))| ResultUse {
                        bytes,
                        cost_ms,
                        used_ms,
                        pinned: pin < 32,
                        ..self::result(id as u32, &blobs)
                    })
                    .collect(),
                blobs: blobs
                    .into_iter()
                    .map(|(i, bytes, used_ms, pin)| BlobUse {
                        used_ms,
                        pinned: pin < 16,
                        ..self::blob(i, bytes)
                    })
                    .collect(),
            },
        )
    }

    /// What a plan leaves, counted anew.
    fn after(state: &State<u32>, plan: &Plan<u32>) -> State<u32> {
        let results: HashSet<_> = plan.results.iter().collect();
        let blobs: HashSet<_> = plan.blobs.iter().collect();
        let mut left = state.clone();
        left.results.retain(|result| !results.contains(&result.id));
        left.blobs.retain(|blob| !blobs.contains(&blob.digest));
        left
    }

    fn held(state: &State<u32>) -> u64 {
        let mut blobs: HashMap<Digest, u64> = HashMap::new();
        for blob in &state.blobs {
            let bytes = blobs.entry(blob.digest).or_default();
            *bytes = blob.bytes.max(*bytes);
        }
        state.results.iter().map(|r| r.bytes).sum::<u64>() + blobs.values().sum::<u64>()
    }

    fn named(state: &State<u32>) -> HashSet<Digest> {
        let blobs = state.results.iter().flat_map(|result| &result.blobs);
        blobs.copied().collect()
    }

    proptest! {
        #[test]
        fn the_budget_holds_unless_all_is_kept_on_purpose(
            state in states(),
            max_bytes in 0_u64..10_000,
        ) {
            let budget = Budget::new(max_bytes);
            let plan = plan(&state, NOW, &budget);
            let left = after(&state, &plan);
            prop_assert_eq!(plan.bytes_before, held(&state));
            prop_assert_eq!(plan.bytes_after, held(&left));
            if plan.bytes_before <= max_bytes {
                prop_assert_eq!(left, state);
            } else if plan.bytes_after > budget.target_bytes() {
                let needed = named(&left);
                prop_assert!(left.results.iter().all(|result| result.pinned));
                let pinned: HashSet<_> =
                    left.blobs.iter().filter(|b| b.pinned).map(|b| b.digest).collect();
                let young: HashSet<_> = left
                    .blobs
                    .iter()
                    .filter(|b| NOW.saturating_sub(b.used_ms) < HOUR)
                    .map(|b| b.digest)
                    .collect();
                let kept = |d: &Digest| needed.contains(d) || pinned.contains(d) || young.contains(d);
                prop_assert!(left.blobs.iter().all(|blob| kept(&blob.digest)));
            }
        }

        #[test]
        fn what_is_pinned_or_needed_stays(state in states(), max_bytes in 0_u64..10_000) {
            let plan = plan(&state, NOW, &Budget::new(max_bytes));
            let left = after(&state, &plan);
            let stored: HashSet<_> = left.blobs.iter().map(|blob| blob.digest).collect();
            let was_stored: HashSet<_> = state.blobs.iter().map(|blob| blob.digest).collect();
            for digest in named(&left).intersection(&was_stored) {
                prop_assert!(stored.contains(digest), "a kept result lost its blob");
            }
            prop_assert!(state.results.iter().all(|r| !r.pinned || left.results.contains(r)));
            prop_assert!(state.blobs.iter().all(|b| !b.pinned || stored.contains(&b.digest)));
        }

        #[test]
        fn the_order_of_input_does_not_matter(
            (state, shuffled) in states().prop_flat_map(|state| {
                let results = Just(state.results.clone()).prop_shuffle();
                let blobs = Just(state.blobs.clone()).prop_shuffle();
                let shuffled = (results, blobs).prop_map(|(mut results, blobs)| {
                    results.iter_mut().for_each(|result| result.blobs.reverse());
                    State { results, blobs }
                });
                (Just(state), shuffled)
            }),
            max_bytes in 0_u64..10_000,
        ) {
            let budget = Budget::new(max_bytes);
            prop_assert_eq!(plan(&state, NOW, &budget), plan(&shuffled, NOW, &budget));
        }

        #[test]
        fn nothing_goes_beyond_what_has_to(state in states(), max_bytes in 0_u64..10_000) {
            let budget = Budget::new(max_bytes);
            let plan = plan(&state, NOW, &budget);
            if let Some((_, fewer)) = plan.results.split_last() {
                let fewer: HashSet<_> = fewer.iter().collect();
                let mut left = state.clone();
                left.results.retain(|result| !fewer.contains(&result.id));
                let needed = named(&left);
                let gone: HashSet<_> = plan.blobs.iter().collect();
                left.blobs.retain(|b| !gone.contains(&b.digest) || needed.contains(&b.digest));
                prop_assert!(held(&left) > budget.target_bytes());
            }
        }

        #[test]
        fn a_second_plan_finds_nothing_more(state in states(), max_bytes in 0_u64..10_000) {
            let budget = Budget::new(max_bytes);
            let left = after(&state, &plan(&state, NOW, &budget));
            let second = plan(&left, NOW, &budget);
            prop_assert!(second.results.is_empty() && second.blobs.is_empty());
        }
    }

    /// Three results of 100 bytes, one of which has to go.
    fn first_to_go(change: impl Fn(&mut State<u32>)) -> Vec<u32> {
        let mut state = State {
            results: vec![result(0, &[0]), result(1, &[1]), result(2, &[2])],
            blobs: vec![blob(0, 100), blob(1, 100), blob(2, 100)],
        };
        change(&mut state);
        plan(&state, NOW, &Budget::new(held(&state) - 1)).results
    }

    #[test]
    fn the_least_value_goes_first() {
        assert_eq!(first_to_go(|s| s.results[1].cost_ms = 10), [1], "cheap");
        assert_eq!(first_to_go(|s| s.results[2].used_ms -= HOUR), [2], "old");
        assert_eq!(first_to_go(|s| s.blobs[1].bytes = 200), [1], "large");
        let free = |s: &mut State<u32>| s.results.iter_mut().for_each(|r| r.cost_ms = 0);
        let free_and_old = |s: &mut State<u32>| {
            free(s);
            s.results[2].used_ms -= HOUR;
        };
        assert_eq!(first_to_go(free_and_old), [2], "old, without any cost");
    }

    #[test]
    fn cost_outweighs_age() {
        let dear_and_old = |s: &mut State<u32>| {
            s.results[0].cost_ms = 60_000;
            s.results[0].used_ms -= 48 * HOUR;
            s.results[1].used_ms -= HOUR;
        };
        assert_eq!(first_to_go(dear_and_old), [1]);
    }

    #[test]
    fn orphans_go_before_any_result_but_not_in_their_grace() {
        let orphan = |age| {
            first_to_go(move |s| {
                s.blobs.push(BlobUse { used_ms: NOW - age, ..blob(3, 1000) });
            })
        };
        assert_eq!(orphan(HOUR), [0_u32; 0]);
        assert_eq!(orphan(HOUR - 1), [0, 1]);
    }

    #[test]
    fn a_shared_blob_goes_with_its_last_result() {
        let state = State {
            results: vec![result(0, &[0, 1]), result(1, &[0, 2])],
            blobs: vec![blob(0, 100), blob(1, 10), blob(2, 20)],
        };
        let one = plan(&state, NOW, &Budget::new(125));
        assert_eq!((one.results, one.blobs), (vec![1], vec![digest(2)]));
        let both = plan(&state, NOW, &Budget::new(50));
        assert_eq!(both.results, [1, 0]);
        assert_eq!(both.bytes_after, 0);
    }
}
