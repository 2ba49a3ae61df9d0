//! Collections of a bucket: against a real server, and beside writers at every step of either.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::Bucket;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use kiln_storage::remote::collect::{
    Collected, Inventory, Plan, Policy, Why, act, pin, plan, unpin,
};
use kiln_storage::remote::objects::ObjectRemote;
use kiln_storage::remote::{ResultName, Stored};
use kiln_storage::testing::bodies::{list, noise};
use kiln_storage::testing::results::{keep, result, scope};
use kiln_storage::{
    Backend, Body, Digest, Listed, MemoryBackend, ObjectName, Put, Record, Remote, Scope,
    StoreError, StoreResult,
};

const HOUR_MS: u64 = 3_600_000;

fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    since.as_millis() as u64
}

/// A result with a blob that is an object of its own, and a small one.
fn some(name: &str, blob: u64) -> (ResultName, Record, Vec<Bytes>) {
    let blobs = vec![noise(blob, 600_000), Bytes::from(name.to_owned())];
    let (name, record) = result(name, "v", &blobs);
    (name, record, blobs)
}

async fn store(
    remote: &ObjectRemote,
    of: &(ResultName, Record, Vec<Bytes>),
) -> StoreResult<Stored> {
    let local = MemoryBackend::new(1 << 30);
    keep(&local, &of.2).await;
    remote.store(&of.0, &of.1, &local).await
}

/// Whether a result is there; a blob of it that is not is a failure.
async fn is_whole(backend: &Arc<dyn Backend>, name: &ResultName) -> bool {
    let remote = ObjectRemote::new(Arc::clone(backend), "test");
    let found = remote.results(std::slice::from_ref(name)).await.unwrap();
    let Some(arrived) = found.first() else { return false };
    for (digest, size) in arrived.record.blobs() {
        if !arrived.blobs.iter().any(|(along, _)| *along == digest) {
            assert!(remote.blob(&digest, size).await.unwrap().is_some(), "a blob is gone");
        }
    }
    true
}

async fn planned(backend: &dyn Backend, policy: &Policy, hours: u64) -> (Inventory, Plan) {
    let inventory = Inventory::read(backend).await.unwrap();
    let plan = plan(&inventory, policy, now_ms() + hours * HOUR_MS);
    (inventory, plan)
}

