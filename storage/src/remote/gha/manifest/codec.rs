//! The stored form of a manifest: numbers of variable length in an entry frame ([`crate::entry`]) that
//! answers the scope and the number. Counts are bounded before anything is allocated.

use std::sync::Arc;

use bytes::Bytes;

use super::{Manifest, Note, Seen};
use crate::digest::{DIGEST_LEN, Digest};
use crate::entry::{self, EntryError};
use crate::key::{ObjectName, ResultKey, Scope, UnitKey};
use crate::remote::gha::client::Span;
use crate::remote::gha::limits;
use crate::remote::gha::pack::{BlobAt, BlobId, PackId, PackIndex, ResultAt};

/// Version of the format.
const VERSION: u64 = 1;

/// Longest a number is.
const NUMBER: usize = 10;

/// The most bytes of everything but packs and notes.
pub(super) const FIXED_BYTES: usize = 8 * NUMBER
    + limits::MAX_MISSING * 2 * NUMBER
    + limits::MAX_GONE_PACKS * (DIGEST_LEN + NUMBER)
    + limits::MAX_DEAD_RESULTS * (DIGEST_LEN + NUMBER)
    + limits::MAX_NOTES * 4 * NUMBER;

/// The most bytes that a pack takes.
pub(super) fn size_of(index: &PackIndex) -> usize {
    DIGEST_LEN
        + 4 * NUMBER
        + index.results.len() * (2 * DIGEST_LEN + 6 * NUMBER)
        + index.blobs.len() * (16 + 2 * NUMBER)
}

