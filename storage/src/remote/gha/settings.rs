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
    /// Most bytes that are collected between two flushes.
    pub spool_bytes: u64,
    /// Longest that one request may take, its bytes aside.
    pub request_timeout: Duration,
    /// Time.
    pub clock: Arc<dyn Clock>,
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
            spool_bytes: 512 * 1024 * 1024,
            request_timeout: Duration::from_secs(10),
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
    fn secrets_are_not_shown() {
        let service = Service::V1 { cache_url: Secret::new("http://host/hidden-1/") };
        let settings = Settings::new(service, Secret::new("hidden-2"));
        assert!(!format!("{settings:?}").contains("hidden"));
    }
}
