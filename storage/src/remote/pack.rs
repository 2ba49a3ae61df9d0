//! Many small blobs in one body: what `POST /v1/blobs/pack` answers.
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | magic and version |
//! | then for each blob: 32 | its digest |
//! | 1 | compression of what follows: 0 none, 1 zstd |
//! | 8 | its length, little-endian |
//! | 8 | length of what follows, little-endian |
//! | … | the bytes |
//!
//! Pure. The writer is the server, the reader [`super::kiln`]; it believes no length before it is within
//! its bound, and no bytes before they have the digest.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use crate::digest::Digest;
use crate::limits::{MAX_PACKED_BLOB_BYTES, MIN_COMPRESSED_BYTES};

/// What a pack begins with.
pub const MAGIC: &[u8; 8] = b"kilnpk01";

const HEAD: usize = 32 + 1 + 8 + 8;
const RAW: u8 = 0;
const ZSTD: u8 = 1;

/// Made for each answer anew: quick rather than small.
const ZSTD_LEVEL: i32 = 1;

/// Why a pack cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// It does not begin as one.
    #[error("not a pack of blobs")]
    Magic,
    /// A length over its bound, or an unknown compression.
    #[error("a blob of impossible form")]
    Form,
    /// The bytes are not those of the digest.
    #[error("a blob with another digest")]
    Digest,
    /// It ended within a blob.
    #[error("the pack broke off")]
    End,
}

/// A blob as it is in a pack.
pub fn entry(digest: &Digest, bytes: &[u8]) -> Bytes {
    let packed = match bytes.len() {
        MIN_COMPRESSED_BYTES.. => zstd::bulk::compress(bytes, ZSTD_LEVEL).ok(),
        _ => None,
    };
    let packed = packed.filter(|packed| packed.len() < bytes.len());
    let (compression, stored) = match &packed {
        Some(packed) => (ZSTD, packed.as_slice()),
        None => (RAW, bytes),
    };
    let mut entry = BytesMut::with_capacity(HEAD + stored.len());
    entry.put_slice(digest.as_bytes());
    entry.put_u8(compression);
    entry.put_u64_le(bytes.len() as u64);
    entry.put_u64_le(stored.len() as u64);
    entry.put_slice(stored);
    entry.freeze()
}

/// Takes a pack apart as it arrives.
#[derive(Debug, Default)]
pub struct Unpack {
    buffer: BytesMut,
    begun: bool,
}

impl Unpack {
    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next blob that is whole, verified; none: more bytes are needed.
    ///
    /// # Errors
    /// What is wrong with the pack; nothing more is to be had of it.
    pub fn blob(&mut self) -> Result<Option<(Digest, Bytes)>, PackError> {
        if !self.begun {
            if self.buffer.len() < MAGIC.len() {
                return Ok(None);
            }
            if self.buffer.split_to(MAGIC.len()) != MAGIC.as_slice() {
                return Err(PackError::Magic);
            }
            self.begun = true;
        }
        let Some(mut head) = self.buffer.get(..HEAD) else { return Ok(None) };
        let mut digest = [0; 32];
        head.copy_to_slice(&mut digest);
        let digest = Digest::from_bytes(digest);
        let compression = head.get_u8();
        let (len, stored) = (head.get_u64_le(), head.get_u64_le());
        if len > MAX_PACKED_BLOB_BYTES || stored > len || compression > ZSTD {
            return Err(PackError::Form);
        }
        // Both are within a bound that fits.
        let (len, stored) = (len as usize, stored as usize);
        if self.buffer.len() < HEAD + stored {
            return Ok(None);
        }
        self.buffer.advance(HEAD);
        let body = self.buffer.split_to(stored).freeze();
        let bytes = match compression {
            RAW => body,
            _ => zstd::bulk::decompress(&body, len).map_err(|_| PackError::Form)?.into(),
        };
        if bytes.len() != len || Digest::of(&bytes) != digest {
            return Err(PackError::Digest);
        }
        Ok(Some((digest, bytes)))
    }

    /// Whether what came was a whole pack.
    ///
    /// # Errors
    /// [`PackError::End`].
    pub fn finish(&self) -> Result<(), PackError> {
        if self.begun && self.buffer.is_empty() { Ok(()) } else { Err(PackError::End) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpack(bytes: &[u8], chunk: usize) -> Result<Vec<Bytes>, PackError> {
        let mut unpack = Unpack::default();
        let mut found = Vec::new();
        for chunk in bytes.chunks(chunk) {
            unpack.push(chunk);
            while let Some((digest, bytes)) = unpack.blob()? {
                assert_eq!(Digest::of(&bytes), digest);
                found.push(bytes);
            }
        }
        unpack.finish()?;
        Ok(found)
    }

    fn pack(blobs: &[&[u8]]) -> Vec<u8> {
        let mut pack = MAGIC.to_vec();
        blobs.iter().for_each(|blob| pack.extend_from_slice(&entry(&Digest::of(blob), blob)));
        pack
    }

    #[test]
    fn what_is_packed_comes_out_however_it_arrives() {
        let long = vec![b'a'; 100_000];
        let blobs: [&[u8]; 4] = [b"", b"short", &long, b"x"];
        let pack = pack(&blobs);
        assert!(pack.len() < 2000, "compressed: {}", pack.len());
        for chunk in [1, 7, 4096, 1 << 20] {
            assert_eq!(unpack(&pack, chunk).unwrap(), blobs);
        }
    }

    #[test]
    fn what_is_damaged_is_not_believed() {
        let good = pack(&[b"some bytes", b"others"]);
        assert_eq!(unpack(b"kilnpk02", 8), Err(PackError::Magic));
        assert_eq!(unpack(&good[..good.len() - 1], 64), Err(PackError::End));
        assert_eq!(unpack(b"", 64), Err(PackError::End));
        for at in 8..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(unpack(&bad, 64).is_err(), "byte {at}");
        }
        let mut bomb = good;
        bomb[8 + 33..8 + 41].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(unpack(&bomb, 64), Err(PackError::Form));
    }
}
