//! [`Views`]: the manifests of the scopes that were asked for, in memory and ready for lookups.
//!
//! Owns how often a manifest is read again. A scope that cannot be reached is not asked for again for a
//! while: lookups then go by what is known, or fail at once.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::claim::read_all;
use super::client::{CacheError, Deadline, Span};
use super::entries::Entries;
use super::limits;
use super::manifest::Manifest;
use super::numbers::ScopeNumbers;
use super::pack::{BlobId, PackId, ResultAt};
use super::transport::Counters;
use crate::digest::Digest;
use crate::key::{ResultKey, Scope, UnitKey};

/// A manifest with ways into it.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) manifest: Manifest,
    units: HashMap<UnitKey, Vec<(PackId, ResultAt)>>,
    /// The copies of each blob, the best one first.
    blobs: HashMap<BlobId, Vec<Place>>,
}

/// Where a blob lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) pack: PackId,
    pub(super) span: Span,
    pub(super) raw: bool,
}

impl View {
    fn new(manifest: Manifest) -> Self {
        let mut view = Self { manifest, ..Self::default() };
        let mut newest: Vec<_> = view.manifest.packs.iter().collect();
        newest.sort_by_key(|(id, index)| Reverse((index.created_ms, **id)));
        let mut damaged = Vec::new();
        for (id, index) in newest {
            let mut dead = Vec::new();
            for at in &index.results {
                if view.manifest.dead.contains(&(*id, at.offset)) {
                    dead.push(at.whole());
                } else {
                    view.units.entry(at.unit).or_default().push((*id, *at));
                }
            }
            for at in &index.blobs {
                let inside =
                    |dead: &Span| dead.offset <= at.span.offset && at.span.end() <= dead.end();
                let place = Place { pack: *id, span: at.span, raw: at.raw };
                if dead.iter().any(inside) {
                    damaged.push((at.blob, place));
                } else {
                    view.blobs.entry(at.blob).or_default().push(place);
                }
            }
        }
        // What lies with a damaged result may be whole: it is tried last.
        for (blob, place) in damaged {
            view.blobs.entry(blob).or_default().push(place);
        }
        view.units.values_mut().for_each(|results| newest_first(results));
        view
    }

    /// The results of a unit, newest first.
    pub(super) fn unit(&self, unit: &UnitKey) -> &[(PackId, ResultAt)] {
        self.units.get(unit).map_or(&[], Vec::as_slice)
    }

    /// Where a blob lies, the best place first.
    pub(super) fn blob(&self, digest: &Digest) -> &[Place] {
        self.blobs.get(&BlobId::of(digest)).map_or(&[], Vec::as_slice)
    }
}

impl View {
    /// The result with whose frames a span of a pack lies.
    pub(super) fn result_around(&self, pack: &PackId, span: Span) -> Option<&ResultAt> {
        let results = &self.manifest.packs.get(pack)?.results;
        results.iter().find(|at| at.offset <= span.offset && span.end() <= at.whole().end())
    }
}

/// Results by their newest copy; copies of one result by generation.
fn newest_first(results: &mut [(PackId, ResultAt)]) {
    let mut newest: HashMap<ResultKey, u64> = HashMap::new();
    for (_, at) in &*results {
        let stored_ms = newest.entry(at.result).or_default();
        *stored_ms = at.stored_ms.max(*stored_ms);
    }
    results.sort_by_key(|(id, at)| {
        let newest = newest.get(&at.result).copied();
        Reverse((newest, at.result, at.generation, at.stored_ms, *id))
    });
}

#[derive(Debug, Default)]
struct Known {
    view: Option<Arc<View>>,
    read_ms: u64,
    /// Until when it is not asked for again, and why.
    failed: Option<(u64, CacheError)>,
}

/// The views of scopes.
#[derive(Debug)]
pub(super) struct Views {
    entries: Arc<Entries>,
    counters: Arc<Counters>,
    scopes: Mutex<HashMap<Scope, Arc<tokio::sync::Mutex<Known>>>>,
}

impl Views {
    pub(super) fn new(entries: Arc<Entries>, counters: Arc<Counters>) -> Self {
        Self { entries, counters, scopes: Mutex::default() }
    }

    /// Scopes are looked through for blobs from when they are known.
    pub(super) fn know(&self, scopes: &[Scope]) {
        for scope in scopes {
            self.known(scope);
        }
    }

    fn known(&self, scope: &Scope) -> Arc<tokio::sync::Mutex<Known>> {
        let mut scopes = self.scopes.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(scopes.entry(scope.clone()).or_default())
    }

    /// The scopes that are known.
    pub(super) fn scopes(&self) -> Vec<Scope> {
        let scopes = self.scopes.lock().unwrap_or_else(PoisonError::into_inner);
        scopes.keys().cloned().collect()
    }

    /// The view of a scope, read again when it is old. One task reads, the others wait for it.
    pub(super) async fn get(&self, scope: &Scope) -> Result<Arc<View>, CacheError> {
        if !self.entries.reads() {
            return Ok(Arc::default());
        }
        let clock = &*self.entries.clock;
        let known = self.known(scope);
        let mut known = known.lock().await;
        let now = clock.now_ms();
        if let Some(view) = &known.view
            && now < known.read_ms + limits::MANIFEST_MAX_AGE.as_millis() as u64
        {
            return Ok(Arc::clone(view));
        }
        if let Some((until_ms, error)) = &known.failed
            && now < *until_ms
        {
            return known.view.clone().ok_or_else(|| error.clone());
        }
        let nothing = Manifest::default();
        let before = known.view.as_ref().map_or(&nothing, |view| &view.manifest);
        let numbers = ScopeNumbers { entries: &self.entries, counters: &self.counters, scope };
        let until = Deadline::after(clock, limits::READ_WITHIN);
        match read_all(&numbers, clock, before, until).await {
            Ok(manifest) => {
                let changed = known.view.as_ref().is_none_or(|view| view.manifest != manifest);
                if changed {
                    known.view = Some(Arc::new(View::new(manifest)));
                }
                known.read_ms = clock.now_ms();
                known.failed = None;
                Ok(known.view.clone().unwrap_or_default())
            }
            Err(error) => {
                let time = match &error {
                    CacheError::RateLimited(time) => limits::MANIFEST_RETRY_AFTER.max(*time),
                    _ => limits::MANIFEST_RETRY_AFTER,
                };
                let time = time.min(limits::MAX_RETRY_AFTER).as_millis() as u64;
                known.failed = Some((clock.now_ms() + time, error.clone()));
                known.view.clone().ok_or(error)
            }
        }
    }

    /// What is known of a scope, without asking.
    pub(super) async fn now(&self, scope: &Scope) -> Arc<View> {
        let known = self.known(scope);
        let view = known.lock().await.view.clone();
        view.unwrap_or_default()
    }

    /// This was just written.
    pub(super) async fn set(&self, scope: &Scope, manifest: Manifest) {
        let known = self.known(scope);
        let mut known = known.lock().await;
        known.view = Some(Arc::new(View::new(manifest)));
        known.read_ms = self.entries.clock.now_ms();
        known.failed = None;
    }
}
