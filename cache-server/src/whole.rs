//! [`read`]: a file that somebody named in a setting, read as a whole within a bound. Called by whoever looks after such
//! files: [`crate::config`], [`crate::tls`].

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// The bytes of a file.
///
/// # Errors
/// It cannot be read, is no file, or has more than `max` bytes; in words for people.
pub(crate) fn read(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    // A pipe would keep who opens it waiting.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(max + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > max {
        true => Err(io::Error::other(format!("it is over {max} bytes"))),
        false => Ok(bytes),
    }
}
