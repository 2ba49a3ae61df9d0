//! Packs of jobs: what a job uses, in a few large objects, so that a machine that has nothing needs a handful of
//! requests for it. A pack only repeats what single objects hold, frame by frame; any of it may be missing.
//! Owns the byte format and reads it as it arrives. Writers are in [`super::objects`].
//!
//! | bytes | what |
//! |---|---|
//! | 8 | magic and version |
//! | 4 | length of the next frame, little endian |
//! | … | a frame ([`crate::entry`]) with the [`Contents`] as JSON: what follows, with lengths |
//! | … | the frames of the results, each as it is in its own object |
//! | … | the frames of the blobs, each as it is in its own object |
//!
//! A blob that is stored without a part of it stands behind that part. No length is believed before it is
//! within its bound. A result is checked as one that comes alone; a blob is only unpacked here: who stores it
//! verifies its digest.

use std::collections::HashSet;
use std::fmt;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::backend::{Body, StoreError, StoreResult};
use crate::digest::Digest;
use crate::entry;
use crate::key::{ObjectName, ResultKey, Scope};
use crate::limits;
use crate::record::Record;
use crate::remote::objects::{joined, layout, pack};
use crate::remote::{Arrived, ResultName};

/// What a pack begins with.
const MAGIC: &[u8; 8] = b"KILNJOB1";
const HEAD: usize = MAGIC.len() + 4;

/// The name of a pack, as a note keeps it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PackName(pub String);

/// What is to be written into packs, and its bounds.
#[derive(Debug, Clone, Copy)]
pub struct ToWrite<'a> {
    /// The scope of the note that is to name the packs.
    pub scope: &'a Scope,
    /// The name of that note.
    pub note: &'a str,
    /// Results with their records, in the order in which they are used.
    pub results: &'a [(ResultName, Record)],
    /// Blobs that other packs of the note have.
    pub packed: &'a HashSet<Digest>,
    /// Most bytes of all packs.
    pub bytes: u64,
    /// When it is given up.
    pub until: Instant,
}

/// What was written of some results.
#[derive(Debug, Default)]
pub struct Written {
    /// The packs.
    pub packs: Vec<PackName>,
    /// Their bytes.
    pub bytes: u64,
    /// The results that are in them whole, and how many bytes of the packs are each one's.
    pub results: Vec<(ResultKey, u64)>,
    /// Why it ended early.
    pub failed: Option<StoreError>,
}

/// A blob in a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobIn {
    /// The blob.
    pub digest: Digest,
    /// Its size, bytes.
    pub size: u64,
    /// Length of its frame.
    pub len: u64,
    /// Whether it is stored without the blob before it.
    pub joined: bool,
}

/// What is in a pack, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// The results, each with the length of its frame.
    pub results: Vec<(ResultName, u64)>,
    /// The blobs.
    pub blobs: Vec<BlobIn>,
}

fn contents_name() -> Option<ObjectName> {
    "together/contents".parse().ok()
}

impl Contents {
    /// The bytes that a pack begins with; none when there is too much in it.
    pub(crate) fn encode(&self) -> Option<Vec<u8>> {
        let json = serde_json::to_vec(self).ok()?;
        let frame = entry::encode(&contents_name()?, &json).ok()?;
        let mut head = MAGIC.to_vec();
        head.extend(u32::try_from(frame.len()).ok()?.to_le_bytes());
        head.extend(frame);
        Some(head)
    }

    fn decode(frame: Bytes) -> Option<Self> {
        let json = entry::decode(&contents_name()?, frame).ok()?;
        let contents: Self = serde_json::from_slice(&json).ok()?;
        contents.is_sound().then_some(contents)
    }

    /// Whether every length is within its bound, and what is joined has something before it.
    fn is_sound(&self) -> bool {
        let frames =
            |(name, len): &(ResultName, u64)| *len <= entry::max_frame(&layout::result(name));
        let blob = |(i, blob): (usize, &BlobIn)| {
            blob.size <= limits::MAX_FRAMED_BLOB_BYTES as u64
                && blob.len <= entry::max_frame(&ObjectName::blob(&blob.digest))
                && (!blob.joined || i.checked_sub(1).is_some_and(|i| !self.blobs[i].joined))
        };
        self.results.iter().all(frames) && self.blobs.iter().enumerate().all(blob)
    }

    fn frames_len(&self) -> u64 {
        let results: u64 = self.results.iter().map(|(_, len)| len).sum();
        results + self.blobs.iter().map(|blob| blob.len).sum::<u64>()
    }
}

/// A pack on its way: results first, then blobs.
pub struct Incoming {
    name: ObjectName,
    contents: Contents,
    refused: HashSet<(ResultKey, u32)>,
    /// How many results and blobs were handed on.
    at: (usize, usize),
    stream: BoxStream<'static, StoreResult<Bytes>>,
    buffer: BytesMut,
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Incoming({})", self.name)
    }
}

