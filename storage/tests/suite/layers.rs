//! What `Verified` and `Tiered` do beyond being backends: damage, failures, counters.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use kiln_storage::testing::bodies::{
    KINDS, Kind, blob_name, body, chunks, list, name, noise, read, stream_of,
};
use kiln_storage::testing::faults::{Call, Fault, FaultBackend, Faults};
use kiln_storage::tiered::{Tiered, Writes};
use kiln_storage::{
    Backend, Body, Listed, MemoryBackend, ObjectName, Put, StoreError, StoreResult, Verified,
};

const LARGE: usize = 3 * 1024 * 1024;

fn memory() -> MemoryBackend {
    MemoryBackend::new(64 * 1024 * 1024)
}

async fn put(backend: &dyn Backend, name: &ObjectName, bytes: &Bytes) -> StoreResult<Put> {
    let body = Body::Bytes(bytes.clone());
    backend.put_if_absent(name, body).await
}

/// A memory backend that hands out its objects as one kind of body, as remote stores and disks do.
#[derive(Debug, Clone)]
struct As(MemoryBackend, Kind);

#[async_trait]
impl Backend for As {
    async fn get(&self, name: &ObjectName) -> StoreResult<Option<Body>> {
        let found = read(&self.0, name).await?;
        Ok(found.map(|bytes| body(&bytes, self.1)))
    }
    async fn put_if_absent(&self, name: &ObjectName, body: Body) -> StoreResult<Put> {
        self.0.put_if_absent(name, body).await
    }
    async fn size(&self, name: &ObjectName) -> StoreResult<Option<u64>> {
        self.0.size(name).await
    }
    async fn delete(&self, name: &ObjectName) -> StoreResult<bool> {
        self.0.delete(name).await
    }
    fn list(&self, prefix: &str) -> BoxStream<'static, StoreResult<Listed>> {
        self.0.list(prefix)
    }
}

/// Bytes with one bit flipped, cut off, and with more at the end.
fn damages(bytes: &Bytes) -> [Bytes; 3] {
    let mut flipped = bytes.to_vec();
    flipped[bytes.len() / 2] ^= 4;
    let longer = [bytes, &b"more"[..]].concat();
    [flipped.into(), bytes.slice(..bytes.len() - 1), longer.into()]
}

#[tokio::test]
async fn a_damaged_blob_is_a_miss_and_is_removed() {
    for kind in KINDS {
        let bytes = noise(1, 10_000);
        for damaged in damages(&bytes) {
            let store = As(memory(), kind);
            let verified = Verified::new(store.clone());
            put(&store, &blob_name(&bytes), &damaged).await.unwrap();
            assert!(verified.get(&blob_name(&bytes)).await.unwrap().is_none());
            assert_eq!(list(&store, "").await.unwrap(), [], "{kind:?}");
            let counters = verified.counters();
            assert_eq!((counters.verified, counters.damaged), (0, 1));
            // The next producer heals it.
            let healed = put(&verified, &blob_name(&bytes), &bytes).await.unwrap();
            assert_eq!(healed, Put::Created);
            let found = read(&verified, &blob_name(&bytes)).await.unwrap();
            assert_eq!(found.as_ref(), Some(&bytes));
            assert_eq!(verified.counters().verified, 1);
        }
    }
}

#[tokio::test]
async fn a_long_stream_ends_in_an_error_before_its_last_bytes_when_it_is_damaged() {
    let bytes = noise(1, LARGE);
    for damaged in damages(&bytes) {
        let store = As(memory(), Kind::Stream);
        let verified = Verified::new(store.clone());
        put(&store, &blob_name(&bytes), &damaged).await.unwrap();
        let body = verified.get(&blob_name(&bytes)).await.unwrap().unwrap();
        let Body::Stream { stream, .. } = body else {
            unreachable!("a long stream is passed on as a stream")
        };
        let parts: Vec<_> = stream.collect().await;
        let (last, before) = parts.split_last().unwrap();
        assert!(matches!(last, Err(StoreError::Damaged { .. })), "{last:?}");
        let passed: usize = before.iter().map(|part| part.as_ref().unwrap().len()).sum();
        assert!(passed < damaged.len(), "the last chunk was held back");
        assert_eq!(list(&store, "").await.unwrap(), []);
        assert_eq!(verified.counters().damaged, 1);
    }
}

