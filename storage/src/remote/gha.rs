//! [`GhaRemote`]: the GitHub Actions cache as a place for results.
//!
//! The service takes few new entries, each of them once, has no list and no delete, and finds what is new
//! only some time later. So results travel in *packs* of tens of megabytes, and one numbered *manifest* a
//! scope says what lies where; each manifest has all that the ones before had. Nothing here reads the
//! environment or writes to disk: the server hands [`Settings`] in and keeps what it gets. Every fault is a
//! miss or a loss that is told, never other bytes and never a wait without an end.
//!
//! - `client`, `v2`, `v1`, `transport`: the calls of both services, over HTTP;
//! - `entries`: entries by key, addresses that are over, rights;
//! - `pack`, `manifest`, `claim`, `numbers`: the formats, and writers that do not know of each other;
//! - `view`, `fetch`: what is known, and reading it;
//! - `collect`, `flush`, `budget`: what was stored, until it is durable;
//! - `settings`, `clock`, `limits`: what is handed in, time, bounds.

pub mod budget;
pub mod claim;
pub mod client;
pub mod clock;
mod collect;
mod entries;
mod fetch;
mod flush;
pub mod limits;
pub mod manifest;
mod numbers;
pub mod pack;
pub mod settings;
mod transport;
mod v1;
mod v2;
mod view;

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;

use self::budget::Budget;
use self::client::{CacheError, CacheService, Deadline};
use self::collect::Collected;
use self::entries::Entries;
use self::fetch::{Fetched, Wanted, fetch};
use self::manifest::Note;
use self::pack::{Framed, PackId, open_blob};
use self::settings::{Service, Settings};
use self::transport::{Counters, Transport};
use self::view::{View, Views};
use crate::backend::{Backend, Body, StoreError, StoreResult};
use crate::digest::Digest;
use crate::key::{ObjectName, ResultKey, Scope, UnitKey};
use crate::record::Record;
use crate::remote::{Arrived, Flushed, Remote, RemoteCounters, ResultName, Stored};

/// The GitHub Actions cache.
#[derive(Debug)]
pub struct GhaRemote {
    entries: Arc<Entries>,
    counters: Arc<Counters>,
    views: Views,
    collected: Collected,
    budget: Mutex<Budget>,
    bad: Mutex<Bad>,
    flushing: tokio::sync::Mutex<()>,
    salts: (RandomState, AtomicU64),
}

/// What this process knows better than the manifests.
#[derive(Debug, Default)]
struct Bad {
    /// Results and blobs that proved damaged, by pack and offset.
    places: HashSet<(PackId, u64)>,
    /// Packs that were not found, and when.
    packs: HashMap<PackId, u64>,
}

impl From<CacheError> for StoreError {
    fn from(error: CacheError) -> Self {
        match error {
            CacheError::ReadOnly(why) => Self::ReadOnly(why),
            other => Self::Unavailable(format!("the GitHub Actions cache: {other}")),
        }
    }
}

impl GhaRemote {
    /// A client of the cache. Nothing is asked yet.
    ///
    /// # Errors
    /// `Unavailable` when the address is none.
    pub fn new(settings: Settings) -> StoreResult<Self> {
        let counters = Arc::new(Counters::default());
        let transport = Transport::new(&settings, Arc::clone(&counters))?;
        let token = settings.token.clone();
        let service: Box<dyn CacheService> = match &settings.service {
            Service::V2 { results_url } => Box::new(v2::V2::new(transport, results_url, token)?),
            Service::V1 { cache_url } => Box::new(v1::V1::new(transport, cache_url, token)?),
        };
        let entries = Arc::new(Entries::new(service, settings.clock, settings.mode));
        let views = Views::new(Arc::clone(&entries), Arc::clone(&counters));
        views.know(&settings.scopes);
        Ok(Self {
            views,
            entries,
            counters,
            collected: Collected::new(settings.spool_bytes),
            budget: Mutex::new(Budget::new(settings.sharers)),
            bad: Mutex::default(),
            flushing: tokio::sync::Mutex::default(),
            salts: (RandomState::new(), AtomicU64::new(0)),
        })
    }

