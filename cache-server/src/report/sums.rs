//! Adding events up into [`Measures`]. Pure. [`crate::history`] keeps the sums of each job, so that lists of runs
//! and trends read no event.

use std::collections::BTreeMap;

use kiln_storage::api::report::Measures;
use kiln_storage::api::{Event, Outcome};
use serde::{Deserialize, Serialize};

use crate::limits::MAX_PHASES;
use crate::tally::{Tally, add, add_all, is_hit};

/// The phase in which the tool ran: all others are Kiln's own.
const COMPILE: &str = "compile";

/// Sums in the making.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Sums {
    tally: Tally,
    compiled_ms: u64,
    saved_cpu_ms: u64,
    kiln_us: u64,
    stored_bytes: u64,
    phases_us: BTreeMap<String, u64>,
}

impl Sums {
    /// Adds one more event.
    pub(crate) fn add(&mut self, event: &Event) {
        self.tally.add(event);
        let compile_us = event.phases_us.get(COMPILE).copied().unwrap_or_default();
        add(&mut self.kiln_us, event.wall_us.saturating_sub(compile_us));
        add_all(&mut self.phases_us, &event.phases_us, MAX_PHASES);
        match event.outcome {
            Outcome::HitLocal | Outcome::HitRemote | Outcome::Joined => {
                add(&mut self.saved_cpu_ms, event.cpu_ms);
            }
            Outcome::Miss | Outcome::Error => {
                add(&mut self.compiled_ms, event.cost_ms);
                add(&mut self.stored_bytes, event.bytes);
            }
            Outcome::Bypass => {}
        }
    }

    /// Adds the sums of other events.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.tally.merge(&other.tally);
        add(&mut self.compiled_ms, other.compiled_ms);
        add(&mut self.saved_cpu_ms, other.saved_cpu_ms);
        add(&mut self.kiln_us, other.kiln_us);
        add(&mut self.stored_bytes, other.stored_bytes);
        add_all(&mut self.phases_us, &other.phases_us, MAX_PHASES);
    }

    /// What they come to.
    pub(crate) fn measures(self) -> Measures {
        let counts = self.tally.counts();
        let hits = counts.hit_local + counts.hit_remote + counts.joined;
        let kiln_ms = self.kiln_us / 1000;
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        Measures {
            hits,
            hit_rate: percent(hits, hits + counts.miss + counts.error),
            hit_rate_by_time: percent(
                counts.saved_ms,
                counts.saved_ms.saturating_add(self.compiled_ms),
            ),
            compiled_ms: self.compiled_ms,
            saved_cpu_ms: self.saved_cpu_ms,
            kiln_ms,
            net_saved_ms: signed(self.saved_cpu_ms).saturating_sub(signed(kiln_ms)),
            stored_bytes: self.stored_bytes,
            phases_ms: self.phases_us.into_iter().map(|(name, us)| (name, us / 1000)).collect(),
            counts,
        }
    }
}

/// A share in percent, to one decimal; never 100 while anything is missing.
pub(crate) fn percent(part: u64, whole: u64) -> Option<f64> {
    if whole == 0 {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let share = (part as f64 * 1000.0 / whole as f64).round() / 10.0;
    Some(if part < whole { share.min(99.9) } else { share })
}

/// Whether an event says that the tool ran for a unit that could have been answered.
pub(crate) fn is_compiled(outcome: Outcome) -> bool {
    !is_hit(outcome) && outcome != Outcome::Bypass
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::tests::event;

    #[test]
    fn sums_of_parts_are_the_sums_of_all() {
        let outcomes = [
            Outcome::HitLocal,
            Outcome::HitRemote,
            Outcome::Joined,
            Outcome::Miss,
            Outcome::Miss,
            Outcome::Bypass,
            Outcome::Error,
        ];
        let (mut all, mut parts) = (Sums::default(), Sums::default());
        for (n, outcome) in outcomes.into_iter().enumerate() {
            let mut event = event(&n.to_string(), "b", outcome);
            event.phases_us = BTreeMap::from([("compile".into(), 500), (format!("p{n}"), 100)]);
            all.add(&event);
            let mut part = Sums::default();
            part.add(&event);
            parts.merge(&part);
        }
        assert_eq!(all, parts);
        let measures = all.measures();
        assert_eq!((measures.hits, measures.hit_rate), (3, Some(50.0)));
        assert_eq!(measures.hit_rate_by_time, Some(50.0));
        // 600 us each, 500 of them the tool's.
        assert_eq!((measures.compiled_ms, measures.kiln_ms), (300, 0));
        assert_eq!((measures.saved_cpu_ms, measures.net_saved_ms), (300, 300));
        assert_eq!(measures.stored_bytes, 30);
    }

    #[test]
    fn shares_are_whole_only_when_nothing_is_missing() {
        assert_eq!(percent(0, 0), None);
        assert_eq!(
            (percent(0, 3), percent(1, 3), percent(3, 3)),
            (Some(0.0), Some(33.3), Some(100.0))
        );
        assert_eq!(percent(9_999, 10_000), Some(99.9));
    }

    #[test]
    fn phases_are_bounded() {
        let mut sums = Sums::default();
        for n in 0..2 * MAX_PHASES {
            let mut event = event("e", "b", Outcome::Miss);
            event.phases_us = BTreeMap::from([(n.to_string(), 1000)]);
            sums.add(&event);
        }
        let phases = sums.measures().phases_ms;
        assert_eq!(phases.len(), MAX_PHASES + 1);
        assert_eq!(phases.values().sum::<u64>(), 2 * MAX_PHASES as u64);
    }
}
