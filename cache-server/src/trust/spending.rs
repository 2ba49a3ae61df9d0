//! [`Spending`]: how much each principal has asked for of late, so that there is so much and no more, and how many of
//! its questions wait. Pure: times are arguments.
//!
//! Who has no token where one is asked for is counted by address; who needs none is not counted at all. Called by
//! [`crate::http::middleware`] and [`crate::routes::leases`].

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::limits::{
    DEFAULT_MAX_REQUESTS, DEFAULT_MAX_UPLOAD, MAX_LEASE_QUESTIONS_EACH, MAX_SPENDERS,
    REQUESTS_PERIOD, UPLOAD_PERIOD,
};

/// How much a principal may ask for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Allowance {
    /// Requests in a minute; none: [`DEFAULT_MAX_REQUESTS`].
    pub max_requests: Option<u64>,
    /// Bytes that are sent to the server in an hour; none: [`DEFAULT_MAX_UPLOAD`].
    pub max_upload: Option<u64>,
}

/// What of it is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Over {
    /// What.
    pub what: &'static str,
    /// How long until there is more, seconds.
    pub after_s: u64,
}

/// What was spent.
#[derive(Debug, Default)]
pub(crate) struct Spending {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    spent: HashMap<String, Spent>,
    /// Questions that wait.
    waits: HashMap<String, usize>,
}

#[derive(Debug)]
struct Spent {
    requests: Window,
    bytes: Window,
}

/// What was spent since a time.
#[derive(Debug)]
struct Window {
    began: Instant,
    spent: u64,
}

impl Window {
    fn of(now: Instant) -> Self {
        Self { began: now, spent: 0 }
    }

    /// Spends more, unless the bound is reached; how long until there is more then.
    fn spend(&mut self, more: u64, (most, period): (u64, Duration), now: Instant) -> Option<u64> {
        let since = now.saturating_duration_since(self.began);
        if since >= period {
            *self = Self::of(now);
        } else if self.spent >= most {
            return Some(period.saturating_sub(since).as_secs().max(1));
        }
        // What begins within the bound may go beyond it: nothing is larger than the bound of one request.
        self.spent = self.spent.saturating_add(more);
        None
    }

    fn is_over(&self, period: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.began) >= period
    }
}

impl Spending {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody makes a request that sends so many bytes.
    ///
    /// # Errors
    /// [`Over`]: nothing is spent then.
    pub(crate) fn request(
        &self,
        name: &str,
        (allowed, bytes): (Allowance, u64),
        now: Instant,
    ) -> Result<(), Over> {
        let mut state = self.state();
        if !state.spent.contains_key(name) {
            if state.spent.len() >= MAX_SPENDERS {
                state.spent.retain(|_, spent| !spent.bytes.is_over(UPLOAD_PERIOD, now));
            }
            // Beyond that all are counted anew.
            if state.spent.len() >= MAX_SPENDERS {
                state.spent.clear();
            }
            let new = Spent { requests: Window::of(now), bytes: Window::of(now) };
            state.spent.insert(name.to_owned(), new);
        }
        let Some(spent) = state.spent.get_mut(name) else { return Ok(()) };
        let most = (allowed.max_requests.unwrap_or(DEFAULT_MAX_REQUESTS), REQUESTS_PERIOD);
        let over = |what| move |after_s| Err(Over { what, after_s });
        if let Some(after_s) = spent.requests.spend(1, most, now) {
            return over("requests in a minute")(after_s);
        }
        let most = (allowed.max_upload.unwrap_or(DEFAULT_MAX_UPLOAD), UPLOAD_PERIOD);
        match (bytes > 0).then(|| spent.bytes.spend(bytes, most, now)).flatten() {
            Some(after_s) => over("bytes sent in an hour")(after_s),
            None => Ok(()),
        }
    }

    /// A question of somebody begins to wait; whether it may, when there is room for so many more of all. Nobody has more
    /// of them than are left for others.
    pub(crate) fn wait(&self, name: &str, left: usize) -> bool {
        let mut state = self.state();
        let waits = state.waits.get(name).copied().unwrap_or_default();
        let may = waits < MAX_LEASE_QUESTIONS_EACH.min(left);
        if may {
            state.waits.insert(name.to_owned(), waits + 1);
        }
        may
    }

    /// A question that waited is over.
    pub(crate) fn waited(&self, name: &str) {
        let mut state = self.state();
        if let Some(waits) = state.waits.get_mut(name) {
            *waits = waits.saturating_sub(1);
            if *waits == 0 {
                state.waits.remove(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MAX_LEASE_QUESTIONS;

    #[test]
    fn so_much_is_spent_in_a_time_and_others_are_not_concerned() {
        let (spending, now) = (Spending::default(), Instant::now());
        let allowed = Allowance { max_requests: Some(3), max_upload: Some(10) };
        let ask = |name: &str, bytes, now| spending.request(name, (allowed, bytes), now);
        assert_eq!(ask("a", 8, now), Ok(()));
        assert_eq!(ask("a", 8, now), Ok(()), "it was within the bound");
        let over = ask("a", 1, now + Duration::from_secs(10)).unwrap_err();
        assert_eq!(over, Over { what: "bytes sent in an hour", after_s: 3590 });
        let over = ask("a", 0, now + Duration::from_secs(59)).unwrap_err();
        assert_eq!(over, Over { what: "requests in a minute", after_s: 1 });
        assert_eq!(ask("b", 8, now), Ok(()));
        assert_eq!(ask("a", 0, now + REQUESTS_PERIOD), Ok(()));
        assert!(ask("a", 1, now + REQUESTS_PERIOD).is_err());
        assert_eq!(ask("a", 1, now + UPLOAD_PERIOD), Ok(()));
        let default = (Allowance::default(), 1);
        assert_eq!(spending.request("c", default, now), Ok(()));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (spending, now) = (Spending::default(), Instant::now());
        for n in 0..2 * MAX_SPENDERS + 5 {
            spending.request(&n.to_string(), (Allowance::default(), 1), now).unwrap();
        }
        assert!(spending.state().spent.len() <= MAX_SPENDERS);
    }

    #[test]
    fn so_many_questions_of_one_wait() {
        let spending = Spending::default();
        let wait = |name| spending.wait(name, usize::MAX);
        for _ in 0..MAX_LEASE_QUESTIONS_EACH {
            assert!(wait("a"));
        }
        assert!(!wait("a") && wait("b"));
        spending.waited("a");
        assert!(wait("a"));
        (0..=MAX_LEASE_QUESTIONS_EACH).for_each(|_| spending.waited("a"));
        spending.waited("b");
        assert!(spending.state().waits.is_empty());
    }

    /// Whoever has many names has not all the room by that.
    #[test]
    fn some_room_to_wait_is_left_for_others() {
        let (spending, mut left) = (Spending::default(), MAX_LEASE_QUESTIONS);
        let mut all_of = |name| {
            let mut has = 0;
            while spending.wait(name, left) {
                (has, left) = (has + 1, left - 1);
            }
            has
        };
        assert_eq!(all_of("one"), MAX_LEASE_QUESTIONS / 2);
        assert_eq!(all_of("two"), MAX_LEASE_QUESTIONS / 4);
        assert!(all_of("main") > 0);
        assert_eq!(spending.state().waits.len(), 3);
    }
}
