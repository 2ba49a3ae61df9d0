//! [`MemoryRemote`]: a [`Remote`] in memory that does what a test tells it: fails, lies, holds its answers
//! back until it is let go, and counts every call. Called by the tests of the server.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use crate::backend::{Backend, Body, StoreError, StoreResult};
use crate::digest::Digest;
use crate::key::{ObjectName, Scope, UnitKey};
use crate::limits;
use crate::record::Record;
use crate::remote::{Arrived, Flushed, Remote, RemoteCounters, ResultName, Stored};

/// What goes wrong with every call, until something else is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteFault {
    /// It cannot be reached.
    Unavailable,
    /// Reads work, writes do not.
    ReadOnly,
    /// Blobs come with other bytes of the same length.
    Lies,
    /// Records are there, blobs are not.
    NoBlobs,
    /// Records are there, blobs never come.
    NeverBlobs,
}

/// Calls of a remote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Calls {
    /// [`Remote::lookup`].
    pub lookups: u64,
    /// Units asked for in them.
    pub units: u64,
    /// [`Remote::results`].
    pub results: u64,
    /// [`Remote::blob`].
    pub blobs: u64,
    /// [`Remote::store`].
    pub stores: u64,
    /// [`Remote::flush`].
    pub flushes: u64,
    /// [`Remote::reject`].
    pub rejects: u64,
    /// [`Remote::note`].
    pub notes: u64,
    /// [`Remote::put_note`].
    pub put_notes: u64,
}

#[derive(Debug, Default)]
struct Held {
    results: BTreeMap<(Scope, UnitKey), Vec<(ResultName, Record)>>,
    blobs: HashMap<Digest, Bytes>,
    notes: BTreeMap<(Scope, String), Bytes>,
    collected: Vec<ResultName>,
    fault: Option<RemoteFault>,
    collects: bool,
    keeps_scopes: bool,
    inline_bytes: u64,
    calls: Calls,
    order: Vec<Digest>,
}

/// A remote in memory.
#[derive(Debug)]
pub struct MemoryRemote {
    held: Mutex<Held>,
    gate: watch::Sender<bool>,
}

impl Default for MemoryRemote {
    fn default() -> Self {
        Self { held: Mutex::default(), gate: watch::Sender::new(true) }
    }
}

impl MemoryRemote {
    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What goes wrong from now on; none: nothing.
    pub fn set_fault(&self, fault: Option<RemoteFault>) {
        self.held().fault = fault;
    }

    /// Whether stores only collect until a flush.
    pub fn set_collects(&self, collects: bool) {
        self.held().collects = collects;
    }

    /// Whether it is as a bucket, which the server asks for scopes of others.
    pub fn set_keeps_scopes(&self, keeps_scopes: bool) {
        self.held().keeps_scopes = keeps_scopes;
    }

    /// Largest blob that comes along with its record, bytes; 0: none does.
    pub fn set_inline_bytes(&self, bytes: u64) {
        self.held().inline_bytes = bytes;
    }

    /// Makes every call wait from now on.
    pub fn close(&self) {
        self.gate.send_replace(false);
    }

    /// Lets all that waits go, and what comes.
    pub fn open(&self) {
        self.gate.send_replace(true);
    }

    /// The calls so far.
    pub fn calls(&self) -> Calls {
        self.held().calls
    }

    /// The blobs in the order they were asked for.
    pub fn order(&self) -> Vec<Digest> {
        self.held().order.clone()
    }

    /// The names of all results that are there.
    pub fn names(&self) -> Vec<ResultName> {
        let held = self.held();
        held.results.values().flatten().map(|(name, _)| name.clone()).collect()
    }

    /// Puts a result there.
    pub fn put(&self, scope: &Scope, record: &Record, blobs: &[&[u8]]) -> ResultName {
        let name = ResultName {
            scope: scope.clone(),
            unit: record.unit_key,
            result: record.result_key,
            generation: 0,
        };
        let mut held = self.held();
        held.blobs.extend(blobs.iter().map(|b| (Digest::of(b), Bytes::copy_from_slice(b))));
        let of_unit = held.results.entry((scope.clone(), record.unit_key)).or_default();
        of_unit.insert(0, (name.clone(), record.clone()));
        name
    }

    /// Waits for the gate; then whether the call fails.
    async fn call(&self, count: impl FnOnce(&mut Calls), writes: bool) -> StoreResult<()> {
        count(&mut self.held().calls);
        let mut gate = self.gate.subscribe();
        let _ = gate.wait_for(|open| *open).await;
        match self.held().fault {
            Some(RemoteFault::Unavailable) => Err(StoreError::Unavailable("told to fail".into())),
            Some(RemoteFault::ReadOnly) if writes => {
                Err(StoreError::ReadOnly("told to take no writes".into()))
            }
            _ => Ok(()),
        }
    }

