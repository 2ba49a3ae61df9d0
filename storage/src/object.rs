//! [`ObjectBackend`]: objects in S3 and what is compatible, Google Cloud Storage and Azure.
//!
//! Owns the way from the [`Backend`] trait to the crate `object_store`: names and prefixes, conditional writes,
//! large bodies in parts, what is tried again, errors without secrets. It frames and verifies nothing
//! ([`crate::verify`], [`crate::remote::objects`] do), reads no environment (settings are handed in) and reaches for
//! no network before the first call: a server starts without its bucket.
//!
//! An object up to [`ObjectLimits::part_bytes`] is written by one conditional request: of many writers one
//! creates it. A larger one goes in parts: first it is asked whether it is there; S3 then completes the
//! upload only if it is still not there, Google and Azure are asked again before it is completed. (Two
//! that complete within the same moment there both say that they created it. Objects of this size are
//! blobs: both wrote the same bytes.)
//!
//! Deleting asks first, since these services do not tell whether there was one.

mod connect;
mod failure;
mod patience;
mod place;
mod settings;
mod traffic;
mod upload;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::list::PaginatedListOptions;
use object_store::path::Path;
use object_store::{GetOptions, ObjectStoreExt as _, PutMode, PutOptions, PutPayload};

use crate::backend::{Backend, Body, Listed, Put, StoreError, StoreResult};
use crate::key::ObjectName;
use crate::limits;
use failure::{Doing, project};
use upload::UploadError;

pub use patience::Patience;
pub use place::{Place, Service};
pub use traffic::Traffic;

/// Where objects are and how they are reached.
#[derive(Clone)]
pub struct ObjectOptions {
    /// `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`; see [`Place::parse`].
    pub url: String,
    /// Settings with the names that are usual for the service: `AWS_*`, `GOOGLE_*`, `AZURE_*`. Others are left alone.
    pub settings: Vec<(String, String)>,
    /// Bounds.
    pub limits: ObjectLimits,
}

impl ObjectOptions {
    /// A URL and settings, with the usual bounds.
    pub fn new(url: impl Into<String>, settings: Vec<(String, String)>) -> Self {
        Self { url: url.into(), settings, limits: ObjectLimits::default() }
    }
}

impl fmt::Debug for ObjectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.settings.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("ObjectOptions").field("settings", &names).finish_non_exhaustive()
    }
}

/// Bounds of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectLimits {
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest time without a byte of an answer.
    pub read_timeout: Duration,
    /// What is tried again.
    pub patience: Patience,
    /// Requests at a time.
    pub requests: usize,
    /// Largest object that is written by one request, and the size of parts, bytes; the services want
    /// 5 MiB at least.
    pub part_bytes: usize,
}

impl Default for ObjectLimits {
    fn default() -> Self {
        Self {
            connect_timeout: limits::OBJECT_CONNECT_TIMEOUT,
            read_timeout: limits::OBJECT_READ_TIMEOUT,
            patience: Patience {
                attempts: limits::MAX_OBJECT_ATTEMPTS,
                first_pause: limits::OBJECT_FIRST_PAUSE,
                max_pause: limits::OBJECT_MAX_PAUSE,
                total: limits::OBJECT_RETRY_TIME,
            },
            requests: limits::MAX_OBJECT_REQUESTS,
            part_bytes: limits::OBJECT_PART_BYTES,
        }
    }
}

/// Why a backend cannot be made of its options.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// The URL; it is not repeated.
    #[error("not the URL of a bucket: {0}")]
    Url(&'static str),
    /// The settings.
    #[error("the settings of the bucket do not fit: {0}")]
    Settings(String),
}

/// Objects in a bucket. Clones share client and counters. See the module.
#[derive(Clone)]
pub struct ObjectBackend {
    place: Place,
    client: connect::Client,
    traffic: Arc<Traffic>,
    part_bytes: usize,
}

impl fmt::Debug for ObjectBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectBackend({})", self.place)
    }
}

impl ObjectBackend {
    /// The backend of a place. Asks nobody anything.
    ///
    /// # Errors
    /// [`ObjectError`]: URL or settings.
    pub fn open(options: &ObjectOptions) -> Result<Self, ObjectError> {
        let place = Place::parse(&options.url)?;
        let traffic = Arc::new(Traffic::default());
        let shared = wire::Shared {
            patience: options.limits.patience,
            slots: Arc::new(tokio::sync::Semaphore::new(options.limits.requests.max(1))),
            traffic: Arc::clone(&traffic),
            completes_once: place.service == Service::S3,
            told: Arc::default(),
        };
        let client = connect::client(&place, options, &shared)?;
        Ok(Self { place, client, traffic, part_bytes: options.limits.part_bytes })
    }

