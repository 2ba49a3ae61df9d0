//! [`Remote`]: a place far away that keeps whole results, for the server that stands before it.
//!
//! A [`crate::Backend`] keeps objects and is asked for one at a time; what is far away is paid for by the
//! request, so a remote is asked for results: a record with its small blobs in one answer. The server keeps
//! what it got in its own disk store and verifies every blob as it writes it there; a remote only has to
//! check what it unpacks itself. Nothing here knows of the index, of queues or of retries over minutes: a
//! remote makes one bounded attempt (with the retries of its own protocol) and says what came of it.
//!
//! Implementations: results as objects of any backend, the GitHub Actions cache, another Kiln
//! server.

pub mod absent;
pub mod collect;
pub mod events;
pub mod get;
pub mod gha;
pub mod kiln;
pub mod lease;
pub mod objects;
pub mod pack;
pub mod squeeze;
pub mod tls;
pub mod together;
mod uses;
pub mod via;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::backend::{Backend, Body, StoreResult};
use crate::digest::Digest;
use crate::key::{ResultKey, Scope, UnitKey};
use crate::limits::MAX_RECORDS_PER_UNIT;
use crate::record::Record;
use events::{EventBatch, EventsThere, KeepsEvents, KnownBatches, Page};
use lease::KnowsLeases;
use together::{Incoming, PackName, ToWrite, Written};

/// Names one stored result: enough to ask for it again without looking its unit up.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct ResultName {
    /// Where it is seen.
    pub scope: Scope,
    /// The unit.
    pub unit: UnitKey,
    /// The result.
    pub result: ResultKey,
    /// Counts up when a damaged one is replaced.
    pub generation: u32,
}

/// A result that came from afar. The record passed [`Record::check`] and is the one of its name.
#[derive(Debug, Clone)]
pub struct Arrived {
    /// Its name there.
    pub name: ResultName,
    /// The record.
    pub record: Record,
    /// Blobs that came along, each one named by the record and verified. The others are to be had by
    /// [`Remote::blob`].
    pub blobs: Vec<(Digest, Bytes)>,
    /// When it was stored, milliseconds since 1970, as far as the remote knows.
    pub stored_ms: u64,
}

/// Who asks for units, and what is known there.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asking<'a> {
    /// Results of the units that do not hold where it is asked: others are wanted, from as far away as need be.
    pub known: &'a [ResultKey],
    /// Results of the first unit that would hold.
    pub results: &'a [ResultKey],
}

/// What there is of some units.
#[derive(Debug, Clone, Default)]
pub struct Answered {
    /// Results, as [`Remote::lookup`] has them.
    pub arrived: Vec<Arrived>,
    /// The place has another one behind itself that it did not ask: it does so when it is told what is known.
    pub farther: bool,
}

/// What storing a result did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// It is there now, for everybody.
    Durable,
    /// It was there already.
    AlreadyThere,
    /// It is collected, and there after the next [`Remote::flush`].
    Collected,
}

/// What a flush could not do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flushed {
    /// Results that became durable.
    pub stored: u64,
    /// Results that are lost: not stored and no longer kept. With the reason for people.
    pub lost: Vec<(ResultName, String)>,
}

/// What a remote did so far, for logs, reports and tests. Only counts up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RemoteCounters {
    /// Requests sent, retries included.
    pub requests: u64,
    /// Requests that were sent again.
    pub retries: u64,
    /// Bytes of bodies received.
    pub bytes_in: u64,
    /// Bytes of bodies sent.
    pub bytes_out: u64,
    /// Entries that were damaged or belonged elsewhere, and were treated as absent.
    pub damaged: u64,
    /// Milliseconds that were waited because the place wants it so: that is no silence of it. Counted as they pass.
    pub asked_to_wait_ms: u64,
}

/// A place far away that keeps results.
///
/// Errors are those of [`crate::StoreError`]: `Unavailable` (try again later), `ReadOnly` (takes no writes
/// now: no right, full, over its rate). What is damaged is absent. All methods may be called at once from
/// many tasks and by many processes on one place.
#[async_trait]
pub trait Remote: Send + Sync + fmt::Debug {
    /// The place, for people; never with a credential.
    fn display(&self) -> String;

    /// The newest results of units, at most [`MAX_RECORDS_PER_UNIT`] for each, newest first
    /// within a unit, from the scopes in the order given. A unit without results is missing from the
    /// answer.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn lookup(&self, scopes: &[Scope], units: &[UnitKey]) -> StoreResult<Vec<Arrived>>;

