//! The rules one by one.

use kiln_storage::limits::{
    LEASE_GRACE, LEASE_HOLD, LEASE_MEMORY, MAX_LEASE_AGE, MAX_LEASE_WAITERS, MAX_LEASES,
};

use super::*;
use crate::limits::{MAX_HELD_LEASES, MAX_LEASE_WATCHERS};

const SECOND: Duration = Duration::from_secs(1);

/// Askers of one unit.
fn world(askers: usize) -> World {
    World::new(askers, 1)
}

impl World {
    fn asks(&mut self, who: usize) -> &mut Self {
        self.step(&Step::Ask { who, waits: true, known: Vec::new() });
        self
    }

    fn does(&mut self, step: Step) -> &mut Self {
        assert!(self.step(&step), "{step:?}");
        self
    }

    fn holds(&self, who: usize) -> bool {
        matches!(self.at(who), At::Holds(id, _) if self.state.by_id.contains_key(id))
    }

    fn waits(&self, who: usize) -> bool {
        matches!(self.at(who), At::Waits(_))
    }
}

#[test]
fn one_compiles_and_the_others_are_told_of_its_result() {
    let mut world = world(4);
    world.asks(0).asks(1).asks(2);
    assert!(world.holds(0) && world.waits(1) && world.waits(2));
    world.does(Step::Release(0, ReleaseRequest::Stored { result: result(1) }));
    assert_eq!(world.state.totals().stored, 2);
    // Who had looked it up before it was there.
    world.asks(3);
    assert_eq!((world.at(3), world.state.totals().stored), (&At::Nowhere, 3));
    // Who knows it, and it does not hold, compiles. Who does not is told meanwhile.
    world.does(Step::Ask { who: 1, waits: true, known: vec![result(1)] });
    assert!(world.holds(1));
    world.does(Step::Ask { who: 2, waits: true, known: vec![result(1)] });
    world.asks(3);
    assert!(world.waits(2) && *world.at(3) == At::Nowhere);
    world.does(Step::Release(1, ReleaseRequest::Stored { result: result(2) }));
    assert_eq!((world.at(2), world.state.totals().granted), (&At::Nowhere, 2));
    world.does(Step::Later(LEASE_MEMORY)).asks(3);
    assert!(world.holds(3), "it is forgotten");
}

/// The others wait for the one that takes over; after two who were too slow nobody does.
#[test]
fn a_slow_holder_is_taken_over_from_by_one() {
    let mut world = world(5);
    world.asks(0).does(Step::HoldBegins(0)).asks(1).asks(2);
    world.does(Step::Later(SECOND)).does(Step::TakesOver(3, 2 * SECOND));
    assert!(world.holds(0) && *world.at(3) == At::Nowhere, "it has not had it for so long");
    world.does(Step::Later(SECOND)).does(Step::TakesOver(1, 2 * SECOND));
    assert!(world.holds(1) && !world.holds(0));
    assert!(world.waits(2), "one is enough");
    assert!(!world.state.hold_begins(("s", held_by(&world, 0)), 7, world.now));
    world.does(Step::HoldBegins(1)).does(Step::TakesOver(3, 2 * SECOND)).asks(3);
    assert!(world.holds(1) && world.waits(3), "its time begins anew");
    world.does(Step::Later(2 * SECOND)).does(Step::TakesOver(2, 2 * SECOND));
    assert_eq!((world.at(2), world.at(3)), (&At::Nowhere, &At::Nowhere), "everybody compiles");
    assert_eq!((world.state.held(), world.state.waiting(), world.state.totals().lost), (0, 0, 2));
    world.asks(4);
    assert_eq!((world.at(4), world.state.totals().free), (&At::Nowhere, 3));
}

/// A result that came meanwhile is what one who would take over is told of; the lease goes to who waits longest.
#[test]
fn who_takes_over_is_told_of_results_first() {
    let mut world = world(3);
    world.asks(0).does(Step::Release(0, ReleaseRequest::Stored { result: result(1) }));
    let known = || vec![result(1)];
    world.does(Step::Ask { who: 0, waits: true, known: known() });
    world.does(Step::Ask { who: 1, waits: true, known: known() });
    assert!(world.holds(0) && world.waits(1));
    world.does(Step::TakesOver(2, Duration::ZERO));
    assert_eq!((world.at(2), world.state.totals().stored), (&At::Nowhere, 1));
    assert!(world.holds(1) && !world.holds(0));
}

/// The lease that somebody has, or had.
fn held_by(world: &World, who: usize) -> LeaseId {
    let At::Holds(id, _) = world.at(who) else { panic!("{:?}", world.at(who)) };
    *id
}

