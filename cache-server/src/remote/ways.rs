//! Which scopes of the place behind the server are asked for whom, and into which one results go: the one module that
//! decides it, from what [`crate::principal`] says. Called by lookups, by who brings blobs, and by the outbox.
//!
//! The server's own user, and anybody where no token is asked for, has what the server has there. For who has a token
//! the place is asked where it keeps scopes apart, as a bucket does: for the scopes that they read, each by its own
//! name, so that what one job stored reaches no job that may not read it here either.

use kiln_storage::Scope;

use super::Edge;
use crate::principal::{Policy, Rights, Scoped};

/// Where results come from, and to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Way {
    /// The scope that they come to.
    pub here: Scoped,
    /// The scopes that are asked there, in order.
    pub there: Vec<Scope>,
}

impl Edge {
    /// How results come from behind the server for somebody; nothing: it is not asked for them.
    pub(crate) fn ways(&self, rights: &Rights) -> Vec<Way> {
        if let Some(own) = rights.farther() {
            return vec![Way { here: own.clone(), there: self.scopes.clone() }];
        }
        if !self.remote.keeps_scopes() {
            return Vec::new();
        }
        let way = |one: &Scoped| Way { here: one.clone(), there: vec![one.scope.clone()] };
        rights.apart().iter().map(way).collect()
    }

    /// Whether results that are stored in a scope here (by its id) are sent.
    pub(crate) fn sends_of(&self, policy: &Policy, scope: &str) -> bool {
        self.sends && (policy.goes_on(scope) || self.remote.keeps_scopes())
    }

    /// The scope there that a result goes to from a scope here, by its id and, where that is known, its name; none:
    /// it must not be there.
    pub(crate) fn written(
        &self,
        policy: &Policy,
        id: &str,
        named: Option<&Scope>,
    ) -> Option<Scope> {
        match policy.goes_on(id) {
            true => Some(self.own_scope()),
            false => named.filter(|_| self.remote.keeps_scopes()).cloned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kiln_storage::testing::remote::MemoryRemote;

    use super::*;
    use crate::config::RemoteConfig;
    use crate::principal::Kind;

    #[test]
    fn who_has_no_token_has_a_place_asked_for_all_or_for_nothing() {
        let remote = Arc::new(MemoryRemote::default());
        let edge = Edge::new(remote.clone(), &RemoteConfig::default());
        let own = Scoped::from(Scope::new("r", "main"));
        let ways = |kind: Kind| {
            let (name, reads, writes) = (String::new(), vec![own.clone()], Some(own.clone()));
            let (by, allowance) = Default::default();
            let ways = edge.ways(&Rights { kind, name, by, allowance, reads, writes });
            ways.into_iter().flat_map(|way| way.there).collect::<Vec<_>>()
        };
        for keeps in [false, true] {
            remote.set_keeps_scopes(keeps);
            for kind in [Kind::Local, Kind::Open] {
                assert_eq!(ways(kind), [edge.own_scope()]);
            }
            assert_eq!(ways(Kind::Public), []);
            assert_eq!(ways(Kind::Named).is_empty(), !keeps);
        }
        assert_eq!(ways(Kind::Named), [own.scope]);
    }
}