/// A prefix that is not Kiln's, or not its alone: other programs have directories of these names, too.
#[tokio::test]
async fn what_others_keep_under_such_names_stays() {
    let backend = MemoryBackend::new(1 << 30);
    let hex = Digest::of(b"x").to_string();
    let (other, scope) = (Digest::of(b"y").to_string(), scope().id());
    for name in [
        format!("blobs/sha256/{hex}"),
        format!("packed/{}/{hex}", &other[..2]),
        format!("blobs/{}/more/{hex}", &hex[..2]),
        "used/reports/2024/january-1".to_owned(),
        format!("used/{scope}/2024/ab-cd"),
        format!("used/{scope}/00000001/{}-{}", &hex[..16], &hex[..15]),
        "collecting/ab-cd".to_owned(),
        format!("collecting/{}-{}.txt", "f".repeat(16), &hex[..16]),
        format!("results/{hex}.1"),
    ] {
        let name: ObjectName = name.parse().unwrap();
        backend.put_if_absent(&name, Body::Bytes(Bytes::from_static(b"x"))).await.unwrap();
    }
    // What is Kiln's goes.
    let own = [
        format!("packed/{}/{hex}", &hex[..2]),
        format!("used/{scope}/00000001/{}-{}", &hex[..16], &hex[..16]),
        format!("collecting/{}-{}.done", "f".repeat(16), &hex[..16]),
    ];
    for name in &own {
        let body = Body::Bytes(Bytes::from_static(b"x"));
        backend.put_if_absent(&name.parse().unwrap(), body).await.unwrap();
    }
    let (_, plan) = planned(&backend, &Policy::new(0), 24 * 365).await;
    let blobs = plan.blobs.iter().map(|(name, _)| name);
    let mut gone: Vec<_> = blobs.chain(&plan.others).map(ToString::to_string).collect();
    gone.sort();
    let mut expected = own.to_vec();
    expected.sort();
    assert_eq!((gone, plan.results), (expected, Vec::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_is_collected_by_last_use() {
    let Some(bucket) = Bucket::new().await else { return };
    let backend: Arc<dyn Backend> = Arc::new(bucket.open());
    let writer = ObjectRemote::in_bucket(bucket.open());
    let other = Scope::new("owner/repository", "refs/pull/7/merge");
    let all: Vec<_> = (0..6).map(|i| some(&format!("crate{i}"), i)).collect();
    for one in &all {
        assert_eq!(store(&writer, one).await.unwrap(), Stored::Durable);
    }
    // The same result in another scope shares the blob and nothing else.
    let mut elsewhere = all[5].clone();
    elsewhere.0.scope = other.clone();
    assert_eq!(store(&writer, &elsewhere).await.unwrap(), Stored::Durable);
    pin(&*backend, &other, &elsewhere.0.result).await.unwrap();

    // Nothing goes while all is young, even if nothing may stay.
    let (_, young) = planned(&*backend, &Policy::new(0), 0).await;
    assert_eq!((young.results.len(), young.blobs.len()), (0, 0));

    // A reader uses two of them, and says so.
    let reader = ObjectRemote::in_bucket(bucket.open());
    let used = [all[1].0.clone(), all[3].0.clone()];
    assert_eq!(reader.results(&used).await.unwrap().len(), 2);
    reader.flush(Duration::from_secs(30)).await.unwrap();
    let pages = list(&*backend, "used/").await.unwrap();
    assert_eq!(pages.len(), 1);

    // Half a year later, by this clock, nothing was used for long but what is pinned.
    let policy = Policy::new(u64::MAX);
    let (inventory, later) = planned(&*backend, &policy, 24 * 180).await;
    assert_eq!(inventory.results.len(), 7);
    assert_eq!((later.results.len(), later.blobs.len()), (6, 5), "{}", later.describe());
    assert_eq!(later.others, pages);
    // A quota of two and a half results: the two that were used stay. Costs are the same.
    let one = later.scopes[&scope().id()].bytes_before / 6;
    let quota = Policy { grace: Duration::ZERO, ..Policy::new(one * 5 / 2) };
    let (inventory, over) = planned(&*backend, &quota, 48).await;
    let text = over.describe();
    assert!(text.contains("4 of 6 results") && text.contains("6.0 s to make anew"), "{text}");
    assert!(over.results.iter().all(|(_, why)| *why == Why::Quota));
    // So far nothing happened.
    assert_eq!(list(&*backend, "results/").await.unwrap().len(), 7);
    bucket.proxy.forget();
    let collected = act(&*backend, &inventory, &over).await.unwrap();
    let expected = Collected { results: 4, blobs: 3, ..Collected::default() };
    assert_eq!(collected, expected, "the pinned one shares a blob");
    assert_eq!(bucket.proxy.count("POST", "delete"), 2, "results, blobs");
    assert_eq!(bucket.proxy.seen().len(), 2 + 3, "announced, results listed, said to be over");
    for one in &all {
        assert_eq!(is_whole(&backend, &one.0).await, used.contains(&one.0), "{:?}", one.0);
    }
    assert!(is_whole(&backend, &elsewhere.0).await);
    let (_, again) = planned(&*backend, &quota, 48).await;
    assert_eq!((again.results.len(), again.blobs.len()), (0, 0));
    assert_eq!(again.others, list(&*backend, "collecting/").await.unwrap());
    assert_eq!(again.others.len(), 2, "the announcement goes with a later collection");
    assert!(unpin(&*backend, &other, &elsewhere.0.result).await.unwrap());
    let (_, again) = planned(&*backend, &policy, 24 * 180).await;
    assert_eq!(again.results.len(), 3);
}

#[tokio::test]
async fn an_inventory_with_holes_is_none() {
    use kiln_storage::testing::faults::{Call, Fault, FaultBackend, Faults};
    let faulty = FaultBackend::new(MemoryBackend::new(1 << 30), Faults::Never);
    let backend: Arc<dyn Backend> = Arc::new(faulty.clone());
    let remote = ObjectRemote::new(Arc::clone(&backend), "test");
    for i in 0..2 {
        store(&remote, &some(&format!("crate{i}"), i)).await.unwrap();
    }
    remote.results(&[some("crate0", 0).0]).await.unwrap();
    remote.flush(Duration::from_secs(5)).await.unwrap();
    for (call, calls) in [(Call::Get, 3), (Call::List, 9)] {
        for nth in 1..=calls {
            faulty.set(Faults::Nth(call, nth, Fault::Unavailable));
            assert!(Inventory::read(&*backend).await.is_err(), "{call:?} {nth}");
        }
        faulty.set(Faults::Nth(call, calls + 1, Fault::Unavailable));
        assert!(Inventory::read(&*backend).await.is_ok());
    }
    // What is damaged is seen as that, and goes.
    faulty.set(Faults::Nth(Call::Get, 2, Fault::BitFlip));
    let (_, plan) = planned(&*backend, &Policy::new(u64::MAX), 2).await;
    assert_eq!(plan.results.iter().map(|(_, why)| *why).collect::<Vec<_>>(), [Why::Broken]);
}

/// Before its nth call something else happens.
struct Meanwhile {
    inner: Arc<dyn Backend>,
    left: AtomicU64,
    what: Mutex<Option<BoxFuture<'static, ()>>>,
}

impl std::fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meanwhile")
    }
}

impl Meanwhile {
    fn new(inner: &Arc<dyn Backend>, calls: u64, what: BoxFuture<'static, ()>) -> Arc<Self> {
        let (inner, left) = (Arc::clone(inner), AtomicU64::new(calls));
        Arc::new(Self { inner, left, what: Mutex::new(Some(what)) })
    }

    async fn step(&self) {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 0 {
            let what = self.what.lock().unwrap().take();
            what.unwrap().await;
        }
    }

    /// Whether it happened.
    fn happened(&self) -> bool {
        self.what.lock().unwrap().is_none()
    }
}

#[async_trait]
impl Backend for Meanwhile {
    async fn get(&self, name: &ObjectName) -> StoreResult<Option<Body>> {
        self.step().await;
        self.inner.get(name).await
    }
    async fn put_if_absent(&self, name: &ObjectName, body: Body) -> StoreResult<Put> {
        self.step().await;
        self.inner.put_if_absent(name, body).await
    }
    async fn size(&self, name: &ObjectName) -> StoreResult<Option<u64>> {
        self.step().await;
        self.inner.size(name).await
    }
    async fn delete(&self, name: &ObjectName) -> StoreResult<bool> {
        self.step().await;
        self.inner.delete(name).await
    }
    fn list(&self, prefix: &str) -> BoxStream<'static, StoreResult<Listed>> {
        // The step of a listing is taken with its first item.
        let (inner, prefix) = (Arc::clone(&self.inner), prefix.to_owned());
        let before = self.left.fetch_sub(1, Ordering::Relaxed) == 0;
        let what = if before { self.what.lock().unwrap().take() } else { None };
        let begin = async move {
            if let Some(what) = what {
                what.await;
            }
            inner.list(&prefix)
        };
        Box::pin(futures_util::StreamExt::flatten(futures_util::stream::once(begin)))
    }
}

