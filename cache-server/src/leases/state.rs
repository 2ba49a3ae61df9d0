//! [`State`]: who compiles a unit and who waits for it, in all scopes. Pure: times are arguments, counted from
//! any beginning, and whoever is to be told something is in [`State::take_told`].
//!
//! At most one asker has the lease of a unit. When it ends, those who wait are told of the result, or the one who
//! waits longest gets the lease; after a few failures, or where results cannot be stored, nobody waits. How it ended
//! is remembered for a while, for those who had looked the result up before it was there. Who stores nothing only looks
//! on: nobody ever waits for them. Called by [`super`].

mod shares;
mod unit;
mod watch;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use kiln_storage::api::{Lease, LeaseResponse, ReleaseRequest};
use kiln_storage::limits::{MAX_LEASE_WAITERS, MAX_LEASES, MAX_SHOWN_LEASES};
use kiln_storage::record::UnitName;
use kiln_storage::{LeaseKey, ResultKey};

use self::shares::Shares;
use self::unit::{Holding, Poll, Unit, Waiting};
use super::id::{Ids, LeaseId};

/// A unit of a scope, named by the scope's id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place {
    pub scope: Arc<str>,
    pub key: LeaseKey,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asker {
    /// The same in each question of one asker.
    pub name: String,
    pub run: String,
    pub job: String,
}

/// A question.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub place: Place,
    pub asker: Asker,
    pub unit: UnitName,
    /// Results that it is not told of.
    pub known: Vec<ResultKey>,
    /// Whether the answer may take time.
    pub waits: bool,
    /// It takes the lease over from who has had it for so long.
    pub over: Option<Duration>,
}

/// Names a question that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ticket(u64);

/// What becomes of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The answer.
    Now(LeaseResponse),
    /// It comes by [`State::take_told`].
    Later(Ticket),
}

/// A lease by its id, in the scope of whoever names it.
pub(crate) type Named<'a> = (&'a str, LeaseId);

/// What happened since the server started. Only counts up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub granted: u64,
    pub held: u64,
    pub stored: u64,
    pub free: u64,
    /// Leases whose holder was gone, or had it for too long.
    pub lost: u64,
}

/// All leases of a server.
#[derive(Debug, Clone)]
pub(crate) struct State {
    ids: Ids,
    next_ticket: u64,
    units: HashMap<Place, Unit>,
    by_id: HashMap<LeaseId, Place>,
    shares: Shares,
    /// When holders are lost.
    ends: BTreeSet<(Duration, Place)>,
    /// When what is remembered of units without a holder is forgotten.
    forgets: BTreeSet<(Duration, Place)>,
    told: Vec<(Ticket, LeaseResponse)>,
    waiting: usize,
    totals: Totals,
}

impl State {
    /// No leases. The ids of those to come are made by `ids`.
    pub(crate) fn new(ids: Ids) -> Self {
        Self {
            ids,
            next_ticket: 0,
            units: HashMap::new(),
            by_id: HashMap::new(),
            shares: Shares::default(),
            ends: BTreeSet::new(),
            forgets: BTreeSet::new(),
            told: Vec::new(),
            waiting: 0,
            totals: Totals::default(),
        }
    }

    /// Answers to questions that waited, since this was called last.
    pub(crate) fn take_told(&mut self) -> Vec<(Ticket, LeaseResponse)> {
        std::mem::take(&mut self.told)
    }

