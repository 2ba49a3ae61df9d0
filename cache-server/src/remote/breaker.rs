//! [`Breaker`]: whether the place behind the server is asked, and what is said of its faults.
//!
//! Pure: the time is an argument. After a few faults in a row the place is left alone for a while; then one
//! question tries it, which nobody waits for as long as for others: a build that goes on for an hour is not to be
//! delayed again and again. Of each kind of fault one line is logged in a period.

use std::time::{Duration, Instant};

use crate::limits::{
    FAULT_PERIOD, REMOTE_FAULTS, REMOTE_LEFT_ALONE, REMOTE_PROBE_TIMEOUT, REMOTE_QUESTION,
    REMOTE_TRIAL,
};

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// It cannot be reached, or its answer is none. What there is to say of that is in the fault's own text.
    Unreachable,
    /// It did not answer within a bound.
    Slow,
    /// What it answered is not what was asked for.
    Damaged,
    /// It takes no writes.
    ReadOnly,
    /// A result cannot be stored there, now or later.
    Refused,
    /// A question came back to this server.
    Loop,
    /// A question came through too many servers.
    Far,
}

impl FaultKind {
    /// For people, with the text of the fault.
    pub(crate) fn says(self, why: &str) -> String {
        let what = match self {
            Self::Unreachable if why.is_empty() => return "it cannot be reached".to_owned(),
            Self::Unreachable => return why.to_owned(),
            Self::Slow => "it is too slow",
            Self::Damaged => "what it sends is damaged",
            Self::ReadOnly => "it takes no results",
            Self::Refused => "a result is never sent",
            Self::Loop => "it leads back to this server",
            Self::Far => "questions are not passed on to it",
        };
        if why.is_empty() { what.to_owned() } else { format!("{what}: {why}") }
    }
}

/// Which kinds of faults were told of late.
#[derive(Debug, Default)]
pub(crate) struct Told(Vec<(FaultKind, Instant)>);

impl Told {
    /// Whether a fault is the first of its kind in a period; it is told then.
    pub(crate) fn tells(&mut self, kind: FaultKind, now: Instant) -> bool {
        self.0.retain(|(_, at)| now.duration_since(*at) < FAULT_PERIOD);
        let new = !self.0.iter().any(|(told, _)| *told == kind);
        if new {
            self.0.push((kind, now));
        }
        new
    }
}

/// The state.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    faults: u32,
    until: Option<Instant>,
    probe: Option<Instant>,
    last: Option<Result<(), FaultKind>>,
    why: String,
}

impl Breaker {
    /// Whether a question may be asked now. Whoever is told so says afterwards how it went.
    pub(crate) fn may_ask(&mut self, now: Instant) -> bool {
        match self.until {
            None => true,
            Some(until) if now < until => false,
            Some(_) => {
                // A question that was given up never says how it went.
                let waits = |since| now.duration_since(since) < REMOTE_PROBE_TIMEOUT;
                if self.probe.is_some_and(waits) {
                    return false;
                }
                self.probe = Some(now);
                true
            }
        }
    }

    /// Whether it was left alone and nothing was heard of it since: whoever asks it now only tries.
    pub(crate) fn is_tried(&self) -> bool {
        self.until.is_some()
    }

    /// Longest that somebody waits for the answer to a question.
    pub(crate) fn wait(&self) -> Duration {
        if self.is_tried() { REMOTE_TRIAL } else { REMOTE_QUESTION }
    }

    /// It answered.
    pub(crate) fn good(&mut self) {
        self.faults = 0;
        self.until = None;
        self.probe = None;
        self.last = Some(Ok(()));
    }

    /// It failed; whether it is left alone from now on.
    pub(crate) fn fault(&mut self, kind: FaultKind, now: Instant) -> bool {
        self.last = Some(Err(kind));
        self.faults = self.faults.saturating_add(1);
        let left_alone = self.probe.take().is_some() || self.faults >= REMOTE_FAULTS;
        if left_alone {
            self.until = Some(now + REMOTE_LEFT_ALONE);
        }
        left_alone
    }

