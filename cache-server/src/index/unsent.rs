//! How many results wait to be sent, noted in a file beside the index: so that it can be told when somebody removes
//! the index, or it cannot be read any more. `remote::unsent` notes it, [`super::open`] asks. It may be a moment
//! behind, and nothing depends on it but what is said.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Name of the file, in the directory of the index.
const FILE_NAME: &str = "index.unsent";

/// A file as long as no number is none of these.
const MAX_BYTES: u64 = 20;

fn path(dir: &Path) -> PathBuf {
    dir.join(FILE_NAME)
}

/// Notes how many wait; one that cannot be written is as good as none.
pub(crate) fn note(dir: &Path, count: u64) {
    let (path, new) = (path(dir), dir.join(format!("{FILE_NAME}.new")));
    let _ = match count {
        0 => fs::remove_file(path),
        _ => fs::write(&new, count.to_string()).and_then(|()| fs::rename(&new, path)),
    };
}

/// How many waited when that was noted last, once; none: nobody noted it.
pub(super) fn take(dir: &Path) -> Option<u64> {
    let mut text = String::new();
    let file = fs::File::open(path(dir)).ok()?;
    file.take(MAX_BYTES).read_to_string(&mut text).ok()?;
    note(dir, 0);
    text.parse().ok()
}
