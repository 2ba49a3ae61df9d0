//! Making a [`Remote`] of the place that the settings name: the one function that knows all kinds.
//!
//! Called by [`crate::serve`], and by [`crate::gc`] for the bucket alone. Opening reaches nobody: a server starts while its remote is away, and also
//! where it was not told what it takes to get in.

use std::sync::Arc;

use kiln_storage::object::ObjectError;
use kiln_storage::remote::absent::AbsentRemote;
use kiln_storage::remote::gha::GhaRemote;
use kiln_storage::remote::gha::settings::{Runner, Secret, Settings};
use kiln_storage::remote::gha::token::Refs;
use kiln_storage::remote::kiln::{JobIdentity, KilnOptions, KilnRemote};
use kiln_storage::remote::objects::ObjectRemote;
use kiln_storage::{ObjectBackend, ObjectOptions, Remote, Scope};

use super::url::{Access, RemoteUrl};
use crate::config::RemoteConfig;
use crate::limits::GHA_SHARERS;

/// The repository in the scopes of the GitHub Actions cache, which keeps repositories apart itself.
const GHA_REPOSITORY: &str = "gha";

/// What is behind a server.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The remote.
    pub remote: Arc<dyn Remote>,
    /// The scopes there that are read, where the place itself tells; the first is written.
    pub scopes: Option<Vec<Scope>>,
    /// Why it can never be reached, if that is so.
    pub absent: Option<String>,
}

/// What is behind a server, if anything.
pub(crate) fn open(config: &RemoteConfig) -> Option<Opened> {
    let (_, url) = config.url.as_ref()?;
    let remote = match url {
        RemoteUrl::Kiln { .. } => kiln(url, &config.access),
        RemoteUrl::S3(_) | RemoteUrl::Gs(_) | RemoteUrl::Az(_) => bucket(url, &config.access),
        RemoteUrl::Gha => gha(&config.access),
    };
    Some(remote.unwrap_or_else(|why| Opened {
        remote: Arc::new(AbsentRemote::new(url.display(), why.clone())),
        scopes: None,
        absent: Some(why),
    }))
}

fn opened(remote: impl Remote + 'static) -> Opened {
    Opened { remote: Arc::new(remote), scopes: None, absent: None }
}

fn kiln(url: &RemoteUrl, access: &Access) -> Result<Opened, String> {
    // Secrets of CI often end with a line break.
    let token = access.token.as_deref().map(str::trim).filter(|token| !token.is_empty());
    let job = job(url, access).filter(|_| token.is_none());
    let options = KilnOptions { url: url.display(), token: token.map(str::to_owned), job };
    KilnRemote::new(options).map(opened).map_err(|error| error.to_string())
}

/// What a job of GitHub Actions is known by at a Kiln server: what GitHub signs for it. It is shown to nobody on the
/// way, so by TLS alone, or on this machine.
fn job(url: &RemoteUrl, access: &Access) -> Option<JobIdentity> {
    let RemoteUrl::Kiln { tls, host } = url else { return None };
    let here = ["127.0.0.1:", "localhost:", "[::1]:"];
    if !tls && !here.iter().any(|prefix| host.starts_with(prefix)) {
        return None;
    }
    let variable = |name: &str| access.variables.get(name).filter(|value| !value.is_empty());
    let (scheme, host) = match tls {
        true => ("https", host.strip_suffix(":443").unwrap_or(host)),
        false => ("http", host.as_str()),
    };
    Some(JobIdentity {
        request_url: variable("ACTIONS_ID_TOKEN_REQUEST_URL")?.clone(),
        request_token: variable("ACTIONS_ID_TOKEN_REQUEST_TOKEN")?.clone(),
        audience: format!("{scheme}://{host}"),
    })
}

/// The bucket of a URL.
///
/// # Errors
/// It cannot be opened with these variables.
pub(crate) fn bucket_backend(
    url: &RemoteUrl,
    access: &Access,
) -> Result<ObjectBackend, ObjectError> {
    let settings = access.variables.clone().into_iter().collect();
    ObjectBackend::open(&ObjectOptions::new(url.display(), settings))
}

fn bucket(url: &RemoteUrl, access: &Access) -> Result<Opened, String> {
    let backend = bucket_backend(url, access);
    backend.map(ObjectRemote::in_bucket).map(opened).map_err(|error| error.to_string())
}

fn gha(access: &Access) -> Result<Opened, String> {
    let variable = |name: &str| access.variables.get(name).filter(|value| !value.trim().is_empty());
    let token = variable("ACTIONS_RUNTIME_TOKEN").map(Secret::new);
    let refs = token.as_ref().and_then(Refs::of).unwrap_or_default();
    let runner = Runner {
        results_url: variable("ACTIONS_RESULTS_URL").cloned(),
        cache_url: variable("ACTIONS_CACHE_URL").map(Secret::new),
        service_v2: variable("ACTIONS_CACHE_SERVICE_V2").is_some(),
        token,
        mode: variable("ACTIONS_CACHE_MODE").cloned(),
    };
    let mut settings: Settings = runner.settings().map_err(|missing| missing.to_string())?;
    settings.sharers = GHA_SHARERS;
    let scopes: Vec<Scope> =
        refs.read.into_iter().map(|name| Scope::new(GHA_REPOSITORY, name)).collect();
    let scopes = if scopes.is_empty() { scopes_untold() } else { scopes };
    settings.scopes.clone_from(&scopes);
    let remote = GhaRemote::new(settings).map_err(|error| error.to_string())?;
    Ok(Opened { scopes: Some(scopes), ..opened(remote) })
}

/// Where the token tells no refs: what the service itself keeps apart.
fn scopes_untold() -> Vec<Scope> {
    vec![Scope::new(GHA_REPOSITORY, "all")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_known_by_what_github_signs_where_nobody_can_listen() {
        let audience = |url: &str, variables: &[&str]| {
            let url = RemoteUrl::parse("KILN_UPSTREAM", url).unwrap();
            let pair = |name: &&str| ((*name).to_owned(), "value".to_owned());
            let variables = variables.iter().map(pair).collect();
            job(&url, &Access { variables, token: None }).map(|job| job.audience)
        };
        let both = ["ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"];
        let is = |url: &str, of: &str| assert_eq!(audience(url, &both).as_deref(), Some(of));
        is("https://kiln.example", "https://kiln.example");
        is("https://kiln.example:443/", "https://kiln.example");
        is("https://kiln.example:8443", "https://kiln.example:8443");
        is("http://127.0.0.1:5456", "http://127.0.0.1:5456");
        for (url, variables) in [
            ("http://kiln.example:5456", &both[..]),
            ("http://127.0.0.1.example:5456", &both),
            ("https://kiln.example", &both[..1]),
            ("https://kiln.example", &both[1..]),
            ("s3://bucket", &both),
        ] {
            assert_eq!(audience(url, variables), None, "{url}");
        }
    }
}
