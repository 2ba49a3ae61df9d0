//! When a request is sent again, and after how long: [`Patience`]. Pure; called by [`super::wire`].

use std::time::Duration;

use crate::calendar::days;

/// Bounds on trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Most attempts.
    pub attempts: u32,
    /// The pause after the first attempt; each further one is twice as long.
    pub first_pause: Duration,
    /// The longest pause that is not asked for by the service.
    pub max_pause: Duration,
    /// No attempt begins later than this after the first.
    pub total: Duration,
}

impl Patience {
    /// How long to wait before the next attempt; `None` to give up. `done` attempts failed, the first one
    /// began `elapsed` ago, the service asked to wait for `asked`. `chance` spreads the pauses of many clients
    /// over the second half of the pause; what the service asks for is the least.
    pub fn pause(
        &self,
        done: u32,
        elapsed: Duration,
        asked: Option<Duration>,
        chance: u64,
    ) -> Option<Duration> {
        if done >= self.attempts {
            return None;
        }
        let doubled = self.first_pause.saturating_mul(1 << done.saturating_sub(1).min(16));
        let half = doubled.min(self.max_pause) / 2;
        let spread = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
        let jitter = Duration::from_nanos(chance % spread.saturating_add(1));
        let pause = asked.map_or(half, |asked| asked.max(half)).saturating_add(jitter);
        (elapsed.saturating_add(pause) <= self.total).then_some(pause)
    }
}

/// What `Retry-After` asks for: seconds, or a date, of which the distance to `now` counts (seconds since
/// 1970).
pub(super) fn asked(header: &str, now: u64) -> Option<Duration> {
    let header = header.trim();
    if let Ok(seconds) = header.parse() {
        return Some(Duration::from_secs(seconds));
    }
    Some(Duration::from_secs(date(header)?.saturating_sub(now)))
}

/// Seconds since 1970 of a date as HTTP writes it, `Sun, 06 Nov 1994 08:49:37 GMT`.
pub(super) fn date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, text) = text.split_once(", ")?;
    let mut words = text.split(' ');
    let day: i64 = words.next()?.parse().ok().filter(|day| (1..=31).contains(day))?;
    let month = words.next()?;
    let month = MONTHS.iter().position(|m| *m == month)? as i64 + 1;
    let year: i64 = words.next()?.parse().ok().filter(|year| (1970..10_000).contains(year))?;
    let mut time = words.next()?.split(':').map(|part| part.parse::<u64>().ok());
    let (hours, minutes, seconds) = (time.next()??, time.next()??, time.next()??);
    if words.next() != Some("GMT") || hours > 23 || minutes > 59 || seconds > 60 {
        return None;
    }
    let days = u64::try_from(days(year, month, day)).ok()?;
    Some(days * 86_400 + hours * 3600 + minutes * 60 + seconds)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATIENCE: Patience = Patience {
        attempts: 4,
        first_pause: Duration::from_millis(100),
        max_pause: Duration::from_secs(1),
        total: Duration::from_secs(10),
    };

    proptest! {
        #[test]
        fn pauses_are_bounded_and_honour_what_is_asked(
            done in 1_u32..10,
            elapsed in 0_u64..12_000,
            asked in proptest::option::of(0_u64..20_000),
            chance in any::<u64>(),
        ) {
            let elapsed = Duration::from_millis(elapsed);
            let asked = asked.map(Duration::from_millis);
            match PATIENCE.pause(done, elapsed, asked, chance) {
                None => prop_assert!(
                    done >= 4 || elapsed + asked.unwrap_or_default() + PATIENCE.max_pause > PATIENCE.total
                ),
                Some(pause) => {
                    prop_assert!(done < 4 && elapsed + pause <= PATIENCE.total);
                    prop_assert!(pause >= asked.unwrap_or_default());
                    prop_assert!(pause <= asked.unwrap_or_default() + PATIENCE.max_pause);
                }
            }
        }
    }

    #[test]
    fn pauses_grow_and_are_spread() {
        let pause = |done, chance| PATIENCE.pause(done, Duration::ZERO, None, chance).unwrap();
        assert_eq!(pause(1, 0), Duration::from_millis(50));
        assert_eq!(pause(2, 0), Duration::from_millis(100));
        assert_eq!(pause(3, 0), Duration::from_millis(200));
        assert_ne!(pause(1, 1), pause(1, 2));
    }

    #[test]
    fn a_pause_beyond_all_time_is_none() {
        let asked = asked("18446744073709551615", 0);
        assert_eq!(PATIENCE.pause(1, Duration::from_secs(1), asked, 7), None);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(asked("7", 0), Some(Duration::from_secs(7)));
        assert_eq!(date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(date("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(date("Thu, 29 Feb 2024 23:59:59 GMT"), Some(1_709_251_199));
        let wait = asked("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_770);
        assert_eq!(wait, Some(Duration::from_secs(7)));
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_999), Some(Duration::ZERO));
        for odd in ["", "-1", "soon", "Sun, 06 Nov", "Sun, 32 Nov 1994 08:49:37 GMT", "1.5"] {
            assert_eq!(asked(odd, 0), None, "{odd:?}");
        }
    }
}