    /// The same, with what it may help to know. A place that stands before another one passes the question on;
    /// all others keep this default.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn ask(
        &self,
        scopes: &[Scope],
        units: &[UnitKey],
        asking: Asking<'_>,
    ) -> StoreResult<Answered> {
        let mut arrived = self.lookup(scopes, units).await?;
        let Asking { results, known } = asking;
        let expected = arrived.iter().any(|one| results.contains(&one.name.result));
        let of_unit = |unit| arrived.iter().filter(|one| one.name.unit == unit).count();
        // Fewer are all that there are.
        let left_out = |unit| of_unit(unit).max(known.len()) >= MAX_RECORDS_PER_UNIT;
        if let Some(unit) = units.first().filter(|unit| !expected && left_out(**unit))
            && !results.is_empty()
        {
            let name = |scope: &Scope, result: &ResultKey| ResultName {
                scope: scope.clone(),
                unit: *unit,
                result: *result,
                generation: 0,
            };
            let names = scopes.iter().flat_map(|s| results.iter().map(move |r| name(s, r)));
            arrived.extend(self.results(&names.collect::<Vec<_>>()).await?);
        }
        Ok(Answered { arrived, farther: false })
    }

    /// Results by name, those that are there, in no order.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn results(&self, names: &[ResultName]) -> StoreResult<Vec<Arrived>>;

    /// The bytes of a blob that a record of this remote names. Not verified.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn blob(&self, digest: &Digest, size: u64) -> StoreResult<Option<Body>>;

    /// Many small blobs at once: those that come in one answer, verified. What is missing from it is to be
    /// had by [`Remote::blob`]. Places without such an answer keep this default.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn blobs(&self, wanted: &[(Digest, u64)]) -> StoreResult<Vec<(Digest, Bytes)>> {
        let _ = wanted;
        Ok(Vec::new())
    }

    /// Stores a result: its blobs, read from `local`, then the record. Nobody sees the record before all
    /// blobs are there.
    ///
    /// # Errors
    /// `Unavailable`, `ReadOnly`; `TooLarge` for what it never takes; `Damaged` when `local` has not got a
    /// blob of the record: the result cannot be stored.
    async fn store(
        &self,
        name: &ResultName,
        record: &Record,
        local: &dyn Backend,
    ) -> StoreResult<Stored>;

    /// Makes everything durable that was collected, within a time. What is not done then stays collected
    /// unless it is told as lost.
    ///
    /// # Errors
    /// `Unavailable`, `ReadOnly`: nothing was lost, it can be tried again.
    async fn flush(&self, within: Duration) -> StoreResult<Flushed>;

    /// A stored result proved damaged: forget what is kept of it in this process, and take it away there if
    /// the place allows that. The next store of it gets a new generation.
    ///
    /// # Errors
    /// `Unavailable`, `ReadOnly`.
    async fn reject(&self, name: &ResultName) -> StoreResult<()>;

    /// A result is to be had by nobody any more, for whom it came from: takes it away there for good, in every
    /// generation. Whether it is gone for everybody; the next store of it gets a new generation.
    ///
    /// # Errors
    /// `Unavailable`, `ReadOnly`.
    async fn take_back(&self, name: &ResultName) -> StoreResult<bool> {
        self.reject(name).await.map(|()| true)
    }

    /// The newest note of a name in the first scope that has one: a small text that writers replace, such
    /// as what a job used last time.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn note(&self, scopes: &[Scope], name: &str) -> StoreResult<Option<Bytes>>;

    /// Replaces a note. Of two writers at once, one wins.
    ///
    /// # Errors
    /// `Unavailable`, `ReadOnly`.
    async fn put_note(&self, scope: &Scope, name: &str, text: Bytes) -> StoreResult<()>;

    /// Packs that a note names, as they arrive; those that are not there, or cannot be read, are left out.
    /// Places without packs keep this default, and the two below.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn packs(&self, packs: &[PackName]) -> StoreResult<Vec<Incoming>> {
        let _ = packs;
        Ok(Vec::new())
    }

    /// Writes new packs of what is in `local`. Ends early at the bounds, and where the place fails: what is written
    /// till then is told.
    async fn put_packs(&self, what: &ToWrite<'_>, local: &dyn Backend) -> Written {
        let _ = (what, local);
        Written::default()
    }

    /// Deletes packs of a note that it names no more, unless they are young: somebody may be about to name
    /// them.
    ///
    /// # Errors
    /// `Unavailable`, `ReadOnly`.
    async fn keep_packs(&self, scope: &Scope, note: &str, keep: &[PackName]) -> StoreResult<()> {
        let _ = (scope, note, keep);
        Ok(())
    }

    /// Whether it keeps packs.
    fn has_packs(&self) -> bool {
        false
    }

    /// What it does with events. Places that keep none keep this default, and the four below.
    fn keeps_events(&self) -> KeepsEvents {
        KeepsEvents::No
    }

    /// Why it takes no events, where that is known without asking it.
    fn refuses_events(&self) -> Option<String> {
        None
    }

    /// Keeps events for reports. The same again changes nothing.
    ///
    /// # Errors
    /// `Unavailable`, `ReadOnly`; `TooLarge` for what it never takes.
    async fn put_events(&self, scope: &Scope, batch: &EventBatch) -> StoreResult<()> {
        let _ = (scope, batch);
        Ok(())
    }

    /// The events of a run that are kept there (as objects or entries) and are not known by the names of their
    /// batches. What is damaged is left out.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn events(
        &self,
        scopes: &[Scope],
        run: &str,
        known: &KnownBatches,
    ) -> StoreResult<EventsThere> {
        let _ = (scopes, run, known);
        Ok(EventsThere::default())
    }

    /// What a server ([`KeepsEvents::AsServer`]) answers for a path below `/v1/runs`; none: it knows of no such run.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn told_of_runs(&self, path: &str) -> StoreResult<Option<Page>> {
        let _ = path;
        Ok(None)
    }

    /// Whether each scope there is apart by its name, for whoever asks with the same rights: what is stored in one is
    /// given for no other.
    fn keeps_scopes(&self) -> bool {
        false
    }

    /// Whether results come with the generation that they were stored under, so that one that was rejected is told from
    /// one that was stored after it.
    fn counts_generations(&self) -> bool {
        false
    }

    /// Who compiles what, where the place knows it.
    fn leases(&self) -> Option<&dyn KnowsLeases> {
        None
    }

    /// What it did so far.
    fn counters(&self) -> RemoteCounters;
}