    fn arrived(held: &Held, name: &ResultName, record: &Record) -> Arrived {
        let small = record.blobs().into_iter().filter(|(_, size)| *size <= held.inline_bytes);
        let blobs =
            small.filter_map(|(digest, _)| Some((digest, held.blobs.get(&digest)?.clone())));
        Arrived { name: name.clone(), record: record.clone(), blobs: blobs.collect(), stored_ms: 1 }
    }

    fn bytes(&self, digest: &Digest) -> Option<Bytes> {
        let mut held = self.held();
        held.order.push(*digest);
        let bytes = held.blobs.get(digest)?.clone();
        match held.fault {
            Some(RemoteFault::NoBlobs) => None,
            Some(RemoteFault::Lies) => Some(bytes.iter().map(|byte| byte ^ 1).collect()),
            _ => Some(bytes),
        }
    }
}

#[async_trait]
impl Remote for MemoryRemote {
    fn display(&self) -> String {
        "a remote in memory".into()
    }

    fn keeps_scopes(&self) -> bool {
        self.held().keeps_scopes
    }

    fn counts_generations(&self) -> bool {
        self.held().keeps_scopes
    }

    async fn lookup(&self, scopes: &[Scope], units: &[UnitKey]) -> StoreResult<Vec<Arrived>> {
        let count = |calls: &mut Calls| {
            calls.lookups += 1;
            calls.units += units.len() as u64;
        };
        self.call(count, false).await?;
        let held = self.held();
        let mut found = Vec::new();
        for unit in units {
            let of_unit = scopes.iter().filter_map(|s| held.results.get(&(s.clone(), *unit)));
            let of_unit = of_unit.flatten().take(limits::MAX_RECORDS_PER_UNIT);
            found.extend(of_unit.map(|(name, record)| Self::arrived(&held, name, record)));
        }
        Ok(found)
    }

    async fn results(&self, names: &[ResultName]) -> StoreResult<Vec<Arrived>> {
        self.call(|calls| calls.results += 1, false).await?;
        let held = self.held();
        let all = held.results.values().flatten();
        let named = all.filter(|(name, _)| names.iter().any(|n| n.result == name.result));
        Ok(named.map(|(name, record)| Self::arrived(&held, name, record)).collect())
    }

    async fn blob(&self, digest: &Digest, _size: u64) -> StoreResult<Option<Body>> {
        self.call(|calls| calls.blobs += 1, false).await?;
        let never = self.held().fault == Some(RemoteFault::NeverBlobs);
        if never {
            std::future::pending::<()>().await;
        }
        Ok(self.bytes(digest).map(Body::Bytes))
    }

    async fn store(
        &self,
        name: &ResultName,
        record: &Record,
        local: &dyn Backend,
    ) -> StoreResult<Stored> {
        self.call(|calls| calls.stores += 1, true).await?;
        let mut blobs = Vec::new();
        for (digest, size) in record.blobs() {
            let object = ObjectName::blob(&digest);
            let absent = || StoreError::Damaged { name: object.clone(), why: "not here".into() };
            let body = local.get(&object).await?.ok_or_else(absent)?;
            blobs.push((digest, body.into_bytes(&object, size).await?));
        }
        let mut held = self.held();
        held.blobs.extend(blobs);
        let collects = held.collects;
        let of_unit = held.results.entry((name.scope.clone(), name.unit)).or_default();
        if of_unit.iter().any(|(there, _)| there == name) {
            return Ok(Stored::AlreadyThere);
        }
        of_unit.retain(|(there, _)| there.result != name.result);
        of_unit.insert(0, (name.clone(), record.clone()));
        if collects {
            held.collected.push(name.clone());
            return Ok(Stored::Collected);
        }
        Ok(Stored::Durable)
    }

    async fn flush(&self, _within: Duration) -> StoreResult<Flushed> {
        self.call(|calls| calls.flushes += 1, true).await?;
        let stored = std::mem::take(&mut self.held().collected).len() as u64;
        Ok(Flushed { stored, lost: Vec::new() })
    }

    async fn reject(&self, name: &ResultName) -> StoreResult<()> {
        self.call(|calls| calls.rejects += 1, true).await?;
        let mut held = self.held();
        held.results.values_mut().for_each(|of_unit| of_unit.retain(|(there, _)| there != name));
        Ok(())
    }

    async fn note(&self, scopes: &[Scope], name: &str) -> StoreResult<Option<Bytes>> {
        self.call(|calls| calls.notes += 1, false).await?;
        let held = self.held();
        Ok(scopes.iter().find_map(|s| held.notes.get(&(s.clone(), name.to_owned())).cloned()))
    }

    async fn put_note(&self, scope: &Scope, name: &str, text: Bytes) -> StoreResult<()> {
        self.call(|calls| calls.put_notes += 1, true).await?;
        self.held().notes.insert((scope.clone(), name.to_owned()), text);
        Ok(())
    }

    fn counters(&self) -> RemoteCounters {
        let Calls { lookups, results, blobs, stores, flushes, rejects, notes, put_notes, .. } =
            self.calls();
        let requests = lookups + results + blobs + stores + flushes + rejects + notes + put_notes;
        RemoteCounters { requests, ..RemoteCounters::default() }
    }
}