#[tokio::test]
async fn a_good_long_stream_passes_whole() {
    let store = As(memory(), Kind::Stream);
    let verified = Verified::new(store);
    let bytes = noise(1, LARGE);
    put(&verified, &blob_name(&bytes), &bytes).await.unwrap();
    assert!(read(&verified, &blob_name(&bytes)).await.unwrap() == Some(bytes));
    assert_eq!(verified.counters().verified, 1);
    assert_eq!(verified.counters().damaged, 0);
}

/// A broken connection is no damage: the object stays.
#[tokio::test]
async fn a_stream_that_fails_is_not_taken_for_damage() {
    for size in [10_000, LARGE] {
        let bytes = noise(1, size);
        let store = FaultBackend::new(memory(), Faults::Nth(Call::Get, 1, Fault::Break));
        let verified = Verified::new(store);
        put(&verified, &blob_name(&bytes), &bytes).await.unwrap();
        let failed = read(&verified, &blob_name(&bytes)).await;
        assert!(matches!(failed, Err(StoreError::Unavailable(_))), "{failed:?}");
        assert_eq!(verified.counters().damaged, 0);
        assert!(read(&verified, &blob_name(&bytes)).await.unwrap() == Some(bytes));
    }
}

#[tokio::test]
async fn a_record_that_is_not_its_own_frame_is_a_miss_and_is_removed() {
    let (one, two, bytes) = (name("r/1.0"), name("r/2.0"), noise(1, 5000));
    for kind in KINDS {
        let store = As(memory(), kind);
        let verified = Verified::new(store.clone());
        put(&verified, &one, &bytes).await.unwrap();
        let frame = read(&store, &one).await.unwrap().unwrap();
        let foreign = [frame.clone(), bytes.clone(), Bytes::new()];
        for wrong in damages(&frame).into_iter().chain(foreign) {
            put(&store, &two, &wrong).await.unwrap();
            assert_eq!(verified.size(&two).await.unwrap(), None, "{kind:?}");
            assert_eq!(store.size(&two).await.unwrap(), None, "it was removed");
        }
        assert_eq!(verified.counters().damaged, 6);
        assert_eq!(read(&verified, &one).await.unwrap().as_ref(), Some(&bytes));
    }
}

#[tokio::test]
async fn a_record_over_the_bound_is_refused() {
    let verified = Verified::new(memory());
    let over = Bytes::from(vec![0; kiln_storage::limits::MAX_RECORD_BYTES + 1]);
    let refused = put(&verified, &name("r/1.0"), &over).await;
    assert!(matches!(refused, Err(StoreError::TooLarge { .. })));
}

