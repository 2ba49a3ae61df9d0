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
use kiln_storage::remote::kiln::{KilnOptions, KilnRemote};
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
    let options = KilnOptions { url: url.display(), token: token.map(str::to_owned) };
    KilnRemote::new(options).map(opened).map_err(|error| error.to_string())
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
