//! [`DiskBackend`]: a [`DiskStore`] behind [`Backend`]. Every blocking call runs on the runtime's
//! blocking threads, a bounded number at a time.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tokio::sync::{Semaphore, mpsc};

use super::store::DiskStore;
use super::{DiskOptions, DiskWriter};
use crate::backend::{Backend, Body, Listed, Put, StoreError, StoreResult};
use crate::key::ObjectName;
use crate::limits;

/// A disk store for async callers. Clones share the store and its bound on blocking calls.
#[derive(Debug, Clone)]
pub struct DiskBackend {
    store: DiskStore,
    permits: Arc<Semaphore>,
}

impl DiskBackend {
    /// Opens the store in a directory; blocks, as [`DiskStore::open`].
    ///
    /// # Errors
    /// As [`DiskStore::open`].
    pub fn open(dir: impl Into<PathBuf>, options: DiskOptions) -> StoreResult<Self> {
        DiskStore::open(dir, options).map(Self::new)
    }

    /// The backend over a store.
    pub fn new(store: DiskStore) -> Self {
        Self { store, permits: Arc::new(Semaphore::new(limits::MAX_DISK_TASKS)) }
    }

    /// The store itself, for blocking callers.
    pub fn store(&self) -> &DiskStore {
        &self.store
    }

    /// Records that an object was used now; whether there was one.
    ///
    /// # Errors
    /// As [`DiskStore::touch`].
    pub async fn touch(&self, name: &ObjectName) -> StoreResult<bool> {
        let (store, name) = (self.store.clone(), name.clone());
        self.blocking(move || store.touch(&name)).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> StoreResult<T> + Send + 'static,
    ) -> StoreResult<T> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        // The permit goes with the call: it lasts on when the caller gives up waiting.
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            call()
        });
        match task.await {
            Ok(result) => result,
            Err(error) => Err(StoreError::Unavailable(format!("disk task: {error}"))),
        }
    }

    async fn put_stream(
        &self,
        name: &ObjectName,
        mut stream: BoxStream<'static, StoreResult<Bytes>>,
        len: u64,
    ) -> StoreResult<Put> {
        let (store, object) = (self.store.clone(), name.clone());
        let writer = self.blocking(move || store.writer(&object, len)).await?;
        let Some(mut writer) = writer else {
            return Ok(Put::AlreadyThere);
        };
        let (mut pending, mut pending_len) = (Vec::new(), 0);
        while let Some(chunk) = stream.next().await {
            let chunk = chunk?;
            pending_len += chunk.len();
            pending.push(chunk);
            // Small chunks go to the disk together: a change of threads costs more than a write.
            if pending_len >= limits::COPY_BUFFER_BYTES {
                let batch = std::mem::take(&mut pending);
                pending_len = 0;
                writer = self.blocking(move || write_all(writer, &batch)).await?;
            }
        }
        self.blocking(move || write_all(writer, &pending)?.finish()).await
    }
}

fn write_all(mut writer: DiskWriter, chunks: &[Bytes]) -> StoreResult<DiskWriter> {
    for chunk in chunks {
        writer.write(chunk)?;
    }
    Ok(writer)
}

#[async_trait]
impl Backend for DiskBackend {
    async fn get(&self, name: &ObjectName) -> StoreResult<Option<Body>> {
        let (store, name) = (self.store.clone(), name.clone());
        self.blocking(move || match store.get(&name)? {
            None => Ok(None),
            Some(found) if found.len <= limits::INLINE_READ_BYTES => {
                Ok(Some(Body::Bytes(found.into_bytes()?)))
            }
            Some(found) => Ok(Some(Body::File { file: found.file, len: found.len })),
        })
        .await
    }

    async fn put_if_absent(&self, name: &ObjectName, body: Body) -> StoreResult<Put> {
        let (store, object) = (self.store.clone(), name.clone());
        match body {
            Body::Bytes(bytes) => self.blocking(move || store.put_bytes(&object, &bytes)).await,
            Body::File { file, len } => {
                self.blocking(move || store.put_file(&object, &file, len)).await
            }
            Body::Stream { stream, len } => self.put_stream(name, stream, len).await,
        }
    }

    async fn size(&self, name: &ObjectName) -> StoreResult<Option<u64>> {
        let (store, name) = (self.store.clone(), name.clone());
        self.blocking(move || store.size(&name)).await
    }

    async fn delete(&self, name: &ObjectName) -> StoreResult<bool> {
        let (store, name) = (self.store.clone(), name.clone());
        self.blocking(move || store.delete(&name)).await
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, StoreResult<Listed>> {
        let (backend, prefix) = (self.clone(), prefix.to_owned());
        let (sender, receiver) = mpsc::channel(limits::LISTING_BUFFER);
        // The walk starts when the stream is first polled, and ends when the stream is dropped.
        let walk = async move {
            let store = backend.store.clone();
            tokio::task::spawn_blocking(move || {
                let end = store.list(&prefix, |listed| match sender.blocking_send(Ok(listed)) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_) => ControlFlow::Break(()),
                });
                if let Err(error) = end {
                    let _ = sender.blocking_send(Err(error));
                }
            });
            receiver
        };
        stream::once(walk)
            .flat_map(|receiver| {
                stream::unfold(receiver, |mut receiver| async move {
                    receiver.recv().await.map(|item| (item, receiver))
                })
            })
            .boxed()
    }

    fn local_dir(&self) -> Option<PathBuf> {
        Some(self.store.dir().to_owned())
    }
}
