//! [`Rules`]: what a server was told about CI services and repositories; and [`map`], which makes scopes of the claims
//! of a verified token by them.
//!
//! Pure. Nothing is given that is not listed here: a repository, an event or a ref that the rules do not know writes
//! nothing. What the mapping follows is what GitHub's own cache gives; docs/trust.md has the table.

use std::time::Duration;

use kiln_storage::Scope;
use serde::Deserialize;

use super::claims::Claims;
use super::spending::Allowance;
use crate::limits::{MAX_REF_BYTES, MAX_RULES, MAX_SESSION_MINUTES};

/// The issuer of github.com.
const GITHUB: &str = "https://token.actions.githubusercontent.com";

/// What is behind the name of a repository's scopes when its own runners are kept apart.
const SELF_HOSTED: &str = "/self-hosted";

/// The file that `KILN_TRUST` names.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rules {
    /// What tokens have to be made for: the address of this server as clients know it.
    pub audience: String,
    /// Who makes tokens.
    #[serde(default = "github")]
    pub issuers: Vec<Issuer>,
    /// Minutes that a session lasts that was given for a token.
    #[serde(default = "session_minutes")]
    pub session_minutes: u64,
    /// The repositories that are known.
    #[serde(default)]
    pub repositories: Vec<Repository>,
}

/// A service that makes tokens.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Issuer {
    /// The claim `iss`, exactly.
    pub url: String,
    /// Where its keys are; below its URL, where it is not said.
    pub keys: Option<String>,
}

/// A repository.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Repository {
    /// The claim `repository_id`: a number that no other repository of the issuer ever has.
    pub id: String,
    /// Who makes tokens for it.
    #[serde(default = "github_url")]
    pub issuer: String,
    /// What it is called; for people who read the file.
    #[serde(default)]
    pub name: String,
    /// Its default branch, without `refs/heads/`.
    pub default_branch: String,
    /// The refs that may be written, each alone or with `*` as its end; all, where it is not said.
    pub write_refs: Option<Vec<String>>,
    /// The workflows that may write the default branch, as `workflow_ref` or `job_workflow_ref` names them; all, where
    /// it is not said.
    pub default_branch_workflows: Option<Vec<String>>,
    /// What becomes of jobs on runners of one's own.
    #[serde(default)]
    pub self_hosted: SelfHosted,
    /// Whether what the default branch stored is anybody's to read.
    #[serde(default)]
    pub public_read: bool,
    /// How many requests a run may make in a minute.
    pub max_requests: Option<u64>,
    /// How many bytes a run may send in an hour.
    pub max_upload: Option<u64>,
    /// How much of a store that is full the repository may hold, percent.
    pub max_share: Option<u8>,
}

/// What becomes of jobs on runners of one's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SelfHosted {
    /// They have scopes of their own.
    #[default]
    Separate,
    /// They are as others.
    Same,
    /// They get nothing.
    Refuse,
}

fn github() -> Vec<Issuer> {
    vec![Issuer { url: github_url(), keys: None }]
}

fn github_url() -> String {
    GITHUB.to_owned()
}

fn session_minutes() -> u64 {
    // As long as a job of GitHub's runners lasts at most.
    6 * 60
}

/// Why a token gets nothing though it is a good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The repository is not listed.
    #[error("this repository is not known to the server")]
    Repository,
    /// Its own runners get nothing.
    #[error("runners of one's own get nothing here")]
    Runner,
    /// A claim is none that GitHub makes.
    #[error("a claim of the token is malformed")]
    Claim,
}

/// What a token gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Given {
    /// The scopes that it reads, in order.
    pub reads: Vec<Scope>,
    /// The scope that it writes.
    pub writes: Option<Scope>,
    /// How much it may ask for.
    pub allowance: Allowance,
}

