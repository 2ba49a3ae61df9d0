//! Counting events into [`Counts`]. Pure.

use std::collections::BTreeMap;

use kiln_storage::api::{Counts, Event, Outcome};
use serde::{Deserialize, Serialize};

use crate::limits::MAX_REASONS;

/// [`Counts`] in the making; kept between batches, so that fractions of milliseconds add up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    counts: Counts,
    restore_us: u64,
}

impl Tally {
    /// Counts one more event.
    pub(crate) fn add(&mut self, event: &Event) {
        let counts = &mut self.counts;
        counts.units += 1;
        let reason = || event.reason.as_deref().unwrap_or("unspecified");
        match event.outcome {
            Outcome::HitLocal => counts.hit_local += 1,
            Outcome::HitRemote => counts.hit_remote += 1,
            Outcome::Joined => counts.joined += 1,
            Outcome::Miss => {
                counts.miss += 1;
                count(&mut counts.miss_reasons, reason());
            }
            Outcome::Bypass => {
                counts.bypass += 1;
                count(&mut counts.bypass_reasons, reason());
            }
            Outcome::Error => {
                counts.error += 1;
                count(&mut counts.error_reasons, reason());
            }
        }
        if is_hit(event.outcome) {
            counts.saved_ms = counts.saved_ms.saturating_add(event.cost_ms);
            counts.restored_bytes = counts.restored_bytes.saturating_add(event.bytes);
            self.restore_us = self.restore_us.saturating_add(event.wall_us);
        }
    }

    /// Adds what another one counted.
    pub(crate) fn merge(&mut self, other: &Self) {
        let (to, from) = (&mut self.counts, &other.counts);
        let Counts {
            units,
            hit_local,
            hit_remote,
            joined,
            miss,
            bypass,
            error,
            miss_reasons,
            bypass_reasons,
            error_reasons,
            saved_ms,
            restore_ms: _,
            restored_bytes,
        } = from;
        for (to, more) in [
            (&mut to.units, units),
            (&mut to.hit_local, hit_local),
            (&mut to.hit_remote, hit_remote),
            (&mut to.joined, joined),
            (&mut to.miss, miss),
            (&mut to.bypass, bypass),
            (&mut to.error, error),
            (&mut to.saved_ms, saved_ms),
            (&mut to.restored_bytes, restored_bytes),
            (&mut self.restore_us, &other.restore_us),
        ] {
            add(to, *more);
        }
        add_all(&mut to.miss_reasons, miss_reasons, MAX_REASONS);
        add_all(&mut to.bypass_reasons, bypass_reasons, MAX_REASONS);
        add_all(&mut to.error_reasons, error_reasons, MAX_REASONS);
    }

    /// The counts.
    pub(crate) fn counts(mut self) -> Counts {
        self.counts.restore_ms = self.restore_us / 1000;
        self.counts
    }
}

/// Whether a unit was restored.
pub(crate) fn is_hit(outcome: Outcome) -> bool {
    match outcome {
        Outcome::HitLocal | Outcome::HitRemote | Outcome::Joined => true,
        Outcome::Miss | Outcome::Bypass | Outcome::Error => false,
    }
}

fn count(reasons: &mut BTreeMap<String, u64>, reason: &str) {
    add_named(reasons, reason, 1, MAX_REASONS);
}

pub(crate) fn add(to: &mut u64, more: u64) {
    *to = to.saturating_add(more);
}

/// Adds figures by name; those beyond so many names count as `other`.
pub(crate) fn add_all(to: &mut BTreeMap<String, u64>, more: &BTreeMap<String, u64>, most: usize) {
    for (name, value) in more {
        add_named(to, name, *value, most);
    }
}

fn add_named(to: &mut BTreeMap<String, u64>, name: &str, value: u64, most: usize) {
    if let Some(known) = to.get_mut(name) {
        return add(known, value);
    }
    let name = if to.len() < most { name } else { "other" };
    add(to.entry(name.to_owned()).or_default(), value);
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use kiln_storage::record::UnitName;

    pub(crate) fn event(id: &str, build: &str, outcome: Outcome) -> Event {
        Event {
            id: id.into(),
            at_ms: 1,
            run: "run".into(),
            job: "job".into(),
            about: None,
            build: build.into(),
            unit: UnitName { crate_name: id.into(), ..UnitName::default() },
            unit_key: None,
            result_key: None,
            outcome,
            reason: Some("why".into()),
            detail: None,
            causes: Vec::new(),
            more_causes: 0,
            stem: None,
            pinned: Vec::new(),
            conservative: Vec::new(),
            phases_us: BTreeMap::new(),
            bytes: 10,
            cost_ms: 100,
            cpu_ms: 100,
            wall_us: 600,
        }
    }

    #[test]
    fn outcomes_are_exclusive_and_add_up() {
        let mut tally = Tally::default();
        for outcome in [
            Outcome::HitLocal,
            Outcome::HitRemote,
            Outcome::Joined,
            Outcome::Miss,
            Outcome::Bypass,
            Outcome::Error,
        ] {
            tally.add(&event("e", "b", outcome));
        }
        let c = tally.counts();
        let sum = c.hit_local + c.hit_remote + c.joined + c.miss + c.bypass + c.error;
        assert_eq!((c.units, sum), (6, 6));
        assert_eq!((c.saved_ms, c.restored_bytes, c.restore_ms), (300, 30, 1));
        for reasons in [c.miss_reasons, c.bypass_reasons, c.error_reasons] {
            assert_eq!(reasons, BTreeMap::from([("why".to_owned(), 1)]));
        }
    }

    #[test]
    fn reasons_are_bounded() {
        let mut tally = Tally::default();
        for i in 0..2 * MAX_REASONS {
            let mut event = event("e", "b", Outcome::Miss);
            event.reason = Some(i.to_string());
            tally.add(&event);
        }
        let counts = tally.counts();
        assert_eq!(counts.miss_reasons.len(), MAX_REASONS + 1);
        assert_eq!(counts.miss_reasons.values().sum::<u64>(), counts.miss);
    }
}
