//! What a server counts for whoever watches it: [`Metrics`] as things happen, [`Readings`] when it is asked, and both
//! as text in the format of Prometheus. Nothing that a build names is a label, so there are as many series as
//! [`ALL`] says. Pure but for the counting.
//!
//! docs/metrics.md lists them and deploy/grafana.json draws them; tests hold both against [`ALL`]. Called by
//! [`crate::routes::metrics`].

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kiln_storage::api::{Event, Outcome, RemoteStatus};

use crate::leases::Figures;
use crate::tally::is_hit;

/// How a metric behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Name, kind, and what it tells.
type Definition = (&'static str, Kind, &'static str);

const INFO: Definition = ("kiln_info", Kind::Gauge, "1; `version` and `role` are labels.");
const UPTIME: Definition = ("kiln_uptime_seconds", Kind::Gauge, "Since the server started.");
const UNITS: Definition = (
    "kiln_units_total",
    Kind::Counter,
    "Units that builds reported, by `outcome`: hit-local, hit-remote, joined, miss, bypass, error.",
);
const SAVED: Definition = (
    "kiln_saved_cpu_seconds_total",
    Kind::Counter,
    "Processor time that the hits cost when they were compiled.",
);
const COMPILED: Definition = (
    "kiln_compiled_seconds_total",
    Kind::Counter,
    "Wall time of the compiles of misses and errors.",
);
const LOOKUP: Definition = (
    "kiln_lookup_duration_seconds",
    Kind::Histogram,
    "From a lookup to its answer, waiting for a remote included.",
);
const SENT: Definition = (
    "kiln_blob_sent_bytes_total",
    Kind::Counter,
    "Bytes of blobs in answers; what is read from the store's files is not in it.",
);
const RECEIVED: Definition = (
    "kiln_blob_received_bytes_total",
    Kind::Counter,
    "Bytes of blobs taken from builds: sent, or offered as files.",
);
const STORE: Definition = ("kiln_store_bytes", Kind::Gauge, "Bytes that the store holds.");
const BUDGET: Definition = (
    "kiln_store_budget_bytes",
    Kind::Gauge,
    "Bytes that it may hold; missing where nothing bounds it.",
);
const RESULTS: Definition = ("kiln_store_results", Kind::Gauge, "Results that the store holds.");
const BLOBS: Definition = ("kiln_store_blobs", Kind::Gauge, "Blobs that the store holds.");
const OLDEST: Definition = (
    "kiln_store_oldest_use_seconds",
    Kind::Gauge,
    "Age of the use of the result that was used least recently; missing while there is none.",
);
const RUNS: Definition = ("kiln_runs", Kind::Gauge, "Runs that reports are kept of.");
const JOBS: Definition = ("kiln_jobs", Kind::Gauge, "Jobs of these runs.");
const LEASES: Definition =
    ("kiln_leases", Kind::Gauge, "Units that one job compiles and others wait for, or may.");
const LEASE_WAITERS: Definition =
    ("kiln_lease_waiters", Kind::Gauge, "Questions for leases that wait for another's compile.");
const LEASE_ANSWERS: Definition = (
    "kiln_lease_answers_total",
    Kind::Counter,
    "Answers to questions for leases, by `answer`: granted, held, stored, free.",
);
const LEASES_LOST: Definition = (
    "kiln_leases_lost_total",
    Kind::Counter,
    "Leases whose holder was gone, or had it for too long.",
);
const QUEUED: Definition =
    ("kiln_outbox_results", Kind::Gauge, "Results that wait to be sent to the remote.");
const QUEUED_BYTES: Definition = ("kiln_outbox_bytes", Kind::Gauge, "Bytes in them.");
const QUEUED_AGE: Definition = (
    "kiln_outbox_oldest_seconds",
    Kind::Gauge,
    "Age of the oldest of them; 0 while there is none.",
);
const REMOTE_SENT: Definition =
    ("kiln_remote_results_sent_total", Kind::Counter, "Results sent to the remote.");
const REMOTE_LOST: Definition = (
    "kiln_remote_results_lost_total",
    Kind::Counter,
    "Results that were not sent and wait no longer.",
);
const REMOTE_ARRIVED: Definition =
    ("kiln_remote_results_arrived_total", Kind::Counter, "Results that came from the remote.");
const REMOTE_DAMAGED: Definition =
    ("kiln_remote_damaged_total", Kind::Counter, "What came from the remote and was not believed.");
