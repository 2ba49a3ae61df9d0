//! The stored frame of a record, and of blobs that travel inside other objects.
//!
//! Owns the byte format: [`encode`] and [`decode`], nothing between. It does no I/O and knows
//! nothing of what a payload means. [`crate::verify`] frames every object that is no raw blob;
//! packs for remote stores use it for small blobs.
//!
//! All numbers are little endian:
//!
//! | bytes | field |
//! |---|---|
//! | 8 | magic |
//! | 4 | format version |
//! | 4 | compression of the stored bytes: 0 none, 1 zstd |
//! | 4 | length of the name |
//! | 8 | length of the payload |
//! | 8 | length of the stored bytes |
//! | n | the name of the object that the frame answers |
//! | 32 | BLAKE3 of all fields above and the stored bytes |
//! | m | the stored bytes |
//!
//! The checksum covers the bytes as they are stored, not the payload alone: nothing unchecked
//! reaches the decompressor, and no bit of a frame is without effect.

use std::fmt;
use std::ops::Deref;

use bytes::{Bytes, TryGetError};

use crate::digest::{DIGEST_LEN, Digest};
use crate::key::ObjectName;
use crate::limits;

/// Version of the frame. A frame of another version is refused.
pub const ENTRY_VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"KILNENT\n";
const FIXED_LEN: usize = 36;
const PLAIN: u32 = 0;
const ZSTD: u32 = 1;
/// The default of zstd: records are text, and are written once and read often.
const ZSTD_LEVEL: i32 = 3;

/// Why bytes are not the frame that they have to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Too short, too long, or not a frame at all.
    #[error("not a whole entry frame")]
    Shape,
    /// Another version of the format.
    #[error("entry version {0} is not {ENTRY_VERSION}")]
    Version(u32),
    /// A compression that this version does not know.
    #[error("entry compression {0} is unknown")]
    Compression(u32),
    /// The frame answers another name.
    #[error("the entry belongs to another object")]
    Name,
    /// The payload is over the bound of its kind.
    #[error("an entry payload of {0} bytes is over its bound")]
    TooLarge(u64),
    /// The bytes are not those that were written.
    #[error("the entry checksum does not match")]
    Checksum,
    /// The stored bytes do not decompress to the payload.
    #[error("the entry does not decompress")]
    Decompress,
}

impl From<TryGetError> for EntryError {
    fn from(_: TryGetError) -> Self {
        Self::Shape
    }
}

/// A payload whose frame was checked. Only [`decode`] makes one.
#[derive(Clone, PartialEq, Eq)]
pub struct CheckedPayload(Bytes);

impl CheckedPayload {
    /// The bytes.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl Deref for CheckedPayload {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for CheckedPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CheckedPayload({} bytes)", self.0.len())
    }
}

/// The largest payload that a frame of this name may hold, bytes.
pub fn max_payload(name: &ObjectName) -> usize {
    if name.blob_digest().is_some() {
        limits::MAX_FRAMED_BLOB_BYTES
    } else {
        limits::MAX_RECORD_BYTES
    }
}

/// The largest frame of this name, bytes: what a reader may take into memory.
pub fn max_frame(name: &ObjectName) -> u64 {
    (FIXED_LEN + name.as_str().len() + DIGEST_LEN + max_payload(name)) as u64
}

/// The frame of a payload under a name, compressed where that pays.
///
/// # Errors
/// [`EntryError::TooLarge`], for a payload that [`decode`] would refuse.
pub fn encode(name: &ObjectName, payload: &[u8]) -> Result<Vec<u8>, EntryError> {
    if payload.len() > max_payload(name) {
        return Err(EntryError::TooLarge(payload.len() as u64));
    }
    let packed = compress(payload);
    let (compression, stored) = match &packed {
        Some(packed) => (ZSTD, packed.as_slice()),
        None => (PLAIN, payload),
    };
    let name = name.as_str().as_bytes();
    let mut frame = Vec::with_capacity(FIXED_LEN + name.len() + DIGEST_LEN + stored.len());
    frame.extend_from_slice(MAGIC);
    frame.extend_from_slice(&ENTRY_VERSION.to_le_bytes());
    frame.extend_from_slice(&compression.to_le_bytes());
    frame.extend_from_slice(&(name.len() as u32).to_le_bytes());
    frame.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    frame.extend_from_slice(&(stored.len() as u64).to_le_bytes());
    frame.extend_from_slice(name);
    let sum = checksum(&frame, stored);
    frame.extend_from_slice(sum.as_bytes());
    frame.extend_from_slice(stored);
    Ok(frame)
}

