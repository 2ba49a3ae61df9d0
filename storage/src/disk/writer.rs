//! [`DiskWriter`]: one object being written. Made by [`DiskStore::writer`]; used by the store's
//! own puts, by [`super::DiskBackend`] for streams, and by a server that receives a blob.

use std::fs::File;
use std::io::{self, Read, Seek as _, Write as _};

use super::os;
use super::store::DiskStore;
use super::temporary::Temporary;
use crate::backend::{Put, StoreError, StoreResult};
use crate::digest::Digest;
use crate::key::ObjectName;
use crate::limits;

/// An object being written. Dropped before [`DiskWriter::finish`] it leaves nothing behind.
#[derive(Debug)]
pub struct DiskWriter {
    store: DiskStore,
    name: ObjectName,
    temporary: Temporary,
    /// For a blob: the digest that its name demands, and that of the bytes so far.
    check: Option<(Digest, blake3::Hasher)>,
    len: u64,
    written: u64,
}

impl DiskWriter {
    pub(super) fn new(store: &DiskStore, name: &ObjectName, len: u64) -> StoreResult<Self> {
        Ok(Self {
            store: store.clone(),
            name: name.clone(),
            temporary: Temporary::create(store.dir())?,
            check: name.blob_digest().map(|digest| (digest, blake3::Hasher::new())),
            len,
            written: 0,
        })
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when there are more than announced, [`StoreError::ReadOnly`] when
    /// the disk takes no more, [`StoreError::Unavailable`].
    pub fn write(&mut self, bytes: &[u8]) -> StoreResult<()> {
        self.written += bytes.len() as u64;
        if self.written > self.len {
            return Err(self.damaged("the body is longer than announced"));
        }
        if let Some((_, hasher)) = &mut self.check {
            hasher.update(bytes);
        }
        let mut file = self.temporary.file();
        file.write_all(bytes).map_err(|error| os::write_error(&error))
    }

    /// Takes over the bytes of a file from its start, sharing its blocks where the file system
    /// can. The file may change meanwhile: what is verified is what was taken over.
    ///
    /// # Errors
    /// As [`DiskWriter::write`]; [`StoreError::Unavailable`] when the source cannot be read.
    pub fn copy_file(&mut self, source: &File) -> StoreResult<()> {
        if self.written == 0 && os::reflink(source, self.temporary.file()) {
            return self.hash_own_file();
        }
        let mut source = source;
        source.rewind().map_err(|error| os::read_error(&error))?;
        each_chunk(source, self.len, |chunk| self.write(chunk))
    }

    /// Counts and hashes the temporary file after a reflink.
    fn hash_own_file(&mut self) -> StoreResult<()> {
        let mut file = self.temporary.file();
        let meta = file.metadata().map_err(|error| os::read_error(&error))?;
        self.written = meta.len();
        let Some((_, hasher)) = &mut self.check else {
            return Ok(());
        };
        if self.written != self.len {
            return Ok(());
        }
        file.rewind().map_err(|error| os::read_error(&error))?;
        each_chunk(file, self.len, |chunk| {
            hasher.update(chunk);
            Ok(())
        })
    }

    /// Makes the object visible, unless one of its name appeared meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when there are fewer bytes than announced or they are not those of
    /// the blob; [`StoreError::ReadOnly`], [`StoreError::Unavailable`].
    pub fn finish(self) -> StoreResult<Put> {
        if self.written != self.len {
            return Err(self.damaged("the body is not as long as announced"));
        }
        if let Some((expected, hasher)) = &self.check {
            let found = Digest::from_bytes(*hasher.finalize().as_bytes());
            if found != *expected {
                return Err(self.damaged("the bytes offered have another digest"));
            }
            self.temporary.seal(expected)?;
        }
        self.temporary.publish(&self.store.path(&self.name))
    }

    fn damaged(&self, why: &str) -> StoreError {
        StoreError::Damaged { name: self.name.clone(), why: why.to_owned() }
    }
}

/// Reads to the end, in pieces of at most [`limits::COPY_BUFFER_BYTES`]; about `len` bytes come.
fn each_chunk(
    mut source: &File,
    len: u64,
    mut take: impl FnMut(&[u8]) -> StoreResult<()>,
) -> StoreResult<()> {
    // Most files are small, and fresh pages for a large buffer cost more than copying them.
    let size = usize::try_from(len).map_or(limits::COPY_BUFFER_BYTES, |len| len.saturating_add(1));
    let mut buffer = vec![0_u8; size.min(limits::COPY_BUFFER_BYTES)];
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => take(&buffer[..read])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(os::read_error(&error)),
        }
    }
}
