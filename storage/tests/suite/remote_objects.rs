//! Results in a backend: what is damaged, races, and writers that stop at every step.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::remotes::{MEMORY_BYTES, blobs_of, find, memory, remote, some_result, store};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use kiln_storage::remote::objects::ObjectRemote;
use kiln_storage::remote::{ResultName, Stored};
use kiln_storage::testing::bodies::{list, name, noise, read};
use kiln_storage::testing::faults::{FaultBackend, Faults};
use kiln_storage::testing::results::{keep, outputs_like_a_crate, result, scope, unit};
use kiln_storage::{
    Backend, Body, Digest, Listed, MemoryBackend, ObjectName, Put, Remote, Scope, StoreError,
    StoreResult,
};

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
    assert!(
        reader.lookup(std::slice::from_ref(&elsewhere), &[name.unit]).await.unwrap().is_empty()
    );
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

/// A library is stored without the metadata in it; whoever asks for both, in any order, gets both.
#[tokio::test]
async fn a_library_and_its_metadata_are_stored_once_and_heal_together() {
    let backend = memory();
    let blobs = outputs_like_a_crate(1, 400_000, 1_500_000);
    let (name, record) = result("crate", "v", &blobs);
    store(&remote(&backend), &name, &record, &blobs).await.unwrap();
    let objects = list(&*backend, "packed/").await.unwrap();
    let mut bytes = 0;
    for object in &objects {
        bytes += backend.size(object).await.unwrap().unwrap();
    }
    assert!(bytes < 450_000, "{bytes} of two objects: the metadata is there twice");
    let ask = async |reader: &ObjectRemote, i: usize| {
        let (digest, size) = (Digest::of(&blobs[i]), blobs[i].len() as u64);
        let body = reader.blob(&digest, size).await.unwrap()?;
        Some(body.into_bytes(&ObjectName::blob(&digest), size).await.unwrap() == blobs[i])
    };
    for order in [[0, 1], [1, 0]] {
        let reader = remote(&backend);
        for i in order {
            assert_eq!(ask(&reader, i).await, Some(true));
        }
        assert_eq!(reader.counters().requests, 2, "{order:?}");
    }
    let reader = remote(&backend);
    assert_eq!(futures_util::join!(ask(&reader, 1), ask(&reader, 0)), (Some(true), Some(true)));
    // Without the metadata there is no library, and what is left of it goes; so it heals.
    let metadata = Digest::of(&blobs[0]).to_string();
    let metadata = objects.iter().find(|object| object.as_str().ends_with(&metadata)).unwrap();
    let other = Bytes::from(
        kiln_storage::entry::encode(&ObjectName::blob(&Digest::of(&blobs[0])), &noise(1, 400_000))
            .unwrap(),
    );
    for damage in [None, Some(Bytes::new()), Some(other)] {
        backend.delete(metadata).await.unwrap();
        if let Some(bytes) = damage {
            backend.put_if_absent(metadata, Body::Bytes(bytes)).await.unwrap();
        }
        let reader = remote(&backend);
        assert_eq!(ask(&reader, 1).await, None);
        assert_eq!(list(&*backend, "packed/").await.unwrap(), []);
        assert!(reader.counters().damaged > 0);
        store(&remote(&backend), &name, &record, &blobs).await.unwrap();
        assert_eq!(ask(&reader, 1).await, Some(true));
    }
}

/// As a build brings them: the metadata of many crates first, in all more than is kept for a moment once it is unpacked.
#[tokio::test]
async fn metadata_that_came_long_before_its_library_is_not_read_twice() {
    const CRATES: u64 = 32;
    let backend = memory();
    let crates: Vec<_> = (0..CRATES).map(|n| outputs_like_a_crate(n, 700_000, 900_000)).collect();
    let unpacked: usize = crates.iter().map(|blobs| blobs[0].len()).sum();
    assert!(unpacked > kiln_storage::limits::RECENT_BLOBS_BYTES);
    for (n, blobs) in crates.iter().enumerate() {
        let (name, record) = result(&format!("crate{n}"), "v", blobs);
        store(&remote(&backend), &name, &record, blobs).await.unwrap();
    }
    let reader = remote(&backend);
    for i in [0, 1] {
        for blobs in &crates {
            let (digest, size) = (Digest::of(&blobs[i]), blobs[i].len() as u64);
            let body = reader.blob(&digest, size).await.unwrap().unwrap();
            assert_eq!(body.into_bytes(&ObjectName::blob(&digest), size).await.unwrap(), blobs[i]);
        }
    }
    assert_eq!(reader.counters().requests, 2 * CRATES);
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

/// A result that was replaced is there in two generations until a collection: none of them is answered, whichever is known.
#[tokio::test]
async fn what_is_taken_back_is_gone_in_every_generation() {
    let (name, record, blobs) = some_result(0, 0);
    let (other, other_record, other_blobs) = some_result(0, 1);
    let newer = ResultName { generation: 1, ..name.clone() };
    for known in [&name, &newer] {
        let backend = memory();
        let writer = remote(&backend);
        store(&writer, &other, &other_record, &other_blobs).await.unwrap();
        for generation in [&name, &newer] {
            store(&writer, generation, &record, &blobs).await.unwrap();
        }
        let taker = remote(&backend);
        assert!(taker.take_back(known).await.unwrap());
        let found = find(&remote(&backend), &name).await.unwrap();
        assert_eq!(found.iter().map(|one| &one.name).collect::<Vec<_>>(), [&other]);
        assert_eq!(list(&*backend, "rejected/").await.unwrap().len(), 2, "no pack gives them");
        // The next one is found.
        store(&taker, known, &record, &blobs).await.unwrap();
        let found = find(&remote(&backend), &name).await.unwrap();
        let again = found.iter().find(|one| one.name.result == name.result).unwrap();
        assert_eq!(again.name.generation, 2);
    }
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
