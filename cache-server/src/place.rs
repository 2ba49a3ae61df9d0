//! The server's place on the machine: its directory, the lock on it, and its socket. Whoever holds
//! the lock owns the socket.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _,
    PermissionsExt as _,
};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::{FlockOperation, flock};

use crate::limits::{CONNECTION_BACKLOG, LOCK_RETRY, LOCK_WAIT};
use crate::serve::ServeError;

/// Name of the lock file in the directory.
const LOCK_NAME: &str = "server.lock";

/// Name of the socket of a server that listens on TCP alone: for who looks after it.
pub(crate) const ADMIN_SOCKET: &str = "admin.sock";

/// What tells a file from another one that later has its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inode(u64, u64);

impl Inode {
    /// The inode that a path leads to now.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let meta = fs::symlink_metadata(path).ok()?;
        Some(Self(meta.dev(), meta.ino()))
    }
}

/// The directory, made if it is not there, with the lock on it held.
#[derive(Debug)]
pub(crate) struct Place {
    dir: PathBuf,
    inode: Option<Inode>,
    _lock: File,
}

impl Place {
    /// Takes the lock of a directory; waits a moment for a server that is just leaving.
    ///
    /// # Errors
    /// [`ServeError::AlreadyRunning`] when another server has it; [`ServeError::Directory`].
    pub(crate) fn take(dir: &Path, socket: Option<&Path>) -> Result<Self, ServeError> {
        let begun = Instant::now();
        loop {
            if let Some(lock) = try_lock(dir)? {
                return Ok(Self { dir: dir.to_owned(), inode: Inode::of(dir), _lock: lock });
            }
            // One that answers, or that has no socket to answer on, is there to stay.
            let answers = socket.is_none_or(|path| UnixStream::connect(path).is_ok());
            if answers || begun.elapsed() > LOCK_WAIT {
                return Err(ServeError::AlreadyRunning);
            }
            std::thread::sleep(LOCK_RETRY);
        }
    }

    /// Whether the directory is still the one that was locked.
    pub(crate) fn is_there(&self) -> bool {
        self.inode.is_some() && Inode::of(&self.dir) == self.inode
    }
}

fn try_lock(dir: &Path) -> Result<Option<File>, ServeError> {
    let failed = |source| ServeError::Directory { path: dir.to_owned(), source };
    let path = dir.join(LOCK_NAME);
    loop {
        make_private_dir(dir).map_err(failed)?;
        let opened = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path);
        let lock = match opened {
            // The directory was removed between the two calls.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !dir.exists() => continue,
            other => other.map_err(failed)?,
        };
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(errno) => return Err(failed(errno.into())),
        }
        // A lock on a file that was removed meanwhile keeps nobody out.
        let meta = lock.metadata().map_err(failed)?;
        if Inode::of(&path) == Some(Inode(meta.dev(), meta.ino())) {
            return Ok(Some(lock));
        }
    }
}

/// Makes a directory for its owner only, with its parents; leaves one that is there.
pub(crate) fn make_private_dir(dir: &Path) -> io::Result<()> {
    if let Some(parent) = dir.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !dir.is_dir() => Err(error),
        _ => Ok(()),
    }
}

/// A bound unix socket. The file goes when this is dropped, if it is still this one.
#[derive(Debug)]
pub(crate) struct Socket {
    path: PathBuf,
    inode: Option<Inode>,
}

impl Socket {
    /// Binds a socket, over a stale one if there is one.
    ///
    /// # Errors
    /// [`ServeError::SocketPath`] when something stands there that is no socket, or somebody
    /// answers there; [`ServeError::Listen`].
    pub(crate) fn bind(path: &Path) -> Result<(Self, UnixListener), ServeError> {
        let refused = |why| Err(refused(path, why));
        let failed = |source| listen_failed(path, source);
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
            Ok(meta) if !meta.file_type().is_socket() => {
                return refused("something that is not a socket is there");
            }
            Ok(_) if UnixStream::connect(path).is_ok() => {
                return refused("another server answers there");
            }
            Ok(_) => fs::remove_file(path).map_err(failed)?,
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        rustix::net::listen(&listener, CONNECTION_BACKLOG).map_err(|error| failed(error.into()))?;
        let socket = Self { path: path.to_owned(), inode: Inode::of(path) };
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok((socket, listener))
    }

    /// Binds a socket outside of the server's directory, in one that is made and has to be the
    /// user's own.
    ///
    /// # Errors
    /// As [`Socket::bind`]; [`ServeError::SocketPath`] when others may write to the directory.
    pub(crate) fn bind_stand_in(path: &Path, uid: u32) -> Result<(Self, UnixListener), ServeError> {
        let parent = path.parent().unwrap_or(Path::new("/"));
        let failed = |source| listen_failed(path, source);
        make_private_dir(parent).map_err(failed)?;
        let meta = fs::symlink_metadata(parent).map_err(failed)?;
        if !meta.is_dir() || meta.uid() != uid {
            return Err(refused(path, "its directory belongs to somebody else"));
        }
        if meta.mode() & 0o022 != 0 {
            return Err(refused(path, "others may write to its directory"));
        }
        Self::bind(path)
    }

    /// Whether the file is still this socket.
    pub(crate) fn is_there(&self) -> bool {
        self.inode.is_some() && Inode::of(&self.path) == self.inode
    }
}

fn refused(path: &Path, why: &'static str) -> ServeError {
    ServeError::SocketPath { path: path.to_owned(), why }
}

fn listen_failed(path: &Path, source: io::Error) -> ServeError {
    ServeError::Listen { place: path.display().to_string(), source }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.is_there() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    #[test]
    fn the_lock_is_exclusive_and_its_directory_private() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("a/kiln");
        let place = Place::take(&dir, None).unwrap();
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
        assert!(matches!(Place::take(&dir, None), Err(ServeError::AlreadyRunning)));
        assert!(place.is_there());
        fs::rename(&dir, temp.path().join("b")).unwrap();
        assert!(!place.is_there());
        let _other = Place::take(&dir, None).unwrap();
        assert!(!place.is_there());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_foreign_file_is_not() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("s.sock");
        drop(UnixListener::bind(&path).unwrap());
        let (socket, _listener) = Socket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(socket.is_there());
        let second = Socket::bind(&path);
        assert!(matches!(second, Err(ServeError::SocketPath { .. })));
        fs::remove_file(&path).unwrap();
        fs::write(&path, b"mine").unwrap();
        assert!(!socket.is_there());
        drop(socket);
        let refused = Socket::bind(&path);
        assert!(matches!(refused, Err(ServeError::SocketPath { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"mine");
    }

    #[test]
    fn the_directory_of_a_stand_in_is_private() {
        let temp = tempfile::tempdir().unwrap();
        let own = temp.path().join("own");
        let bind = |uid| Socket::bind_stand_in(&own.join("s.sock"), uid).map(drop);
        bind(uid()).unwrap();
        assert_eq!(fs::metadata(&own).unwrap().mode() & 0o777, 0o700);
        assert!(matches!(bind(uid() + 1), Err(ServeError::SocketPath { .. })));
        fs::set_permissions(&own, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(bind(uid()), Err(ServeError::SocketPath { .. })));
    }
}
