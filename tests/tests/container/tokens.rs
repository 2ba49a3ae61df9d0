//! Theme: a token that is not what it says gets nothing: neither a session, nor, shown as it is, any answer.

#![allow(clippy::unwrap_used, reason = "tests")]

use kiln_storage::Digest;
use kiln_tests::server::wait_until;
use ring::hmac;
use serde_json::{Value, json};

use crate::issuer::{TestKey, claims, encode, head, now_s, signed_part};
use crate::site;
use crate::site::{AUDIENCE, Container, Site};

/// What a job of the main branch stored.
const BYTES: &[u8] = b"of the main branch";

/// A server that has a blob of the main branch.
fn with_a_blob(site: &Site) -> Container<'_> {
    let server = site.start(&site.volume("volume"));
    let session = site.session(json!({}));
    let stored = site.ask(Some(&session), ("PUT", &blob()), BYTES);
    assert_eq!(stored.0, 201, "{}", stored.1);
    let read = site.ask(Some(&session), ("GET", &blob()), b"");
    assert_eq!((read.0, read.1.as_bytes()), (200, BYTES));
    server
}

fn blob() -> String {
    format!("/v1/blobs/{}", Digest::of(BYTES))
}

/// The claims of a push to main, as the issuer signs them, with these in place of some.
fn of_main(site: &Site, with: Value) -> Value {
    claims(&site.issuer.url(), AUDIENCE, with)
}

/// Asserts that a token gets nothing on any of the ways.
#[track_caller]
fn gets_nothing(site: &Site, token: &str) {
    let (status, body) = site.exchange(token);
    assert_eq!(status, 401, "{body}");
    assert!(!body.contains("kiln_s_"), "{body}");
    is_nobody(site, token);
}

/// Asserts that a token lets nobody in, where it stands for a session.
#[track_caller]
fn is_nobody(site: &Site, token: &str) {
    let other = format!("/v1/blobs/{}", Digest::of(b"other"));
    let result = format!("/v1/results/{}", Digest::of(b"result"));
    for (call, body) in [
        (("GET", blob().as_str()), &b""[..]),
        (("PUT", &other), b"other"),
        (("PUT", &result), b"{}"),
        (("POST", "/v1/lookup"), b"{\"units\":[]}"),
        (("GET", "/v1/runs"), b""),
        (("GET", "/v1/server"), b""),
    ] {
        let (status, said) = site.ask(Some(token), call, body);
        assert_eq!(status, 401, "{call:?}: {said}");
        assert!(!said.contains("of the main branch"), "{call:?}: {said}");
    }
}

/// A file that is mounted by itself is the old one for ever, once an editor has replaced it.
#[test]
fn rules_that_are_replaced_hold_in_a_container_without_a_restart() {
    let site = site!();
    let _server = site.start(&site.volume("volume"));
    let session = site.session(json!({}));
    let status = || site.ask(Some(&session), ("GET", "/v1/runs"), b"").0;
    assert_eq!(status(), 200);
    site.know("5678");
    wait_until("the repository is known no more", || status() == 401);
}

#[test]
fn a_forged_token_gets_nothing() {
    let site = site!();
    let _server = with_a_blob(&site);
    let wanted = of_main(&site, json!({}));
    // Signed by somebody else's key, under the name of the issuer's.
    gets_nothing(&site, &TestKey::nth(1).sign(&head(), &wanted));
    // Another claim under the signature of a token that was good.
    let good = site.issuer.token(AUDIENCE, json!({"ref": "refs/heads/other"}));
    let (_, signature) = good.rsplit_once('.').unwrap();
    gets_nothing(&site, &format!("{}.{signature}", signed_part(&head(), &wanted)));
    // By an issuer that the rules do not name, and that says to be a known one.
    let foreign = claims("https://issuer.example", AUDIENCE, json!({}));
    gets_nothing(&site, &TestKey::nth(0).sign(&head(), &foreign));
}

#[test]
fn an_expired_token_gets_nothing() {
    let site = site!();
    let _server = with_a_blob(&site);
    let now = now_s();
    let times = json!({"iat": now - 900, "nbf": now - 900, "exp": now - 600});
    gets_nothing(&site, &site.issuer.token(AUDIENCE, times));
}

#[test]
fn a_token_for_another_audience_gets_nothing() {
    let site = site!();
    let _server = with_a_blob(&site);
    for audience in ["https://else.example", "https://kiln.example/", "https://github.com/o", ""] {
        gets_nothing(&site, &site.issuer.token(audience, json!({})));
    }
}

#[test]
fn a_token_that_says_how_it_is_to_be_checked_gets_nothing() {
    let site = site!();
    let _server = with_a_blob(&site);
    let wanted = of_main(&site, json!({}));
    for algorithm in ["none", "None", "NONE", ""] {
        let part = signed_part(&json!({"typ": "JWT", "alg": algorithm, "kid": "test-1"}), &wanted);
        gets_nothing(&site, &format!("{part}."));
    }
    // The issuer's public key as a secret that both know.
    let (modulus, _) = TestKey::nth(0).public();
    let part = signed_part(&json!({"typ": "JWT", "alg": "HS256", "kid": "test-1"}), &wanted);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &modulus), part.as_bytes());
    gets_nothing(&site, &format!("{part}.{}", encode(tag.as_ref())));
}

#[test]
fn a_replayed_token_gets_nothing() {
    let site = site!();
    let _server = with_a_blob(&site);
    let token = site.issuer.token(AUDIENCE, json!({}));
    assert_eq!(site.exchange(&token).0, 200);
    gets_nothing(&site, &token);
    // No token at all, and one that was never given.
    is_nobody(&site, "kiln_s_0123456789abcdef0123456789abcdef");
    assert_eq!(site.ask(None, ("GET", &blob()), b"").0, 401);
}
