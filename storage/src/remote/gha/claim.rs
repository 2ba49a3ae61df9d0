//! Reading the manifests of a scope, and adding one: the protocol between writers that do not know of each
//! other.
//!
//! The service gives little: a key can be claimed once, which is decided at once for all; what was finished
//! is found some time later; a claim that is never finished blocks its key for ever. So a writer never waits
//! for another one: it claims the next number that is free, takes in whatever it can read of the numbers
//! before, and writes down which ones it could not. Whoever reads that manifest asks for those too. Nothing
//! here does I/O or knows of HTTP: [`Numbers`] does, and the tests stand in for it.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use async_trait::async_trait;

use super::client::{CacheError, Deadline, Slot};
use super::clock::Clock;
use super::limits;
use super::manifest::Manifest;

/// The numbered manifests of one scope.
#[async_trait]
pub trait Numbers: Send + Sync {
    /// The number of the entry that was finished last, as far as lookups know.
    async fn newest(&self, until: Deadline) -> Result<Option<u64>, CacheError>;

    /// The manifest of a number; `None` when there is none (yet), or none that can be believed.
    async fn read(&self, number: u64, until: Deadline) -> Result<Option<Manifest>, CacheError>;

    /// Claims a number; `None` when it is taken.
    async fn claim(&self, number: u64, until: Deadline) -> Result<Option<Slot>, CacheError>;

    /// Writes and finishes the manifest of a claimed number.
    async fn write(
        &self,
        number: u64,
        slot: &Slot,
        manifest: &Manifest,
        until: Deadline,
    ) -> Result<(), CacheError>;
}

/// All that is to be found, on top of what is known.
///
/// # Errors
/// [`CacheError`]: it is not known what is there.
pub async fn read_all(
    numbers: &dyn Numbers,
    clock: &dyn Clock,
    known: &Manifest,
    until: Deadline,
) -> Result<Manifest, CacheError> {
    let mut all = known.clone();
    let mut reader = Reader { numbers, clock, until, asked: BTreeSet::new() };
    if let Some(newest) = numbers.newest(until).await?
        && !all.seen.has(newest)
        && !reader.take(newest, &mut all).await?
    {
        // It was found and cannot be read: the ones below have most of it.
        for back in 1..=limits::STEPS_BACK.min(newest.saturating_sub(1)) {
            if all.seen.has(newest - back) || reader.take(newest - back, &mut all).await? {
                break;
            }
        }
        all.seen.miss(newest, clock.now_ms());
    }
    reader.follow(&mut all).await?;
    Ok(all)
}

/// Writes a manifest with all that is to be found and all of `mine`, under a number of its own. What it is.
///
/// # Errors
/// [`CacheError`]: it is not certain that anybody will see `mine`.
pub async fn publish(
    numbers: &dyn Numbers,
    clock: &dyn Clock,
    (known, mine): (&Manifest, &Manifest),
    until: Deadline,
) -> Result<Manifest, CacheError> {
    let until = until.min(Deadline::after(clock, limits::CLAIM_WITHIN));
    let mut all = read_all(numbers, clock, known, until).await?;
    let (number, slot) = claim_new(numbers, clock, &mut all, until).await?;
    poll(numbers, clock, &mut all, until).await?;
    let mut mine = mine.clone();
    mine.outlive_notes(&all, clock.now_ms());
    all.merge(&mine);
    all.seen.add(number, clock.now_ms());
    all.prune(clock.now_ms());
    numbers.write(number, &slot, &all, until).await?;
    Ok(all)
}

/// Claims a number that nobody had before. The first free one may be that of a manifest that others took in
/// before it was evicted, when too little was found: nobody would read another one of that number.
async fn claim_new(
    numbers: &dyn Numbers,
    clock: &dyn Clock,
    all: &mut Manifest,
    until: Deadline,
) -> Result<(u64, Slot), CacheError> {
    for _ in 0..limits::MAX_REUSED {
        let claimed = claim_next(numbers, clock, all, until).await?;
        let mut reader = Reader { numbers, clock, until, asked: BTreeSet::new() };
        if let Some(newest) = numbers.newest(until).await?
            && !all.seen.has(newest)
        {
            reader.take(newest, all).await?;
            reader.missing(all).await?;
        }
        if !all.seen.has(claimed.0) {
            return Ok(claimed);
        }
    }
    Err(CacheError::Unavailable("no new number was found for the index".into()))
}

