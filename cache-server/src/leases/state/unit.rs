//! [`Unit`]: what is known of one unit: who has its lease, who waits, and how earlier leases ended. Called by
//! [`super`].

use std::collections::BTreeSet;
use std::time::Duration;

use kiln_storage::ResultKey;
use kiln_storage::api::{Holder, Lease, Waiter};
use kiln_storage::limits::{LEASE_GRACE, LEASE_MEMORY, MAX_LEASE_AGE, MAX_LEASE_FAILURES};
use kiln_storage::record::UnitName;

use super::super::id::LeaseId;
use super::{Asker, Ticket};
use crate::limits::{MAX_LEASE_RESULTS, MAX_SHOWN_WAITERS};

/// Somebody who compiles.
#[derive(Debug, Clone)]
pub(super) struct Holding {
    pub id: LeaseId,
    pub asker: Asker,
    pub since: Duration,
    /// When it was heard of last.
    pub heard: Duration,
    /// Questions of it that are open and say that it lives.
    pub open: u32,
    pub cpu_ms: u64,
    /// The question that waited and got the lease as its answer, until it is heard of.
    pub ticket: Option<Ticket>,
}

impl Holding {
    /// When it is lost unless it is heard of.
    fn due(&self) -> Duration {
        let oldest = self.since + MAX_LEASE_AGE;
        if self.open > 0 { oldest } else { oldest.min(self.heard + LEASE_GRACE) }
    }

    /// How long it has the lease.
    pub(super) fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.since)
    }

    /// As others are told of it.
    pub(super) fn shown(&self, now: Duration) -> Holder {
        let ms = |from: Duration| {
            u64::try_from(now.saturating_sub(from).as_millis()).unwrap_or(u64::MAX)
        };
        Holder {
            run: self.asker.run.clone(),
            job: self.asker.job.clone(),
            age_ms: ms(self.since),
            silent_ms: if self.open > 0 { 0 } else { ms(self.heard) },
            cpu_ms: self.cpu_ms,
        }
    }
}

/// Where the last question of somebody who waits is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Poll {
    Open(Ticket),
    /// It was answered then; the next one is to follow at once, and keeps its turn.
    Answered(Duration),
}

/// Somebody who waits.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub asker: Asker,
    pub known: Vec<ResultKey>,
    pub poll: Poll,
}

impl Waiting {
    /// Its question, while it is open.
    pub(super) fn open(&self) -> Option<Ticket> {
        match self.poll {
            Poll::Open(ticket) => Some(ticket),
            Poll::Answered(_) => None,
        }
    }

    /// No further question followed.
    pub(super) fn is_gone(&self, now: Duration) -> bool {
        matches!(self.poll, Poll::Answered(at) if now.saturating_sub(at) >= LEASE_GRACE)
    }
}

/// A unit that has a holder, or of which something is remembered.
#[derive(Debug, Clone, Default)]
pub(super) struct Unit {
    pub name: UnitName,
    pub holding: Option<Holding>,
    /// In the order they came.
    pub waiting: Vec<Waiting>,
    /// Open questions of those who look on, with the results that they are not told of.
    pub watching: Vec<(Ticket, Vec<ResultKey>)>,
    /// Results, the newest first, with when they were stored.
    pub stored: Vec<(ResultKey, Duration)>,
    /// Failures and losses since a result was stored.
    pub failures: u32,
    /// Waiting for it is of no use.
    pub free: bool,
    /// When what is remembered was learnt.
    pub learnt: Duration,
    /// Its time in the sets of [`super::State`].
    pub due: Option<Duration>,
}

impl Unit {
    /// When it is looked at again: its holder is lost then, or what is remembered forgotten.
    pub(super) fn next_due(&self) -> Duration {
        self.holding.as_ref().map_or(self.learnt + LEASE_MEMORY, Holding::due)
    }

    /// Whether anything is remembered.
    pub(super) fn is_remembered(&self, now: Duration) -> bool {
        let something = self.free || self.failures > 0 || !self.stored.is_empty();
        something && now.saturating_sub(self.learnt) < LEASE_MEMORY
    }

    /// Has somebody wait, behind all others or where it stood.
    pub(super) fn wait(&mut self, turn: Option<usize>, waiting: Waiting) {
        let at = turn.unwrap_or(self.waiting.len()).min(self.waiting.len());
        self.waiting.insert(at, waiting);
    }

    /// Takes out a question of somebody who looks on; whether it was one.
    pub(super) fn no_longer_watches(&mut self, ticket: Ticket) -> bool {
        let before = self.watching.len();
        self.watching.retain(|(watching, _)| *watching != ticket);
        self.watching.len() < before
    }

    /// A result that an asker is to be told of.
    pub(super) fn news(&self, known: &[ResultKey], now: Duration) -> Option<ResultKey> {
        let fresh = |at: &Duration| now.saturating_sub(*at) < LEASE_MEMORY;
        let mut stored = self.stored.iter().filter(|(_, at)| fresh(at));
        stored.find(|(result, _)| !known.contains(result)).map(|(result, _)| *result)
    }

    /// A result was stored.
    pub(super) fn stored(&mut self, result: ResultKey, now: Duration) {
        self.stored.retain(|(stored, _)| *stored != result);
        self.stored.insert(0, (result, now));
        self.stored.truncate(MAX_LEASE_RESULTS);
        self.failures = 0;
        self.learnt = now;
    }

    /// A compile failed, or its holder is lost.
    pub(super) fn failed(&mut self, now: Duration) {
        self.failures = self.failures.saturating_add(1);
        self.learnt = now;
        if self.failures >= MAX_LEASE_FAILURES {
            self.free = true;
        }
    }

    /// Its results cannot be stored.
    pub(super) fn not_stored(&mut self, now: Duration) {
        self.free = true;
        self.learnt = now;
    }

    /// As it is listed, with when the lease was given; none: nobody compiles it.
    pub(super) fn shown(&self, run: Option<&str>, now: Duration) -> Option<(Duration, Lease)> {
        let holding = self.holding.as_ref()?;
        let waiting = self.waiting.iter().filter(|waiting| !waiting.is_gone(now));
        let waiting = waiting.map(|waiting| (&waiting.asker.run, &waiting.asker.job));
        let of_run = |name: &String| run.is_none_or(|run| run == name);
        if !of_run(&holding.asker.run) && !waiting.clone().any(|(run, _)| of_run(run)) {
            return None;
        }
        let waiting: BTreeSet<_> = waiting.collect();
        let waiter = |(run, job): (&String, &String)| Waiter { run: run.clone(), job: job.clone() };
        let lease = Lease {
            unit: self.name.clone(),
            holder: holding.shown(now),
            waiting: waiting.into_iter().take(MAX_SHOWN_WAITERS).map(waiter).collect(),
        };
        Some((holding.since, lease))
    }
}
