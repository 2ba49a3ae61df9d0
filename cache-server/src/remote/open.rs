//! Making a [`Remote`] of the place that the settings name: the one function that knows all kinds.
//!
//! Called by [`crate::serve`]. Opening reaches nobody: a server starts while its remote is away.

use std::sync::Arc;

use kiln_storage::Remote;
use kiln_storage::remote::kiln::{KilnOptions, KilnRemote};

use super::url::{Access, RemoteUrl};
use crate::config::ConfigError;

/// What is behind a server.
///
/// # Errors
/// This version does not have it; what is needed to get in is missing.
pub(crate) fn open(
    setting: &'static str,
    url: &RemoteUrl,
    access: &Access,
) -> Result<Arc<dyn Remote>, ConfigError> {
    available(setting, url)?;
    match url {
        RemoteUrl::Kiln { .. } => {
            let options = KilnOptions { url: url.display(), token: access.token.clone() };
            let remote = KilnRemote::new(options)
                .map_err(|error| ConfigError::NoRemote { setting, why: error.to_string() })?;
            Ok(Arc::new(remote))
        }
        RemoteUrl::S3(_) | RemoteUrl::Gs(_) | RemoteUrl::Az(_) | RemoteUrl::Gha => {
            Err(not_available(setting, url))
        }
    }
}

/// Whether this version has a kind of place; for a check of settings that opens nothing.
///
/// # Errors
/// It has not.
pub(crate) fn available(setting: &'static str, url: &RemoteUrl) -> Result<(), ConfigError> {
    match url {
        RemoteUrl::Kiln { .. } => Ok(()),
        RemoteUrl::S3(_) | RemoteUrl::Gs(_) | RemoteUrl::Az(_) | RemoteUrl::Gha => {
            Err(not_available(setting, url))
        }
    }
}

fn not_available(setting: &'static str, url: &RemoteUrl) -> ConfigError {
    let what = match url {
        RemoteUrl::Kiln { .. } => "http://",
        RemoteUrl::S3(_) => "s3://",
        RemoteUrl::Gs(_) => "gs://",
        RemoteUrl::Az(_) => "az://",
        RemoteUrl::Gha => "gha://",
    };
    ConfigError::NotAvailable {
        setting,
        what,
        accepts: "file:///absolute/path, memory: or http(s)://host:port",
    }
}
