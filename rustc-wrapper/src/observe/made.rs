//! [`Made`]: what a run made itself, up to a moment. What is read there later is no input.

use std::collections::BTreeSet;

use kiln_observer::log::{Kind, flags};

use super::seen::Fact;

/// What a run made itself.
#[derive(Debug, Default)]
pub struct Made<'a> {
    written: BTreeSet<&'a str>,
    /// What was written and may hold what was there before, or elsewhere.
    kept: BTreeSet<&'a str>,
}

impl<'a> Made<'a> {
    /// Takes a fact in, when it tells that something was made.
    pub fn note(&mut self, fact: &Fact, name: &'a str) {
        if fact.kind == Kind::Write {
            match fact.origin.is_foreign() && fact.has(flags::KEPT) {
                true => self.kept.insert(name),
                false => self.written.insert(name),
            };
        }
    }

    /// Whether a path was made by this run itself, or lies in a directory that was; but not where it goes
    /// through something that leads elsewhere, or was there before.
    pub fn covers(&self, path: &str) -> bool {
        let mut place = path;
        loop {
            if self.kept.contains(place) {
                return false;
            }
            if self.written.contains(place) {
                return true;
            }
            match place.rsplit_once('/') {
                Some((above, _)) if !above.is_empty() => place = above,
                _ => return false,
            }
        }
    }
}
