//! [`Verified`]: the layer that lets no unchecked byte through.
//!
//! Blobs pass as they are and are checked against the digest in their name. Every other object is
//! put into an entry frame ([`crate::entry`]) on its way down and taken out of it on its way up, so
//! callers above see payloads only. What fails its check is removed and counted, and there is none:
//! the next producer replaces it.
//!
//! It stands directly over a backend that may damage or mix up objects: a remote store, a shared
//! disk. It verifies on every read; whoever copies sealed blobs by path from a
//! [`crate::disk::DiskStore`] needs it for records only.

use std::fmt;
use std::io::Seek as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};

use crate::backend::{Backend, Body, Listed, Put, StoreError, StoreResult};
use crate::digest::Digest;
use crate::entry::{self, EntryError};
use crate::key::ObjectName;
use crate::limits;

/// Checks what the backend below returns. Clones share the counters.
#[derive(Debug, Clone)]
pub struct Verified<B> {
    inner: B,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    verified: AtomicU64,
    damaged: AtomicU64,
}

/// What the layer saw.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VerifyCounters {
    /// Objects that passed.
    pub verified: u64,
    /// Objects that did not, and were removed.
    pub damaged: u64,
}

impl<B: Backend + Clone + 'static> Verified<B> {
    /// The layer over a backend. Clones of the backend have to be the same store, as an
    /// `Arc<dyn Backend>` is.
    pub fn new(inner: B) -> Self {
        Self { inner, counts: Arc::default() }
    }

    /// What the layer saw so far.
    pub fn counters(&self) -> VerifyCounters {
        VerifyCounters {
            verified: self.counts.verified.load(Ordering::Relaxed),
            damaged: self.counts.damaged.load(Ordering::Relaxed),
        }
    }

    fn passed(&self) {
        self.counts.verified.fetch_add(1, Ordering::Relaxed);
    }

    /// Removes a damaged object. When that fails it stays a miss, and is found damaged again.
    async fn discard(&self, name: &ObjectName) {
        self.counts.damaged.fetch_add(1, Ordering::Relaxed);
        let _ = self.inner.delete(name).await;
    }

    /// What the check of an object returned, with damage turned into a miss.
    async fn settle<T>(&self, name: &ObjectName, result: StoreResult<T>) -> StoreResult<Option<T>> {
        match result {
            Ok(value) => {
                self.passed();
                Ok(Some(value))
            }
            Err(StoreError::Damaged { .. } | StoreError::TooLarge { .. }) => {
                self.discard(name).await;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn get_record(&self, name: &ObjectName, body: Body) -> StoreResult<Option<Bytes>> {
        let frame = body.into_bytes(name, entry::max_frame(name)).await;
        let payload = frame.and_then(|frame| {
            entry::decode(name, frame).map_err(|error| damaged(name, error.to_string()))
        });
        let payload = self.settle(name, payload).await?;
        Ok(payload.map(entry::CheckedPayload::into_bytes))
    }

    async fn get_blob(
        &self,
        name: &ObjectName,
        digest: Digest,
        body: Body,
    ) -> StoreResult<Option<Body>> {
        let checked = match body {
            Body::File { file, len } => check_file(name, digest, file, len).await,
            Body::Stream { stream, len } if len > limits::LAYER_BUFFER_BYTES => {
                return Ok(Some(self.checking_stream(name, digest, stream, len)));
            }
            small => match small.into_bytes(name, u64::MAX).await {
                Ok(bytes) => check_bytes(name, digest, bytes).await,
                Err(error) => Err(error),
            },
        };
        self.settle(name, checked).await
    }

    /// A stream that is too long to hold is checked on its way: the last chunk comes only when all
    /// is right, and an error in its place otherwise.
    fn checking_stream(
        &self,
        name: &ObjectName,
        digest: Digest,
        stream: BoxStream<'static, StoreResult<Bytes>>,
        len: u64,
    ) -> Body {
        let check = Checking {
            layer: self.clone(),
            name: name.clone(),
            digest,
            stream,
            left: len,
            hasher: blake3::Hasher::new(),
            held: None,
        };
        let stream = stream::unfold(Some(check), |check| async move { check?.step().await });
        Body::Stream { stream: stream.boxed(), len }
    }
}

struct Checking<B> {
    layer: Verified<B>,
    name: ObjectName,
    digest: Digest,
    stream: BoxStream<'static, StoreResult<Bytes>>,
    /// Bytes that the stream still has to yield.
    left: u64,
    hasher: blake3::Hasher,
    /// The chunk that was read last; it is passed on when the next one comes or all is right.
    held: Option<Bytes>,
}

type Step<B> = Option<(StoreResult<Bytes>, Option<Checking<B>>)>;

impl<B: Backend + Clone + 'static> Checking<B> {
    async fn step(mut self) -> Step<B> {
        loop {
            match self.stream.next().await {
                Some(Ok(chunk)) if chunk.len() as u64 > self.left => {
                    return Some(self.refuse("the stream is longer than announced").await);
                }
                Some(Ok(chunk)) => {
                    self.left -= chunk.len() as u64;
                    self.hasher.update(&chunk);
                    if let Some(before) = self.held.replace(chunk) {
                        return Some((Ok(before), Some(self)));
                    }
                }
                // A broken connection says nothing about the object.
                Some(Err(error)) => return Some((Err(error), None)),
                None => return self.end().await,
            }
        }
    }

    async fn end(mut self) -> Step<B> {
        let found = Digest::from_bytes(*self.hasher.finalize().as_bytes());
        if self.left > 0 || found != self.digest {
            return Some(self.refuse("the bytes are not those of the blob").await);
        }
        self.layer.passed();
        self.held.take().map(|last| (Ok(last), None))
    }

    async fn refuse(self, why: &str) -> (StoreResult<Bytes>, Option<Self>) {
        self.layer.discard(&self.name).await;
        (Err(damaged(&self.name, why.to_owned())), None)
    }
}

fn damaged(name: &ObjectName, why: String) -> StoreError {
    StoreError::Damaged { name: name.clone(), why }
}

fn expect(name: &ObjectName, expected: Digest, found: Digest) -> StoreResult<()> {
    if found == expected {
        Ok(())
    } else {
        Err(damaged(name, "the bytes are not those of the blob".to_owned()))
    }
}

async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> StoreResult<T> + Send + 'static,
) -> StoreResult<T> {
    match tokio::task::spawn_blocking(call).await {
        Ok(result) => result,
        Err(error) => Err(StoreError::Unavailable(format!("verification: {error}"))),
    }
}