const REMOTE_REQUESTS: Definition = (
    "kiln_remote_requests_total",
    Kind::Counter,
    "Requests to the remote, repeated ones included.",
);
const REMOTE_FAULTS: Definition = (
    "kiln_remote_faults_total",
    Kind::Counter,
    "Requests that failed for good, and answers that came too late.",
);
const REMOTE_IN: Definition =
    ("kiln_remote_received_bytes_total", Kind::Counter, "Bytes that came from the remote.");
const REMOTE_OUT: Definition =
    ("kiln_remote_sent_bytes_total", Kind::Counter, "Bytes that went to the remote.");
const REMOTE_UP: Definition = (
    "kiln_remote_up",
    Kind::Gauge,
    "1: it answered when it was asked last; missing while it was not asked.",
);

/// Every metric. Those of the outbox and the remote are missing where nothing is behind the server.
#[cfg(test)]
pub(crate) const ALL: [Definition; 31] = [
    INFO,
    UPTIME,
    UNITS,
    SAVED,
    COMPILED,
    LOOKUP,
    SENT,
    RECEIVED,
    STORE,
    BUDGET,
    RESULTS,
    BLOBS,
    OLDEST,
    RUNS,
    JOBS,
    LEASES,
    LEASE_WAITERS,
    LEASE_ANSWERS,
    LEASES_LOST,
    QUEUED,
    QUEUED_BYTES,
    QUEUED_AGE,
    REMOTE_SENT,
    REMOTE_LOST,
    REMOTE_ARRIVED,
    REMOTE_DAMAGED,
    REMOTE_REQUESTS,
    REMOTE_FAULTS,
    REMOTE_IN,
    REMOTE_OUT,
    REMOTE_UP,
];

/// Upper bounds of the times of lookups, microseconds.
const LOOKUP_BOUNDS_US: [u64; 14] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000,
];

const OUTCOMES: [(Outcome, &str); 6] = [
    (Outcome::HitLocal, "hit-local"),
    (Outcome::HitRemote, "hit-remote"),
    (Outcome::Joined, "joined"),
    (Outcome::Miss, "miss"),
    (Outcome::Bypass, "bypass"),
    (Outcome::Error, "error"),
];

/// Counters, since the server started.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    outcomes: [AtomicU64; OUTCOMES.len()],
    saved_cpu_ms: AtomicU64,
    compiled_ms: AtomicU64,
    lookups: [AtomicU64; LOOKUP_BOUNDS_US.len() + 1],
    lookups_us: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

fn add(to: &AtomicU64, more: u64) {
    to.fetch_add(more, Ordering::Relaxed);
}

fn get(of: &AtomicU64) -> u64 {
    of.load(Ordering::Relaxed)
}

impl Metrics {
    /// Counts an event that is new.
    pub(crate) fn event(&self, event: &Event) {
        let at = OUTCOMES.iter().position(|(outcome, _)| *outcome == event.outcome);
        if let Some(counter) = at.and_then(|at| self.outcomes.get(at)) {
            add(counter, 1);
        }
        if is_hit(event.outcome) {
            add(&self.saved_cpu_ms, event.cpu_ms);
        } else if event.outcome != Outcome::Bypass {
            add(&self.compiled_ms, event.cost_ms);
        }
    }

    /// Counts a lookup that was answered.
    pub(crate) fn lookup(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let at = LOOKUP_BOUNDS_US.iter().position(|bound| us <= *bound);
        if let Some(counter) = self.lookups.get(at.unwrap_or(LOOKUP_BOUNDS_US.len())) {
            add(counter, 1);
        }
        add(&self.lookups_us, us);
    }

    /// Counts bytes of blobs in an answer.
    pub(crate) fn sent(&self, bytes: u64) {
        add(&self.sent, bytes);
    }

    /// Counts bytes of blobs taken from a build.
    pub(crate) fn received(&self, bytes: u64) {
        add(&self.received, bytes);
    }
}

/// What is read when somebody asks.
#[derive(Debug, Default)]
pub(crate) struct Readings {
    /// `local` or `shared`.
    pub(crate) role: &'static str,
    /// Since the server started.
    pub(crate) uptime: Duration,
    /// Results, blobs and bytes of the store.
    pub(crate) store: (u64, u64, u64),
    /// Bytes that it may hold.
    pub(crate) budget: Option<u64>,
    /// Age of the use of the result that was used least recently, milliseconds.
    pub(crate) oldest_ms: Option<u64>,
    /// Runs and jobs of the history.
    pub(crate) runs: (u64, u64),
    /// Leases of the server itself.
    pub(crate) leases: Figures,
    /// What is behind the server, and its faults.
    pub(crate) remote: Option<(RemoteStatus, u64)>,
}

