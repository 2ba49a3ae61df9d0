//! [`DiskStore`]: the store with blocking calls, for [`super::DiskBackend`] and the bulk paths of a
//! server. Writing an object is in [`super::writer`], listing in [`super::walk`].

use std::fs::{self, File, FileTimes, Metadata};
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use bytes::Bytes;

use super::temporary::{self, Temporary};
use super::writer::DiskWriter;
use super::{DiskOptions, is_sealed, os};
use crate::backend::{Put, StoreError, StoreResult};
use crate::digest::Digest;
use crate::key::ObjectName;

/// Objects as plain files in one directory. Clones are the same store.
///
/// Many threads and many processes may use one directory at once. Every call blocks.
#[derive(Debug, Clone)]
pub struct DiskStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    options: DiskOptions,
    resealed: AtomicU64,
    damaged: AtomicU64,
}

/// An object that was found.
#[derive(Debug)]
pub struct StoredFile {
    /// The open file, at its start. It stays readable when the object is deleted.
    pub file: File,
    /// Its length in bytes.
    pub len: u64,
}

/// What a disk store saw since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskCounters {
    /// Blobs whose seal was broken and whose bytes were right.
    pub resealed: u64,
    /// Blobs whose bytes were wrong; they were removed.
    pub damaged: u64,
}

/// Marks the directory as a cache (bford.info/cachedir), for backups and for whoever walks a project
/// that the store stands in. Without the mark nothing breaks.
fn mark(dir: &Path) {
    const TEXT: &str = "Signature: 8a477f597d28d172789f06886806bc55\n# Kiln's store.\n";
    let tag = dir.join("CACHEDIR.TAG");
    if !tag.exists() {
        let _ = fs::write(tag, TEXT);
    }
}

impl DiskStore {
    /// Opens the store in a directory, which is made when it is not there, and removes abandoned
    /// temporary files. A directory that takes no writes can be opened and read.
    ///
    /// # Errors
    /// [`StoreError::ReadOnly`] or [`StoreError::Unavailable`] when there is no directory and none
    /// can be made.
    pub fn open(dir: impl Into<PathBuf>, options: DiskOptions) -> StoreResult<Self> {
        let dir = dir.into();
        if let Err(error) = fs::create_dir_all(&dir)
            && !dir.is_dir()
        {
            return Err(os::write_error(&error));
        }
        mark(&dir);
        temporary::clean(&dir, options.temporary_max_age);
        let inner = Inner { dir, options, resealed: AtomicU64::new(0), damaged: AtomicU64::new(0) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The directory, for [`super::blob_path`].
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// What the store saw so far.
    pub fn counters(&self) -> DiskCounters {
        DiskCounters {
            resealed: self.inner.resealed.load(Ordering::Relaxed),
            damaged: self.inner.damaged.load(Ordering::Relaxed),
        }
    }

    /// Whether the store takes writes now: tries one.
    ///
    /// # Errors
    /// What a write would fail with.
    pub fn check_writable(&self) -> StoreResult<()> {
        Temporary::create(self.dir()).map(drop)
    }

    /// The object, opened; `Ok(None)` when there is none. A blob whose seal is broken is verified
    /// first; when it is damaged it is removed, and there is none.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub fn get(&self, name: &ObjectName) -> StoreResult<Option<StoredFile>> {
        let path = self.path(name);
        let file = match os::open_object(&path) {
            Ok(file) => file,
            Err(error) if os::is_absent(&error) => return Ok(None),
            Err(error) => return Err(os::read_error(&error)),
        };
        let meta = file.metadata().map_err(|error| os::read_error(&error))?;
        if !meta.is_file() {
            return Ok(None);
        }
        if let Some(digest) = name.blob_digest()
            && !looks_whole(&meta, &digest)
        {
            if !self.verify(&path, &file, &digest)? {
                return Ok(None);
            }
        } else {
            self.touch_if_stale(&file, &meta);
        }
        let len = meta.len();
        Ok(Some(StoredFile { file, len }))
    }

    /// All bytes of an object, as [`DiskStore::get`].
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] for more than `max` bytes; [`StoreError::Unavailable`].
    pub fn read(&self, name: &ObjectName, max: u64) -> StoreResult<Option<Bytes>> {
        match self.get(name)? {
            None => Ok(None),
            Some(found) if found.len > max => {
                Err(StoreError::TooLarge { name: name.clone(), size: found.len })
            }
            Some(found) => found.into_bytes().map(Some),
        }
    }

