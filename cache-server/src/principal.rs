//! Who asks, and for which scopes: [`Policy::resolve`] is the only place that decides it.
//!
//! A [`Principal`] reads some scopes, in order, and writes at most one. Answers are made from the first; what is
//! stored, quarantined or noted goes to the second.

use std::ops::Deref;
use std::sync::Arc;

use kiln_storage::Scope;

use crate::error::ApiError;

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// A unix socket, with the user of the other process where the system tells it.
    Unix {
        /// The user.
        uid: Option<u32>,
    },
    /// TCP.
    Tcp,
}

/// A scope with its [`Scope::id`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scoped {
    /// The scope.
    pub scope: Scope,
    /// Its id.
    pub id: String,
}

impl From<Scope> for Scoped {
    fn from(scope: Scope) -> Self {
        Self { id: scope.id(), scope }
    }
}

/// What somebody was let in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The unix socket: they are on this machine and have the rights of the server, so paths mean the same to both.
    Local,
    /// TCP without a name, where the server asks for none.
    Open,
}

/// What somebody may do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rights {
    /// What they were let in by.
    pub kind: Kind,
    /// The scopes that they see, in the order in which answers are looked for: the own one first.
    pub reads: Vec<Scoped>,
    /// The scope that they write.
    pub writes: Option<Scoped>,
}

/// Somebody who may make requests; clones share the rights.
#[derive(Debug, Clone)]
pub(crate) struct Principal(Arc<Rights>);

impl Deref for Principal {
    type Target = Rights;
    fn deref(&self) -> &Rights {
        &self.0
    }
}

impl From<Rights> for Principal {
    fn from(rights: Rights) -> Self {
        Self(Arc::new(rights))
    }
}

impl Rights {
    /// Those of somebody with one scope.
    fn of_one(kind: Kind, scope: Scope) -> Self {
        let scope = Scoped::from(scope);
        Self { kind, reads: vec![scope.clone()], writes: Some(scope) }
    }

    /// Whether they are on this machine, with the rights of the server.
    pub(crate) fn local(&self) -> bool {
        self.kind == Kind::Local
    }

    /// The scope that they write.
    ///
    /// # Errors
    /// [`ApiError::Forbidden`]: they write none.
    pub(crate) fn writes(&self) -> Result<&Scoped, ApiError> {
        self.writes.as_ref().ok_or(ApiError::Forbidden("what you are known by may read only"))
    }

    /// The scope that is asked first.
    ///
    /// # Errors
    /// [`ApiError::Forbidden`]: they read none.
    pub(crate) fn first(&self) -> Result<&Scoped, ApiError> {
        self.reads.first().ok_or(ApiError::Forbidden("what you are known by may read nothing"))
    }

    /// The scope that results from behind the server come to when they ask; none: what is behind it is not asked for
    /// them.
    pub(crate) fn farther(&self) -> Option<&Scoped> {
        match self.kind {
            Kind::Local | Kind::Open => self.writes.as_ref(),
        }
    }

    /// The ids of the scopes that they read, in order.
    pub(crate) fn read_ids(&self) -> Vec<String> {
        self.reads.iter().map(|scoped| scoped.id.clone()).collect()
    }

    /// The repositories of which they may read blobs.
    pub(crate) fn repositories(&self) -> Vec<String> {
        let mut all: Vec<String> =
            self.scopes().map(|scoped| scoped.scope.repository().to_owned()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// All their scopes.
    pub(crate) fn scopes(&self) -> impl Iterator<Item = &Scoped> {
        self.reads.iter().chain(&self.writes)
    }
}

/// What the server knows about itself for this decision.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    /// The user that the server runs as.
    uid: u32,
    /// Who comes by the unix socket.
    local: Principal,
    /// Who comes by TCP.
    open: Principal,
}

impl Policy {
    /// That of a server of a user. `tcp_scope`: that of requests over TCP, where it is not the user's.
    pub(crate) fn new(uid: u32, tcp_scope: Option<Scope>) -> Self {
        let own = Scope::local_user(uid);
        let tcp = tcp_scope.unwrap_or_else(|| own.clone());
        Self {
            uid,
            local: Rights::of_one(Kind::Local, own).into(),
            open: Rights::of_one(Kind::Open, tcp).into(),
        }
    }

    /// Who needs no name.
    pub(crate) fn own(&self) -> [&Principal; 2] {
        [&self.local, &self.open]
    }

    /// The principal of a connection.
    ///
    /// On a unix socket it is the server's own user (or root, who could be it); nobody else may ask.
    /// Over TCP it is who has the configured scope.
    ///
    /// # Errors
    /// [`ApiError::Forbidden`].
    pub(crate) fn resolve(&self, peer: Peer) -> Result<Principal, ApiError> {
        match peer {
            Peer::Unix { uid: Some(uid) } if uid == self.uid || uid == 0 => Ok(self.local.clone()),
            Peer::Unix { .. } => Err(ApiError::Forbidden("this socket belongs to another user")),
            Peer::Tcp => Ok(self.open.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_user_and_root_may_use_the_socket() {
        let tcp_scope = Scope::new("r", "main");
        let policy = Policy::new(7, Some(tcp_scope.clone()));
        for uid in [0, 7] {
            let principal = policy.resolve(Peer::Unix { uid: Some(uid) }).unwrap();
            assert_eq!(principal.writes().unwrap().scope, Scope::local_user(7));
            assert!(principal.local());
        }
        for uid in [Some(8), None] {
            assert!(policy.resolve(Peer::Unix { uid }).is_err());
        }
        let tcp = policy.resolve(Peer::Tcp).unwrap();
        assert_eq!(tcp.first().unwrap().scope, tcp_scope);
        assert!(!tcp.local());
    }

    #[test]
    fn who_writes_nothing_is_told() {
        let reads = ["own", "main"].map(|name| Scope::new("r", name).into()).to_vec();
        let reader = Rights { kind: Kind::Open, reads, writes: None };
        assert!(matches!(reader.writes(), Err(ApiError::Forbidden(_))));
        assert_eq!(reader.first().unwrap().scope.reference(), "own");
        assert_eq!(reader.repositories(), ["r"]);
    }
}
