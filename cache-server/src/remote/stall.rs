//! [`Stall`]: when a server that sends before it leaves has waited long enough for a place that takes nothing.
//!
//! Pure: the time is an argument. `outbox` tells it what came of sending, and asks.

use std::time::{Duration, Instant};

use crate::limits::{DRAIN_SLOWEST_BYTES_PER_SECOND, DRAIN_STALL};

/// The last time that something came of sending.
#[derive(Debug)]
pub(crate) struct Stall {
    since: Instant,
    seen: u64,
}

impl Stall {
    /// Sending begins. `seen` is any number that grows when the place does something.
    pub(crate) fn new(seen: u64, now: Instant) -> Self {
        Self { since: now, seen }
    }

    /// Notes what came of it so far.
    pub(crate) fn note(&mut self, seen: u64, now: Instant) {
        if seen != self.seen {
            *self = Self::new(seen, now);
        }
    }

    /// When the place is given up if nothing more comes, with so many bytes on their way to it: those may be
    /// on a slow line.
    pub(crate) fn until(&self, under_way: u64) -> Instant {
        let moving = Duration::from_secs(under_way / DRAIN_SLOWEST_BYTES_PER_SECOND);
        self.since + DRAIN_STALL + moving
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_comes_begins_the_wait_anew() {
        let now = Instant::now();
        let mut stall = Stall::new(5, now);
        assert_eq!(stall.until(0), now + DRAIN_STALL);
        let later = now + DRAIN_STALL / 2;
        stall.note(5, later);
        assert_eq!(stall.until(0), now + DRAIN_STALL);
        stall.note(6, later);
        assert_eq!(stall.until(0), later + DRAIN_STALL);
    }

    #[test]
    fn a_slow_line_has_more_time() {
        let (now, second) = (Instant::now(), DRAIN_SLOWEST_BYTES_PER_SECOND);
        let stall = Stall::new(0, now);
        assert_eq!(stall.until(second - 1), now + DRAIN_STALL);
        assert_eq!(stall.until(90 * second), now + DRAIN_STALL + Duration::from_secs(90));
    }
}
