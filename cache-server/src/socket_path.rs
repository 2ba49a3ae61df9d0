//! Where the socket of a local server is. Server and wrapper both ask here, so that they meet.
//! Pure: no I/O, no environment.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use kiln_storage::Digest;

use crate::limits::MAX_SOCKET_PATH_BYTES;

/// Name of the socket in its directory.
pub const SOCKET_NAME: &str = "kiln.sock";

/// The path of the socket of the server of `kiln_dir`.
///
/// It is `<kiln_dir>/kiln.sock`, or where that path is too long for a socket a short stand-in,
/// `<runtime_dir>/kiln-<uid>/<16 hexadecimal characters>.sock`. `runtime_dir` is
/// `XDG_RUNTIME_DIR` where it is set; without one, or when it is too long as well, `/tmp`. The
/// directory of a stand-in must belong to the user and to nobody else: whoever connects or binds
/// checks that.
pub fn socket_path(kiln_dir: &Path, runtime_dir: Option<&Path>, uid: u32) -> PathBuf {
    let fits = |path: &Path| path.as_os_str().len() <= MAX_SOCKET_PATH_BYTES;
    let own = kiln_dir.join(SOCKET_NAME);
    if fits(&own) {
        return own;
    }
    let mut name = Digest::of(kiln_dir.as_os_str().as_bytes()).to_string();
    name.truncate(16);
    let stand_in = |base: &Path| user_dir(base, uid).join(format!("{name}.sock"));
    runtime_dir
        .filter(|base| base.is_absolute())
        .map(stand_in)
        .filter(|path| fits(path))
        .unwrap_or_else(|| stand_in(Path::new("/tmp")))
}

/// The directory that a user has below one that may be everybody's, `<base>/kiln-<uid>`. Whoever uses it looks first whose
/// it is.
pub fn user_dir(base: &Path, uid: u32) -> PathBuf {
    base.join(format!("kiln-{uid}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_paths_stay_and_long_ones_get_a_stand_in() {
        let short = Path::new("/home/u/.cache/kiln");
        assert_eq!(socket_path(short, None, 7), short.join("kiln.sock"));

        let long = PathBuf::from(format!("/{}", "d".repeat(120)));
        let run = Path::new("/run/user/7");
        let path = socket_path(&long, Some(run), 7);
        assert!(path.starts_with("/run/user/7/kiln-7"), "{path:?}");
        assert_eq!(path, socket_path(&long, Some(run), 7));
        assert_ne!(path, socket_path(&long.join("other"), Some(run), 7));

        for unusable in [None, Some(long.as_path()), Some(Path::new("relative"))] {
            let path = socket_path(&long, unusable, 7);
            assert!(path.starts_with("/tmp/kiln-7"), "{path:?}");
        }
    }
}
