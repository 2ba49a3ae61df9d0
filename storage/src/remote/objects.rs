//! [`ObjectRemote`]: results in a bucket, or in any other backend.
//!
//! A result is one object: its record together with the blobs that are small, in a frame. Larger blobs
//! are objects of their own, named by their digest, so a result whose output is that of another costs
//! nothing but its record. Their frames are compressed as [`crate::entry`] does (zstd, level 3: of the
//! 133 MB of libraries of a debug build of ripgrep it leaves 34 MB at 390 MB/s; level 1 leaves 37, level 6 31 at
//! a third of the speed). What is called how is in `objects/layout.rs`.
//!
//! A library is stored without the metadata in it, where that is an output of its own: 29 of the 104 MB.
//!
//! A lookup is a listing of each unit in each scope, and a read for each of its newest results; what is asked for
//! by name is a read and nothing else. Storing is a write for each large blob that is not there, then one
//! for the record, which makes it visible. A result with large blobs is asked for first, and so is a blob of more
//! than [`limits::ASK_BEFORE_BYTES`]: asking is cheap beside sending what is there.
//!
//! A store that relied on a blob of somebody else looks whether a collection is about to delete it
//! ([`crate::remote::collect`] says how the two meet).
//!
//! What is damaged is read once more, then counted and deleted: the next producer stores it anew. Objects of
//! another format have other names and are not seen at all.

mod blobs;
mod counted;
mod events;
pub(crate) mod joined;
pub(crate) mod layout;
mod notes;
pub(crate) mod pack;
mod storing;
mod together;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use crate::backend::{Backend, Body, StoreError, StoreResult};
use crate::digest::Digest;
use crate::entry;
use crate::key::{ObjectName, Scope, UnitKey};
use crate::limits;
use crate::object::{ObjectBackend, Traffic};
use crate::record::Record;
use crate::remote::events::{EventBatch, EventsThere, KeepsEvents, KnownBatches};
use crate::remote::together::{Incoming, PackName, ToWrite, Written};
use crate::remote::uses::{self, Uses};
use crate::remote::{Arrived, Flushed, Remote, RemoteCounters, ResultName, Stored};
use crate::verify::Verified;
use pack::PackError;

/// Results in a backend. See the module.
pub struct ObjectRemote {
    backend: Arc<dyn Backend>,
    shown: String,
    traffic: Arc<Traffic>,
    damaged: AtomicU64,
    /// Results that are not to be found again, though they may be there.
    rejected: Mutex<BTreeSet<ResultName>>,
    uses: Mutex<Uses>,
    recent: blobs::Recent,
}

impl fmt::Debug for ObjectRemote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectRemote({})", self.shown)
    }
}

/// A result in a listing.
struct Candidate {
    name: ResultName,
    stored_ms: u64,
}

impl ObjectRemote {
    /// Results in a bucket.
    pub fn in_bucket(backend: ObjectBackend) -> Self {
        let (shown, traffic) = (backend.place().to_string(), backend.traffic());
        Self::with(Arc::new(backend), shown, traffic)
    }

    /// Results in any backend; `shown` is what people see of the place. A call counts as a request.
    pub fn new(backend: Arc<dyn Backend>, shown: impl Into<String>) -> Self {
        let traffic = Arc::new(Traffic::default());
        let counted = counted::Counted { inner: backend, traffic: Arc::clone(&traffic) };
        Self::with(Arc::new(counted), shown.into(), traffic)
    }

    fn with(backend: Arc<dyn Backend>, shown: String, traffic: Arc<Traffic>) -> Self {
        Self {
            backend,
            shown,
            traffic,
            damaged: AtomicU64::new(0),
            rejected: Mutex::default(),
            uses: Mutex::default(),
            recent: blobs::Recent::default(),
        }
    }

