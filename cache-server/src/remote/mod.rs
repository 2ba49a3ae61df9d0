//! What is behind a server: a place far away that is asked when nothing is here (`through`, `fetch`),
//! gets what is made here (`outbox`), from which is fetched ahead what a job used last time
//! (`ahead`, `prefetch`), and which knows who compiles what, where it is a Kiln server (`leases`).
//!
//! The server's own store stays the only thing that wrappers read. Whatever is wrong with the remote, the
//! server answers from what it has: `breaker` says when the remote is left alone.

pub(crate) mod ahead;
pub(crate) mod asked;
pub(crate) mod batches;
pub(crate) mod breaker;
pub(crate) mod earlier;
pub(crate) mod events;
pub(crate) mod fetch;
pub(crate) mod flights;
pub(crate) mod leases;
pub(crate) mod open;
pub(crate) mod outbox;
pub(crate) mod prefetch;
mod ready;
pub(crate) mod stall;
pub(crate) mod through;
pub(crate) mod together;
pub(crate) mod unsent;
pub mod url;
pub(crate) mod ways;

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::http::HeaderMap;
use kiln_storage::api::RemoteStatus;
use kiln_storage::limits::MAX_HOPS;
use kiln_storage::remote::via::{self, Onward};
use kiln_storage::{Remote, Scope, StoreError};
use tokio::sync::Semaphore;

use crate::clock;
use crate::config::RemoteConfig;
use crate::error::ApiError;
use crate::index;
use crate::limits::{REMOTE_FAULTS, REMOTE_FETCHES};
use crate::log::Log;
use crate::service::Service;

use asked::Asked;
use breaker::{Breaker, FaultKind, Told};

/// The remote of a server and all that is known of it.
#[derive(Debug)]
pub(crate) struct Edge {
    /// The remote.
    pub remote: Arc<dyn Remote>,
    /// The scopes there that are read; the first is written.
    pub scopes: Vec<Scope>,
    /// Whether results are sent.
    pub sends: bool,
    /// A name that no other server has.
    pub id: String,
    reads: Mutex<Breaker>,
    writes: Mutex<Breaker>,
    told: Mutex<Told>,
    /// Results in a row that were waited for in vain, while no blob came.
    late: AtomicU32,
    asked: Mutex<Asked>,
    flights: flights::Flights,
    lanes: Semaphore,
    outbox: outbox::Outbox,
    /// Events on their way there.
    pub(crate) events: events::Outgoing,
    ahead: ahead::Ahead,
    /// Questions for leases that are passed on.
    leases: leases::PassedOn,
    counts: Counts,
    /// Faults since the server started.
    pub(crate) faults: AtomicU64,
}

/// What happened since the server started.
#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    lost: AtomicU64,
    arrived: AtomicU64,
    damaged: AtomicU64,
    /// What the remote counted as damaged when that was told last.
    damaged_there: AtomicU64,
    lost_why: Mutex<Option<String>>,
}

