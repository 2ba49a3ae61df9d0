//! [`Made`]: what a run made itself, up to a moment. What is read there later is no input.

use kiln_observer::log::{Kind, flags};

use super::seen::Fact;
use crate::quick::QuickMap;

/// What a run made itself.
#[derive(Debug, Default)]
pub struct Made<'a> {
    /// What was written, and whether it may hold what was there before, or elsewhere.
    kept: QuickMap<&'a str, bool>,
}

impl<'a> Made<'a> {
    /// Takes a fact in, when it tells that something was made.
    pub fn note(&mut self, fact: &Fact, name: &'a str) {
        if fact.kind == Kind::Write {
            *self.kept.entry(name).or_default() |=
                fact.origin.is_foreign() && fact.has(flags::KEPT);
        }
    }

    /// Whether a path was made by this run itself, or lies in a directory that was; but not where it goes
    /// through something that leads elsewhere, or was there before.
    pub fn covers(&self, path: &str) -> bool {
        let mut place = path;
        loop {
            if let Some(kept) = self.kept.get(place) {
                return !kept;
            }
            match place.rsplit_once('/') {
                Some((above, _)) if !above.is_empty() => place = above,
                _ => return false,
            }
        }
    }
}
