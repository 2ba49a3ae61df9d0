//! The table for unwinding of an [`Elf`]: where functions begin, in stripped files too. Called by
//! [`crate::objects::classify`].

use super::{Elf, PT_GNU_EH_FRAME, from, u32_at};

/// The table's version, and how its numbers are written: a place relative to itself, a count, and pairs of
/// places relative to the begin of the table. Linkers write no other form.
const FORM: &[u8] = &[1, 0x1b, 0x03, 0x3b];

/// A place in the table: an address and a description, both as differences.
const PAIR_BYTES: usize = 8;

impl Elf<'_> {
    /// The addresses at which functions begin, sorted; none where there is no table that is understood. They
    /// are what the compiler said: a hint, and damaged bytes make any of them.
    pub fn function_starts(&self) -> Vec<u64> {
        self.starts().unwrap_or_default()
    }

    fn starts(&self) -> Option<Vec<u64>> {
        let segment = self.segments(PT_GNU_EH_FRAME).next()?;
        let table = self.bytes_of(segment).ok()?;
        let rest = table.strip_prefix(FORM)?;
        let count = usize::try_from(u32_at(rest, 4).ok()?).ok()?;
        let pairs = from(rest, 8).ok()?.get(..count.checked_mul(PAIR_BYTES)?)?;
        let start = |pair: &[u8]| {
            let [b0, b1, b2, b3, ..] = *pair else { return segment.address };
            segment.address.wrapping_add_signed(i32::from_le_bytes([b0, b1, b2, b3]).into())
        };
        let mut starts: Vec<u64> = pairs.chunks_exact(PAIR_BYTES).map(start).collect();
        starts.sort_unstable();
        Some(starts)
    }
}

#[cfg(test)]
mod tests {
    use crate::objects::elf::Elf;
    use crate::objects::sample::Sample;

    #[test]
    fn functions_of_a_table() {
        let starts = |sample: &Sample| Elf::parse(&sample.bytes()).unwrap().function_starts();
        let code = vec![0x90; 20];
        let sample = Sample { code, functions: Some(vec![0, 12, 4]), ..Sample::library() };
        let found = starts(&sample);
        let bytes = sample.bytes();
        let begin = Elf::parse(&bytes).unwrap().code().unwrap()[0].address;
        assert_eq!(found, [begin, begin + 4, begin + 12]);
        assert_eq!(starts(&Sample { functions: None, ..sample.clone() }), [0; 0]);
        assert_eq!(starts(&Sample { functions: Some(Vec::new()), ..sample }), [0; 0]);
    }

    #[test]
    fn a_table_of_another_form_is_none() {
        let sample = Sample { functions: Some(vec![0]), code: vec![0x90], ..Sample::library() };
        let bytes = sample.bytes();
        let at = bytes.windows(4).position(|part| part == super::FORM).unwrap();
        for byte in at..at + 4 {
            let mut bytes = bytes.clone();
            bytes[byte] ^= 0x10;
            assert_eq!(Elf::parse(&bytes).unwrap().function_starts(), [0; 0]);
        }
        // More of them than there are.
        let mut bytes = bytes;
        bytes[at + 8] = 9;
        assert_eq!(Elf::parse(&bytes).unwrap().function_starts(), [0; 0]);
    }
}
