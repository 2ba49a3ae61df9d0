//! [`Settings`]: what the caller hands in. Nothing here is read from the environment; `docs/remote-gha.md`
//! says where each value comes from in a workflow.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::clock::{Clock, SystemClock};
use crate::key::Scope;

/// A text that is never shown: tokens, and addresses that carry a signature.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A secret with this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one who sends it.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Which of the two services is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Service {
    /// github.com: `ACTIONS_RESULTS_URL`. Only its origin counts.
    V2 {
        /// The address.
        results_url: String,
    },
    /// Forgejo, Gitea, act, GitHub Enterprise Server: `ACTIONS_CACHE_URL`. It may carry a token in its
    /// path, so it is a secret.
    V1 {
        /// The address.
        cache_url: Secret,
    },
}

/// What the workflow allows: `ACTIONS_CACHE_MODE`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Both, as far as the token goes.
    #[default]
    ReadWrite,
    /// Nothing is written.
    Read,
    /// Nothing is read. Nothing is written either: an index cannot be added to unread.
    WriteOnly,
    /// Neither.
    None,
}

impl Mode {
    /// The mode that a workflow has set. One that is not known is no bar, as for the official client: what may
    /// not be done is refused by the service.
    pub fn of(text: &str) -> Self {
        match text.trim().to_ascii_lowercase().as_str() {
            "read" => Self::Read,
            "write-only" => Self::WriteOnly,
            "none" => Self::None,
            _ => Self::ReadWrite,
        }
    }

    /// Why nothing is written, if nothing is.
    pub(super) fn no_writes(self) -> Option<&'static str> {
        match self {
            Self::ReadWrite => None,
            Self::Read => Some("the workflow's cache mode is `read`"),
            Self::WriteOnly => Some(
                "the workflow's cache mode is `write-only`, and an index cannot be added to unread",
            ),
            Self::None => Some("the workflow's cache mode is `none`"),
        }
    }

    /// Whether anything is read.
    pub(super) fn reads(self) -> bool {
        matches!(self, Self::ReadWrite | Self::Read)
    }
}

/// All that a [`super::GhaRemote`] has to be told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where.
    pub service: Service,
    /// `ACTIONS_RUNTIME_TOKEN`.
    pub token: Secret,
    /// `ACTIONS_CACHE_MODE`.
    pub mode: Mode,
    /// The scopes that are read: blobs are looked for in them, even before anything is looked up.
    pub scopes: Vec<Scope>,
    /// Jobs that run at the same time in this repository, about: the size of the matrix. New entries a
    /// minute are shared among so many.
    pub sharers: u32,
    /// Most bytes that are collected and not uploaded yet, in memory; also most bytes of what is being
    /// framed to be collected.
    pub spool_bytes: u64,
    /// Longest that one request may take, its bytes aside.
    pub request_timeout: Duration,
    /// The HTTP client, where the process has one to share; else one of its own is made, which takes a
    /// while: it reads the certificates of the system.
    pub client: Option<reqwest::Client>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// What the runner shows an action, under the names in the docs; empty values are missing.
#[derive(Debug, Clone, Default)]
pub struct Runner {
    /// `ACTIONS_RESULTS_URL`.
    pub results_url: Option<String>,
    /// `ACTIONS_CACHE_URL`.
    pub cache_url: Option<Secret>,
    /// `ACTIONS_CACHE_SERVICE_V2`: whether it is there and not empty.
    pub service_v2: bool,
    /// `ACTIONS_RUNTIME_TOKEN`.
    pub token: Option<Secret>,
    /// `ACTIONS_CACHE_MODE`.
    pub mode: Option<String>,
}

/// What is missing to reach the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// No token.
    #[error("ACTIONS_RUNTIME_TOKEN is not set: only actions get it, and one has to hand it on")]
    Token,
    /// No place.
    #[error("neither ACTIONS_RESULTS_URL nor ACTIONS_CACHE_URL is set")]
    Place,
}

impl Runner {
    /// The settings for a client. Which service it is, is decided as the official client does; where that is
    /// not said and there is one place only, it is that one.
    ///
    /// # Errors
    /// What is missing.
    pub fn settings(self) -> Result<Settings, Missing> {
        let filled = |secret: &Secret| !secret.0.trim().is_empty();
        let token = self.token.filter(filled).ok_or(Missing::Token)?;
        let results = self.results_url.filter(|url| !url.trim().is_empty());
        let service = match (results, self.cache_url.filter(filled)) {
            (Some(results_url), cache_url) if self.service_v2 || cache_url.is_none() => {
                Service::V2 { results_url }
            }
            (_, Some(cache_url)) => Service::V1 { cache_url },
            (_, None) => return Err(Missing::Place),
        };
        let mut settings = Settings::new(service, token);
        settings.mode = Mode::of(self.mode.as_deref().unwrap_or_default());
        Ok(settings)
    }
}

impl Settings {
    /// Settings with the defaults of everything but place and token.
    pub fn new(service: Service, token: Secret) -> Self {
        Self {
            service,
            token,
            mode: Mode::default(),
            scopes: Vec::new(),
            sharers: 1,
            spool_bytes: super::limits::SPOOL_BYTES,
            request_timeout: Duration::from_secs(10),
            client: None,
            clock: Arc::new(SystemClock),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_those_of_the_official_client() {
        assert_eq!(Mode::of(""), Mode::ReadWrite);
        assert_eq!(Mode::of(" Write "), Mode::ReadWrite);
        assert_eq!(Mode::of("read"), Mode::Read);
        assert_eq!(Mode::of("write-only"), Mode::WriteOnly);
        assert_eq!(Mode::of("none"), Mode::None);
        assert_eq!(Mode::of("of tomorrow"), Mode::ReadWrite);
    }

    #[test]
    fn the_service_is_chosen_as_the_official_client_does() {
        let runner = |v2: bool, results: &str, cache: &str| Runner {
            results_url: Some(results.into()),
            cache_url: Some(Secret::new(cache)),
            service_v2: v2,
            token: Some(Secret::new("token")),
            mode: Some("read".into()),
        };
        let v2 = Service::V2 { results_url: "https://results/".into() };
        let v1 = Service::V1 { cache_url: Secret::new("https://cache/") };
        for (v2_is_set, results, cache, expected) in [
            (true, "https://results/", "https://cache/", Ok(&v2)),
            (false, "https://results/", "https://cache/", Ok(&v1)),
            (false, "https://results/", "", Ok(&v2)),
            (true, "", "https://cache/", Ok(&v1)),
            (true, "", " ", Err(Missing::Place)),
        ] {
            let settings = runner(v2_is_set, results, cache).settings();
            assert_eq!(
                settings.as_ref().map(|settings| &settings.service),
                expected.as_ref().map(|s| *s)
            );
            assert!(settings.is_err() || settings.is_ok_and(|s| s.mode == Mode::Read));
        }
        let nobody = Runner { token: Some(Secret::new("")), ..runner(true, "https://r/", "") };
        assert_eq!(nobody.settings().map(|_| ()), Err(Missing::Token));
    }

    #[test]
    fn secrets_are_not_shown() {
        let service = Service::V1 { cache_url: Secret::new("http://host/hidden-1/") };
        let settings = Settings::new(service, Secret::new("hidden-2"));
        assert!(!format!("{settings:?}").contains("hidden"));
    }
}