    /// Results that are collected and not durable yet: what would be lost if the process ended now.
    pub fn collected(&self) -> u64 {
        self.collected.len()
    }

    fn budget(&self) -> MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bad(&self) -> MutexGuard<'_, Bad> {
        self.bad.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        self.entries.clock.now_ms()
    }

    /// A number that no other process has.
    fn salt(&self) -> u64 {
        self.salts.0.hash_one((self.now_ms(), self.salts.1.fetch_add(1, Ordering::Relaxed)))
    }

    fn until(&self) -> Deadline {
        Deadline::after(&*self.entries.clock, limits::READ_WITHIN)
    }

    /// Whether what lies there can be read as far as this process knows.
    fn is_good(&self, pack: &PackId, offset: u64) -> bool {
        let now = self.now_ms();
        let again = limits::MANIFEST_MAX_AGE.as_millis() as u64;
        let bad = self.bad();
        let missed = bad.packs.get(pack).is_some_and(|missed| now < missed + again);
        !missed && !bad.places.contains(&(*pack, offset))
    }

    /// The views of scopes, those that can be had. An error only when there is none.
    async fn views(&self, scopes: &[Scope]) -> StoreResult<Vec<(Scope, Arc<View>)>> {
        let mut views = Vec::new();
        let mut failed = None;
        let asked = scopes.iter().map(|scope| self.views.get(scope));
        for (scope, view) in scopes.iter().zip(join_all(asked).await) {
            match view {
                Ok(view) => views.push((scope.clone(), view)),
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) if views.is_empty() => Err(error.into()),
            _ => Ok(views),
        }
    }

    /// Fetches, and remembers what proved to be missing or damaged.
    /// What arrived, and whether something else did not that may have a copy elsewhere.
    async fn fetch(&self, mut wanted: Vec<Wanted>) -> StoreResult<(Vec<Arrived>, bool)> {
        let mut bytes = 0;
        for one in wanted.iter_mut().filter(|one| one.whole) {
            bytes += one.at.whole_len;
            one.whole = bytes <= limits::MAX_ARRIVED_BYTES;
        }
        let Fetched { arrived, damaged, missing, failed } =
            fetch(&self.entries, wanted, self.until()).await;
        let again = !damaged.is_empty() || !missing.is_empty();
        for (scope, pack, at) in damaged {
            self.counters.damaged();
            self.mark_damaged(&scope, pack, at.offset);
        }
        for (scope, pack) in missing {
            self.mark_missing(&scope, pack).await;
        }
        match failed {
            Some(error) if arrived.is_empty() => Err(error.into()),
            _ => Ok((arrived, again)),
        }
    }

    /// Fetches what `plan` asks for, which is told what arrived already, until it has nothing left to try.
    async fn fetch_copies(
        &self,
        plan: impl Fn(&[Arrived]) -> Vec<Wanted> + Send + Sync,
    ) -> StoreResult<Vec<Arrived>> {
        let mut all = Vec::new();
        for _ in 0..limits::COPIES {
            let (arrived, again) = self.fetch(plan(&all)).await?;
            all.extend(arrived);
            if !again {
                break;
            }
        }
        Ok(all)
    }

    /// Where the newest results of units are, but for those that are there already.
    fn newest(
        &self,
        views: &[(Scope, Arc<View>)],
        units: &[UnitKey],
        there: &[Arrived],
    ) -> Vec<Wanted> {
        let mut arrived: HashMap<UnitKey, HashSet<ResultKey>> = HashMap::new();
        for one in there {
            arrived.entry(one.name.unit).or_default().insert(one.name.result);
        }
        let mut wanted = Vec::new();
        for unit in units {
            let there = arrived.entry(*unit).or_default();
            for (scope, view) in views {
                for (pack, at) in view.unit(unit) {
                    let full = there.len() >= crate::limits::MAX_RECORDS_PER_UNIT;
                    if !full && self.is_good(pack, at.offset) && there.insert(at.result) {
                        let (scope, view) = (scope.clone(), Arc::clone(view));
                        wanted.push(Wanted { scope, view, pack: *pack, at: *at, whole: false });
                    }
                }
            }
        }
        wanted
    }

    /// Where results are by name, with all of their blobs, but for those that are there already.
    fn named(
        &self,
        views: &HashMap<Scope, Arc<View>>,
        names: &[ResultName],
        there: &[Arrived],
    ) -> Vec<Wanted> {
        let there: HashSet<&ResultName> = there.iter().map(|one| &one.name).collect();
        let mut wanted = Vec::new();
        for name in names.iter().filter(|name| !there.contains(name)) {
            let Some(view) = views.get(&name.scope) else { continue };
            let found = view.unit(&name.unit).iter().find(|(pack, at)| {
                at.result == name.result
                    && at.generation == name.generation
                    && self.is_good(pack, at.offset)
            });
            if let Some((pack, at)) = found {
                let (scope, view) = (name.scope.clone(), Arc::clone(view));
                wanted.push(Wanted { scope, view, pack: *pack, at: *at, whole: true });
            }
        }
        wanted
    }

    fn mark_damaged(&self, scope: &Scope, pack: PackId, offset: u64) {
        self.bad().places.insert((pack, offset));
        self.collected.tell(scope, |mine| {
            mine.dead.insert((pack, offset));
        });
    }

    /// Of a young pack, lookups may lag; an old one is gone.
    async fn mark_missing(&self, scope: &Scope, pack: PackId) {
        let now = self.now_ms();
        self.bad().packs.insert(pack, now);
        let view = self.views.now(scope).await;
        let gone = limits::GONE_AFTER.as_millis() as u64;
        if view.manifest.packs.get(&pack).is_some_and(|index| index.created_ms + gone < now) {
            self.collected.tell(scope, |mine| {
                mine.gone.insert(pack, now);
            });
        }
    }

    /// The blobs of a record, from the local store.
    async fn local_blobs(
        name: &ObjectName,
        record: &Record,
        local: &dyn Backend,
    ) -> StoreResult<Vec<(Digest, Bytes)>> {
        let mut blobs = Vec::new();
        for (digest, size) in record.blobs() {
            let blob = ObjectName::blob(&digest);
            let body = local.get(&blob).await?.ok_or_else(|| StoreError::Damaged {
                name: name.clone(),
                why: format!("its blob {} is not there", digest.short()),
            })?;
            let bytes = body.into_bytes(&blob, size).await?;
            if bytes.len() as u64 != size {
                let why = format!("its blob {} has another size", digest.short());
                return Err(StoreError::Damaged { name: name.clone(), why });
            }
            blobs.push((digest, bytes));
        }
        Ok(blobs)
    }
}