    /// The place, as its URL.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// What went over the wire.
    pub fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }

    fn path(&self, name: &ObjectName) -> StoreResult<Path> {
        // Both grammars were checked, and theirs allows more.
        Path::parse(self.place.key(name.as_str()))
            .map_err(|_| StoreError::Unavailable(format!("{}: no name for {name}", self.place)))
    }

    fn failed(&self, doing: Doing, error: &object_store::Error) -> StoreError {
        project(&self.place, doing, error)
    }

    /// What an object in the bucket is here; `None` for one that is not Kiln's.
    fn listed(&self, meta: &object_store::ObjectMeta) -> Option<Listed> {
        let name = self.place.name(meta.location.as_ref())?.parse().ok()?;
        let used_ms = u64::try_from(meta.last_modified.timestamp_millis()).unwrap_or(0);
        Some(Listed { name, size: meta.size, used_ms })
    }

    async fn put_small(&self, path: &Path, bytes: Bytes) -> StoreResult<Put> {
        let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let payload = PutPayload::from_bytes(bytes);
        match self.client.store.put_opts(path, payload, create).await {
            Ok(_) => Ok(Put::Created),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(Put::AlreadyThere),
            Err(error) => Err(self.failed(Doing::Write, &error)),
        }
    }

    async fn put_large(&self, name: &ObjectName, path: &Path, body: Body) -> StoreResult<Put> {
        if self.size(name).await?.is_some() {
            return Ok(Put::AlreadyThere);
        }
        let is_there = async {
            // S3 is told to look, when the upload is completed.
            Ok(self.place.service != Service::S3 && self.size(name).await?.is_some())
        };
        let store = &*self.client.store;
        match upload::in_parts(store, (path, name), body, self.part_bytes, is_there).await {
            Ok(put) => Ok(put),
            Err(UploadError::Body(error)) => Err(error),
            Err(UploadError::Service(error)) => match error {
                object_store::Error::Precondition { .. }
                | object_store::Error::AlreadyExists { .. } => Ok(Put::AlreadyThere),
                // An upload that is gone was completed by an attempt whose answer was lost.
                object_store::Error::NotFound { .. } if self.size(name).await?.is_some() => {
                    Ok(Put::AlreadyThere)
                }
                error => Err(self.failed(Doing::Write, &error)),
            },
        }
    }
}

#[async_trait]
impl Backend for ObjectBackend {
    async fn get(&self, name: &ObjectName) -> StoreResult<Option<Body>> {
        let path = self.path(name)?;
        let found = match self.client.store.get_opts(&path, GetOptions::default()).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(self.failed(Doing::Read, &error)),
        };
        let len = found.meta.size;
        let (place, traffic) = (self.place.clone(), self.traffic());
        let stream = found.into_stream().map(move |chunk| match chunk {
            Ok(chunk) => {
                traffic.received(chunk.len() as u64);
                Ok(chunk)
            }
            Err(error) => Err(project(&place, Doing::Read, &error)),
        });
        Ok(Some(Body::Stream { stream: stream.boxed(), len }))
    }

    async fn put_if_absent(&self, name: &ObjectName, body: Body) -> StoreResult<Put> {
        let size = body.len();
        if size > limits::MAX_BLOB_BYTES {
            return Err(StoreError::TooLarge { name: name.clone(), size });
        }
        let path = self.path(name)?;
        if size <= self.part_bytes as u64 {
            let bytes = body.into_bytes(name, size).await?;
            self.put_small(&path, bytes).await
        } else {
            self.put_large(name, &path, body).await
        }
    }

    async fn size(&self, name: &ObjectName) -> StoreResult<Option<u64>> {
        let path = self.path(name)?;
        match self.client.store.head(&path).await {
            Ok(found) => Ok(Some(found.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed(Doing::Read, &error)),
        }
    }

    async fn delete(&self, name: &ObjectName) -> StoreResult<bool> {
        if self.size(name).await?.is_none() {
            return Ok(false);
        }
        self.delete_all(std::slice::from_ref(name)).await?;
        Ok(true)
    }

    /// In as few requests as the service has: a thousand objects in one.
    async fn delete_all(&self, names: &[ObjectName]) -> StoreResult<()> {
        let paths: Vec<_> = names.iter().map(|name| self.path(name)).collect::<Result<_, _>>()?;
        let paths = stream::iter(paths.into_iter().map(Ok)).boxed();
        let mut deleted = self.client.store.delete_stream(paths);
        while let Some(one) = deleted.next().await {
            match one {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(self.failed(Doing::Write, &error)),
            }
        }
        Ok(())
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, StoreResult<Listed>> {
        let backend = self.clone();
        let wanted = prefix.to_owned();
        let mut prefix = self.place.key(prefix);
        if self.place.service == Service::Azure && !prefix.ends_with('/') {
            // `object_store` leaves out what is called as the prefix itself.
            prefix.pop();
        }
        // The token of the next page; `None` after the last one.
        let pages = stream::try_unfold(Some(None::<String>), move |token| {
            let (backend, prefix, wanted) = (backend.clone(), prefix.clone(), wanted.clone());
            async move {
                let Some(page_token) = token else { return StoreResult::Ok(None) };
                let options =
                    PaginatedListOptions { page_token, ..PaginatedListOptions::default() };
                let page = backend.client.lister.list_paginated(Some(&prefix), options).await;
                let page = page.map_err(|error| backend.failed(Doing::Read, &error))?;
                let objects = page.result.objects.iter();
                let listed = objects.filter_map(|meta| backend.listed(meta));
                let listed = listed.filter(|listed| listed.name.as_str().starts_with(&wanted));
                let listed: Vec<_> = listed.map(Ok).collect();
                Ok(Some((stream::iter(listed), page.page_token.map(Some))))
            }
        });
        pages.try_flatten().boxed()
    }
}