/// Claims the first free number. Those that are taken meanwhile are missing.
async fn claim_next(
    numbers: &dyn Numbers,
    clock: &dyn Clock,
    all: &mut Manifest,
    until: Deadline,
) -> Result<(u64, Slot), CacheError> {
    for conflicts in 1..=limits::MAX_CLAIMS {
        if until.over(clock) {
            break;
        }
        let number = all.seen.high() + 1;
        if let Some(slot) = numbers.claim(number, until).await? {
            return Ok((number, slot));
        }
        all.seen.miss(number, clock.now_ms());
        // Now and then: whoever is far behind need not try every number.
        if conflicts.is_power_of_two()
            && let Some(newest) = numbers.newest(until).await?
            && !all.seen.has(newest)
        {
            let mut reader = Reader { numbers, clock, until, asked: BTreeSet::new() };
            reader.take(newest, all).await?;
        }
    }
    Err(CacheError::Unavailable("no free number was found for the index".into()))
}

/// Takes in what others are writing now, for a bounded time.
async fn poll(
    numbers: &dyn Numbers,
    clock: &dyn Clock,
    all: &mut Manifest,
    until: Deadline,
) -> Result<(), CacheError> {
    for round in 0..=limits::POLLS {
        let mut reader = Reader { numbers, clock, until, asked: BTreeSet::new() };
        reader.missing(all).await?;
        let recent = limits::POLL_RECENT.as_millis() as u64;
        let now = clock.now_ms();
        let waits = all.seen.missing().values().any(|at| at.saturating_add(recent) > now);
        // Enough is left for the writing itself.
        if !waits || round == limits::POLLS || until.left(clock) < limits::POLL_WAIT * 4 {
            break;
        }
        clock.sleep(limits::POLL_WAIT).await;
    }
    Ok(())
}

struct Reader<'a> {
    numbers: &'a dyn Numbers,
    clock: &'a dyn Clock,
    until: Deadline,
    /// What was asked for already.
    asked: BTreeSet<u64>,
}

impl Reader<'_> {
    /// Merges the manifest of a number; whether there was one.
    async fn take(&mut self, number: u64, all: &mut Manifest) -> Result<bool, CacheError> {
        let first = self.asked.insert(number);
        if !first || self.asked.len() > limits::MAX_MANIFEST_READS as usize {
            return Ok(false);
        }
        let Some(manifest) = self.numbers.read(number, self.until).await? else {
            return Ok(false);
        };
        all.merge(&manifest);
        all.seen.add(number, self.clock.now_ms());
        Ok(true)
    }

    /// Takes in the numbers that are known to be missing, and those that they miss.
    async fn missing(&mut self, all: &mut Manifest) -> Result<(), CacheError> {
        loop {
            let next = all.seen.missing().keys().rev().find(|n| !self.asked.contains(n)).copied();
            match next {
                Some(number) if self.asked.len() < limits::MAX_MANIFEST_READS as usize => {
                    self.take(number, all).await?
                }
                _ => return Ok(()),
            };
        }
    }

    /// Takes in the missing ones, and those behind the highest one that is known.
    async fn follow(&mut self, all: &mut Manifest) -> Result<(), CacheError> {
        self.missing(all).await?;
        let mut in_vain = 0;
        // Nothing at all: there is no use in guessing.
        while all.seen.high() > 0 && in_vain < limits::PROBES_IN_VAIN {
            in_vain += 1;
            if self.take(all.seen.high() + in_vain, all).await? {
                in_vain = 0;
                self.missing(all).await?;
            }
        }
        Ok(())
    }
}
