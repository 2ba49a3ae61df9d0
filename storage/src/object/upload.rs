//! Large objects, uploaded in parts. Called by [`super::ObjectBackend`].
//!
//! Nothing is visible before the upload is completed; one that is not is aborted, also when the caller goes
//! away. (A process that is killed leaves its parts: buckets have a rule for incomplete uploads.)

use std::io::Read as _;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream, FuturesUnordered};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt as _, PutPayload};

use crate::backend::{Body, Put, StoreError, StoreResult};
use crate::key::ObjectName;
use crate::limits;

/// Why an upload did not happen.
pub(super) enum UploadError {
    /// The body failed, or has another length than it says.
    Body(StoreError),
    /// The service.
    Service(object_store::Error),
}

impl From<object_store::Error> for UploadError {
    fn from(error: object_store::Error) -> Self {
        Self::Service(error)
    }
}

/// Aborts on its way out unless it was completed.
struct Upload(Option<Box<dyn MultipartUpload>>);

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(mut upload) = self.0.take() else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // Nobody can do anything about an abort that fails.
            drop(runtime.spawn(async move { upload.abort().await }));
        }
    }
}

/// Uploads a body in parts of one size; parts travel a few at a time. `is_there` is asked before the end: when
/// it says so, nothing is written.
pub(super) async fn in_parts(
    store: &dyn ObjectStore,
    (path, name): (&Path, &ObjectName),
    body: Body,
    part_bytes: usize,
    is_there: impl Future<Output = StoreResult<bool>>,
) -> Result<Put, UploadError> {
    let mut upload = Upload(Some(store.put_multipart(path).await?));
    send_parts(&mut upload, name, body, part_bytes).await?;
    if is_there.await.map_err(UploadError::Body)? {
        return Ok(Put::AlreadyThere);
    }
    if let Some(running) = &mut upload.0 {
        running.complete().await?;
    }
    upload.0 = None;
    Ok(Put::Created)
}

async fn send_parts(
    upload: &mut Upload,
    name: &ObjectName,
    body: Body,
    part_bytes: usize,
) -> Result<(), UploadError> {
    let len = body.len();
    let mut chunks = chunks(body);
    let mut parts = FuturesUnordered::new();
    let mut part = BytesMut::with_capacity(part_bytes);
    let mut left = len;
    loop {
        let chunk = chunks.next().await.transpose().map_err(UploadError::Body)?;
        let ended = chunk.is_none();
        let mut chunk = chunk.unwrap_or_default();
        left = left.checked_sub(chunk.len() as u64).ok_or_else(|| wrong_length(name, len))?;
        while part.len() + chunk.len() >= part_bytes || (ended && !part.is_empty()) {
            let rest = chunk.split_off(chunk.len().min(part_bytes - part.len()));
            part.extend_from_slice(&chunk);
            chunk = rest;
            let whole = std::mem::replace(&mut part, BytesMut::with_capacity(part_bytes)).freeze();
            if parts.len() >= limits::OBJECT_PARTS_AT_ONCE {
                parts.next().await.transpose()?;
            }
            if let Some(upload) = &mut upload.0 {
                parts.push(upload.put_part(PutPayload::from_bytes(whole)));
            }
        }
        part.extend_from_slice(&chunk);
        if ended {
            break;
        }
    }
    if left > 0 {
        return Err(wrong_length(name, len));
    }
    while let Some(done) = parts.next().await {
        done?;
    }
    Ok(())
}

fn wrong_length(name: &ObjectName, len: u64) -> UploadError {
    UploadError::Body(StoreError::Damaged {
        name: name.clone(),
        why: format!("the body is not as long as announced ({len} bytes)"),
    })
}

/// The bytes of a body, in pieces.
fn chunks(body: Body) -> BoxStream<'static, StoreResult<Bytes>> {
    match body {
        Body::Bytes(bytes) => stream::iter([Ok(bytes)]).boxed(),
        Body::Stream { stream, .. } => stream,
        Body::File { file, .. } => stream::try_unfold(file, |file| async move {
            let read = move || {
                let mut bytes = Vec::with_capacity(limits::OBJECT_FILE_READ_BYTES as usize);
                (&file).take(limits::OBJECT_FILE_READ_BYTES).read_to_end(&mut bytes)?;
                Ok::<_, std::io::Error>((bytes, file))
            };
            match tokio::task::spawn_blocking(read).await {
                Ok(Ok((bytes, _))) if bytes.is_empty() => Ok(None),
                Ok(Ok((bytes, file))) => Ok(Some((Bytes::from(bytes), file))),
                Ok(Err(error)) => Err(StoreError::Unavailable(format!("disk: {error}"))),
                Err(error) => Err(StoreError::Unavailable(format!("disk: {error}"))),
            }
        })
        .boxed(),
    }
}
