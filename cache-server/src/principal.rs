//! Who asks, and for which scopes: [`Policy::resolve`] is the only place that decides it.
//!
//! A [`Principal`] reads some scopes, in order, and writes at most one. Answers are made from the first; what is
//! stored, quarantined or noted goes to the second.

use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, Method};
use kiln_storage::Scope;
use kiln_storage::remote::gha::token::decode;

use crate::clock;
use crate::error::ApiError;
use crate::maker::By;
use crate::trust::Trust;
use crate::trust::attempts::place;
use crate::trust::spending::Allowance;

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// A unix socket, with the user of the other process where the system tells it.
    Unix {
        /// The user.
        uid: Option<u32>,
    },
    /// TCP, with the address that it comes from.
    Tcp(Option<IpAddr>),
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
    /// A token.
    Named,
    /// Nothing, where tokens are asked for: they read what anybody may.
    Public,
}

/// What somebody may do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rights {
    /// What they were let in by.
    pub kind: Kind,
    /// What they are called in the log; never a secret.
    pub name: String,
    /// Who they are, for what they store.
    pub by: By,
    /// How much they may ask for.
    pub allowance: Allowance,
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
    fn of_one(kind: Kind, (name, by): (&str, By), scope: Scope) -> Self {
        let scope = Scoped::from(scope);
        let reads = vec![scope.clone()];
        let (name, allowance) = (name.to_owned(), Allowance::default());
        Self { kind, name, by, allowance, reads, writes: Some(scope) }
    }

    /// Whether they are on this machine, with the rights of the server.
    pub(crate) fn local(&self) -> bool {
        self.kind == Kind::Local
    }

    /// Whether they have no token where tokens are asked for.
    pub(crate) fn is_public(&self) -> bool {
        self.kind == Kind::Public
    }

    /// By what name it is counted what they ask for; none: it is not. Who has no token is told apart by address.
    pub(crate) fn spender(&self, peer: Peer) -> Option<String> {
        match (self.kind, peer) {
            (Kind::Local | Kind::Open, _) => None,
            (Kind::Public, Peer::Tcp(Some(address))) => Some(place(address).to_string()),
            (Kind::Named | Kind::Public, _) => Some(self.name.clone()),
        }
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

    /// The scope that all comes to from behind the server when they ask; none: it is not asked for them with the rights
    /// of the server. For single scopes it may be ([`Rights::apart`]).
    pub(crate) fn farther(&self) -> Option<&Scoped> {
        match self.kind {
            Kind::Local | Kind::Open => self.writes.as_ref(),
            Kind::Named | Kind::Public => None,
        }
    }

    /// The scopes for which a place that keeps scopes apart ([`kiln_storage::Remote::keeps_scopes`]) is asked when they
    /// ask: for each, what is stored there in the scope of that name, and nothing else. None for who has no token: what
    /// anybody can ask for is asked of nobody else.
    pub(crate) fn apart(&self) -> &[Scoped] {
        match self.kind {
            Kind::Named => &self.reads,
            Kind::Local | Kind::Open | Kind::Public => &[],
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
#[derive(Debug)]
pub(crate) struct Policy {
    /// The user that the server runs as.
    uid: u32,
    /// Who comes by the unix socket.
    local: Principal,
    /// Who comes by TCP, where nobody needs to be known.
    open: Principal,
    /// Who is known.
    trust: Trust,
}

impl Policy {
    /// That of a server of a user. `tcp_scope`: that of requests over TCP, where it is not the user's.
    pub(crate) fn new(uid: u32, tcp_scope: Option<Scope>, trust: Trust) -> Self {
        let own = Scope::local_user(uid);
        let tcp = tcp_scope.unwrap_or_else(|| own.clone());
        Self {
            uid,
            local: Rights::of_one(Kind::Local, ("local user", By::User { uid }), own).into(),
            open: Rights::of_one(Kind::Open, ("anybody", By::Anybody), tcp).into(),
            trust,
        }
    }

    /// Who needs no name.
    pub(crate) fn own(&self) -> [&Principal; 2] {
        [&self.local, &self.open]
    }

    /// The principal of a connection.
    ///
    /// On a unix socket it is the server's own user (or root, who could be it); nobody else may ask.
    /// Over TCP it is who has the token, where one is required, and who has the configured scope, where none is.
    ///
    /// # Errors
    /// [`ApiError::Forbidden`], [`ApiError::Unauthorized`].
    pub(crate) fn resolve(&self, peer: Peer, token: Option<&str>) -> Result<Principal, ApiError> {
        match peer {
            Peer::Unix { uid: Some(uid) } if uid == self.uid || uid == 0 => Ok(self.local.clone()),
            Peer::Unix { .. } => Err(ApiError::Forbidden("this socket belongs to another user")),
            Peer::Tcp(_) if !self.trust.is_required() => Ok(self.open.clone()),
            Peer::Tcp(_) => match token {
                Some(token) => self
                    .trust
                    .who(token, clock::now_ms())
                    .ok_or(ApiError::Unauthorized("the token is not known, over, or revoked")),
                None => self
                    .trust
                    .public()
                    .ok_or(ApiError::Unauthorized("this server asks for a token")),
            },
        }
    }

    /// Who is known.
    pub(crate) fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The ids of the scopes of which what is in them goes to what is behind the server.
    pub(crate) fn going_on(&self) -> Vec<String> {
        let scopes = self.own().into_iter().flat_map(|principal| principal.scopes());
        let mut ids: Vec<String> = scopes.map(|scoped| scoped.id.clone()).collect();
        ids.retain(|id| self.goes_on(id));
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Whether what is in a scope (by its id) goes to what is behind the server as the server's own: it is stored there
    /// where everybody who reads there finds it.
    pub(crate) fn goes_on(&self, scope: &str) -> bool {
        let is = |principal: &Principal| principal.scopes().any(|scoped| scoped.id == scope);
        is(&self.local) || (is(&self.open) && !self.trust.is_required())
    }
}

/// The token in the head of a request. Browsers send theirs as a password, and only for what changes nothing: another
/// page could make them.
pub(crate) fn token_of(method: &Method, headers: &HeaderMap) -> Option<String> {
    let text = headers.get(AUTHORIZATION)?.to_str().unwrap_or_default();
    let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let token = match scheme.to_ascii_lowercase().as_str() {
        "bearer" => rest.trim().to_owned(),
        "basic" if reads => password(rest.trim()).unwrap_or_default(),
        _ => String::new(),
    };
    Some(token)
}

/// The password of `user:password` in base64.
fn password(text: &str) -> Option<String> {
    let text = text.trim_end_matches('=').replace('+', "-").replace('/', "_");
    let pair = String::from_utf8(decode(&text)?).ok()?;
    Some(pair.split_once(':')?.1.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(uid: u32, tcp_scope: &Scope) -> (tempfile::TempDir, Policy) {
        let dir = tempfile::tempdir().unwrap();
        let trust = Trust::new(dir.path(), None);
        (dir, Policy::new(uid, Some(tcp_scope.clone()), trust))
    }

    #[test]
    fn only_the_own_user_and_root_may_use_the_socket() {
        let tcp_scope = Scope::new("r", "main");
        let (_dir, policy) = policy(7, &tcp_scope);
        for uid in [0, 7] {
            let principal = policy.resolve(Peer::Unix { uid: Some(uid) }, None).unwrap();
            assert_eq!(principal.writes().unwrap().scope, Scope::local_user(7));
            assert!(principal.local());
        }
        for uid in [Some(8), None] {
            assert!(policy.resolve(Peer::Unix { uid }, None).is_err());
        }
        let tcp = policy.resolve(Peer::Tcp(None), None).unwrap();
        assert_eq!(tcp.first().unwrap().scope, tcp_scope);
        assert!(!tcp.local());
    }

    #[test]
    fn who_writes_nothing_is_told() {
        let reads = ["own", "main"].map(|name| Scope::new("r", name).into()).to_vec();
        let (name, by, allowance) = Default::default();
        let reader = Rights { kind: Kind::Open, name, by, allowance, reads, writes: None };
        assert!(matches!(reader.writes(), Err(ApiError::Forbidden(_))));
        assert_eq!(reader.first().unwrap().scope.reference(), "own");
        assert_eq!(reader.repositories(), ["r"]);
    }

    #[test]
    fn a_token_comes_as_bearer_or_as_the_password_of_a_browser() {
        let check = |method: &Method, text: &str, token: Option<&str>| {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, text.parse().unwrap())]);
            assert_eq!(token_of(method, &headers).as_deref(), token, "{method} {text}");
        };
        assert_eq!(token_of(&Method::GET, &HeaderMap::new()), None);
        check(&Method::PUT, "Bearer kiln_t_1", Some("kiln_t_1"));
        check(&Method::PUT, "bearer  kiln_t_1 ", Some("kiln_t_1"));
        check(&Method::GET, "Basic dXNlcjpwYTo/Pz8+", Some("pa:???>"));
        check(&Method::POST, "Basic dXNlcjpwYTo/Pz8+", Some(""));
        for bad in ["Basic !", "Basic dXNlcg==", "Digest x", "kiln_t_1", ""] {
            check(&Method::GET, bad, Some(""));
        }
    }
}
