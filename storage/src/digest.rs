//! [`Digest`]: the BLAKE3 digest that names bytes everywhere in Kiln.
//!
//! Pure apart from [`Digest::of_reader`]. Every key type in [`crate::key`] wraps one.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Bytes in a digest.
pub const DIGEST_LEN: usize = 32;

/// The buffer that reading begins with, bytes.
const FIRST_BUFFER_BYTES: usize = 16 * 1024;

/// Characters in the short form of one.
const SHORT_LEN: usize = 8;

/// A BLAKE3 digest of 32 bytes; its text form is 64 lower-case hexadecimal characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; DIGEST_LEN]);

/// The text is not a digest: it has to be 64 lower-case hexadecimal characters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a digest (64 lower-case hexadecimal characters)")]
pub struct ParseDigestError;

impl Digest {
    /// The digest of bytes in memory.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The digest of all that a reader yields, and how many bytes that were.
    ///
    /// # Errors
    /// What the reader fails with.
    pub fn of_reader(reader: &mut impl Read) -> io::Result<(Self, u64)> {
        let mut hasher = blake3::Hasher::new();
        // Most are small, and a buffer is cleared before it is used.
        let mut buffer = vec![0_u8; FIRST_BUFFER_BYTES];
        let mut total = 0_u64;
        loop {
            if total == buffer.len() as u64 {
                buffer = vec![0; crate::limits::COPY_BUFFER_BYTES];
            }
            let read = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            hasher.update(&buffer[..read]);
            total += read as u64;
        }
        Ok((Self(*hasher.finalize().as_bytes()), total))
    }

    /// The digest with these bytes.
    pub const fn from_bytes(bytes: [u8; DIGEST_LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes of the digest.
    pub const fn as_bytes(&self) -> &[u8; DIGEST_LEN] {
        &self.0
    }

    /// The first eight hexadecimal characters, for people.
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(SHORT_LEN);
        text
    }

    /// Whether a text is the short form of a digest.
    pub fn is_short(text: &str) -> bool {
        text.len() == SHORT_LEN && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0_u8; DIGEST_LEN * 2];
        for (i, byte) in self.0.iter().enumerate() {
            text[2 * i] = HEX[usize::from(byte >> 4)];
            text[2 * i + 1] = HEX[usize::from(byte & 15)];
        }
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// A bit that no nibble has.
const NO_NIBBLE: u8 = 0x80;

/// The value of each hexadecimal character.
const NIBBLES: [u8; 256] = {
    let mut table = [NO_NIBBLE; 256];
    let mut value = 0;
    while value < 16 {
        table[b"0123456789abcdef"[value] as usize] = value as u8;
        value += 1;
    }
    table
};

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.as_bytes();
        if text.len() != DIGEST_LEN * 2 {
            return Err(ParseDigestError);
        }
        // Lookups bring thousands: no branch for each character.
        let (mut bytes, mut seen) = ([0_u8; DIGEST_LEN], 0);
        for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            let (high, low) = (NIBBLES[usize::from(pair[0])], NIBBLES[usize::from(pair[1])]);
            seen |= high | low;
            *byte = high << 4 | low & 15;
        }
        if seen & NO_NIBBLE == 0 { Ok(Self(bytes)) } else { Err(ParseDigestError) }
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Digest;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("64 lower-case hexadecimal characters")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Digest, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Visitor).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips_and_rejects_everything_else() {
        let digest = Digest::of(b"kiln");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!(digest.to_string().len(), 64);
        for bad in ["", "0", &digest.to_string().to_uppercase(), &format!("{digest}0")] {
            assert_eq!(bad.parse::<Digest>(), Err(ParseDigestError), "{bad:?}");
        }
    }

    #[test]
    fn reader_and_slice_agree() {
        let bytes = vec![7_u8; 3 * crate::limits::COPY_BUFFER_BYTES + 1];
        let (digest, len) = Digest::of_reader(&mut &bytes[..]).unwrap();
        assert_eq!((digest, len), (Digest::of(&bytes), bytes.len() as u64));
    }
}