/// A bucket with an old blob that no result names, and the plan to take it and a result that shares none.
async fn with_an_orphan() -> (Arc<dyn Backend>, Inventory, Plan) {
    let backend: Arc<dyn Backend> = Arc::new(MemoryBackend::new(1 << 30));
    let remote = ObjectRemote::new(Arc::clone(&backend), "test");
    let first = some("first", 1);
    store(&remote, &first).await.unwrap();
    remote.reject(&first.0).await.unwrap();
    store(&remote, &some("unused", 2)).await.unwrap();
    let (inventory, plan) = planned(&*backend, &Policy::new(u64::MAX), 24 * 40).await;
    assert_eq!((plan.results.len(), plan.blobs.len()), (1, 2));
    (backend, inventory, plan)
}

/// What a writer has stored when it is told so stays whole, whatever a collection did meanwhile; told otherwise,
/// it comes again and succeeds.
async fn check_stored(backend: &Arc<dyn Backend>, stored: StoreResult<Stored>) -> bool {
    let second = some("second", 1);
    let durable = match stored {
        Ok(Stored::Durable) => true,
        Err(StoreError::Unavailable(_)) => false,
        other => panic!("{other:?}"),
    };
    assert_eq!(is_whole(backend, &second.0).await, durable);
    let remote = ObjectRemote::new(Arc::clone(backend), "test");
    let again = store(&remote, &second).await.unwrap();
    assert_eq!(again == Stored::AlreadyThere, durable);
    assert!(is_whole(backend, &second.0).await);
    durable
}

