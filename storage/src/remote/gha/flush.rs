//! Flushing: packs are uploaded, then one manifest a scope says where they are.
//!
//! Within a time and within the share of new entries. What is not done then stays collected, and the flush is
//! an error that says how much that is. The entry of the manifest is taken from the share first: packs without
//! one are of no use.

use std::time::Duration;

use super::GhaRemote;
use super::claim::publish;
use super::client::{CacheError, Deadline};
use super::numbers::ScopeNumbers;
use super::pack::Pack;
use crate::key::Scope;
use crate::remote::Flushed;

/// Salts under which a pack is tried: its key can be blocked by a claim whose answer was lost.
const SALTS: u32 = 3;

/// Longest time that uploading ahead of a flush may take.
const AHEAD_TIME: Duration = Duration::from_secs(60);

/// Entries of the share that are left for the flush.
const MANIFEST_AND_PACK: usize = 2;

/// Longest part of a flush's time that is kept for the manifest.
const MANIFEST_TIME: Duration = Duration::from_secs(15);

impl GhaRemote {
    /// Makes durable what was collected.
    pub(super) async fn flush_all(&self, within: Duration) -> Result<Flushed, CacheError> {
        let _one_at_a_time = self.flushing.lock().await;
        let clock = &*self.entries.clock;
        let until = Deadline::after(clock, within);
        let packs_until = Deadline::after(clock, within - MANIFEST_TIME.min(within / 4));
        let mut flushed = Flushed::default();
        let mut failed = None;
        for scope in self.collected.close() {
            let (stored, error) = self.flush_scope(&scope, packs_until, until).await;
            flushed.stored += stored;
            failed = failed.or(error);
        }
        match failed {
            None => Ok(flushed),
            Some(CacheError::ReadOnly(why)) => {
                let lost = self.collected.give_up();
                flushed.lost = lost.into_iter().map(|name| (name, why.clone())).collect();
                Ok(flushed)
            }
            // Whoever is told that all is well forgets what it handed over: some of it is not done.
            Some(error) => {
                let (stored, left) = (flushed.stored, self.collected.len());
                let account = format!("{stored} results are stored, {left} are not yet: {error}");
                Err(CacheError::Unavailable(account))
            }
        }
    }

    /// Uploads packs that are full, ahead of the next flush, where that needs no waiting for a share. What
    /// goes wrong is for the flush.
    pub(super) async fn upload_full_packs(&self, scope: &Scope) {
        if self.collected.next_pack(scope).is_none() {
            return;
        }
        let Ok(_one_at_a_time) = self.flushing.try_lock() else { return };
        let _ = self.upload_ahead(scope).await;
    }

    /// Has room for so many bytes more: waits for what is being uploaded, then uploads what is collected, full
    /// packs or not.
    ///
    /// # Errors
    /// What the upload failed with; `ReadOnly` when the share of new entries is used up.
    pub(super) async fn make_room(&self, bytes: u64) -> Result<(), CacheError> {
        if self.collected.has_room(bytes) {
            return Ok(());
        }
        let _one_at_a_time = self.flushing.lock().await;
        if self.collected.has_room(bytes) {
            return Ok(());
        }
        for scope in self.collected.close() {
            self.upload_ahead(&scope).await?;
        }
        match self.collected.has_room(bytes) {
            true => Ok(()),
            false => Err(CacheError::ReadOnly(
                "what is collected fills its bound, and no new entries are left in this minute"
                    .into(),
            )),
        }
    }

    /// Uploads closed packs as long as the share of new entries has some that the flush does not need.
    async fn upload_ahead(&self, scope: &Scope) -> Result<(), CacheError> {
        let until = Deadline::after(&*self.entries.clock, AHEAD_TIME);
        while let Some(pack) = self.collected.next_pack(scope) {
            if !self.budget().has_more_than(MANIFEST_AND_PACK, self.now_ms()) {
                return Ok(());
            }
            let uploaded = self.upload(&pack, until).await?;
            self.collected.uploaded(scope, &pack.id, &uploaded);
        }
        Ok(())
    }

    /// The number of results that are durable now, and what went wrong with the others.
    async fn flush_scope(
        &self,
        scope: &Scope,
        packs_until: Deadline,
        until: Deadline,
    ) -> (u64, Option<CacheError>) {
        if let Err(error) = self.entry_of_share(packs_until).await {
            return (0, Some(error));
        }
        let uploaded = self.upload_packs(scope, packs_until).await;
        if let Err(CacheError::ReadOnly(_)) = uploaded {
            return (0, uploaded.err());
        }
        let mine = self.collected.mine(scope);
        if mine.is_empty() {
            return (0, uploaded.err());
        }
        let known = self.views.now(scope).await;
        let clock = &*self.entries.clock;
        let numbers = ScopeNumbers { entries: &self.entries, counters: &self.counters, scope };
        match publish(&numbers, clock, (&known.manifest, &mine), until).await {
            Ok(all) => {
                self.views.set(scope, all).await;
                (self.collected.published(scope, &mine), uploaded.err())
            }
            Err(error) => (0, Some(error)),
        }
    }

    async fn upload_packs(&self, scope: &Scope, until: Deadline) -> Result<(), CacheError> {
        while let Some(pack) = self.collected.next_pack(scope) {
            let uploaded = self.upload(&pack, until).await?;
            self.collected.uploaded(scope, &pack.id, &uploaded);
        }
        Ok(())
    }

    async fn upload(&self, pack: &Pack, until: Deadline) -> Result<Pack, CacheError> {
        let mut pack = pack.clone();
        for _ in 0..SALTS {
            self.entry_of_share(until).await?;
            let key = pack.id.key();
            if let Some(slot) = self.entries.claim(&key, pack.index.bytes, until).await? {
                match self.entries.fill(&key, &slot, pack.bytes.clone(), until).await {
                    Ok(()) => return Ok(pack),
                    // The address of the claim is over, and there is no other one.
                    Err(CacheError::Expired) => {}
                    Err(error) => return Err(error),
                }
            }
            pack = pack.salted(self.salt());
        }
        Err(CacheError::Unavailable("a pack could not be uploaded under any name".into()))
    }

    /// Waits until the share of new entries has one more, if that is within the time.
    pub(super) async fn entry_of_share(&self, until: Deadline) -> Result<(), CacheError> {
        let clock = &*self.entries.clock;
        loop {
            let taken = self.budget().take(clock.now_ms());
            match taken {
                Ok(()) => return Ok(()),
                Err(wait) if wait < until.left(clock) => {
                    self.counters.wait_as_asked(clock, wait).await;
                }
                Err(wait) => return Err(CacheError::RateLimited(wait)),
            }
        }
    }
}
