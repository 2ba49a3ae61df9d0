//! [`Backend`]: the one small trait between Kiln and any place that keeps objects.
//!
//! Objects are write-once: there is no overwrite. A miss is `Ok(None)`. Backends know nothing of
//! records or blobs; framing and verification are layers above ([`crate::entry`],
//! [`crate::verify`]).

use std::fmt;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;

use crate::key::ObjectName;
use crate::limits::COPY_BUFFER_BYTES;

/// What a caller can do about a failure.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The place cannot be reached or answers with a passing fault: try again later.
    #[error("storage is unavailable: {0}")]
    Unavailable(String),
    /// It does not take writes: read-only, full, or not permitted.
    #[error("storage takes no writes: {0}")]
    ReadOnly(String),
    /// The stored bytes are not what they have to be.
    #[error("stored object {name} is damaged: {why}")]
    Damaged {
        /// The object.
        name: ObjectName,
        /// What is wrong.
        why: String,
    },
    /// The object offered is larger than the backend takes.
    #[error("object {name} of {size} bytes is over the limit")]
    TooLarge {
        /// The object.
        name: ObjectName,
        /// Its size in bytes.
        size: u64,
    },
    /// The place does not want it, now or later.
    #[error("storage refuses it: {0}")]
    Refused(String),
}

/// The result of every storage operation.
pub type StoreResult<T> = Result<T, StoreError>;

/// The bytes of an object, on their way in or out.
pub enum Body {
    /// In memory.
    Bytes(Bytes),
    /// A file that stays as it is while the body is used, with its length in bytes.
    File {
        /// The open file, positioned at its start.
        file: std::fs::File,
        /// Its length.
        len: u64,
    },
    /// A stream of known length.
    Stream {
        /// Chunks, in order.
        stream: BoxStream<'static, StoreResult<Bytes>>,
        /// Their total length.
        len: u64,
    },
}

impl Body {
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { len, .. } | Self::Stream { len, .. } => *len,
        }
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All bytes, in memory; `name` is for the errors.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] before anything is read when there are more than `max` bytes,
    /// [`StoreError::Damaged`] when there are not as many as announced, and what the stream or
    /// the file fails with.
    pub async fn into_bytes(self, name: &ObjectName, max: u64) -> StoreResult<Bytes> {
        let len = self.len();
        if len > max {
            return Err(StoreError::TooLarge { name: name.clone(), size: len });
        }
        let bytes = match self {
            Self::Bytes(bytes) => return Ok(bytes),
            Self::File { file, len } => read_file(file, len).await?,
            Self::Stream { mut stream, len } => {
                let mut bytes = BytesMut::new();
                while let Some(chunk) = stream.next().await {
                    let chunk = chunk?;
                    if bytes.len() as u64 + chunk.len() as u64 > len {
                        return Err(wrong_length(name, len));
                    }
                    bytes.extend_from_slice(&chunk);
                }
                bytes.freeze()
            }
        };
        if bytes.len() as u64 == len { Ok(bytes) } else { Err(wrong_length(name, len)) }
    }

    /// All bytes, piece by piece.
    pub fn into_stream(self) -> BoxStream<'static, StoreResult<Bytes>> {
        let len = self.len();
        self.into_section(0, len)
    }

    /// `len` bytes from an offset, piece by piece; both lie within the body.
    pub fn into_section(self, offset: u64, len: u64) -> BoxStream<'static, StoreResult<Bytes>> {
        match self {
            Self::Bytes(bytes) => {
                // A body in memory is no longer than an address.
                let section = bytes.slice(offset as usize..(offset + len) as usize);
                futures_util::stream::once(async { Ok(section) }).boxed()
            }
            Self::File { file, .. } => file_pieces(file, offset, len).boxed(),
            Self::Stream { stream, .. } => {
                let (mut skip, mut left) = (offset, len);
                let stream = stream.map(move |chunk: StoreResult<Bytes>| {
                    let chunk = chunk?;
                    let size = chunk.len() as u64;
                    let first = skip.min(size);
                    let end = (first + left).min(size);
                    skip -= first;
                    left -= end - first;
                    // Both are at most the length of a chunk in memory.
                    Ok(chunk.slice(first as usize..end as usize))
                });
                stream.boxed()
            }
        }
    }
}

