//! [`Service`]: what all requests and background tasks share. It owns the parts and no logic.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use kiln_storage::Remote;
use tokio::sync::{Mutex, Notify, Semaphore, watch};

use crate::config::ServeConfig;
use crate::history::History;
use crate::http::body::Rooms;
use crate::index::Index;
use crate::ingest::Queue;
use crate::leases::Leases;
use crate::limits::{
    MAX_LEASE_QUESTIONS, MAX_LOGINS_AT_ONCE, MAX_REPORT_REQUESTS, MAX_REQUESTS, MAX_TRANSFERS,
    REPORTS_MADE_AT_ONCE,
};
use crate::log::Log;
use crate::metrics::Metrics;
use crate::pending::Pending;
use crate::principal::Policy;
use crate::remote::Edge;
use crate::reports::Reports;
use crate::scopes::Known;
use crate::store::Store;
use crate::trust::Trust;

/// A handle on the parts; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Service(Arc<Parts>);

/// The parts.
#[derive(Debug)]
pub(crate) struct Parts {
    /// The resolved configuration.
    pub config: ServeConfig,
    /// Where blobs and records are.
    pub store: Store,
    /// What is where.
    pub index: Index,
    /// What became of units, run by run.
    pub(crate) history: History,
    /// The log.
    pub log: Log,
    /// Who may ask for what.
    pub policy: Policy,
    /// The scopes that index and store know.
    pub(crate) scopes: Known,
    /// What is behind the server, if there is something.
    pub edge: Option<Edge>,
    /// Who compiles a unit while others wait for it.
    pub(crate) leases: Leases,
    /// Records that are being taken over.
    pub pending: Pending,
    /// Work of taking over.
    pub queue: Queue,
    /// Events that are not written yet.
    pub(crate) reports: Reports,
    /// What is counted for whoever watches. Shared, since what writes events counts them.
    pub(crate) metrics: Arc<Metrics>,
    /// Held while a record becomes visible, and while objects are evicted: nothing that is being
    /// published is evicted.
    pub commit: Arc<Mutex<()>>,
    /// Bytes that the store holds, near enough to know when to evict.
    pub held: AtomicU64,
    /// Wakes the eviction.
    pub grown: Notify,
    /// Whether the index holds all that the store holds.
    pub complete: watch::Sender<bool>,
    /// Whether the server is to leave.
    pub stop: watch::Sender<bool>,
    /// Whether a server that leaves sends first what waits to be sent.
    pub drains: AtomicBool,
    /// Requests worked on at once, but for blobs.
    pub turns: Semaphore,
    /// Requests for blobs worked on at once: slow uploads keep no lookup waiting.
    pub transfers: Semaphore,
    /// Turns of those that begin a session.
    pub logins: Semaphore,
    /// Room for large bodies.
    pub(crate) bodies: Arc<Rooms>,
    /// Requests about runs worked on at once.
    pub readers: Semaphore,
    /// Reports made at once.
    pub making: Semaphore,
    /// Questions for leases that are open at once: they wait for others, and keep nobody from work.
    pub questions: Semaphore,
    /// When it started.
    pub started: Instant,
}

impl Deref for Service {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl Service {
    /// The parts of a server, put together.
    pub(crate) fn new(
        config: ServeConfig,
        store: Store,
        (index, history): (Index, History),
        log: Log,
        (remote, trust): (Option<Arc<dyn Remote>>, Trust),
    ) -> Self {
        let uid = rustix::process::geteuid().as_raw();
        let edge = remote.map(|remote| Edge::new(remote, &config.remote));
        let policy = Policy::new(uid, config.tcp_scope.clone(), trust);
        Self(Arc::new(Parts {
            config,
            store,
            index,
            history,
            log,
            policy,
            scopes: Known::default(),
            edge,
            leases: Leases::default(),
            pending: Pending::default(),
            queue: Queue::default(),
            reports: Reports::default(),
            metrics: Arc::default(),
            commit: Arc::default(),
            held: AtomicU64::new(0),
            grown: Notify::new(),
            complete: watch::Sender::new(false),
            stop: watch::Sender::new(false),
            drains: AtomicBool::new(true),
            turns: Semaphore::new(MAX_REQUESTS),
            transfers: Semaphore::new(MAX_TRANSFERS),
            logins: Semaphore::new(MAX_LOGINS_AT_ONCE),
            bodies: Rooms::new(),
            readers: Semaphore::new(MAX_REPORT_REQUESTS),
            making: Semaphore::new(REPORTS_MADE_AT_ONCE),
            questions: Semaphore::new(MAX_LEASE_QUESTIONS),
            started: Instant::now(),
        }))
    }

    /// Makes the server leave.
    pub(crate) fn leave(&self) {
        self.stop.send_replace(true);
        self.leases.close();
    }

    /// Waits until the server is to leave.
    pub(crate) async fn leaving(&self) {
        let mut stop = self.stop.subscribe();
        // The sender lives as long as the parts.
        let _ = stop.wait_for(|stop| *stop).await;
    }

    /// Notes that the store holds more; wakes the eviction when that is too much.
    pub(crate) fn grow(&self, bytes: u64) {
        let held = self.held.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if self.config.cache_size.is_some_and(|budget| held > budget) {
            self.grown.notify_one();
        }
    }
}
