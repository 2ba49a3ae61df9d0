//! [`Attempts`]: what came from which address of late: failed logins, so that there are so many and no more, and lines
//! of the log about it, so that nobody fills that. Pure: times are arguments.
//!
//! Who has a good token is never kept out, whatever comes from its address: many may share one. Called by
//! [`crate::http::middleware`] and [`crate::routes::session`].

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::limits::{LOGIN_PERIOD, MAX_FAILED_LOGINS, MAX_LOGIN_ADDRESSES, MAX_TOLD_REFUSALS};

/// What is remembered of addresses.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    windows: HashMap<(IpAddr, Login), Window>,
    /// Who came from where.
    known: HashSet<(IpAddr, String)>,
}

/// What came from an address since a time.
#[derive(Debug)]
struct Window {
    began: Instant,
    failed: u32,
    told: u32,
}

/// What somebody tries to get in by. They are counted apart: who goes on with a token that was revoked keeps no job of
/// the same address from beginning a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Login {
    /// A token of this server.
    Token,
    /// A token of a CI service, for a session.
    Session,
}

/// Whether something is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tell {
    /// It is.
    Yes,
    /// It is the last for a while.
    Last,
    /// There was enough of it.
    No,
}

/// What counts as one address: of the newer kind, what one household has.
pub(crate) fn place(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) >> 64 << 64).into()),
        ip => ip,
    }
}

impl Attempts {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(
        &self,
        (address, by): (IpAddr, Login),
        now: Instant,
        what: impl FnOnce(&mut Window) -> T,
    ) -> T {
        let mut state = self.state();
        let is_over = |window: &Window| now.saturating_duration_since(window.began) >= LOGIN_PERIOD;
        if state.windows.len() >= MAX_LOGIN_ADDRESSES {
            state.windows.retain(|_, window| !is_over(window));
        }
        if state.windows.len() >= MAX_LOGIN_ADDRESSES {
            state.windows.clear();
        }
        let new = Window { began: now, failed: 0, told: 0 };
        let window = state.windows.entry((place(address), by)).or_insert(new);
        if is_over(window) {
            *window = Window { began: now, failed: 0, told: 0 };
        }
        what(window)
    }

    /// Whether so many logins failed from an address of late that none is looked at.
    pub(crate) fn are_too_many(&self, (address, by): (IpAddr, Login), now: Instant) -> bool {
        let state = self.state();
        state.windows.get(&(place(address), by)).is_some_and(|window| {
            let is_over = now.saturating_duration_since(window.began) >= LOGIN_PERIOD;
            !is_over && window.failed >= MAX_FAILED_LOGINS
        })
    }

    /// A login failed.
    pub(crate) fn failed(&self, from: (IpAddr, Login), now: Instant) {
        self.with(from, now, |window| window.failed = window.failed.saturating_add(1));
    }

    /// Whether a refusal is to be told in the log.
    pub(crate) fn tells(&self, address: IpAddr, now: Instant) -> Tell {
        self.with((address, Login::Token), now, |window| {
            window.told = window.told.saturating_add(1);
            match window.told {
                MAX_TOLD_REFUSALS => Tell::Last,
                told if told < MAX_TOLD_REFUSALS => Tell::Yes,
                _ => Tell::No,
            }
        })
    }

    /// Whether somebody was not seen from an address since the server started, as far as is remembered.
    pub(crate) fn is_new(&self, address: IpAddr, name: &str) -> bool {
        let mut state = self.state();
        let key = (place(address), name.to_owned());
        if state.known.contains(&key) {
            return false;
        }
        if state.known.len() >= MAX_LOGIN_ADDRESSES {
            state.known.clear();
        }
        state.known.insert(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn so_many_fail_in_a_time_from_one_address() {
        let (attempts, now) = (Attempts::default(), Instant::now());
        for _ in 0..MAX_FAILED_LOGINS {
            assert!(!attempts.are_too_many((at("192.0.2.1"), Login::Token), now));
            attempts.failed((at("192.0.2.1"), Login::Token), now);
        }
        assert!(attempts.are_too_many((at("192.0.2.1"), Login::Token), now));
        assert!(attempts.are_too_many((at("::ffff:192.0.2.1"), Login::Token), now));
        assert!(!attempts.are_too_many((at("192.0.2.2"), Login::Token), now));
        let later = now + LOGIN_PERIOD;
        assert!(!attempts.are_too_many((at("192.0.2.1"), Login::Token), later));
        attempts.failed((at("192.0.2.1"), Login::Token), later);
        assert!(
            !attempts.are_too_many((at("192.0.2.1"), Login::Token), later),
            "it is counted anew"
        );
        // Those of the other kind are counted apart.
        attempts.failed((at("192.0.2.3"), Login::Session), now);
        assert!(!attempts.are_too_many((at("192.0.2.1"), Login::Session), now));
        for n in 0..MAX_FAILED_LOGINS {
            attempts.failed((at(&format!("2001:db8::{n:x}")), Login::Token), now);
        }
        assert!(attempts.are_too_many((at("2001:db8::ffff"), Login::Token), now));
        assert!(!attempts.are_too_many((at("2001:db8:0:1::1"), Login::Token), now));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (attempts, now) = (Attempts::default(), Instant::now());
        for n in 0..2 * MAX_LOGIN_ADDRESSES as u32 + 5 {
            attempts.failed((IpAddr::from(n.to_be_bytes()), Login::Token), now);
            attempts.is_new(IpAddr::from(n.to_be_bytes()), "token a");
        }
        let state = attempts.state();
        assert!(state.windows.len() <= MAX_LOGIN_ADDRESSES);
        assert!(state.known.len() <= MAX_LOGIN_ADDRESSES);
    }

    #[test]
    fn lines_are_bounded_and_who_comes_is_told_once() {
        let (attempts, now) = (Attempts::default(), Instant::now());
        let told: Vec<Tell> =
            (0..=MAX_TOLD_REFUSALS).map(|_| attempts.tells(at("192.0.2.1"), now)).collect();
        assert_eq!(
            told.iter().filter(|told| **told == Tell::Yes).count() as u32 + 1,
            MAX_TOLD_REFUSALS
        );
        assert_eq!(told[told.len() - 2..], [Tell::Last, Tell::No]);
        assert_eq!(attempts.tells(at("192.0.2.1"), now + LOGIN_PERIOD), Tell::Yes);
        assert!(attempts.is_new(at("192.0.2.1"), "a") && !attempts.is_new(at("192.0.2.1"), "a"));
        assert!(attempts.is_new(at("192.0.2.1"), "b") && attempts.is_new(at("192.0.2.2"), "a"));
    }
}
