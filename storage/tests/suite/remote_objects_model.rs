//! Results in a backend against a model: exactly, and with faults.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::support::remotes::{MEMORY_BYTES, blobs_of, find, memory, remote, some_result, store};
use kiln_storage::remote::objects::ObjectRemote;
use kiln_storage::remote::{Arrived, ResultName, Stored};
use kiln_storage::testing::faults::{FaultBackend, Faults};
use kiln_storage::testing::model;
use kiln_storage::testing::results::{scope, unit};
use kiln_storage::{Backend, MemoryBackend, Remote, StoreResult};
use proptest::prelude::*;

/// One operation of the model.
#[derive(Debug, Clone)]
enum Operation {
    Store(usize, usize),
    Lookup(Vec<usize>),
    Results(Vec<(usize, usize)>),
    Reject(usize, usize),
    PutNote(u8, u8),
    Note(u8),
}

const UNITS: usize = 3;
/// As many as a lookup gives.
const VALUES: usize = 4;

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let one = (0..UNITS, 0..VALUES);
    let operation = prop_oneof![
        4 => one.clone().prop_map(|(unit, value)| Operation::Store(unit, value)),
        3 => proptest::collection::vec(0..UNITS, 0..3).prop_map(Operation::Lookup),
        2 => proptest::collection::vec(one.clone(), 0..4).prop_map(Operation::Results),
        1 => one.prop_map(|(unit, value)| Operation::Reject(unit, value)),
        1 => (0_u8..2, any::<u8>()).prop_map(|(note, text)| Operation::PutNote(note, text)),
        1 => (0_u8..2).prop_map(Operation::Note),
    ];
    proptest::collection::vec(operation, 1..25)
}

/// What is there by name, without what the remote did with generations.
type Model = BTreeMap<(usize, usize), u32>;

fn known(model: &Model, (unit, value): (usize, usize)) -> Option<ResultName> {
    let generation = *model.get(&(unit, value))?;
    Some(ResultName { generation, ..some_result(unit, value).0 })
}

/// Does the operations through two remotes in turns. `exact`: every answer is the model's; otherwise answers may be
/// errors, and what comes is what was offered.
async fn run(remotes: [&ObjectRemote; 2], operations: &[Operation], exact: bool) {
    let mut model = Model::new();
    let mut next = BTreeMap::new();
    let mut notes: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
    for (i, operation) in operations.iter().enumerate() {
        let remote = remotes[i % 2];
        match operation {
            Operation::Store(unit, value) => {
                let (name, record, blobs) = some_result(*unit, *value);
                let generation = *next.get(&(*unit, *value)).unwrap_or(&0);
                let name = ResultName { generation, ..name };
                let stored = store(remote, &name, &record, &blobs).await;
                if exact {
                    let there = model.insert((*unit, *value), generation);
                    let expected = there.map_or(Stored::Durable, |_| Stored::AlreadyThere);
                    assert_eq!(stored.unwrap(), expected);
                }
            }
            Operation::Lookup(units) => {
                let keys: Vec<_> = units.iter().map(|i| unit(&format!("unit{i}"))).collect();
                let found = remote.lookup(&[scope()], &keys).await;
                check(remote, found, exact).await;
                if exact {
                    let found = remote.lookup(&[scope()], &keys).await.unwrap();
                    let names: BTreeSet<_> = found.into_iter().map(|found| found.name).collect();
                    let there = model.keys().filter(|(unit, _)| units.contains(unit));
                    assert_eq!(names, there.filter_map(|key| known(&model, *key)).collect());
                }
            }
            Operation::Results(of) => {
                let names: Vec<_> = of
                    .iter()
                    .map(|key| known(&model, *key).unwrap_or_else(|| some_result(key.0, key.1).0))
                    .collect();
                let found = remote.results(&names).await;
                check(remote, found, exact).await;
                if exact {
                    let found = remote.results(&names).await.unwrap();
                    let names: BTreeSet<_> = found.into_iter().map(|found| found.name).collect();
                    assert_eq!(names, of.iter().filter_map(|key| known(&model, *key)).collect());
                }
            }
            Operation::Reject(unit, value) => {
                if let Some(name) = known(&model, (*unit, *value)) {
                    next.insert((*unit, *value), name.generation + 1);
                    model.remove(&(*unit, *value));
                    remote.reject(&name).await.unwrap();
                }
            }
            Operation::PutNote(note, text) => {
                let put = remote.put_note(&scope(), &note.to_string(), vec![*text].into()).await;
                let texts = notes.entry(*note).or_default();
                if exact {
                    put.unwrap();
                    texts.clear();
                }
                texts.push(*text);
            }
            Operation::Note(note) => {
                let found = remote.note(&[scope()], &note.to_string()).await;
                let texts = notes.get(note).cloned().unwrap_or_default();
                match found {
                    Ok(Some(found)) => assert!(texts.iter().any(|text| found == [*text][..])),
                    Ok(None) => assert!(!exact || texts.is_empty()),
                    Err(_) => assert!(!exact),
                }
            }
        }
    }
}

/// What arrived is what was stored under its name; where there are no faults its blobs are to be had.
async fn check(remote: &ObjectRemote, found: StoreResult<Vec<Arrived>>, exact: bool) {
    for arrived in found.ok().into_iter().flatten() {
        let all = (0..UNITS).flat_map(|unit| (0..VALUES).map(move |value| (unit, value)));
        let mut all = all.map(|(unit, value)| some_result(unit, value));
        let (_, record, _) = all.find(|(name, ..)| name.result == arrived.name.result).unwrap();
        assert_eq!(arrived.record, record);
        let blobs = blobs_of(remote, &arrived).await;
        assert!(!exact || blobs.unwrap().is_ok());
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn two_remotes_on_one_backend_do_what_a_map_does(operations in operations()) {
        let backend = memory();
        block_on(run([&remote(&backend), &remote(&backend)], &operations, true));
    }

    /// With faults nothing comes that was not stored; without them all heals.
    #[test]
    fn over_a_faulty_backend_nothing_wrong_comes_and_all_heals(
        operations in operations(),
        faults in model::faults(),
    ) {
        let faulty = FaultBackend::new(MemoryBackend::new(MEMORY_BYTES), faults);
        let backend: Arc<dyn Backend> = Arc::new(faulty.clone());
        block_on(async {
            let remotes = [remote(&backend), remote(&backend)];
            run([&remotes[0], &remotes[1]], &operations, false).await;
            faulty.set(Faults::Never);
            heal(&remotes[0]).await;
        });
    }
}

/// What a server does with what it finds damaged.
async fn heal(remote: &ObjectRemote) {
    for of_unit in 0..UNITS {
        let (name, record, blobs) = some_result(of_unit, 0);
        let mut generation = 0;
        loop {
            let name = ResultName { generation, ..name.clone() };
            let found = find(remote, &name).await.unwrap();
            let here = found.iter().find(|arrived| arrived.name.result == name.result);
            if let Some(arrived) = here {
                if blobs_of(remote, arrived).await.unwrap().is_ok() {
                    break;
                }
                remote.reject(&arrived.name).await.unwrap();
                generation = arrived.name.generation + 1;
            }
            let name = ResultName { generation, ..name };
            store(remote, &name, &record, &blobs).await.unwrap();
            assert!(generation < 4, "it does not heal");
        }
    }
}
