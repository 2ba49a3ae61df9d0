//! Reading the blobs that are objects of their own. Called by [`super`].
//!
//! A library comes without its metadata ([`super::joined`]), which whoever asks for it asks for too, at about the
//! same time: what came a moment ago is kept, and a blob that is on its way is waited for.

use std::collections::VecDeque;

use bytes::Bytes;

use super::joined::{self, Joined};
use super::pack::PackError;
use super::{ObjectRemote, layout, lock};
use crate::backend::{Backend as _, StoreResult};
use crate::digest::Digest;
use crate::entry::{self, EntryError};
use crate::key::ObjectName;
use crate::limits;

/// Locks for blobs on their way; a blob has one of them.
const WAYS: usize = 64;

/// Frames of blobs that may be parts of others: a few that came last, and those on their way. Small ones, of which
/// there are many and which come long before what they are a part of, are not driven out by large ones.
#[derive(Debug)]
pub(super) struct Recent {
    small: Ring,
    large: Ring,
    ways: Vec<tokio::sync::Mutex<()>>,
}

type Ring = std::sync::Mutex<VecDeque<(Digest, Bytes)>>;

impl Default for Recent {
    fn default() -> Self {
        let ways = (0..WAYS).map(|_| tokio::sync::Mutex::new(())).collect();
        Self { small: Ring::default(), large: Ring::default(), ways }
    }
}

impl Recent {
    fn ring(&self, size: u64) -> &Ring {
        if size > limits::RECENT_SMALL_BYTES { &self.large } else { &self.small }
    }

    fn get(&self, digest: &Digest, size: u64) -> Option<Bytes> {
        let blobs = lock(self.ring(size));
        blobs.iter().find(|(there, _)| there == digest).map(|(_, bytes)| bytes.clone())
    }

    fn put(&self, digest: Digest, size: u64, frame: Bytes) {
        let mut blobs = lock(self.ring(size));
        blobs.push_back((digest, frame));
        while blobs.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() > limits::RECENT_BLOBS_BYTES
        {
            blobs.pop_front();
        }
    }
}

/// What an object holds.
#[derive(Clone)]
enum Found {
    Whole(Bytes),
    Joined(Joined),
}

impl ObjectRemote {
    /// A blob that is in a frame, verified.
    pub(super) async fn framed_blob(
        &self,
        digest: &Digest,
        size: u64,
    ) -> StoreResult<Option<Bytes>> {
        match self.plain_or_joined(digest, size).await? {
            None => Ok(None),
            Some(Found::Whole(bytes)) => Ok(Some(bytes)),
            Some(Found::Joined(joined)) => self.join(digest, size, joined).await,
        }
    }

    async fn join(&self, digest: &Digest, size: u64, joined: Joined) -> StoreResult<Option<Bytes>> {
        let whole = match self.plain_or_joined(&joined.part, joined.size).await? {
            Some(Found::Whole(part)) => {
                let of = *digest;
                self.blocking(part.len(), move || joined.whole(&of, &part)).await?
            }
            // A part that is gone, or has parts itself, which nobody writes.
            None | Some(Found::Joined(_)) => None,
        };
        if whole.is_none() {
            self.damaged.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let _ = self.backend.delete(&layout::blob(digest, size).0).await;
        }
        Ok(whole)
    }

    async fn plain_or_joined(&self, digest: &Digest, size: u64) -> StoreResult<Option<Found>> {
        if size > limits::RECENT_BLOB_BYTES {
            return self.read_blob(digest, size).await;
        }
        let way = usize::from(digest.as_bytes()[0]) % WAYS;
        let _mine = self.recent.ways[way].lock().await;
        if let Some(frame) = self.recent.get(digest, size) {
            let digest = *digest;
            let decoded = self.blocking(frame.len(), move || decode(&digest, frame)).await?;
            return Ok(decoded.ok());
        }
        let Some((found, frame)) = self.read_frame(digest, size).await? else { return Ok(None) };
        if matches!(found, Found::Whole(_)) {
            self.recent.put(*digest, size, frame);
        }
        Ok(Some(found))
    }

    async fn read_blob(&self, digest: &Digest, size: u64) -> StoreResult<Option<Found>> {
        Ok(self.read_frame(digest, size).await?.map(|(found, _)| found))
    }

    /// What an object holds, and its frame.
    async fn read_frame(&self, digest: &Digest, size: u64) -> StoreResult<Option<(Found, Bytes)>> {
        let (object, _) = layout::blob(digest, size);
        let max = entry::max_frame(&ObjectName::blob(digest)) + entry::max_frame(&object);
        let digest = *digest;
        let decode = move |frame: Bytes| decode(&digest, frame.clone()).map(|found| (found, frame));
        self.read(&object, max, decode).await
    }
}

/// What a frame of a blob holds, verified.
fn decode(digest: &Digest, frame: Bytes) -> Result<Found, PackError> {
    match entry::decode(&ObjectName::blob(digest), frame.clone()) {
        Ok(payload) if Digest::of(&payload) == *digest => Ok(Found::Whole(payload.into_bytes())),
        Ok(_) => Err(PackError::Blob),
        Err(EntryError::Name) => joined::decode(digest, frame).map(Found::Joined),
        Err(error) => Err(PackError::Frame(error)),
    }
}