/// Who looks on waits as others do, and is waited for by nobody.
#[test]
fn who_stores_nothing_looks_on() {
    let mut world = world(2);
    let watch = |world: &mut World, waits| {
        let known = Vec::new();
        world.state.watch(&place(0), (known, waits), world.now)
    };
    let free = Asked::Now(LeaseResponse::Free);
    assert_eq!(watch(&mut world, true), free, "it has no lease either");
    world.asks(0);
    assert!(world.holds(0), "nobody has it");
    assert!(matches!(watch(&mut world, false), Asked::Now(LeaseResponse::Held { .. })));
    let waits = |asked: Asked| match asked {
        Asked::Later(ticket) => ticket,
        Asked::Now(answer) => panic!("{answer:?}"),
    };
    let [one, two, three] = [(); 3].map(|()| waits(watch(&mut world, true)));
    world.asks(1);
    assert_eq!(world.state.waiting(), 4);
    world.state.gave_up(&place(0), one, world.now);
    let held = world.state.waited(&place(0), two, world.now);
    assert!(matches!(held, Some(LeaseResponse::Held { .. })));
    assert_eq!(world.state.waited(&place(0), two, world.now), None);
    assert_eq!(world.state.waiting(), 2);
    // The holder is gone, and another one takes over: not the one who looks on.
    assert!(world.state.is_known(&place(0), &[], world.now));
    world.does(Step::HoldBegins(0)).does(Step::HoldBreaks(0));
    assert!(world.holds(1));
    assert_eq!(world.state.waiting(), 1);
    let At::Holds(id, _) = *world.at(1) else { panic!("it holds") };
    let stored = ReleaseRequest::Stored { result: result(1) };
    assert!(world.state.release(("s", id), stored, world.now));
    let told = LeaseResponse::Stored { result: result(1) };
    assert_eq!(world.state.take_told(), [(three, told.clone())]);
    assert_eq!(watch(&mut world, true), Asked::Now(told));
    // One that comes between two questions is told of it by the next, though nobody has the lease any more.
    let is_known = |known: &[ResultKey]| world.state.is_known(&place(0), known, world.now);
    assert!(is_known(&[]) && !is_known(&[result(1)]));
}

#[test]
fn who_looks_on_is_let_go_when_nobody_compiles() {
    let mut world = world(1);
    world.asks(0);
    let mut tickets = Vec::new();
    for _ in 0..MAX_LEASE_WATCHERS {
        let asked = world.state.watch(&place(0), (Vec::new(), true), world.now);
        let Asked::Later(ticket) = asked else { panic!("{asked:?}") };
        tickets.push((ticket, LeaseResponse::Free));
    }
    let asked = world.state.watch(&place(0), (Vec::new(), true), world.now);
    assert_eq!(asked, Asked::Now(LeaseResponse::Free), "there are too many");
    let At::Holds(id, _) = *world.at(0) else { panic!("it holds") };
    assert!(world.state.release(("s", id), ReleaseRequest::Abandoned, world.now));
    assert_eq!(world.state.take_told(), tickets);
    assert_eq!(world.state.waiting(), 0);
}

#[test]
fn the_one_who_waits_longest_takes_over() {
    let mut world = world(4);
    world.asks(0).asks(1).does(Step::Later(SECOND)).asks(2).asks(3);
    // It asks again and keeps its turn.
    world.does(Step::Waited(1)).does(Step::Later(SECOND)).asks(1);
    world.does(Step::HoldBegins(0)).does(Step::HoldBreaks(0));
    assert!(world.holds(1) && world.waits(2) && world.waits(3));
    assert_eq!(world.state.totals().lost, 1);
    world.does(Step::Release(1, ReleaseRequest::Abandoned));
    assert!(world.holds(2) && world.waits(3));
    // The second failure.
    world.does(Step::Release(2, ReleaseRequest::Failed));
    assert_eq!((world.at(3), world.state.totals().free), (&At::Nowhere, 1));
    world.asks(0);
    assert_eq!(world.state.totals().free, 2);
    world.does(Step::Later(LEASE_MEMORY)).asks(0);
    assert!(world.holds(0));
}

#[test]
fn who_does_not_ask_again_loses_its_turn() {
    let mut world = world(4);
    world.asks(0).asks(1).asks(2).does(Step::HoldBegins(0)).does(Step::Waited(1));
    world.does(Step::Later(LEASE_GRACE)).asks(1);
    world.does(Step::HoldBreaks(0));
    assert!(world.holds(2) && world.waits(1));
    // Nobody asks at that moment: the next one who does has it.
    world.does(Step::Waited(1)).does(Step::Release(2, ReleaseRequest::Abandoned)).asks(3);
    assert!(world.holds(3));
}