    /// It is not asked for a while, whatever came before.
    pub(crate) fn pause(&mut self, kind: FaultKind, now: Instant) {
        self.last = Some(Err(kind));
        self.until = Some(now + REMOTE_LEFT_ALONE);
        self.probe = None;
    }

    /// Whatever came before, it may be asked now: somebody waits for that.
    pub(crate) fn try_now(&mut self) {
        self.faults = 0;
        self.until = None;
        self.probe = None;
    }

    /// How the last question went; none: nothing was asked.
    pub(crate) fn last(&self) -> Option<Result<(), FaultKind>> {
        self.last
    }

    /// Keeps the text of the fault that was told last.
    pub(crate) fn because(&mut self, why: &str) {
        why.clone_into(&mut self.why);
    }

    /// What went wrong last, if the last question did, for people.
    pub(crate) fn words(&self) -> Option<String> {
        let kind = self.last?.err()?;
        Some(kind.says(&self.why))
    }

    /// Until when it is left alone, if it is.
    pub(crate) fn left_alone(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| now < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However long a build goes on before a place that says nothing, it waits for a few questions and no more.
    #[test]
    fn what_was_left_alone_is_tried_and_not_waited_for() {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        let mut waited = Duration::ZERO;
        for _ in 0..60 * 60 {
            if breaker.may_ask(now) {
                waited += breaker.wait();
                breaker.fault(FaultKind::Slow, now);
            }
            now += Duration::from_secs(1);
        }
        let tries = 60 * 60 / u32::try_from(REMOTE_LEFT_ALONE.as_secs()).unwrap();
        assert!(waited <= REMOTE_QUESTION * REMOTE_FAULTS + REMOTE_TRIAL * tries, "{waited:?}");
        assert!(breaker.is_tried());
        breaker.good();
        assert!(!breaker.is_tried() && breaker.wait() == REMOTE_QUESTION);
    }

    #[test]
    fn a_few_faults_in_a_row_and_it_is_left_alone() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        for _ in 1..REMOTE_FAULTS {
            assert!(breaker.may_ask(now));
            assert!(!breaker.fault(FaultKind::Slow, now));
        }
        breaker.good();
        for _ in 1..REMOTE_FAULTS {
            assert!(!breaker.fault(FaultKind::Slow, now));
        }
        assert!(breaker.may_ask(now));
        assert!(breaker.fault(FaultKind::Slow, now));
        assert!(!breaker.may_ask(now));
        assert!(breaker.left_alone(now).is_some());

        // One question tries it; the others do not wait for that.
        let later = now + REMOTE_LEFT_ALONE;
        assert!(breaker.may_ask(later));
        assert!(!breaker.may_ask(later));
        assert!(breaker.fault(FaultKind::Unreachable, later));
        assert!(!breaker.may_ask(later));
        let again = later + REMOTE_LEFT_ALONE;
        assert!(breaker.may_ask(again));
        breaker.good();
        assert!(breaker.may_ask(again) && breaker.may_ask(again));
        assert_eq!(breaker.last(), Some(Ok(())));
    }

    #[test]
    fn a_question_that_was_given_up_is_no_hindrance_for_ever() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        breaker.pause(FaultKind::ReadOnly, now);
        let later = now + REMOTE_LEFT_ALONE;
        assert!(breaker.may_ask(later));
        assert!(!breaker.may_ask(later + REMOTE_PROBE_TIMEOUT - Duration::from_millis(1)));
        assert!(breaker.may_ask(later + REMOTE_PROBE_TIMEOUT));
    }

    #[test]
    fn each_kind_is_told_once_in_a_period() {
        let (mut told, now) = (Told::default(), Instant::now());
        assert!(told.tells(FaultKind::Slow, now));
        assert!(!told.tells(FaultKind::Slow, now));
        assert!(told.tells(FaultKind::Damaged, now));
        assert!(told.tells(FaultKind::Slow, now + FAULT_PERIOD));
    }
}
