//! [`Scratch`]: a directory for the files of one run, and the observation of the run.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::env::Env;
use crate::observe::Watch;
use crate::stamp;

/// A directory for the files of one run, removed at its end.
#[derive(Debug)]
pub struct Scratch {
    /// Where it is.
    pub path: PathBuf,
    /// The observation of this run, or why there is none.
    pub watch: Result<Watch, String>,
}

impl Scratch {
    /// In the state directory, or where that is full, read-only or has a path that cannot be
    /// written into an argument, in a directory for temporary files. None where no place will do:
    /// a linker whose list cannot be written fails, and with it the build.
    pub fn create(env: &Env, dir: &Path) -> Option<Self> {
        let name = format!("kiln-run-{}-{}", std::process::id(), stamp::now_ns());
        let plain = |path: &PathBuf| {
            path.to_str().is_some_and(|p| {
                !p.contains([',', '=', '"', '\\']) && !p.contains(char::is_whitespace)
            })
        };
        let places = [Some(dir.join("tmp")), env.absolute("TMPDIR"), Some("/tmp".into())];
        places.into_iter().flatten().filter(plain).find_map(|place| {
            std::fs::create_dir_all(&place).ok()?;
            let path = place.join(&name);
            DirBuilder::new().mode(0o700).create(&path).ok()?;
            let private = Self { path, watch: Err(String::new()) };
            private.has_room().then_some(private)
        })
    }

    fn has_room(&self) -> bool {
        rustix::fs::statvfs(&self.path).is_ok_and(|fs| {
            fs.f_bavail.saturating_mul(fs.f_frsize) >= crate::limits::MIN_SCRATCH_BYTES
        })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
