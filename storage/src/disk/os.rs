//! What the standard library has no portable call for: rename without replacing, reflinks, opening
//! without following links. Called by the rest of [`crate::disk`] only.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

use crate::backend::StoreError;

/// Renames a file; `AlreadyExists` when the new name is taken.
///
/// File systems that cannot do this at once get a link and an unlink: the new name still appears
/// whole and replaces nothing.
pub(super) fn rename_no_replace(from: &Path, to: &Path) -> io::Result<()> {
    match rename_flagged(from, to) {
        Err(error) if is_unsupported(&error) => link_and_unlink(from, to),
        done => done,
    }
}

pub(super) fn link_and_unlink(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::hard_link(from, to)?;
    std::fs::remove_file(from)
}

#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
fn rename_flagged(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
fn rename_flagged(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// `EINVAL` is what Linux says when the file system does not know the flag.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput)
}

/// Makes `to` share the blocks of `from`, where the file system can. False: `to` is as it was.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub fn reflink(from: &File, to: &File) -> bool {
    rustix::fs::ioctl_ficlone(to, from).is_ok()
}

/// Nothing, where files cannot share blocks, or not this way.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub fn reflink(_: &File, _: &File) -> bool {
    false
}

/// Opens for reading. A link in place of an object is not followed, and a FIFO does not block.
#[cfg(unix)]
pub(super) fn open_object(path: &Path) -> io::Result<File> {
    use rustix::fs::OFlags;
    use std::os::unix::fs::OpenOptionsExt as _;
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path)
}

#[cfg(not(unix))]
pub(super) fn open_object(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// Creates a file that was not there, 0644 less the umask.
pub(super) fn create_new(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o644);
    options.open(path)
}

/// Whether a path cannot name an object here: nothing is there, or nothing can be.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::InvalidFilename
    ) || is_link(error)
}

#[cfg(unix)]
fn is_link(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

#[cfg(not(unix))]
fn is_link(_: &io::Error) -> bool {
    false
}

/// The error of a failed read.
pub(super) fn read_error(error: &io::Error) -> StoreError {
    StoreError::Unavailable(format!("disk: {error}"))
}

/// The error of a failed write: whether the place takes no writes at all, or this one failed.
pub(super) fn write_error(error: &io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::StorageFull
        | io::ErrorKind::QuotaExceeded
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::PermissionDenied
        | io::ErrorKind::CrossesDevices
        | io::ErrorKind::Unsupported => StoreError::ReadOnly(format!("disk: {error}")),
        _ => StoreError::Unavailable(format!("disk: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Rename = fn(&Path, &Path) -> io::Result<()>;

    #[test]
    fn both_ways_to_rename_replace_nothing() {
        for rename in [rename_no_replace as Rename, link_and_unlink as Rename] {
            let dir = tempfile::tempdir().unwrap();
            let (a, b, c) = (dir.path().join("a"), dir.path().join("b"), dir.path().join("c"));
            std::fs::write(&a, "a").unwrap();
            std::fs::write(&b, "b").unwrap();
            let taken = rename(&a, &b).unwrap_err();
            assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(std::fs::read(&b).unwrap(), b"b");
            rename(&a, &c).unwrap();
            assert!(!a.exists());
            assert_eq!(std::fs::read(&c).unwrap(), b"a");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_place_that_takes_no_writes_is_read_only() {
        use rustix::io::Errno;
        for errno in [Errno::NOSPC, Errno::DQUOT, Errno::ROFS, Errno::ACCESS, Errno::PERM] {
            let error = write_error(&errno.into());
            assert!(matches!(error, StoreError::ReadOnly(_)), "{errno:?}");
        }
        let error = write_error(&Errno::IO.into());
        assert!(matches!(error, StoreError::Unavailable(_)));
    }
}
