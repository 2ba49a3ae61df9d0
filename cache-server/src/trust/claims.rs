//! [`Claims`]: what a token of a CI service says once it is verified ([`verify`]).
//!
//! Pure: keys, time and what is expected are arguments. One algorithm is accepted, whatever a token says of itself:
//! RSA with SHA-256. `sub` is never read: what it says depends on settings of the repository.

use std::collections::HashMap;

use kiln_storage::remote::gha::token::decode;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use serde::Deserialize;

use crate::limits::{CLOCK_LEEWAY_S, MAX_CLAIM_BYTES, MAX_ID_TOKEN_BYTES, MAX_KEYS};

/// What a token says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Claims {
    /// Who made it.
    pub iss: String,
    /// What it was made for.
    pub aud: String,
    /// Its own name.
    pub jti: String,
    /// When it ends, seconds since 1970.
    pub exp: u64,
    /// When it begins.
    pub nbf: u64,
    /// When it was made.
    pub iat: u64,
    /// The number of the repository.
    pub repository_id: String,
    /// Its name at that time.
    pub repository: String,
    /// What started the run.
    pub event_name: String,
    /// The ref that it runs for.
    #[serde(rename = "ref")]
    pub reference: String,
    /// `branch` or `tag`.
    pub ref_type: String,
    /// The branch that a pull request is for.
    pub base_ref: String,
    /// The workflow, with its ref.
    pub workflow_ref: String,
    /// The workflow that the job is from, with its ref.
    pub job_workflow_ref: String,
    /// `github-hosted` or `self-hosted`.
    pub runner_environment: String,
    /// The run.
    pub run_id: String,
    /// How often the run was started.
    pub run_attempt: String,
    /// The commit.
    pub sha: String,
    /// The number of who started it.
    pub actor_id: String,
}

/// Why a token is not believed; the text says nothing of its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Doubt {
    /// It is no token.
    #[error("it is malformed")]
    Malformed,
    /// It is signed in another way.
    #[error("it is not signed by RS256")]
    Algorithm,
    /// Its maker is not known.
    #[error("its issuer is not known here")]
    Issuer,
    /// The key it names is none of its maker's.
    #[error("its key is not known")]
    Key,
    /// The signature is wrong.
    #[error("its signature is wrong")]
    Signature,
    /// It was made for somebody else.
    #[error("it was made for another audience")]
    Audience,
    /// It is over, or has not begun.
    #[error("it is not valid at this time")]
    Time,
    /// Something is missing.
    #[error("a claim is missing or too long")]
    Claim,
}

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    n: Vec<u8>,
    e: Vec<u8>,
}

/// The keys of an issuer, by the names that it gives them.
pub(crate) type Keys = HashMap<String, Key>;

/// The keys in a JSON Web Key Set: those for signatures by RSA.
pub(crate) fn keys(document: &[u8]) -> Option<Keys> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<One>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct One {
        kty: String,
        kid: String,
        alg: Option<String>,
        #[serde(rename = "use")]
        purpose: Option<String>,
        n: String,
        e: String,
    }
    let Set { keys } = serde_json::from_slice(document).ok()?;
    let fits = |one: &One| {
        one.kty == "RSA"
            && one.alg.as_deref().is_none_or(|alg| alg == "RS256")
            && one.purpose.as_deref().is_none_or(|purpose| purpose == "sig")
            && !one.kid.is_empty()
    };
    let key = |one: One| Some((one.kid, Key { n: decode(&one.n)?, e: decode(&one.e)? }));
    Some(keys.into_iter().take(MAX_KEYS).filter(fits).filter_map(key).collect())
}

/// A token that nobody has verified yet.
pub(crate) struct Unverified<'a> {
    signed: &'a str,
    signature: Vec<u8>,
    payload: Vec<u8>,
    /// Which key it is signed with, as it says.
    pub kid: String,
    /// Who made it, as it says.
    pub iss: String,
}

/// Reads as much of a token as is needed to find its key.
///
/// # Errors
/// It is none, or not signed by the one algorithm.
pub(crate) fn read(token: &str) -> Result<Unverified<'_>, Doubt> {
    #[derive(Deserialize)]
    struct Head {
        alg: String,
        #[serde(default)]
        kid: String,
        // What has to be understood, and is not.
        crit: Option<serde_json::Value>,
    }
    #[derive(Deserialize)]
    struct Maker {
        iss: String,
    }
    if token.len() > MAX_ID_TOKEN_BYTES {
        return Err(Doubt::Malformed);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(Doubt::Malformed)?;
    let (head, payload) = signed.split_once('.').ok_or(Doubt::Malformed)?;
    let part = |text: &str| decode(text).ok_or(Doubt::Malformed);
    let head: Head = serde_json::from_slice(&part(head)?).map_err(|_| Doubt::Malformed)?;
    let Head { alg, kid, crit } = head;
    if alg != "RS256" {
        return Err(Doubt::Algorithm);
    }
    if crit.is_some() {
        return Err(Doubt::Malformed);
    }
    let (payload, signature) = (part(payload)?, part(signature)?);
    let Maker { iss } = serde_json::from_slice(&payload).map_err(|_| Doubt::Malformed)?;
    Ok(Unverified { signed, signature, payload, kid, iss })
}

impl Unverified<'_> {
    /// What the token says, when it is signed with a key, made for an audience, and valid now.
    ///
    /// # Errors
    /// Why it is not believed.
    pub(crate) fn verify(self, key: &Key, audience: &str, now_s: u64) -> Result<Claims, Doubt> {
        let public = RsaPublicKeyComponents { n: &key.n, e: &key.e };
        public
            .verify(&RSA_PKCS1_2048_8192_SHA256, self.signed.as_bytes(), &self.signature)
            .map_err(|_| Doubt::Signature)?;
        let claims: Claims = serde_json::from_slice(&self.payload).map_err(|_| Doubt::Claim)?;
        if claims.aud != audience {
            return Err(Doubt::Audience);
        }
        claims.check(now_s)?;
        Ok(claims)
    }
}

impl Claims {
    fn check(&self, now_s: u64) -> Result<(), Doubt> {
        let Self { exp, nbf, iat, .. } = *self;
        let needed =
            [&self.jti, &self.repository_id, &self.event_name, &self.reference, &self.ref_type];
        let all = [
            &self.repository,
            &self.base_ref,
            &self.workflow_ref,
            &self.job_workflow_ref,
            &self.runner_environment,
            &self.run_id,
            &self.run_attempt,
            &self.sha,
            &self.actor_id,
        ];
        if needed.iter().any(|text| text.is_empty())
            || needed.iter().chain(&all).any(|text| text.len() > MAX_CLAIM_BYTES)
            || exp == 0
            || nbf == 0
            || iat == 0
        {
            return Err(Doubt::Claim);
        }
        let began = nbf.max(iat) <= now_s.saturating_add(CLOCK_LEEWAY_S);
        let lasts = now_s < exp.saturating_add(CLOCK_LEEWAY_S);
        if began && lasts { Ok(()) } else { Err(Doubt::Time) }
    }
}

#[cfg(test)]
mod tests;
