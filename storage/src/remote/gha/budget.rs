//! [`Budget`]: how many new entries this process may make now. Pure; `flush` asks it.
//!
//! The service takes 200 new entries a minute for a whole repository. Nobody can see what the others use, so
//! each job takes its share of a matrix, and always enough for one pack and one manifest.

use std::collections::VecDeque;
use std::time::Duration;

use super::limits;

const MINUTE_MS: u64 = 60_000;
/// A pack and a manifest.
const LEAST: u32 = 2;

/// New entries of the last minute, against a share.
#[derive(Debug)]
pub struct Budget {
    share: usize,
    recent: VecDeque<u64>,
}

impl Budget {
    /// The share of one of so many.
    pub fn new(sharers: u32) -> Self {
        let share = (limits::ENTRIES_PER_MINUTE / sharers.max(1)).max(LEAST);
        Self { share: share as usize, recent: VecDeque::new() }
    }

    fn pass(&mut self, now_ms: u64) {
        while self.recent.front().is_some_and(|at| at + MINUTE_MS <= now_ms) {
            self.recent.pop_front();
        }
    }

    /// Whether there are more than so many left.
    pub fn has_more_than(&mut self, entries: usize, now_ms: u64) -> bool {
        self.pass(now_ms);
        self.recent.len() + entries < self.share
    }

    /// Takes one entry, or says how long to wait for it.
    pub fn take(&mut self, now_ms: u64) -> Result<(), Duration> {
        self.pass(now_ms);
        if self.recent.len() < self.share {
            self.recent.push_back(now_ms);
            return Ok(());
        }
        let until = self.recent.front().map_or(now_ms, |at| at + MINUTE_MS);
        Err(Duration::from_millis(until.saturating_sub(now_ms)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_has_so_many_entries_and_the_next_one_again() {
        let mut budget = Budget::new(50);
        for now in 0..4 {
            assert_eq!(budget.take(now), Ok(()));
        }
        assert_eq!(budget.take(1000), Err(Duration::from_millis(59_000)));
        assert_eq!(budget.take(59_999), Err(Duration::from_millis(1)));
        assert_eq!(budget.take(60_000), Ok(()));
        assert!(budget.take(60_000).is_err(), "the others are still within the minute");
    }

    #[test]
    fn a_share_is_never_too_small_to_flush() {
        let mut budget = Budget::new(100_000);
        assert_eq!(budget.take(0), Ok(()));
        assert_eq!(budget.take(0), Ok(()));
        assert!(budget.take(0).is_err());
        assert!(Budget::new(0).take(0).is_ok());
    }
}
