//! The disk backend.

use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::key::ObjectName;

/// Where a disk store keeps a blob: a plain file with exactly the bytes of the blob.
pub fn blob_path(store: &Path, digest: &Digest) -> PathBuf {
    store.join(ObjectName::blob(digest).as_str())
}

/// The modification time that a verified blob file has, as seconds and nanoseconds since 1970.
///
/// It is a function of the digest, so that any ordinary write to the file shows: a blob whose size
/// or modification time is not what it has to be is verified before use.
pub fn seal_time(digest: &Digest) -> (i64, u32) {
    let b = digest.as_bytes();
    let seconds = 946_684_800 + i64::from(u32::from_le_bytes([b[0], b[1], b[2], 0]));
    let nanos = u32::from_le_bytes([b[4], b[5], b[6], b[7]]) % 1_000_000_000;
    (seconds, nanos)
}
