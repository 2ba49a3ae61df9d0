//! [`Needles`]: byte strings, mostly places of roots, that are looked for in many files. Called by
//! [`crate::outputs`] and [`crate::script`].

use std::io::{self, Read};

use memchr::memmem::Finder;

/// Byte strings that are looked for in many files.
///
/// Of those that begin alike, such as a home and what lies in it, the shortest is looked for, and the others
/// only where that is.
#[derive(Debug)]
pub struct Needles<'a> {
    heads: Vec<Head<'a>>,
    count: usize,
    /// Bytes that a needle may have in the piece before, at most.
    overlap: usize,
}

/// A needle that begins with no other, and what stands behind it in each that begins with it.
#[derive(Debug)]
struct Head<'a> {
    finder: Finder<'a>,
    rests: Vec<(usize, &'a [u8])>,
}

impl<'a> Needles<'a> {
    /// Makes ready to look for them.
    pub fn new(needles: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut needles: Vec<(usize, &[u8])> = needles.into_iter().enumerate().collect();
        let longest = needles.iter().map(|(_, needle)| needle.len()).max().unwrap_or(1);
        let count = needles.len();
        needles.sort_unstable_by_key(|(_, needle)| *needle);
        let mut heads: Vec<Head<'a>> = Vec::new();
        for (which, needle) in needles {
            let last = heads.last_mut();
            match last.and_then(|head| Some((needle.strip_prefix(head.finder.needle())?, head))) {
                Some((rest, head)) => head.rests.push((which, rest)),
                None => {
                    heads.push(Head { finder: Finder::new(needle), rests: vec![(which, b"")] });
                }
            }
        }
        Self { heads, count, overlap: longest.saturating_sub(1) }
    }

    /// One mark for each needle, none set.
    pub fn marks(&self) -> Vec<bool> {
        vec![false; self.count]
    }

    /// Sets the marks of those that occur in some bytes.
    pub fn mark(&self, bytes: &[u8], found: &mut [bool]) {
        for Head { finder, rests } in &self.heads {
            let mut left = bytes;
            while rests.iter().any(|(which, _)| !found[*which])
                && let Some(at) = finder.find(left)
            {
                let behind = &left[at + finder.needle().len()..];
                for (which, rest) in rests {
                    found[*which] |= behind.starts_with(rest);
                }
                left = &left[at + 1..];
            }
        }
    }
}

/// A reader that sets the marks of what occurs in the bytes that go through it.
#[derive(Debug)]
pub struct Scan<'a, R> {
    reader: R,
    needles: &'a Needles<'a>,
    /// The marks.
    pub found: Vec<bool>,
    /// The last bytes so far.
    tail: Vec<u8>,
}

impl<'a, R: Read> Scan<'a, R> {
    /// A reader around another one.
    pub fn new(reader: R, needles: &'a Needles<'a>) -> Self {
        Self { reader, needles, found: needles.marks(), tail: Vec::new() }
    }
}

impl<R: Read> Read for Scan<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        let (bytes, overlap) = (&buffer[..read], self.needles.overlap);
        if !self.tail.is_empty() {
            self.tail.extend_from_slice(&bytes[..read.min(overlap)]);
            self.needles.mark(&self.tail, &mut self.found);
        }
        self.needles.mark(bytes, &mut self.found);
        // A short piece was put behind the tail as a whole.
        if self.tail.is_empty() || read >= overlap {
            self.tail.clear();
            self.tail.extend_from_slice(&bytes[read.saturating_sub(overlap)..]);
        }
        self.tail.drain(..self.tail.len().saturating_sub(overlap));
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A reader that yields a few bytes at a time.
    struct Pieces<'a>(&'a [u8], Vec<usize>);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let most = self.1.pop().unwrap_or(1).max(1);
            let (piece, rest) = self.0.split_at(most.min(self.0.len()).min(buffer.len()));
            buffer[..piece.len()].copy_from_slice(piece);
            self.0 = rest;
            Ok(piece.len())
        }
    }

    #[test]
    fn what_begins_alike_is_told_apart() {
        let needles = [&b"/home/ann"[..], b"/home/ann/ws", b"/tmp", b"/home/ann/.cargo", b"/tmp"];
        let check = |text: &str, want: [bool; 5]| {
            let needles = Needles::new(needles);
            let mut found = needles.marks();
            needles.mark(text.as_bytes(), &mut found);
            assert_eq!(found, want, "{text}");
        };
        check("", [false; 5]);
        check("/home/an", [false; 5]);
        check("x/home/ann", [true, false, false, false, false]);
        check("/home/ann /home/ann/ws", [true, true, false, false, false]);
        check("/tmp/home/ann/.cargo", [true, false, true, true, true]);
    }

    proptest! {
        /// Few letters, so that needles occur, begin alike and overlap.
        #[test]
        fn all_that_occurs_is_found_wherever_pieces_end(
            needles in prop::collection::vec("[ab]{1,5}", 0..6),
            text in "[abc]{0,60}",
            sizes in prop::collection::vec(0..9_usize, 0..40),
        ) {
            let made = Needles::new(needles.iter().map(String::as_bytes));
            let mut scan = Scan::new(Pieces(text.as_bytes(), sizes), &made);
            let mut read = String::new();
            scan.read_to_string(&mut read).unwrap();
            let want: Vec<bool> = needles.iter().map(|needle| text.contains(needle)).collect();
            prop_assert_eq!(&scan.found, &want);
            let mut found = made.marks();
            made.mark(text.as_bytes(), &mut found);
            prop_assert_eq!(found, want);
            prop_assert_eq!(read, text);
        }
    }
}