impl Incoming {
    /// Reads what is in a pack. Of its results, those that are `refused` are not handed on.
    ///
    /// # Errors
    /// `Damaged`, and what the body fails with.
    pub(crate) async fn begin(
        name: ObjectName,
        body: Body,
        refused: HashSet<(ResultKey, u32)>,
    ) -> StoreResult<Self> {
        let len = body.len();
        let stream = match body {
            Body::Stream { stream, .. } => stream,
            body => {
                let bytes = body.into_bytes(&name, limits::MAX_BLOB_BYTES).await?;
                stream::iter([Ok(bytes)]).boxed()
            }
        };
        let (contents, buffer) = (Contents::default(), BytesMut::new());
        let mut pack = Self { name, contents, refused, at: (0, 0), stream, buffer };
        let head = pack.take(HEAD as u64).await?;
        let frame_len = match (head.strip_prefix(MAGIC), head.last_chunk::<4>()) {
            (Some(_), Some(len)) => u64::from(u32::from_le_bytes(*len)),
            _ => return Err(pack.damaged()),
        };
        if contents_name().is_none_or(|name| frame_len > entry::max_frame(&name)) {
            return Err(pack.damaged());
        }
        let frame = pack.take(frame_len).await?;
        pack.contents = Contents::decode(frame).ok_or_else(|| pack.damaged())?;
        if HEAD as u64 + frame_len + pack.contents.frames_len() != len {
            return Err(pack.damaged());
        }
        Ok(pack)
    }

    /// Its name.
    pub fn name(&self) -> PackName {
        PackName(self.name.as_str().to_owned())
    }

    /// What is in it.
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// The next result; none after the last.
    ///
    /// # Errors
    /// `Damaged`, and what the body fails with: nothing more is to be had of the pack.
    pub async fn result(&mut self) -> StoreResult<Option<Arrived>> {
        while let Some((name, len)) = self.contents.results.get(self.at.0).cloned() {
            let frame = self.take(len).await?;
            self.at.0 += 1;
            if self.refused.contains(&(name.result, name.generation)) {
                continue;
            }
            let of = name.clone();
            let decoded = tokio::task::spawn_blocking(move || pack::decode(&of, frame)).await;
            let Ok(Ok((record, blobs))) = decoded else { return Err(self.damaged()) };
            let stored_ms = record.producer.created_at_ms;
            return Ok(Some(Arrived { name, record, blobs, stored_ms }));
        }
        Ok(None)
    }

    /// The next blobs, which are unpacked together; none after the last. All results have to be taken before.
    ///
    /// # Errors
    /// `Damaged`, and what the body fails with: nothing more is to be had of the pack.
    pub async fn blobs(&mut self) -> StoreResult<Option<Packed>> {
        let mut packed = Packed::default();
        while let Some(blob) = self.contents.blobs.get(self.at.1).copied() {
            if !packed.0.is_empty() && !blob.joined {
                break;
            }
            let frame = self.take(blob.len).await?;
            self.at.1 += 1;
            packed.0.push((blob, frame));
        }
        Ok((!packed.0.is_empty()).then_some(packed))
    }

    async fn take(&mut self, len: u64) -> StoreResult<Bytes> {
        let len = usize::try_from(len).map_err(|_| self.damaged())?;
        while self.buffer.len() < len {
            let stalled = || StoreError::Unavailable(format!("{} stalls", self.name));
            let next = timeout(limits::JOB_PACK_STALL, self.stream.next());
            let chunk = next.await.map_err(|_| stalled())?;
            let Some(chunk) = chunk else { return Err(self.damaged()) };
            self.buffer.extend_from_slice(&chunk?);
        }
        Ok(self.buffer.split_to(len).freeze())
    }

    fn damaged(&self) -> StoreError {
        StoreError::Damaged { name: self.name.clone(), why: "not a whole pack".into() }
    }
}

/// A blob in its frame, and perhaps those that it is a part of.
#[derive(Debug, Default)]
pub struct Packed(Vec<(BlobIn, Bytes)>);

impl Packed {
    /// The blobs.
    pub fn blobs(&self) -> impl Iterator<Item = (Digest, u64)> + '_ {
        self.0.iter().map(|(blob, _)| (blob.digest, blob.size))
    }

    /// Their bytes; not those of the digests as long as nobody verified that. Computes. None: a frame is damaged.
    pub fn unpack(self) -> Option<Vec<(Digest, Bytes)>> {
        let mut blobs: Vec<(Digest, Bytes)> = Vec::new();
        for (blob, frame) in self.0 {
            let bytes = if blob.joined {
                let joined = joined::decode(&blob.digest, frame).ok()?;
                let (_, part) = blobs.iter().find(|(digest, _)| *digest == joined.part)?;
                joined.with(part)
            } else {
                entry::decode(&ObjectName::blob(&blob.digest), frame).ok()?.into_bytes()
            };
            if bytes.len() as u64 != blob.size {
                return None;
            }
            blobs.push((blob.digest, bytes));
        }
        Some(blobs)
    }
}