    /// The size of an object in bytes, as [`DiskStore::get`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub fn size(&self, name: &ObjectName) -> StoreResult<Option<u64>> {
        match fs::symlink_metadata(self.path(name)) {
            Err(error) if os::is_absent(&error) => Ok(None),
            Err(error) => Err(os::read_error(&error)),
            Ok(meta) if !meta.is_file() => Ok(None),
            Ok(meta) => match name.blob_digest() {
                Some(digest) if !looks_whole(&meta, &digest) => {
                    Ok(self.get(name)?.map(|found| found.len))
                }
                _ => Ok(Some(meta.len())),
            },
        }
    }

    /// Stores bytes unless the object is there.
    ///
    /// # Errors
    /// As [`DiskWriter::write`] and [`DiskWriter::finish`]; [`StoreError::TooLarge`].
    pub fn put_bytes(&self, name: &ObjectName, bytes: &[u8]) -> StoreResult<Put> {
        let Some(mut writer) = self.writer(name, bytes.len() as u64)? else {
            return Ok(Put::AlreadyThere);
        };
        writer.write(bytes)?;
        writer.finish()
    }

    /// Stores the `len` bytes of a file unless the object is there. The file is copied or its
    /// blocks are shared; it is never linked, so that the store's file is nobody else's.
    ///
    /// # Errors
    /// As [`DiskWriter::copy_file`] and [`DiskWriter::finish`]; [`StoreError::TooLarge`].
    pub fn put_file(&self, name: &ObjectName, file: &File, len: u64) -> StoreResult<Put> {
        let Some(mut writer) = self.writer(name, len)? else {
            return Ok(Put::AlreadyThere);
        };
        writer.copy_file(file)?;
        writer.finish()
    }

    /// A writer for an object of `len` bytes; `Ok(None)` when it is there already, which counts as
    /// a use.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`], [`StoreError::ReadOnly`], [`StoreError::Unavailable`].
    pub fn writer(&self, name: &ObjectName, len: u64) -> StoreResult<Option<DiskWriter>> {
        if let Some(found) = self.get(name)? {
            let _ = set_used_now(&found.file);
            return Ok(None);
        }
        if len > self.inner.options.max_object_bytes {
            let name = name.clone();
            return Err(StoreError::TooLarge { name, size: len });
        }
        DiskWriter::new(self, name, len).map(Some)
    }

    /// Records that an object was used now; whether there was one. The seal stays whole.
    ///
    /// # Errors
    /// [`StoreError::ReadOnly`], [`StoreError::Unavailable`].
    pub fn touch(&self, name: &ObjectName) -> StoreResult<bool> {
        match os::open_object(&self.path(name)) {
            Ok(file) => set_used_now(&file).map(|()| true).map_err(|error| os::write_error(&error)),
            Err(error) if os::is_absent(&error) => Ok(false),
            Err(error) => Err(os::read_error(&error)),
        }
    }

    /// Removes an object; whether there was one.
    ///
    /// # Errors
    /// [`StoreError::ReadOnly`], [`StoreError::Unavailable`].
    pub fn delete(&self, name: &ObjectName) -> StoreResult<bool> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Ok(()) => {
                self.remove_empty_parents(name, &path);
                Ok(true)
            }
            Err(error) if os::is_absent(&error) => Ok(false),
            // What is there is a directory; Linux says so, others say this.
            Err(_) if path.is_dir() => Ok(false),
            Err(error) => Err(os::write_error(&error)),
        }
    }

    /// The path of an object.
    pub fn path(&self, name: &ObjectName) -> PathBuf {
        self.dir().join(name.as_str())
    }

    /// Hashes a blob with a broken seal. Right: sealed again. Wrong: removed.
    fn verify(&self, path: &Path, file: &File, digest: &Digest) -> StoreResult<bool> {
        let mut reader = file;
        let before = stamp(file);
        let (found, _) = Digest::of_reader(&mut reader).map_err(|error| os::read_error(&error))?;
        reader.rewind().map_err(|error| os::read_error(&error))?;
        if found == *digest {
            // A file that changed while it was hashed is not sealed: its new bytes were not seen
            // (or another process has sealed it). Where the seal cannot be set (a read-only
            // store), every use verifies.
            let unchanged = before.is_some() && before == stamp(file);
            if unchanged && temporary::seal(file, digest).is_ok() {
                self.inner.resealed.fetch_add(1, Ordering::Relaxed);
            }
            return Ok(true);
        }
        self.inner.damaged.fetch_add(1, Ordering::Relaxed);
        let _ = fs::remove_file(path);
        Ok(false)
    }

    fn touch_if_stale(&self, file: &File, meta: &Metadata) {
        let age = meta.accessed().ok().and_then(|used| SystemTime::now().duration_since(used).ok());
        if age.is_some_and(|age| age > self.inner.options.touch_interval) {
            let _ = set_used_now(file);
        }
    }

    /// Records have a directory for each unit, which would pile up. A writer that loses its
    /// directory to this makes it again.
    fn remove_empty_parents(&self, name: &ObjectName, path: &Path) {
        if name.blob_digest().is_some() {
            return;
        }
        let parents = path.ancestors().skip(1);
        for parent in parents.take_while(|parent| *parent != self.dir()) {
            if fs::remove_dir(parent).is_err() {
                return;
            }
        }
    }
}

impl StoredFile {
    /// All bytes.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub fn into_bytes(self) -> StoreResult<Bytes> {
        let mut bytes = Vec::with_capacity(usize::try_from(self.len).unwrap_or(0));
        let mut file = self.file.take(self.len);
        file.read_to_end(&mut bytes).map_err(|error| os::read_error(&error))?;
        Ok(bytes.into())
    }
}

/// Whether the seal holds as far as a store can tell that does not know the size. A power cut can
/// leave a sealed file without its bytes: an empty file counts as sealed for the empty blob only.
fn looks_whole(meta: &Metadata, digest: &Digest) -> bool {
    is_sealed(meta, digest, meta.len()) && (meta.len() > 0 || *digest == Digest::of(b""))
}

/// What changes when a file is written to.
fn stamp(file: &File) -> Option<(u64, SystemTime)> {
    let meta = file.metadata().ok()?;
    Some((meta.len(), meta.modified().ok()?))
}

fn set_used_now(file: &File) -> std::io::Result<()> {
    file.set_times(FileTimes::new().set_accessed(SystemTime::now()))
}
