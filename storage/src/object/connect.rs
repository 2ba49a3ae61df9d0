//! Builds the client of a place from settings with the usual names. Called by
//! [`super::ObjectBackend::open`]. It reads the files that settings name and reaches for nothing else.

use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::list::PaginatedListStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};

use super::place::{Place, Service};
use super::settings::{self, Usable};
use super::wire::{Connector, Shared};
use super::{ObjectError, ObjectLimits, ObjectOptions};

/// One client, under the two traits that are needed of it.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) lister: Arc<dyn PaginatedListStore>,
}

impl Client {
    fn of<S: ObjectStore + PaginatedListStore>(store: S) -> Self {
        let store = Arc::new(store);
        Self { store: Arc::clone(&store) as _, lister: store }
    }
}

pub(super) fn client(
    place: &Place,
    options: &ObjectOptions,
    shared: &Shared,
) -> Result<Client, ObjectError> {
    let Usable { settings, plain } = settings::usable(place.service, &options.settings)?;
    for (name, path) in settings::token_files(&settings) {
        if std::fs::File::open(path).is_err() {
            let why = format!("{} names a file that cannot be read", name.to_ascii_uppercase());
            return Err(ObjectError::Settings(why));
        }
    }
    let http = http_options(&options.limits).with_allow_http(plain);
    let retry = resumptions(&options.limits);
    let connector = Connector(shared.clone());
    let built = match place.service {
        Service::S3 => {
            let builder = AmazonS3Builder::new().with_client_options(http).with_retry(retry);
            settings
                .iter()
                .filter_map(|(name, value)| Some((name.parse::<AmazonS3ConfigKey>().ok()?, value)))
                .fold(builder, |builder, (key, value)| builder.with_config(key, value.as_str()))
                .with_bucket_name(&place.bucket)
                .with_http_connector(connector)
                .build()
                .map(Client::of)
        }
        Service::Gcs => {
            let builder =
                GoogleCloudStorageBuilder::new().with_client_options(http).with_retry(retry);
            settings
                .iter()
                .filter_map(|(name, value)| Some((name.parse::<GoogleConfigKey>().ok()?, value)))
                .fold(builder, |builder, (key, value)| builder.with_config(key, value.as_str()))
                .with_bucket_name(&place.bucket)
                .with_http_connector(connector)
                .build()
                .map(Client::of)
        }
        Service::Azure => {
            let builder = MicrosoftAzureBuilder::new().with_client_options(http).with_retry(retry);
            settings
                .iter()
                .filter_map(|(name, value)| Some((name.parse::<AzureConfigKey>().ok()?, value)))
                .fold(builder, |builder, (key, value)| builder.with_config(key, value.as_str()))
                .with_container_name(&place.bucket)
                .with_http_connector(connector)
                .build()
                .map(Client::of)
        }
    };
    built.map_err(|error| refused(&error, options))
}

fn http_options(limits: &ObjectLimits) -> ClientOptions {
    ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(limits.connect_timeout)
        .with_read_timeout(limits.read_timeout)
}

/// For bodies that break off: asked for again from where they broke.
fn resumptions(limits: &ObjectLimits) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: limits.patience.first_pause,
            max_backoff: limits.patience.max_pause,
            base: 2.0,
        },
        max_retries: limits.patience.attempts.saturating_sub(1) as usize,
        retry_timeout: limits.patience.total,
    }
}

/// Says why settings make no client, unless the text repeats one of them.
fn refused(error: &object_store::Error, options: &ObjectOptions) -> ObjectError {
    let text = error.to_string();
    let repeats =
        options.settings.iter().any(|(_, value)| !value.is_empty() && text.contains(value));
    ObjectError::Settings(if repeats {
        "one of them cannot be understood".to_owned()
    } else {
        text
    })
}