#[async_trait]
impl Remote for GhaRemote {
    fn display(&self) -> String {
        "the GitHub Actions cache".into()
    }

    async fn lookup(&self, scopes: &[Scope], units: &[UnitKey]) -> StoreResult<Vec<Arrived>> {
        let views = self.views(scopes).await?;
        let arrived = self.fetch_copies(|there| self.newest(&views, units, there)).await?;
        // In the order in which they are asked for when all is well.
        let place = |one: &Arrived| {
            let unit = units.iter().position(|unit| *unit == one.name.unit);
            let scope = scopes.iter().position(|scope| *scope == one.name.scope);
            (unit, scope, Reverse(one.stored_ms))
        };
        let mut arrived: Vec<_> = arrived.into_iter().map(|one| (place(&one), one)).collect();
        arrived.sort_by_key(|(place, _)| *place);
        Ok(arrived.into_iter().map(|(_, one)| one).collect())
    }

    async fn results(&self, names: &[ResultName]) -> StoreResult<Vec<Arrived>> {
        let mut scopes: Vec<Scope> = names.iter().map(|name| name.scope.clone()).collect();
        scopes.sort_unstable();
        scopes.dedup();
        let views: HashMap<Scope, Arc<View>> = self.views(&scopes).await?.into_iter().collect();
        self.fetch_copies(|there| self.named(&views, names, there)).await
    }

