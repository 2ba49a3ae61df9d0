//! The numbered manifests of a scope as entries of the cache: what [`super::claim`] works on.

use std::sync::Arc;

use async_trait::async_trait;

use super::claim::Numbers;
use super::client::{CacheError, Deadline, Slot};
use super::entries::Entries;
use super::limits;
use super::manifest::{self, Manifest};
use super::transport::Counters;
use crate::key::Scope;

/// The manifests of one scope.
pub(super) struct ScopeNumbers<'a> {
    pub(super) entries: &'a Entries,
    pub(super) counters: &'a Arc<Counters>,
    pub(super) scope: &'a Scope,
}

impl ScopeNumbers<'_> {
    fn prefix(&self) -> String {
        format!("kiln-idx-{}-", self.scope.id())
    }

    fn key(&self, number: u64) -> String {
        format!("{}{number:0digits$}", self.prefix(), digits = limits::NUMBER_DIGITS)
    }
}

/// The number in a key that begins so.
pub(super) fn number_of(prefix: &str, key: &str) -> Option<u64> {
    let digits = key.strip_prefix(prefix)?;
    let shaped = digits.len() == limits::NUMBER_DIGITS;
    let number = digits.parse().ok().filter(|number| *number > 0);
    number.filter(|_| shaped && digits.bytes().all(|digit| digit.is_ascii_digit()))
}

#[async_trait]
impl Numbers for ScopeNumbers<'_> {
    async fn newest(&self, until: Deadline) -> Result<Option<u64>, CacheError> {
        let prefix = self.prefix();
        let found = self.entries.find(&prefix, until).await?;
        Ok(found.and_then(|found| number_of(&prefix, &found.key)))
    }

    async fn read(&self, number: u64, until: Deadline) -> Result<Option<Manifest>, CacheError> {
        if number > limits::MAX_NUMBER {
            return Ok(None);
        }
        let Some(bytes) = self.entries.read(&self.key(number), None, until).await? else {
            return Ok(None);
        };
        let manifest = manifest::decode(self.scope, number, bytes);
        if manifest.is_err() {
            self.counters.damaged();
        }
        Ok(manifest.ok())
    }

    async fn claim(&self, number: u64, until: Deadline) -> Result<Option<Slot>, CacheError> {
        if number > limits::MAX_NUMBER {
            return Err(CacheError::Unavailable("the index has no numbers left".into()));
        }
        self.entries.claim(&self.key(number), 0, until).await
    }

    async fn write(
        &self,
        number: u64,
        slot: &Slot,
        manifest: &Manifest,
        until: Deadline,
    ) -> Result<(), CacheError> {
        let bytes = manifest::encode(manifest, self.scope, number)
            .map_err(|error| CacheError::Unavailable(error.to_string()))?;
        self.entries.fill(&self.key(number), slot, bytes, until).await
    }
}
