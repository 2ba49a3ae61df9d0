//! Who asks, and for which scope: [`resolve`] is the only place that decides it.

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

/// What the server knows about itself for this decision.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    /// The user that the server runs as.
    pub uid: u32,
    /// The scope of requests over TCP.
    pub tcp_scope: Scope,
}

/// Somebody who may make requests.
#[derive(Debug, Clone)]
pub(crate) struct Principal {
    /// What they see and write.
    pub scope: Scope,
    /// [`Scope::id`] of it.
    pub scope_id: String,
    /// They are on this machine and have the rights of the server: paths mean the same to both.
    pub local: bool,
}

/// The principal of a connection.
///
/// On a unix socket it is the server's own user (or root, who could be it); nobody else may ask.
/// Over TCP it is the configured scope.
///
/// # Errors
/// [`ApiError::Forbidden`].
pub(crate) fn resolve(policy: &Policy, peer: Peer) -> Result<Principal, ApiError> {
    let (scope, local) = match peer {
        Peer::Unix { uid: Some(uid) } if uid == policy.uid || uid == 0 => {
            (Scope::local_user(policy.uid), true)
        }
        Peer::Unix { .. } => {
            return Err(ApiError::Forbidden("this socket belongs to another user"));
        }
        Peer::Tcp => (policy.tcp_scope.clone(), false),
    };
    Ok(Principal { scope_id: scope.id(), scope, local })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_user_and_root_may_use_the_socket() {
        let policy = Policy { uid: 7, tcp_scope: Scope::new("r", "main") };
        for uid in [0, 7] {
            let principal = resolve(&policy, Peer::Unix { uid: Some(uid) }).unwrap();
            assert_eq!(principal.scope, Scope::local_user(7));
            assert!(principal.local);
        }
        for uid in [Some(8), None] {
            assert!(resolve(&policy, Peer::Unix { uid }).is_err());
        }
        let tcp = resolve(&policy, Peer::Tcp).unwrap();
        assert_eq!(tcp.scope, policy.tcp_scope);
        assert!(!tcp.local);
    }
}
