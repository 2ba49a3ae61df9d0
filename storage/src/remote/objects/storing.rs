//! The way of a result into a bucket: blobs first, then the record, which makes it visible. Called by
//! [`super`]. Wherever it ends, what is there is whole or is not seen.

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::{ObjectRemote, joined, layout, lock, now_ms, pack};
use crate::backend::{Backend, Body, Put, StoreError, StoreResult};
use crate::digest::Digest;
use crate::entry::{self, EntryError};
use crate::key::ObjectName;
use crate::limits;
use crate::record::Record;
use crate::remote::{ResultName, Stored};

/// A blob that was there already, and its object.
type Relied = (Digest, ObjectName);

/// A blob in memory that was read from the server's own store, and its frame.
pub(super) struct Framed {
    digest: Digest,
    bytes: Bytes,
    pub(super) frame: Vec<u8>,
}

impl ObjectRemote {
    pub(super) async fn store_result(
        &self,
        name: &ResultName,
        record: &Record,
        local: &dyn Backend,
    ) -> StoreResult<Stored> {
        let name = &self.not_rejected(name);
        let json = serde_json::to_vec(record)
            .map_err(|error| StoreError::Unavailable(format!("a record: {error}")))?;
        let (inline, large) = self.sort_out(record, json.len(), local).await?;
        let object = layout::result(name);
        if !large.is_empty() && self.is_there(&object, &large).await? {
            return Ok(self.found_there(name));
        }
        let pairs = joined::pairs(&record.outputs);
        let mut stores = Vec::with_capacity(large.len());
        for blob in &large {
            let pair = pairs.iter().find(|(whole, part)| *whole == blob.0 && large.contains(part));
            stores.push(self.store_blob(*blob, pair.map(|(_, part)| *part), local));
        }
        let relied: Vec<Option<Relied>> = stream::iter(stores)
            .buffer_unordered(limits::STORED_BLOBS_AT_ONCE)
            .try_collect()
            .await?;
        let relied: Vec<Relied> = relied.into_iter().flatten().collect();
        let too_large = |size| StoreError::TooLarge { name: object.clone(), size };
        let of = name.clone();
        let packed = self.blocking(usize::MAX, move || pack::encode(&of, &json, &inline)).await?;
        let frame = packed.map_err(|error| match error {
            EntryError::TooLarge(size) => too_large(size),
            _ => too_large(0),
        })?;
        let put = self.backend.put_if_absent(&object, Body::Bytes(frame.into())).await?;
        if put == Put::AlreadyThere {
            return Ok(self.found_there(name));
        }
        if !relied.is_empty() && self.is_collected(&relied).await? {
            self.backend.delete(&object).await?;
            let why = format!("{}: a collection takes a blob of the result", self.shown);
            return Err(StoreError::Unavailable(why));
        }
        Ok(Stored::Durable)
    }

