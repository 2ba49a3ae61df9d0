//! What [`Backend`] promises, one check for each promise. Every backend and every layer runs it:
//! [`run`], or [`run_with`] for one that cannot do everything.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::Barrier;

use super::bodies::{
    KINDS, Kind, blob_name, body, broken, chunks, list, name, noise, read, stream_of,
};
use crate::backend::{Backend, Body, Put, StoreError};
use crate::key::{ObjectName, ResultKey, Scope, UnitKey};
use crate::{Digest, limits};

/// Tasks that race for one name.
const RACERS: usize = 32;

/// What a backend can do.
#[derive(Debug, Clone)]
pub struct Abilities {
    /// Objects can be deleted.
    pub deletes: bool,
    /// Objects can be listed.
    pub lists: bool,
    /// Size of the large objects, bytes; at least two megabytes.
    pub large_bytes: usize,
}

impl Default for Abilities {
    fn default() -> Self {
        Self { deletes: true, lists: true, large_bytes: 5 * 1024 * 1024 + 1 }
    }
}

/// Runs every check. `make` is called for each of them and returns an empty backend that can hold
/// 64 MiB. Needs a runtime; one with several threads makes the races real.
///
/// # Panics
/// When a promise is broken.
pub async fn run<B: Backend + 'static>(make: impl AsyncFn() -> B) {
    run_with(&Abilities::default(), make).await;
}

/// As [`run`], leaving out what the backend cannot do.
///
/// # Panics
/// When a promise is broken.
pub async fn run_with<B: Backend + 'static>(able: &Abilities, make: impl AsyncFn() -> B) {
    what_is_absent_is_a_miss(&make().await).await;
    every_body_comes_back(&make().await, able).await;
    objects_are_write_once(&make().await).await;
    odd_names_are_kept_apart(&make().await).await;
    bodies_that_break_store_nothing(&make().await, able).await;
    bodies_of_another_length_store_nothing(&make().await).await;
    readers_do_not_disturb_each_other(&make().await, able).await;
    one_of_many_writers_creates(Arc::new(make().await)).await;
    one_of_many_streams_creates(Arc::new(make().await), able).await;
    if able.deletes {
        what_is_deleted_is_gone(&make().await).await;
    }
    if able.lists {
        listings_are_by_prefix(&make().await).await;
    }
}

async fn put(backend: &dyn Backend, name: &ObjectName, bytes: &Bytes) -> Put {
    let body = Body::Bytes(bytes.clone());
    backend.put_if_absent(name, body).await.unwrap()
}

async fn what_is_absent_is_a_miss(backend: &dyn Backend) {
    for name in [name("absent"), name("records/absent/x.0"), blob_name(b"absent")] {
        assert!(backend.get(&name).await.unwrap().is_none(), "{name}");
        assert_eq!(backend.size(&name).await.unwrap(), None, "{name}");
        assert!(!backend.delete(&name).await.unwrap_or(false), "{name}");
    }
    for prefix in ["", "absent", "records/", "blobs/ab/"] {
        let listed = list(backend, prefix).await.unwrap_or_default();
        assert_eq!(listed, [], "the backend is not empty below {prefix:?}");
    }
}

async fn every_body_comes_back(backend: &dyn Backend, able: &Abilities) {
    let inline = limits::INLINE_READ_BYTES as usize;
    let sizes = [0, 1, 1000, inline, inline + 1, able.large_bytes];
    for (seed, size) in sizes.into_iter().enumerate() {
        for (i, kind) in KINDS.into_iter().enumerate() {
            let bytes = noise((seed * KINDS.len() + i) as u64, size);
            let record = name(&format!("records/{size}/{i}.0"));
            // The empty blob has one name only.
            let blob = (size > 0 || i == 0).then(|| blob_name(&bytes));
            for name in blob.into_iter().chain([record]) {
                let created = backend.put_if_absent(&name, body(&bytes, kind)).await;
                assert_eq!(created.unwrap(), Put::Created, "{name} as {kind:?}");
                let found = read(backend, &name).await.unwrap();
                assert!(found == Some(bytes.clone()), "{name} as {kind:?}");
                let found = backend.size(&name).await.unwrap();
                assert_eq!(found, Some(size as u64), "{name} as {kind:?}");
            }
        }
    }
}

