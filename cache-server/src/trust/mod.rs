//! Who gets in over TCP: by tokens that an administrator made ([`tokens`]), and by those of a CI service, which are
//! verified ([`claims`], [`keys`]), mapped to scopes ([`rules`]) and exchanged for a session ([`sessions`]).
//!
//! Called by [`crate::principal`] for each request and by [`crate::routes::session`].

pub(crate) mod attempts;
pub(crate) mod claims;
pub(crate) mod command;
pub(crate) mod keys;
pub(crate) mod rules;
pub(crate) mod secret;
pub(crate) mod sessions;
pub(crate) mod tokens;

#[cfg(test)]
#[path = "../../tests/server/issuer.rs"]
#[allow(dead_code, unreachable_pub, reason = "the tests from outside have it, too")]
mod issuer;

use std::path::Path;
use std::sync::Arc;

use attempts::Attempts;
use claims::{Claims, Doubt};
use keys::{Fetch, IssuerKeys, Web};
use rules::{Given, Refusal, Rules};
use secret::{Hash, SESSION_PREFIX, Secret};
use sessions::{NoSession, Sessions};
use tokens::Tokens;

use crate::maker::{By, Job};
use crate::principal::{Kind, Principal, Rights};

/// Who is known.
#[derive(Debug)]
pub(crate) struct Trust {
    tokens: Tokens,
    sessions: Sessions,
    services: Option<Services>,
    public: Option<Principal>,
    attempts: Attempts,
}

/// The CI services whose tokens are taken.
#[derive(Debug)]
struct Services {
    rules: Arc<Rules>,
    /// By the position of their issuers.
    keys: Vec<IssuerKeys>,
    fetch: Arc<dyn Fetch>,
}

/// A session that was given.
#[derive(Debug)]
pub(crate) struct Begun {
    /// What it is asked with.
    pub secret: Secret,
    /// Who has it.
    pub principal: Principal,
    /// How long it lasts, seconds.
    pub lasts_s: u64,
}

/// Why a token of a CI service got no session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// The server takes none.
    #[error("this server takes no tokens of CI services")]
    None,
    /// It is not believed.
    #[error("the token is refused: {0}")]
    Doubt(#[from] Doubt),
    /// The keys of its issuer are not to be had; the text is for the log.
    #[error("the keys of its issuer are not to be had: {0}")]
    NoKeys(String),
    /// It is good, and gets nothing.
    #[error("the token is refused: {0}")]
    Refusal(#[from] Refusal),
    /// It was used before.
    #[error("the token is refused: it was used before")]
    Replayed,
    /// Too many sessions.
    #[error("too many sessions")]
    Full,
}

impl Trust {
    /// What a server in a directory knows, with these rules for CI services.
    pub(crate) fn new(dir: &Path, rules: Option<Rules>) -> Self {
        Self::fetching(dir, rules, Arc::new(Web))
    }

    fn fetching(dir: &Path, rules: Option<Rules>, fetch: Arc<dyn Fetch>) -> Self {
        let public = rules.as_ref().map(Rules::public).filter(|scopes| !scopes.is_empty());
        let public = public.map(|scopes| {
            let reads = scopes.into_iter().map(Into::into).collect();
            let (name, by) = ("public".to_owned(), By::Anybody);
            Rights { kind: Kind::Public, name, by, reads, writes: None }.into()
        });
        let services = rules.map(|rules| Services {
            keys: rules.issuers.iter().map(|one| IssuerKeys::at(one.keys_url())).collect(),
            rules: Arc::new(rules),
            fetch,
        });
        let (tokens, sessions) = (Tokens::of(dir), Sessions::default());
        Self { tokens, sessions, services, public, attempts: Attempts::default() }
    }

    /// Whether nobody gets in over TCP who is not known.
    pub(crate) fn is_required(&self) -> bool {
        self.services.is_some() || self.tokens.are_required()
    }

    /// Who may come without a token, where one is required.
    pub(crate) fn public(&self) -> Option<&Principal> {
        self.public.as_ref()
    }

    /// The tokens that an administrator made.
    pub(crate) fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// What came from which address of late.
    pub(crate) fn attempts(&self) -> &Attempts {
        &self.attempts
    }

    /// Who has a token.
    pub(crate) fn who(&self, token: &str, now_ms: u64) -> Option<Principal> {
        let hash = Hash::of(token);
        match token.starts_with(SESSION_PREFIX) {
            true => self.sessions.who(&hash, now_ms),
            false => self.tokens.who(&hash, now_ms),
        }
    }

    /// A session for a token of a CI service.
    ///
    /// # Errors
    /// [`Refused`].
    pub(crate) async fn exchange(&self, token: &str, now_ms: u64) -> Result<Begun, Refused> {
        let Services { rules, keys, fetch } = self.services.as_ref().ok_or(Refused::None)?;
        let unverified = claims::read(token)?;
        let known = rules.issuers.iter().position(|one| one.url == unverified.iss);
        let keys = known.and_then(|at| keys.get(at)).ok_or(Doubt::Issuer)?;
        let key = match keys.key(&**fetch, &unverified.kid).await {
            (Some(key), _) => key,
            (None, Some(why)) => return Err(Refused::NoKeys(why)),
            (None, None) => return Err(Doubt::Key.into()),
        };
        let claims = unverified.verify(&key, &rules.audience, now_ms / 1000)?;
        let Given { reads, writes } = rules::map(&claims, rules)?;
        let by = by(&claims);
        let principal: Principal = Rights {
            kind: Kind::Named,
            name: by.name(),
            by,
            reads: reads.into_iter().map(Into::into).collect(),
            writes: writes.map(Into::into),
        }
        .into();
        let lasts = rules.session();
        let ends_ms = now_ms + u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX / 2);
        let used = (claims.iss.as_str(), claims.jti.as_str(), claims.exp);
        let secret = self.sessions.begin(used, principal.clone(), (now_ms, ends_ms));
        let secret = secret.map_err(|why| match why {
            NoSession::Replayed => Refused::Replayed,
            NoSession::Full | NoSession::Chance => Refused::Full,
        })?;
        Ok(Begun { secret, principal, lasts_s: lasts.as_secs() })
    }
}

/// Who a job is.
fn by(claims: &Claims) -> By {
    let claims = claims.clone();
    By::Job(Box::new(Job {
        issuer: claims.iss,
        repository_id: claims.repository_id,
        repository: claims.repository,
        run_id: claims.run_id,
        run_attempt: claims.run_attempt,
        workflow_ref: claims.workflow_ref,
        job_workflow_ref: claims.job_workflow_ref,
        reference: claims.reference,
        sha: claims.sha,
        event_name: claims.event_name,
        actor_id: claims.actor_id,
    }))
}