/// Reading from the remote, or writing to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Reads,
    Writes,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn count(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

impl Edge {
    /// A remote that was not asked so far.
    pub(crate) fn new(remote: Arc<dyn Remote>, config: &RemoteConfig) -> Self {
        Self {
            remote,
            scopes: config.scopes.clone(),
            sends: config.sends,
            id: format!("{:016x}", RandomState::new().build_hasher().finish()),
            reads: Mutex::default(),
            writes: Mutex::default(),
            told: Mutex::default(),
            late: AtomicU32::new(0),
            asked: Mutex::default(),
            flights: flights::Flights::default(),
            lanes: Semaphore::new(REMOTE_FETCHES),
            outbox: outbox::Outbox::default(),
            events: events::Outgoing::default(),
            ahead: ahead::Ahead::default(),
            leases: leases::PassedOn::default(),
            counts: Counts::default(),
            faults: AtomicU64::new(0),
        }
    }

    /// The scope there that is written.
    pub(crate) fn own_scope(&self) -> Scope {
        self.scopes.first().cloned().unwrap_or_else(|| Scope::new("", ""))
    }

    fn side(&self, side: Side) -> MutexGuard<'_, Breaker> {
        match side {
            Side::Reads => lock(&self.reads),
            Side::Writes => lock(&self.writes),
        }
    }

    /// Whether it may be asked now.
    fn may(&self, side: Side) -> bool {
        self.side(side).may_ask(Instant::now())
    }

    /// It answered.
    fn good(&self, side: Side) {
        self.side(side).good();
    }

    /// It failed: counted, and told once.
    fn fault(&self, log: &Log, side: Side, kind: FaultKind, why: &str) {
        if matches!(kind, FaultKind::ReadOnly | FaultKind::Loop) {
            return self.leave_alone(log, side, kind, why);
        }
        self.failed(log, (side, kind), why, |breaker, now| {
            breaker.fault(kind, now);
        });
    }

    /// It is left alone for a while, whatever came before: told once.
    fn leave_alone(&self, log: &Log, side: Side, kind: FaultKind, why: &str) {
        self.failed(log, (side, kind), why, |breaker, now| breaker.pause(kind, now));
    }

    fn failed(
        &self,
        log: &Log,
        (side, kind): (Side, FaultKind),
        why: &str,
        note: impl FnOnce(&mut Breaker, Instant),
    ) {
        count(&self.faults, 1);
        let why = self.without_place(why);
        let mut breaker = self.side(side);
        note(&mut breaker, Instant::now());
        breaker.because(why);
        drop(breaker);
        self.tell(log, kind, why);
    }

    /// What a question goes on with to what is behind the server; none: it is answered with what is here. One that
    /// came from there means that it leads nowhere to ask there at all.
    pub(crate) fn via(&self, log: &Log, headers: &HeaderMap) -> Option<String> {
        let header = headers.get(via::HEADER).and_then(|value| value.to_str().ok());
        match via::on(header, &self.id) {
            Onward::Through(through) => return Some(through),
            Onward::Circle => {
                let why = "servers are behind one another in a circle: one of them has to have nothing behind it";
                self.fault(log, Side::Reads, FaultKind::Loop, why);
            }
            // Others, that came through fewer servers, are asked there.
            Onward::TooFar => {
                let why = format!("they came through {MAX_HOPS} servers, one behind the other");
                self.tell(log, FaultKind::Far, &why);
            }
        }
        None
    }

    /// Blobs came.
    fn came(&self) {
        self.late.store(0, Ordering::Relaxed);
        self.good(Side::Reads);
    }

    /// Somebody waited for blobs in vain. Answers to other questions, which may be quick all the time, do not
    /// make up for that: after a few of these it is left alone.
    fn late(&self, log: &Log, why: &str) {
        self.fault(log, Side::Reads, FaultKind::Slow, why);
        if self.late.fetch_add(1, Ordering::Relaxed) + 1 >= REMOTE_FAULTS {
            self.side(Side::Reads).pause(FaultKind::Slow, Instant::now());
        }
    }

    /// A text about the remote without its name, which is said anyway.
    fn without_place<'a>(&self, why: &'a str) -> &'a str {
        let rest = why.strip_prefix(&self.remote.display());
        rest.and_then(|rest| rest.strip_prefix(": ")).unwrap_or(why)
    }

    /// Tells of what the remote itself found damaged and did not hand on since it was asked last.
    fn tell_damaged(&self, log: &Log) {
        let now = self.remote.counters().damaged;
        let before = self.counts.damaged_there.fetch_max(now, Ordering::Relaxed);
        if now > before {
            let why = format!("{} answers are not believed", now - before);
            self.tell(log, FaultKind::Damaged, &why);
        }
    }

    /// Writes a line about a fault, unless one of its kind was written of late.
    fn tell(&self, log: &Log, kind: FaultKind, why: &str) {
        let line = format!("remote {}: {}", self.remote.display(), kind.says(why));
        if lock(&self.told).tells(kind, Instant::now()) {
            log.warn(format_args!("{line}"));
        } else {
            log.debug(format_args!("{line}"));
        }
    }
}

/// What a failure of a remote means, and its text for the log.
fn kind_of(error: &StoreError) -> (FaultKind, String) {
    match error {
        StoreError::Unavailable(why) => (FaultKind::Unreachable, why.clone()),
        StoreError::ReadOnly(why) => (FaultKind::ReadOnly, why.clone()),
        StoreError::Damaged { .. } => (FaultKind::Damaged, error.to_string()),
        StoreError::TooLarge { .. } => (FaultKind::Refused, error.to_string()),
        StoreError::Refused(why) => (FaultKind::Refused, why.clone()),
    }
}

/// What is to be said of the remote of a server, if it has one.
///
/// # Errors
/// What the index fails with.
pub(crate) async fn status(service: &Service) -> Result<Option<RemoteStatus>, ApiError> {
    let Some(edge) = &service.edge else { return Ok(None) };
    let waiting = service.index.read(index::outbox::waiting).await?;
    let now = Instant::now();
    let (reachable, left_alone, fault) = {
        let reads = edge.side(Side::Reads);
        let writes = edge.side(Side::Writes);
        let answers = |last: Result<(), FaultKind>| {
            !matches!(last, Err(FaultKind::Unreachable | FaultKind::Slow))
        };
        let last = [reads.last(), writes.last()];
        let reachable = last.iter().flatten().map(|last| answers(*last)).reduce(|a, b| a && b);
        let left_alone = reads.left_alone(now).and_then(|_| reads.words());
        (reachable, left_alone, reads.words().or_else(|| writes.words()))
    };
    let not_sending = match edge.sends {
        false => Some("KILN_MODE=read".to_owned()),
        true => {
            let writes = edge.side(Side::Writes);
            writes.left_alone(now).and_then(|_| writes.words())
        }
    };
    let counters = edge.remote.counters();
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (ahead_bytes, ahead_used_bytes) = edge.ahead.bytes();
    Ok(Some(RemoteStatus {
        place: edge.remote.display(),
        reachable,
        left_alone,
        not_sending,
        events_stay: edge.refuses_events(),
        fault,
        queued: waiting.count,
        packing: edge.ahead.is_packing(),
        queued_bytes: waiting.bytes,
        oldest_ms: waiting.oldest_ms.map(|at| clock::now_ms().saturating_sub(at)),
        sent: read(&edge.counts.sent),
        lost: read(&edge.counts.lost),
        lost_why: lock(&edge.counts.lost_why).clone(),
        arrived: read(&edge.counts.arrived),
        damaged: read(&edge.counts.damaged) + counters.damaged,
        requests: counters.requests,
        bytes_in: counters.bytes_in,
        bytes_out: counters.bytes_out,
        ahead_bytes,
        ahead_used_bytes,
    }))
}