impl Rules {
    /// Reads the text of the file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let rules: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        rules.checked()
    }

    /// Themselves, where they are good; for rules that another format held.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn checked(self) -> Result<Self, String> {
        self.check().map(|()| self)
    }

    fn check(&self) -> Result<(), String> {
        if self.audience.is_empty() || self.audience.starts_with("https://github.com/") {
            return Err("audience has to be the address of this server".into());
        }
        if self.issuers.len() > MAX_RULES || self.repositories.len() > MAX_RULES {
            return Err(format!("more than {MAX_RULES} issuers or repositories"));
        }
        if !(1..=MAX_SESSION_MINUTES).contains(&self.session_minutes) {
            return Err(format!("session_minutes is not 1 to {MAX_SESSION_MINUTES}"));
        }
        for Issuer { url, keys } in &self.issuers {
            if let Some(bad) =
                [Some(url), keys.as_ref()].into_iter().flatten().find(|u| !is_safe(u))
            {
                return Err(format!("{bad:?} is not https"));
            }
        }
        for (i, one) in self.repositories.iter().enumerate() {
            let Repository { id, issuer, default_branch, .. } = one;
            if !is_number(id) {
                return Err(format!("{id:?} is no repository_id: it is a number"));
            }
            if default_branch.is_empty() || default_branch.starts_with("refs/") {
                return Err(format!("the default_branch of {id} is not the name of a branch"));
            }
            if !self.issuers.iter().any(|known| known.url == *issuer) {
                return Err(format!("the issuer of {id} is not among the issuers"));
            }
            if one.max_share.is_some_and(|share| !(1..=100).contains(&share)) {
                return Err(format!("max_share of {id} is not 1 to 100"));
            }
            let again = |other: &Repository| other.id == *id && other.issuer == *issuer;
            if self.repositories[..i].iter().any(again) {
                return Err(format!("{id} is listed twice"));
            }
            // Issuers that differ in what scopes are not named by: `http` and `https`, or a host that is named as a service.
            if self.repositories[..i].iter().any(|other| other.scopes() == one.scopes()) {
                return Err(format!("{id} of two issuers would share what it stores"));
            }
        }
        Ok(())
    }

    /// How long a session lasts.
    pub(crate) fn session(&self) -> Duration {
        Duration::from_secs(60 * self.session_minutes)
    }

    /// How much of a store that is full a repository may hold, by what it is called in scopes; percent.
    pub(crate) fn share(&self, repository: &str) -> Option<u8> {
        let name = repository.strip_suffix(SELF_HOSTED).unwrap_or(repository);
        self.repositories.iter().find(|one| one.scopes() == name)?.max_share
    }

    /// The scopes that anybody may read.
    pub(crate) fn public(&self) -> Vec<Scope> {
        let open = self.repositories.iter().filter(|repository| repository.public_read);
        open.map(|one| Scope::new(one.scopes(), one.default_ref())).collect()
    }
}

impl Issuer {
    /// Where its keys are.
    pub(crate) fn keys_url(&self) -> String {
        self.keys.clone().unwrap_or_else(|| format!("{}/.well-known/jwks", self.url))
    }
}

impl Repository {
    /// The repository in its scopes.
    fn scopes(&self) -> String {
        let Self { id, issuer, .. } = self;
        match issuer.as_str() {
            GITHUB => format!("github:{id}"),
            other => format!("{}:{id}", other.split_once("//").map_or(other, |(_, rest)| rest)),
        }
    }

    fn default_ref(&self) -> String {
        format!("refs/heads/{}", self.default_branch)
    }
}

/// Whether keys may be fetched from a place: nobody on the way can change them.
fn is_safe(url: &str) -> bool {
    let local = ["http://127.0.0.1:", "http://[::1]:"];
    url.starts_with("https://") || local.iter().any(|prefix| url.starts_with(prefix))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.len() <= 20 && text.bytes().all(|b| b.is_ascii_digit())
}

/// Whether a text is a ref that may become part of a scope.
fn is_ref(text: &str) -> bool {
    text.starts_with("refs/")
        && text.len() <= MAX_REF_BYTES
        && !text.chars().any(|c| c.is_control() || c.is_whitespace())
}