    /// The newest results of a unit in a scope, one generation of each.
    async fn newest(&self, scope: &Scope, unit: &UnitKey) -> StoreResult<Vec<Candidate>> {
        let prefix = layout::unit_prefix(scope, unit);
        let mut listing = self.backend.list(&prefix).take(limits::MAX_LISTED_RESULTS);
        let mut found: BTreeMap<_, (u32, u64)> = BTreeMap::new();
        while let Some(listed) = listing.try_next().await? {
            let below = listed.name.as_str().strip_prefix(&prefix);
            let Some((result, generation)) = below.and_then(layout::parse_result) else { continue };
            let name = ResultName { scope: scope.clone(), unit: *unit, result, generation };
            if lock(&self.rejected).contains(&name) {
                continue;
            }
            let newer = found.get(&result).is_none_or(|(there, _)| *there < generation);
            if newer {
                found.insert(result, (generation, listed.used_ms));
            }
        }
        let mut candidates: Vec<_> = found
            .into_iter()
            .map(|(result, (generation, stored_ms))| Candidate {
                name: ResultName { scope: scope.clone(), unit: *unit, result, generation },
                stored_ms,
            })
            .collect();
        candidates.sort_by_key(|candidate| (Reverse(candidate.stored_ms), candidate.name.result));
        candidates.truncate(limits::MAX_RECORDS_PER_UNIT);
        Ok(candidates)
    }

    /// The result of a name; `stored_ms` where it is known.
    async fn fetch(
        &self,
        name: &ResultName,
        stored_ms: Option<u64>,
    ) -> StoreResult<Option<Arrived>> {
        let object = layout::result(name);
        let name_too = name.clone();
        let max = entry::max_frame(&object);
        let read = self.read(&object, max, move |frame| pack::decode(&name_too, frame));
        let Some((record, blobs)) = read.await? else { return Ok(None) };
        let stored_ms = stored_ms.unwrap_or(record.producer.created_at_ms);
        lock(&self.uses).note(&name.scope.id(), name.result, now_ms());
        Ok(Some(Arrived { name: name.clone(), record, blobs, stored_ms }))
    }

    /// What is in an object; damage is looked at twice, then it is counted, deleted and absent.
    async fn read<T: Send + 'static, E: Into<PackError> + Send + 'static>(
        &self,
        object: &ObjectName,
        max: u64,
        decode: impl Fn(Bytes) -> Result<T, E> + Clone + Send + 'static,
    ) -> StoreResult<Option<T>> {
        for last in [false, true] {
            let Some(body) = self.backend.get(object).await? else { return Ok(None) };
            let frame = match body.into_bytes(object, max).await {
                Ok(frame) => Some(frame),
                Err(StoreError::Damaged { .. } | StoreError::TooLarge { .. }) => None,
                Err(error) => return Err(error),
            };
            if let Some(frame) = frame {
                let decode = decode.clone();
                if let Ok(value) = self.blocking(frame.len(), move || decode(frame)).await? {
                    return Ok(Some(value));
                }
            }
            if last {
                self.damaged.fetch_add(1, Ordering::Relaxed);
                // One that stays is found damaged again.
                let _ = self.backend.delete(object).await;
            }
        }
        Ok(None)
    }

    /// Runs what computes over so many bytes, beside the other tasks where they are many.
    async fn blocking<T: Send + 'static>(
        &self,
        bytes: usize,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> StoreResult<T> {
        if bytes <= limits::COPY_BUFFER_BYTES {
            return Ok(call());
        }
        let done = tokio::task::spawn_blocking(call).await;
        done.map_err(|error| StoreError::Unavailable(format!("{}: {error}", self.shown)))
    }

    /// A name of the result that was not rejected: the next generation where this one was.
    fn not_rejected(&self, name: &ResultName) -> ResultName {
        let rejected = lock(&self.rejected);
        let mut name = name.clone();
        while rejected.contains(&name) && name.generation < u32::MAX {
            name.generation += 1;
        }
        name
    }