/// The payload of a frame that answers `name`, after every check.
///
/// # Errors
/// The first thing that is wrong. Lengths are bounded before anything is allocated.
pub fn decode(name: &ObjectName, frame: impl Into<Bytes>) -> Result<CheckedPayload, EntryError> {
    let frame = frame.into();
    let header = Header::read(&frame)?;
    let body_at = FIXED_LEN
        .checked_add(header.name_len)
        .and_then(|at| at.checked_add(DIGEST_LEN))
        .filter(|at| *at <= frame.len())
        .ok_or(EntryError::Shape)?;
    let (head, sum) = frame[..body_at].split_at(body_at - DIGEST_LEN);
    if &head[FIXED_LEN..] != name.as_str().as_bytes() {
        return Err(EntryError::Name);
    }
    let payload_len = usize::try_from(header.payload_len)
        .ok()
        .filter(|len| *len <= max_payload(name))
        .ok_or(EntryError::TooLarge(header.payload_len))?;
    if (frame.len() - body_at) as u64 != header.stored_len {
        return Err(EntryError::Shape);
    }
    if checksum(head, &frame[body_at..]).as_bytes().as_slice() != sum {
        return Err(EntryError::Checksum);
    }
    let stored = frame.slice(body_at..);
    let payload = match header.compression {
        PLAIN => stored,
        ZSTD => zstd::bulk::decompress(&stored, payload_len)
            .map(Bytes::from)
            .map_err(|_| EntryError::Decompress)?,
        other => return Err(EntryError::Compression(other)),
    };
    if payload.len() == payload_len {
        Ok(CheckedPayload(payload))
    } else {
        Err(EntryError::Decompress)
    }
}

struct Header {
    compression: u32,
    name_len: usize,
    payload_len: u64,
    stored_len: u64,
}

impl Header {
    fn read(frame: &[u8]) -> Result<Self, EntryError> {
        use bytes::Buf as _;
        let mut fields = frame.strip_prefix(MAGIC).ok_or(EntryError::Shape)?;
        let version = fields.try_get_u32_le()?;
        if version != ENTRY_VERSION {
            return Err(EntryError::Version(version));
        }
        Ok(Self {
            compression: fields.try_get_u32_le()?,
            name_len: fields.try_get_u32_le()? as usize,
            payload_len: fields.try_get_u64_le()?,
            stored_len: fields.try_get_u64_le()?,
        })
    }
}

/// The compressed payload, unless it saves less than an eighth: then reading it costs more.
fn compress(payload: &[u8]) -> Option<Vec<u8>> {
    if payload.len() < limits::MIN_COMPRESSED_BYTES {
        return None;
    }
    let packed = zstd::bulk::compress(payload, ZSTD_LEVEL).ok()?;
    (packed.len() < payload.len() - payload.len() / 8).then_some(packed)
}

