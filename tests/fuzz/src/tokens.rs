//! Who gets in. One token in the seeds is signed with a key that is not here: no other is believed. Rules give nothing to a
//! repository that they do not list, and no two repositories the same place.

use kiln_storage::Scope;

use crate::server::trust::claims::{self, Claims};
use crate::server::trust::document;
use crate::server::trust::rules::{Repository, Rules, map};
use crate::server::trust::secret::Hash;

/// The key of `issuer.keys` that tests have, and what it signed.
const KEYS: &[u8] = include_bytes!("../signed/keys.json");
const SIGNED: &str = include_str!("../signed/token");
const AUDIENCE: &str = "https://kiln.example";
/// While the token lasts, seconds since 1970.
const NOW_S: u64 = 1_800_000_000;
/// A secret whose hash no seed has.
const SECRET: &str = "kiln_t_nobody";

fn is_believed(set: &[u8], token: &str, audience: &str, now_s: u64) -> bool {
    let keys = claims::keys(set).unwrap_or_default();
    let Ok(unverified) = claims::read(token) else { return false };
    let Some(key) = keys.get(&unverified.kid) else { return false };
    unverified.verify(key, audience, now_s).is_ok()
}

fn check_token(token: &str) {
    if is_believed(KEYS, token, AUDIENCE, NOW_S) {
        let of =
            |token: &str| token.trim_end().rsplit_once('.').map(|(signed, _)| signed.to_owned());
        assert_eq!(of(token), of(SIGNED), "a token that nobody signed");
        assert!(!is_believed(KEYS, token, "https://other.example", NOW_S), "not for us");
        assert!(!is_believed(KEYS, token, AUDIENCE, NOW_S + 3600), "it is over");
        assert!(!is_believed(KEYS, token, AUDIENCE, NOW_S - 3600), "it has not begun");
        assert!(!is_believed(b"{\"keys\":[]}", token, AUDIENCE, NOW_S), "no key");
    }
}

/// What a repository gets for a push to a branch, on a runner of the service.
fn of_push(one: &Repository, rules: &Rules) -> Option<Vec<Scope>> {
    let claims = Claims {
        iss: one.issuer.clone(),
        repository_id: one.id.clone(),
        runner_environment: "github-hosted".to_owned(),
        event_name: "push".to_owned(),
        ref_type: "branch".to_owned(),
        reference: "refs/heads/fuzz".to_owned(),
        ..Claims::default()
    };
    map(&claims, rules).ok().map(|given| given.reads)
}

fn check_rules(rules: &Rules, payload: &str) {
    let listed = &rules.repositories;
    let places: Vec<_> = listed.iter().map(|one| of_push(one, rules)).collect();
    for (at, one) in places.iter().enumerate() {
        let Some(scope) = one.as_ref().and_then(|scopes| scopes.first()) else { continue };
        let same =
            |other: &Option<Vec<Scope>>| other.as_ref().is_some_and(|all| all.contains(scope));
        assert!(!places[..at].iter().any(same), "{:?} has a place of another", listed[at]);
    }
    assert_eq!(rules.public().len(), listed.iter().filter(|one| one.public_read).count());
    let Ok(claims) = serde_json::from_str::<Claims>(payload) else { return };
    let Ok(given) = map(&claims, rules) else { return };
    let is_of = |one: &&Repository| one.issuer == claims.iss && one.id == claims.repository_id;
    let own = listed.iter().find(is_of).expect("a repository that is listed");
    let suffix = format!(":{}", own.id);
    let is_own = |scope: &Scope| {
        let name = scope.repository();
        name.strip_suffix("/self-hosted").unwrap_or(name).ends_with(&suffix)
    };
    assert!(given.reads.iter().all(is_own), "{given:?}");
    let Some(writes) = given.writes else { return };
    assert!(given.reads.contains(&writes) && writes.reference() == claims.reference);
    let begins = |pattern: &String| match pattern.strip_suffix('*') {
        Some(beginning) => claims.reference.starts_with(beginning),
        None => claims.reference == *pattern,
    };
    assert!(own.write_refs.as_ref().is_none_or(|refs| refs.iter().any(begins)), "{own:?}");
}

fn check_tokens(text: &[u8]) {
    let Some(tokens) = document::parse(text) else { return };
    let hash = Hash::of(SECRET);
    assert!(!tokens.iter().any(|token| token.hash.is(&hash)), "nobody made it");
    let written = document::text(tokens).expect("text");
    let again = document::parse(&written).expect("its own");
    assert_eq!(document::text(again).expect("text"), written);
}

pub fn run(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    let text = std::str::from_utf8(rest);
    match (kind % 4, text) {
        (0, Ok(text)) => check_token(text),
        // Rules, and after a line of its own what a token says.
        (1, Ok(text)) => {
            let (rules, payload) = text.split_once("\n--\n").unwrap_or((text, ""));
            if let Ok(rules) = Rules::parse(rules) {
                check_rules(&rules, payload);
            }
        }
        // The same as the table of a `kiln.toml`.
        (2, Ok(text)) => {
            let (rules, payload) = text.split_once("\n--\n").unwrap_or((text, ""));
            if let Some(Ok(rules)) = toml::from_str::<Rules>(rules).ok().map(Rules::checked) {
                check_rules(&rules, payload);
            }
        }
        _ => {
            check_tokens(rest);
            let keys = claims::keys(rest).unwrap_or_default();
            assert!(keys.len() <= crate::limits::MAX_KEYS);
        }
    }
}
