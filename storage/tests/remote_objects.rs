//! Results in a backend: against a model, with faults, in races, and with writers that stop at every step.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use kiln_storage::remote::objects::ObjectRemote;
use kiln_storage::remote::{Arrived, ResultName, Stored};
use kiln_storage::testing::bodies::{list, name, noise, read};
use kiln_storage::testing::faults::{FaultBackend, Faults};
use kiln_storage::testing::model;
use kiln_storage::testing::results::{keep, result, scope, unit};
use kiln_storage::{
    Backend, Body, Digest, Listed, MemoryBackend, ObjectName, Put, Record, Remote, Scope,
    StoreError, StoreResult,
};
use proptest::prelude::*;

const MEMORY_BYTES: u64 = 256 * 1024 * 1024;
/// Sizes of blobs: empty, small, of the size that is tried, and those that are objects of their own.
const SIZES: [usize; 5] = [0, 1000, 60_000, 100_000, 600_000];

fn memory() -> Arc<dyn Backend> {
    Arc::new(MemoryBackend::new(MEMORY_BYTES))
}

fn remote(backend: &Arc<dyn Backend>) -> ObjectRemote {
    ObjectRemote::new(Arc::clone(backend), "memory")
}

/// A result of one of a few units, with blobs of all sizes, one of which all results share.
fn some_result(of_unit: usize, value: usize) -> (ResultName, Record, Vec<Bytes>) {
    let mut blobs: Vec<_> =
        SIZES.iter().map(|size| noise((of_unit * 100 + value) as u64, *size)).collect();
    blobs.push(noise(7, 200_000));
    let (name, record) = result(&format!("unit{of_unit}"), &value.to_string(), &blobs);
    (name, record, blobs)
}

async fn store(
    remote: &ObjectRemote,
    name: &ResultName,
    record: &Record,
    blobs: &[Bytes],
) -> StoreResult<Stored> {
    let local = MemoryBackend::new(MEMORY_BYTES);
    keep(&local, blobs).await;
    remote.store(name, record, &local).await
}

/// All blobs of what arrived, each checked; the first one that is not to be had.
async fn blobs_of(remote: &ObjectRemote, arrived: &Arrived) -> StoreResult<Result<(), Digest>> {
    for (digest, size) in arrived.record.blobs() {
        let along = arrived.blobs.iter().find(|(along, _)| *along == digest);
        let bytes = match along {
            Some((_, bytes)) => bytes.clone(),
            None => match remote.blob(&digest, size).await? {
                None => return Ok(Err(digest)),
                Some(body) => body.into_bytes(&ObjectName::blob(&digest), size).await?,
            },
        };
        assert_eq!((Digest::of(&bytes), bytes.len() as u64), (digest, size));
    }
    Ok(Ok(()))
}

async fn find(remote: &ObjectRemote, name: &ResultName) -> StoreResult<Vec<Arrived>> {
    remote.lookup(&[scope()], &[name.unit]).await
}

#[tokio::test]
async fn what_is_stored_is_found_with_its_blobs() {
    let backend = memory();
    let (name, record, blobs) = some_result(0, 0);
    let writer = remote(&backend);
    assert!(find(&writer, &name).await.unwrap().is_empty());
    assert_eq!(store(&writer, &name, &record, &blobs).await.unwrap(), Stored::Durable);
    assert_eq!(store(&writer, &name, &record, &blobs).await.unwrap(), Stored::AlreadyThere);
    let reader = remote(&backend);
    let found = find(&reader, &name).await.unwrap();
    assert_eq!((found.len(), &found[0].name, &found[0].record), (1, &name, &record));
    assert_eq!(found[0].blobs.len(), 3, "the small ones come along");
    assert_eq!(blobs_of(&reader, &found[0]).await.unwrap(), Ok(()));
    let by_name = reader.results(&[name.clone(), some_result(0, 1).0]).await.unwrap();
    assert_eq!((by_name.len(), &by_name[0].record, by_name[0].blobs.len()), (1, &record, 3));
    let elsewhere = Scope::new("owner/repository", "refs/heads/other");
    assert!(reader.lookup(&[elsewhere.clone()], &[name.unit]).await.unwrap().is_empty());
    let both = reader.lookup(&[elsewhere, scope()], &[unit("nobody"), name.unit]).await.unwrap();
    assert_eq!(both.len(), 1);
    assert_eq!(reader.counters().damaged, 0);
}