fn checksum(head: &[u8], stored: &[u8]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(head).update(stored);
    Digest::from_bytes(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name() -> ObjectName {
        "records/scope/ab/unit/result.0".parse().unwrap()
    }

    /// Short ones, long ones that compress, and long ones that do not.
    fn payloads() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..64),
            (any::<u8>(), 0_usize..20_000).prop_map(|(byte, len)| vec![byte; len]),
            proptest::collection::vec(any::<u8>(), 600..2000),
        ]
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(payload in payloads()) {
            let frame = encode(&name(), &payload).unwrap();
            let decoded = decode(&name(), frame).unwrap();
            prop_assert_eq!(&*decoded, payload.as_slice());
        }

        #[test]
        fn any_flipped_bit_is_refused(payload in payloads(), at in any::<prop::sample::Index>()) {
            let mut frame = encode(&name(), &payload).unwrap();
            let bit = at.index(frame.len() * 8);
            frame[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(decode(&name(), frame).is_err(), "bit {} went unnoticed", bit);
        }

        #[test]
        fn any_truncation_is_refused(payload in payloads(), at in any::<prop::sample::Index>()) {
            let mut frame = encode(&name(), &payload).unwrap();
            frame.truncate(at.index(frame.len()));
            prop_assert!(decode(&name(), frame).is_err());
        }

        #[test]
        fn any_extension_is_refused(
            payload in payloads(),
            more in proptest::collection::vec(any::<u8>(), 1..100),
        ) {
            let mut frame = encode(&name(), &payload).unwrap();
            frame.extend(more);
            prop_assert_eq!(decode(&name(), frame), Err(EntryError::Shape));
        }

        #[test]
        fn any_other_name_is_refused(payload in payloads(), other in "[a-z]{1,8}(/[a-z0-9]{1,30}){0,3}") {
            let other: ObjectName = other.parse().unwrap();
            prop_assume!(other != name());
            let frame = encode(&other, &payload).unwrap();
            prop_assert_eq!(decode(&name(), frame), Err(EntryError::Name));
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(decode(&name(), bytes.clone()).is_err());
            let marked = [MAGIC.as_slice(), &ENTRY_VERSION.to_le_bytes(), &bytes].concat();
            prop_assert!(decode(&name(), marked).is_err());
        }
    }

    /// A frame with any header and a checksum that fits, as an attacker would write it.
    fn forged(compression: u32, payload_len: u64, stored: &[u8]) -> Vec<u8> {
        let mut frame = MAGIC.to_vec();
        frame.extend(ENTRY_VERSION.to_le_bytes());
        frame.extend(compression.to_le_bytes());
        frame.extend((name().as_str().len() as u32).to_le_bytes());
        frame.extend(payload_len.to_le_bytes());
        frame.extend((stored.len() as u64).to_le_bytes());
        frame.extend(name().as_str().as_bytes());
        let sum = checksum(&frame, stored);
        frame.extend(sum.as_bytes());
        frame.extend(stored);
        frame
    }

    #[test]
    fn lengths_are_bounded_before_allocation() {
        for len in [limits::MAX_RECORD_BYTES as u64 + 1, u64::MAX] {
            assert_eq!(decode(&name(), forged(PLAIN, len, b"x")), Err(EntryError::TooLarge(len)));
        }
        let bomb = zstd::bulk::compress(&vec![0; limits::MAX_RECORD_BYTES + 1], 1).unwrap();
        assert_eq!(decode(&name(), forged(ZSTD, 10, &bomb)), Err(EntryError::Decompress));
        assert_eq!(
            decode(&name(), forged(ZSTD, limits::MAX_RECORD_BYTES as u64, &bomb)),
            Err(EntryError::Decompress)
        );
    }

    #[test]
    fn a_length_that_is_not_the_payloads_is_refused() {
        assert_eq!(decode(&name(), forged(PLAIN, 2, b"x")), Err(EntryError::Decompress));
        assert_eq!(decode(&name(), forged(7, 1, b"x")), Err(EntryError::Compression(7)));
    }

    #[test]
    fn a_payload_over_its_bound_is_not_framed() {
        let over = vec![0; limits::MAX_RECORD_BYTES + 1];
        assert!(matches!(encode(&name(), &over), Err(EntryError::TooLarge(_))));
        let blob = ObjectName::blob(&Digest::of(&over));
        let frame = encode(&blob, &over).unwrap();
        assert!(frame.len() < over.len() / 100, "zeros compress");
        assert!(frame.len() as u64 <= max_frame(&blob));
    }

    #[test]
    fn only_what_pays_is_compressed() {
        let text = b"fn main() {}\n".repeat(100);
        assert!(encode(&name(), &text).unwrap().len() < text.len() / 2);
        let mut noise = vec![0_u8; 4096];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        let frame = encode(&name(), &noise).unwrap();
        assert!(frame.ends_with(&noise));
    }

    /// The frame is a stored format: a change of it needs a new version.
    #[test]
    fn the_format_is_stable() {
        let frame = encode(&name(), b"payload").unwrap();
        assert_eq!(
            Digest::of(&frame).to_string(),
            "3466567032fe8cb39bb3655346848d8504e40d6813aa96acc561aae5a4b7a284"
        );
    }
}