#[test]
fn a_holder_lives_by_its_questions() {
    let mut world = world(2);
    world.asks(0).asks(1);
    for _ in 0..20 {
        world.does(Step::Later(LEASE_GRACE - SECOND)).does(Step::HoldBegins(0));
        world.does(Step::Later(LEASE_HOLD)).does(Step::HoldEnds(0));
    }
    assert!(world.holds(0));
    world.does(Step::Later(LEASE_GRACE - SECOND));
    assert!(world.waits(1));
    world.does(Step::Later(SECOND));
    assert!(world.holds(1), "it was silent for too long");
    // One that dies before its first question.
    world.asks(0).does(Step::Vanishes(1)).does(Step::Later(LEASE_GRACE));
    assert_eq!((world.state.held(), world.state.totals().free), (0, 1));
}

/// The wrapper asks again on another connection before the server knows that the first one is gone.
#[test]
fn a_broken_question_beside_an_open_one_ends_nothing() {
    let mut world = world(2);
    world.asks(0).asks(1).does(Step::HoldBegins(0)).does(Step::HoldBegins(0));
    world.does(Step::HoldBreaks(0));
    assert!(world.holds(0) && world.waits(1));
    world.does(Step::HoldBreaks(0));
    assert!(world.holds(1));
}

#[test]
fn nobody_has_a_lease_for_ever() {
    let mut world = world(2);
    world.asks(0).does(Step::HoldBegins(0)).does(Step::Later(MAX_LEASE_AGE - SECOND)).asks(1);
    assert!(world.holds(0));
    world.does(Step::Later(SECOND));
    assert!(world.holds(1) && !world.holds(0));
    assert!(world.step(&Step::HoldEnds(0)) && world.holds(1));
}

#[test]
fn a_question_that_is_asked_again_has_the_same_answer() {
    let mut world = world(2);
    world.asks(0);
    let first = world.at(0).clone();
    world.does(Step::Later(LEASE_GRACE - SECOND)).asks(0);
    assert_eq!(*world.at(0), first);
    world.does(Step::Later(LEASE_GRACE - SECOND));
    assert!(world.holds(0), "it was heard of");
    world.asks(1).asks(1);
    assert_eq!((world.state.waiting(), world.state.totals().granted), (1, 2));
}

/// Granted to a question whose asker has hung up: the next one does not wait until that is noticed.
#[test]
fn a_lease_that_nobody_learnt_of_goes_on() {
    let mut world = world(3);
    world.asks(0).asks(1).asks(2);
    let At::Waits(ticket) = *world.at(1) else { panic!() };
    world.does(Step::Release(0, ReleaseRequest::Abandoned));
    assert!(world.holds(1));
    world.state.gave_up(&place(0), ticket, world.now);
    world.askers[1].1 = At::Nowhere;
    world.hear();
    world.check();
    assert!(world.holds(2));
    assert_eq!((world.state.totals().lost, world.state.totals().granted), (0, 3));
    // Once it was heard of, a question of old tells nothing.
    let mut world = super::rules::world(2);
    world.asks(0).asks(1);
    let At::Waits(ticket) = *world.at(1) else { panic!() };
    world.does(Step::Release(0, ReleaseRequest::Abandoned)).does(Step::HoldBegins(1));
    world.state.gave_up(&place(0), ticket, world.now);
    assert!(world.holds(1));
}

#[test]
fn nobody_waits_for_what_cannot_be_stored() {
    let mut world = world(3);
    world.asks(0).asks(1).does(Step::Release(0, ReleaseRequest::NotStored));
    assert_eq!((world.at(1), world.state.totals().free), (&At::Nowhere, 1));
    world.asks(2);
    assert_eq!(world.state.totals().free, 2);
}

#[test]
fn a_stored_result_makes_up_for_failures() {
    let mut world = world(1);
    for outcome in [ReleaseRequest::Failed, ReleaseRequest::Stored { result: result(1) }] {
        world.asks(0).does(Step::Release(0, outcome));
    }
    world.does(Step::Ask { who: 0, waits: true, known: vec![result(1)] });
    world.does(Step::Release(0, ReleaseRequest::Failed));
    world.does(Step::Ask { who: 0, waits: true, known: vec![result(1)] });
    assert!(world.holds(0));
}

#[test]
fn leases_of_one_scope_are_nothing_to_another() {
    let mut world = world(2);
    world.asks(0).asks(1);
    let At::Holds(id, _) = *world.at(0) else { panic!() };
    let (state, now) = (&mut world.state, world.now);
    assert!(!state.hold_begins(("t", id), 0, now) && !state.hold_ends(("t", id), now));
    assert!(!state.release(("t", id), ReleaseRequest::Failed, now));
    state.hold_breaks(("t", id), now);
    assert!(state.list("t", None, now).is_empty());
    assert!(world.holds(0));
}