/// Why bytes are no manifest of a scope and number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The frame around it is damaged or another's.
    #[error("{0}")]
    Frame(#[from] EntryError),
    /// Another version of the format.
    #[error("manifest version {0} is not {VERSION}")]
    Version(u64),
    /// Something in it is cut off, over its bound or outside of its pack.
    #[error("the manifest is malformed: {0}")]
    Malformed(&'static str),
}

fn name(scope: &Scope, number: u64) -> Result<ObjectName, ManifestError> {
    format!("manifest/{}/{number}", scope.id())
        .parse()
        .map_err(|_| ManifestError::Malformed("name"))
}

/// The stored form.
///
/// # Errors
/// [`ManifestError::Frame`] when it is over its bound: it was not pruned.
pub fn encode(manifest: &Manifest, scope: &Scope, number: u64) -> Result<Bytes, ManifestError> {
    let mut out = Writer(Vec::new());
    out.number(VERSION);
    out.number(manifest.seen.high);
    out.number(manifest.seen.missing.len() as u64);
    for (missing, at) in &manifest.seen.missing {
        out.number(*missing);
        out.number(*at);
    }
    out.number(manifest.packs.len() as u64);
    for (id, index) in &manifest.packs {
        out.pack(id, index);
    }
    out.number(manifest.gone.len() as u64);
    for (id, at) in &manifest.gone {
        out.digest(&id.0);
        out.number(*at);
    }
    out.number(manifest.dead.len() as u64);
    for (id, offset) in &manifest.dead {
        out.digest(&id.0);
        out.number(*offset);
    }
    out.number(manifest.notes.len() as u64);
    for (name, note) in &manifest.notes {
        out.text(name.as_bytes());
        out.number(note.written_ms);
        out.text(&note.text);
    }
    Ok(entry::encode(&name(scope, number)?, &out.0)?.into())
}

/// The manifest of a scope and number.
///
/// # Errors
/// The first thing that is wrong.
pub fn decode(scope: &Scope, number: u64, bytes: Bytes) -> Result<Manifest, ManifestError> {
    let payload = entry::decode(&name(scope, number)?, bytes)?;
    let mut from = Reader(&payload);
    let version = from.number()?;
    if version != VERSION {
        return Err(ManifestError::Version(version));
    }
    let mut seen = Seen { high: from.number()?, ..Seen::default() };
    if seen.high > limits::MAX_NUMBER {
        return Err(ManifestError::Malformed("its highest number"));
    }
    for _ in 0..from.count(2, limits::MAX_MISSING)? {
        let missing = from.number()?;
        if missing > seen.high {
            return Err(ManifestError::Malformed("a missing number"));
        }
        seen.missing.insert(missing, from.number()?);
    }
    if !seen.has(number) {
        return Err(ManifestError::Malformed("its own number"));
    }
    let mut manifest = Manifest { seen, ..Manifest::default() };
    for _ in 0..from.count(DIGEST_LEN, limits::MAX_MANIFEST_PACKS)? {
        let (id, index) = from.pack()?;
        manifest.packs.insert(id, Arc::new(index));
    }
    for _ in 0..from.count(DIGEST_LEN, limits::MAX_GONE_PACKS)? {
        manifest.gone.insert(PackId(from.digest()?), from.number()?);
    }
    for _ in 0..from.count(DIGEST_LEN, limits::MAX_DEAD_RESULTS)? {
        manifest.dead.insert((PackId(from.digest()?), from.number()?));
    }
    for _ in 0..from.count(3, limits::MAX_NOTES)? {
        let name = from.text(limits::MAX_NOTE_NAME_BYTES)?.to_vec();
        let name = String::from_utf8(name).map_err(|_| ManifestError::Malformed("a note"))?;
        let written_ms = from.number()?;
        let text = Bytes::copy_from_slice(from.text(limits::MAX_NOTE_BYTES)?);
        manifest.notes.insert(name, Note { written_ms, text });
    }
    if from.0.is_empty() { Ok(manifest) } else { Err(ManifestError::Malformed("the end")) }
}

struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn digest(&mut self, digest: &Digest) {
        self.0.extend_from_slice(digest.as_bytes());
    }

    fn text(&mut self, text: &[u8]) {
        self.number(text.len() as u64);
        self.0.extend_from_slice(text);
    }

    fn pack(&mut self, id: &PackId, index: &PackIndex) {
        self.digest(&id.0);
        self.number(index.created_ms);
        self.number(index.bytes);
        self.number(index.results.len() as u64);
        for at in &index.results {
            self.digest(at.unit.digest());
            self.digest(at.result.digest());
            self.number(u64::from(at.generation));
            for number in [at.stored_ms, at.offset, at.record_len, at.head_len, at.whole_len] {
                self.number(number);
            }
        }
        self.number(index.blobs.len() as u64);
        for at in &index.blobs {
            self.0.extend_from_slice(&at.blob.0);
            self.number(at.span.offset);
            self.number(at.span.len << 1 | u64::from(at.raw));
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], ManifestError> {
        let (taken, rest) =
            self.0.split_at_checked(len).ok_or(ManifestError::Malformed("cut off"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u64, ManifestError> {
        let mut value = 0_u64;
        for at in 0..NUMBER {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f).checked_shl(7 * at as u32).unwrap_or_default();
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(ManifestError::Malformed("a number"))
    }

    /// A count of items that take at least so many bytes each.
    fn count(&mut self, least: usize, most: usize) -> Result<usize, ManifestError> {
        let count = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        if count <= most && count.saturating_mul(least) <= self.0.len() {
            Ok(count)
        } else {
            Err(ManifestError::Malformed("a count"))
        }
    }

    fn digest(&mut self) -> Result<Digest, ManifestError> {
        let mut bytes = [0; DIGEST_LEN];
        bytes.copy_from_slice(self.take(DIGEST_LEN)?);
        Ok(Digest::from_bytes(bytes))
    }

    fn text(&mut self, most: usize) -> Result<&'a [u8], ManifestError> {
        let len = self.count(1, most)?;
        self.take(len)
    }

    fn pack(&mut self) -> Result<(PackId, PackIndex), ManifestError> {
        let id = PackId(self.digest()?);
        let mut index =
            PackIndex { created_ms: self.number()?, bytes: self.number()?, ..PackIndex::default() };
        let results = self.count(2 * DIGEST_LEN, limits::MAX_PACK_ITEMS)?;
        index.results.reserve_exact(results);
        for _ in 0..results {
            index.results.push(ResultAt {
                unit: UnitKey::new(self.digest()?),
                result: ResultKey::new(self.digest()?),
                generation: u32::try_from(self.number()?)
                    .map_err(|_| ManifestError::Malformed("a generation"))?,
                stored_ms: self.number()?,
                offset: self.number()?,
                record_len: self.number()?,
                head_len: self.number()?,
                whole_len: self.number()?,
            });
        }
        let blobs = self.count(18, limits::MAX_PACK_ITEMS)?;
        index.blobs.reserve_exact(blobs);
        for _ in 0..blobs {
            let mut blob = [0; 16];
            blob.copy_from_slice(self.take(16)?);
            let (offset, len) = (self.number()?, self.number()?);
            let span = Span { offset, len: len >> 1 };
            index.blobs.push(BlobAt { blob: BlobId(blob), span, raw: len & 1 == 1 });
        }
        if index.is_sound() { Ok((id, index)) } else { Err(ManifestError::Malformed("a pack")) }
    }
}
