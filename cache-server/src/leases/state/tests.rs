//! The state against what it promises: every order of the events of three askers up to a depth (`every_order`), and
//! random ones with random times (`random`).

mod every_order;
mod promises;
mod random;
mod rules;

use std::collections::BTreeMap;
use std::time::Duration;

use kiln_storage::api::{LeaseResponse, ReleaseRequest};
use kiln_storage::record::UnitName;
use kiln_storage::{Digest, LeaseKey, ResultKey};

use super::super::id::Ids;
use super::*;

pub(super) fn result(n: u8) -> ResultKey {
    ResultKey::new(Digest::of(&[n]))
}

pub(super) fn place(n: usize) -> Place {
    Place { scope: "s".into(), key: LeaseKey::new(Digest::of(&n.to_le_bytes())) }
}

pub(super) fn asker(n: usize) -> Asker {
    Asker { name: n.to_string(), run: "r".into(), job: format!("job {n}") }
}

/// Where an asker believes to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum At {
    Nowhere,
    Waits(Ticket),
    /// It has, or had, a lease; so many questions of it are open.
    Holds(LeaseId, u32),
}

/// What happens. The first number is an asker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Ask {
        who: usize,
        waits: bool,
        known: Vec<ResultKey>,
    },
    /// Asks to have the lease of a holder that has had it for so long.
    TakesOver(usize, Duration),
    GivesUp(usize),
    Waited(usize),
    HoldBegins(usize),
    HoldEnds(usize),
    HoldBreaks(usize),
    Release(usize, ReleaseRequest),
    /// It is gone, and no connection tells.
    Vanishes(usize),
    Later(Duration),
}

/// A state, and the askers around it: each asks for one unit at a time.
#[derive(Debug, Clone)]
pub(super) struct World {
    pub state: State,
    pub now: Duration,
    pub askers: Vec<(usize, At)>,
    /// Questions whose askers asked again since.
    replaced: Vec<Ticket>,
}

impl World {
    /// So many askers for so many units.
    pub(super) fn new(askers: usize, units: usize) -> Self {
        let state = State::new(Ids::of(Digest::of(b"seed")));
        let askers = (0..askers).map(|n| (n % units, At::Nowhere)).collect();
        Self { state, now: Duration::from_secs(1), askers, replaced: Vec::new() }
    }

    pub(super) fn at(&self, who: usize) -> &At {
        &self.askers[who].1
    }

    /// Does a step, if it is one that can be done, and hears what is told.
    pub(super) fn step(&mut self, step: &Step) -> bool {
        let done = self.act(step);
        self.hear();
        self.check();
        done
    }

    fn act(&mut self, step: &Step) -> bool {
        let now = self.now;
        match step {
            Step::Later(by) => {
                self.now += *by;
                self.state.tick(self.now);
            }
            Step::Ask { who, waits, known } => return self.ask(*who, (*waits, None), known),
            Step::TakesOver(who, age) => return self.ask(*who, (false, Some(*age)), &[]),
            Step::GivesUp(who) => {
                let At::Waits(ticket) = *self.at(*who) else { return false };
                self.state.gave_up(&place(self.askers[*who].0), ticket, now);
                self.askers[*who].1 = At::Nowhere;
            }
            Step::Waited(who) => {
                let At::Waits(ticket) = *self.at(*who) else { return false };
                if let Some(told) = self.state.waited(&place(self.askers[*who].0), ticket, now) {
                    assert!(matches!(told, LeaseResponse::Held { .. }), "{told:?}");
                    self.askers[*who].1 = At::Nowhere;
                }
            }
            Step::HoldBegins(who) => {
                let At::Holds(id, open) = *self.at(*who) else { return false };
                self.askers[*who].1 = match self.state.hold_begins(("s", id), 7, now) {
                    true => At::Holds(id, open + 1),
                    false => At::Nowhere,
                };
            }
            Step::HoldEnds(who) | Step::HoldBreaks(who) => {
                let At::Holds(id, open @ 1..) = *self.at(*who) else { return false };
                let ends = matches!(step, Step::HoldEnds(_));
                let still = if ends {
                    self.state.hold_ends(("s", id), now)
                } else {
                    self.state.hold_breaks(("s", id), now);
                    open > 1
                };
                self.askers[*who].1 = if still { At::Holds(id, open - 1) } else { At::Nowhere };
            }
            Step::Release(who, outcome) => {
                let At::Holds(id, _) = *self.at(*who) else { return false };
                self.state.release(("s", id), *outcome, now);
                assert!(!self.state.release(("s", id), *outcome, now), "it is over");
                self.askers[*who].1 = At::Nowhere;
            }
            Step::Vanishes(who) => {
                let At::Holds(..) = self.at(*who) else { return false };
                self.askers[*who].1 = At::Nowhere;
            }
        }
        true
    }

    fn ask(
        &mut self,
        who: usize,
        (waits, over): (bool, Option<Duration>),
        known: &[ResultKey],
    ) -> bool {
        let (unit, at) = self.askers[who].clone();
        if matches!(at, At::Holds(_, 1..)) {
            return false;
        }
        if let At::Waits(before) = at {
            self.replaced.push(before);
        }
        let question = Question {
            place: place(unit),
            asker: asker(who),
            unit: UnitName::default(),
            known: known.to_vec(),
            waits,
            over,
        };
        let before = match at {
            At::Holds(id, _) if self.state.by_id.contains_key(&id) => Some(id),
            _ => None,
        };
        let asked = self.state.ask(question, self.now);
        if let (Some(id), Asked::Now(answer)) = (before, &asked)
            && self.state.by_id.contains_key(&id)
        {
            assert_eq!(*answer, LeaseResponse::Granted { id: id.to_string() }, "the same lease");
        }
        self.askers[who].1 = match asked {
            Asked::Later(ticket) => At::Waits(ticket),
            Asked::Now(answer) => heard(&answer, known),
        };
        true
    }

    /// Each answer is one that somebody waits for.
    fn hear(&mut self) {
        for (ticket, answer) in self.state.take_told() {
            if let Some(old) = self.replaced.iter().position(|old| *old == ticket) {
                self.replaced.swap_remove(old);
                continue;
            }
            let waits = self.askers.iter().position(|(_, at)| *at == At::Waits(ticket));
            let who = waits.unwrap_or_else(|| panic!("nobody waits for {ticket:?}: {answer:?}"));
            self.askers[who].1 = heard(&answer, &[]);
        }
        // Whoever asked again and was not told of the older question: its answer came before.
        self.replaced.clear();
    }

    /// Who waits in the state, by its question.
    pub(super) fn open(&self) -> BTreeMap<u64, usize> {
        let waits = |(who, (_, at)): (usize, &(usize, At))| match at {
            At::Waits(ticket) => Some((ticket.0, who)),
            _ => None,
        };
        self.askers.iter().enumerate().filter_map(waits).collect()
    }
}

fn heard(answer: &LeaseResponse, known: &[ResultKey]) -> At {
    match answer {
        LeaseResponse::Granted { id } => At::Holds(id.parse().unwrap(), 0),
        LeaseResponse::Stored { result } => {
            assert!(!known.contains(result), "it was told of it before");
            At::Nowhere
        }
        LeaseResponse::Held { .. } | LeaseResponse::Free => At::Nowhere,
    }
}
