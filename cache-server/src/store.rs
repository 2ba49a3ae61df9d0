//! [`Store`]: the backend as the server uses it: blobs by digest, records framed by
//! [`kiln_storage::entry`], and whether it takes writes.
//!
//! Knows nothing of the index or of HTTP.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use kiln_storage::api::Problem;
use kiln_storage::backend::{Backend, Body, Listed, Put, StoreError, StoreResult};
use kiln_storage::{
    Digest, DiskBackend, DiskOptions, MemoryBackend, ObjectName, Record, entry, limits,
};

use crate::config::StorageUrl;
use crate::error::{ApiError, read_only};
use crate::limits::READ_ONLY_RETRY;
use crate::maker::{self, Made};

/// Name of the object that tells stores apart.
const ID_OBJECT: &str = "meta/store-id";

/// Longest id of a store, bytes.
const MAX_ID_BYTES: u64 = 128;

/// A handle on the store; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    backend: Arc<dyn Backend>,
    url: StorageUrl,
    fault: Arc<Mutex<Option<Fault>>>,
}

/// A write that failed, and when.
#[derive(Debug, Clone)]
struct Fault {
    error: ApiError,
    at: Instant,
}

impl Store {
    /// Opens the store of a URL; blocks.
    ///
    /// # Errors
    /// There is no such place and it cannot be made.
    pub(crate) fn open(url: &StorageUrl) -> StoreResult<Self> {
        match url {
            StorageUrl::File(dir) => {
                let disk = DiskBackend::open(dir.clone(), DiskOptions::default())?;
                let writable = disk.store().check_writable();
                let store = Self::new(Arc::new(disk), url.clone());
                store.note(&writable.map(|()| Put::Created));
                Ok(store)
            }
            StorageUrl::Memory => {
                // Bounded as every store is, by eviction, so that the index knows what goes.
                let memory = MemoryBackend::new(u64::MAX);
                Ok(Self::new(Arc::new(memory), url.clone()))
            }
        }
    }

    /// A store over any backend.
    pub(crate) fn new(backend: Arc<dyn Backend>, url: StorageUrl) -> Self {
        Self { backend, url, fault: Arc::default() }
    }

    /// The URL, for people.
    pub(crate) fn display(&self) -> String {
        self.url.display()
    }

    /// The backend itself, for who reads whole results from it.
    pub(crate) fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// Where blobs are plain files, if they are.
    pub(crate) fn local_dir(&self) -> Option<PathBuf> {
        self.backend.local_dir()
    }

