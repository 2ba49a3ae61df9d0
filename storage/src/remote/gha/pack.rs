//! Packs: many results in one immutable entry.
//!
//! Owns the byte format and where what lies in it. Pure: `collect` fills packs, `fetch` reads from them. A
//! pack is a head and then entry frames ([`crate::entry`]), one after another, each of which says what it
//! answers and has a checksum. The frames of a result are neighbours: its record, its small blobs (these two
//! are its *head*, what a lookup reads), then its large blobs; those too large
//! for a frame come last, as they are, and are read part by part. Results lie in the order in which they were
//! stored, so what was built together is read together. A pack is named by the BLAKE3 digest of its bytes.
//! Which result lies where is in the manifest; a pack alone can be walked from frame to frame.

use std::collections::HashSet;
use std::fmt;

use bytes::Bytes;

use super::client::Span;
use super::limits;
use crate::digest::Digest;
use crate::entry::{self, EntryError};
use crate::key::{ObjectName, ResultKey, Scope, UnitKey};
use crate::record::Record;
use crate::remote::ResultName;

/// Version of the format.
pub const PACK_VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"KILNPAK\n";

/// Names a pack by its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackId(pub Digest);

impl PackId {
    /// The key of its entry.
    pub fn key(&self) -> String {
        format!("kiln-pack-{}", self.0)
    }
}

/// The first half of a blob's digest: enough to find it, and what is found is checked against all of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobId(pub [u8; 16]);

impl BlobId {
    /// The id of a blob.
    pub fn of(digest: &Digest) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&digest.as_bytes()[..16]);
        Self(id)
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Where a result lies in its pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResultAt {
    /// The unit.
    pub unit: UnitKey,
    /// The result.
    pub result: ResultKey,
    /// Its generation.
    pub generation: u32,
    /// When it was stored, milliseconds since 1970.
    pub stored_ms: u64,
    /// Where its record begins.
    pub offset: u64,
    /// Length of the record's frame.
    pub record_len: u64,
    /// Length of record and small blobs.
    pub head_len: u64,
    /// Length of all of its frames.
    pub whole_len: u64,
}

impl ResultAt {
    /// Record and small blobs.
    pub fn head(&self) -> Span {
        Span { offset: self.offset, len: self.head_len }
    }

    /// All of its frames.
    pub fn whole(&self) -> Span {
        Span { offset: self.offset, len: self.whole_len }
    }
}

/// Where a blob lies in its pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobAt {
    /// The blob.
    pub blob: BlobId,
    /// Its frame, or its bytes as they are.
    pub span: Span,
    /// Whether it is there without a frame: one that is too large for one.
    pub raw: bool,
}

/// What lies where in a pack.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PackIndex {
    /// When it was begun, milliseconds since 1970.
    pub created_ms: u64,
    /// Its length.
    pub bytes: u64,
    /// Its results, by offset.
    pub results: Vec<ResultAt>,
    /// Its blobs, by offset.
    pub blobs: Vec<BlobAt>,
}

impl PackIndex {
    /// Whether everything lies within the pack: what a reader relies on.
    pub fn is_sound(&self) -> bool {
        let inside = |span: Span| span.len > 0 && span.end() <= self.bytes;
        self.bytes <= limits::MAX_PACK_BYTES
            && self.blobs.iter().all(|at| inside(at.span))
            && self.results.iter().all(|at| {
                at.record_len > 0
                    && at.record_len <= at.head_len
                    && at.head_len <= at.whole_len
                    && inside(at.whole())
            })
    }

    /// The blobs that lie within a span.
    pub fn blobs_in(&self, span: Span) -> impl Iterator<Item = &BlobAt> {
        let first = self.blobs.partition_point(|at| at.span.offset < span.offset);
        self.blobs[first..].iter().take_while(move |at| at.span.end() <= span.end())
    }
}

/// A result in frames, ready to be put into a pack.
#[derive(Debug)]
pub struct Framed {
    /// Its name.
    pub name: ResultName,
    record: Vec<u8>,
    blobs: Vec<(Digest, Vec<u8>)>,
    /// Blobs that are too large for a frame.
    raw: Vec<(Digest, Bytes)>,
}

impl Framed {
    /// The frames of a record and its blobs. Small blobs are put first, as far as they fit.
    ///
    /// # Errors
    /// [`EntryError::TooLarge`].
    pub fn new(
        name: &ResultName,
        record: &Record,
        blobs: Vec<(Digest, Bytes)>,
    ) -> Result<Self, EntryError> {
        let json = serde_json::to_vec(record).map_err(|_| EntryError::Shape)?;
        let record = entry::encode(&record_name(&name.scope, name), &json)?;
        let (mut framed, mut raw) = (Vec::with_capacity(blobs.len()), Vec::new());
        for (digest, bytes) in blobs {
            if bytes.len() > crate::limits::MAX_FRAMED_BLOB_BYTES {
                raw.push((digest, bytes));
            } else {
                framed.push((digest, entry::encode(&ObjectName::blob(&digest), &bytes)?));
            }
        }
        framed.sort_by_key(|(digest, frame)| (frame.len(), *digest));
        Ok(Self { name: name.clone(), record, blobs: framed, raw })
    }