    /// Takes every generation of a result away: an older one would be given instead of the one that is known. The
    /// older ones that are not there are rejected, too, for packs.
    async fn take_all_back(&self, name: &ResultName) -> StoreResult<bool> {
        let prefix = layout::unit_prefix(&name.scope, &name.unit);
        let mut listing = self.backend.list(&prefix);
        let mut generations = BTreeSet::from([name.generation]);
        while let Some(listed) = listing.try_next().await? {
            let below = listed.name.as_str().strip_prefix(&prefix).and_then(layout::parse_result);
            generations.extend(below.filter(|(of, _)| *of == name.result).map(|(_, at)| at));
        }
        let newest = generations.last().copied().unwrap_or_default();
        for top in [name.generation, newest] {
            generations.extend(top.saturating_sub(limits::MAX_TAKEN_BEFORE)..top);
        }
        let mut said = Ok(true);
        for generation in generations {
            // One that stays keeps none of the others.
            let rejected = self.reject(&ResultName { generation, ..name.clone() }).await;
            said = said.and_then(|gone| rejected.map(|()| gone));
        }
        said
    }

    /// Writes what was used and is not written yet.
    async fn write_uses(&self) -> StoreResult<()> {
        let pages = lock(&self.uses).take();
        let mut failed = Ok(());
        for (page, results) in pages {
            let Some((name, frame)) = uses::encode(&page, &results, now_ms(), chance()) else {
                continue;
            };
            if failed.is_ok() {
                failed =
                    self.backend.put_if_absent(&name, Body::Bytes(frame.into())).await.map(drop);
            }
            if failed.is_err() {
                lock(&self.uses).put_back(&page, results);
            }
        }
        failed
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// A number that nobody else has.
pub(crate) fn chance() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// What all of them return, in their order; some run at a time.
async fn some_at_once<T>(
    all: Vec<impl Future<Output = StoreResult<T>> + Send>,
) -> StoreResult<Vec<T>> {
    stream::iter(all).buffered(limits::REMOTE_LOOKUPS_AT_ONCE).try_collect().await
}

/// Of the results of all scopes, in the order of the scopes, those that are asked for: each once.
fn choose(of_scopes: Vec<Vec<Candidate>>) -> impl Iterator<Item = Candidate> {
    let mut seen = BTreeSet::new();
    let all = of_scopes.into_iter().flatten();
    all.filter(move |candidate| seen.insert(candidate.name.result))
        .take(limits::MAX_RECORDS_PER_UNIT)
}

#[async_trait]
impl Remote for ObjectRemote {
    fn display(&self) -> String {
        self.shown.clone()
    }

    async fn lookup(&self, scopes: &[Scope], units: &[UnitKey]) -> StoreResult<Vec<Arrived>> {
        let mut listings = Vec::with_capacity(units.len() * scopes.len());
        for unit in units {
            listings.extend(scopes.iter().map(|scope| self.newest(scope, unit)));
        }
        let mut listed = some_at_once(listings).await?;
        let mut candidates = Vec::new();
        while !listed.is_empty() {
            let of_unit = listed.drain(..scopes.len().min(listed.len())).collect();
            candidates.extend(choose(of_unit));
        }
        let reads: Vec<_> = candidates
            .iter()
            .map(|candidate| self.fetch(&candidate.name, Some(candidate.stored_ms)))
            .collect();
        let mut arrived: Vec<Arrived> = some_at_once(reads).await?.into_iter().flatten().collect();
        let place = |key: &ResultName| {
            let unit = units.iter().position(|unit| *unit == key.unit);
            (unit, scopes.iter().position(|scope| *scope == key.scope))
        };
        // A bucket's times are of whole seconds.
        arrived.sort_by_cached_key(|result| {
            let created = result.record.producer.created_at_ms;
            (place(&result.name), Reverse(result.stored_ms / 1000), Reverse(created))
        });
        if lock(&self.uses).waiting() >= limits::MAX_USED_RESULTS {
            // What cannot be written waits on.
            let _ = self.write_uses().await;
        }
        Ok(arrived)
    }

    async fn results(&self, names: &[ResultName]) -> StoreResult<Vec<Arrived>> {
        let mut reads = Vec::with_capacity(names.len());
        for name in names {
            if !lock(&self.rejected).contains(name) {
                reads.push(self.fetch(name, None));
            }
        }
        Ok(some_at_once(reads).await?.into_iter().flatten().collect())
    }

    async fn blob(&self, digest: &Digest, size: u64) -> StoreResult<Option<Body>> {
        let (object, framed) = layout::blob(digest, size);
        if !framed {
            return Verified::new(Arc::clone(&self.backend)).get(&object).await;
        }
        let found = self.framed_blob(digest, size).await?;
        // Another size is the mistake of who asks, or of a record: the blob is what its name says.
        Ok(found.filter(|bytes| bytes.len() as u64 == size).map(Body::Bytes))
    }

    async fn store(
        &self,
        name: &ResultName,
        record: &Record,
        local: &dyn Backend,
    ) -> StoreResult<Stored> {
        self.store_result(name, record, local).await
    }

    /// Nothing is collected here but which results were used.
    async fn flush(&self, within: Duration) -> StoreResult<Flushed> {
        match tokio::time::timeout(within, self.write_uses()).await {
            Ok(done) => done.map(|()| Flushed::default()),
            Err(_) => Err(StoreError::Unavailable(format!("{}: no answer in time", self.shown))),
        }
    }

    async fn reject(&self, name: &ResultName) -> StoreResult<()> {
        {
            let mut rejected = lock(&self.rejected);
            if rejected.len() < limits::MAX_REMEMBERED {
                rejected.insert(name.clone());
            }
        }
        let said = self.reject_in_packs(name).await;
        // Blobs that are damaged were deleted when they were read.
        self.backend.delete(&layout::result(name)).await?;
        said
    }

    async fn take_back(&self, name: &ResultName) -> StoreResult<bool> {
        self.take_all_back(name).await
    }

    async fn note(&self, scopes: &[Scope], name: &str) -> StoreResult<Option<Bytes>> {
        self.newest_note(scopes, name).await
    }

    async fn put_note(&self, scope: &Scope, name: &str, text: Bytes) -> StoreResult<()> {
        self.replace_note(scope, name, &text).await
    }

    async fn packs(&self, packs: &[PackName]) -> StoreResult<Vec<Incoming>> {
        self.read_packs(packs).await
    }

    async fn put_packs(&self, what: &ToWrite<'_>, local: &dyn Backend) -> Written {
        self.write_packs(what, local).await
    }

    async fn keep_packs(&self, scope: &Scope, note: &str, keep: &[PackName]) -> StoreResult<()> {
        self.delete_packs(scope, note, keep).await
    }

    fn has_packs(&self) -> bool {
        true
    }

    fn keeps_events(&self) -> KeepsEvents {
        KeepsEvents::AsObjects
    }

    fn keeps_scopes(&self) -> bool {
        true
    }

    fn counts_generations(&self) -> bool {
        true
    }

    async fn put_events(&self, scope: &Scope, batch: &EventBatch) -> StoreResult<()> {
        self.write_events(scope, batch).await
    }

    async fn events(
        &self,
        scopes: &[Scope],
        run: &str,
        known: &KnownBatches,
    ) -> StoreResult<EventsThere> {
        self.read_events(scopes, run, known).await
    }

    fn counters(&self) -> RemoteCounters {
        RemoteCounters {
            requests: self.traffic.requests(),
            retries: self.traffic.retries(),
            bytes_in: self.traffic.bytes_in(),
            bytes_out: self.traffic.bytes_out(),
            damaged: self.damaged.load(Ordering::Relaxed),
            asked_to_wait_ms: self.traffic.asked_to_wait_ms(),
        }
    }
}
