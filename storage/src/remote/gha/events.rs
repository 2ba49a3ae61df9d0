//! Events in the GitHub cache: an entry for each batch, numbered within its run, since nothing there can be listed.
//!
//! A writer claims the first number that is free: claims are decided at once for all. A reader asks for every
//! number up to the newest that is found, and some beyond: what was finished last need not be the highest. A number
//! that was claimed and never finished is passed by, and what is not found yet is found by the next who asks.

use futures_util::stream::{self, StreamExt as _};

use super::client::{CacheError, Deadline};
use super::{GhaRemote, limits};
use crate::entry;
use crate::key::{ObjectName, Scope};
use crate::remote::events::{EventBatch, EventsThere, KnownBatches};
use crate::remote::objects::layout::run_id;

/// Digits of a number.
const DIGITS: usize = 6;

fn prefix(scope: &Scope, run: &str) -> String {
    format!("kiln-run-{}-{}-", scope.id(), run_id(run))
}

fn key(prefix: &str, number: u64) -> String {
    format!("{prefix}{number:0DIGITS$}")
}

impl GhaRemote {
    /// The number of the batch of a run that was finished last, as far as that is found.
    async fn newest_batch(&self, prefix: &str, until: Deadline) -> Result<u64, CacheError> {
        let found = self.entries.find(prefix, until).await?;
        let number = found.and_then(|found| found.key.strip_prefix(prefix)?.parse().ok());
        Ok(number.filter(|number| *number <= limits::MAX_RUN_ENTRIES).unwrap_or(0))
    }

    pub(super) async fn write_events(
        &self,
        scope: &Scope,
        batch: &EventBatch,
    ) -> Result<(), CacheError> {
        self.entries.writable()?;
        let unwritten = || CacheError::Unavailable("events cannot be written".into());
        let text = serde_json::to_vec(batch).map_err(|_| unwritten())?;
        let until = Deadline::after(&*self.entries.clock, limits::EVENTS_WITHIN);
        self.entry_of_share(until).await?;
        let prefix = prefix(scope, &batch.run);
        let first = self.newest_batch(&prefix, until).await? + 1;
        for number in first..=limits::MAX_RUN_ENTRIES {
            let key = key(&prefix, number);
            let name: ObjectName = key.parse().map_err(|_| unwritten())?;
            let frame = entry::encode(&name, &text).map_err(|_| unwritten())?;
            if let Some(slot) = self.entries.claim(&key, frame.len() as u64, until).await? {
                return self.entries.fill(&key, &slot, frame.into(), until).await;
            }
        }
        Err(CacheError::Unavailable("the run has no numbers left for events".into()))
    }

    pub(super) async fn read_events(
        &self,
        scopes: &[Scope],
        run: &str,
        known: &KnownBatches,
    ) -> Result<EventsThere, CacheError> {
        let until = Deadline::after(&*self.entries.clock, limits::EVENTS_WITHIN);
        let mut there = EventsThere::default();
        for scope in scopes.iter().filter(|_| self.entries.reads()) {
            let prefix = prefix(scope, run);
            let newest = self.newest_batch(&prefix, until).await?;
            if newest == 0 {
                continue;
            }
            let mut last = newest;
            let mut number = 1;
            // What is found beyond is followed.
            while number <= last.saturating_add(limits::EVENTS_BEYOND).min(limits::MAX_RUN_ENTRIES)
            {
                let to = last.saturating_add(limits::EVENTS_BEYOND).min(limits::MAX_RUN_ENTRIES);
                let keys = (number..=to).map(|number| (number, key(&prefix, number)));
                let reads =
                    keys.filter(|(_, key)| !known.contains(key)).map(|(number, key)| async move {
                        (number, self.read_batch(&key, run, until).await, key)
                    });
                let read: Vec<_> =
                    stream::iter(reads).buffered(limits::READS_AT_A_TIME).collect().await;
                for (number, batch, key) in read {
                    if let Some(batch) = batch? {
                        last = last.max(number);
                        there.batches.push((key, batch));
                    }
                }
                let known_beyond = (number..=to).filter(|n| known.contains(&key(&prefix, *n)));
                last = known_beyond.max().unwrap_or(0).max(last);
                number = to + 1;
            }
        }
        Ok(there)
    }

    /// One batch; none: it is not there, or not what its name says.
    async fn read_batch(
        &self,
        key: &str,
        run: &str,
        until: Deadline,
    ) -> Result<Option<EventBatch>, CacheError> {
        let Some(bytes) = self.entries.read(key, None, until).await? else { return Ok(None) };
        let name: Option<ObjectName> = key.parse().ok();
        let text = name.and_then(|name| entry::decode(&name, bytes).ok());
        let batch = text.and_then(|text| serde_json::from_slice(&text.into_bytes()).ok());
        let batch: Option<EventBatch> = batch.filter(|batch: &EventBatch| batch.run == run);
        if batch.is_none() {
            self.counters.damaged();
        }
        Ok(batch)
    }
}
