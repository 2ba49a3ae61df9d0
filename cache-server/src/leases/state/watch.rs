//! Those who look on: they wait for what others compile, and never get a lease themselves. Called by [`super`].

use std::time::Duration;

use kiln_storage::ResultKey;
use kiln_storage::api::LeaseResponse;

use super::unit::Unit;
use super::{Asked, Place, State, Ticket};
use crate::limits::MAX_LEASE_WATCHERS;

impl State {
    /// Whether there is something to wait for, or to tell, for who looks on and knows these results.
    pub(crate) fn is_known(&self, place: &Place, known: &[ResultKey], now: Duration) -> bool {
        let tells = |unit: &Unit| unit.holding.is_some() || unit.news(known, now).is_some();
        self.units.get(place).is_some_and(tells)
    }

    /// Somebody asks who never gets the lease: waits as long as somebody else has it.
    pub(crate) fn watch(
        &mut self,
        place: &Place,
        (known, waits): (Vec<ResultKey>, bool),
        now: Duration,
    ) -> Asked {
        self.tick(now);
        let Some(unit) = self.units.get_mut(place).filter(|unit| !unit.free) else {
            return Asked::Now(self.says(LeaseResponse::Free));
        };
        let answer = match (unit.news(&known, now), &unit.holding) {
            (Some(result), _) => LeaseResponse::Stored { result },
            (None, Some(holding)) if !waits => LeaseResponse::Held { holder: holding.shown(now) },
            (None, Some(_)) if unit.watching.len() < MAX_LEASE_WATCHERS => {
                let ticket = Ticket(self.next_ticket);
                self.next_ticket += 1;
                self.waiting += 1;
                unit.watching.push((ticket, known));
                return Asked::Later(ticket);
            }
            (None, _) => LeaseResponse::Free,
        };
        Asked::Now(self.says(answer))
    }
}