async fn objects_are_write_once(backend: &dyn Backend) {
    let (name, first) = (name("records/once.0"), noise(1, 1000));
    assert_eq!(put(backend, &name, &first).await, Put::Created);
    for kind in KINDS {
        for other in [noise(2, 1000), noise(2, 10), Bytes::new()] {
            let again = backend.put_if_absent(&name, body(&other, kind)).await;
            assert_eq!(again.unwrap(), Put::AlreadyThere, "{kind:?}");
            assert_eq!(read(backend, &name).await.unwrap(), Some(first.clone()));
        }
    }
    let blob = blob_name(&first);
    assert_eq!(put(backend, &blob, &first).await, Put::Created);
    assert_eq!(put(backend, &blob, &first).await, Put::AlreadyThere);
}

async fn odd_names_are_kept_apart(backend: &dyn Backend) {
    let (unit, result) = (UnitKey::new(Digest::of(b"u")), ResultKey::new(Digest::of(b"r")));
    let scope = Scope::new("owner/repository", "refs/heads/main");
    let record = |generation| ObjectName::record(&scope, &unit, &result, generation);
    let long = "x".repeat(200);
    let names = [
        record(0),
        record(1),
        record(10),
        name("a"),
        name("a-"),
        name("a."),
        name("a.b"),
        name("-"),
        name("..."),
        name("b/..a/c"),
        name("b/a./c"),
        name("_/_/_/_/_/_/_"),
        name(&format!("{long}/{long}/{long}")),
    ];
    for (i, name) in names.iter().enumerate() {
        assert_eq!(put(backend, name, &noise(i as u64, 50)).await, Put::Created, "{name}");
    }
    for (i, name) in names.iter().enumerate() {
        let found = read(backend, name).await.unwrap();
        assert_eq!(found, Some(noise(i as u64, 50)), "{name}");
    }
}

/// Streams that fail at every point, of records and blobs, short and long.
async fn bodies_that_break_store_nothing(backend: &dyn Backend, able: &Abilities) {
    for (i, size) in [0, 1, 1000, able.large_bytes].into_iter().enumerate() {
        let bytes = noise(i as u64, size);
        for name in [name(&format!("records/broken/{i}.0")), blob_name(&bytes)] {
            let whole = chunks(&bytes);
            for keep in [0, whole.len() / 2, whole.len().saturating_sub(1)] {
                let mut parts: Vec<_> = whole[..keep].iter().cloned().map(Ok).collect();
                parts.push(Err(broken()));
                let stored = backend.put_if_absent(&name, stream_of(parts, size as u64)).await;
                assert!(stored.is_err(), "{name}: a broken body was {stored:?}");
                assert_absent(backend, &name).await;
            }
            assert_eq!(put(backend, &name, &bytes).await, Put::Created, "{name}");
        }
    }
}

async fn bodies_of_another_length_store_nothing(backend: &dyn Backend) {
    let bytes = noise(1, 3 * 1024 * 1024);
    for name in [name("records/length.0"), blob_name(&bytes)] {
        let len = bytes.len() as u64;
        for announced in [0, 1, len - 1, len + 1, 2 * len] {
            for kind in [Kind::File, Kind::Stream] {
                let body = match body(&bytes, kind) {
                    Body::File { file, .. } => Body::File { file, len: announced },
                    Body::Stream { stream, .. } => Body::Stream { stream, len: announced },
                    Body::Bytes(bytes) => Body::Bytes(bytes),
                };
                let stored = backend.put_if_absent(&name, body).await;
                let refused =
                    matches!(stored, Err(StoreError::Damaged { .. } | StoreError::Unavailable(_)));
                assert!(refused, "{announced} for {len}: {stored:?}");
                assert_absent(backend, &name).await;
            }
        }
    }
}

async fn assert_absent(backend: &dyn Backend, name: &ObjectName) {
    assert!(backend.get(name).await.unwrap().is_none(), "{name}");
    assert_eq!(backend.size(name).await.unwrap(), None, "{name}");
    let listed = list(backend, name.as_str()).await.unwrap_or_default();
    assert_eq!(listed, [], "{name}");
}

/// Two bodies of one object are read in turns.
async fn readers_do_not_disturb_each_other(backend: &dyn Backend, able: &Abilities) {
    for bytes in [noise(1, 1000), noise(2, able.large_bytes)] {
        let name = blob_name(&bytes);
        put(backend, &name, &bytes).await;
        let first = backend.get(&name).await.unwrap().unwrap();
        let second = backend.get(&name).await.unwrap().unwrap();
        let max = bytes.len() as u64;
        assert!(second.into_bytes(&name, max).await.unwrap() == bytes);
        assert!(first.into_bytes(&name, max).await.unwrap() == bytes);
    }
}