fn tiered(
    fast: &(impl Backend + Clone + 'static),
    slow: &(impl Backend + Clone + 'static),
    writes: Writes,
) -> Tiered {
    Tiered::new(Arc::new(fast.clone()), Arc::new(slow.clone()), writes)
}

#[tokio::test]
async fn a_read_fills_the_fast_tier() {
    for kind in KINDS {
        for size in [0, 1000, LARGE] {
            let (fast, slow) = (memory(), As(memory(), kind));
            let tiers = tiered(&fast, &slow, Writes::Slow);
            let (name, bytes) = (name("r/1.0"), noise(1, size));
            assert_eq!(put(&tiers, &name, &bytes).await.unwrap(), Put::Created);
            assert_eq!(fast.size(&name).await.unwrap(), None);
            for _ in 0..2 {
                assert!(read(&tiers, &name).await.unwrap().as_ref() == Some(&bytes));
            }
            assert!(read(&fast, &name).await.unwrap() == Some(bytes), "{kind:?}");
            let counters = tiers.counters();
            assert_eq!(counters.slow_hits, 1);
            assert_eq!((counters.fills, counters.fast_hits), (1, 1));
        }
    }
}

#[tokio::test]
async fn writes_go_where_they_are_sent() {
    let bytes = noise(1, 1000);
    for (writes, in_fast, in_slow) in
        [(Writes::Both, true, true), (Writes::Fast, true, false), (Writes::Slow, false, true)]
    {
        for kind in KINDS {
            let (fast, slow) = (memory(), memory());
            let tiers = tiered(&fast, &slow, writes);
            for name in [name("r/1.0"), blob_name(&bytes)] {
                tiers.put_if_absent(&name, body(&bytes, kind)).await.unwrap();
                let expected = |there: bool| there.then(|| bytes.clone());
                assert_eq!(read(&fast, &name).await.unwrap(), expected(in_fast));
                assert_eq!(read(&slow, &name).await.unwrap(), expected(in_slow));
            }
        }
    }
}

#[tokio::test]
async fn a_broken_fast_tier_costs_nothing_but_time() {
    let always = Faults::Seeded { seed: 1, per_mille: 1000, faults: vec![Fault::Unavailable] };
    for kind in KINDS {
        let fast = FaultBackend::new(memory(), always.clone());
        let tiers = tiered(&fast, &As(memory(), kind), Writes::Both);
        let (name, bytes) = (name("r/1.0"), noise(1, LARGE));
        let created = tiers.put_if_absent(&name, body(&bytes, kind)).await;
        assert_eq!(created.unwrap(), Put::Created);
        assert!(read(&tiers, &name).await.unwrap() == Some(bytes), "{kind:?}");
        assert_eq!(tiers.size(&name).await.unwrap(), Some(LARGE as u64));
        assert_eq!(list(&tiers, "").await.unwrap(), [name]);
        assert!(tiers.counters().fast_failures >= 4);
    }
}

#[tokio::test]
async fn a_broken_slow_tier_is_told_and_the_fast_one_keeps_the_object() {
    let slow = FaultBackend::new(memory(), Faults::Nth(Call::Put, 1, Fault::ReadOnly));
    let tiers = tiered(&memory(), &slow, Writes::Both);
    let (name, bytes) = (name("r/1.0"), noise(1, 1000));
    let told = put(&tiers, &name, &bytes).await;
    assert!(matches!(told, Err(StoreError::ReadOnly(_))));
    assert_eq!(read(&tiers, &name).await.unwrap().as_ref(), Some(&bytes));
    assert_eq!(tiers.counters().slow_failures, 1);

    // The slow tier is the authority once it is back.
    let other = noise(2, 1000);
    assert_eq!(put(&tiers, &name, &other).await.unwrap(), Put::Created);
    assert_eq!(read(&tiers, &name).await.unwrap(), Some(other));
}

#[tokio::test]
async fn an_object_of_another_never_enters_the_fast_tier_under_its_name() {
    let (fast, slow) = (memory(), memory());
    let (name, theirs, ours) = (name("r/1.0"), noise(1, 10), noise(2, 10));
    put(&slow, &name, &theirs).await.unwrap();
    let tiers = tiered(&fast, &slow, Writes::Both);
    assert_eq!(put(&tiers, &name, &ours).await.unwrap(), Put::AlreadyThere);
    assert_eq!(fast.size(&name).await.unwrap(), None);
    assert_eq!(read(&tiers, &name).await.unwrap(), Some(theirs));
}

#[tokio::test]
async fn a_listing_has_each_object_once() {
    let (fast, slow) = (memory(), memory());
    for (backend, names) in [(&fast, ["a", "b"]), (&slow, ["b", "c"])] {
        for object in names {
            put(backend, &name(object), &noise(1, 10)).await.unwrap();
        }
    }
    let tiers = tiered(&fast, &slow, Writes::Both);
    let expected = ["a", "b", "c"].map(name);
    assert_eq!(list(&tiers, "").await.unwrap(), expected);
    for object in &expected {
        assert!(tiers.delete(object).await.unwrap());
    }
    assert_eq!(fast.bytes() + slow.bytes(), 0);
}

#[tokio::test]
async fn a_stream_that_breaks_reaches_neither_tier() {
    for size in [1000, LARGE] {
        let (fast, slow) = (memory(), memory());
        let tiers = tiered(&fast, &slow, Writes::Both);
        let bytes = noise(1, size);
        let mut parts: Vec<_> = chunks(&bytes).into_iter().map(Ok).collect();
        parts.pop();
        parts.push(Err(StoreError::Unavailable("broken".to_owned())));
        let name = blob_name(&bytes);
        let stored = tiers.put_if_absent(&name, stream_of(parts, size as u64)).await;
        assert!(stored.is_err());
        assert_eq!(fast.bytes() + slow.bytes(), 0);
    }
}
