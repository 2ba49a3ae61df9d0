//! What the log says of who gets in and who is refused: lines with `audit:`, so many from one address and no more. No
//! secrets: of what was sent as a token nothing is told. Called by [`super::middleware`] and
//! [`crate::routes::session`].

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::error::ApiError;
use crate::principal::{Kind, Peer, Principal};
use crate::service::Service;
use crate::trust::attempts::Tell;

/// Who a request turned out to be of: in its extensions, from the outermost layer on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Who(Arc<OnceLock<Principal>>);

impl Who {
    /// Notes it.
    pub(crate) fn is(&self, principal: &Principal) {
        // It is the same each time.
        let _ = self.0.set(principal.clone());
    }

    fn name(&self) -> &str {
        self.0.get().map_or("nobody known", |principal| &principal.name)
    }
}

/// Where somebody came from, for people.
pub(super) struct Place(pub Peer);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Peer::Tcp(Some(address)) => address.fmt(f),
            Peer::Tcp(None) => f.write_str("an unknown address"),
            Peer::Unix { uid: Some(uid) } => write!(f, "user {uid}"),
            Peer::Unix { uid: None } => f.write_str("an unknown user"),
        }
    }
}

/// Somebody was let in: told the first time from each address, for those with a token.
pub(crate) fn came(service: &Service, peer: Peer, principal: &Principal) {
    if let (Peer::Tcp(Some(address)), Kind::Named) = (peer, principal.kind)
        && service.policy.trust().attempts().is_new(address, &principal.name)
    {
        service.log.info(format_args!("audit: {} came from {address}", principal.name));
    }
}

/// A request was refused for who it is of.
pub(crate) fn refused(
    service: &Service,
    (peer, who): (Peer, &Who),
    (what, error): (&str, &ApiError),
) {
    let text = format!("audit: {what} refused to {} from {}: {error}", who.name(), Place(peer));
    tell(service, peer, &text);
}

/// A login failed.
pub(crate) fn no_session(service: &Service, peer: Peer, why: &dyn fmt::Display) {
    tell(service, peer, &format!("audit: no session: {why} (from {})", Place(peer)));
}

fn tell(service: &Service, peer: Peer, text: &str) {
    let told = match peer {
        Peer::Tcp(Some(address)) => {
            service.policy.trust().attempts().tells(address, Instant::now())
        }
        Peer::Tcp(None) | Peer::Unix { .. } => Tell::Yes,
    };
    match told {
        Tell::Yes => service.log.info(format_args!("{text}")),
        Tell::Last => {
            let more = "more of this address is not told for a while";
            service.log.info(format_args!("{text}; {more}"));
        }
        Tell::No => service.log.debug(format_args!("{text}")),
    }
}
