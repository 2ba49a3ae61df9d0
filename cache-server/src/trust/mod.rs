//! Who gets in over TCP: by tokens that an administrator made ([`tokens`]), and by those of a CI service, which are
//! verified ([`claims`], [`keys`]), mapped to scopes ([`rules`]) and exchanged for a session ([`sessions`]).
//!
//! Called by [`crate::principal`] for each request and by [`crate::routes::session`].

pub(crate) mod attempts;
pub(crate) mod claims;
pub(crate) mod command;
pub(crate) mod document;
pub(crate) mod keys;
pub(crate) mod rules;
pub(crate) mod secret;
pub(crate) mod sessions;
pub(crate) mod spending;
pub(crate) mod tokens;
pub(crate) mod watch;

#[cfg(test)]
#[path = "../../tests/server/issuer.rs"]
#[allow(dead_code, unreachable_pub, reason = "the tests from outside have it, too")]
mod issuer;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use attempts::Attempts;
use claims::{Claims, Doubt};
use keys::{Fetch, IssuerKeys, Web};
use rules::{Given, Refusal, Rules};
use secret::{Hash, SESSION_PREFIX, Secret};
use sessions::{NoSession, Sessions};
use spending::{Allowance, Spending};
use tokens::Tokens;

use crate::limits::DEFAULT_SHARE_PERCENT;
use crate::maker::{By, Job};
use crate::principal::{Kind, Principal, Rights};

/// Who is known.
#[derive(Debug)]
pub(crate) struct Trust {
    tokens: Tokens,
    sessions: Sessions,
    services: Option<Services>,
    attempts: Attempts,
    spending: Spending,
}

/// The CI services whose tokens are taken.
#[derive(Debug)]
struct Services {
    now: Mutex<Arc<Ruled>>,
    fetch: Arc<dyn Fetch>,
}

/// What holds until the rules change.
#[derive(Debug)]
struct Ruled {
    rules: Rules,
    /// By the position of their issuers.
    keys: Vec<IssuerKeys>,
    public: Option<Principal>,
}

impl Services {
    fn now(&self) -> Arc<Ruled> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Ruled {
    fn by(rules: Rules) -> Self {
        let scopes = rules.public();
        let public = (!scopes.is_empty()).then(|| {
            let reads = scopes.into_iter().map(Into::into).collect();
            let (name, by) = ("public".to_owned(), By::Anybody);
            let allowance = Allowance::default();
            Rights { kind: Kind::Public, name, by, allowance, reads, writes: None }.into()
        });
        let keys = rules.issuers.iter().map(|one| IssuerKeys::at(one.keys_url())).collect();
        Self { rules, keys, public }
    }

    /// Who somebody is whose token said this.
    fn gives(&self, claims: &Claims) -> Result<Principal, Refusal> {
        let Given { reads, writes, allowance } = rules::map(claims, &self.rules)?;
        let by = by(claims);
        let rights = Rights {
            kind: Kind::Named,
            name: by.name(),
            by,
            allowance,
            reads: reads.into_iter().map(Into::into).collect(),
            writes: writes.map(Into::into),
        };
        Ok(rights.into())
    }

    /// Who somebody is who had a session before; none: they have other rights now, or their token would not be taken.
    fn still_gives(&self, claims: &Claims, before: &Principal) -> Option<Principal> {
        let takes = self.rules.issuers.iter().any(|one| one.url == claims.iss);
        let takes = takes && self.rules.audience == claims.aud;
        let now = self.gives(claims).ok().filter(|_| takes)?;
        (now.reads == before.reads && now.writes == before.writes).then_some(now)
    }
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
        let now = |rules| Mutex::new(Arc::new(Ruled::by(rules)));
        let services = rules.map(|rules| Services { now: now(rules), fetch });
        let (tokens, sessions) = (Tokens::of(dir), Sessions::default());
        let (attempts, spending) = Default::default();
        Self { tokens, sessions, services, attempts, spending }
    }

    /// Goes by other rules from now on. How many sessions that ended.
    pub(crate) fn go_by(&self, rules: Rules) -> usize {
        let Some(services) = &self.services else { return 0 };
        let ruled = Arc::new(Ruled::by(rules));
        *services.now.lock().unwrap_or_else(PoisonError::into_inner) = ruled.clone();
        self.sessions.revise(|claims, before| ruled.still_gives(claims, before))
    }

    /// Whether nobody gets in over TCP who is not known.
    pub(crate) fn is_required(&self) -> bool {
        self.services.is_some() || self.tokens.are_required()
    }

    /// Who may come without a token, where one is required.
    pub(crate) fn public(&self) -> Option<Principal> {
        self.services.as_ref()?.now().public.clone()
    }

    /// The tokens that an administrator made.
    pub(crate) fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// What came from which address of late.
    pub(crate) fn attempts(&self) -> &Attempts {
        &self.attempts
    }

    /// How much of a store that is full a repository may hold, percent.
    pub(crate) fn share(&self, repository: &str) -> u8 {
        let ruled = self.services.as_ref().map(Services::now);
        let share = ruled.and_then(|ruled| ruled.rules.share(repository));
        share.unwrap_or(DEFAULT_SHARE_PERCENT)
    }

    /// How much who is known has asked for of late.
    pub(crate) fn spending(&self) -> &Spending {
        &self.spending
    }

    /// Who has a token.
    pub(crate) fn who(&self, token: &str, now_ms: u64) -> Option<Principal> {
        let hash = Hash::of(token);
        match token.starts_with(SESSION_PREFIX) {
            true => self.sessions.who(&hash, now_ms),
            false => self.tokens.who(&hash, now_ms),
        }
    }

    /// Whether anybody could begin a session.
    pub(crate) fn gives_sessions(&self) -> bool {
        self.services.is_some()
    }

    /// A session for a token of a CI service.
    ///
    /// # Errors
    /// [`Refused`].
    pub(crate) async fn exchange(&self, token: &str, now_ms: u64) -> Result<Begun, Refused> {
        let services = self.services.as_ref().ok_or(Refused::None)?;
        let (ruled, fetch) = (services.now(), &*services.fetch);
        let Ruled { rules, keys, .. } = &*ruled;
        let unverified = claims::read(token)?;
        let known = rules.issuers.iter().position(|one| one.url == unverified.iss);
        let keys = known.and_then(|at| keys.get(at)).ok_or(Doubt::Issuer)?;
        let key = match keys.key(fetch, &unverified.kid).await {
            (Some(key), _) => key,
            (None, Some(why)) => return Err(Refused::NoKeys(why)),
            (None, None) => return Err(Doubt::Key.into()),
        };
        let claims = unverified.verify(&key, &rules.audience, now_ms / 1000)?;
        let principal = ruled.gives(&claims)?;
        let lasts = rules.session();
        let ends_ms = now_ms + u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX / 2);
        let secret = self.sessions.begin(&claims, principal.clone(), (now_ms, ends_ms));
        let secret = secret.map_err(|why| match why {
            NoSession::Replayed => Refused::Replayed,
            NoSession::Full | NoSession::Chance => Refused::Full,
        })?;
        // Rules that came meanwhile did not see this session.
        let now = services.now();
        if !Arc::ptr_eq(&now, &ruled) {
            self.sessions.revise(|claims, before| now.still_gives(claims, before));
        }
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
