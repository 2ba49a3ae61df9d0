//! Random events at random times: everything that ends by itself does.

use kiln_storage::limits::{LEASE_GRACE, LEASE_MEMORY, MAX_LEASE_AGE};
use proptest::prelude::*;

use super::*;

const ASKERS: usize = 8;
const UNITS: usize = 3;

fn step() -> impl Strategy<Value = Step> {
    let who = 0..ASKERS;
    let known = prop::collection::vec((0_u8..3).prop_map(result), 0..3);
    let outcome = prop_oneof![
        4 => (0_u8..3).prop_map(|n| ReleaseRequest::Stored { result: result(n) }),
        2 => Just(ReleaseRequest::Failed),
        1 => Just(ReleaseRequest::NotStored),
        2 => Just(ReleaseRequest::Abandoned),
    ];
    let seconds = prop_oneof![
        8 => 0..LEASE_GRACE.as_secs() + 2,
        2 => 0..LEASE_MEMORY.as_secs() + 2,
        1 => 0..MAX_LEASE_AGE.as_secs() + 2,
    ];
    prop_oneof![
        8 => (who.clone(), prop::bool::weighted(0.8), known)
            .prop_map(|(who, waits, known)| Step::Ask { who, waits, known }),
        2 => (who.clone(), 0_u64..8)
            .prop_map(|(who, age)| Step::TakesOver(who, Duration::from_secs(age))),
        1 => who.clone().prop_map(Step::GivesUp),
        2 => who.clone().prop_map(Step::Waited),
        5 => who.clone().prop_map(Step::HoldBegins),
        4 => who.clone().prop_map(Step::HoldEnds),
        1 => who.clone().prop_map(Step::HoldBreaks),
        3 => (who.clone(), outcome).prop_map(|(who, outcome)| Step::Release(who, outcome)),
        1 => who.prop_map(Step::Vanishes),
        5 => seconds.prop_map(|seconds| Step::Later(Duration::from_secs(seconds))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn whatever_happens_the_promises_hold(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new(ASKERS, UNITS);
        for step in &steps {
            // It checks itself.
            world.step(step);
        }
        // However it stands, nobody waits for ever, and nothing is kept for ever.
        for _ in 0..=ASKERS {
            world.step(&Step::Later(MAX_LEASE_AGE));
        }
        prop_assert_eq!((world.state.held(), world.state.waiting()), (0, 0));
        world.step(&Step::Later(LEASE_MEMORY));
        prop_assert!(world.state.units.is_empty() && world.state.next_due().is_none());
    }
}
