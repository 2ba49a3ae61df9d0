//! How long it is right to wait for what another compiles. Pure.
//!
//! Who has the lease began earlier, so at equal speed it is done before a compile that begins now. What is lost
//! by waiting for a slower one is bounded: twice what the unit cost when it was made, where that is known; and
//! where it is not, by whether the other's compile gets any processor time.

use std::time::Duration;

use kiln_storage::api::Holder;

/// Longest that a unit waits in all.
pub(super) const LONGEST: Duration = Duration::from_secs(10 * 60);
/// Beyond twice what the unit cost, what is small all the same.
const SLACK: Duration = Duration::from_secs(1);
/// A compile that has less than this part of a processor, over [`STALL_AGE`] at least, is taken for stopped.
const STALLED: u64 = 20;
/// How old a lease has to be before its processor time says something.
const STALL_AGE: Duration = Duration::from_secs(20);
/// How long a holder may be silent before its processor time says nothing any more.
const SILENCE: Duration = Duration::from_secs(5);

/// What is right now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// To wait so long at most.
    Wait(Duration),
    /// To have the lease in place of the holder, and why. Others who wait then wait for this one.
    TakeOver(String),
    /// To compile, and why.
    Compile(String),
}

/// Whether to wait for a holder, when the unit takes so much here, as far as that is known, and so long was waited already.
pub(super) fn patience(cost: Option<Duration>, holder: &Holder, waited: Duration) -> Patience {
    let Some(left) = LONGEST.checked_sub(waited).filter(|left| !left.is_zero()) else {
        return Patience::Compile(format!("waited for {} s", waited.as_secs()));
    };
    let age = Duration::from_millis(holder.age_ms);
    if let Some(cost) = cost {
        let due = cost.saturating_mul(2) + SLACK;
        return match due.checked_sub(age).filter(|rest| !rest.is_zero()) {
            Some(rest) => Patience::Wait(rest.min(left)),
            None => Patience::TakeOver(format!(
                "{} takes {:.1} s for what took {:.1} s",
                holder.job,
                age.as_secs_f64(),
                cost.as_secs_f64()
            )),
        };
    }
    let is_silent = Duration::from_millis(holder.silent_ms) > SILENCE;
    if age > STALL_AGE && (is_silent || holder.cpu_ms.saturating_mul(STALLED) < holder.age_ms) {
        return Patience::TakeOver(format!("{} does not get on with it", holder.job));
    }
    Patience::Wait(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn holder(age_s: u64, cpu_s: u64) -> Holder {
        let job = "other".to_owned();
        Holder { job, age_ms: age_s * 1000, cpu_ms: cpu_s * 1000, ..Holder::default() }
    }

    fn is_take_over(patience: &Patience) -> bool {
        matches!(patience, Patience::TakeOver(_))
    }

    #[test]
    fn a_holder_gets_twice_what_the_unit_cost() {
        assert_eq!(patience(Some(s(10)), &holder(0, 0), s(0)), Patience::Wait(s(21)));
        assert_eq!(patience(Some(s(10)), &holder(15, 0), s(3)), Patience::Wait(s(6)));
        assert!(is_take_over(&patience(Some(s(10)), &holder(21, 20), s(3))));
    }

    #[test]
    fn what_was_never_made_is_waited_for_while_it_is_worked_on() {
        assert_eq!(patience(None, &holder(1, 0), s(0)), Patience::Wait(LONGEST));
        assert_eq!(patience(None, &holder(300, 200), s(100)), Patience::Wait(s(500)));
        assert!(is_take_over(&patience(None, &holder(300, 2), s(100))));
        let silent = Holder { silent_ms: 8000, ..holder(300, 200) };
        assert!(is_take_over(&patience(None, &silent, s(100))));
        let young = Holder { silent_ms: 8000, ..holder(9, 0) };
        assert!(!is_take_over(&patience(None, &young, s(9))));
    }

    #[test]
    fn nobody_waits_for_ever() {
        let costly = Some(s(3600));
        assert_eq!(patience(costly, &holder(5, 5), LONGEST - s(1)), Patience::Wait(s(1)));
        for cost in [None, costly] {
            assert!(matches!(patience(cost, &holder(5, 5), LONGEST), Patience::Compile(_)));
        }
    }
}