    /// When [`State::tick`] has something to do.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        let first = |set: &BTreeSet<(Duration, Place)>| set.first().map(|(due, _)| *due);
        first(&self.ends).into_iter().chain(first(&self.forgets)).min()
    }

    /// Leases that somebody has.
    pub(crate) fn held(&self) -> usize {
        self.ends.len()
    }

    /// Questions that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// What happened so far.
    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }

    /// Ends what is over by now.
    pub(crate) fn tick(&mut self, now: Duration) {
        while let Some((due, place)) = self.ends.first()
            && *due <= now
        {
            let place = place.clone();
            self.lose(&place, now);
        }
        while let Some((due, place)) = self.forgets.first()
            && *due <= now
        {
            let place = place.clone();
            self.with(&place, now, |_, _| {});
        }
    }

    /// Does something with a unit, and puts it where it belongs then.
    fn with<T>(
        &mut self,
        place: &Place,
        now: Duration,
        what: impl FnOnce(&mut Self, &mut Unit) -> T,
    ) -> T {
        let mut unit = self.units.remove(place).unwrap_or_default();
        if let Some(due) = unit.due.take() {
            let entry = (due, place.clone());
            if !self.ends.remove(&entry) {
                self.forgets.remove(&entry);
            }
        }
        let done = what(self, &mut unit);
        let held = unit.holding.is_some();
        if held || unit.is_remembered(now) {
            if !held {
                unit.name = UnitName::default();
            }
            let due = unit.next_due();
            unit.due = Some(due);
            let set = if held { &mut self.ends } else { &mut self.forgets };
            set.insert((due, place.clone()));
            self.units.insert(place.clone(), unit);
        }
        done
    }

    /// Counts an answer.
    fn says(&mut self, answer: LeaseResponse) -> LeaseResponse {
        let counter = match answer {
            LeaseResponse::Granted { .. } => &mut self.totals.granted,
            LeaseResponse::Held { .. } => &mut self.totals.held,
            LeaseResponse::Stored { .. } => &mut self.totals.stored,
            LeaseResponse::Free => &mut self.totals.free,
        };
        *counter += 1;
        answer
    }

    /// Answers a question that waited.
    fn tell(&mut self, ticket: Ticket, answer: LeaseResponse) {
        self.waiting -= 1;
        let answer = self.says(answer);
        self.told.push((ticket, answer));
    }

    /// Somebody asks.
    pub(crate) fn ask(&mut self, question: Question, now: Duration) -> Asked {
        self.tick(now);
        let place = question.place.clone();
        let full = self.shares.has_enough(&place.scope, self.by_id.len());
        if !self.units.contains_key(&place) && (full || !self.has_room()) {
            return Asked::Now(self.says(LeaseResponse::Free));
        }
        let asked = self.with(&place, now, |state, unit| state.asked(unit, question, now));
        match asked {
            Asked::Now(answer) => Asked::Now(self.says(answer)),
            later @ Asked::Later(_) => later,
        }
    }

    /// Makes room for one more unit by forgetting the one that would be forgotten next.
    fn has_room(&mut self) -> bool {
        if self.units.len() < MAX_LEASES {
            return true;
        }
        let Some((_, place)) = self.forgets.pop_first() else { return false };
        self.units.remove(&place);
        true
    }

    fn asked(&mut self, unit: &mut Unit, question: Question, now: Duration) -> Asked {
        let Question { place, asker, unit: name, known, waits, over } = question;
        if let Some(holding) = &mut unit.holding
            && holding.asker.name == asker.name
        {
            // The answer to its last question was lost.
            holding.ticket = None;
            holding.heard = now;
            return Asked::Now(LeaseResponse::Granted { id: holding.id.to_string() });
        }
        let turn = self.take_turn(unit, &asker, now);
        let is_over = |age| unit.holding.as_ref().is_some_and(|held| held.age(now) >= age);
        let takes_over = over.is_some_and(is_over);
        if takes_over {
            self.totals.lost += 1;
            self.end(unit);
            unit.failed(now);
        }
        let answer = if unit.free {
            LeaseResponse::Free
        } else if let Some(result) = unit.news(&known, now) {
            LeaseResponse::Stored { result }
        } else if let Some(holding) = &unit.holding {
            let held = LeaseResponse::Held { holder: holding.shown(now) };
            match (waits, turn) {
                (true, None) if unit.waiting.len() >= MAX_LEASE_WAITERS => LeaseResponse::Free,
                (true, turn) => {
                    let ticket = Ticket(self.next_ticket);
                    self.next_ticket += 1;
                    self.waiting += 1;
                    unit.wait(turn, Waiting { asker, known, poll: Poll::Open(ticket) });
                    return Asked::Later(ticket);
                }
                (false, Some(_)) => {
                    let known = Vec::new();
                    unit.wait(turn, Waiting { asker, known, poll: Poll::Answered(now) });
                    held
                }
                (false, None) => held,
            }
        } else if self.shares.has_enough(&place.scope, self.by_id.len()) {
            LeaseResponse::Free
        } else {
            unit.name = name;
            self.grant(unit, (&place, asker), None, now)
        };
        if takes_over && unit.holding.is_none() {
            self.pass_on(unit, &place, now);
        }
        Asked::Now(answer)
    }

    /// Takes somebody out who waits already; where it stood. An older question of it that is open is answered: nobody
    /// is there to hear it.
    fn take_turn(&mut self, unit: &mut Unit, asker: &Asker, now: Duration) -> Option<usize> {
        unit.waiting.retain(|waiting| !waiting.is_gone(now));
        let turn = unit.waiting.iter().position(|waiting| waiting.asker.name == asker.name)?;
        if let Some(ticket) = unit.waiting.remove(turn).open() {
            let holder = unit.holding.as_ref().map(|holding| holding.shown(now));
            self.tell(ticket, LeaseResponse::Held { holder: holder.unwrap_or_default() });
        }
        Some(turn)
    }

    fn grant(
        &mut self,
        unit: &mut Unit,
        (place, asker): (&Place, Asker),
        ticket: Option<Ticket>,
        now: Duration,
    ) -> LeaseResponse {
        let id = self.ids.next();
        self.by_id.insert(id, place.clone());
        self.shares.begins(&place.scope);
        let (since, heard) = (now, now);
        unit.holding = Some(Holding { id, asker, since, heard, open: 0, cpu_ms: 0, ticket });
        LeaseResponse::Granted { id: id.to_string() }
    }

    /// Whoever asked does not wait any longer, and is told who compiles; none: the answer was given already.
    pub(crate) fn waited(
        &mut self,
        place: &Place,
        ticket: Ticket,
        now: Duration,
    ) -> Option<LeaseResponse> {
        self.tick(now);
        let unit = self.units.get_mut(place)?;
        if !unit.no_longer_watches(ticket) {
            let waiting = unit.waiting.iter_mut().find(|waiting| waiting.open() == Some(ticket))?;
            waiting.poll = Poll::Answered(now);
            waiting.known = Vec::new();
        }
        let holder = unit.holding.as_ref().map(|holding| holding.shown(now)).unwrap_or_default();
        self.waiting -= 1;
        Some(self.says(LeaseResponse::Held { holder }))
    }

    /// Whoever asked has hung up before there was an answer, or before it was sent.
    pub(crate) fn gave_up(&mut self, place: &Place, ticket: Ticket, now: Duration) {
        self.tick(now);
        if !self.units.contains_key(place) {
            return;
        }
        self.with(place, now, |state, unit| {
            let before = unit.waiting.len();
            unit.waiting.retain(|waiting| waiting.open() != Some(ticket));
            state.waiting -= before - unit.waiting.len();
            state.waiting -= usize::from(unit.no_longer_watches(ticket));
            // It never learnt of its lease.
            if unit.holding.as_ref().is_some_and(|holding| holding.ticket == Some(ticket)) {
                state.end(unit);
                state.pass_on(unit, place, now);
            }
        });
    }

    /// The holder says that it lives, until [`State::hold_ends`] or [`State::hold_breaks`]. Whether it has the lease.
    pub(crate) fn hold_begins(&mut self, lease: Named<'_>, cpu_ms: u64, now: Duration) -> bool {
        self.heard(lease, now, |holding| {
            holding.open = holding.open.saturating_add(1);
            holding.cpu_ms = holding.cpu_ms.max(cpu_ms);
        })
    }

    /// A question of the holder is answered. Whether it has the lease.
    pub(crate) fn hold_ends(&mut self, lease: Named<'_>, now: Duration) -> bool {
        self.heard(lease, now, |holding| holding.open = holding.open.saturating_sub(1))
    }

    /// The connection of a question of the holder broke. Unless another one is open, the lease is lost.
    pub(crate) fn hold_breaks(&mut self, lease: Named<'_>, now: Duration) {
        self.hold_ends(lease, now);
        let Some(place) = self.place_of(lease) else { return };
        let holding = self.units.get(&place).and_then(|unit| unit.holding.as_ref());
        if holding.is_some_and(|holding| holding.open == 0) {
            self.lose(&place, now);
        }
    }

    /// The holder says how it ended. Whether it had the lease.
    pub(crate) fn release(
        &mut self,
        lease: Named<'_>,
        outcome: ReleaseRequest,
        now: Duration,
    ) -> bool {
        self.tick(now);
        let Some(place) = self.place_of(lease) else { return false };
        self.with(&place, now, |state, unit| {
            state.end(unit);
            match outcome {
                ReleaseRequest::Stored { result } => unit.stored(result, now),
                ReleaseRequest::Failed => unit.failed(now),
                ReleaseRequest::NotStored => unit.not_stored(now),
                ReleaseRequest::Abandoned => {}
            }
            state.pass_on(unit, &place, now);
        });
        true
    }

    fn place_of(&self, (scope, id): Named<'_>) -> Option<Place> {
        self.by_id.get(&id).filter(|place| &*place.scope == scope).cloned()
    }

    fn heard(&mut self, lease: Named<'_>, now: Duration, note: impl FnOnce(&mut Holding)) -> bool {
        self.tick(now);
        let Some(place) = self.place_of(lease) else { return false };
        self.with(&place, now, |_, unit| {
            if let Some(holding) = &mut unit.holding {
                holding.heard = now;
                holding.ticket = None;
                note(holding);
            }
        });
        true
    }

    /// The holder is gone, or has had the lease for too long.
    fn lose(&mut self, place: &Place, now: Duration) {
        self.totals.lost += 1;
        self.with(place, now, |state, unit| {
            state.end(unit);
            unit.failed(now);
            state.pass_on(unit, place, now);
        });
    }

    fn end(&mut self, unit: &mut Unit) {
        let held = unit.holding.take().and_then(|holding| self.by_id.remove(&holding.id));
        held.iter().for_each(|place| self.shares.ends(&place.scope));
    }

    /// Tells those who wait what there is to tell, and gives the lease that nobody has to the one who waits longest.
    fn pass_on(&mut self, unit: &mut Unit, place: &Place, now: Duration) {
        for waiting in std::mem::take(&mut unit.waiting) {
            let answer = match waiting.open() {
                None => None,
                Some(_) if unit.free => Some(LeaseResponse::Free),
                Some(ticket) => match unit.news(&waiting.known, now) {
                    Some(result) => Some(LeaseResponse::Stored { result }),
                    None if unit.holding.is_some() => None,
                    None => {
                        let who = (place, waiting.asker.clone());
                        Some(self.grant(unit, who, Some(ticket), now))
                    }
                },
            };
            match (answer, waiting.open()) {
                (Some(answer), Some(ticket)) => self.tell(ticket, answer),
                _ if unit.free => {}
                _ => unit.waiting.push(waiting),
            }
        }
        for (ticket, known) in std::mem::take(&mut unit.watching) {
            match unit.news(&known, now) {
                Some(result) if !unit.free => self.tell(ticket, LeaseResponse::Stored { result }),
                None if unit.holding.is_some() => unit.watching.push((ticket, known)),
                _ => self.tell(ticket, LeaseResponse::Free),
            }
        }
    }

    /// Everybody who waits is told not to: the server leaves.
    pub(crate) fn close(&mut self, now: Duration) {
        let mut tickets = Vec::with_capacity(self.waiting);
        for unit in self.units.values_mut() {
            tickets.extend(unit.waiting.iter().filter_map(Waiting::open));
            unit.waiting.clear();
            tickets.extend(unit.watching.drain(..).map(|(ticket, _)| ticket));
        }
        for ticket in tickets {
            self.tell(ticket, LeaseResponse::Free);
        }
        self.tick(now);
    }

    /// Who compiles what in a scope, oldest first; of a run: what it compiles or waits for.
    pub(crate) fn list(&self, scope: &str, run: Option<&str>, now: Duration) -> Vec<Lease> {
        let of_scope = self.units.iter().filter(|(place, _)| &*place.scope == scope);
        let mut shown: Vec<_> = of_scope.filter_map(|(_, unit)| unit.shown(run, now)).collect();
        shown.sort_by_key(|(since, _)| *since);
        shown.into_iter().take(MAX_SHOWN_LEASES).map(|(_, lease)| lease).collect()
    }
}

#[cfg(test)]
mod tests;