#[tokio::test]
async fn lookups_give_a_few_of_each_unit_the_first_scopes_first() {
    let backend = memory();
    let writer = remote(&backend);
    let other = Scope::new("owner/repository", "refs/pull/1/merge");
    for value in 0..9 {
        let (name, record, blobs) = some_result(0, value);
        store(&writer, &name, &record, &blobs).await.unwrap();
    }
    for value in [3, 20] {
        let (name, record, blobs) = some_result(0, value);
        let name = ResultName { scope: other.clone(), ..name };
        store(&writer, &name, &record, &blobs).await.unwrap();
    }
    let (name, record, blobs) = some_result(1, 0);
    store(&writer, &name, &record, &blobs).await.unwrap();
    let scopes = [other.clone(), scope()];
    let units = [unit("unit0"), unit("none"), unit("unit1")];
    let found = remote(&backend).lookup(&scopes, &units).await.unwrap();
    let of: Vec<_> = found.iter().map(|arrived| (arrived.name.unit, &arrived.name.scope)).collect();
    let here = scope();
    let mut expected = vec![(units[0], &other); 2];
    expected.extend(vec![(units[0], &here); 4]);
    expected.push((units[2], &here));
    assert_eq!(of, expected);
    let results: BTreeSet<_> = found.iter().map(|arrived| arrived.name.result).collect();
    assert_eq!(results.len(), 7, "what is in two scopes comes once");
}

#[tokio::test]
async fn a_result_without_its_blobs_is_not_stored() {
    let backend = memory();
    let writer = remote(&backend);
    let (name, record, blobs) = some_result(0, 0);
    for missing in 0..blobs.len() {
        let mut there = blobs.clone();
        there.remove(missing);
        let refused = store(&writer, &name, &record, &there).await;
        assert!(matches!(refused, Err(StoreError::Damaged { .. })), "{missing}: {refused:?}");
        assert!(find(&writer, &name).await.unwrap().is_empty());
    }
    // One that is there and is another.
    let local = MemoryBackend::new(MEMORY_BYTES);
    keep(&local, &blobs[1..]).await;
    let wrong = ObjectName::blob(&Digest::of(&blobs[3]));
    local.delete(&wrong).await.unwrap();
    local.put_if_absent(&wrong, Body::Bytes(noise(99, blobs[3].len()))).await.unwrap();
    keep(&local, &blobs).await;
    let refused = writer.store(&name, &record, &local).await;
    assert!(matches!(refused, Err(StoreError::Damaged { .. })), "{refused:?}");
}

/// Each object of a result, damaged in each way.
#[tokio::test]
async fn what_is_damaged_is_absent_counted_and_healed() {
    let (name, record, blobs) = some_result(0, 0);
    let foreign = {
        let backend = memory();
        let (name, record, blobs) = some_result(1, 1);
        store(&remote(&backend), &name, &record, &blobs).await.unwrap();
        let object = list(&*backend, "results/").await.unwrap().remove(0);
        read(&*backend, &object).await.unwrap().unwrap()
    };
    let backend = memory();
    store(&remote(&backend), &name, &record, &blobs).await.unwrap();
    let objects = list(&*backend, "").await.unwrap();
    assert_eq!(objects.len(), 1 + 3, "{objects:?}");
    for object in objects {
        let whole = read(&*backend, &object).await.unwrap().unwrap();
        let mut flipped = whole.to_vec();
        flipped[whole.len() / 2] ^= 4;
        let half = whole.slice(..whole.len() / 2);
        for damaged in [half, flipped.into(), Bytes::new(), foreign.clone()] {
            backend.delete(&object).await.unwrap();
            backend.put_if_absent(&object, Body::Bytes(damaged)).await.unwrap();
            let reader = remote(&backend);
            let found = find(&reader, &name).await.unwrap();
            if object.as_str().starts_with("results/") {
                assert!(found.is_empty());
            } else {
                let missing = blobs_of(&reader, &found[0]).await.unwrap().unwrap_err();
                assert!(object.as_str().ends_with(&missing.to_string()));
            }
            assert_eq!(reader.counters().damaged, 1, "{object}");
            // The next producer, who knows nothing of it.
            store(&remote(&backend), &name, &record, &blobs).await.unwrap();
            assert_eq!(read(&*backend, &object).await.unwrap(), Some(whole.clone()), "{object}");
        }
    }
}

/// A fault on the way costs a second read and nothing of what is stored.
#[tokio::test]
async fn damage_on_the_way_deletes_nothing() {
    use kiln_storage::testing::faults::{Call, Fault};
    let faulty = FaultBackend::new(MemoryBackend::new(MEMORY_BYTES), Faults::Never);
    let backend: Arc<dyn Backend> = Arc::new(faulty.clone());
    let (name, record, blobs) = some_result(0, 0);
    store(&remote(&backend), &name, &record, &blobs).await.unwrap();
    for fault in [Fault::BitFlip, Fault::Truncate] {
        for nth in 1..=4 {
            faulty.set(Faults::Nth(Call::Get, nth, fault));
            let reader = remote(&backend);
            let found = find(&reader, &name).await.unwrap();
            assert_eq!(blobs_of(&reader, &found[0]).await.unwrap(), Ok(()));
            assert_eq!(reader.counters().damaged, 0);
        }
    }
    assert_eq!(faulty.injected(), 8);
}

