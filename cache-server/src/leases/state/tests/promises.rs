//! What holds of a state at every moment.

use std::collections::{BTreeMap, BTreeSet};

use kiln_storage::limits::{MAX_LEASE_FAILURES, MAX_LEASE_WAITERS, MAX_LEASES};

use super::*;
use crate::limits::MAX_LEASE_RESULTS;

impl World {
    pub(super) fn check(&self) {
        let state = &self.state;
        assert!(state.told.is_empty() && state.units.len() <= MAX_LEASES);
        assert!(state.next_due().is_none_or(|due| due > self.now), "what is over is over");
        let mut open = BTreeMap::new();
        let (mut ends, mut forgets) = (BTreeSet::new(), BTreeSet::new());
        for (place, unit) in &state.units {
            self.check_unit(unit);
            for waiting in &unit.waiting {
                if let Some(ticket) = waiting.open() {
                    open.insert(ticket.0, waiting.asker.name.parse::<usize>().unwrap());
                }
            }
            let held = unit.holding.is_some();
            if let Some(holding) = &unit.holding {
                assert_eq!(state.by_id.get(&holding.id), Some(place));
            }
            assert_eq!(unit.due, Some(unit.next_due()));
            let set = if held { &mut ends } else { &mut forgets };
            set.insert((unit.next_due(), place.clone()));
        }
        assert_eq!((&state.ends, &state.forgets), (&ends, &forgets));
        assert_eq!(state.by_id.len(), ends.len());
        assert_eq!(state.shares.counted().1, ends.len());
        // Nobody is lost: who waits is waited for, by the same question.
        assert_eq!(open, self.open());
        let watching: usize = state.units.values().map(|unit| unit.watching.len()).sum();
        assert_eq!(state.waiting(), open.len() + watching);
        self.check_holders();
    }

    fn check_unit(&self, unit: &Unit) {
        let open = unit.waiting.iter().filter(|waiting| waiting.open().is_some());
        if unit.holding.is_none() {
            assert_eq!(open.clone().count(), 0, "somebody waits for nobody");
            assert_eq!(unit.watching, [], "somebody looks on where nobody compiles");
            assert!(unit.is_remembered(self.now), "nothing is kept for nothing");
        }
        for waiting in open {
            assert_eq!(unit.news(&waiting.known, self.now), None, "it is told at once");
        }
        if unit.free {
            assert!(unit.holding.is_none() && unit.waiting.is_empty(), "nobody waits any more");
        }
        assert!(unit.free || unit.failures < MAX_LEASE_FAILURES);
        assert!(unit.waiting.len() <= MAX_LEASE_WAITERS);
        assert!(unit.stored.len() <= MAX_LEASE_RESULTS);
        let holder = unit.holding.iter().map(|holding| &holding.asker.name);
        let names: Vec<_> = holder.chain(unit.waiting.iter().map(|w| &w.asker.name)).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
    }

    /// Of those who believe that they have the lease of a unit, at most one does.
    fn check_holders(&self) {
        let mut of_unit = BTreeMap::new();
        for (unit, at) in &self.askers {
            if let At::Holds(id, _) = at
                && self.state.by_id.contains_key(id)
            {
                assert_eq!(of_unit.insert(*unit, *id), None, "two have it");
            }
        }
    }
}