/// Whether a ref is that of a pull request, merged with its base.
fn is_merge(text: &str) -> bool {
    let number = text.strip_prefix("refs/pull/").and_then(|rest| rest.strip_suffix("/merge"));
    number.is_some_and(is_number)
}

/// The branch that a merge queue is for.
fn queued_for(text: &str) -> Option<&str> {
    let (base, _) = text.strip_prefix("refs/heads/gh-readonly-queue/")?.rsplit_once("/pr-")?;
    (!base.is_empty()).then_some(base)
}

/// The ref that a job writes, and the branch that it is to be merged into, by what started it; neither where nothing
/// may be stored.
fn places(claims: &Claims) -> (Option<&str>, Option<&str>) {
    let own = claims.reference.as_str();
    let base = Some(claims.base_ref.as_str()).filter(|base| !base.is_empty());
    match (claims.event_name.as_str(), claims.ref_type.as_str()) {
        ("push" | "schedule" | "workflow_dispatch" | "repository_dispatch", "branch")
            if own.starts_with("refs/heads/") =>
        {
            (Some(own), None)
        }
        ("push" | "release" | "workflow_dispatch", "tag") if own.starts_with("refs/tags/") => {
            (Some(own), None)
        }
        ("pull_request", "branch") if is_merge(own) => (Some(own), base),
        ("merge_group", "branch") if queued_for(own).is_some() => {
            (Some(own), base.or(queued_for(own)))
        }
        _ => (None, None),
    }
}

/// The scopes that a token gets.
///
/// # Errors
/// Why it gets none at all.
pub(crate) fn map(claims: &Claims, rules: &Rules) -> Result<Given, Refusal> {
    let known = |one: &&Repository| one.issuer == claims.iss && one.id == claims.repository_id;
    let repository = rules.repositories.iter().find(known).ok_or(Refusal::Repository)?;
    let hosted = claims.runner_environment == "github-hosted";
    let name = match (hosted, repository.self_hosted) {
        (true, _) | (false, SelfHosted::Same) => repository.scopes(),
        (false, SelfHosted::Separate) => repository.scopes() + SELF_HOSTED,
        (false, SelfHosted::Refuse) => return Err(Refusal::Runner),
    };
    let (own, base) = places(claims);
    let (base, default) = (base.map(|base| format!("refs/heads/{base}")), repository.default_ref());
    let mut refs: Vec<&str> = own.into_iter().chain(base.as_deref()).collect();
    refs.push(&default);
    if !refs.iter().all(|text| is_ref(text)) {
        return Err(Refusal::Claim);
    }
    let mut reads: Vec<Scope> = Vec::new();
    for reference in refs {
        let scope = Scope::new(name.clone(), reference);
        if !reads.contains(&scope) {
            reads.push(scope);
        }
    }
    let may = |own: &&str| may_write(repository, claims, own);
    let writes = own.filter(may).map(|own| Scope::new(name.clone(), own));
    let Repository { max_requests, max_upload, .. } = *repository;
    Ok(Given { reads, writes, allowance: Allowance { max_requests, max_upload } })
}

/// Whether the rules of a repository let a job write its ref.
fn may_write(repository: &Repository, claims: &Claims, own: &str) -> bool {
    let fits = |pattern: &String| match pattern.strip_suffix('*') {
        Some(beginning) => own.starts_with(beginning),
        None => own == pattern,
    };
    let listed = repository.write_refs.as_ref().is_none_or(|refs| refs.iter().any(fits));
    let pinned =
        repository.default_branch_workflows.as_ref().filter(|_| own == repository.default_ref());
    let ran = [&claims.workflow_ref, &claims.job_workflow_ref];
    listed && pinned.is_none_or(|workflows| workflows.iter().any(|one| ran.contains(&one)))
}

#[cfg(test)]
mod tests;
