//! [`Asked`]: which units the place behind the server was asked for of late, whatever it answered, so that
//! the same question is not asked again and again. Pure, and bounded.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use kiln_storage::UnitKey;

use crate::limits::{MAX_REMOTE_ASKED, REMOTE_ASKED};

type Key = (String, UnitKey);

/// Units by scope, with the time of the last question and whether that place has another one behind itself
/// which it did not ask.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    at: HashMap<Key, (Instant, bool)>,
    order: VecDeque<(Key, Instant)>,
}

impl Asked {
    /// Whether a unit was asked for of late. A deep question is for what is behind that place, too.
    pub(crate) fn contains(&self, scope: &str, unit: &UnitKey, deep: bool, now: Instant) -> bool {
        let asked = self.at.get(&(scope.to_owned(), *unit));
        asked.is_some_and(|(at, farther)| {
            now.duration_since(*at) < REMOTE_ASKED && !(deep && *farther)
        })
    }

    /// Notes that units were asked for, and whether there is another place farther away.
    pub(crate) fn note(&mut self, scope: &str, units: &[UnitKey], farther: bool, now: Instant) {
        for unit in units {
            let key = (scope.to_owned(), *unit);
            self.at.insert(key.clone(), (now, farther));
            self.order.push_back((key, now));
        }
        let old = |at: Instant| now.duration_since(at) >= REMOTE_ASKED;
        while let Some((_, at)) = self.order.front()
            && (old(*at) || self.order.len() > MAX_REMOTE_ASKED)
        {
            if let Some((key, at)) = self.order.pop_front()
                && self.at.get(&key).is_some_and(|(last, _)| *last == at)
            {
                self.at.remove(&key);
            }
        }
    }

    /// Forgets a unit: what was answered is no longer so.
    pub(crate) fn forget(&mut self, scope: &str, unit: &UnitKey) {
        self.at.remove(&(scope.to_owned(), *unit));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_storage::Digest;

    fn unit(n: usize) -> UnitKey {
        UnitKey::new(Digest::of(&n.to_le_bytes()))
    }

    #[test]
    fn answers_hold_for_a_while_and_for_a_scope() {
        let (mut asked, now) = (Asked::default(), Instant::now());
        asked.note("s", &[unit(1)], false, now);
        for deep in [false, true] {
            assert!(asked.contains("s", &unit(1), deep, now));
            assert!(!asked.contains("t", &unit(1), deep, now));
            assert!(!asked.contains("s", &unit(2), deep, now));
        }
        let later = now + REMOTE_ASKED;
        assert!(!asked.contains("s", &unit(1), false, later));
        asked.note("s", &[unit(1)], false, later);
        assert!(asked.contains("s", &unit(1), false, later) && asked.at.len() == 1);
        asked.forget("s", &unit(1));
        assert!(!asked.contains("s", &unit(1), false, later));
    }

    #[test]
    fn what_is_farther_is_asked_by_a_deep_question_once() {
        let (mut asked, now) = (Asked::default(), Instant::now());
        asked.note("s", &[unit(1)], true, now);
        assert!(asked.contains("s", &unit(1), false, now));
        assert!(!asked.contains("s", &unit(1), true, now));
        asked.note("s", &[unit(1)], false, now);
        assert!(asked.contains("s", &unit(1), true, now));
    }

    #[test]
    fn they_are_bounded() {
        let (mut asked, now) = (Asked::default(), Instant::now());
        for n in 0..MAX_REMOTE_ASKED + 10 {
            asked.note("s", &[unit(n)], false, now);
        }
        assert_eq!((asked.at.len(), asked.order.len()), (MAX_REMOTE_ASKED, MAX_REMOTE_ASKED));
        assert!(!asked.contains("s", &unit(0), false, now));
    }
}