    /// Its length.
    pub fn len(&self) -> u64 {
        let blobs: usize = self.blobs.iter().map(|(_, frame)| frame.len()).sum();
        let raw: usize = self.raw.iter().map(|(_, bytes)| bytes.len()).sum();
        (self.record.len() + blobs + raw) as u64
    }

    /// Never: a record has a length.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The name that a record's frame answers.
pub fn record_name(scope: &Scope, name: &ResultName) -> ObjectName {
    ObjectName::record(scope, &name.unit, &name.result, name.generation)
}

/// A pack that is being filled.
#[derive(Debug)]
pub struct PackBuilder {
    bytes: Vec<u8>,
    index: PackIndex,
    there: HashSet<Digest>,
}

impl PackBuilder {
    /// An empty pack. The salt makes packs of equal results different entries: a key that was claimed and
    /// never filled must not block them.
    pub fn new(created_ms: u64, salt: u64) -> Self {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&PACK_VERSION.to_le_bytes());
        bytes.extend_from_slice(&created_ms.to_le_bytes());
        bytes.extend_from_slice(&salt.to_le_bytes());
        let index = PackIndex { created_ms, ..PackIndex::default() };
        Self { bytes, index, there: HashSet::new() }
    }

    /// Its length.
    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Whether there is no result in it.
    pub fn is_empty(&self) -> bool {
        self.index.results.is_empty()
    }

    /// Whether it should be closed before a result of this length comes in.
    pub fn is_full_for(&self, len: u64) -> bool {
        let large = self.len() + len > limits::PACK_TARGET_BYTES;
        let many = self.index.blobs.len() >= limits::MAX_PACK_BLOBS;
        !self.is_empty() && (large || many)
    }

    /// Adds a result.
    pub fn push(&mut self, framed: Framed, stored_ms: u64) {
        let offset = self.len();
        let record_len = framed.record.len() as u64;
        self.bytes.extend_from_slice(&framed.record);
        let mut head_len = record_len;
        for (digest, frame) in framed.blobs {
            let Some(span) = self.push_blob(&digest, &frame, false) else { continue };
            let small = span.len <= limits::SMALL_BLOB_BYTES;
            if small && span.end() - offset - record_len <= limits::MAX_HEAD_BLOB_BYTES {
                head_len = span.end() - offset;
            }
        }
        let whole_len = self.len() - offset;
        for (digest, bytes) in framed.raw {
            self.push_blob(&digest, &bytes, true);
        }
        self.index.results.push(ResultAt {
            unit: framed.name.unit,
            result: framed.name.result,
            generation: framed.name.generation,
            stored_ms,
            offset,
            record_len,
            head_len,
            whole_len,
        });
    }

    /// Where a blob lies now; nothing when it was there already.
    fn push_blob(&mut self, digest: &Digest, bytes: &[u8], raw: bool) -> Option<Span> {
        if !self.there.insert(*digest) {
            return None;
        }
        let span = Span { offset: self.len(), len: bytes.len() as u64 };
        self.bytes.extend_from_slice(bytes);
        self.index.blobs.push(BlobAt { blob: BlobId::of(digest), span, raw });
        Some(span)
    }

    /// The finished pack.
    pub fn finish(mut self) -> Pack {
        self.index.bytes = self.len();
        let id = PackId(Digest::of(&self.bytes));
        Pack { id, bytes: self.bytes.into(), index: self.index }
    }
}

/// A finished pack.
#[derive(Debug, Clone)]
pub struct Pack {
    /// Its name.
    pub id: PackId,
    /// All of it.
    pub bytes: Bytes,
    /// What lies where.
    pub index: PackIndex,
}

impl Pack {
    /// The same results as another entry: where the key of this one is blocked.
    pub fn salted(&self, salt: u64) -> Self {
        let mut bytes = self.bytes.to_vec();
        let at = MAGIC.len() + 12;
        bytes[at..at + 8].copy_from_slice(&salt.to_le_bytes());
        Self { id: PackId(Digest::of(&bytes)), bytes: bytes.into(), index: self.index.clone() }
    }
}

/// The record in a frame, after every check: that it is whole, that it is the one of its name, and that it
/// may be believed.
///
/// # Errors
/// What is wrong, for people.
pub fn open_record(name: &ResultName, frame: Bytes) -> Result<Record, String> {
    let payload = entry::decode(&record_name(&name.scope, name), frame).map_err(text)?;
    let record: Record = serde_json::from_slice(&payload).map_err(text)?;
    record.check().map_err(text)?;
    if record.unit_key == name.unit && record.result_key == name.result {
        Ok(record)
    } else {
        Err("the record belongs to another result".into())
    }
}

/// The blob in a frame, verified.
///
/// # Errors
/// What is wrong, for people.
pub fn open_blob(digest: &Digest, frame: Bytes) -> Result<Bytes, String> {
    let payload = entry::decode(&ObjectName::blob(digest), frame).map_err(text)?;
    if Digest::of(&payload) == *digest {
        Ok(payload.into_bytes())
    } else {
        Err("the blob is another one".into())
    }
}

