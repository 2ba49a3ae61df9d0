//! [`Shares`]: how many leases there are in each scope, so that none takes them all from the others. Called by
//! [`super::State`].

use std::collections::HashMap;
use std::sync::Arc;

use crate::limits::MAX_HELD_LEASES;

/// How many there are in each scope that has one.
#[derive(Debug, Clone, Default)]
pub(super) struct Shares {
    each: HashMap<Arc<str>, usize>,
}

impl Shares {
    /// One more in a scope.
    pub(super) fn begins(&mut self, scope: &Arc<str>) {
        *self.each.entry(scope.clone()).or_default() += 1;
    }

    /// One less in a scope.
    pub(super) fn ends(&mut self, scope: &str) {
        let Some(has) = self.each.get_mut(scope) else { return };
        *has = has.saturating_sub(1);
        if *has == 0 {
            self.each.remove(scope);
        }
    }

    /// Whether a scope gets no more when there are so many in all: it has as many as are left. One alone gets half of
    /// them, the next one half of the rest.
    pub(super) fn has_enough(&self, scope: &str, all: usize) -> bool {
        self.each.get(scope).copied().unwrap_or_default() >= MAX_HELD_LEASES.saturating_sub(all)
    }

    /// Scopes that have one, and how many there are in all.
    #[cfg(test)]
    pub(super) fn counted(&self) -> (usize, usize) {
        (self.each.len(), self.each.values().sum())
    }
}