    /// Whether somebody stored the result already: jobs of one matrix compile the same at the same time, and
    /// asking is cheaper than sending all of it once more. One that lost a blob is stored again.
    async fn is_there(&self, object: &ObjectName, large: &[(Digest, u64)]) -> StoreResult<bool> {
        if self.backend.size(object).await?.is_none() {
            return Ok(false);
        }
        for (digest, size) in large {
            if self.backend.size(&layout::blob(digest, *size).0).await?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Made a second time is as good as used.
    fn found_there(&self, name: &ResultName) -> Stored {
        lock(&self.uses).note(&name.scope.id(), name.result, now_ms());
        Stored::AlreadyThere
    }

    /// The blobs that go with the record, and those that are objects of their own. All of them have to
    /// be in the server's store.
    pub(super) async fn sort_out(
        &self,
        record: &Record,
        json: usize,
        local: &dyn Backend,
    ) -> StoreResult<(Vec<(Digest, Bytes)>, Vec<(Digest, u64)>)> {
        let mut blobs = record.blobs();
        blobs.sort_by_key(|(_, size)| *size);
        let mut plain = json + pack::overhead(blobs.len());
        let (mut packed, mut inline, mut large) = (0, Vec::new(), Vec::new());
        for (digest, size) in blobs {
            if size > limits::INLINE_BLOB_PLAIN_BYTES
                || plain as u64 + size > limits::MAX_RECORD_BYTES as u64
            {
                large.push((digest, size));
                continue;
            }
            let blob = self.framed(digest, size, local).await?;
            let len = blob.frame.len();
            if len > limits::INLINE_BLOB_BYTES || packed + len > limits::INLINE_RESULT_BYTES {
                large.push((digest, size));
                continue;
            }
            packed += len;
            plain += blob.bytes.len();
            inline.push((blob.digest, blob.bytes));
        }
        Ok((inline, large))
    }

    /// A blob of the server's store, with its frame.
    pub(super) async fn framed(
        &self,
        digest: Digest,
        size: u64,
        local: &dyn Backend,
    ) -> StoreResult<Framed> {
        let name = ObjectName::blob(&digest);
        let body = local.get(&name).await?.ok_or_else(|| absent(&name))?;
        let bytes = body.into_bytes(&name, size).await?;
        let (checked, of) = (bytes.clone(), name.clone());
        let framed = self.blocking(bytes.len(), move || {
            let same = checked.len() as u64 == size && Digest::of(&checked) == digest;
            same.then(|| entry::encode(&of, &checked).ok()).flatten()
        });
        let damaged = || StoreError::Damaged { name, why: "the bytes are others".to_owned() };
        let frame = framed.await?.ok_or_else(damaged)?;
        Ok(Framed { digest, bytes, frame })
    }

    /// Stores a blob as an object of its own. Returned when it was there already, and so may be deleted by
    /// somebody who does not know yet that it is needed.
    async fn store_blob(
        &self,
        (digest, size): (Digest, u64),
        part: Option<(Digest, u64)>,
        local: &dyn Backend,
    ) -> StoreResult<Option<Relied>> {
        let (object, framed) = layout::blob(&digest, size);
        let body = if framed {
            let mut blob = self.framed(digest, size, local).await?;
            if let Some((part, part_size)) = part {
                self.take_out(&mut blob, part, part_size, local).await?;
            }
            if blob.frame.len() >= limits::ASK_BEFORE_BYTES
                && self.backend.size(&object).await?.is_some()
            {
                return Ok(Some((digest, object)));
            }
            Body::Bytes(blob.frame.into())
        } else {
            // In parts, which asks before it sends.
            let name = ObjectName::blob(&digest);
            local.get(&name).await?.ok_or_else(|| absent(&name))?
        };
        let put = self.backend.put_if_absent(&object, body).await?;
        Ok((put == Put::AlreadyThere).then_some((digest, object)))
    }

    /// The blob's frame, without the bytes of another blob of the result, where it holds them; whether it does.
    pub(super) async fn take_out(
        &self,
        blob: &mut Framed,
        part: Digest,
        size: u64,
        local: &dyn Backend,
    ) -> StoreResult<bool> {
        if size > limits::RECENT_BLOB_BYTES {
            return Ok(false);
        }
        let name = ObjectName::blob(&part);
        let body = local.get(&name).await?.ok_or_else(|| absent(&name))?;
        let bytes = body.into_bytes(&name, size).await?;
        let (digest, whole) = (blob.digest, blob.bytes.clone());
        let work = move || joined::encode(&digest, &whole, (part, &bytes));
        let Some(frame) = self.blocking(blob.bytes.len(), work).await? else { return Ok(false) };
        blob.frame = frame;
        Ok(true)
    }

    /// Whether a collection deletes one of these, or has. One that announced it and is over spared those that
    /// are still there: whoever comes later sees the record.
    async fn is_collected(&self, relied: &[Relied]) -> StoreResult<bool> {
        let listing = self.backend.list(layout::COLLECTING);
        let names: Vec<_> = listing.map_ok(|listed| listed.name).try_collect().await?;
        let heeded = 2 * limits::COLLECTION_TIME.as_millis() as u64;
        for name in names.iter().filter(|name| !name.as_str().ends_with(".done")) {
            let at = layout::parse_timed(name).unwrap_or(0);
            if at.saturating_add(heeded) < now_ms() {
                continue;
            }
            let (of, max) = (name.clone(), entry::max_frame(name));
            let listed = self.read(name, max, move |frame| entry::decode(&of, frame)).await?;
            let Some(listed) = listed else { continue };
            let (listed, _) = listed.as_chunks::<{ crate::digest::DIGEST_LEN }>();
            let is_over = names.contains(&layout::done(name));
            for (digest, object) in relied {
                let is_listed = listed.contains(digest.as_bytes());
                if is_listed && (!is_over || self.backend.size(object).await?.is_none()) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

fn absent(name: &ObjectName) -> StoreError {
    StoreError::Damaged { name: name.clone(), why: "it is not in the store".to_owned() }
}