async fn check_bytes(name: &ObjectName, digest: Digest, bytes: Bytes) -> StoreResult<Body> {
    let found = if bytes.len() <= limits::COPY_BUFFER_BYTES {
        Digest::of(&bytes)
    } else {
        let bytes = bytes.clone();
        blocking(move || Ok(Digest::of(&bytes))).await?
    };
    expect(name, digest, found)?;
    Ok(Body::Bytes(bytes))
}

async fn check_file(
    name: &ObjectName,
    digest: Digest,
    mut file: std::fs::File,
    len: u64,
) -> StoreResult<Body> {
    let name = name.clone();
    let unreadable = |error: std::io::Error| StoreError::Unavailable(format!("disk: {error}"));
    blocking(move || {
        let (found, read) = Digest::of_reader(&mut file).map_err(unreadable)?;
        if read != len {
            return Err(damaged(&name, "the file has another length".to_owned()));
        }
        expect(&name, digest, found)?;
        file.rewind().map_err(unreadable)?;
        Ok(Body::File { file, len })
    })
    .await
}

#[async_trait]
impl<B: Backend + Clone + fmt::Debug + 'static> Backend for Verified<B> {
    async fn get(&self, name: &ObjectName) -> StoreResult<Option<Body>> {
        let Some(body) = self.inner.get(name).await? else {
            return Ok(None);
        };
        match name.blob_digest() {
            Some(digest) => self.get_blob(name, digest, body).await,
            None => Ok(self.get_record(name, body).await?.map(Body::Bytes)),
        }
    }

    async fn put_if_absent(&self, name: &ObjectName, body: Body) -> StoreResult<Put> {
        if name.blob_digest().is_some() {
            return self.inner.put_if_absent(name, body).await;
        }
        let payload = body.into_bytes(name, entry::max_payload(name) as u64).await?;
        let frame = entry::encode(name, &payload).map_err(|error| match error {
            EntryError::TooLarge(size) => StoreError::TooLarge { name: name.clone(), size },
            other => damaged(name, other.to_string()),
        })?;
        let body = Body::Bytes(frame.into());
        self.inner.put_if_absent(name, body).await
    }

    /// Of a blob, what the backend says; of anything else, the size of the payload, for which it
    /// is read.
    async fn size(&self, name: &ObjectName) -> StoreResult<Option<u64>> {
        if name.blob_digest().is_some() {
            return self.inner.size(name).await;
        }
        Ok(self.get(name).await?.map(|body| body.len()))
    }

    async fn delete(&self, name: &ObjectName) -> StoreResult<bool> {
        self.inner.delete(name).await
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, StoreResult<Listed>> {
        self.inner.list(prefix)
    }

    fn local_dir(&self) -> Option<PathBuf> {
        self.inner.local_dir()
    }
}