async fn one_of_many_writers_creates<B: Backend + 'static>(backend: Arc<B>) {
    for round in 0..5 {
        let name = name(&format!("records/race/{round}.0"));
        race(Arc::clone(&backend), &name, |i| {
            (noise(i as u64, 10_000 + i), Body::Bytes(noise(i as u64, 10_000 + i)))
        })
        .await;
    }
    let bytes = noise(1, 100_000);
    race(backend, &blob_name(&bytes), |i| (bytes.clone(), body(&bytes, KINDS[i % KINDS.len()])))
        .await;
}

async fn one_of_many_streams_creates<B: Backend + 'static>(backend: Arc<B>, able: &Abilities) {
    let name = name("records/race/streams.0");
    let size = able.large_bytes / 4;
    race(backend, &name, |i| {
        let bytes = noise(i as u64, size);
        let body = body(&bytes, Kind::Stream);
        (bytes, body)
    })
    .await;
}

/// All offer a body of their own; exactly one creates the object, and its bytes are what is there,
/// for every reader at any time.
async fn race<B: Backend + 'static>(
    backend: Arc<B>,
    name: &ObjectName,
    offer: impl Fn(usize) -> (Bytes, Body),
) {
    let barrier = Arc::new(Barrier::new(RACERS));
    let mut offers = Vec::new();
    let mut tasks = Vec::new();
    for i in 0..RACERS {
        let (bytes, body) = offer(i);
        offers.push(bytes);
        let (backend, name, barrier) = (Arc::clone(&backend), name.clone(), Arc::clone(&barrier));
        tasks.push(tokio::spawn(async move {
            barrier.wait().await;
            let put = backend.put_if_absent(&name, body).await.unwrap();
            let seen = read(&*backend, &name).await.unwrap();
            (put, seen)
        }));
    }
    let mut created = Vec::new();
    let mut seen = Vec::new();
    for (i, task) in tasks.into_iter().enumerate() {
        let (put, found) = task.await.unwrap();
        seen.push(found);
        if put == Put::Created {
            created.push(i);
        }
    }
    assert_eq!(created.len(), 1, "tasks {created:?} all created {name}");
    let winner = &offers[created[0]];
    assert!(read(&*backend, name).await.unwrap().as_ref() == Some(winner));
    for found in seen {
        assert!(found.as_ref() == Some(winner), "a reader of {name} saw other bytes");
    }
}

async fn what_is_deleted_is_gone(backend: &dyn Backend) {
    let bytes = noise(1, 1000);
    let neighbour = name("records/unit/b.0");
    put(backend, &neighbour, &bytes).await;
    for name in [name("records/unit/a.0"), blob_name(&bytes)] {
        for _ in 0..2 {
            assert_eq!(put(backend, &name, &bytes).await, Put::Created, "{name}");
            assert!(backend.delete(&name).await.unwrap(), "{name}");
            assert_absent(backend, &name).await;
            assert!(!backend.delete(&name).await.unwrap(), "{name}");
        }
    }
    assert_eq!(read(backend, &neighbour).await.unwrap(), Some(bytes));
}

async fn listings_are_by_prefix(backend: &dyn Backend) {
    let blobs: Vec<_> = (0..40).map(|i| noise(i, 10 + i as usize)).collect();
    let mut names =
        vec![name("r/a/1.0"), name("r/a/1.1"), name("r/ab/1.0"), name("s/1"), name("ra")];
    for name in &names {
        put(backend, name, &noise(0, 10)).await;
    }
    for blob in &blobs {
        put(backend, &blob_name(blob), blob).await;
    }
    names.extend(blobs.iter().map(|blob| blob_name(blob)));
    names.sort();
    let some_blob = blob_name(&blobs[7]);
    for prefix in
        ["", "r", "r/", "r/a", "r/a/", "r/a/1.1", "s/", "blobs/", &some_blob.as_str()[..8], "x"]
    {
        let expected: Vec<_> =
            names.iter().filter(|name| name.as_str().starts_with(prefix)).cloned().collect();
        assert_eq!(list(backend, prefix).await.unwrap(), expected, "{prefix:?}");
    }
    let mut listed = backend.list("blobs/");
    while let Some(item) = listed.next().await {
        let item = item.unwrap();
        let size = backend.size(&item.name).await.unwrap();
        assert_eq!(size, Some(item.size), "{}", item.name);
    }
    // A listing that is dropped halfway disturbs nothing.
    let mut half = backend.list("");
    assert!(half.next().await.unwrap().is_ok());
    drop(half);
    assert_eq!(list(backend, "s/").await.unwrap(), [name("s/1")]);
}
