//! Forged tokens, and good ones.

use super::*;
use crate::trust::issuer::{TestKey, claims as issued, encode, head, now_s, signed_part};
use serde_json::{Value, json};

const ISS: &str = "https://issuer.example";
const AUD: &str = "https://kiln.example";

fn key() -> Key {
    let set = TestKey::nth(0).key_set("test-1").to_string();
    keys(set.as_bytes()).unwrap().remove("test-1").unwrap()
}

fn verified(token: &str, now_s: u64) -> Result<Claims, Doubt> {
    read(token)?.verify(&key(), AUD, now_s)
}

fn signed(head: &Value, with: Value) -> String {
    TestKey::nth(0).sign(head, &issued(ISS, AUD, with))
}

#[test]
fn a_good_token_is_believed() {
    let token = signed(&head(), json!({}));
    let unverified = read(&token).unwrap();
    assert_eq!((unverified.kid.as_str(), unverified.iss.as_str()), ("test-1", ISS));
    let claims = verified(&token, now_s()).unwrap();
    assert_eq!(
        (claims.repository_id.as_str(), claims.reference.as_str()),
        ("1234", "refs/heads/main")
    );
}

#[test]
fn the_algorithm_is_ours_to_choose() {
    let with = |alg: &str| json!({"alg": alg, "kid": "test-1"});
    let payload = issued(ISS, AUD, json!({}));
    // Not signed at all, by the words for it.
    for none in ["none", "None", "NONE", "nOnE", ""] {
        let unsigned = signed_part(&with(none), &payload);
        for token in [format!("{unsigned}."), format!("{unsigned}.{}", encode(b"x"))] {
            assert_eq!(verified(&token, now_s()), Err(Doubt::Algorithm), "{none}");
        }
    }
    // Signed with the public key, which everybody has, as if it were a secret.
    let (n, e) = TestKey::nth(0).public();
    let set = TestKey::nth(0).key_set("test-1").to_string();
    for secret in [n, e, set.into_bytes()] {
        for alg in ["HS256", "HS384", "RS256"] {
            let part = signed_part(&with(alg), &payload);
            let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret);
            let tag = ring::hmac::sign(&secret, part.as_bytes());
            let token = format!("{part}.{}", encode(tag.as_ref()));
            let expected = if alg == "RS256" { Doubt::Signature } else { Doubt::Algorithm };
            assert_eq!(verified(&token, now_s()), Err(expected), "{alg}");
        }
    }
    for alg in ["RS512", "PS256", "ES256", "rs256"] {
        assert_eq!(verified(&signed(&with(alg), json!({})), now_s()), Err(Doubt::Algorithm));
    }
}

#[test]
fn the_signature_covers_every_byte() {
    let forged = TestKey::nth(1).sign(&head(), &issued(ISS, AUD, json!({})));
    assert_eq!(verified(&forged, now_s()), Err(Doubt::Signature));
    let good = signed(&head(), json!({"ref": "refs/pull/1/merge"}));
    let parts: Vec<&str> = good.split('.').collect();
    let other = encode(issued(ISS, AUD, json!({})).to_string().as_bytes());
    let swapped = [parts[0], &other, parts[2]].join(".");
    assert_eq!(verified(&swapped, now_s()), Err(Doubt::Signature));
    for shortened in [&good[..good.len() - 4], &format!("{}.{}.", parts[0], parts[1])] {
        assert_eq!(verified(shortened, now_s()), Err(Doubt::Signature));
    }
}

#[test]
fn another_audience_or_time_is_refused() {
    let now = now_s();
    for aud in ["https://github.com/o", "https://kiln.example/", "", "https://KILN.example"] {
        let token = TestKey::nth(0).sign(&head(), &issued(ISS, aud, json!({})));
        assert_eq!(verified(&token, now), Err(Doubt::Audience), "{aud}");
    }
    // A list of audiences is somebody else's token, too.
    let token = signed(&head(), json!({"aud": [AUD]}));
    assert_eq!(verified(&token, now), Err(Doubt::Claim));

    let at = |exp: u64, nbf: u64, iat: u64| {
        verified(&signed(&head(), json!({"exp": exp, "nbf": nbf, "iat": iat})), now).map(drop)
    };
    assert_eq!(at(now - 59, now - 400, now - 400), Ok(()));
    assert_eq!(at(now - 60, now - 400, now - 400), Err(Doubt::Time));
    assert_eq!(at(now + 300, now + 60, now), Ok(()));
    assert_eq!(at(now + 300, now + 61, now), Err(Doubt::Time));
    assert_eq!(at(now + 300, now, now + 61), Err(Doubt::Time));
    for missing in ["exp", "nbf", "iat", "jti", "repository_id", "event_name", "ref", "ref_type"] {
        let mut claims = issued(ISS, AUD, json!({}));
        claims.as_object_mut().unwrap().remove(missing);
        let token = TestKey::nth(0).sign(&head(), &claims);
        assert_eq!(verified(&token, now), Err(Doubt::Claim), "{missing}");
    }
    for odd in
        [json!({"exp": "never"}), json!({"exp": -1}), json!({"exp": 1e30}), json!({"jti": 7})]
    {
        assert_eq!(verified(&signed(&head(), odd), now), Err(Doubt::Claim));
    }
}

#[test]
fn what_is_no_token_is_refused() {
    let long = format!("{}.e30.e30", "A".repeat(MAX_ID_TOKEN_BYTES));
    for bad in ["", ".", "..", "a.b", "a.b.c.d", "e30.e30.e30", "!.!.!", &long] {
        assert_eq!(verified(bad, 1), Err(Doubt::Malformed), "{bad:.20}");
    }
    let critical = json!({"alg": "RS256", "kid": "test-1", "crit": ["exp"]});
    assert_eq!(verified(&signed(&critical, json!({})), now_s()), Err(Doubt::Malformed));
}

#[test]
fn only_keys_for_this_are_taken() {
    let (n, e) = TestKey::nth(0).public();
    let (n, e) = (encode(&n), encode(&e));
    let set = json!({"keys": [
        {"kty": "RSA", "kid": "good", "n": n, "e": e, "x5c": ["…"]},
        {"kty": "RSA", "kid": "other-alg", "alg": "RS512", "n": n, "e": e},
        {"kty": "RSA", "kid": "for-others", "use": "enc", "n": n, "e": e},
        {"kty": "oct", "kid": "secret", "k": "AAAA"},
        {"kty": "RSA", "kid": "", "n": n, "e": e},
        {"kty": "RSA", "kid": "garbage", "n": "!", "e": e},
    ]});
    let found = keys(set.to_string().as_bytes()).unwrap();
    assert_eq!(found.keys().collect::<Vec<_>>(), ["good"]);
    assert_eq!(keys(b"[]"), None);
    let many: Vec<Value> =
        (0..100).map(|i| json!({"kty": "RSA", "kid": format!("{i}"), "n": n, "e": e})).collect();
    assert!(keys(json!({"keys": many}).to_string().as_bytes()).unwrap().len() <= MAX_KEYS);
}
