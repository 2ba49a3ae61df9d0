//! A blob that holds another one, stored without it: a library holds the metadata that is an output of its
//! own, which is a third of all bytes. Pure; called by [`super`].
//!
//! Payload of the frame, little endian: 32 bytes digest of the part, 8 bytes its size, 8 bytes where it
//! goes; then all other bytes. The frame has a name of its own, so that nobody takes it for the blob.

use bytes::{Buf as _, Bytes};

use super::pack::PackError;
use crate::digest::{DIGEST_LEN, Digest};
use crate::entry;
use crate::key::ObjectName;
use crate::limits;
use crate::output::{Content, Output};

/// As many bytes of the part are looked for.
const SEARCHED_BYTES: usize = 64;

/// A blob without its part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Joined {
    /// The part.
    pub(crate) part: Digest,
    /// Its size.
    pub(crate) size: u64,
    at: usize,
    rest: Bytes,
}

/// The name that is in the frame. It is of the kind of a blob's, and bounds it like one.
fn frame_name(digest: &Digest) -> Option<ObjectName> {
    format!("blobs/joined/{digest}").parse().ok()
}

/// The frame of a blob without a part of it; `None` where it is no part.
pub(crate) fn encode(digest: &Digest, bytes: &Bytes, part: (Digest, &Bytes)) -> Option<Vec<u8>> {
    let (name, part) = (part.0, part.1);
    let begin = part.get(..SEARCHED_BYTES)?;
    let at = memchr::memmem::find_iter(bytes, begin).find(|at| bytes[*at..].starts_with(part))?;
    let mut payload = Vec::with_capacity(DIGEST_LEN + 16 + bytes.len() - part.len());
    payload.extend(name.as_bytes());
    payload.extend((part.len() as u64).to_le_bytes());
    payload.extend((at as u64).to_le_bytes());
    payload.extend(&bytes[..at]);
    payload.extend(&bytes[at + part.len()..]);
    entry::encode(&frame_name(digest)?, &payload).ok()
}

/// What is in such a frame.
///
/// # Errors
/// That it is none, or of another blob.
pub(crate) fn decode(digest: &Digest, frame: Bytes) -> Result<Joined, PackError> {
    let name = frame_name(digest).ok_or(PackError::Shape)?;
    let mut payload = entry::decode(&name, frame)?.into_bytes();
    if payload.len() < DIGEST_LEN + 16 {
        return Err(PackError::Shape);
    }
    let mut part = [0; DIGEST_LEN];
    payload.copy_to_slice(&mut part);
    let (size, at) = (payload.get_u64_le(), payload.get_u64_le());
    let at = usize::try_from(at).ok().filter(|at| *at <= payload.len());
    let at = at.ok_or(PackError::Shape)?;
    if size > limits::MAX_FRAMED_BLOB_BYTES as u64 {
        return Err(PackError::Shape);
    }
    Ok(Joined { part: Digest::from_bytes(part), size, at, rest: payload })
}

impl Joined {
    /// The blob, with its part; `None` where that does not make it.
    pub(crate) fn whole(&self, digest: &Digest, part: &[u8]) -> Option<Bytes> {
        let whole = self.with(part);
        (Digest::of(&whole) == *digest).then_some(whole)
    }

    /// What the part makes of it, whatever that is.
    pub(crate) fn with(&self, part: &[u8]) -> Bytes {
        let (before, after) = self.rest.split_at(self.at);
        Bytes::from([before, part, after].concat())
    }
}

/// Which blobs of a record may hold another one, and which: a library the metadata of its name.
pub(crate) fn pairs(outputs: &[Output]) -> Vec<(Digest, (Digest, u64))> {
    let blob = |output: &Output| match &output.content {
        Content::Blob { digest, size } => Some((*digest, *size)),
        _ => None,
    };
    let mut pairs = Vec::new();
    for library in outputs {
        let Some(stem) = library.name.strip_suffix(".rlib") else { continue };
        let metadata =
            outputs.iter().find(|output| output.name.strip_suffix(".rmeta") == Some(stem));
        if let (Some((whole, _)), Some(part)) = (blob(library), metadata.and_then(blob)) {
            pairs.push((whole, part));
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn noise(seed: u8, len: usize) -> Bytes {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
        bytes.into()
    }

    proptest! {
        #[test]
        fn what_is_taken_apart_comes_together(
            before in 0_usize..300,
            part in 64_usize..300,
            after in 0_usize..300,
            flip in any::<prop::sample::Index>(),
        ) {
            let part = noise(1, part);
            // The beginning of the part is there twice.
            let whole = Bytes::from([&part[..64], &noise(2, before), &part, &noise(3, after)].concat());
            let digest = Digest::of(&whole);
            let frame = encode(&digest, &whole, (Digest::of(&part), &part)).unwrap();
            prop_assert!(frame.len() < whole.len() + 200 - part.len());
            let joined = decode(&digest, frame.clone().into()).unwrap();
            prop_assert_eq!((joined.part, joined.size), (Digest::of(&part), part.len() as u64));
            prop_assert_eq!(joined.whole(&digest, &part), Some(whole));
            let mut other = part.to_vec();
            other[flip.index(part.len())] ^= 1;
            prop_assert_eq!(joined.whole(&digest, &other), None);
            prop_assert_eq!(joined.whole(&digest, &part[1..]), None);
            prop_assert!(decode(&Digest::of(b"other"), frame.into()).is_err());
        }

        #[test]
        fn forged_frames_never_panic(payload in proptest::collection::vec(any::<u8>(), 0..100)) {
            let digest = Digest::of(b"x");
            let frame = entry::encode(&frame_name(&digest).unwrap(), &payload).unwrap();
            if let Ok(joined) = decode(&digest, frame.into()) {
                prop_assert_eq!(joined.whole(&digest, b"part"), None);
            }
        }
    }

    #[test]
    fn what_is_no_part_is_not_taken_out() {
        let (whole, other) = (noise(1, 1000), noise(2, 100));
        for part in [other, noise(3, 10), Bytes::new(), [&whole[..64], b"x"].concat().into()] {
            assert_eq!(encode(&Digest::of(&whole), &whole, (Digest::of(&part), &part)), None);
        }
    }
}
