//! [`Traffic`]: what went over the wire, counted. Called by [`super::wire`], which counts, and by whoever
//! reports it.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use crate::limits::OBJECT_WAIT_STEP;

/// Counters that only go up; shared by everything that speaks to one place.
#[derive(Debug)]
pub struct Traffic {
    requests: AtomicU64,
    retries: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    asked_to_wait_ms: AtomicU64,
    clock_ahead_s: AtomicI64,
}

/// Nobody told the time.
const UNTOLD: i64 = i64::MIN;

impl Default for Traffic {
    fn default() -> Self {
        Self {
            requests: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            asked_to_wait_ms: AtomicU64::new(0),
            clock_ahead_s: AtomicI64::new(UNTOLD),
        }
    }
}

impl Traffic {
    /// An answer told the time there, when it was `now` here; both in seconds since 1970.
    pub(crate) fn told_time(&self, there: u64, now: u64) {
        let seconds = |at: u64| i64::try_from(at).unwrap_or(i64::MAX);
        self.clock_ahead_s.store(seconds(now).saturating_sub(seconds(there)), Ordering::Relaxed);
    }

    /// So many seconds the clock here is ahead of the one there; none: no answer told the time.
    pub fn clock_ahead_s(&self) -> Option<i64> {
        Some(self.clock_ahead_s.load(Ordering::Relaxed)).filter(|ahead| *ahead != UNTOLD)
    }

    /// A request with this many bytes in its body.
    pub(crate) fn sent(&self, bytes: u64) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.bytes_out.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Waits, because the service wants it so: counted as it passes.
    pub(crate) async fn wait_as_asked(&self, mut time: Duration) {
        while !time.is_zero() {
            let step = time.min(OBJECT_WAIT_STEP);
            tokio::time::sleep(step).await;
            let millis = u64::try_from(step.as_millis()).unwrap_or(u64::MAX);
            self.asked_to_wait_ms.fetch_add(millis.max(1), Ordering::Relaxed);
            time = time.saturating_sub(step);
        }
    }

    /// A request is sent again.
    pub(crate) fn again(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes of a body came.
    pub(crate) fn received(&self, bytes: u64) {
        self.bytes_in.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Requests sent, retries included.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Requests that were sent again.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// Milliseconds waited so far because the service asked for that.
    pub fn asked_to_wait_ms(&self) -> u64 {
        self.asked_to_wait_ms.load(Ordering::Relaxed)
    }

    /// Bytes of objects received.
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Ordering::Relaxed)
    }

    /// Bytes of bodies sent.
    pub fn bytes_out(&self) -> u64 {
        self.bytes_out.load(Ordering::Relaxed)
    }
}