fn text(error: impl fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Cost, Producer, RECORD_VERSION, UnitName, result_key};

    fn record(number: u64) -> (ResultName, Record) {
        let unit = UnitKey::new(Digest::of(&number.to_le_bytes()));
        let result = result_key(&unit, &[], &[]);
        let record = Record {
            version: RECORD_VERSION,
            unit_key: unit,
            result_key: result,
            unit: UnitName::default(),
            parts: Vec::new(),
            members: Vec::new(),
            values: Vec::new(),
            variables: Default::default(),
            outputs: Vec::new(),
            status: 0,
            stdout: String::new(),
            stderr: String::new(),
            cost: Cost::default(),
            producer: Producer::default(),
            conservative: Vec::new(),
        };
        let scope = Scope::new("owner/name", "refs/heads/main");
        (ResultName { scope, unit, result, generation: 0 }, record)
    }

    fn noise(seed: u64, len: usize) -> (Digest, Bytes) {
        let mut bytes = vec![0; len];
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        (Digest::of(&bytes), bytes.into())
    }

    /// Two results that share a blob.
    fn pack(salt: u64) -> Pack {
        let mut builder = PackBuilder::new(1000, salt);
        assert!(builder.is_empty());
        for (number, blobs) in [(1, vec![noise(1, 100_000), noise(2, 50)]), (2, vec![noise(2, 50)])]
        {
            let (name, record) = record(number);
            builder.push(Framed::new(&name, &record, blobs).unwrap(), 2000 + number);
        }
        builder.finish()
    }

    fn part(pack: &Pack, span: Span) -> Bytes {
        pack.bytes.slice(span.offset as usize..span.end() as usize)
    }

    #[test]
    fn what_lies_where_is_what_was_put_there() {
        let pack = pack(7);
        assert_eq!(pack.id, PackId(Digest::of(&pack.bytes)));
        assert!(pack.index.is_sound());
        let [first, second] = pack.index.results[..] else { panic!("two results") };
        let (name, made) = record(1);
        let frame = Span { offset: first.offset, len: first.record_len };
        assert_eq!(open_record(&name, part(&pack, frame)), Ok(made));
        assert!(open_record(&record(2).0, part(&pack, frame)).is_err(), "another's");
        let blobs: Vec<_> = pack.index.blobs_in(first.whole()).collect();
        let (small, large) = (noise(2, 50), noise(1, 100_000));
        assert_eq!(blobs[0].blob, BlobId::of(&small.0), "small ones come first");
        assert_eq!(open_blob(&small.0, part(&pack, blobs[0].span)), Ok(small.1));
        assert_eq!(open_blob(&large.0, part(&pack, blobs[1].span)), Ok(large.1));
        assert!(open_blob(&large.0, part(&pack, blobs[0].span)).is_err(), "another's");
        assert_eq!(pack.index.blobs_in(first.head()).count(), 1);
        assert_eq!(first.whole().end(), second.offset, "neighbours");
        assert_eq!(pack.index.blobs_in(second.whole()).count(), 0, "it is there already");
        assert_eq!(second.whole().end(), pack.bytes.len() as u64);
    }

    #[test]
    fn any_flipped_bit_of_a_result_is_seen() {
        let pack = pack(7);
        let second = pack.index.results[1];
        for at in second.offset..second.offset + second.record_len {
            let mut bytes = pack.bytes.to_vec();
            bytes[at as usize] ^= 1 << (at % 8);
            let changed = Pack { bytes: bytes.into(), ..pack.clone() };
            assert!(open_record(&record(2).0, part(&changed, second.head())).is_err(), "{at}");
        }
    }

    #[test]
    fn a_salt_makes_it_another_entry_of_the_same_results() {
        let (one, other) = (pack(7), pack(8));
        assert_ne!(one.id, other.id);
        assert_eq!(one.salted(8).id, other.id);
        assert_eq!(one.salted(8).index, other.index);
    }

    #[test]
    fn an_index_that_leads_outside_is_not_sound() {
        let index = pack(7).index;
        let mut long = index.clone();
        long.results[1].whole_len += 1;
        let mut inside_out = index.clone();
        inside_out.results[0].record_len = inside_out.results[0].head_len + 1;
        let mut far = index.clone();
        far.blobs[0].span = Span { offset: u64::MAX, len: u64::MAX };
        let mut huge = index;
        huge.bytes = limits::MAX_PACK_BYTES + 1;
        for wrong in [long, inside_out, far, huge] {
            assert!(!wrong.is_sound(), "{wrong:?}");
        }
    }

    /// The head of a pack is a stored format: a change of it needs a new version.
    #[test]
    fn the_format_is_stable() {
        let bytes = pack(7).bytes;
        assert_eq!(&bytes[..8], MAGIC);
        assert_eq!(bytes[8..12], PACK_VERSION.to_le_bytes());
        assert_eq!(bytes[12..20], 1000_u64.to_le_bytes());
        assert_eq!(bytes[20..28], 7_u64.to_le_bytes());
        assert_eq!(&bytes[28..36], b"KILNENT\n");
    }
}
