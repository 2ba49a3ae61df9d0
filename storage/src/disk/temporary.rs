//! [`Temporary`]: a file on its way to become an object. Called by [`super::writer`] and, to clean
//! up, by [`super::store`].

use std::fs::{self, File, FileTimes};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{os, sealed_at};
use crate::backend::{Put, StoreError, StoreResult};
use crate::digest::Digest;

/// The directory of temporary files in a store: no object name has a `~`.
pub(super) const TEMPORARY_DIR: &str = "~tmp";

/// How often a directory that vanishes is made again before giving up.
const ATTEMPTS: usize = 8;

static NEXT: AtomicU64 = AtomicU64::new(0);

/// A file in the temporary directory. It is removed unless it is published.
#[derive(Debug)]
pub(super) struct Temporary {
    path: PathBuf,
    file: File,
    published: bool,
}

impl Temporary {
    /// A new, empty file below the store, whose directories are made as needed.
    pub(super) fn create(store: &Path) -> StoreResult<Self> {
        let dir = store.join(TEMPORARY_DIR);
        let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
        for _ in 0..ATTEMPTS {
            let path = dir.join(unique_name());
            match os::create_new(&path) {
                Ok(file) => {
                    return Ok(Self { path, file, published: false });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    fs::create_dir_all(&dir).map_err(|error| os::write_error(&error))?;
                    last = error;
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
                Err(error) => return Err(os::write_error(&error)),
            }
        }
        Err(os::write_error(&last))
    }

    /// The open file, for reading and writing.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Marks the bytes as verified. Before publishing, so that every visible blob is sealed.
    pub(super) fn seal(&self, digest: &Digest) -> StoreResult<()> {
        seal(&self.file, digest).map_err(|error| os::write_error(&error))
    }

    /// Gives the file its name, unless that is taken.
    pub(super) fn publish(mut self, object: &Path) -> StoreResult<Put> {
        for _ in 0..ATTEMPTS {
            match os::rename_no_replace(&self.path, object) {
                Ok(()) => {
                    self.published = true;
                    return Ok(Put::Created);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return Ok(Put::AlreadyThere);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let parent = object.parent().unwrap_or(object);
                    fs::create_dir_all(parent).map_err(|error| os::write_error(&error))?;
                }
                Err(error) => return Err(os::write_error(&error)),
            }
        }
        let gone = "the directory vanished during a write";
        Err(StoreError::Unavailable(format!("disk: {gone}")))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.published {
            // A failure leaves a file that the next open removes.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Sets the times of a verified blob: the seal, and last use now.
pub(super) fn seal(file: &File, digest: &Digest) -> io::Result<()> {
    let times = FileTimes::new().set_accessed(SystemTime::now()).set_modified(sealed_at(digest));
    file.set_times(times)
}

/// Removes what no process is writing any more. Failures are left for the next time.
pub(super) fn clean(store: &Path, max_age: Duration) {
    let Ok(entries) = fs::read_dir(store.join(TEMPORARY_DIR)) else {
        return;
    };
    let now = SystemTime::now();
    for entry in entries.flatten() {
        let old = entry.metadata().is_ok_and(|meta| {
            // A file that is sealed and about to be published has an old modification time.
            let used = meta.accessed().ok().max(meta.modified().ok());
            used.and_then(|used| now.duration_since(used).ok()).is_some_and(|age| age >= max_age)
        });
        if old {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Unique among the processes of this machine; [`os::create_new`] settles the rest.
fn unique_name() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanos = since.map_or(0, |since| since.as_nanos() as u64);
    let count = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{:x}-{nanos:x}-{count:x}", std::process::id())
}
