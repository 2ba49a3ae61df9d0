//! Bytes, names and bodies for tests. Called by the suites and by the tests of backends.

use std::io::{Seek as _, Write as _};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;

use crate::backend::{Backend, Body, StoreError, StoreResult};
use crate::digest::Digest;
use crate::key::ObjectName;

/// Most bytes that a test reads of one object.
const MAX_READ_BYTES: u64 = 256 * 1024 * 1024;

/// The three ways to hand over bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// [`Body::Bytes`].
    Bytes,
    /// [`Body::File`].
    File,
    /// [`Body::Stream`], in uneven chunks.
    Stream,
}

/// All ways to hand over bytes.
pub const KINDS: [Kind; 3] = [Kind::Bytes, Kind::File, Kind::Stream];

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes.into()
}

/// The name of the blob with these bytes.
pub fn blob_name(bytes: &[u8]) -> ObjectName {
    ObjectName::blob(&Digest::of(bytes))
}

/// The name with this text.
pub fn name(text: &str) -> ObjectName {
    text.parse().unwrap()
}

/// A body of these bytes.
pub fn body(bytes: &Bytes, kind: Kind) -> Body {
    let len = bytes.len() as u64;
    match kind {
        Kind::Bytes => Body::Bytes(bytes.clone()),
        Kind::File => {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            file.rewind().unwrap();
            Body::File { file, len }
        }
        Kind::Stream => stream_of(chunks(bytes).into_iter().map(Ok).collect(), len),
    }
}

/// A stream body of these chunks and this announced length.
pub fn stream_of(chunks: Vec<StoreResult<Bytes>>, len: u64) -> Body {
    let stream = stream::iter(chunks).boxed();
    Body::Stream { stream, len }
}

/// The bytes in pieces of growing length.
pub fn chunks(bytes: &Bytes) -> Vec<Bytes> {
    let (mut chunks, mut at, mut size) = (Vec::new(), 0, 1);
    while at < bytes.len() {
        let end = bytes.len().min(at + size);
        chunks.push(bytes.slice(at..end));
        at = end;
        size = size * 3 + 1;
    }
    chunks
}

/// All bytes of an object; `None` when there is none.
///
/// # Errors
/// What the backend or the body fails with.
pub async fn read(backend: &dyn Backend, name: &ObjectName) -> StoreResult<Option<Bytes>> {
    match backend.get(name).await? {
        None => Ok(None),
        Some(body) => body.into_bytes(name, MAX_READ_BYTES).await.map(Some),
    }
}

/// The names in a listing, sorted.
///
/// # Errors
/// What the listing fails with.
pub async fn list(backend: &dyn Backend, prefix: &str) -> StoreResult<Vec<ObjectName>> {
    let items: Vec<_> = backend.list(prefix).collect().await;
    let names = items.into_iter().map(|item| item.map(|listed| listed.name));
    let mut names = names.collect::<StoreResult<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

/// The error of a fault that a test made.
pub fn broken() -> StoreError {
    StoreError::Unavailable("a test broke this".to_owned())
}
