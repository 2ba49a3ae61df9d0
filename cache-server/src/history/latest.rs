//! [`Latest`]: the last units of a job, kept in its row for who watches the run: no chunk is read for that. Pure.

use kiln_storage::api::watch::SeenUnit;
use kiln_storage::limits::LATEST_UNITS;
use kiln_storage::record::UnitName;
use serde::{Deserialize, Serialize};

use super::chunk::{Kept, letter, outcome};
use crate::limits::CLOCK_TOLERANCE_MS;

/// The last units of a job, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Latest(Vec<One>);

/// A unit, short: name, outcome, reason, the time it took, what it cost, when it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct One([String; 4], char, String, u64, u64, u64);

impl Latest {
    /// Adds units, the newest last. Units of several jobs are written together, so when they were heard of does not
    /// tell their order; the clock of their machine does, unless it is far from the server's.
    pub(crate) fn add(&mut self, units: &[Kept], heard_ms: u64) {
        let newest = units.iter().rev().take(LATEST_UNITS).map(|kept| {
            let UnitName { crate_name, version, kind, target } = UnitName::clone(&kept.unit);
            let reason = kept.more.as_ref().map(|more| more.reason.clone()).unwrap_or_default();
            let name = [crate_name, version, kind, target];
            let is_believed =
                heard_ms.checked_sub(kept.at_ms).is_some_and(|ago| ago <= CLOCK_TOLERANCE_MS);
            let at_ms = if is_believed { kept.at_ms } else { heard_ms };
            One(name, letter(kept.outcome), reason, kept.wall_ms, kept.cost_ms, at_ms)
        });
        let newest: Vec<One> = newest.collect();
        self.0.splice(0..0, newest);
        self.0.truncate(LATEST_UNITS);
    }

    /// As it is told at some time.
    pub(crate) fn seen(&self, now_ms: u64) -> Vec<SeenUnit> {
        let seen = |one: &One| {
            let One([crate_name, version, kind, target], of, reason, took_ms, cost_ms, at_ms) =
                one.clone();
            Some(SeenUnit {
                unit: UnitName { crate_name, version, kind, target },
                outcome: u8::try_from(of).ok().and_then(outcome)?,
                reason: Some(reason).filter(|reason| !reason.is_empty()),
                took_ms,
                cost_ms,
                quiet_ms: now_ms.saturating_sub(at_ms),
            })
        };
        self.0.iter().filter_map(seen).collect()
    }
}

#[cfg(test)]
mod tests {
    use kiln_storage::api::Outcome;

    use super::*;
    use crate::history::chunk::id;
    use crate::tally::tests::event;

    fn kept(n: u64, outcome: Outcome) -> Kept {
        let mut event = event(&n.to_string(), "b", outcome);
        (event.wall_us, event.cost_ms) = (n * 1000, 10 * n);
        // Ahead of the server.
        event.at_ms = u64::MAX;
        Kept::of(&event, id(&event))
    }

    #[test]
    fn units_of_one_batch_are_told_apart_by_the_clock_of_their_machine() {
        let quiet = |at_ms| {
            let mut latest = Latest::default();
            latest.add(&[Kept { at_ms, ..kept(1, Outcome::Miss) }], 100_000);
            latest.seen(100_010)[0].quiet_ms
        };
        assert_eq!((quiet(100_000), quiet(99_990), quiet(95_000)), (10, 20, 5010));
        // A clock that is wrong.
        assert_eq!((quiet(94_999), quiet(100_001), quiet(0)), (10, 10, 10));
    }

    #[test]
    fn the_newest_units_are_kept() {
        let mut latest = Latest::default();
        latest.add(&[kept(1, Outcome::HitLocal), kept(2, Outcome::Miss)], 100);
        latest.add(&[], 110);
        latest.add(&(3..9).map(|n| kept(n, Outcome::Joined)).collect::<Vec<_>>(), 120);
        latest.add(&[kept(9, Outcome::Miss)], 130);
        let text = serde_json::to_string(&latest).unwrap();
        let seen = serde_json::from_str::<Latest>(&text).unwrap().seen(140);
        let told: Vec<_> = seen
            .iter()
            .map(|one| (one.unit.crate_name.as_str(), one.outcome, one.took_ms, one.quiet_ms))
            .collect();
        let joined = Outcome::Joined;
        assert_eq!(told, [("9", Outcome::Miss, 9, 10), ("8", joined, 8, 20), ("7", joined, 7, 20)]);
        assert_eq!((seen[0].reason.as_deref(), seen[1].reason.as_deref()), (Some("why"), None));
        // A clock that was set back.
        assert_eq!(latest.seen(0)[0].quiet_ms, 0);
    }
}
