//! What a page of a browser may not do where nobody has to be known. A page of anywhere can have its own name lead to
//! this machine (DNS rebinding), and send requests across sites without asking. Who comes with a token or a password is
//! safe from that: a page has neither. Called by [`super::middleware`]; pure but for the name of this machine.

use std::net::IpAddr;

use axum::http::header::{HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};

use crate::error::ApiError;

/// What browsers alone send.
const FETCH_SITE: &str = "sec-fetch-site";

/// Refuses what only a page of a browser sends, but for looking at a page here.
///
/// `allow_anyone`: the server is for other machines, too, and has any name there.
///
/// # Errors
/// [`ApiError::Forbidden`].
pub(super) fn refused(parts: &Parts, allow_anyone: bool) -> Result<(), ApiError> {
    let looks = [Method::GET, Method::HEAD].contains(&parts.method);
    if !looks && [ORIGIN.as_str(), FETCH_SITE].iter().any(|name| parts.headers.contains_key(*name))
    {
        return Err(ApiError::Forbidden("a page of a browser changes nothing here"));
    }
    match allow_anyone || named(&parts.headers, parts.uri.host()).is_none_or(is_this_machine) {
        true => Ok(()),
        false => Err(ApiError::Forbidden(
            "it is for this machine alone, and was asked for by another name: use 127.0.0.1",
        )),
    }
}

/// The name that somebody asks for, without the port.
fn named<'a>(headers: &'a HeaderMap, authority: Option<&'a str>) -> Option<&'a str> {
    let host = authority.or_else(|| headers.get(HOST)?.to_str().ok())?;
    match host.strip_prefix('[') {
        Some(address) => address.split(']').next(),
        None => host.split(':').next(),
    }
}

/// Whether a name is one that nobody else can have lead here. The wrapper says `kiln`.
fn is_this_machine(name: &str) -> bool {
    let is_own = |name: &str| {
        let own = rustix::system::uname();
        own.nodename().to_str().is_ok_and(|own| own.eq_ignore_ascii_case(name))
    };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name.parse::<IpAddr>().is_ok()
        || ["localhost", "kiln", ""].contains(&name.as_str())
        || name.ends_with(".localhost")
        || is_own(&name)
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn is_refused(method: &str, uri: &str, headers: &[(&str, &str)], allow_anyone: bool) -> bool {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        refused(&request.body(()).unwrap().into_parts().0, allow_anyone).is_err()
    }

    #[test]
    fn a_page_changes_nothing() {
        for name in ["origin", "sec-fetch-site"] {
            let headers = [("host", "localhost:5456"), (name, "http://localhost:5456")];
            assert!(is_refused("POST", "/v1/events", &headers, false), "{name}");
            assert!(is_refused("PUT", "/v1/events", &headers, true), "{name}");
            assert!(!is_refused("GET", "/", &headers, false), "{name}");
        }
        assert!(!is_refused("POST", "/v1/events", &[("host", "kiln")], false));
    }

    #[test]
    fn a_name_that_somebody_else_has_lead_here_is_refused() {
        let by = |host: &str| is_refused("GET", "/v1/stats", &[("host", host)], false);
        for host in
            ["127.0.0.1:5456", "[::1]:5456", "localhost", "LocalHost:80", "kiln", "a.localhost"]
        {
            assert!(!by(host), "{host}");
        }
        for host in ["evil.example:5456", "127.0.0.1.evil.example", "kiln.evil.example", "[evil]x"]
        {
            assert!(by(host), "{host}");
        }
        assert!(!is_refused("GET", "/", &[], false));
        assert!(!is_refused("GET", "/", &[("host", "cache.example")], true));
        let by_h2 = |uri: &str| is_refused("GET", uri, &[], false);
        assert!(by_h2("https://evil.example/v1/stats") && !by_h2("https://127.0.0.1/v1/stats"));
    }
}
