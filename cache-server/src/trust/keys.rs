//! [`IssuerKeys`]: the keys of one issuer, fetched when they are needed, and kept.
//!
//! [`State`] decides, and is pure: keys are fetched again when a token names one that is not known, but not more often
//! than once a minute whatever tokens come, and when they are an hour old. When the issuer does not answer, those that
//! are there are good for a day.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use kiln_storage::StoreResult;
use kiln_storage::remote::get;
use tokio::sync::Mutex;

use super::claims::{Key, Keys, keys};
use crate::limits::{KEYS_FRESH, KEYS_RETRY, KEYS_STALE, MAX_KEY_SET_BYTES};

/// Where documents come from.
#[async_trait]
pub(crate) trait Fetch: Send + Sync + std::fmt::Debug {
    /// A document.
    async fn fetch(&self, url: &str) -> StoreResult<Bytes>;
}

/// By HTTPS.
#[derive(Debug)]
pub(crate) struct Web;

#[async_trait]
impl Fetch for Web {
    async fn fetch(&self, url: &str) -> StoreResult<Bytes> {
        get::get(url, None, MAX_KEY_SET_BYTES).await
    }
}

/// The keys of an issuer as far as they are known.
#[derive(Debug, Default)]
struct State {
    keys: Keys,
    fetched: Option<Instant>,
    tried: Option<Instant>,
}

impl State {
    /// Whether they are to be fetched before a key is looked for.
    fn asks(&self, kid: &str, now: Instant) -> bool {
        let since = |at: Option<Instant>| at.map(|at| now.saturating_duration_since(at));
        let over = |age: Option<Duration>, limit| age.is_none_or(|age| age >= limit);
        let wanted = !self.keys.contains_key(kid) || over(since(self.fetched), KEYS_FRESH);
        wanted && over(since(self.tried), KEYS_RETRY)
    }

    /// They were fetched, or were not to be had.
    fn fetched(&mut self, found: Option<Keys>, now: Instant) {
        self.tried = Some(now);
        if let Some(found) = found {
            self.keys = found;
            self.fetched = Some(now);
        }
    }

    fn key(&self, kid: &str, now: Instant) -> Option<&Key> {
        let age = now.saturating_duration_since(self.fetched?);
        self.keys.get(kid).filter(|_| age < KEYS_STALE)
    }
}

/// The keys of an issuer.
#[derive(Debug)]
pub(crate) struct IssuerKeys {
    url: String,
    state: Mutex<State>,
}

impl IssuerKeys {
    /// Those at a place; nothing is fetched yet.
    pub(crate) fn at(url: String) -> Self {
        Self { url, state: Mutex::default() }
    }

    /// The key of a name, and why there was no answer when they were to be fetched.
    pub(crate) async fn key(&self, fetch: &dyn Fetch, kid: &str) -> (Option<Key>, Option<String>) {
        // Who comes meanwhile waits: one question is enough.
        let mut state = self.state.lock().await;
        let mut fault = None;
        if state.asks(kid, Instant::now()) {
            let found = match fetch.fetch(&self.url).await {
                Ok(document) => {
                    let found = keys(&document).filter(|found| !found.is_empty());
                    if found.is_none() {
                        fault = Some("its answer is no set of keys".to_owned());
                    }
                    found
                }
                Err(error) => {
                    fault = Some(error.to_string());
                    None
                }
            };
            state.fetched(found, Instant::now());
        }
        (state.key(kid, Instant::now()).cloned(), fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::issuer::TestKey;

    fn set(kid: &str) -> Keys {
        keys(TestKey::nth(0).key_set(kid).to_string().as_bytes()).unwrap()
    }

    #[test]
    fn keys_are_fetched_when_needed_and_no_more_often_than_that() {
        let begun = Instant::now();
        let at = |seconds: u64| begun + Duration::from_secs(seconds);
        let (retry, fresh, stale) =
            (KEYS_RETRY.as_secs(), KEYS_FRESH.as_secs(), KEYS_STALE.as_secs());
        let mut state = State::default();
        assert!(state.asks("a", at(0)));
        state.fetched(None, at(0));
        assert!(!state.asks("a", at(retry - 1)) && state.asks("a", at(retry)));
        state.fetched(Some(set("a")), at(retry));
        let came = retry;
        assert!(state.key("a", at(came)).is_some());
        assert!(!state.asks("a", at(came + fresh - 1)));
        // Tokens with made-up names of keys.
        assert!(!state.asks("b", at(came + retry - 1)) && state.asks("b", at(came + retry)));
        state.fetched(Some(set("a")), at(came + retry));
        assert!(!state.asks("c", at(came + retry + 1)));
        // The issuer has other keys by now.
        state.fetched(Some(set("b")), at(came + 2 * retry));
        assert!(state.key("a", at(came + 2 * retry)).is_none());
        // It is away.
        let last = came + 2 * retry;
        assert!(state.asks("b", at(last + fresh)));
        state.fetched(None, at(last + fresh));
        assert!(state.key("b", at(last + stale - 1)).is_some());
        assert!(state.key("b", at(last + stale)).is_none());
    }
}