#[tokio::test]
async fn what_is_rejected_gets_a_new_generation() {
    let faulty = FaultBackend::new(MemoryBackend::new(MEMORY_BYTES), Faults::Never);
    let backend: Arc<dyn Backend> = Arc::new(faulty.clone());
    let (name, record, blobs) = some_result(0, 0);
    let remote_one = remote(&backend);
    store(&remote_one, &name, &record, &blobs).await.unwrap();
    remote_one.reject(&name).await.unwrap();
    assert!(find(&remote(&backend), &name).await.unwrap().is_empty());
    assert_eq!(store(&remote_one, &name, &record, &blobs).await.unwrap(), Stored::Durable);
    let found = find(&remote(&backend), &name).await.unwrap();
    assert_eq!((found.len(), found[0].name.generation), (1, 1));
    // Where it cannot be taken away it is not seen by who rejected it.
    use kiln_storage::testing::faults::{Call, Fault};
    let newer = found[0].name.clone();
    faulty.set(Faults::Nth(Call::Delete, 1, Fault::ReadOnly));
    assert!(matches!(remote_one.reject(&newer).await, Err(StoreError::ReadOnly(_))));
    assert!(find(&remote_one, &name).await.unwrap().is_empty());
    assert!(remote_one.results(&[newer]).await.unwrap().is_empty());
    store(&remote_one, &name, &record, &blobs).await.unwrap();
    let found = find(&remote(&backend), &name).await.unwrap();
    assert_eq!((found.len(), found[0].name.generation), (1, 2), "the newest of two");
}

#[tokio::test]
async fn notes_are_replaced_and_the_newest_counts() {
    let backend = memory();
    let (one, two) = (remote(&backend), remote(&backend));
    let (main, pull) = (scope(), Scope::new("owner/repository", "refs/pull/1/merge"));
    let scopes = [pull.clone(), main.clone()];
    let text = |text: &'static str| Bytes::from_static(text.as_bytes());
    assert_eq!(one.note(&scopes, "Job: \"build\"").await.unwrap(), None);
    for (writer, body) in [(&one, "a"), (&two, "b"), (&one, "c"), (&two, "d")] {
        writer.put_note(&main, "Job: \"build\"", text(body)).await.unwrap();
        assert_eq!(one.note(&scopes, "Job: \"build\"").await.unwrap(), Some(text(body)));
    }
    assert_eq!(list(&*backend, "notes/").await.unwrap().len(), 1, "older ones are gone");
    one.put_note(&pull, "Job: \"build\"", text("own")).await.unwrap();
    assert_eq!(two.note(&scopes, "Job: \"build\"").await.unwrap(), Some(text("own")));
    assert_eq!(two.note(&[main], "Job: \"build\"").await.unwrap(), Some(text("d")));
    assert_eq!(one.note(&scopes, "other").await.unwrap(), None);
    let large = Bytes::from(vec![0; 5 * 1024 * 1024]);
    let refused = one.put_note(&pull, "large", large).await;
    assert!(matches!(refused, Err(StoreError::TooLarge { .. })));
    // Of many at once one wins, and it is one of them.
    let texts: Vec<_> = (0..16).map(|i| Bytes::from(format!("text {i}"))).collect();
    let puts = texts.iter().map(|text| one.put_note(&pull, "raced", text.clone()));
    futures_util::future::join_all(puts).await.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
    let won = two.note(&[pull], "raced").await.unwrap().unwrap();
    assert!(texts.contains(&won));
}

/// Two servers on one backend; readers who look meanwhile see a whole result or none.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_writers_one_stores_and_readers_see_it_whole() {
    let backend = memory();
    for round in 0..8 {
        let (name, record, blobs) = some_result(round, 0);
        let (name, record, blobs) = (Arc::new(name), Arc::new(record), Arc::new(blobs));
        let servers = [Arc::new(remote(&backend)), Arc::new(remote(&backend))];
        let writers = (0..16).map(|i| {
            let (server, name, record, blobs) =
                (servers[i % 2].clone(), name.clone(), record.clone(), blobs.clone());
            tokio::spawn(async move { store(&server, &name, &record, &blobs).await.unwrap() })
        });
        let readers = (0..8).map(|_| {
            let (reader, name, record) = (remote(&backend), name.clone(), record.clone());
            tokio::spawn(async move {
                loop {
                    let found = find(&reader, &name).await.unwrap();
                    if let Some(arrived) = found.first() {
                        assert_eq!(arrived.record, *record);
                        assert_eq!(blobs_of(&reader, arrived).await.unwrap(), Ok(()));
                        return;
                    }
                    tokio::task::yield_now().await;
                }
            })
        });
        let (writers, readers): (Vec<_>, Vec<_>) = (writers.collect(), readers.collect());
        let mut durable = 0;
        for writer in writers {
            durable += u32::from(writer.await.unwrap() == Stored::Durable);
        }
        assert_eq!(durable, 1);
        for reader in readers {
            reader.await.unwrap();
        }
    }
}

