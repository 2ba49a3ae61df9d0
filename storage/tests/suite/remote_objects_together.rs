//! Packs of jobs in a backend: what is in them, what becomes of holes, flips and cuts, and what no pack may give.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::remotes::{MEMORY_BYTES, memory, remote, store};
use bytes::Bytes;
use kiln_storage::remote::ResultName;
use kiln_storage::remote::together::{Incoming, PackName, ToWrite, Written};
use kiln_storage::testing::bodies::{list, noise};
use kiln_storage::testing::results::{keep, result, scope};
use kiln_storage::{
    Backend, Body, Digest, MemoryBackend, ObjectName, Record, Remote, ResultKey, StoreError,
};

const ENOUGH: u64 = u64::MAX;

/// A library with its metadata in it, and a program.
fn library(n: u64) -> (ResultName, Record, Vec<Bytes>) {
    let metadata = noise(n, 120_000);
    let whole = [&noise(n + 500, 200_000)[..], &metadata[..], b"end"].concat();
    let blobs = vec![metadata, whole.into(), noise(n + 900, 1000)];
    let (name, record) = result(&format!("library{n}"), "v", &blobs);
    (name, record, blobs)
}

/// Some results that are stored in a backend, also as packs.
async fn packed(backend: &Arc<dyn Backend>, range: std::ops::Range<u64>) -> Written {
    let local = MemoryBackend::new(MEMORY_BYTES);
    let writer = remote(backend);
    let mut results = Vec::new();
    for (name, record, blobs) in range.map(library) {
        store(&writer, &name, &record, &blobs).await.unwrap();
        keep(&local, &blobs).await;
        results.push((name, record));
    }
    put(backend, &results, &local, (ENOUGH, Duration::from_secs(60))).await
}

async fn put(
    backend: &Arc<dyn Backend>,
    results: &[(ResultName, Record)],
    local: &MemoryBackend,
    (bytes, within): (u64, Duration),
) -> Written {
    let (scope, packed) = (scope(), HashSet::new());
    let (scope, packed, until) = (&scope, &packed, Instant::now() + within);
    let what = ToWrite { scope, note: "note", results, packed, bytes, until };
    remote(backend).put_packs(&what, local).await
}

/// All that a pack gives, and how it ends.
async fn all(
    mut pack: Incoming,
) -> (Vec<ResultName>, Vec<(Digest, Bytes)>, Result<(), StoreError>) {
    let (mut results, mut blobs) = (Vec::new(), Vec::new());
    let ended = async {
        while let Some(arrived) = pack.result().await? {
            blobs.extend(arrived.blobs);
            results.push(arrived.name);
        }
        while let Some(packed) = pack.blobs().await? {
            let name = ObjectName::blob(&packed.blobs().next().unwrap().0);
            let damaged = || StoreError::Damaged { name, why: "frame".into() };
            blobs.extend(packed.unpack().ok_or_else(damaged)?);
        }
        Ok(())
    };
    let ended = ended.await;
    (results, blobs, ended)
}

async fn open(backend: &Arc<dyn Backend>, packs: &[PackName]) -> Vec<Incoming> {
    remote(backend).packs(packs).await.unwrap()
}

#[tokio::test]
async fn what_was_written_together_comes_together() {
    let backend = memory();
    let written = packed(&backend, 0..4).await;
    assert_eq!((written.packs.len(), written.results.len()), (1, 4));
    assert!(written.failed.is_none());
    let size = backend.size(&written.packs[0].0.parse().unwrap()).await.unwrap();
    assert_eq!(size, Some(written.bytes));
    // Metadata is there once, as in single objects.
    assert!(written.bytes < 4 * 340_000, "{}", written.bytes);
    let mut packs = open(&backend, &written.packs).await;
    let (results, blobs, ended) = all(packs.remove(0)).await;
    ended.unwrap();
    assert_eq!(results, (0..4).map(|n| library(n).0).collect::<Vec<_>>());
    let mut expected = Vec::new();
    (0..4).for_each(|n| expected.extend(library(n).2.iter().map(|bytes| Digest::of(bytes))));
    let found: HashSet<Digest> = blobs.iter().map(|(digest, _)| *digest).collect();
    assert_eq!(found, expected.into_iter().collect());
    assert!(blobs.iter().all(|(digest, bytes)| Digest::of(bytes) == *digest));
    // A note may name what is gone, or no pack at all.
    let names = [PackName("together/x".into()), PackName("../x".into()), written.packs[0].clone()];
    assert_eq!(open(&backend, &names).await.len(), 1);
}

