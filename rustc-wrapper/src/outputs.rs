//! The files of a unit: found after a compile ([`collect`]), put back on a hit ([`restore`]).
//!
//! A restore is all or nothing: into temporary names beside the outputs, then renamed. Files are
//! reflinked where the file system can, else copied; never hard-linked, since a link shares its
//! inode with the store (ARCHITECTURE.md, "Why no hard links").

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use kiln_storage::record::{Content, Output, Record};
use kiln_storage::{Digest, disk};

use crate::client::Client;
use crate::needles::{Needles, Scan};
use crate::roots::{Escape, Roots};
use crate::stamp::{changed_ns, is_unwritten};
use crate::unit::Unit;

/// Mode bits that the umask may take from.
pub(crate) const FILE_MODE: u32 = 0o666;
pub(crate) const EXECUTABLE_MODE: u32 = 0o777;

/// A file that a compile left.
#[derive(Debug, Clone)]
pub struct Made {
    /// Its name in the output directory.
    pub name: String,
    /// Its path.
    pub path: PathBuf,
    /// Whether it is executable.
    pub executable: bool,
}

/// The outputs of a unit that was compiled since a moment (exact clock, nanoseconds).
///
/// # Errors
/// When the directory cannot be read.
pub fn collect(unit: &Unit, since_ns: i128) -> io::Result<Vec<Made>> {
    let mut made = Vec::new();
    for entry in std::fs::read_dir(&unit.out_dir)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if !unit.outputs.owns(&name) {
            continue;
        }
        let meta = entry.metadata()?;
        if meta.is_file() && changed_ns(&meta) >= since_ns {
            let executable = meta.permissions().mode() & 0o111 != 0;
            made.push(Made { name, path: entry.path(), executable });
        }
    }
    made.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(made)
}

/// A file that was read.
#[derive(Debug)]
pub struct Scanned {
    /// The digest of its bytes.
    pub digest: Digest,
    /// How many there are.
    pub size: u64,
    /// Which of some byte strings occur in it.
    pub found: Vec<bool>,
    /// Its first bytes; all of them where it is a small one.
    pub begin: Vec<u8>,
}

/// Largest file that is small, bytes: all of it is kept at hand.
const SMALL_BYTES: u64 = 256 * 1024;

/// Reads a file of about so many bytes, and looks for byte strings in it.
///
/// # Errors
/// What reading fails with.
pub fn hash_and_scan(path: &Path, about: u64, needles: &Needles<'_>) -> io::Result<Scanned> {
    let file = File::open(path)?;
    let room = about.min(SMALL_BYTES) + 1;
    let mut begin = Vec::with_capacity(usize::try_from(room).unwrap_or_default());
    (&file).take(SMALL_BYTES + 1).read_to_end(&mut begin)?;
    if begin.len() as u64 <= SMALL_BYTES {
        let mut found = needles.marks();
        needles.mark(&begin, &mut found);
        return Ok(Scanned { digest: Digest::of(&begin), size: begin.len() as u64, found, begin });
    }
    let mut scan = Scan::new(begin.as_slice().chain(file), needles);
    let (digest, size) = Digest::of_reader(&mut scan)?;
    Ok(Scanned { digest, size, found: scan.found, begin })
}

/// Where blobs come from.
#[derive(Debug)]
pub enum Source<'a> {
    /// A disk store on this machine.
    Store(&'a Path),
    /// A server.
    Server(&'a mut Client),
}

/// Why a result could not be put back.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// A blob is gone or damaged: the server should look at it.
    #[error("blob {0}: {1}")]
    Blob(Digest, String),
    /// The output directory does not take it.
    #[error("{0}: {1}")]
    Target(PathBuf, io::Error),
    /// A stored text names a root that is not here.
    #[error("{0} cannot be written for this place")]
    Text(String),
}

/// Files under temporary names, removed unless they were all renamed.
#[derive(Default)]
struct Pending(Vec<(PathBuf, PathBuf)>);

impl Drop for Pending {
    fn drop(&mut self) {
        for (temporary, _) in &self.0 {
            let _ = std::fs::remove_file(temporary);
        }
    }
}

/// Puts all outputs of a record into a directory; returns the bytes written.
///
/// # Errors
/// The first failure; then no output was touched, or all were whole when a rename failed.
pub fn restore(
    record: &Record,
    out_dir: &Path,
    roots: &Roots,
    source: &mut Source<'_>,
) -> Result<Restored, RestoreError> {
    let mut pending = Pending::default();
    let mut restored = Restored::default();
    let mut written = Vec::new();
    for output in &record.outputs {
        let to = out_dir.join(&output.name);
        let temporary = out_dir.join(temporary_name(&output.name));
        pending.0.push((temporary.clone(), to.clone()));
        let (meta, bytes) = write(output, &temporary, roots, source)?;
        restored.bytes += bytes;
        if let Content::Blob { digest, .. } = output.content {
            written.push((to, meta, digest));
        }
    }
    for (temporary, to) in &pending.0 {
        std::fs::rename(temporary, to).map_err(|error| RestoreError::Target(to.clone(), error))?;
    }
    pending.0.clear();
    // Renaming moves the ctime; that nobody wrote meanwhile, the mtime says.
    for (path, before, digest) in written {
        let same = |now: &Metadata| is_unwritten(&before, now);
        restored.files.extend(std::fs::metadata(path).ok().filter(same).map(|now| (now, digest)));
    }
    Ok(restored)
}