    /// The id of the store: made by whoever opens it first. A store that has none and takes no
    /// writes has an id of this moment, which fits no index.
    pub(crate) async fn id(&self) -> String {
        let Ok(name) = ID_OBJECT.parse::<ObjectName>() else {
            return String::new();
        };
        let fresh = unique();
        let put = self.backend.put_if_absent(&name, Body::Bytes(Bytes::from(fresh.clone()))).await;
        self.note(&put);
        let Ok(Some(body)) = self.backend.get(&name).await else {
            return fresh;
        };
        body.into_bytes(&name, MAX_ID_BYTES)
            .await
            .map_or(fresh, |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The bytes of a blob.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub(crate) async fn blob(&self, digest: &Digest) -> StoreResult<Option<Body>> {
        match self.backend.get(&ObjectName::blob(digest)).await {
            Err(StoreError::Damaged { .. }) => Ok(None),
            other => other,
        }
    }

    /// The size of a blob that is there and not known to be damaged.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub(crate) async fn blob_size(&self, digest: &Digest) -> StoreResult<Option<u64>> {
        self.backend.size(&ObjectName::blob(digest)).await
    }

    /// Stores a blob, verified on the way in.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when the bytes are not those of the digest; as the backend.
    pub(crate) async fn put_blob(&self, digest: &Digest, body: Body) -> StoreResult<Put> {
        let name = ObjectName::blob(digest);
        let put = if self.backend.local_dir().is_some() {
            // A disk store hashes what it writes.
            self.backend.put_if_absent(&name, body).await
        } else {
            let bytes = body.into_bytes(&name, limits::MAX_BLOB_BYTES).await?;
            let (bytes, found) = hash(bytes).await?;
            if found != *digest {
                let why = "the bytes offered have another digest".to_owned();
                return Err(StoreError::Damaged { name, why });
            }
            self.backend.put_if_absent(&name, Body::Bytes(bytes)).await
        };
        self.note(&put);
        put
    }

    /// Reads a blob whole and compares its digest; whether it is there and right. One that is not
    /// right is removed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::ReadOnly`].
    pub(crate) async fn verify_blob(&self, digest: &Digest) -> StoreResult<bool> {
        let found = match self.blob(digest).await? {
            None => return Ok(false),
            Some(Body::Bytes(bytes)) => hash(bytes).await?.1,
            Some(Body::File { mut file, .. }) => {
                blocking(move || Digest::of_reader(&mut file).map(|(digest, _)| digest))
                    .await?
                    .map_err(|error| StoreError::Unavailable(error.to_string()))?
            }
            Some(body @ Body::Stream { .. }) => {
                let name = ObjectName::blob(digest);
                let bytes = body.into_bytes(&name, limits::MAX_BLOB_BYTES).await?;
                hash(bytes).await?.1
            }
        };
        if found != *digest {
            self.delete_blob(digest).await?;
        }
        Ok(found == *digest)
    }

    /// Removes a blob.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::ReadOnly`].
    pub(crate) async fn delete_blob(&self, digest: &Digest) -> StoreResult<bool> {
        self.backend.delete(&ObjectName::blob(digest)).await
    }

    /// Removes any object.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::ReadOnly`].
    pub(crate) async fn delete(&self, name: &ObjectName) -> StoreResult<bool> {
        self.backend.delete(name).await
    }

    /// The record in an object, with who had it stored where that is known: none, or `Err` of why it cannot be used.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] for bytes that are no record; [`StoreError::Unavailable`].
    pub(crate) async fn record(
        &self,
        name: &ObjectName,
    ) -> StoreResult<Option<(Record, Option<Made>)>> {
        let Some(payload) = self.framed(name).await? else {
            return Ok(None);
        };
        let damaged = |why: String| StoreError::Damaged { name: name.clone(), why };
        let record: Record =
            serde_json::from_slice(&payload).map_err(|error| damaged(error.to_string()))?;
        record.check().map_err(|error| damaged(error.to_string()))?;
        let made = maker::read(&payload);
        Ok(Some((record, made)))
    }

    /// The payload of a framed object: a record or a note beside the records.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] for bytes that are no frame of this name;
    /// [`StoreError::Unavailable`].
    pub(crate) async fn framed(&self, name: &ObjectName) -> StoreResult<Option<Bytes>> {
        let Some(body) = self.backend.get(name).await? else {
            return Ok(None);
        };
        let frame = body.into_bytes(name, entry::max_frame(name)).await?;
        let payload = entry::decode(name, frame)
            .map_err(|error| StoreError::Damaged { name: name.clone(), why: error.to_string() })?;
        Ok(Some(payload.into_bytes()))
    }

    /// Stores a payload in a frame under a name.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`]; as the backend.
    pub(crate) async fn put_framed(&self, name: &ObjectName, body: &[u8]) -> StoreResult<Put> {
        let frame = entry::encode(name, body)
            .map_err(|_| StoreError::TooLarge { name: name.clone(), size: body.len() as u64 })?;
        let put = self.backend.put_if_absent(name, Body::Bytes(frame.into())).await;
        self.note(&put);
        put
    }

    /// All objects of a prefix.
    pub(crate) fn list(&self, prefix: &str) -> BoxStream<'static, StoreResult<Listed>> {
        self.backend.list(prefix).boxed()
    }

    /// Why nothing can be stored now, if that is so. After a while it is tried again.
    ///
    /// # Errors
    /// [`ApiError::ReadOnly`], [`ApiError::InsufficientStorage`].
    pub(crate) fn check_writable(&self) -> Result<(), ApiError> {
        match self.fault() {
            Some(fault) if fault.at.elapsed() < READ_ONLY_RETRY => Err(fault.error),
            _ => Ok(()),
        }
    }

    /// Why the last write failed, if it did, for people.
    pub(crate) fn read_only(&self) -> Option<String> {
        let Problem { title, detail, .. } = self.fault()?.error.problem("");
        Some(detail.unwrap_or(title))
    }

    fn fault(&self) -> Option<Fault> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, result: &StoreResult<Put>) {
        let fault = match result {
            Ok(Put::Created) => None,
            Err(StoreError::ReadOnly(why)) => {
                Some(Fault { error: read_only(why), at: Instant::now() })
            }
            // Nothing was written.
            Ok(Put::AlreadyThere) | Err(_) => return,
        };
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }
}

async fn hash(bytes: Bytes) -> StoreResult<(Bytes, Digest)> {
    blocking(move || {
        let digest = Digest::of(&bytes);
        (bytes, digest)
    })
    .await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> StoreResult<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| StoreError::Unavailable(error.to_string()))
}

/// A text that no other call on any machine returns.
fn unique() -> String {
    use std::hash::{BuildHasher as _, Hasher as _};
    let chance = || std::collections::hash_map::RandomState::new().build_hasher().finish();
    let seed =
        format!("{} {} {} {}", std::process::id(), crate::clock::now_ms(), chance(), chance());
    Digest::of(seed.as_bytes()).to_string()
}
