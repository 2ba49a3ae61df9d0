//! [`Collected`]: what was stored and waits for a flush.
//!
//! Owns packs that are being filled, full ones, and what of them is uploaded and not in a manifest yet. In
//! memory, within the bound that the caller handed in. `flush` takes from it; nothing leaves it before it is
//! durable or told as lost.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::manifest::{Manifest, Note};
use super::pack::{Framed, Pack, PackBuilder, PackId};
use crate::key::{ResultKey, Scope};
use crate::remote::ResultName;

#[derive(Debug, Default)]
struct Pending {
    open: Option<PackBuilder>,
    closed: Vec<Pack>,
    /// What is uploaded or needs no pack, for the next manifest.
    mine: Manifest,
    names: HashMap<ResultKey, ResultName>,
}

impl Pending {
    fn bytes(&self) -> u64 {
        let closed: u64 = self.closed.iter().map(|pack| pack.index.bytes).sum();
        closed + self.open.as_ref().map_or(0, PackBuilder::len)
    }

    fn close(&mut self) {
        if let Some(open) = self.open.take().filter(|open| !open.is_empty()) {
            self.closed.push(open.finish());
        }
    }

    /// Whether a manifest has to be written.
    fn has_work(&self) -> bool {
        let open = self.open.as_ref().is_some_and(|open| !open.is_empty());
        open || !self.closed.is_empty()
            || !self.mine.packs.is_empty()
            || !self.mine.notes.is_empty()
    }
}

/// What waits for a flush.
#[derive(Debug)]
pub(super) struct Collected {
    most_bytes: u64,
    scopes: Mutex<BTreeMap<Scope, Pending>>,
}

impl Collected {
    pub(super) fn new(most_bytes: u64) -> Self {
        Self { most_bytes, scopes: Mutex::default() }
    }

    fn scopes(&self) -> MutexGuard<'_, BTreeMap<Scope, Pending>> {
        self.scopes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a result waits here.
    pub(super) fn has(&self, name: &ResultName) -> bool {
        let scopes = self.scopes();
        let pending = scopes.get(&name.scope).and_then(|pending| pending.names.get(&name.result));
        pending.is_some_and(|there| there.generation >= name.generation)
    }

    /// A result that waits here is no good: the next store of it is taken.
    pub(super) fn forget(&self, name: &ResultName) {
        if let Some(pending) = self.scopes().get_mut(&name.scope) {
            pending.names.remove(&name.result);
        }
    }

    /// The number of results that wait here.
    pub(super) fn len(&self) -> u64 {
        self.scopes().values().map(|pending| pending.names.len() as u64).sum()
    }

    /// Whether so many bytes more are within the bound.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        let held: u64 = self.scopes().values().map(Pending::bytes).sum();
        held.saturating_add(bytes) <= self.most_bytes
    }

    /// Takes a result in, or gives it back when there is no room for it.
    pub(super) fn add(&self, framed: Framed, now_ms: u64, salt: u64) -> Option<Framed> {
        let mut scopes = self.scopes();
        let held: u64 = scopes.values().map(Pending::bytes).sum();
        if held.saturating_add(framed.len()) > self.most_bytes {
            return Some(framed);
        }
        let pending = scopes.entry(framed.name.scope.clone()).or_default();
        if pending.open.as_ref().is_some_and(|open| open.is_full_for(framed.len())) {
            pending.close();
        }
        pending.names.insert(framed.name.result, framed.name.clone());
        pending.open.get_or_insert_with(|| PackBuilder::new(now_ms, salt)).push(framed, now_ms);
        None
    }

    /// A note for the next manifest.
    pub(super) fn add_note(&self, scope: &Scope, name: &str, note: Note) {
        let mut scopes = self.scopes();
        scopes.entry(scope.clone()).or_default().mine.notes.insert(name.to_owned(), note);
    }

    /// A note that is not in a manifest yet.
    pub(super) fn note(&self, scope: &Scope, name: &str) -> Option<Bytes> {
        self.scopes().get(scope)?.mine.notes.get(name).map(|note| note.text.clone())
    }

    /// Something that others should know of packs, with the next manifest of the scope if there is one.
    pub(super) fn tell(&self, scope: &Scope, tell: impl FnOnce(&mut Manifest)) {
        tell(&mut self.scopes().entry(scope.clone()).or_default().mine);
    }

    /// The scopes that have something to be flushed; their packs are closed.
    pub(super) fn close(&self) -> Vec<Scope> {
        let mut scopes = self.scopes();
        let working = scopes.iter_mut().filter(|(_, pending)| pending.has_work());
        working
            .map(|(scope, pending)| {
                pending.close();
                scope.clone()
            })
            .collect()
    }

    /// A pack to upload.
    pub(super) fn next_pack(&self, scope: &Scope) -> Option<Pack> {
        self.scopes().get(scope)?.closed.first().cloned()
    }

    /// A pack was uploaded, perhaps under another name.
    pub(super) fn uploaded(&self, scope: &Scope, before: &PackId, pack: &Pack) {
        let mut scopes = self.scopes();
        let Some(pending) = scopes.get_mut(scope) else { return };
        pending.closed.retain(|closed| closed.id != *before);
        pending.mine.packs.insert(pack.id, pack.index.clone().into());
    }

    /// What the next manifest has to have.
    pub(super) fn mine(&self, scope: &Scope) -> Manifest {
        self.scopes().get(scope).map(|pending| pending.mine.clone()).unwrap_or_default()
    }

    /// This is in a manifest now. The number of results.
    pub(super) fn published(&self, scope: &Scope, mine: &Manifest) -> u64 {
        let mut scopes = self.scopes();
        let Some(pending) = scopes.get_mut(scope) else { return 0 };
        pending.mine.packs.retain(|id, _| !mine.packs.contains_key(id));
        pending.mine.gone.retain(|id, _| !mine.gone.contains_key(id));
        pending.mine.dead.retain(|dead| !mine.dead.contains(dead));
        pending.mine.notes.retain(|name, note| mine.notes.get(name) != Some(note));
        let mut stored = 0;
        for at in mine.packs.values().flat_map(|index| &index.results) {
            let name = pending.names.get(&at.result);
            if name.is_some_and(|name| name.generation == at.generation) {
                pending.names.remove(&at.result);
                stored += 1;
            }
        }
        stored
    }

    /// Gives everything up. The results that were in it.
    pub(super) fn give_up(&self) -> Vec<ResultName> {
        let scopes = std::mem::take(&mut *self.scopes());
        let mut names: Vec<_> =
            scopes.into_values().flat_map(|pending| pending.names.into_values()).collect();
        names.sort_unstable();
        names
    }
}