/// Does so many calls, and of the next one nothing comes back: its writer stopped before it or after it.
#[derive(Debug)]
struct Stops {
    inner: Arc<dyn Backend>,
    left: AtomicU64,
    after: bool,
    stopped: tokio::sync::Notify,
}

impl Stops {
    async fn step<T>(&self, call: impl Future<Output = T>) -> T {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 0 {
            if self.after {
                call.await;
            }
            self.stopped.notify_one();
            return std::future::pending().await;
        }
        call.await
    }
}

#[async_trait]
impl Backend for Stops {
    async fn get(&self, name: &ObjectName) -> StoreResult<Option<Body>> {
        self.step(self.inner.get(name)).await
    }
    async fn put_if_absent(&self, name: &ObjectName, body: Body) -> StoreResult<Put> {
        self.step(self.inner.put_if_absent(name, body)).await
    }
    async fn size(&self, name: &ObjectName) -> StoreResult<Option<u64>> {
        self.step(self.inner.size(name)).await
    }
    async fn delete(&self, name: &ObjectName) -> StoreResult<bool> {
        self.step(self.inner.delete(name)).await
    }
    fn list(&self, prefix: &str) -> BoxStream<'static, StoreResult<Listed>> {
        self.inner.list(prefix)
    }
}

#[tokio::test]
async fn a_writer_that_stops_at_any_step_leaves_nothing_half() {
    let mut seen = BTreeSet::new();
    for after in [false, true] {
        for steps in 0..6 {
            let backend = memory();
            let stops = Arc::new(Stops {
                inner: Arc::clone(&backend),
                left: AtomicU64::new(steps),
                after,
                stopped: tokio::sync::Notify::new(),
            });
            let writer = ObjectRemote::new(Arc::clone(&stops) as _, "memory");
            let (name, record, blobs) = some_result(0, 0);
            let stored = tokio::select! {
                stored = store(&writer, &name, &record, &blobs) => Some(stored.unwrap()),
                () = stops.stopped.notified() => None,
            };
            let reader = remote(&backend);
            let found = find(&reader, &name).await.unwrap();
            for arrived in &found {
                assert_eq!(blobs_of(&reader, arrived).await.unwrap(), Ok(()));
            }
            seen.insert((stored.is_some(), found.len()));
            let again = store(&remote(&backend), &name, &record, &blobs).await.unwrap();
            let expected = if found.is_empty() { Stored::Durable } else { Stored::AlreadyThere };
            assert_eq!(again, expected, "{steps} {after}");
            let found = find(&reader, &name).await.unwrap();
            assert_eq!(blobs_of(&reader, &found[0]).await.unwrap(), Ok(()));
        }
    }
    // Stopped before it was there, stopped when it was, and not stopped.
    assert_eq!(seen, BTreeSet::from([(false, 0), (false, 1), (true, 1)]));
}

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

/// A frame that decompresses to other bytes than its name says is found out where it is read.
#[tokio::test]
async fn a_blob_that_somebody_else_wrote_is_no_blob() {
    let backend = memory();
    let (name_of, record, blobs) = some_result(0, 0);
    store(&remote(&backend), &name_of, &record, &blobs).await.unwrap();
    let digest = Digest::of(&blobs[4]);
    let object = name(&format!("packed/{}/{digest}", &digest.to_string()[..2]));
    let lie = kiln_storage::entry::encode(&ObjectName::blob(&digest), &noise(5, 600_000)).unwrap();
    backend.delete(&object).await.unwrap();
    backend.put_if_absent(&object, Body::Bytes(lie.into())).await.unwrap();
    let reader = remote(&backend);
    assert!(reader.blob(&digest, 600_000).await.unwrap().is_none());
    assert_eq!(reader.counters().damaged, 1);
    assert_eq!(backend.size(&object).await.unwrap(), None);
    // Asked for with a wrong size it is absent, and stays.
    store(&remote(&backend), &name_of, &record, &blobs).await.unwrap();
    assert!(reader.blob(&digest, 599_999).await.unwrap().is_none());
    assert!(reader.blob(&digest, 600_000).await.unwrap().is_some());
}