#[tokio::test]
async fn a_writer_at_any_step_of_a_collection_loses_nothing() {
    let mut outcomes = Vec::new();
    for step in 0.. {
        let (backend, inventory, plan) = with_an_orphan().await;
        let stored = Arc::new(Mutex::new(None));
        let (writing, result) = (Arc::clone(&backend), Arc::clone(&stored));
        let what = async move {
            let remote = ObjectRemote::new(writing, "test");
            let outcome = store(&remote, &some("second", 1)).await;
            *result.lock().unwrap() = Some(outcome);
        };
        let slowly = Meanwhile::new(&backend, step, Box::pin(what));
        act(&*slowly, &inventory, &plan).await.unwrap();
        if !slowly.happened() {
            break;
        }
        let stored = stored.lock().unwrap().take().unwrap();
        outcomes.push(check_stored(&backend, stored).await);
    }
    // Before the announcement it is spared, afterwards the writer is told, at the end all is new.
    assert!(outcomes.starts_with(&[true]) && outcomes.ends_with(&[true]), "{outcomes:?}");
    assert!(outcomes.contains(&false), "nobody met the announcement: {outcomes:?}");
}

#[tokio::test]
async fn a_collection_at_any_step_of_a_writer_takes_nothing_that_is_stored() {
    let mut outcomes = Vec::new();
    for step in 0.. {
        let (backend, inventory, plan) = with_an_orphan().await;
        let collecting = Arc::clone(&backend);
        let collected = Arc::new(Mutex::new(Collected::default()));
        let result = Arc::clone(&collected);
        let what = async move {
            *result.lock().unwrap() = act(&*collecting, &inventory, &plan).await.unwrap();
        };
        let slowly = Meanwhile::new(&backend, step, Box::pin(what));
        let remote = ObjectRemote::new(Arc::clone(&slowly) as _, "test");
        let stored = store(&remote, &some("second", 1)).await;
        if !slowly.happened() {
            break;
        }
        let spared = collected.lock().unwrap().spared;
        outcomes.push((check_stored(&backend, stored).await, spared));
    }
    // Before the look at the blob, between it and the record, after it.
    for outcome in [(true, 0), (false, 0), (true, 1)] {
        assert!(outcomes.contains(&outcome), "{outcomes:?}");
    }
}

/// Somebody who died in the middle of a collection stops nobody for long.
#[tokio::test]
async fn an_announcement_is_heeded_for_its_time_only() {
    for (age_ms, heeded) in [(0, true), (HOUR_MS / 2, true), (2 * HOUR_MS, false)] {
        let (backend, ..) = with_an_orphan().await;
        let order = u64::MAX - (now_ms() - age_ms);
        let name: ObjectName = format!("collecting/{order:016x}-{:016x}", 1).parse().unwrap();
        let digest = Digest::of(&noise(1, 600_000));
        let frame = kiln_storage::entry::encode(&name, digest.as_bytes()).unwrap();
        backend.put_if_absent(&name, Body::Bytes(frame.into())).await.unwrap();
        let remote = ObjectRemote::new(Arc::clone(&backend), "test");
        let stored = store(&remote, &some("second", 1)).await;
        assert_eq!(stored.is_err(), heeded, "{age_ms}: {stored:?}");
        // Of one that is over, only what it deleted is missing.
        let done: ObjectName = format!("{name}.done").parse().unwrap();
        backend.put_if_absent(&done, Body::Bytes(Bytes::new())).await.unwrap();
        assert!(store(&remote, &some("second", 1)).await.is_ok());
        // What relies on nothing old is not stopped.
        assert_eq!(store(&remote, &some("third", 3)).await.unwrap(), Stored::Durable);
    }
}