/// Whatever happens to the bytes of a pack, what it gives is right, or it says that it is damaged.
#[tokio::test]
async fn flips_cuts_and_foreign_packs_are_noticed() {
    let backend = memory();
    let written = packed(&backend, 0..2).await;
    let name: ObjectName = written.packs[0].0.parse().unwrap();
    let body = backend.get(&name).await.unwrap().unwrap();
    let whole = body.into_bytes(&name, u64::MAX).await.unwrap();
    let mut forms: Vec<Vec<u8>> = vec![Vec::new(), b"KILNJOB1".to_vec(), noise(1, 5000).to_vec()];
    for at in [0, 9, 13, 60, 400, 1200, 3000, 50_000, 200_000, whole.len() - 1] {
        let mut flipped = whole.to_vec();
        flipped[at] ^= 4;
        forms.push(flipped);
        forms.push(whole[..at].to_vec());
    }
    forms.push([&whole[..], b"more"].concat());
    for (i, form) in forms.into_iter().enumerate() {
        let backend = memory();
        backend.put_if_absent(&name, Body::Bytes(form.into())).await.unwrap();
        let reader = remote(&backend);
        let mut packs = reader.packs(&written.packs).await.unwrap();
        if packs.is_empty() {
            assert_eq!(reader.counters().damaged, 1, "form {i}");
            continue;
        }
        let (results, blobs, ended) = all(packs.remove(0)).await;
        assert!(matches!(ended, Err(StoreError::Damaged { .. })), "form {i}: {ended:?}");
        assert!(results.iter().all(|name| (0..2).any(|n| library(n).0 == *name)));
        assert!(blobs.iter().all(|(digest, bytes)| Digest::of(bytes) == *digest), "form {i}");
    }
}

/// A result that proved wrong is in no pack any more, whoever wrote it and when.
#[tokio::test]
async fn what_is_rejected_no_pack_gives() {
    let backend = memory();
    let written = packed(&backend, 0..3).await;
    let wrong = library(1).0;
    remote(&backend).reject(&wrong).await.unwrap();
    let given = async |written: &Written| {
        let mut packs = open(&backend, &written.packs).await;
        let (results, _, ended) = all(packs.remove(0)).await;
        ended.unwrap();
        results
    };
    let left = vec![library(0).0, library(2).0];
    assert_eq!(given(&written).await, left);
    // One that does not know of it.
    let local = MemoryBackend::new(MEMORY_BYTES);
    let mut results = Vec::new();
    for (name, record, blobs) in (0..3).map(library) {
        keep(&local, &blobs).await;
        results.push((name, record));
    }
    let bounds = (ENOUGH, Duration::from_secs(60));
    let again = put(&backend, &results, &local, bounds).await;
    assert_eq!(again.results.len(), 2);
    assert_eq!(given(&again).await, left);
    // Its next generation is another.
    results[1].0.generation = 1;
    let next = put(&backend, &results, &local, bounds).await;
    assert_eq!(given(&next).await.len(), 3);
}

#[tokio::test]
async fn bounds_are_kept_and_what_is_not_whole_is_told() {
    let backend = memory();
    let local = MemoryBackend::new(MEMORY_BYTES);
    let mut results = Vec::new();
    for (name, record, blobs) in (0..4).map(library) {
        keep(&local, &blobs).await;
        results.push((name, record));
    }
    let some = put(&backend, &results, &local, (700_000, Duration::from_secs(60))).await;
    assert!(some.bytes < 710_000, "{}", some.bytes);
    let whole: HashSet<ResultKey> = some.results.iter().map(|(result, _)| *result).collect();
    assert_eq!(whole, (0..2).map(|n| library(n).0.result).collect());
    let late = put(&backend, &results, &local, (ENOUGH, Duration::ZERO)).await;
    assert!(late.failed.is_some() && late.packs.is_empty() && late.results.is_empty());
    // A blob that is not here any more.
    local.delete(&ObjectName::blob(&Digest::of(&library(3).2[1]))).await.unwrap();
    let holes = put(&backend, &results, &local, (ENOUGH, Duration::from_secs(60))).await;
    assert_eq!((holes.results.len(), holes.failed.is_some()), (3, false));
}

#[tokio::test]
async fn only_old_packs_that_are_not_named_go() {
    let backend = memory();
    let written = packed(&backend, 0..2).await;
    let of_note = written.packs[0].0.rsplit_once('/').unwrap().0;
    let old: ObjectName = format!("{of_note}/{:016x}-0", u64::MAX - 1000).parse().unwrap();
    let named: ObjectName = format!("{of_note}/{:016x}-0", u64::MAX - 1001).parse().unwrap();
    for name in [&old, &named] {
        backend.put_if_absent(name, Body::Bytes(Bytes::from_static(b"x"))).await.unwrap();
    }
    let keep = [PackName(named.as_str().into())];
    remote(&backend).keep_packs(&scope(), "note", &keep).await.unwrap();
    let left = list(&*backend, "together/").await.unwrap();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(backend.size(&old).await.unwrap().is_none());
}
