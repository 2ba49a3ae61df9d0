//! The disk store: objects as plain files in one directory.
//!
//! [`DiskStore`] is the store itself, with blocking calls; [`DiskBackend`] puts it behind
//! [`crate::Backend`] for async callers. Neither knows a size budget ([`crate::eviction`] plans,
//! the server deletes) nor what a record means.
//!
//! # Layout
//! An object lies under its own name below the directory; a blob therefore is a file that holds
//! exactly its bytes, which others may copy with the kernel ([`blob_path`]). Temporary files lie
//! in `~tmp`, a name that no object can have. A file gets its object name only when it is whole, by
//! a rename that replaces nothing. So a process killed at any moment leaves a temporary file at
//! most, and the next [`DiskStore::open`] removes those that are old enough to be abandoned.
//!
//! Nothing is synced to the platter: after a power cut a file may be too short. Records carry a
//! checksum, and whoever uses a blob by its path compares its size ([`is_sealed`]).
//!
//! # The seal
//! A blob's digest is verified while the store takes it over, on the bytes that were written and
//! not on those that were offered. The file then gets the modification time [`seal_time`]: any
//! ordinary write breaks this seal, and a blob with a broken seal is hashed before it is used
//! again. The access time is the time of last use. The seal finds accidents, not malice: whoever
//! may write to the directory may also set times.

use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::digest::Digest;
use crate::key::ObjectName;
use crate::limits;

mod backend;
mod os;
mod store;
mod temporary;
mod walk;
mod writer;

pub use backend::DiskBackend;
pub use os::reflink;
pub use store::{DiskCounters, DiskStore, StoredFile};
pub use writer::DiskWriter;

/// How a disk store behaves.
#[derive(Debug, Clone)]
pub struct DiskOptions {
    /// Largest object, bytes.
    pub max_object_bytes: u64,
    /// Age at which [`DiskStore::open`] removes a temporary file.
    pub temporary_max_age: Duration,
    /// A read records its time when the recorded last use is older than this.
    pub touch_interval: Duration,
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self {
            max_object_bytes: limits::MAX_BLOB_BYTES,
            temporary_max_age: limits::TEMPORARY_MAX_AGE,
            touch_interval: limits::DISK_TOUCH_INTERVAL,
        }
    }
}

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

/// Whether a blob file is as the store left it: a regular file of this size with the
/// [`seal_time`] of this digest. If so its bytes need no verification.
pub fn is_sealed(meta: &Metadata, digest: &Digest, size: u64) -> bool {
    meta.is_file()
        && meta.len() == size
        && meta.modified().is_ok_and(|time| time == sealed_at(digest))
}

/// [`seal_time`] as a [`SystemTime`].
fn sealed_at(digest: &Digest) -> SystemTime {
    let (seconds, nanos) = seal_time(digest);
    UNIX_EPOCH + Duration::new(seconds.unsigned_abs(), nanos)
}

#[cfg(test)]
#[cfg(unix)]
mod tests;
