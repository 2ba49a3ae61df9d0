//! The payload of a result's object: its record, and the blobs that are small. Pure; called by [`super`].
//! The frame around it ([`crate::entry`]) has magic, version, name, lengths and checksum, and compresses.
//!
//! All numbers are little endian: 4 bytes length of the record, 4 bytes number of blobs; for each blob 32 bytes
//! digest and 4 bytes length; the record as JSON; the blobs.

use bytes::{Buf as _, Bytes};

use super::layout;
use crate::digest::{DIGEST_LEN, Digest};
use crate::entry::{self, EntryError};
use crate::key::{ObjectName, ResultKey, UnitKey};
use crate::limits;
use crate::record::Record;
use crate::remote::ResultName;

/// A record and the blobs with it.
pub(crate) type Unpacked = (Record, Vec<(Digest, Bytes)>);

/// Why an object is not the result that it has to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PackError {
    /// The frame.
    #[error("{0}")]
    Frame(#[from] EntryError),
    /// Lengths that do not add up.
    #[error("the parts of the result do not add up")]
    Shape,
    /// The record is none, or breaks a rule.
    #[error("the record is not valid: {0}")]
    Record(String),
    /// The record answers another name.
    #[error("the record belongs to another result")]
    Name,
    /// A blob that the record does not name so, or with other bytes.
    #[error("a blob of the result is another")]
    Blob,
}

/// The frame of a result.
///
/// # Errors
/// [`EntryError::TooLarge`].
pub(crate) fn encode(
    name: &ResultName,
    record: &[u8],
    blobs: &[(Digest, Bytes)],
) -> Result<Vec<u8>, EntryError> {
    let mut payload = Vec::new();
    payload.extend((record.len() as u32).to_le_bytes());
    payload.extend((blobs.len() as u32).to_le_bytes());
    for (digest, bytes) in blobs {
        payload.extend(digest.as_bytes());
        payload.extend((bytes.len() as u32).to_le_bytes());
    }
    payload.extend(record);
    blobs.iter().for_each(|(_, bytes)| payload.extend(bytes));
    entry::encode(&layout::result(name), &payload)
}

/// The bytes that [`encode`] needs beside record and blobs.
pub(crate) fn overhead(blobs: usize) -> usize {
    8 + blobs * (DIGEST_LEN + 4)
}

/// The result of a name in the bytes of its object, after every check.
///
/// # Errors
/// The first thing that is wrong.
pub(crate) fn decode(name: &ResultName, frame: Bytes) -> Result<Unpacked, PackError> {
    decode_object(&layout::result(name), (&name.unit, &name.result), frame)
}

/// As [`decode`], for who knows the object and not the scope.
///
/// # Errors
/// The first thing that is wrong.
pub(crate) fn decode_object(
    object: &ObjectName,
    of: (&UnitKey, &ResultKey),
    frame: Bytes,
) -> Result<Unpacked, PackError> {
    let payload = entry::decode(object, frame)?.into_bytes();
    let mut fields = payload.clone();
    let record_len = fields.try_get_u32_le().map_err(|_| PackError::Shape)? as usize;
    let count = fields.try_get_u32_le().map_err(|_| PackError::Shape)? as usize;
    if count > limits::MAX_OUTPUTS || fields.len() < count * (DIGEST_LEN + 4) {
        return Err(PackError::Shape);
    }
    let mut table = Vec::with_capacity(count);
    for _ in 0..count {
        let mut digest = [0; DIGEST_LEN];
        fields.copy_to_slice(&mut digest);
        table.push((Digest::from_bytes(digest), fields.get_u32_le() as usize));
    }
    if fields.len() < record_len {
        return Err(PackError::Shape);
    }
    let record = read_record(of, &fields.split_to(record_len))?;
    let named = record.blobs();
    let mut blobs = Vec::with_capacity(count);
    for (digest, len) in table {
        if fields.len() < len {
            return Err(PackError::Shape);
        }
        let bytes = fields.split_to(len);
        if !named.contains(&(digest, len as u64)) || Digest::of(&bytes) != digest {
            return Err(PackError::Blob);
        }
        blobs.push((digest, bytes));
    }
    if fields.is_empty() { Ok((record, blobs)) } else { Err(PackError::Shape) }
}

fn read_record((unit, result): (&UnitKey, &ResultKey), json: &[u8]) -> Result<Record, PackError> {
    let record: Record =
        serde_json::from_slice(json).map_err(|error| PackError::Record(error.to_string()))?;
    record.check().map_err(|error| PackError::Record(error.to_string()))?;
    if record.unit_key != *unit || record.result_key != *result {
        return Err(PackError::Name);
    }
    Ok(record)
}

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::results;

    fn packed(blobs: &[Bytes], inline: usize) -> (ResultName, Record, Vec<u8>) {
        let (name, record) = results::result("unit", "v", blobs);
        let json = serde_json::to_vec(&record).unwrap();
        let blobs: Vec<_> =
            blobs[..inline].iter().map(|bytes| (Digest::of(bytes), bytes.clone())).collect();
        let frame = encode(&name, &json, &blobs).unwrap();
        (name, record, frame)
    }

    fn some() -> Vec<Bytes> {
        vec![Bytes::from_static(b"one"), Bytes::new(), Bytes::from(vec![7; 3000])]
    }

    #[test]
    fn what_goes_in_comes_out() {
        for inline in 0..=3 {
            let (name, record, frame) = packed(&some(), inline);
            let (found, blobs) = decode(&name, frame.into()).unwrap();
            assert_eq!(found, record);
            let bytes: Vec<_> = blobs.into_iter().map(|(_, bytes)| bytes).collect();
            assert_eq!(bytes, some()[..inline]);
        }
    }

    #[test]
    fn another_name_and_foreign_blobs_are_refused() {
        let (name, record, frame) = packed(&some(), 3);
        let other = ResultName { generation: 1, ..name.clone() };
        assert_eq!(decode(&other, frame.into()), Err(PackError::Frame(EntryError::Name)));
        let (elsewhere, _) = results::result("other", "v", &some());
        let json = serde_json::to_vec(&record).unwrap();
        let wrong = encode(&elsewhere, &json, &[]).unwrap();
        assert_eq!(decode(&elsewhere, wrong.into()), Err(PackError::Name));
        let foreign = Bytes::from_static(b"foreign");
        for pair in [
            (Digest::of(&foreign), foreign.clone()),
            (Digest::of(b"one"), Bytes::from_static(b"two")),
        ] {
            let wrong = encode(&name, &json, &[pair]).unwrap();
            assert_eq!(decode(&name, wrong.into()), Err(PackError::Blob));
        }
        let none = encode(&name, b"{}", &[]).unwrap();
        assert!(matches!(decode(&name, none.into()), Err(PackError::Record(_))));
    }

    proptest! {
        /// Whoever can write into the bucket can make a frame whose checksum fits.
        #[test]
        fn forged_payloads_never_panic(
            payload in proptest::collection::vec(any::<u8>(), 0..200),
            lengths in any::<(u32, u32)>(),
        ) {
            let (name, _) = results::result("unit", "v", &[]);
            let object = layout::result(&name);
            let mut forged = lengths.0.to_le_bytes().to_vec();
            forged.extend(lengths.1.to_le_bytes());
            forged.extend(&payload);
            for payload in [payload, forged] {
                let frame = entry::encode(&object, &payload).unwrap();
                prop_assert!(decode(&name, frame.into()).is_err());
            }
        }
    }
}