/// A section of a file. Each piece is read by one call straight into what is handed on: `tokio::fs::File` has a
/// buffer of its own in between.
fn file_pieces(
    file: std::fs::File,
    offset: u64,
    len: u64,
) -> impl futures_util::Stream<Item = StoreResult<Bytes>> + Send + 'static {
    futures_util::stream::try_unfold((file, offset, len), async |(file, at, left)| {
        if left == 0 {
            return Ok(None);
        }
        let most = left.min(COPY_BUFFER_BYTES as u64);
        let read = move || -> std::io::Result<(Vec<u8>, std::fs::File)> {
            let mut bytes = Vec::with_capacity(most as usize);
            (&file).seek(SeekFrom::Start(at))?;
            (&file).take(most).read_to_end(&mut bytes)?;
            Ok((bytes, file))
        };
        let read = tokio::task::spawn_blocking(read).await;
        let read = read.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let (bytes, file) = read.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        if (bytes.len() as u64) < most {
            return Err(StoreError::Unavailable("the file became shorter".into()));
        }
        Ok(Some((Bytes::from(bytes), (file, at + most, left - most))))
    })
}

fn wrong_length(name: &ObjectName, len: u64) -> StoreError {
    StoreError::Damaged {
        name: name.clone(),
        why: format!("the body is not as long as announced ({len} bytes)"),
    }
}

/// At most one byte more than `len`, which is enough to see that there are too many.
async fn read_file(file: std::fs::File, len: u64) -> StoreResult<Bytes> {
    let read = move || {
        let mut bytes = Vec::new();
        file.take(len.saturating_add(1)).read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(Bytes::from(bytes))
    };
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) => Err(StoreError::Unavailable(error.to_string())),
        Err(error) => Err(StoreError::Unavailable(error.to_string())),
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} bytes)", self.len())
    }
}

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The object is new.
    Created,
    /// It was there; the offered bytes were not used.
    AlreadyThere,
}

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: ObjectName,
    /// Its size in bytes as it is stored: a layer that frames objects does not take its frame off.
    pub size: u64,
    /// When it was last used as far as the backend can tell, milliseconds since 1970.
    pub used_ms: u64,
}

/// A place that keeps write-once objects.
///
/// All methods may be called at once from many tasks, and by many processes on one place.
#[async_trait]
pub trait Backend: Send + Sync + fmt::Debug {
    /// The bytes of an object; `Ok(None)` when there is none.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Damaged`].
    async fn get(&self, name: &ObjectName) -> StoreResult<Option<Body>>;

    /// Stores an object unless one of that name is there. Nothing is visible before all bytes are.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::ReadOnly`], [`StoreError::TooLarge`].
    async fn put_if_absent(&self, name: &ObjectName, body: Body) -> StoreResult<Put>;

    /// The size of an object in bytes; `Ok(None)` when there is none.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn size(&self, name: &ObjectName) -> StoreResult<Option<u64>>;

    /// Removes an object; whether there was one.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::ReadOnly`].
    async fn delete(&self, name: &ObjectName) -> StoreResult<bool>;

    /// Removes many objects, whether they are there or not. When it fails, some are removed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::ReadOnly`].
    async fn delete_all(&self, names: &[ObjectName]) -> StoreResult<()> {
        for name in names {
            self.delete(name).await?;
        }
        Ok(())
    }

    /// The objects whose names begin with a prefix, in no order. Objects that come or go meanwhile
    /// may be in it or not.
    fn list(&self, prefix: &str) -> BoxStream<'static, StoreResult<Listed>>;

    /// The directory in which [`crate::disk::blob_path`] finds blobs as plain files, where there
    /// is one on this machine.
    fn local_dir(&self) -> Option<PathBuf> {
        None
    }
}

#[async_trait]
impl<B: Backend + ?Sized> Backend for Arc<B> {
    async fn get(&self, name: &ObjectName) -> StoreResult<Option<Body>> {
        (**self).get(name).await
    }

    async fn put_if_absent(&self, name: &ObjectName, body: Body) -> StoreResult<Put> {
        (**self).put_if_absent(name, body).await
    }

    async fn size(&self, name: &ObjectName) -> StoreResult<Option<u64>> {
        (**self).size(name).await
    }

    async fn delete(&self, name: &ObjectName) -> StoreResult<bool> {
        (**self).delete(name).await
    }

    async fn delete_all(&self, names: &[ObjectName]) -> StoreResult<()> {
        (**self).delete_all(names).await
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, StoreResult<Listed>> {
        (**self).list(prefix)
    }

    fn local_dir(&self) -> Option<PathBuf> {
        (**self).local_dir()
    }
}