/// What a restore wrote.
#[derive(Debug, Default)]
pub struct Restored {
    /// Bytes.
    pub bytes: u64,
    /// The files of blobs as they are now, with the digests of their contents.
    pub files: Vec<(Metadata, Digest)>,
}

impl Restored {
    /// What two restores wrote.
    pub fn add(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.files.extend(other.files);
    }
}

pub(crate) fn temporary_name(name: &str) -> String {
    // A name at its limit has no room for more.
    match name.len() > 200 {
        true => format!(".{}.kiln{}", Digest::of(name.as_bytes()).short(), std::process::id()),
        false => format!(".{name}.kiln{}", std::process::id()),
    }
}

/// Writes one output; its metadata after that, and how many bytes it has.
pub(crate) fn write(
    output: &Output,
    path: &Path,
    roots: &Roots,
    source: &mut Source<'_>,
) -> Result<(Metadata, u64), RestoreError> {
    let target = |error| RestoreError::Target(path.to_owned(), error);
    let mode = if output.executable { EXECUTABLE_MODE } else { FILE_MODE };
    let create = || {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(mode);
        options.open(path).or_else(|_| {
            // Left by a process of the same number that was killed.
            let _ = std::fs::remove_file(path);
            options.open(path)
        })
    };
    match &output.content {
        Content::Text(template) => {
            let text = roots.fill(template, Escape::DepInfo);
            let text = text.ok_or_else(|| RestoreError::Text(output.name.clone()))?;
            let mut file = create().map_err(target)?;
            file.write_all(text.as_bytes()).map_err(target)?;
            Ok((file.metadata().map_err(target)?, text.len() as u64))
        }
        Content::Blob { digest, size } => {
            let mut file = create().map_err(target)?;
            match source {
                Source::Store(store) => {
                    copy(&disk::blob_path(store, digest), digest, *size, &mut file)?
                }
                Source::Server(client) => fetch(client, digest, *size, &mut file)?,
            }
            Ok((file.metadata().map_err(target)?, *size))
        }
        Content::Directory => {
            DirBuilder::new().mode(EXECUTABLE_MODE).create(path).map_err(target)?;
            Ok((path.symlink_metadata().map_err(target)?, 0))
        }
        Content::Link(template) => {
            let leads = roots.fill(template, Escape::Plain);
            let leads = leads.ok_or_else(|| RestoreError::Text(output.name.clone()))?;
            symlink(leads, path).map_err(target)?;
            Ok((path.symlink_metadata().map_err(target)?, 0))
        }
    }
}

/// Copies a blob of the store. One whose size and time are what the store last set is trusted;
/// any other is verified on the way.
fn copy(from: &Path, digest: &Digest, size: u64, to: &mut File) -> Result<(), RestoreError> {
    let bad = |error: io::Error| RestoreError::Blob(*digest, error.to_string());
    let mut blob = File::open(from).map_err(bad)?;
    let meta = blob.metadata().map_err(bad)?;
    if meta.size() != size {
        return Err(RestoreError::Blob(*digest, "has another size".into()));
    }
    if disk::is_sealed(&meta, digest, size) {
        if disk::reflink(&blob, to) {
            return Ok(());
        }
        let copied = io::copy(&mut blob, to).map_err(bad)?;
        return match copied == size {
            true => Ok(()),
            false => Err(RestoreError::Blob(*digest, "became shorter".into())),
        };
    }
    let mut checked = Checked { hasher: blake3::Hasher::new(), to };
    io::copy(&mut blob.take(size), &mut checked).map_err(bad)?;
    checked.finish(digest)
}

fn fetch(
    client: &mut Client,
    digest: &Digest,
    size: u64,
    to: &mut File,
) -> Result<(), RestoreError> {
    let mut checked = Checked { hasher: blake3::Hasher::new(), to };
    let path = format!("/v1/blobs/{digest}");
    client
        .fetch(&path, size, &mut checked, crate::limits::BLOB_TIMEOUT)
        .map_err(|error| RestoreError::Blob(*digest, error.to_string()))?;
    checked.finish(digest)
}

/// A writer that knows the digest of what it wrote.
struct Checked<'a> {
    hasher: blake3::Hasher,
    to: &'a mut File,
}

impl Checked<'_> {
    fn finish(self, digest: &Digest) -> Result<(), RestoreError> {
        match Digest::from_bytes(*self.hasher.finalize().as_bytes()) == *digest {
            true => Ok(()),
            false => Err(RestoreError::Blob(*digest, "has other bytes".into())),
        }
    }
}

impl Write for Checked<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hasher.update(bytes);
        self.to.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