    async fn blob(&self, digest: &Digest, _: u64) -> StoreResult<Option<Body>> {
        for (scope, view) in self.views(&self.views.scopes()).await? {
            for (pack, span) in view.blob(digest) {
                if !self.is_good(pack, span.offset) {
                    continue;
                }
                let read = self.entries.read(&pack.key(), Some(*span), self.until()).await?;
                let Some(frame) = read else {
                    self.mark_missing(&scope, *pack).await;
                    continue;
                };
                let digest = *digest;
                let opened = tokio::task::spawn_blocking(move || open_blob(&digest, frame)).await;
                if let Ok(Ok(bytes)) = opened {
                    return Ok(Some(Body::Bytes(bytes)));
                }
                self.counters.damaged();
                self.bad().places.insert((*pack, span.offset));
                if let Some(at) = view.result_around(pack, *span) {
                    self.mark_damaged(&scope, *pack, at.offset);
                }
            }
        }
        Ok(None)
    }

    async fn store(
        &self,
        name: &ResultName,
        record: &Record,
        local: &dyn Backend,
    ) -> StoreResult<Stored> {
        self.entries.writable()?;
        let object = pack::record_name(&name.scope, name);
        if record.unit_key != name.unit || record.result_key != name.result {
            let why = "the record belongs to another result".into();
            return Err(StoreError::Damaged { name: object, why });
        }
        if self.collected.has(name) {
            return Ok(Stored::Collected);
        }
        // When it is not known what is there, the result is stored once more: that costs only bytes.
        if let Ok(view) = self.views.get(&name.scope).await {
            let there = view.unit(&name.unit).iter().any(|(pack, at)| {
                at.result == name.result
                    && at.generation >= name.generation
                    && self.is_good(pack, at.offset)
            });
            if there {
                return Ok(Stored::AlreadyThere);
            }
        }
        let sizes = record.blobs();
        let size: u64 = sizes.iter().map(|(_, size)| size).sum();
        let most = crate::limits::MAX_FRAMED_BLOB_BYTES as u64;
        if size > limits::MAX_RESULT_BYTES || sizes.iter().any(|(_, size)| *size > most) {
            return Err(StoreError::TooLarge { name: object, size });
        }
        let full =
            || StoreError::ReadOnly("what is collected fills its bound until a flush".into());
        if !self.collected.has_room(size) {
            return Err(full());
        }
        let blobs = Self::local_blobs(&object, record, local).await?;
        let (named, record) = (name.clone(), record.clone());
        let framed = tokio::task::spawn_blocking(move || Framed::new(&named, &record, blobs))
            .await
            .map_err(|error| StoreError::Unavailable(error.to_string()))?
            .map_err(|_| StoreError::TooLarge { name: object, size })?;
        if self.collected.add(framed, self.now_ms(), self.salt()) {
            Ok(Stored::Collected)
        } else {
            Err(full())
        }
    }

    async fn flush(&self, within: Duration) -> StoreResult<Flushed> {
        Ok(self.flush_all(within).await?)
    }

    async fn reject(&self, name: &ResultName) -> StoreResult<()> {
        self.collected.forget(name);
        let view = self.views.now(&name.scope).await;
        for (pack, at) in view.unit(&name.unit) {
            if at.result == name.result && at.generation <= name.generation {
                self.mark_damaged(&name.scope, *pack, at.offset);
            }
        }
        Ok(())
    }

    async fn note(&self, scopes: &[Scope], name: &str) -> StoreResult<Option<Bytes>> {
        for scope in scopes {
            if let Some(text) = self.collected.note(scope, name) {
                return Ok(Some(text));
            }
            let view = self.views.get(scope).await?;
            if let Some(note) = view.manifest.notes.get(name) {
                return Ok(Some(note.text.clone()));
            }
        }
        Ok(None)
    }

    async fn put_note(&self, scope: &Scope, name: &str, text: Bytes) -> StoreResult<()> {
        self.entries.writable()?;
        if name.len() > limits::MAX_NOTE_NAME_BYTES || text.len() > limits::MAX_NOTE_BYTES {
            let (size, name) = (text.len() as u64, ObjectName::blob(&Digest::of(&text)));
            return Err(StoreError::TooLarge { name, size });
        }
        let note = Note { written_ms: self.now_ms(), text };
        self.collected.add_note(scope, name, note);
        Ok(())
    }

    fn counters(&self) -> RemoteCounters {
        self.counters.read()
    }
}
