//! [`Mount`]: a place that is read-only or small, where the machine lets a test have one.

use std::path::{Path, PathBuf};

use crate::call::Call;
use crate::host::host;

/// A mount that is taken away again.
#[derive(Debug)]
pub struct Mount(PathBuf);

impl Mount {
    /// Runs `mount ARGS… AT`; the reason when this machine does not allow it.
    ///
    /// # Errors
    /// Why it cannot be.
    pub fn new(args: &[&str], at: &Path) -> Result<Self, String> {
        if !host().is_root {
            return Err("mounting needs root".into());
        }
        std::fs::create_dir_all(at).unwrap();
        let words: Vec<&str> = args.iter().copied().chain(at.to_str()).collect();
        let done = Call::new(Path::new("/usr/bin/mount"), Path::new("/"), &words).run();
        match done.status.success() {
            true => Ok(Self(at.to_owned())),
            false => Err(format!("mount: {}", done.stderr.trim())),
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let at = self.0.to_str().unwrap();
        Call::new(Path::new("/usr/bin/umount"), Path::new("/"), &["-l", at]).run();
    }
}
