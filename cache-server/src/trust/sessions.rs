//! [`Sessions`]: tokens that were given for tokens of a CI service, in memory; and which of those were used up.
//!
//! A session is what the rules give to what its token says: it ends when they give something else ([`Sessions::revise`]).
//!
//! A token of a CI service is good for one session: who reads it somewhere later gets nothing for it. A server that
//! starts anew knows of no session, and clients ask for another one; it forgets which tokens were used up, too, and
//! those that are valid for minutes yet could be used again.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kiln_storage::Digest;
use kiln_storage::encode::Encoder;

use super::claims::Claims;
use super::secret::{Hash, SESSION_PREFIX, Secret};
use crate::limits::{CLOCK_LEEWAY_S, MAX_SESSIONS, MAX_SESSIONS_OF_RUN};
use crate::principal::Principal;

/// Why no session was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoSession {
    /// The token was used before.
    Replayed,
    /// There are too many.
    Full,
    /// The system has no chance to give.
    Chance,
}

/// The sessions of a server.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By what is kept of their tokens.
    sessions: HashMap<Digest, Session>,
    /// Tokens that were used up, with when they end, milliseconds since 1970.
    used: HashMap<Digest, u64>,
}

#[derive(Debug)]
struct Session {
    claims: Claims,
    principal: Principal,
    ends_ms: u64,
}

impl Sessions {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a session for a verified token, which is one of an issuer and of a name.
    ///
    /// # Errors
    /// [`NoSession`].
    pub(crate) fn begin(
        &self,
        claims: &Claims,
        principal: Principal,
        (now_ms, ends_ms): (u64, u64),
    ) -> Result<Secret, NoSession> {
        let Claims { iss, jti, exp, .. } = claims;
        let token = Encoder::new("kiln used token v1").text("iss", iss).text("jti", jti).finish();
        let secret = Secret::make(SESSION_PREFIX).ok_or(NoSession::Chance)?;
        let mut state = self.state();
        if state.sessions.len() >= MAX_SESSIONS || state.used.len() >= MAX_SESSIONS {
            state.sessions.retain(|_, session| session.ends_ms > now_ms);
            state.used.retain(|_, ends_ms| *ends_ms > now_ms);
        }
        if state.used.contains_key(&token) {
            return Err(NoSession::Replayed);
        }
        let run = principal.name.clone();
        let of_run = || state.sessions.iter().filter(|(_, session)| session.principal.name == run);
        if of_run().count() >= MAX_SESSIONS_OF_RUN {
            let oldest = of_run().min_by_key(|(_, session)| session.ends_ms).map(|(hash, _)| *hash);
            oldest.map(|hash| state.sessions.remove(&hash));
        }
        if state.sessions.len() >= MAX_SESSIONS || state.used.len() >= MAX_SESSIONS {
            return Err(NoSession::Full);
        }
        // As long as anybody could believe it.
        let until = exp.saturating_add(CLOCK_LEEWAY_S + 1).saturating_mul(1000);
        state.used.insert(token, until);
        state
            .sessions
            .insert(secret.hash().digest(), Session { claims: claims.clone(), principal, ends_ms });
        Ok(secret)
    }

    /// Looks at all sessions anew, by what their tokens said: who has it now; none: it ends. How many ended.
    pub(crate) fn revise(&self, now: impl Fn(&Claims, &Principal) -> Option<Principal>) -> usize {
        let mut state = self.state();
        let before = state.sessions.len();
        state.sessions.retain(|_, session| match now(&session.claims, &session.principal) {
            Some(principal) => {
                session.principal = principal;
                true
            }
            None => false,
        });
        before - state.sessions.len()
    }

    /// Who has a session.
    pub(crate) fn who(&self, hash: &Hash, now_ms: u64) -> Option<Principal> {
        let state = self.state();
        let session = state.sessions.get(&hash.digest())?;
        (now_ms < session.ends_ms).then(|| session.principal.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::principal::{Kind, Rights};

    fn nobody() -> Principal {
        named(String::new())
    }

    fn named(name: String) -> Principal {
        let (by, allowance) = Default::default();
        let rights =
            Rights { kind: Kind::Named, name, by, allowance, reads: Vec::new(), writes: None };
        rights.into()
    }

    fn of(iss: &str, jti: &str) -> Claims {
        Claims { iss: iss.to_owned(), jti: jti.to_owned(), exp: 300, ..Claims::default() }
    }

    #[test]
    fn a_session_ends_when_nothing_is_given_for_it_any_more() {
        let sessions = Sessions::default();
        let begin = |jti: &str| sessions.begin(&of("i", jti), nobody(), (1, 9)).unwrap().hash();
        let (one, two) = (begin("1"), begin("2"));
        let ended = sessions.revise(|claims, who| (claims.jti == "1").then(|| who.clone()));
        assert_eq!(ended, 1);
        assert!(sessions.who(&one, 2).is_some() && sessions.who(&two, 2).is_none());
        assert_eq!(sessions.begin(&of("i", "2"), nobody(), (2, 9)), Err(NoSession::Replayed));
    }

    #[test]
    fn a_token_is_good_for_one_session_and_that_for_a_time() {
        let sessions = Sessions::default();
        let begin =
            |jti: &str, now_ms| sessions.begin(&of("i", jti), nobody(), (now_ms, now_ms + 1000));
        let session = begin("a", 1000).unwrap();
        assert_eq!(begin("a", 2000), Err(NoSession::Replayed));
        assert!(begin("b", 2000).is_ok());
        assert!(sessions.begin(&of("other", "a"), nobody(), (1, 2)).is_ok());
        assert!(sessions.who(&session.hash(), 1999).is_some());
        assert!(sessions.who(&session.hash(), 2000).is_none());
        assert!(sessions.who(&Hash::of("kiln_s_0"), 1500).is_none());
    }

    #[test]
    fn one_run_does_not_use_all_up() {
        let sessions = Sessions::default();
        let begin = |run: &str, n: usize| {
            let claims = of("i", &format!("{run} {n}"));
            let ends_ms = 1_000 + n as u64;
            sessions.begin(&claims, named(run.to_owned()), (1, ends_ms)).unwrap().hash()
        };
        let other = begin("other", 0);
        let all: Vec<Hash> = (0..=MAX_SESSIONS_OF_RUN).map(|n| begin("run", n)).collect();
        let last = all.len() - 1;
        assert!(sessions.who(&all[0], 2).is_none(), "the oldest has gone");
        assert!(
            [&all[1], &all[last], &other].into_iter().all(|one| sessions.who(one, 2).is_some())
        );
    }

    #[test]
    fn there_are_so_many_and_no_more() {
        let sessions = Sessions::default();
        let begin = |n: usize, now_ms: u64| {
            let claims = Claims { exp: 1, ..of("i", &n.to_string()) };
            let run = named((n / MAX_SESSIONS_OF_RUN).to_string());
            sessions.begin(&claims, run, (now_ms, 100_000)).map(drop)
        };
        for n in 0..MAX_SESSIONS {
            begin(n, 1).unwrap();
        }
        assert_eq!(begin(MAX_SESSIONS, 1), Err(NoSession::Full));
        assert_eq!(begin(0, 1), Err(NoSession::Replayed));
        assert_eq!(begin(MAX_SESSIONS, 200_000), Ok(()), "those that are over make room");
    }
}
