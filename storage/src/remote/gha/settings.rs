//! [`Settings`]: what the caller hands in. Nothing here is read from the environment; `docs/remote-gha.md`
//! says where each value comes from in a workflow.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;

use super::clock::{Clock, SystemClock};
use super::token::Refs;
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
    /// The same, and not for the workflow: what the token writes it does not read.
    WritesUnread,
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
            Self::WritesUnread => Some(
                "the token may only write where it may not read, and an index cannot be added to unread",
            ),
            Self::WriteOnly => Some(
                "the workflow's cache mode is `write-only`, and an index cannot be added to unread",
            ),
            Self::None => Some("the workflow's cache mode is `none`"),
        }
    }

    /// Whether anything is read.
    pub(super) fn reads(self) -> bool {
        matches!(self, Self::ReadWrite | Self::Read | Self::WritesUnread)
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

/// What is missing to reach the cache, or is none. No text of it holds a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// No token.
    #[error("ACTIONS_RUNTIME_TOKEN is not set: only actions get it, and one has to hand it on")]
    Token,
    /// No place.
    #[error("neither ACTIONS_RESULTS_URL nor ACTIONS_CACHE_URL is set")]
    Place,
    /// The token cannot be sent.
    #[error("ACTIONS_RUNTIME_TOKEN has characters that no token has")]
    NoToken,
    /// The place of this variable is none.
    #[error("{0} is no address of the form http(s)://host[:port]/")]
    NoPlace(&'static str),
}

/// An address of HTTP.
fn is_address(text: &str) -> bool {
    let url =
        Url::parse(text).ok().filter(|url| url.host_str().is_some_and(|host| !host.is_empty()));
    url.is_some_and(|url| matches!(url.scheme(), "http" | "https"))
}

impl Runner {
    /// The settings for a client. Which service it is, is decided as the official client does; where that is
    /// not said and there is one place only, it is that one. White space around a value is none of it: what comes
    /// from a file or another program's output often ends with a line break.
    ///
    /// # Errors
    /// What is missing.
    pub fn settings(self) -> Result<Settings, Missing> {
        let filled = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        let token = self.token.and_then(|token| filled(&token.0)).ok_or(Missing::Token)?;
        if !token.chars().all(|c| c.is_ascii_graphic()) {
            return Err(Missing::NoToken);
        }
        let results_url = self.results_url.and_then(|url| filled(&url));
        let service = match (results_url, self.cache_url.and_then(|url| filled(&url.0))) {
            (Some(results_url), cache_url) if self.service_v2 || cache_url.is_none() => {
                let well = is_address(&results_url);
                well.then_some(Service::V2 { results_url })
                    .ok_or(Missing::NoPlace("ACTIONS_RESULTS_URL"))?
            }
            (_, Some(cache_url)) => {
                let well = is_address(&cache_url);
                well.then_some(Service::V1 { cache_url: Secret(cache_url) })
                    .ok_or(Missing::NoPlace("ACTIONS_CACHE_URL"))?
            }
            (_, None) => return Err(Missing::Place),
        };
        let mut settings = Settings::new(service, Secret(token));
        settings.mode = Mode::of(self.mode.as_deref().unwrap_or_default());
        let unread = Refs::of(&settings.token).is_some_and(|refs| refs.writes_unread());
        if settings.mode == Mode::ReadWrite && unread {
            settings.mode = Mode::WritesUnread;
        }
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
    }

    #[test]
    fn what_stands_around_a_value_is_none_of_it_and_what_is_none_is_named() {
        let runner = |token: &str, results: &str, cache: &str| Runner {
            results_url: Some(results.into()),
            cache_url: Some(Secret::new(cache)),
            token: Some(Secret::new(token)),
            ..Runner::default()
        };
        let settings = runner("token\n", "", " http://cache/hidden/\r\n").settings().unwrap();
        assert_eq!(settings.token, Secret::new("token"));
        let place = Secret::new("http://cache/hidden/");
        assert_eq!(settings.service, Service::V1 { cache_url: place });
        let settings = runner("token", "https://results/\n", "").settings().unwrap();
        assert_eq!(settings.service, Service::V2 { results_url: "https://results/".into() });
        for (token, results, cache, expected) in [
            ("\n", "https://r/", "", Missing::Token),
            ("hid den", "https://r/", "", Missing::NoToken),
            ("hid\u{e9}en", "https://r/", "", Missing::NoToken),
            ("t", "ftp://hidden/", "", Missing::NoPlace("ACTIONS_RESULTS_URL")),
            ("t", "hidden", "", Missing::NoPlace("ACTIONS_RESULTS_URL")),
            ("t", "", "http://", Missing::NoPlace("ACTIONS_CACHE_URL")),
            ("t", "", "hidden/path", Missing::NoPlace("ACTIONS_CACHE_URL")),
        ] {
            let missing = runner(token, results, cache).settings().map(|_| ()).unwrap_err();
            assert_eq!(missing, expected);
            assert!(!missing.to_string().contains("hid"), "{missing}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let service = Service::V1 { cache_url: Secret::new("http://host/hidden-1/") };
        let settings = Settings::new(service, Secret::new("hidden-2"));
        assert!(!format!("{settings:?}").contains("hidden"));
    }
}
