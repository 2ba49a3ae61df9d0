//! Builds the client of a place from settings with the usual names. Called by
//! [`super::ObjectBackend::open`]. It reads the files that settings name and reaches for nothing else.

use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::list::PaginatedListStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};

use super::place::{Place, Service};
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

/// Settings that are not the user's to make here: the bucket comes from the URL, plain HTTP from the
/// endpoint, and writes have to be conditional.
const OWN: [&str; 10] = [
    "aws_bucket",
    "aws_bucket_name",
    "aws_allow_http",
    "aws_conditional_put",
    "aws_copy_if_not_exists",
    "google_bucket",
    "google_bucket_name",
    "azure_container_name",
    "azure_allow_http",
    "azure_storage_container_name",
];

/// Settings that are addresses: where one is plain HTTP, that is allowed.
const ADDRESSES: [&str; 6] = [
    "aws_endpoint",
    "aws_endpoint_url",
    "aws_endpoint_url_s3",
    "google_base_url",
    "azure_endpoint",
    "azure_storage_endpoint",
];

pub(super) fn client(
    place: &Place,
    options: &ObjectOptions,
    shared: &Shared,
) -> Result<Client, ObjectError> {
    let prefix = match place.service {
        Service::S3 => "aws_",
        Service::Gcs => "google_",
        Service::Azure => "azure_",
    };
    let settings: Vec<(String, &str)> = options
        .settings
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.as_str()))
        .filter(|(name, value)| name.starts_with(prefix) && !value.is_empty())
        .filter(|(name, _)| !OWN.contains(&name.as_str()))
        .collect();
    let plain = settings
        .iter()
        .any(|(name, value)| ADDRESSES.contains(&name.as_str()) && value.starts_with("http://"));
    let http = http_options(&options.limits).with_allow_http(plain);
    let retry = resumptions(&options.limits);
    let connector = Connector(shared.clone());
    let built = match place.service {
        Service::S3 => {
            let builder = AmazonS3Builder::new().with_client_options(http).with_retry(retry);
            settings
                .iter()
                .filter_map(|(name, value)| Some((name.parse::<AmazonS3ConfigKey>().ok()?, value)))
                .fold(builder, |builder, (key, value)| builder.with_config(key, *value))
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
                .fold(builder, |builder, (key, value)| builder.with_config(key, *value))
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
                .fold(builder, |builder, (key, value)| builder.with_config(key, *value))
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