/// Lines in the making.
struct Text(String);

impl Text {
    fn head(&mut self, (name, kind, help): Definition) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {}", kind.word());
    }

    fn number(&mut self, definition: Definition, value: u64) {
        self.head(definition);
        let _ = writeln!(self.0, "{} {value}", definition.0);
    }

    /// Milliseconds as seconds.
    fn time(&mut self, definition: Definition, ms: u64) {
        self.head(definition);
        let _ = writeln!(self.0, "{} {}.{:03}", definition.0, ms / 1000, ms % 1000);
    }
}

fn micros(us: u64) -> String {
    format!("{}.{:06}", us / 1_000_000, us % 1_000_000)
}

/// All metrics as text.
pub(crate) fn text(metrics: &Metrics, readings: &Readings) -> String {
    let mut text = Text(String::with_capacity(8 * 1024));
    text.head(INFO);
    let (version, role) = (env!("CARGO_PKG_VERSION"), readings.role);
    let _ = writeln!(text.0, "{}{{version=\"{version}\",role=\"{role}\"}} 1", INFO.0);
    text.number(UPTIME, readings.uptime.as_secs());
    text.head(UNITS);
    for ((_, outcome), counter) in OUTCOMES.iter().zip(&metrics.outcomes) {
        let _ = writeln!(text.0, "{}{{outcome=\"{outcome}\"}} {}", UNITS.0, get(counter));
    }
    text.time(SAVED, get(&metrics.saved_cpu_ms));
    text.time(COMPILED, get(&metrics.compiled_ms));
    lookups(&mut text, metrics);
    text.number(SENT, get(&metrics.sent));
    text.number(RECEIVED, get(&metrics.received));
    let (results, blobs, bytes) = readings.store;
    text.number(STORE, bytes);
    if let Some(budget) = readings.budget {
        text.number(BUDGET, budget);
    }
    text.number(RESULTS, results);
    text.number(BLOBS, blobs);
    if let Some(oldest_ms) = readings.oldest_ms {
        text.time(OLDEST, oldest_ms);
    }
    text.number(RUNS, readings.runs.0);
    text.number(JOBS, readings.runs.1);
    leases(&mut text, &readings.leases);
    if let Some((status, faults)) = &readings.remote {
        remote(&mut text, status, *faults);
    }
    text.0
}

fn lookups(text: &mut Text, metrics: &Metrics) {
    text.head(LOOKUP);
    let name = LOOKUP.0;
    let mut count = 0;
    for (at, counter) in metrics.lookups.iter().enumerate() {
        count += get(counter);
        let bound = LOOKUP_BOUNDS_US.get(at).map_or_else(|| "+Inf".to_owned(), |us| micros(*us));
        let _ = writeln!(text.0, "{name}_bucket{{le=\"{bound}\"}} {count}");
    }
    let _ =
        writeln!(text.0, "{name}_sum {}\n{name}_count {count}", micros(get(&metrics.lookups_us)));
}

fn leases(text: &mut Text, figures: &Figures) {
    let Figures { held, waiting, totals } = figures;
    text.number(LEASES, *held as u64);
    text.number(LEASE_WAITERS, *waiting as u64);
    text.head(LEASE_ANSWERS);
    for (answer, count) in [
        ("granted", totals.granted),
        ("held", totals.held),
        ("stored", totals.stored),
        ("free", totals.free),
    ] {
        let _ = writeln!(text.0, "{}{{answer=\"{answer}\"}} {count}", LEASE_ANSWERS.0);
    }
    text.number(LEASES_LOST, totals.lost);
}

fn remote(text: &mut Text, status: &RemoteStatus, faults: u64) {
    text.number(QUEUED, status.queued);
    text.number(QUEUED_BYTES, status.queued_bytes);
    text.time(QUEUED_AGE, status.oldest_ms.unwrap_or_default());
    for (definition, value) in [
        (REMOTE_SENT, status.sent),
        (REMOTE_LOST, status.lost),
        (REMOTE_ARRIVED, status.arrived),
        (REMOTE_DAMAGED, status.damaged),
        (REMOTE_REQUESTS, status.requests),
        (REMOTE_FAULTS, faults),
        (REMOTE_IN, status.bytes_in),
        (REMOTE_OUT, status.bytes_out),
    ] {
        text.number(definition, value);
    }
    if let Some(reachable) = status.reachable {
        text.number(REMOTE_UP, u64::from(reachable));
    }
}

#[cfg(test)]
mod tests;
