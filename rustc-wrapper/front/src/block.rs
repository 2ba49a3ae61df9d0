//! The block in a front's file that `kiln` fills in: a magic, then three texts of fixed room.
//!
//! Pure; used by `kiln`, which finds and fills it, and by the front, which reads it.

/// Room for each text, bytes; at least one zero ends it.
pub const TEXT_BYTES: usize = 1024;
/// Bytes of a block.
pub const BLOCK_BYTES: usize = MAGIC.len() + TEXTS * TEXT_BYTES;

/// Where a block begins. Its last digit is the version of the format.
const MAGIC: [u8; 32] = *b"\x7fKILN\xb1front of a build script\xc1\x00\x01";
/// Texts in a block.
const TEXTS: usize = 3;

/// A block that nobody has filled in yet.
pub const EMPTY: [u8; BLOCK_BYTES] = {
    let mut block = [0; BLOCK_BYTES];
    let mut at = 0;
    while at < MAGIC.len() {
        block[at] = MAGIC[at];
        at += 1;
    }
    block
};

/// What a front is told. No text holds a zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told<'a> {
    /// Path of the `kiln` that put it there; empty when nobody has filled the block in.
    pub kiln: &'a [u8],
    /// What `RUSTC_WRAPPER` was then; may be empty.
    pub wrapper: &'a [u8],
    /// Name of the real program beside the front.
    pub real: &'a [u8],
}

/// Why a program cannot be filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// The program does not have exactly one block.
    Program,
    /// A text holds a zero, or is longer than its room.
    Text,
}

/// The text at the beginning of its room, and what comes after that room.
fn text(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let (room, rest) = rest.split_at_checked(TEXT_BYTES)?;
    let end = room.iter().position(|byte| *byte == 0)?;
    Some((room.get(..end)?, rest))
}

/// Where the only block of a program begins.
fn place(program: &[u8]) -> Option<usize> {
    let mut places = program.windows(MAGIC.len()).enumerate().filter(|(_, bytes)| *bytes == MAGIC);
    let (place, _) = places.next()?;
    places.next().is_none().then_some(place)
}

impl<'a> Told<'a> {
    /// Reads a block; none when it is cut off, or a text has no end.
    pub fn of_block(block: &'a [u8]) -> Option<Self> {
        let (kiln, rest) = text(block.get(MAGIC.len()..)?)?;
        let (wrapper, rest) = text(rest)?;
        let (real, _) = text(rest)?;
        Some(Self { kiln, wrapper, real })
    }

    /// What a program with exactly one block is told; none of any other file.
    pub fn of_program(program: &'a [u8]) -> Option<Self> {
        let told = Self::of_block(program.get(place(program)?..)?)?;
        (!told.kiln.is_empty() && !told.real.is_empty()).then_some(told)
    }

    /// Fills in the block of a program.
    ///
    /// # Errors
    /// When it has no block, or a text does not fit; then nothing was written.
    pub fn fill(&self, program: &mut [u8]) -> Result<(), Unfit> {
        let texts = [self.kiln, self.wrapper, self.real];
        if texts.iter().any(|text| text.len() >= TEXT_BYTES || text.contains(&0)) {
            return Err(Unfit::Text);
        }
        let start = place(program).ok_or(Unfit::Program)?;
        let block = program.get_mut(start..start + BLOCK_BYTES).ok_or(Unfit::Program)?;
        let rooms = block.split_at_mut(MAGIC.len()).1.chunks_exact_mut(TEXT_BYTES);
        for (room, text) in rooms.zip(texts) {
            room.fill(0);
            room.iter_mut().zip(text).for_each(|(to, from)| *to = *from);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLD: Told<'_> = Told { kiln: b"/bin/kiln", wrapper: b"", real: b"x.real" };

    fn program() -> Vec<u8> {
        [b"before".as_slice(), &EMPTY, b"after"].concat()
    }

    #[test]
    fn what_is_filled_in_is_read() {
        let mut program = program();
        assert_eq!(Told::of_program(&program), None, "nobody has filled it in");
        let longest = [b'k'; TEXT_BYTES - 1];
        let first = Told { kiln: &longest, wrapper: &longest, real: &longest };
        first.fill(&mut program).unwrap();
        assert_eq!(Told::of_program(&program), Some(first));
        TOLD.fill(&mut program).unwrap();
        assert_eq!(Told::of_program(&program), Some(TOLD), "nothing of the longer texts is left");
        assert!(program.starts_with(b"before") && program.ends_with(b"after"));
    }

    #[test]
    fn what_does_not_fit_changes_nothing() {
        let full = [b'k'; TEXT_BYTES];
        for unfit in [
            Told { kiln: &full, ..TOLD },
            Told { wrapper: &full, ..TOLD },
            Told { real: &full, ..TOLD },
            Told { real: b"a\0b", ..TOLD },
        ] {
            let mut untouched = program();
            assert_eq!(unfit.fill(&mut untouched), Err(Unfit::Text));
            assert_eq!(untouched, program());
        }
        for bad in [vec![], b"no block".to_vec(), [program(), program()].concat()] {
            let mut untouched = bad.clone();
            assert_eq!(TOLD.fill(&mut untouched), Err(Unfit::Program));
            assert_eq!(untouched, bad);
        }
        let mut short = EMPTY[..BLOCK_BYTES - 1].to_vec();
        assert_eq!(TOLD.fill(&mut short), Err(Unfit::Program));
    }

    #[test]
    fn a_damaged_block_tells_nothing() {
        let mut program = EMPTY.to_vec();
        TOLD.fill(&mut program).unwrap();
        assert_eq!(Told::of_block(&program[..BLOCK_BYTES - 1]), None);
        program[MAGIC.len()..].fill(b'x');
        assert_eq!(Told::of_program(&program), None);
    }
}
