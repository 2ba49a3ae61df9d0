//! [`Asker`]: who began a request, to be asked for again when its body is here and when it takes effect: by then a token
//! may be revoked. Called by [`crate::publish`].

use std::fmt;

use axum::extract::Request;
use kiln_storage::Scope;

use crate::error::ApiError;
use crate::http::middleware::peer_of;
use crate::principal::{Peer, Policy, token_of};

/// Who began a request. Shows no token.
#[derive(Clone)]
pub(crate) struct Asker {
    peer: Peer,
    token: Option<String>,
}

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Asker({:?})", self.peer)
    }
}

impl Asker {
    /// Who began a request.
    pub(crate) fn of(request: &Request) -> Self {
        let token = token_of(request.method(), request.headers());
        Self { peer: peer_of(request.extensions()), token }
    }

    /// Whether they write a scope now.
    ///
    /// # Errors
    /// [`ApiError::Unauthorized`], [`ApiError::Forbidden`].
    pub(crate) fn still_writes(&self, policy: &Policy, scope: &Scope) -> Result<(), ApiError> {
        let now = policy.resolve(self.peer, self.token.as_deref())?;
        match now.writes()?.scope == *scope {
            true => Ok(()),
            false => Err(ApiError::Forbidden("what you are known by writes another scope now")),
        }
    }
}
