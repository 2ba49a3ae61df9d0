//! [`AbsentRemote`]: stands for a place that cannot be reached by any request, because of what it was
//! told: it says why, whatever it is asked. So a server runs on without it, and shows the reason where it
//! shows the state of every place behind it.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Arrived, Flushed, Remote, RemoteCounters, ResultName, Stored};
use crate::backend::{Backend, Body, StoreError, StoreResult};
use crate::digest::Digest;
use crate::key::{Scope, UnitKey};
use crate::record::Record;

/// A place that is never there.
#[derive(Debug, Clone)]
pub struct AbsentRemote {
    shown: String,
    why: String,
}

impl AbsentRemote {
    /// The place for people, and why it cannot be reached; neither with a credential.
    pub fn new(shown: impl Into<String>, why: impl Into<String>) -> Self {
        Self { shown: shown.into(), why: why.into() }
    }

    fn answer<T>(&self) -> StoreResult<T> {
        Err(StoreError::Unavailable(self.why.clone()))
    }
}

#[async_trait]
impl Remote for AbsentRemote {
    fn display(&self) -> String {
        self.shown.clone()
    }

    async fn lookup(&self, _: &[Scope], _: &[UnitKey]) -> StoreResult<Vec<Arrived>> {
        self.answer()
    }

    async fn results(&self, _: &[ResultName]) -> StoreResult<Vec<Arrived>> {
        self.answer()
    }

    async fn blob(&self, _: &Digest, _: u64) -> StoreResult<Option<Body>> {
        self.answer()
    }

    async fn store(&self, _: &ResultName, _: &Record, _: &dyn Backend) -> StoreResult<Stored> {
        self.answer()
    }

    async fn flush(&self, _: Duration) -> StoreResult<Flushed> {
        self.answer()
    }

    async fn reject(&self, _: &ResultName) -> StoreResult<()> {
        self.answer()
    }

    async fn note(&self, _: &[Scope], _: &str) -> StoreResult<Option<Bytes>> {
        self.answer()
    }

    async fn put_note(&self, _: &Scope, _: &str, _: Bytes) -> StoreResult<()> {
        self.answer()
    }

    fn counters(&self) -> RemoteCounters {
        RemoteCounters::default()
    }
}