#[test]
fn who_compiles_and_who_waits_is_shown() {
    let mut world = world(4);
    world.asks(0).asks(1).asks(2).does(Step::Later(SECOND)).does(Step::HoldBegins(0));
    let list = |world: &World, run| world.state.list("s", run, world.now);
    let leases = list(&world, Some("r"));
    assert_eq!(leases, list(&world, None));
    assert_eq!(list(&world, Some("q")), []);
    let [Lease { holder, waiting, .. }] = &leases[..] else { panic!("{leases:?}") };
    assert_eq!((holder.job.as_str(), holder.age_ms, holder.cpu_ms), ("job 0", 1000, 7));
    assert_eq!(waiting.iter().map(|w| w.job.as_str()).collect::<Vec<_>>(), ["job 1", "job 2"]);
    world.does(Step::HoldEnds(0)).does(Step::Later(SECOND));
    assert_eq!(list(&world, None)[0].holder.silent_ms, 1000);
}

#[test]
fn over_a_bound_nobody_waits() {
    let mut world = world(MAX_LEASE_WAITERS + 2);
    for who in 0..=MAX_LEASE_WAITERS {
        world.act(&Step::Ask { who, waits: true, known: Vec::new() });
    }
    assert_eq!((world.state.waiting(), world.state.totals().free), (MAX_LEASE_WAITERS, 0));
    world.asks(MAX_LEASE_WAITERS + 1);
    assert_eq!(world.state.totals().free, 1);
    // One that waits already has its place.
    world.asks(1);
    assert_eq!((world.state.waiting(), world.state.totals().free), (MAX_LEASE_WAITERS, 1));
}

#[test]
fn the_number_of_units_is_bounded() {
    let (mut state, now) = (State::new(Ids::of(Digest::of(b""))), Duration::ZERO);
    let ask = |state: &mut State, n| {
        let question = Question {
            place: place(n),
            asker: asker(n),
            unit: UnitName::default(),
            known: Vec::new(),
            waits: true,
            over: None,
        };
        let Asked::Now(answer) = state.ask(question, now) else { panic!() };
        answer
    };
    let outcome = ReleaseRequest::Stored { result: result(1) };
    for n in 0..MAX_LEASES + 10 {
        let LeaseResponse::Granted { id } = ask(&mut state, n) else { panic!("{n}") };
        assert!(state.release(("s", id.parse().unwrap()), outcome, now));
    }
    assert_eq!((state.units.len(), state.forgets.len()), (MAX_LEASES, MAX_LEASES));
    assert_eq!(ask(&mut state, MAX_LEASES), LeaseResponse::Stored { result: result(1) });
    for n in 0..MAX_HELD_LEASES / 2 {
        assert!(matches!(ask(&mut state, 2 * MAX_LEASES + n), LeaseResponse::Granted { .. }));
    }
    assert_eq!(ask(&mut state, 4 * MAX_LEASES), LeaseResponse::Free);
    assert_eq!((state.units.len(), state.held()), (MAX_LEASES, MAX_HELD_LEASES / 2));
}

/// A scope that wants all leases gets half of them, the next one half of the rest: there is always one for others.
#[test]
fn no_scope_takes_all_leases() {
    let (mut state, now) = (State::new(Ids::of(Digest::of(b""))), Duration::ZERO);
    let ask = |state: &mut State, scope: &str, n| {
        let place = Place { scope: scope.into(), ..place(n) };
        let (unit, known) = (UnitName::default(), Vec::new());
        let asker = asker(n);
        let question = Question { place, asker, unit, known, waits: false, over: None };
        match state.ask(question, now) {
            Asked::Now(LeaseResponse::Granted { id }) => Some(id.parse().unwrap()),
            Asked::Now(LeaseResponse::Free) => None,
            asked => panic!("{asked:?}"),
        }
    };
    let greedy = |state: &mut State, scope| -> Vec<LeaseId> {
        (0..2 * MAX_HELD_LEASES).map_while(|n| ask(state, scope, n)).collect()
    };
    let first = greedy(&mut state, "one");
    assert_eq!(first.len(), MAX_HELD_LEASES / 2);
    assert_eq!(greedy(&mut state, "two").len(), MAX_HELD_LEASES / 4);
    assert!(!greedy(&mut state, "main").is_empty());
    for id in first {
        assert!(state.release(("one", id), ReleaseRequest::Abandoned, now));
    }
    assert_eq!(state.shares.counted().0, 2, "who has none is not counted");
    assert!(ask(&mut state, "one", 0).is_some());
}

#[test]
fn a_server_that_leaves_tells_everybody() {
    let mut world = world(3);
    world.asks(0).asks(1).asks(2);
    world.state.close(world.now);
    world.hear();
    world.check();
    assert_eq!((world.state.waiting(), world.state.totals().free), (0, 2));
}
