//! [`Source`]: a crate's source that comes from standard input, read once.
//!
//! It is part of the unit key, and the compiler gets the same bytes through a pipe when it has to run.
//! Called by [`crate::session`]; [`crate::compile`] hands it on.

use std::io::{self, IsTerminal, Read};

use kiln_storage::Digest;

use crate::args::Bypass;
use crate::limits::MAX_STDIN_BYTES;

/// What was read of standard input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Whether standard input ended there. Else the rest is still to be read.
    pub whole: bool,
}

impl Source {
    /// Names the source by content.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }

    /// The source as text; what is none is no source either, as the compiler will say.
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.bytes).ok()
    }
}

/// Reads standard input.
///
/// # Errors
/// A bypass, and what was read all the same, which the tool must get before the rest: a terminal, of
/// which nothing is read; a source over its bound; one that cannot be read.
pub fn read() -> Result<Source, (Bypass, Option<Source>)> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return Err((Bypass::new("stdin-source", "standard input is a terminal"), None));
    }
    read_from(stdin.lock())
}

fn read_from(from: impl Read) -> Result<Source, (Bypass, Option<Source>)> {
    let mut source = Source { bytes: Vec::new(), whole: false };
    let most = MAX_STDIN_BYTES as u64 + 1;
    let why = match from.take(most).read_to_end(&mut source.bytes) {
        Ok(_) if source.bytes.len() <= MAX_STDIN_BYTES => {
            source.whole = true;
            return Ok(source);
        }
        Ok(_) => format!("it has more than {MAX_STDIN_BYTES} bytes"),
        Err(error) => error.to_string(),
    };
    // Where nothing was read, the tool may try for itself.
    let begun = Some(source).filter(|source| !source.bytes.is_empty());
    Err((Bypass::new("stdin-source", why), begun))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_up_to_its_bound_is_whole() {
        let most = vec![b'x'; MAX_STDIN_BYTES];
        let source = read_from(&most[..]).unwrap();
        assert!(source.whole && source.bytes == most);
        assert_eq!(read_from(io::empty()).unwrap().bytes, b"");
    }

    #[test]
    fn what_was_read_of_a_longer_one_or_a_broken_one_is_kept() {
        let more = vec![b'x'; MAX_STDIN_BYTES + 10];
        let (bypass, source) = read_from(&more[..]).unwrap_err();
        let source = source.unwrap();
        assert_eq!((bypass.reason, source.whole), ("stdin-source", false));
        assert_eq!(source.bytes.len(), MAX_STDIN_BYTES + 1);

        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("gone"))
            }
        }
        let (_, source) = read_from((&b"begin"[..]).chain(Broken)).unwrap_err();
        assert_eq!(source, Some(Source { bytes: b"begin".to_vec(), whole: false }));
        assert_eq!(read_from(Broken).unwrap_err().1, None);
    }
}
