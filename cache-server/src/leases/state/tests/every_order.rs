//! Every order of the events of three askers of one unit, up to a depth. States that differ in nothing but names and
//! times long past are one.

use std::collections::HashSet;
use std::fmt::Write as _;

use kiln_storage::limits::{LEASE_GRACE, LEASE_MEMORY};

use super::*;

const ASKERS: usize = 3;
const DEPTH: usize = 9;

fn steps() -> Vec<Step> {
    let mut steps = vec![Step::Later(LEASE_GRACE), Step::Later(LEASE_MEMORY)];
    for who in 0..ASKERS {
        let ask = |waits, known: &[u8]| {
            let known = known.iter().map(|n| result(*n)).collect();
            Step::Ask { who, waits, known }
        };
        let stored = ReleaseRequest::Stored { result: result(u8::from(who > 0)) };
        steps.extend([
            ask(true, &[]),
            ask(true, &[0]),
            Step::TakesOver(who, LEASE_GRACE),
            Step::GivesUp(who),
            Step::Waited(who),
            Step::HoldBegins(who),
            Step::HoldEnds(who),
            Step::HoldBreaks(who),
            Step::Release(who, stored),
            Step::Release(who, ReleaseRequest::Failed),
            Step::Release(who, ReleaseRequest::Abandoned),
        ]);
    }
    // What these do is the same whoever does it.
    steps.extend([
        Step::Ask { who: 0, waits: false, known: Vec::new() },
        Step::Release(0, ReleaseRequest::NotStored),
    ]);
    steps
}

/// What a world comes to, without names of leases and questions.
fn shape(world: &World) -> String {
    let mut shape = String::new();
    let ago = |at: Duration| (world.now - at).as_secs().min(3 * LEASE_GRACE.as_secs());
    for unit in world.state.units.values() {
        if let Some(holding) = &unit.holding {
            let Holding { asker, heard, open, ticket, .. } = holding;
            let _ = write!(shape, "{} {} {open} {:?}", asker.name, ago(*heard), ticket.is_some());
        }
        for Waiting { asker, known, poll } in &unit.waiting {
            let poll = match poll {
                Poll::Open(_) => None,
                Poll::Answered(at) => Some(ago(*at)),
            };
            let _ = write!(shape, " {}{poll:?}{}", asker.name, known.len());
        }
        let stored = unit.stored.iter().map(|(result, _)| result.digest().short());
        let stored = stored.collect::<String>();
        let _ = write!(shape, " {stored} {} {} {}", unit.failures, unit.free, ago(unit.learnt));
    }
    for (_, at) in &world.askers {
        let at = match at {
            At::Nowhere => None,
            At::Waits(_) => Some((true, 0)),
            At::Holds(id, open) => Some((world.state.by_id.contains_key(id), *open + 1)),
        };
        let _ = write!(shape, "|{at:?}");
    }
    shape
}

#[test]
fn in_every_order_of_events_the_promises_hold() {
    let steps = steps();
    let mut seen = HashSet::new();
    let mut worlds = vec![World::new(ASKERS, 1)];
    for _ in 0..DEPTH {
        let mut next = Vec::new();
        for world in &worlds {
            for step in &steps {
                let mut world = world.clone();
                // It checks itself.
                if world.step(step) && seen.insert(shape(&world)) {
                    next.push(world);
                }
            }
        }
        worlds = next;
    }
    assert!(seen.len() > 10_000, "{}", seen.len());
}
