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
//! - `view`, `fetch`, `read`: what is known, ranges of packs, and reading;
//! - `events`: what became of units, for reports;
//! - `collect`, `flush`, `budget`: what was stored, until it is durable;
//! - `settings`, `token`, `clock`, `limits`: what is handed in, what a token says, time, bounds.

pub mod budget;
pub mod claim;
pub mod client;
pub mod clock;
mod collect;
mod entries;
mod events;
mod fetch;
mod flush;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod limits;
pub mod manifest;
mod numbers;
pub mod pack;
mod read;
pub mod settings;
pub mod token;
mod transport;
mod v1;
mod v2;
mod view;

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Semaphore;

use self::budget::Budget;
use self::client::{CacheError, CacheService};
use self::collect::Collected;
use self::entries::Entries;
use self::manifest::Note;
use self::pack::{Framed, PackId};
use self::settings::{Service, Settings};
use self::token::Refs;
use self::transport::{Counters, Transport};
use self::view::Views;
use crate::backend::{Backend, Body, StoreError, StoreResult};
use crate::digest::Digest;
use crate::key::{ObjectName, Scope, UnitKey};
use crate::record::Record;
use crate::remote::events::{EventBatch, EventsThere, KeepsEvents, KnownBatches};
use crate::remote::{Arrived, Flushed, Remote, RemoteCounters, ResultName, Stored};

/// Attempts to collect a result while others are collected.
const ROUNDS: u32 = 8;

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
    /// KiB of results that are read and framed at the same time.
    framing: (Semaphore, u32),
    salts: (RandomState, AtomicU64),
    /// The token says that it may write nowhere.
    only_reads: bool,
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
            other => Self::Unavailable(other.to_string()),
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
        let only_reads = Refs::of(&token).is_some_and(|refs| refs.writes_nothing());
        let service: Box<dyn CacheService> = match &settings.service {
            Service::V2 { results_url } => Box::new(v2::V2::new(transport, results_url, token)?),
            Service::V1 { cache_url } => Box::new(v1::V1::new(transport, cache_url, token)?),
        };
        let entries = Arc::new(Entries::new(service, settings.clock, settings.mode));
        let views = Views::new(Arc::clone(&entries), Arc::clone(&counters));
        views.know(&settings.scopes);
        let framing = u32::try_from(settings.spool_bytes >> 10).unwrap_or(u32::MAX).max(1);
        Ok(Self {
            views,
            entries,
            counters,
            collected: Collected::new(settings.spool_bytes),
            budget: Mutex::new(Budget::new(settings.sharers)),
            bad: Mutex::default(),
            flushing: tokio::sync::Mutex::default(),
            framing: (Semaphore::new(framing as usize), framing),
            salts: (RandomState::new(), AtomicU64::new(0)),
            only_reads,
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

impl GhaRemote {
    /// Frames a result whose blobs have so many bytes and collects it, where there is room, at once or after
    /// what was collected before is uploaded.
    async fn collect(
        &self,
        name: &ResultName,
        record: &Record,
        (object, size): (ObjectName, u64),
        local: &dyn Backend,
    ) -> StoreResult<()> {
        self.make_room(size).await?;
        let (framing, most) = &self.framing;
        let share = u32::try_from(size >> 10).unwrap_or(u32::MAX).clamp(1, *most);
        let _turn = framing.acquire_many(share).await;
        let blobs = Self::local_blobs(&object, record, local).await?;
        let (named, record) = (name.clone(), record.clone());
        let framed = tokio::task::spawn_blocking(move || Framed::new(&named, &record, blobs))
            .await
            .map_err(|error| StoreError::Unavailable(error.to_string()))?
            .map_err(|_| StoreError::TooLarge { name: object, size })?;
        let mut waits = Some(framed);
        // Others came in between, each of them with room of its own.
        for _ in 0..ROUNDS {
            let Some(framed) = waits.take() else { return Ok(()) };
            self.make_room(framed.len()).await?;
            waits = self.collected.add(framed, self.now_ms(), self.salt());
        }
        match waits {
            None => Ok(()),
            Some(_) => Err(StoreError::Unavailable("too much is collected at once".into())),
        }
    }
}

#[async_trait]
impl Remote for GhaRemote {
    fn display(&self) -> String {
        "the GitHub Actions cache".into()
    }

    async fn lookup(&self, scopes: &[Scope], units: &[UnitKey]) -> StoreResult<Vec<Arrived>> {
        self.read_newest(scopes, units).await
    }

    async fn results(&self, names: &[ResultName]) -> StoreResult<Vec<Arrived>> {
        self.read_named(names).await
    }

    async fn blob(&self, digest: &Digest, size: u64) -> StoreResult<Option<Body>> {
        self.read_blob(digest, size).await
    }

    async fn blobs(&self, wanted: &[(Digest, u64)]) -> StoreResult<Vec<(Digest, Bytes)>> {
        self.read_blobs(wanted).await
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
                    && self.is_stored(pack, at.offset)
            });
            if there {
                return Ok(Stored::AlreadyThere);
            }
        }
        let size: u64 = record.blobs().iter().map(|(_, size)| size).sum();
        if size > limits::MAX_RESULT_BYTES {
            return Err(StoreError::TooLarge { name: object, size });
        }
        self.collect(name, record, (object, size), local).await?;
        self.upload_full_packs(&name.scope).await;
        Ok(Stored::Collected)
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

    /// An entry of the service is never changed, and others find what is in it.
    async fn take_back(&self, name: &ResultName) -> StoreResult<bool> {
        self.reject(name).await.map(|()| false)
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

    fn keeps_events(&self) -> KeepsEvents {
        KeepsEvents::AsEntries
    }

    fn refuses_events(&self) -> Option<String> {
        match self.entries.writable() {
            Err(CacheError::ReadOnly(why)) => Some(why),
            // Nothing is refused by what the token says; who reads a report before anything is sent is told.
            _ => self.only_reads.then(|| client::NO_WRITES.to_owned()),
        }
    }

    async fn put_events(&self, scope: &Scope, batch: &EventBatch) -> StoreResult<()> {
        Ok(self.write_events(scope, batch).await?)
    }

    async fn events(
        &self,
        scopes: &[Scope],
        run: &str,
        known: &KnownBatches,
    ) -> StoreResult<EventsThere> {
        Ok(self.read_events(scopes, run, known).await?)
    }

    fn counters(&self) -> RemoteCounters {
        self.counters.read()
    }
}
